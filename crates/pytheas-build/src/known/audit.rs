//! Known vulnerabilities: the parts of a lock, a built tree or a bill of materials against a
//! database of advisories in the OSV format. Which versions an advisory affects is decided here,
//! by PEP 440, wherever the advisory came from; what several databases say about one flaw
//! (`PYSEC-…`, `GHSA-…`, `CVE-…`) is one finding.

mod advisory;
mod database;
mod subject;

use std::collections::BTreeSet;

use pep440_rs::Version;
use pytheas_project::http::Http;
use serde::Serialize;

use advisory::{Advisory, Hit};
pub use advisory::{Kind as PartKind, ParseSeverityError, Severity};
pub use database::{Database, DatabaseError, OSV_API};
pub use subject::{Part, Subject as AuditSubject, SubjectError};

/// An advisory that is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignore {
    /// Any of its names.
    pub id: String,
    /// The last day it is passed over, `YYYY-MM-DD`.
    pub until: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A known vulnerability of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The package (normalised name), or `cpython`.
    pub package: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub kind: PartKind,
    /// The advisory: `PYSEC-…` where there is one, else `GHSA-…`, else what there is.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// One line about it.
    pub summary: String,
    /// How bad it is: the worst that any of its databases says.
    pub severity: Severity,
    /// The CVSS score, where there is a vector.
    pub score: Option<f64>,
    /// The next versions that are not affected.
    pub fixed: Vec<String>,
    /// Where more is said.
    pub url: Option<String>,
    /// When the package is installed (PEP 508); always when absent.
    pub marker: Option<String>,
    /// The project's targets that have it.
    pub targets: Vec<String>,
    /// Whether the program reaches one of its modules, as far as imports tell; unknown for a lock.
    pub reached: Option<bool>,
    /// Set when it is passed over: the reason.
    pub ignored: Option<String>,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Audit {
    /// How many parts were looked at.
    pub parts: usize,
    /// How many advisories the database has, where that is known.
    pub advisories: Option<usize>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// Packages without a version that can be compared.
    pub unversioned: Vec<String>,
    /// The interpreter is a part, but the database has nothing on any interpreter.
    pub interpreter_unknown: bool,
    /// Entries to pass over whose time is up.
    pub expired: Vec<String>,
    /// Entries to pass over that fit nothing.
    pub unneeded: Vec<String>,
}

impl Audit {
    /// How many findings count: those that are not passed over and at least as bad as `at_least`.
    /// One whose severity nobody said always counts.
    pub fn counted(&self, at_least: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.ignored.is_none())
            .filter(|finding| finding.severity == Severity::Unknown || finding.severity >= at_least)
            .count()
    }
}

/// Looks for advisories on the parts of `subject`; `today` is `YYYY-MM-DD`.
///
/// # Errors
/// When the database cannot be used; see [`DatabaseError`].
pub fn audit(
    subject: &AuditSubject,
    database: &Database,
    ignore: &[Ignore],
    today: &str,
    http: &Http,
) -> Result<Audit, DatabaseError> {
    let relevant = database.load(&subject.parts, http)?;
    let mut findings = Vec::new();
    for part in &subject.parts {
        let Some(version) = &part.version else {
            continue;
        };
        let hits = relevant.advisories.iter().filter_map(|advisory| {
            let hit = advisory.hit(part.kind, &part.name, version)?;
            Some((advisory, hit))
        });
        for group in groups(hits.collect()) {
            findings.push(finding(part, version, &group));
        }
    }
    let mut used = BTreeSet::new();
    for finding in &mut findings {
        let names = [&finding.id].into_iter().chain(&finding.aliases);
        let names: Vec<&String> = names.collect();
        for (index, entry) in ignore.iter().enumerate() {
            if !names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&entry.id))
            {
                continue;
            }
            used.insert(index);
            if entry.is_good(today) && finding.ignored.is_none() {
                let reason = entry.reason.clone();
                finding.ignored = Some(reason.unwrap_or_else(|| "no reason given".to_owned()));
            }
        }
    }
    findings.sort_by(|a, b| {
        let worse = b.severity.cmp(&a.severity);
        let number = b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0));
        worse
            .then(number)
            .then_with(|| (&a.package, &a.version, &a.id).cmp(&(&b.package, &b.version, &b.id)))
    });
    let has_interpreter = subject
        .parts
        .iter()
        .any(|part| part.kind == PartKind::Interpreter);
    let entries = || ignore.iter().enumerate();
    Ok(Audit {
        parts: subject.parts.len(),
        advisories: relevant.total,
        findings,
        unversioned: subject.unversioned.clone(),
        interpreter_unknown: has_interpreter && !relevant.knows_interpreter,
        expired: entries()
            .filter(|(index, entry)| used.contains(index) && !entry.is_good(today))
            .map(|(_, entry)| entry.id.clone())
            .collect(),
        unneeded: entries()
            .filter(|(index, _)| !used.contains(index))
            .map(|(_, entry)| entry.id.clone())
            .collect(),
    })
}

impl Ignore {
    fn is_good(&self, today: &str) -> bool {
        self.until.as_deref().is_none_or(|until| today <= until)
    }
}

type Group<'a> = Vec<(&'a Advisory, Hit)>;

/// Advisories that share a name speak of one flaw.
fn groups(hits: Group<'_>) -> Vec<Group<'_>> {
    let mut groups: Vec<(BTreeSet<&str>, Group<'_>)> = Vec::new();
    for (advisory, hit) in hits {
        let mut names: BTreeSet<&str> = advisory.names().collect();
        let mut group = vec![(advisory, hit)];
        let mut others = Vec::new();
        for (known, members) in groups {
            if known.is_disjoint(&names) {
                others.push((known, members));
            } else {
                names.extend(known);
                group.extend(members);
            }
        }
        others.push((names, group));
        groups = others;
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The order in which names are preferred: that of other tools for Python.
fn rank(id: &str) -> (usize, &str) {
    let known = ["PYSEC-", "GHSA-", "PSF-", "BIT-", "CVE-"];
    let place = known.iter().position(|start| id.starts_with(start));
    (place.unwrap_or(known.len()), id)
}

fn finding(part: &Part, version: &Version, group: &Group<'_>) -> Finding {
    let mut members: Vec<&Advisory> = group.iter().map(|(advisory, _)| *advisory).collect();
    members.sort_by_key(|advisory| rank(&advisory.id));
    let id = members.first().map(|advisory| advisory.id.clone());
    let id = id.unwrap_or_default();
    let names: BTreeSet<&str> = members
        .iter()
        .flat_map(|advisory| advisory.names())
        .collect();
    let mut aliases: Vec<String> = names
        .into_iter()
        .filter(|name| *name != id)
        .map(str::to_owned)
        .collect();
    aliases.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let (severity, score) = members
        .iter()
        .map(|advisory| advisory.severity())
        .max_by(|a, b| {
            let number = a.1.unwrap_or(0.0).total_cmp(&b.1.unwrap_or(0.0));
            a.0.cmp(&b.0).then(number)
        })
        .unwrap_or_default();
    let mut fixed: Vec<&Version> = group.iter().flat_map(|(_, hit)| &hit.fixed).collect();
    fixed.sort();
    fixed.dedup();
    let line = |advisory: &&Advisory| Some(advisory.line()).filter(|line| !line.is_empty());
    // A summary is better than the first line of a long text.
    let summary = members
        .iter()
        .filter(|advisory| advisory.summary.is_some())
        .find_map(line)
        .or_else(|| members.iter().find_map(line));
    Finding {
        package: part.name.clone(),
        version: version.to_string(),
        kind: part.kind,
        id,
        aliases,
        summary: summary.unwrap_or_default(),
        severity,
        score,
        fixed: fixed.into_iter().map(ToString::to_string).collect(),
        url: members.iter().find_map(|advisory| advisory.url()),
        marker: part.marker.clone(),
        targets: part.targets.clone(),
        reached: part.reached,
        ignored: None,
    }
}

#[cfg(test)]
mod tests;
