//! `requirements.txt` (pip's requirements file format): read to know what is asked for, never to
//! resolve it; that is uv's work. Here the files are walked that name each other.

mod content;
mod error;
mod line;
mod spelling;
mod wrong;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use content::{expanded, logical_lines, text, variable};
pub use error::RequirementsError;
use line::{Kind, Line, parse_line, requirement_of, with_folder};
pub(crate) use line::{index_address, without_checkout};
pub use spelling::parse;
use spelling::squeezed;
pub(crate) use spelling::{normalise, without_credentials};
pub(crate) use wrong::first_wrong;

/// What a requirements file and those it names ask for, each in one spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// Requirements, with those of files named by `-r`.
    pub(crate) requirements: BTreeSet<String>,
    /// Constraints, from files named by `-c`.
    pub(crate) constraints: BTreeSet<String>,
    /// Options such as `--extra-index-url`, without credentials.
    pub(crate) options: BTreeSet<String>,
    /// The addresses of indexes as they are written, with credentials: never stored or shown.
    pub(crate) indexes: BTreeSet<String>,
    /// Hashes (`sha256:…`) that the files of a package may have, by its name or its address.
    pub(crate) hashes: BTreeMap<String, BTreeSet<String>>,
    /// The same lines for uv, which reads less than pip: files joined, lines that go on joined,
    /// variables expanded, UTF-8. With credentials: never stored or shown.
    pub(crate) plain: PlainText,
}

/// Requirements and constraints as uv reads them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct PlainText {
    pub(crate) requirements: String,
    pub(crate) constraints: String,
}

impl std::fmt::Debug for PlainText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainText")
    }
}

impl PlainText {
    fn push(&mut self, kind: Kind, line: &str) {
        let to = match kind {
            Kind::Requirement => &mut self.requirements,
            Kind::Constraint => &mut self.constraints,
        };
        to.push_str(line);
        to.push('\n');
    }
}

/// Reads `path` and the files it names.
pub(crate) fn read(path: &Path) -> Result<Requirements, RequirementsError> {
    let mut result = Requirements::default();
    let mut walk = Walk::default();
    read_into(path, None, Kind::Requirement, &mut result, &mut walk)?;
    Ok(result)
}

/// Where the reader is.
#[derive(Default)]
struct Walk {
    /// The files that were read.
    seen: BTreeSet<(PathBuf, Kind)>,
    /// The files that are being read, outermost first: which file it is, how it was named, and
    /// the line that names the next.
    open: Vec<(PathBuf, PathBuf, usize)>,
}

fn read_into(
    path: &Path,
    from: Option<(PathBuf, usize)>,
    kind: Kind,
    result: &mut Requirements,
    walk: &mut Walk,
) -> Result<(), RequirementsError> {
    let text = text(path, from)?;
    let itself = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(at) = walk.open.iter().position(|(file, ..)| *file == itself) {
        return Err(RequirementsError::Circular {
            path: walk.open[at].1.clone(),
            through: walk.open[at..]
                .iter()
                .map(|(_, name, line)| (name.clone(), *line))
                .collect(),
        });
    }
    if !walk.seen.insert((itself.clone(), kind)) {
        return Ok(()); // two files name this one
    }
    walk.open.push((itself, path.to_owned(), 0));
    let dir = path.parent().unwrap_or(Path::new("."));
    for (line, written) in logical_lines(&text) {
        let text = expanded(&written, &variable);
        let (text, written) = (without_checkout(&text), without_checkout(&written));
        match parse_line(text) {
            Line::File(kind_named, name) => {
                // A file named by a constraints file holds constraints, whichever option names it.
                let nested = if kind == Kind::Constraint {
                    kind
                } else {
                    kind_named
                };
                if name.contains("://") {
                    let option = if nested == Kind::Constraint {
                        "-c"
                    } else {
                        "-r"
                    };
                    result
                        .options
                        .insert(without_credentials(&squeezed(written)));
                    result.plain.push(kind, &format!("{option} {name}"));
                } else {
                    if let Some(open) = walk.open.last_mut() {
                        open.2 = line;
                    }
                    read_into(
                        &dir.join(name),
                        Some((path.to_owned(), line)),
                        nested,
                        result,
                        walk,
                    )?;
                }
            }
            Line::Option(option) => {
                result.plain.push(kind, &with_folder(&option, dir));
                let option = squeezed(written); // an address may hold a secret by its variable
                result.indexes.extend(index_address(&option));
                result.options.insert(without_credentials(&option));
            }
            Line::Requirement(requirement, hashes) => {
                result.plain.push(kind, text);
                // What a variable holds may be a secret of the address, or all of the address.
                let requirement = if text.contains("://") {
                    requirement_of(written)
                } else {
                    requirement
                };
                if !hashes.is_empty() {
                    // An address alone has no name: its hashes go by the address.
                    let key = parse(&requirement)
                        .map_or_else(|| requirement.clone(), |parsed| parsed.name.to_string());
                    result.hashes.entry(key).or_default().extend(hashes);
                }
                let set = match kind {
                    Kind::Requirement => &mut result.requirements,
                    Kind::Constraint => &mut result.constraints,
                };
                set.insert(requirement);
            }
        }
    }
    walk.open.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requirements.txt");
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(
            found
                .requirements
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn requirements_have_one_spelling() {
        check(
            "FastAPI\n# comment\nuvicorn [standard] >= 0.3 # why\n",
            &["fastapi", "uvicorn[standard]>=0.3"],
        );
        check("a>=1,\\\n  <2\n", &["a>=1,<2"]);
        check("a==1 --hash=sha256:00 \\\n  --hash=sha256:11\n", &["a==1"]);
        check("\u{feff}a\r\nb\r\n", &["a", "b"]);
        check(
            "x @ git+https://user:pw@example.org/x@v1\n",
            &["x @ git+https://example.org/x@v1"],
        );
        check("./libs/mine\n", &["./libs/mine"]);
        check("", &[]);
    }

    #[test]
    fn hashes_of_a_bare_address_go_by_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requirements.txt");
        let text = "https://h.example/six-1.whl --hash=sha256:AA\nb==1 --hash=sha256:bb\n";
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        let keys: Vec<String> = read(&path).unwrap().hashes.into_keys().collect();
        assert_eq!(keys, ["b", "https://h.example/six-1.whl"]);
    }

    #[test]
    fn uv_gets_what_pip_reads_joined_and_expanded() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            pytheas_durable::replace(&dir.path().join(name), bytes).unwrap()
        };
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let text = "idna \\\r\n  ==3.7 # why\r\n-r sub/more.txt\r\nb==1 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n";
        let utf16: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        write("requirements.txt", &utf16);
        write("sub/more.txt", b"-f ./wheels\n-c limits.txt\nc[x]\n");
        write("sub/limits.txt", b"c<2\n");
        let found = read(&dir.path().join("requirements.txt")).unwrap();
        let place = dir.path().display().to_string();
        insta::assert_snapshot!(found.plain.requirements.replace(&place, "DIR"), @"
        idna   ==3.7
        --find-links DIR/sub/./wheels
        c[x]
        b==1   --hash=sha256:aa   --hash=sha256:bb
        ");
        assert_eq!(found.plain.constraints, "c<2\n");
        assert!(found.requirements.contains("idna==3.7"));
        assert_eq!(found.hashes["b"].len(), 2);
    }

    #[test]
    fn the_value_of_a_variable_in_an_address_is_not_stored() {
        // Whatever is set wherever tests run.
        let value = std::env::var("PATH").unwrap();
        let lines = [
            "a @ https://h.example/${PATH}/a.whl",
            "b @ ${PATH}://h.example/b.whl",
        ];
        check(&lines.join("\n"), &lines);
        assert!(!normalise(lines[0]).contains(&value));
        check(
            "c>1; python_version<'4'",
            &["c>1 ; python_full_version < '4'"],
        );
    }

    #[test]
    fn nested_files_are_read_once_and_named_when_missing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            pytheas_durable::replace(&dir.path().join(name), text.as_bytes()).unwrap()
        };
        write(
            "requirements.txt",
            "-r base.txt\n-r shared.txt\n-c limits.txt\n--extra-index-url https://u:p@mirror.example/simple\na\n",
        );
        write("base.txt", "-r shared.txt\nb\n");
        write("shared.txt", "a\n");
        write("limits.txt", "B<3\n");
        let found = read(&dir.path().join("requirements.txt")).unwrap();
        assert_eq!(
            found.requirements,
            BTreeSet::from(["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(found.constraints, BTreeSet::from(["b<3".to_owned()]));
        assert_eq!(
            found.options,
            BTreeSet::from(["--extra-index-url https://mirror.example/simple".to_owned()])
        );

        write("base.txt", "b\n-r ./more/../requirements.txt\n");
        std::fs::create_dir(dir.path().join("more")).unwrap();
        let error = read(&dir.path().join("requirements.txt")).unwrap_err();
        let text = error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text, @"`DIR/requirements.txt` names itself: `DIR/requirements.txt` line 1 → `DIR/base.txt` line 2 → `DIR/requirements.txt`");

        write("base.txt", "\n-r missing.txt\n");
        let error = read(&dir.path().join("requirements.txt")).unwrap_err();
        assert!(error.to_string().ends_with("base.txt` line 2"), "{error}");
    }
}
