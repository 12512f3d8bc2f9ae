//! One advisory in the OSV format (<https://ossf.github.io/osv-schema/>, 1.x), as far as an audit
//! needs it: whom it affects in which versions, how bad it is, and what fixes it.

use std::str::FromStr;

use pep440_rs::Version;
use pytheas_project::normalised_name;
use serde::{Deserialize, Serialize};

/// How bad an advisory is: the scale of CVSS v3 and v4.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nobody said.
    #[default]
    Unknown,
    /// 0.0.
    None,
    /// 0.1 to 3.9.
    Low,
    /// 4.0 to 6.9.
    Medium,
    /// 7.0 to 8.9.
    High,
    /// 9.0 to 10.0.
    Critical,
}

impl Severity {
    /// The word for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A severity that is none of the words.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no severity; known are `low`, `medium`, `high` and `critical`")]
pub struct ParseSeverityError(String);

impl FromStr for Severity {
    type Err = ParseSeverityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "low" => Ok(Self::Low),
            "medium" | "moderate" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "critical" => Ok(Self::Critical),
            _ => Err(ParseSeverityError(text.to_owned())),
        }
    }
}

/// The document.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Advisory {
    pub(super) id: String,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    #[serde(default)]
    pub(super) summary: Option<String>,
    #[serde(default)]
    pub(super) details: Option<String>,
    #[serde(default)]
    pub(super) withdrawn: Option<String>,
    #[serde(default)]
    pub(super) affected: Vec<Affected>,
    #[serde(default)]
    pub(super) severity: Vec<Score>,
    #[serde(default)]
    pub(super) database_specific: Specific,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    #[serde(rename = "type", default)]
    kind: String,
    url: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Score {
    #[serde(default)]
    score: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Specific {
    #[serde(default)]
    severity: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Affected {
    #[serde(default)]
    package: Option<Package>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    severity: Vec<Score>,
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    #[serde(default)]
    ecosystem: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Range {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    repo: Option<String>,
    #[serde(default)]
    events: Vec<Event>,
}

/// One event; exactly one field is there.
#[derive(Debug, Clone, Default, Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

/// Whose advisories to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A distribution of the package index (ecosystem `PyPI`).
    Package,
    /// CPython itself.
    Interpreter,
}

/// That an advisory affects a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hit {
    /// The next versions after it that are not affected.
    pub(super) fixed: Vec<Version>,
}

impl Affected {
    /// Whether it speaks of this package.
    fn is_about(&self, kind: Kind, name: &str) -> bool {
        let package = self.package.as_ref();
        match kind {
            Kind::Package => package.is_some_and(|package| {
                package.ecosystem.split(':').next() == Some("PyPI")
                    && normalised_name(&package.name) == name
            }),
            Kind::Interpreter => {
                package.is_some_and(|package| {
                    package.ecosystem == "Bitnami" && package.name == "python"
                }) || self.ranges.iter().any(|range| {
                    range.repo.as_deref().is_some_and(|repo| {
                        let repo = repo.trim_end_matches('/').trim_end_matches(".git");
                        repo.ends_with("/python/cpython")
                    })
                })
            }
        }
    }

    fn hit(&self, version: &Version) -> Option<Hit> {
        // A local version (`2.1+cpu`) is the public one, built otherwise (PEP 440).
        let version = version.clone().without_local();
        let mut hit = self
            .versions
            .iter()
            .filter_map(|text| parse(text))
            .any(|listed| listed == version)
            .then(Hit::default);
        // Commits (`GIT`) say nothing about versions; those are listed besides.
        for range in self.ranges.iter().filter(|range| range.kind != "GIT") {
            let (is_in, fixed) = range.contains(&version);
            if is_in {
                hit.get_or_insert_default().fixed.extend(fixed);
            } else if let (Some(hit), Some(fixed)) = (&mut hit, fixed) {
                hit.fixed.push(fixed);
            }
        }
        hit
    }
}

impl Range {
    /// Whether the version lies in it, and the next fixed version above. Events need not be in
    /// order; what cannot be parsed neither begins nor ends a span.
    fn contains(&self, version: &Version) -> (bool, Option<Version>) {
        let mut events: Vec<(Version, u8)> = Vec::new();
        let mut is_in = false;
        for event in &self.events {
            if let Some(text) = &event.introduced {
                if text == "0" {
                    is_in = true; // before every version
                } else {
                    events.extend(parse(text).map(|version| (version, 1)));
                }
            }
            let ends = [(&event.fixed, 0), (&event.last_affected, 2)];
            for (text, order) in ends {
                let parsed = text.as_deref().and_then(parse);
                events.extend(parsed.map(|version| (version, order)));
            }
        }
        // At one version a span ends before the next begins, and its last version is still in.
        events.sort();
        for (at, kind) in &events {
            match kind {
                0 if at <= version => is_in = false,
                1 if at <= version => is_in = true,
                2 if at < version => is_in = false,
                _ => {}
            }
        }
        let fixed = events
            .iter()
            .find(|(at, kind)| *kind == 0 && at > version)
            .map(|(at, _)| at.clone());
        (is_in, fixed)
    }
}

fn parse(text: &str) -> Option<Version> {
    Version::from_str(text.trim()).ok()
}

impl Advisory {
    /// Reads the document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Whether it speaks of this package in any version.
    pub(super) fn is_about(&self, kind: Kind, name: &str) -> bool {
        self.affected.iter().any(|one| one.is_about(kind, name))
    }

    /// Whether it affects this version of the package.
    pub(super) fn hit(&self, kind: Kind, name: &str, version: &Version) -> Option<Hit> {
        if self.withdrawn.is_some() {
            return None;
        }
        let mut found: Option<Hit> = None;
        for affected in self.affected.iter().filter(|one| one.is_about(kind, name)) {
            if let Some(hit) = affected.hit(version) {
                found.get_or_insert_default().fixed.extend(hit.fixed);
            }
        }
        if let Some(hit) = &mut found {
            hit.fixed.sort();
            hit.fixed.dedup();
        }
        found
    }

    /// The worst of its scores, and the word for it; without a score the word its database uses.
    pub(super) fn severity(&self) -> (Severity, Option<f64>) {
        let scores = self.affected.iter().flat_map(|one| &one.severity);
        let worst = self
            .severity
            .iter()
            .chain(scores)
            .filter_map(|score| score_of(&score.score))
            .max_by(f64::total_cmp);
        if let Some(score) = worst {
            return (word_of(score), Some(score));
        }
        let word = self.database_specific.severity.as_ref();
        let word = word.and_then(|value| value.as_str()?.parse().ok());
        (word.unwrap_or_default(), None)
    }

    /// One line about it.
    pub(super) fn line(&self) -> String {
        let text = self
            .summary
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        let text = text.or(self.details.as_deref()).unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let line = line.unwrap_or_default().trim_start_matches('#').trim();
        let mut short: String = line.chars().filter(|c| !c.is_control()).take(160).collect();
        if short.len() < line.len() {
            short.push('…');
        }
        short
    }

    /// Where more is said.
    pub(super) fn url(&self) -> Option<String> {
        let references = &self.references;
        references
            .iter()
            .find(|reference| reference.kind == "ADVISORY")
            .or(references.first())
            .map(|reference| reference.url.clone())
    }

    /// Every name it has: its own and its aliases.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// The score of a CVSS vector; of one in version 3 also when it has temporal or environmental
/// metrics, which say nothing about the flaw itself.
fn score_of(vector: &str) -> Option<f64> {
    const BASE: [&str; 8] = ["AV", "AC", "PR", "UI", "S", "C", "I", "A"];
    let vector = vector.trim();
    let plain = match vector.strip_prefix("CVSS:3") {
        Some(_) => vector
            .split('/')
            .filter(|part| {
                let name = part.split(':').next().unwrap_or_default();
                name == "CVSS" || BASE.contains(&name)
            })
            .collect::<Vec<_>>()
            .join("/"),
        None => vector.to_owned(),
    };
    cvss::Cvss::from_str(&plain).ok().map(|cvss| cvss.score())
}

fn word_of(score: f64) -> Severity {
    match score {
        ..=0.0 => Severity::None,
        ..4.0 => Severity::Low,
        ..7.0 => Severity::Medium,
        ..9.0 => Severity::High,
        _ => Severity::Critical,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn advisory(affected: serde_json::Value) -> Advisory {
        let document = json!({"id": "X-1", "affected": affected});
        Advisory::parse(document.to_string().as_bytes()).unwrap()
    }

    fn of(events: serde_json::Value) -> Advisory {
        advisory(json!([{
            "package": {"ecosystem": "PyPI", "name": "Some_Package"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }]))
    }

    fn fixed(advisory: &Advisory, version: &str) -> Option<Vec<String>> {
        let version = version.parse().unwrap();
        let hit = advisory.hit(Kind::Package, "some-package", &version)?;
        Some(hit.fixed.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn versions_between_introduced_and_fixed_are_affected() {
        let two = of(json!([
            {"introduced": "0"}, {"fixed": "1.2.3"}, {"introduced": "2.0rc1"}, {"fixed": "2.0.1"}
        ]));
        for (version, expected) in [
            ("0.0.1.dev1", Some("1.2.3")),
            ("1.2.3rc1", Some("1.2.3")),
            ("1.2.3", None),
            ("1.9", None),
            ("2.0b3", None),
            ("2.0rc1", Some("2.0.1")),
            ("2.0+cpu", Some("2.0.1")),
            ("2.0.1+cpu", None),
            ("1!0.1", None),
        ] {
            let found = fixed(&two, version);
            let expected = expected.map(|text| vec![text.to_owned()]);
            assert_eq!(found, expected, "{version}");
        }
    }

    #[test]
    fn the_last_affected_version_is_affected_and_events_need_no_order() {
        let last = of(json!([{"last_affected": "1.4"}, {"introduced": "1.0"}]));
        assert_eq!(fixed(&last, "1.4"), Some(vec![]));
        assert_eq!(fixed(&last, "1.4.0"), Some(vec![]));
        assert_eq!(fixed(&last, "1.4.post1"), None);
        assert_eq!(fixed(&last, "0.9"), None);
        // An end that is no version ends nothing: better one too many.
        let odd = of(json!([{"introduced": "0"}, {"fixed": "deadbeef-commit"}]));
        assert_eq!(fixed(&odd, "9"), Some(vec![]));
    }

    #[test]
    fn listed_versions_count_and_withdrawn_ones_do_not() {
        let document = json!([{
            "package": {"ecosystem": "PyPI", "name": "some.package"},
            "versions": ["1.0.0", "1.1"],
        }, {
            "package": {"ecosystem": "npm", "name": "some-package"},
            "versions": ["3"],
        }]);
        let mut advisory = advisory(document);
        assert!(fixed(&advisory, "1.0").is_some());
        assert!(fixed(&advisory, "1.2").is_none());
        assert!(fixed(&advisory, "3").is_none());
        advisory.withdrawn = Some("2024-01-01T00:00:00Z".to_owned());
        assert!(fixed(&advisory, "1.0").is_none());
    }

    #[test]
    fn the_interpreter_has_advisories_of_its_own() {
        let advisory = advisory(json!([{
            "ranges": [{"type": "GIT", "repo": "https://github.com/python/cpython",
                        "events": [{"introduced": "0"}]}],
            "versions": ["v3.11.6", "v3.11.7"],
        }]));
        let hit = |text: &str| advisory.hit(Kind::Interpreter, "cpython", &text.parse().unwrap());
        assert!(hit("3.11.7").is_some());
        assert!(hit("3.11.9").is_none());
        assert!(
            advisory
                .hit(Kind::Package, "cpython", &"3.11.7".parse().unwrap())
                .is_none()
        );
    }

    #[test]
    fn scores_come_from_vectors_and_words_from_databases() {
        let score = |vector: &str| {
            let document = json!({"id": "X", "severity": [{"type": "CVSS", "score": vector}]});
            let found = Advisory::parse(document.to_string().as_bytes()).unwrap();
            found.severity()
        };
        let known = [
            (
                "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
                Severity::Critical,
                9.8,
            ),
            (
                "CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N/E:P/RL:O",
                Severity::Low,
                3.1,
            ),
            (
                "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:H/SC:N/SI:N/SA:N",
                Severity::High,
                8.7,
            ),
        ];
        for (vector, word, number) in known {
            assert_eq!(score(vector), (word, Some(number)), "{vector}");
        }
        assert_eq!(score("nonsense"), (Severity::Unknown, None));
        let document = br#"{"id": "X", "database_specific": {"severity": "MODERATE"}}"#;
        let found = Advisory::parse(document).unwrap();
        assert_eq!(found.severity(), (Severity::Medium, None));
    }

    proptest! {
        #[test]
        fn a_fixed_version_is_never_affected(
            from in "[0-4]\\.[0-9]", end in "[5-9]\\.[0-9]", at in "[0-9]\\.[0-9]"
        ) {
            let one = of(json!([{"introduced": from}, {"fixed": end}]));
            let number = |text: &str| text.parse::<Version>().unwrap();
            let inside = number(&from) <= number(&at) && number(&at) < number(&end);
            prop_assert_eq!(fixed(&one, &at).is_some(), inside);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Advisory::parse(&bytes);
        }
    }
}
