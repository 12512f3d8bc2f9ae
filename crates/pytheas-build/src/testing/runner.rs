//! Which runner the tests are for, and with which arguments it is started.

use std::path::{Path, PathBuf};

use pytheas_project::TestRequirements;

use super::TestError;
use crate::event::{Event, Observer};

/// Whether the tests are for pytest; it is added to what they need where nothing else asks for it.
pub(super) fn with_runner(
    project: &pytheas_project::Project,
    mut needs: TestRequirements,
    observer: Observer<'_>,
) -> Result<(TestRequirements, bool), TestError> {
    let command = project.settings.test.command.as_deref().unwrap_or("");
    let says = |word: &str| command.split_whitespace().any(|part| part == word);
    let uses = |name: &str| needs.asks_for(name);
    let known = ["pytest", "pytest-asyncio", "pytest-cov", "pytest-xdist"];
    if known.into_iter().any(uses) {
        if !needs.asks_for("pytest") {
            needs.requirements.push("pytest".to_owned());
        }
        return Ok((needs, true));
    }
    let is_pytest = if command.is_empty() {
        asks_for_pytest(&project.dir)
    } else {
        says("pytest") || says("py.test")
    };
    if is_pytest {
        observer(Event::Warning {
            text: "the tests use pytest, which no dependency group, extra or requirements file for tests names; the newest is taken".to_owned(),
        });
        needs.requirements.push("pytest".to_owned());
    }
    Ok((needs, is_pytest))
}

/// Whether tests in the folder are written for pytest.
fn asks_for_pytest(dir: &Path) -> bool {
    let is_there = |name: &str| dir.join(name).is_file();
    if [
        "pytest.ini",
        ".pytest.ini",
        "conftest.py",
        "tests/conftest.py",
        "test/conftest.py",
    ]
    .into_iter()
    .any(is_there)
    {
        return true;
    }
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if text(&dir.join("pyproject.toml")).contains("[tool.pytest")
        || text(&dir.join("setup.cfg")).contains("[tool:pytest]")
    {
        return true;
    }
    let imports = |path: PathBuf| {
        path.extension().is_some_and(|end| end == "py")
            && text(&path)
                .lines()
                .any(|line| line.starts_with("import pytest") || line.starts_with("from pytest"))
    };
    ["tests", "test", "."].into_iter().any(|folder| {
        std::fs::read_dir(dir.join(folder))
            .is_ok_and(|children| children.flatten().any(|child| imports(child.path())))
    })
}

/// The runner's mode (see `run.py`) and its arguments.
pub(super) fn command(
    text: Option<&str>,
    is_pytest: bool,
) -> Result<(&'static str, Vec<String>), TestError> {
    let Some(text) = text else {
        return Ok((if is_pytest { "pytest" } else { "unittest" }, Vec::new()));
    };
    let unusable = |reason: &str| TestError::Command {
        text: text.to_owned(),
        reason: reason.to_owned(),
    };
    let mut words = words(text).ok_or_else(|| unusable("a quote is not closed"))?;
    let mut program = if words.is_empty() {
        return Err(unusable("it is empty"));
    } else {
        words.remove(0)
    };
    if matches!(program.as_str(), "python" | "python3") {
        if words.first().is_some_and(|word| word == "-m") && words.len() > 1 {
            words.remove(0);
            program = words.remove(0);
        } else if words.is_empty() {
            return Err(unusable("it does not say what Python is to run"));
        } else {
            return Ok(("python", words));
        }
    }
    Ok(match program.as_str() {
        "pytest" | "py.test" => ("pytest", words),
        "unittest" => ("unittest", words),
        _ if program.contains('/') => return Err(unusable("it must be a module or `python`")),
        _ => (
            "python",
            ["-m".to_owned(), program]
                .into_iter()
                .chain(words)
                .collect(),
        ),
    })
}

/// `text` split into words as a shell does, quotes and backslashes understood; none when a quote is
/// not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        for (text, expected) in [
            ("pytest -q", Some(vec!["pytest", "-q"])),
            (
                "pytest -k 'a or b' \"x \\\" y\"",
                Some(vec!["pytest", "-k", "a or b", "x \" y"]),
            ),
            ("a ''", Some(vec!["a", ""])),
            ("a 'b", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn the_runner_is_what_the_command_starts() {
        for (text, is_pytest, mode, arguments) in [
            (None, true, "pytest", vec![]),
            (None, false, "unittest", vec![]),
            (Some("python -m pytest -x"), false, "pytest", vec!["-x"]),
            (
                Some("python -m unittest -v a"),
                true,
                "unittest",
                vec!["-v", "a"],
            ),
            (
                Some("python tests/run.py 1"),
                true,
                "python",
                vec!["tests/run.py", "1"],
            ),
            (Some("nose2 -v"), true, "python", vec!["-m", "nose2", "-v"]),
        ] {
            let found = command(text, is_pytest).unwrap();
            assert_eq!(
                found,
                (mode, arguments.into_iter().map(str::to_owned).collect())
            );
        }
        assert!(command(Some("./run"), true).is_err());
        assert!(command(Some("python"), true).is_err());
        assert!(command(Some(" "), true).is_err());
    }
}
