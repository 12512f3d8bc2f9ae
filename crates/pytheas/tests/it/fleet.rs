//! Hub and agents as real processes: tampering, unknown keys, old and expired metadata, kills at
//! random moments. After each, the device runs the old or the new release, whole.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::common::{GOOD, Hub, Running, json, ok, pytheas, script_tree, tree, wait_for};

/// A hub with `app@1.0` published and installed on `gw`.
fn installed(home: &Path) -> (Hub, Running) {
    let hub = Hub::start(home);
    script_tree(&home.join("1.0"), "1.0", GOOD);
    hub.publish(&home.join("1.0"));
    let agent = hub.agent("gw", |_| {});
    wait_for("the device to enrol", Duration::from_secs(30), || {
        let devices = json(&mut hub.pytheas(&["device", "list"]));
        devices[0]["last_seen_ms"].is_number().then_some(())
    });
    let status = hub.roll_out(&["app@1.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    (hub, agent)
}

fn next(home: &Path, hub: &Hub, version: &str) -> Value {
    let dir = home.join(version);
    script_tree(&dir, version, &format!("{GOOD}# {version}\n"));
    hub.publish(&dir)
}

/// The version the device's slot holds, every byte checked against its tree.
#[track_caller]
fn whole_version(hub: &Hub) -> String {
    let state = hub.state("gw");
    let mut verify = pytheas(&hub.home);
    ok(verify.args(["agent", "verify", "--state"]).arg(&state));
    let record = fs::read(state.join("current/pytheas.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    record["version"].as_str().unwrap().to_owned()
}

/// Everything the device said of its newest action.
fn said(hub: &Hub) -> String {
    let detail = json(&mut hub.pytheas(&["device", "show", "gw"]));
    detail["history"][0]["messages"].to_string()
}

/// The newest file below `dir` whose path ends with `end`.
fn newest(dir: &Path, end: &str) -> PathBuf {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push((fs::metadata(&path).unwrap().modified().unwrap(), path));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

/// Changes one byte in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_in_any_published_file_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let (hub, _agent) = installed(home.path());
    let mut version = 0;
    for kind in [
        "delta",
        "release.json",
        ".targets.json",
        ".snapshot.json",
        "timestamp.json",
    ] {
        version += 1;
        let release = format!("1.{version}");
        let published = next(home.path(), &hub, &release);
        // The rollout is made while the hub can still read the repository; the device comes later.
        ok(std::process::Command::new("pkill")
            .args(["-STOP", "-f"])
            .arg(hub.state("gw")));
        let started = json(&mut hub.pytheas(&["rollout", "start", &format!("app@{release}")]));
        let id = started["rollout"]["id"].as_i64().unwrap().to_string();
        let path = match kind {
            "delta" => {
                let target = published["target"].as_str().unwrap();
                let dir = hub
                    .repo
                    .join("targets")
                    .join(Path::new(target).parent().unwrap());
                let release: Value =
                    serde_json::from_slice(&fs::read(newest(&dir, "release.json")).unwrap())
                        .unwrap();
                let deltas = release["deltas"].as_object().unwrap();
                let sha = deltas.values().next().unwrap()["sha256"].as_str().unwrap();
                hub.repo.join("blobs").join(&sha[..2]).join(sha)
            }
            end => newest(&hub.repo, end),
        };
        let good = fs::read(&path).unwrap();
        flip(&path);
        ok(std::process::Command::new("pkill")
            .args(["-CONT", "-f"])
            .arg(hub.state("gw")));
        // A file that is wrong for good ends the action; one that may heal is tried again.
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let words = wait_for(
            &format!("a refusal of `{name}`"),
            Duration::from_secs(60),
            || {
                let mut status = pytheas(&hub.home);
                status
                    .args(["agent", "status", "--state"])
                    .arg(hub.state("gw"));
                let words = format!("{} {}", said(&hub), json(&mut status));
                words.contains(&name).then_some(words)
            },
        );
        assert!(!words.contains("\"succeeded\""), "{kind}: {words}");
        assert_eq!(whole_version(&hub), "1.0", "{kind}: {words}");
        fs::write(&path, good).unwrap();
        let _ended_or_not = hub.pytheas(&["rollout", "abort", &id]).output().unwrap();
    }
    // Mended, the fleet goes on.
    next(home.path(), &hub, "2.0");
    let status = hub.roll_out(&["app@2.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    assert_eq!(whole_version(&hub), "2.0");
}

#[test]
fn a_release_signed_by_an_unknown_key_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (hub, _agent) = installed(home.path());
    // Somebody takes over the repository with keys of their own, the hub included.
    let other = home.path().join("other");
    fs::create_dir_all(&other).unwrap();
    ok(pytheas(&other)
        .args(["keys", "init", "--keys"])
        .arg(other.join("keys")));
    let dir = other.join("tree");
    script_tree(&dir, "6.6.6", GOOD);
    let mut publish = pytheas(&other);
    publish
        .arg("publish")
        .arg(&dir)
        .arg("--repo")
        .arg(other.join("repo"));
    ok(publish.arg("--keys").arg(other.join("keys")));
    ok(std::process::Command::new("sh")
        .args(["-c", "cp -r \"$0\"/. \"$1\""])
        .arg(other.join("repo"))
        .arg(&hub.repo));
    let words = wait_for("the hub to refuse", Duration::from_secs(30), || {
        let output = hub
            .pytheas(&["rollout", "start", "app@6.6.6"])
            .output()
            .unwrap();
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(
        words.contains("metadata") || words.contains("sign"),
        "{words}"
    );
    assert_eq!(whole_version(&hub), "1.0");
}

#[test]
fn a_release_for_another_platform_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (hub, _agent) = installed(home.path());
    let record = serde_json::json!({
        "format": 1, "name": "app", "version": "1.1", "form": "bundle",
        "platform": "linux-riscv64", "entry": "bin/app",
    });
    tree(&home.path().join("alien"), &record.to_string(), GOOD);
    hub.publish(&home.path().join("alien"));
    let output = hub
        .pytheas(&["rollout", "start", "app@1.1", "--device", "gw"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && words.contains("linux-riscv64"),
        "{words}"
    );
    assert_eq!(whole_version(&hub), "1.0");
}

#[test]
fn a_release_that_is_not_ready_rolls_back_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let (hub, _agent) = installed(home.path());
    let dir = home.path().join("bad");
    script_tree(
        &dir,
        "1.1",
        "#!/bin/sh\necho the sensor is upside down\nexit 3\n",
    );
    hub.publish(&dir);
    let status = hub.roll_out(&["app@1.1"]);
    assert_eq!(status["rollout"]["state"], "paused", "{status}");
    assert!(
        said(&hub).contains("the sensor is upside down"),
        "{}",
        said(&hub)
    );
    assert_eq!(whole_version(&hub), "1.0");
}

#[test]
fn fifty_kills_at_random_moments_leave_a_whole_release_each_time() {
    let home = tempfile::tempdir().unwrap();
    let (hub, mut agent) = installed(home.path());
    // A few releases to go to and fro; each kill falls somewhere into an update.
    let mut seed = u64::from(std::process::id()) | 1;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut versions = vec!["1.0".to_owned()];
    for round in 0..50 {
        if round % 5 == 0 {
            let version = format!("2.{round}");
            next(home.path(), &hub, &version);
            ok(&mut hub.pytheas(&["rollout", "start", &format!("app@{version}")]));
            versions.push(version);
        }
        // Downloading and switching take a few hundred milliseconds, probation the rest.
        let within = if round % 2 == 0 { 900 } else { 300 };
        std::thread::sleep(Duration::from_millis(random(within)));
        agent.kill();
        let version = whole_version(&hub);
        assert!(versions.contains(&version), "round {round}: {version}");
        agent = hub.agent("gw", |_| {});
    }
    // A release that was killed too often in its probation is given up, as it should be; the next
    // one goes through.
    next(home.path(), &hub, "3.0");
    let status = hub.roll_out(&["app@3.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    assert_eq!(whole_version(&hub), "3.0");
}

#[test]
fn an_update_moves_few_bytes_and_outlives_a_hub_that_is_away() {
    let home = tempfile::tempdir().unwrap();
    let (mut hub, _agent) = installed(home.path());
    next(home.path(), &hub, "1.1");
    let before = hub.moved("gw");
    let status = hub.roll_out(&["app@1.1"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    let moved = hub.moved("gw") - before;
    assert!(
        (1..100_000).contains(&moved),
        "{moved} bytes for one changed file"
    );

    next(home.path(), &hub, "1.2");
    ok(&mut hub.pytheas(&["rollout", "start", "app@1.2"]));
    let listen = hub
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    hub.down();
    std::thread::sleep(Duration::from_secs(2));
    hub.up(&listen);
    wait_for("the device to go on", Duration::from_secs(60), || {
        (hub.runs("gw").as_deref() == Some("app@1.2")).then_some(())
    });
    assert_eq!(whole_version(&hub), "1.2");
}
