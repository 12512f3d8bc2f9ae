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
    /// A line that asks for nothing.
    #[error("`{}` line {line}: `{text}` is no requirement{reason}", path.display())]
    #[diagnostic(code(pytheas::project::requirements::line))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is written.
        text: String,
        /// What is wrong with it, after a colon; nothing where that cannot be told.
        reason: String,
        /// What to do.
        #[help]
        help: String,
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
        match parse_line(&text) {
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
                        .insert(without_credentials(&squeezed(&written)));
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
                let option = squeezed(&written); // an address may hold a secret by its variable
                result.indexes.extend(index_address(&option));
                result.options.insert(without_credentials(&option));
            }
            Line::Requirement(requirement, hashes) => {
                result.plain.push(kind, &text);
                // What a variable holds may be a secret of the address, or all of the address.
                let requirement = if text.contains("://") {
                    requirement_of(&written)
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

/// The file's text. Windows' tools write UTF-16 with its mark, which pip reads, too.
fn text(path: &Path, from: Option<(PathBuf, usize)>) -> Result<String, RequirementsError> {
    use crate::{manifest::ManifestError, source::InputError};
    let error = match crate::source::text(path) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    match error {
        InputError::File(ManifestError::Read { path, source }) => {
            Err(RequirementsError::Read { path, from, source })
        }
        other => match std::fs::read(path).ok().and_then(|bytes| utf16(&bytes)) {
            Some(text) => Ok(text),
            None => Err(RequirementsError::Input(Box::new(other))),
        },
    }
}

/// UTF-16 with a byte order mark as text.
fn utf16(bytes: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, rest) = bytes[2..].as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `${NAME}` (capitals, digits, `_`) as the variable's value; one that is not set stays, as in pip.
fn expanded(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        match after
            .split_once('}')
            .filter(|(name, _)| is_variable(name))
            .and_then(|(name, after)| Some((variable(name)?, after)))
        {
            Some((value, after)) => {
                result.push_str(&value);
                rest = after;
            }
            None => {
                result.push_str("${");
                rest = after;
            }
        }
    }
    result + rest
}

fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(allowed)
}

/// `--find-links FOLDER` is relative to the file that says so.
fn with_folder(option: &str, dir: &Path) -> String {
    match option_value(option, "-f", "--find-links") {
        Some(value) if !value.contains("://") => {
            format!("--find-links {}", dir.join(value).display())
        }
        _ => option.to_owned(),
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

/// The first line of `path` and the files it names that asks for nothing: asked when uv did not
/// understand one, since uv counts characters and not lines.
pub(crate) fn first_wrong(path: &Path) -> Option<RequirementsError> {
    fn find(path: &Path, open: &mut Vec<PathBuf>) -> Option<RequirementsError> {
        if open.iter().any(|other| other == path) {
            return None;
        }
        open.push(path.to_owned());
        let content = text(path, None).ok()?;
        for (line, written) in logical_lines(&content) {
            let text = expanded(&written, &variable);
            let wrong = match parse_line(&text) {
                Line::File(_, name) if !name.contains("://") => {
                    let dir = path.parent().unwrap_or(Path::new("."));
                    if let Some(found) = find(&dir.join(name), open) {
                        return Some(found);
                    }
                    None
                }
                Line::Requirement(requirement, _) if !is_place(&requirement) => {
                    reason(&requirement)
                }
                _ => None,
            };
            if let Some((reason, help)) = wrong {
                return Some(RequirementsError::Line {
                    path: path.to_owned(),
                    line,
                    text: without_credentials(&written.chars().take(120).collect::<String>()),
                    reason,
                    help,
                });
            }
        }
        None
    }
    find(path, &mut Vec::new())
}

/// Whether a line names a file, a folder or an address.
fn is_place(text: &str) -> bool {
    let text = text.split([';', '[']).next().unwrap_or(text).trim();
    text.starts_with('-')
        || text.contains(" @ ")
        || text.contains("://")
        || text.contains(['/', '\\'])
        || [".whl", ".zip", ".gz", ".bz2", ".xz"]
            .iter()
            .any(|end| text.ends_with(end))
        || text.trim_start_matches('.').is_empty()
}

/// What is wrong with a text that is no requirement, and what to do.
fn reason(text: &str) -> Option<(String, String)> {
    if parse(text).is_some() {
        return None;
    }
    let help = "write a package's name, with versions if you want some: `idna>=3.6,<4`";
    let open = text
        .split_once("${")
        .and_then(|(_, rest)| rest.split_once('}'));
    if let Some((name, _)) = open.filter(|(name, _)| is_variable(name)) {
        let help = format!("set `{name}`, or write its value there");
        return Some((format!(": the variable `{name}` is not set"), help));
    }
    if text.contains('\0') {
        let help = "save it as UTF-8; it seems to be UTF-16 without its mark".to_owned();
        return Some((" but has bytes that are zero".to_owned(), help));
    }
    let name_ends = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(text.len());
    let rest = text[name_ends..].trim_start();
    let help = match rest.strip_prefix('=') {
        Some(version) if !version.starts_with('=') && name_ends > 0 => {
            format!(
                "one version is written with `==`: `{}=={}`",
                &text[..name_ends],
                version.trim()
            )
        }
        _ if name_ends > 0 && rest.starts_with(|c: char| c.is_ascii_digit()) => {
            format!(
                "one version is written with `==`: `{}=={rest}`",
                &text[..name_ends]
            )
        }
        _ => help.to_owned(),
    };
    Some((String::new(), help))
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

/// The requirement of a line, without its options.
fn requirement_of(line: &str) -> String {
    normalise(line.split(" --").next().unwrap_or(line).trim())
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
    // Parsing puts variables' values into addresses: they may be secrets.
    match parse(text).filter(|_| !text.contains("${")) {
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

        let value = |name: &str| (name == "V").then(|| "1".to_owned());
        assert_eq!(expanded("a==${V}.${W}${v}${", &value), "a==1.${W}${v}${");
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
    fn a_line_that_asks_for_nothing_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requirements.txt");
        let shown = |text: &str| {
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
            let error = first_wrong(&path)?;
            let help = miette::Diagnostic::help(&error).unwrap().to_string();
            let error = error
                .to_string()
                .replace(&dir.path().display().to_string(), "DIR");
            Some(format!("{error}\n  {help}"))
        };
        insta::assert_snapshot!(shown("a\n\nidna=3.7\n").unwrap(), @"
        `DIR/requirements.txt` line 3: `idna=3.7` is no requirement
          one version is written with `==`: `idna==3.7`
        ");
        insta::assert_snapshot!(shown("idna 3.7\n").unwrap(), @"
        `DIR/requirements.txt` line 1: `idna 3.7` is no requirement
          one version is written with `==`: `idna==3.7`
        ");
        insta::assert_snapshot!(shown("# x\nidna${NOT_SET_ANYWHERE}\n").unwrap(), @"
        `DIR/requirements.txt` line 2: `idna${NOT_SET_ANYWHERE}` is no requirement: the variable `NOT_SET_ANYWHERE` is not set
          set `NOT_SET_ANYWHERE`, or write its value there
        ");
        insta::assert_snapshot!(shown("<html>\n").unwrap(), @"
        `DIR/requirements.txt` line 1: `<html>` is no requirement
          write a package's name, with versions if you want some: `idna>=3.6,<4`
        ");
        assert_eq!(
            shown("a\n./b\n.\nc @ ./c\n-e .\nd.whl\ngit+ssh://x/y\n"),
            None
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
