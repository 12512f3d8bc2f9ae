//! Several at once: publishers of one repository, by its folder and by its hub, and people who change
//! one folder of keys. All are real processes; nobody's release, team or key is lost.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::common::{GOOD, Hub, json, ok, pytheas, script_tree, shown};

/// Starts them all, then waits for each; every one has to succeed.
#[track_caller]
fn at_once(commands: Vec<Command>) {
    let start = |mut command: Command| {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        child.spawn().unwrap()
    };
    let started: Vec<_> = commands.into_iter().map(start).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
    }
}

/// The versions that the repository lists, by its signed metadata.
fn listed(hub: &Hub, repo: &str) -> BTreeSet<String> {
    let mut command = hub.pytheas(&["keys", "publish", "--repo", repo, "--keys"]);
    let value = json(command.arg(&hub.keys));
    let version = |target: &Value| {
        target
            .as_str()
            .unwrap()
            .split('/')
            .nth(1)
            .unwrap()
            .to_owned()
    };
    value["releases"]
        .as_array()
        .unwrap()
        .iter()
        .map(version)
        .collect()
}

/// Publishes `versions` at once, each to its place.
fn publish(hub: &Hub, versions: &[(&str, &str)]) {
    let of = |&(version, repo): &(&str, &str)| {
        let dir = hub.home.join(version);
        script_tree(&dir, version, &format!("{GOOD}# {version}\n"));
        let mut command = hub.pytheas(&["publish", "--repo", repo]);
        command.arg(dir).arg("--keys").arg(&hub.keys);
        command
    };
    at_once(versions.iter().map(of).collect());
}

fn set(versions: &[&str]) -> BTreeSet<String> {
    versions.iter().map(|&version| version.to_owned()).collect()
}

#[test]
fn of_publishers_at_once_none_loses_a_release() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    // A folder that is not there yet: one of them makes it.
    let folder = home.path().join("folder");
    let folder = folder.to_str().unwrap();
    publish(&hub, &[("1.0", folder), ("1.1", folder)]);
    assert_eq!(listed(&hub, folder), set(&["1.0", "1.1"]));
    let five = ["2.0", "2.1", "2.2", "2.3", "2.4"];
    publish(&hub, &five.map(|version| (version, folder)));
    assert_eq!(listed(&hub, folder), &set(&["1.0", "1.1"]) | &set(&five));

    // By the hub alone, which has no lock for what takes several requests; then two of five write
    // into its folder, past it.
    let (wire, own) = (format!("{}/repo", hub.url), hub.repo.to_str().unwrap());
    let (wire, first) = (wire.as_str(), ["3.0", "3.1"]);
    publish(&hub, &first.map(|version| (version, wire)));
    assert_eq!(listed(&hub, wire), set(&first));
    let mixed = [
        ("4.0", wire),
        ("4.1", own),
        ("4.2", wire),
        ("4.3", own),
        ("4.4", wire),
    ];
    publish(&hub, &mixed);
    let all = &set(&first) | &set(&mixed.map(|(version, _)| version));
    assert_eq!(listed(&hub, wire), all);
    let releases = json(&mut hub.pytheas(&["releases"]));
    assert_eq!(releases.as_array().unwrap().len(), all.len(), "{releases}");
}

#[test]
fn a_folder_that_was_made_for_nothing_takes_nobody_elses_release_away() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let good = home.path().join("good");
    script_tree(&good, "1.0", GOOD);
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for round in 0..5 {
        let folder = home.path().join(format!("repo-{round}"));
        let repo = folder.to_str().unwrap();
        let start = |tree: &Path| {
            let mut command = hub.pytheas(&["publish", "--repo", repo]);
            command.arg(tree).arg("--keys").arg(&hub.keys);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        // What is no built folder is refused, and the folder that was made for it removed.
        let mut all = [start(&empty), start(&good), start(&empty)];
        let ended = all.each_mut().map(|child| child.wait().unwrap().success());
        assert_eq!(ended, [false, true, false], "round {round}");
        assert_eq!(listed(&hub, repo), set(&["1.0"]), "round {round}");
    }
}

#[test]
fn of_teams_and_keys_that_are_changed_at_once_none_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let dir = home.path().join("1.0");
    script_tree(&dir, "1.0", GOOD);
    hub.publish(&dir);
    let wire = format!("{}/repo", hub.url);
    let teams = ["red", "green", "blue", "cyan", "pink"];
    let delegations = teams.map(|team| {
        let keys = home.path().join(team);
        ok(pytheas(home.path())
            .args(["keys", "new", team, "--keys"])
            .arg(&keys));
        let public = home.path().join(format!("{team}.pub"));
        let mut export = pytheas(home.path());
        let text = ok(export.args(["keys", "export", team, "--keys"]).arg(&keys));
        std::fs::write(&public, text).unwrap();
        let paths = format!("{team}/*");
        let args = [
            "keys", "delegate", team, "--paths", &paths, "--repo", &wire, "--key",
        ];
        let mut command = hub.pytheas(&args);
        command.arg(public).arg("--keys").arg(&hub.keys);
        command
    });
    at_once(delegations.into());
    let mut show = hub.pytheas(&["keys", "show", "--repo", &wire, "--keys"]);
    let text = json(show.arg(&hub.keys)).to_string();
    for team in teams {
        assert!(text.contains(&format!("\"{team}\"")), "{team}: {text}");
    }

    // Five further keys at once: each is in the root that comes out, and in its file.
    let add = || {
        let mut command = hub.pytheas(&["keys", "add", "targets", "--keys"]);
        command.arg(&hub.keys);
        command
    };
    at_once((0..5).map(|_| add()).collect());
    let info = pytheas_repo::keys::show(&hub.keys, jiff::Timestamp::now()).unwrap();
    let targets = info
        .roles
        .iter()
        .find(|role| role.role == "targets")
        .unwrap();
    let files: BTreeSet<_> = targets
        .keys
        .iter()
        .filter_map(|key| key.file.clone())
        .collect();
    assert_eq!((targets.keys.len(), files.len()), (6, 6), "{targets:?}");
    assert_eq!(info.root_version, 6);
}
