//! Which line of a requirements file asks for nothing, and what its writer may have meant.

use std::path::{Path, PathBuf};

use super::{
    RequirementsError,
    content::{expanded, is_variable, logical_lines, text, variable},
    line::{Line, parse_line, repository_kind, without_checkout},
    spelling::{parse, without_credentials},
};

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
            let wrong = match parse_line(without_checkout(&text)) {
                Line::File(_, name) if !name.contains("://") => {
                    let dir = path.parent().unwrap_or(Path::new("."));
                    if let Some(found) = find(&dir.join(name), open) {
                        return Some(found);
                    }
                    None
                }
                Line::Requirement(requirement, _) if is_foreign_repository(&requirement) => Some((
                    ": only repositories of git can be locked".to_owned(),
                    "name an archive of it by its address (`NAME @ https://…/ARCHIVE.tar.gz`), or a folder that holds a checkout (`./NAME`)".to_owned(),
                )),
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

/// Whether a line names a repository that uv does not read.
fn is_foreign_repository(text: &str) -> bool {
    repository_kind(text).is_some_and(|kind| kind != "git")
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

#[cfg(test)]
mod tests {
    use super::*;

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
        insta::assert_snapshot!(shown("a\n-e hg+https://h.example/r#egg=r\n").unwrap(), @"
        `DIR/requirements.txt` line 2: `-e hg+https://h.example/r#egg=r` is no requirement: only repositories of git can be locked
          name an archive of it by its address (`NAME @ https://…/ARCHIVE.tar.gz`), or a folder that holds a checkout (`./NAME`)
        ");
        assert_eq!(
            shown("a\n./b\n.\nc @ ./c\n-e .\nd.whl\ngit+ssh://x/y\n"),
            None
        );
    }
}
