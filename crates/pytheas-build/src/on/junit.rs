//! One JUnit report over all machines: a suite each, in the dialect that CI servers read.

use std::{fmt::Write as _, path::Path};

use super::{OnReport, error::OnError};
use crate::{
    error::io_error,
    testing::{TestCase, TestOutcome},
};

/// Writes `reports` into `file`.
///
/// # Errors
/// When it cannot be written.
pub fn write_junit(reports: &[OnReport], file: &Path) -> Result<(), OnError> {
    let text = junit(reports);
    pytheas_durable::replace(file, text.as_bytes())
        .map_err(|source| io_error("write", file)(source).into())
}

fn junit(reports: &[OnReport]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites>\n");
    for report in reports {
        // A `String` takes everything: `write!` cannot fail.
        let _ = writeln!(
            out,
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\"><properties><property name=\"machine\" value=\"{}\"/></properties>",
            escaped(&report.on),
            report.tests.len(),
            report.count(&TestOutcome::Failed),
            report.count(&TestOutcome::Error),
            report.count(&TestOutcome::Skipped),
            report.seconds,
            escaped(&report.machine),
        );
        for test in &report.tests {
            case(&mut out, test, &report.on);
        }
        out.push_str("</testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn case(out: &mut String, test: &TestCase, on: &str) {
    // A subtest's own words come after a blank.
    let whole = test.name.split(' ').next().unwrap_or_default();
    let (class, _) = whole.rsplit_once('.').unwrap_or(("", whole));
    let name = test.name[class.len()..].trim_start_matches('.');
    let _ = write!(
        out,
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        escaped(format!("{on}.{class}").trim_end_matches('.')),
        escaped(name),
        test.seconds
    );
    let tag = match test.outcome {
        TestOutcome::Passed => {
            out.push_str("/>\n");
            return;
        }
        TestOutcome::Failed => "failure",
        TestOutcome::Error => "error",
        TestOutcome::Skipped => "skipped",
    };
    let _ = writeln!(
        out,
        "><{tag} message=\"{}\">{}</{tag}></testcase>",
        escaped(message(&test.text)),
        escaped(&test.text)
    );
}

/// The line that says what happened: of a traceback the exception's own, which may go on in further ones.
fn message(text: &str) -> &str {
    let text = text.trim();
    let last = || text.lines().next_back().unwrap_or_default();
    if text.starts_with("error: ") {
        return text.lines().next().unwrap_or_default();
    }
    let Some((_, rest)) = text.rsplit_once("\n  File ") else {
        return last();
    };
    // A line of source is set in.
    let own = |line: &&str| !line.is_empty() && !line.starts_with(' ');
    rest.lines().skip(1).find(own).unwrap_or_else(last)
}

/// As XML 1.0 may hold it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            // Not taken for the end of a line, which a reader of XML makes of it.
            '\r' => out.push_str("&#13;"),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_happened() {
        for (text, expected) in [
            (
                "Traceback (most recent call last):\n  File \"t.py\", line 4, in f\n    g()\nE: one\n two\nthree\n",
                "E: one",
            ),
            (
                "error: `unix` is not here\n  help: install it",
                "error: `unix` is not here",
            ),
            ("said\nlast", "last"),
            ("", ""),
        ] {
            assert_eq!(message(text), expected);
        }
    }

    #[test]
    fn every_machine_has_a_suite_and_nothing_breaks_the_xml() {
        let test = |name: &str, outcome, text: &str| TestCase {
            name: name.to_owned(),
            outcome,
            seconds: 0.25,
            text: text.to_owned(),
        };
        let report = OnReport {
            on: "unix".to_owned(),
            machine: "MicroPython 1.25.0, linux".to_owned(),
            passed: false,
            tests: vec![
                test("test_a.A.test_x", TestOutcome::Passed, ""),
                test(
                    "test_a.A.test_y (n='1.5')",
                    TestOutcome::Failed,
                    "Tr\nE: <\x1b[0m>",
                ),
            ],
            restarts: 0,
            notes: Vec::new(),
            seconds: 1.0,
        };
        insta::assert_snapshot!(junit(&[report]), @r#"
        <?xml version="1.0" encoding="utf-8"?>
        <testsuites>
        <testsuite name="unix" tests="2" failures="1" errors="0" skipped="0" time="1.000"><properties><property name="machine" value="MicroPython 1.25.0, linux"/></properties>
        <testcase classname="unix.test_a.A" name="test_x" time="0.250"/>
        <testcase classname="unix.test_a.A" name="test_y (n='1.5')" time="0.250"><failure message="E: &lt;?[0m&gt;">Tr
        E: &lt;?[0m&gt;</failure></testcase>
        </testsuite>
        </testsuites>
        "#);
    }
}
