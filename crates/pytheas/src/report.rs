//! The one printer of errors: what failed, the chain of causes, the place in the file, the help.
//!
//! ```text
//! error: cannot read the project file `pyproject.toml`
//!   cause: expected `=`
//!   --> pyproject.toml:3:6
//!      | name "x"
//!      |      ^
//!   help: …
//! ```

use std::fmt::Write as _;

use miette::Diagnostic;
use owo_colors::OwoColorize;

/// The error as text, ending with a line feed.
pub(crate) fn render(error: &dyn Diagnostic, color: bool) -> String {
    let mut out = String::new();
    let paint = |word: &str, bad: bool| match (color, bad) {
        (false, _) => word.to_owned(),
        (true, true) => word.red().bold().to_string(),
        (true, false) => word.cyan().to_string(),
    };
    let mut told = error.to_string();
    line(&mut out, &format!("{} ", paint("error:", true)), &told);
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Transparent wrappers repeat what they wrap.
        if !told.contains(&text) {
            line(&mut out, &format!("  {} ", paint("cause:", false)), &text);
        }
        told = text;
        cause = error.source();
    }
    place(&mut out, error);
    for help in helps(error) {
        line(&mut out, &format!("  {} ", paint("help:", false)), &help);
    }
    out
}

/// Writes `text` after `head`; further lines are indented.
fn line(out: &mut String, head: &str, text: &str) {
    let mut lines = text.trim_end().lines();
    let _infallible = writeln!(out, "{head}{}", lines.next().unwrap_or_default());
    for rest in lines {
        let _infallible = writeln!(out, "    {rest}").map(|()| ());
    }
}

/// The first label's place in its file, with the line it is in.
fn place(out: &mut String, error: &dyn Diagnostic) {
    let (Some(source), Some(labels)) = (error.source_code(), error.labels()) else {
        return;
    };
    for label in labels {
        // One line more on each side, or the line is cut where the label begins and ends.
        let Ok(span) = source.read_span(label.inner(), 1, 1) else {
            continue;
        };
        let text = String::from_utf8_lossy(span.data());
        let at = label
            .offset()
            .saturating_sub(span.span().offset())
            .min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let row = span.line() + before.matches('\n').count() + 1;
        let line = text[start..].lines().next().unwrap_or_default();
        let column = before[start..].chars().count() + 1;
        let name = span.name().unwrap_or("input");
        let marks = "^".repeat(label.len().clamp(1, 60));
        let blank = " ".repeat(column - 1);
        let label = label.label().unwrap_or("");
        let _infallible = writeln!(out, "  --> {name}:{row}:{column}");
        let _infallible = writeln!(out, "     | {}", line.trim_end());
        let _infallible = writeln!(out, "     | {blank}{marks} {label}");
    }
}

/// The help of the error and of the diagnostics it wraps, each once.
fn helps(error: &dyn Diagnostic) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(help) = error.help().map(|help| help.to_string())
            && !found.contains(&help)
        {
            found.push(help);
        }
        next = error.diagnostic_source();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error, Diagnostic)]
    #[error("`{file}` does not parse")]
    #[diagnostic(help("see the manual"))]
    struct Bad {
        file: &'static str,
        #[source]
        cause: std::io::Error,
        #[source_code]
        text: miette::NamedSource<String>,
        #[label("here")]
        at: miette::SourceSpan,
    }

    #[test]
    fn an_error_shows_what_where_why_and_what_to_do() {
        let error = Bad {
            file: "x.toml",
            cause: std::io::Error::other("expected `=`"),
            text: miette::NamedSource::new("x.toml", "a = 1\nname \"x\"\n".to_owned()),
            at: (11, 3).into(),
        };
        insta::assert_snapshot!(render(&error, false), @r#"
        error: `x.toml` does not parse
          cause: expected `=`
          --> x.toml:2:6
             | name "x"
             |      ^^^ here
          help: see the manual
        "#);
    }
}
