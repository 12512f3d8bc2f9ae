//! What an audit found, as SARIF 2.1.0 (OASIS), which code hosts and editors show.
//!
//! One rule for each advisory, one result for each package that has it; what is passed over is there
//! as suppressed. The place of a result is what was audited.

use std::{collections::BTreeMap, io, path::Path};

use pytheas_build::{Audit, Finding, Severity};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Paint, Show};

/// What `pytheas audit` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// SARIF 2.1.0.
    Sarif,
}

/// A SARIF log.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Sarif(Value);

impl Show for Sarif {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        format!("{:#}", self.0)
            .lines()
            .try_for_each(|line| out.line(line))
    }
}

impl Sarif {
    /// The log of an audit of what lies at `subject`; code hosts want its place below the folder in
    /// which the command runs.
    pub(crate) fn of(audit: &Audit, subject: &Path) -> Self {
        let here = std::env::current_dir().ok();
        let inside = here.and_then(|here| subject.strip_prefix(here).ok());
        let subject = inside.unwrap_or(subject);
        let rules: BTreeMap<&str, Value> = audit
            .findings
            .iter()
            .map(|finding| (finding.id.as_str(), rule(finding)))
            .collect();
        let results: Vec<Value> = audit
            .findings
            .iter()
            .map(|finding| result(finding, subject))
            .collect();
        Self(json!({
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "pytheas",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": rules.into_values().collect::<Vec<Value>>(),
                }},
                "results": results,
            }],
        }))
    }
}

fn rule(finding: &Finding) -> Value {
    let mut rule = json!({
        "id": finding.id,
        "shortDescription": {"text": text(&finding.summary, &finding.id)},
        "properties": {"tags": ["security", "vulnerability"], "aliases": finding.aliases},
    });
    if let Some(url) = &finding.url {
        rule["helpUri"] = url.as_str().into();
    }
    if let Some(score) = finding.score {
        rule["properties"]["security-severity"] = format!("{score:.1}").into();
    }
    rule
}

fn result(finding: &Finding, subject: &Path) -> Value {
    let fixed = match finding.fixed.is_empty() {
        true => "no version fixes it".to_owned(),
        false => format!("fixed in {}", finding.fixed.join(", ")),
    };
    let (package, version) = (&finding.package, &finding.version);
    let what = text(&finding.summary, &finding.id);
    let level = match finding.severity {
        Severity::Critical | Severity::High => "error",
        Severity::Low => "note",
        _ => "warning",
    };
    let mut result = json!({
        "ruleId": finding.id,
        "level": level,
        "message": {"text": format!("{package} {version}: {what}; {fixed}")},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri(subject)},
            "region": {"startLine": 1},
        }}],
        "partialFingerprints": {"pytheas/v1": format!("{}@{package}", finding.id)},
    });
    if let Some(reason) = &finding.ignored {
        result["suppressions"] = json!([{"kind": "external", "justification": reason}]);
    }
    result
}

/// The summary; an advisory may have none.
fn text<'a>(summary: &'a str, id: &'a str) -> &'a str {
    if summary.trim().is_empty() {
        id
    } else {
        summary
    }
}

/// The path as a URI reference (RFC 3986): what is no unreserved character or `/` is escaped.
fn uri(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = path.strip_prefix("./").unwrap_or(&path);
    path.bytes()
        .map(|byte| match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri_reference() {
        assert_eq!(uri(Path::new("./a b/ü.lock")), "a%20b/%C3%BC.lock");
    }
}
