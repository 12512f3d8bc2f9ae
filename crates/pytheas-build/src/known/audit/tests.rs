//! Audits of small subjects against small databases.

use std::path::Path;

use pytheas_project::Environment;
use serde_json::{Value, json};

use super::*;

/// A folder with the documents, as the database.
fn database(dir: &Path, documents: &[Value]) -> Database {
    for document in documents {
        let id = document["id"].as_str().unwrap();
        let path = dir.join(format!("deeper/{id}.json"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, document.to_string().as_bytes()).unwrap();
    }
    Database::Path(dir.to_owned())
}

fn advisory(id: &str, aliases: &[&str], package: &str, fixed: &str, vector: &str) -> Value {
    json!({
        "id": id, "aliases": aliases, "summary": format!("{package} is bad"),
        "severity": [{"type": "CVSS_V3", "score": vector}],
        "affected": [{
            "package": {"ecosystem": "PyPI", "name": package},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
        }],
    })
}

const HIGH: &str = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H";
const LOW: &str = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N";

fn subject(lock: &str, dir: &Path) -> AuditSubject {
    let path = dir.join("pylock.toml");
    let text = format!("lock-version = '1.0'\ncreated-by = 'test'\n{lock}");
    pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    AuditSubject::of_lock(&path, None, None).unwrap()
}

fn run(subject: &AuditSubject, database: &Database, ignore: &[Ignore]) -> Audit {
    let http = Http::new(&Environment::default());
    audit(subject, database, ignore, "2026-11-21", &http).unwrap()
}

#[test]
fn one_flaw_with_several_names_is_one_finding() {
    let dir = tempfile::tempdir().unwrap();
    let lock = "[[packages]]\nname = 'Some.Thing'\nversion = '1.0'\n\
                [[packages]]\nname = 'fine'\nversion = '1.0'\n\
                [[packages]]\nname = 'here'\ndirectory = { path = '.' }\n";
    let subject = subject(lock, dir.path());
    let database = database(
        &dir.path().join("db"),
        &[
            advisory("GHSA-1", &["CVE-1"], "some-thing", "1.2", HIGH),
            advisory("PYSEC-1", &["CVE-1"], "some_thing", "1.1.1", "nonsense"),
            advisory("GHSA-2", &["CVE-2"], "some-thing", "2.0", LOW),
            advisory("GHSA-3", &[], "fine", "1.0", HIGH),
        ],
    );
    let found = run(&subject, &database, &[]);
    assert_eq!(found.advisories, Some(4));
    assert_eq!(found.unversioned, ["here"]);
    let [first, second] = &found.findings[..] else {
        panic!("{:#?}", found.findings)
    };
    assert_eq!(first.id, "PYSEC-1");
    assert_eq!(first.aliases, ["GHSA-1", "CVE-1"]);
    assert_eq!((first.severity, first.score), (Severity::High, Some(7.5)));
    assert_eq!(first.fixed, ["1.1.1", "1.2"]);
    assert_eq!(
        (second.id.as_str(), second.severity),
        ("GHSA-2", Severity::Low)
    );
    assert_eq!(found.counted(Severity::Unknown), 2);
    assert_eq!(found.counted(Severity::High), 1);
    assert_eq!(found.counted(Severity::Critical), 0);
}

#[test]
fn what_was_looked_at_is_passed_over_until_its_day() {
    let dir = tempfile::tempdir().unwrap();
    let subject = subject("[[packages]]\nname = 'a'\nversion = '1'\n", dir.path());
    let documents = [advisory("PYSEC-1", &["CVE-1"], "a", "2", HIGH)];
    let database = database(&dir.path().join("db"), &documents);
    let ignore = |id: &str, until: Option<&str>| Ignore {
        id: id.to_owned(),
        until: until.map(str::to_owned),
        reason: Some("not reachable".to_owned()),
    };
    let good = run(&subject, &database, &[ignore("cve-1", Some("2026-11-21"))]);
    assert_eq!(good.counted(Severity::Unknown), 0);
    assert_eq!(good.findings[0].ignored.as_deref(), Some("not reachable"));
    let late = [ignore("PYSEC-1", Some("2026-11-20")), ignore("CVE-9", None)];
    let late = run(&subject, &database, &late);
    assert_eq!(late.counted(Severity::Unknown), 1);
    assert_eq!(late.expired, ["PYSEC-1"]);
    assert_eq!(late.unneeded, ["CVE-9"]);
}

#[test]
fn a_database_that_is_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let subject = subject("[[packages]]\nname = 'a'\nversion = '1'\n", dir.path());
    let http = Http::new(&Environment::default());
    let fails = |database: &Database| {
        audit(&subject, database, &[], "2026-01-01", &http)
            .unwrap_err()
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR")
    };
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    insta::assert_snapshot!(fails(&Database::Path(empty.clone())), @"there are no advisories in `DIR/empty`");
    pytheas_durable::replace(&empty.join("x.json"), b"{\"id\": 3}").unwrap();
    insta::assert_snapshot!(fails(&Database::Path(empty)), @"`x.json` in `DIR/empty` is no OSV document");
    let absent = Database::Path(dir.path().join("all.zip"));
    insta::assert_snapshot!(fails(&absent), @"cannot read the advisories in `DIR/all.zip`");
}

#[test]
fn a_bill_of_materials_of_any_tool_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bom.json");
    let bill = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6",
        "components": [
            {"type": "library", "name": "A.b", "version": "1", "purl": "pkg:pypi/A.b@1%2Bcpu?x=y"},
            {"type": "platform", "name": "cpython", "purl": "pkg:generic/cpython@3.11.7",
             "components": [{"purl": "pkg:pypi/inner@2"}]},
            {"type": "library", "name": "left-pad", "purl": "pkg:npm/left-pad@1"},
        ],
    });
    pytheas_durable::replace(&path, bill.to_string().as_bytes()).unwrap();
    let subject = AuditSubject::of_bill_file(&path).unwrap();
    let parts: Vec<String> = subject
        .parts
        .iter()
        .map(|part| format!("{} {}", part.name, part.version.as_ref().unwrap()))
        .collect();
    assert_eq!(parts, ["a-b 1+cpu", "inner 2", "cpython 3.11.7"]);
    pytheas_durable::replace(&path, b"{}").unwrap();
    assert!(AuditSubject::of_bill_file(&path).is_err());
}
