//! Rules of the house that no compiler checks: arrows between rooms, module headers, addresses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The files git tracks, and the new ones it does not ignore.
fn files() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect()
}

/// The table in ARCHITECTURE.md: room → what it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let room = cells[0].trim_matches('`').to_owned();
            let uses = cells[3].split(", ").filter(|word| *word != "–");
            (room, uses.map(|word| format!("pytheas-{word}")).collect())
        })
        .collect()
}

#[test]
fn rooms_know_only_what_the_table_allows() {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let room = package["name"].as_str().unwrap();
        if room == "xtask" {
            continue;
        }
        let Some(may_use) = allowed.get(room) else {
            wrong.push(format!("`{room}` is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let ours = dependency["path"].is_string();
            let shipped = dependency["kind"].is_null();
            if ours && shipped && !may_use.contains(name) {
                wrong.push(format!("`{room}` uses `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_says_its_one_job() {
    let silent: Vec<_> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no header: {silent:?}");
}

#[test]
fn no_registry_is_named() {
    // Written apart, so that this file does not name them either.
    let hosts = [
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["crates", "io"],
        ["npmjs", "org"],
    ]
    .map(|[name, end]| format!("{name}.{end}"));
    let mut found = Vec::new();
    for path in files() {
        if path.ends_with("Cargo.lock") {
            continue; // cargo's own format
        }
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        found.extend(
            hosts
                .iter()
                .filter(|h| text.contains(*h))
                .map(|h| (path.clone(), h)),
        );
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files() {
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
