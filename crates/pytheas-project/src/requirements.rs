//! `requirements.txt` (pip's requirements file format): read to know what is asked for, never to
//! resolve it; that is uv's work.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use miette::Diagnostic;
use pep508_rs::{Requirement, VerbatimUrl};

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
}

/// A requirements file that cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RequirementsError {
    /// It cannot be read.
    #[error("cannot read `{}`{}", path.display(), named_by(from.as_ref()))]
    #[diagnostic(code(pytheas::project::requirements), help("{}", help_for(source)))]
    Read {
        /// The file.
        path: PathBuf,
        /// The file and line that name it.
        from: Option<(PathBuf, usize)>,
        /// What the system says.
        source: io::Error,
    },
    /// It names itself, perhaps by way of other files; pip refuses that, too.
    #[error("`{}` names itself: {}", path.display(), chain(path, through))]
    #[diagnostic(
        code(pytheas::project::requirements::circular),
        help(
            "take one of these lines out, or move what both files share to a third that both name"
        )
    )]
    Circular {
        /// The file.
        path: PathBuf,
        /// Each file on the way back to it, with the line that names the next one.
        through: Vec<(PathBuf, usize)>,
    },
    /// Its text is not UTF-8.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(Box<crate::source::InputError>),
}

fn help_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "save it as UTF-8 (PowerShell's `>` writes UTF-16)",
        io::ErrorKind::PermissionDenied => "check its permissions",
        _ => "check the path; it is relative to the file that names it",
    }
}

fn chain(path: &Path, through: &[(PathBuf, usize)]) -> String {
    let mut parts: Vec<String> = through
        .iter()
        .map(|(file, line)| format!("`{}` line {line}", file.display()))
        .collect();
    parts.push(format!("`{}`", path.display()));
    parts.join(" → ")
}

fn named_by(from: Option<&(PathBuf, usize)>) -> String {
    from.map_or(String::new(), |(file, line)| {
        format!(", named by `{}` line {line}", file.display())
    })
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Requirement,
    Constraint,
}

fn read_into(
    path: &Path,
    from: Option<(PathBuf, usize)>,
    kind: Kind,
    result: &mut Requirements,
    walk: &mut Walk,
) -> Result<(), RequirementsError> {
    let text = crate::source::text(path).map_err(|error| match error {
        crate::source::InputError::File(crate::manifest::ManifestError::Read { path, source }) => {
            RequirementsError::Read { path, from, source }
        }
        other => RequirementsError::Input(Box::new(other)),
    })?;
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
    for (line, text) in logical_lines(&text) {
        match parse_line(&text) {
            Line::File(kind_named, name) => {
                // A file named by a constraints file holds constraints, whichever option names it.
                let nested = if kind == Kind::Constraint {
                    kind
                } else {
                    kind_named
                };
                if name.contains("://") {
                    result.options.insert(format!(
                        "{} {name}",
                        if nested == Kind::Constraint {
                            "-c"
                        } else {
                            "-r"
                        }
                    ));
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
                result.indexes.extend(index_address(&option));
                result.options.insert(without_credentials(&option));
            }
            Line::Requirement(requirement, hashes) => {
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

enum Line {
    File(Kind, String),
    /// An option, perhaps with credentials.
    Option(String),
    /// A requirement, and the hashes its files may have.
    Requirement(String, Vec<String>),
}

/// Lines without comments and with continuations joined, each with its number from 1.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut result = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        // pip: a comment starts at the line's start or after white space.
        let comment = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| *at == 0 || line[..*at].ends_with(char::is_whitespace));
        let content = comment.map_or(line, |at| &line[..at]);
        if let (Some(continued), None) = (content.strip_suffix('\\'), comment) {
            joined.push_str(continued);
            open = Some((number, joined));
            continue;
        }
        joined.push_str(content);
        result.push((number, joined.trim().to_owned()));
    }
    result.extend(open.map(|(number, text)| (number, text.trim().to_owned())));
    result.retain(|(_, text)| !text.is_empty());
    result
}

fn parse_line(text: &str) -> Line {
    if let Some(name) = option_value(text, "-r", "--requirement") {
        return Line::File(Kind::Requirement, name);
    }
    if let Some(name) = option_value(text, "-c", "--constraint") {
        return Line::File(Kind::Constraint, name);
    }
    if option_value(text, "-e", "--editable").is_none() && text.starts_with('-') {
        return Line::Option(squeezed(text));
    }
    // Options of one requirement (`--hash=…`) say how it is checked, not what is asked for.
    let mut parts = text.split(" --");
    let requirement = parts.next().unwrap_or(text).trim();
    let hash = |option: &str| {
        let value = option.strip_prefix("hash")?.trim_start_matches(['=', ' ']);
        Some(value.trim().to_ascii_lowercase())
    };
    Line::Requirement(normalise(requirement), parts.filter_map(hash).collect())
}

fn option_value(text: &str, short: &str, long: &str) -> Option<String> {
    let rest = text
        .strip_prefix(long)
        .or_else(|| text.strip_prefix(short))?;
    let value = rest.trim_start().strip_prefix('=').unwrap_or(rest).trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The index that an option names.
pub(crate) fn index_address(option: &str) -> Option<String> {
    ["--index-url", "--extra-index-url"]
        .iter()
        .find_map(|name| option_value(option, name, "-i"))
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text with `user:password@` taken out of each address.
pub(crate) fn without_credentials(text: &str) -> String {
    let word = |word: &str| {
        let Some((scheme, rest)) = word.split_once("://") else {
            return word.to_owned();
        };
        let (host, path) = rest
            .split_once('/')
            .map_or((rest, None), |(host, path)| (host, Some(path)));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        match path {
            Some(path) => format!("{scheme}://{host}/{path}"),
            None => format!("{scheme}://{host}"),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The text as a PEP 508 requirement; none when it is something else (a path, an address).
pub(crate) fn parse(text: &str) -> Option<Requirement<VerbatimUrl>> {
    // pep508_rs 0.9 panics on names that end with `-`, `_` or `.`: those are not given to it.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let names_end_well = without_wildcards(text)
        .split(|c: char| !is_name(c))
        .all(|word| !word.ends_with(['-', '_', '.']));
    if !text.is_ascii() || !names_end_well {
        return None;
    }
    Requirement::from_str(text).ok()
}

/// `==24.*` as `==24`: a version may end like that, a name may not.
fn without_wildcards(text: &str) -> String {
    let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '!' | '+');
    let mut result = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(".*") {
        result.push_str(head);
        let operator = head.trim_end_matches(is_version);
        let operator = operator.trim_end_matches(['\'', '"']).trim_end();
        if !operator.ends_with('=') {
            result.push_str(".*");
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

/// One spelling for each PEP 508 requirement; what is none (a path) stays as it is.
pub(crate) fn normalise(text: &str) -> String {
    match parse(text) {
        Some(requirement) => without_credentials(&requirement.to_string()),
        None => without_credentials(&squeezed(text)),
    }
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
    fn versions_may_end_with_a_wildcard_and_names_may_not() {
        for (text, expected) in [
            ("black==24.*", true),
            ("black>=23,!=24.1.*", true),
            ("black == 24.* ; python_version == '3.*'", true),
            ("black; extra == '1.*'", true),
            ("a.*", false),
            ("a1.*", false),
            ("a.", false),
            ("a[b.*]==1", false),
        ] {
            assert_eq!(parse(text).is_some(), expected, "{text}");
        }
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

    proptest::proptest! {
        #[test]
        fn any_requirement_is_read_without_a_panic(text in "[a-z]{0,3}[-_.\\[\\]a-z0-9 ,;@<>=~!'()*é/:]{0,40}") {
            parse(&text);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\\n\\\\#é]{0,200}") {
            for (_, line) in logical_lines(&text) {
                parse_line(&line);
            }
        }
    }
}
