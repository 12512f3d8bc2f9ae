//! The drill of `docs/guides/updates-keys.md`, with a real hub and a real agent: the hub is
//! stolen, the thief signs with its online keys, and the devices come back. Needs OpenSSL.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::common::{GOOD, Hub, json as parsed, ok, pytheas, script_tree, wait_for};

/// `document` signed with the Ed25519 key in `pem`, as OpenSSL can; nothing without OpenSSL 3.
fn signed(dir: &Path, document: &Value, id: &Value, pem: &Path) -> Option<Vec<u8>> {
    // Canonical JSON: keys sorted, no blanks; there are no other differences in these documents.
    fn sorted(value: &Value) -> String {
        match value {
            Value::Object(map) => {
                let mut parts: Vec<_> = map.iter().collect();
                parts.sort_by_key(|(key, _)| key.as_str());
                let parts: Vec<_> = parts
                    .iter()
                    .map(|(key, value)| format!("{}:{}", json!(key), sorted(value)))
                    .collect();
                format!("{{{}}}", parts.join(","))
            }
            other => other.to_string(),
        }
    }
    let (message, signature) = (dir.join("message"), dir.join("signature"));
    fs::write(&message, sorted(document)).unwrap();
    let status = Command::new("openssl")
        .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
        .arg(pem)
        .arg("-in")
        .arg(&message)
        .arg("-out")
        .arg(&signature)
        .status();
    status.ok().filter(|status| status.success())?;
    let hex: String = fs::read(&signature)
        .unwrap()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let all = json!({ "signed": document, "signatures": [{ "keyid": id, "sig": hex }] });
    Some(all.to_string().into_bytes())
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What the thief does with the online keys: snapshot and timestamp a million versions ahead.
fn fast_forward(hub: &Hub, stolen: &Path) -> Option<()> {
    const FAR: u64 = 1_000_000;
    let metadata = hub.repo.join("metadata");
    let root = read(&stolen.join("root.json"));
    let id = |role: &str| root["signed"]["roles"][role]["keyids"][0].clone();
    let mut timestamp = read(&metadata.join("timestamp.json"))["signed"].clone();
    let version = timestamp["meta"]["snapshot.json"]["version"].clone();
    let mut snapshot = read(&metadata.join(format!("{version}.snapshot.json")))["signed"].clone();
    snapshot["version"] = json!(FAR);
    let pem = stolen.join("snapshot.pem");
    let bytes = signed(stolen, &snapshot, &id("snapshot"), &pem)?;
    timestamp["version"] = json!(FAR);
    timestamp["meta"]["snapshot.json"] = json!({ "version": FAR, "length": bytes.len() });
    fs::write(metadata.join(format!("{FAR}.snapshot.json")), bytes).unwrap();
    let pem = stolen.join("timestamp.pem");
    let bytes = signed(stolen, &timestamp, &id("timestamp"), &pem)?;
    fs::write(metadata.join("timestamp.json"), bytes).unwrap();
    Some(())
}

/// The version of the timestamp that the device trusts.
fn trusted(hub: &Hub) -> Option<u64> {
    let mut dirs = vec![hub.state("gw")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).ok()?.flatten() {
            let path = entry.path();
            if path
                .file_name()
                .is_some_and(|name| name == "timestamp.json")
            {
                let value: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
                return value["signed"]["version"].as_u64();
            }
            if path.is_dir() && !path.is_symlink() {
                dirs.push(path);
            }
        }
    }
    None
}

#[test]
fn the_hub_was_stolen_and_the_devices_come_back() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut hub = Hub::start(home);
    for version in ["1.0", "1.1"] {
        script_tree(
            &home.join(version),
            version,
            &format!("{GOOD}# {version}\n"),
        );
        hub.publish(&home.join(version));
    }
    let _agent = hub.agent("gw", |_| {});
    wait_for("the device to enrol", Duration::from_secs(60), || {
        let devices = parsed(&mut hub.pytheas(&["device", "list"]));
        devices[0]["last_seen_ms"].is_number().then_some(())
    });
    let finished = |hub: &Hub, release: &str| {
        let status = hub.roll_out(&[release]);
        assert_eq!(status["rollout"]["state"], "finished", "{status}");
    };
    finished(&hub, "app@1.0");

    // The theft.
    let stolen = home.join("stolen");
    fs::create_dir(&stolen).unwrap();
    for file in ["root.json", "snapshot.pem", "timestamp.pem"] {
        fs::copy(hub.keys.join("online").join(file), stolen.join(file)).unwrap();
    }
    if fast_forward(&hub, &stolen).is_none() {
        return testkit::skip("no OpenSSL 3 to forge signatures with");
    }
    finished(&hub, "app@1.1"); // a genuine release, under the thief's snapshot
    assert_eq!(trusted(&hub), Some(1_000_000));

    // The drill.
    let listen = hub.url.trim_start_matches("http://").to_owned();
    hub.down();
    let folder = hub.keys.clone();
    let keys = |args: &[&str]| {
        let mut command = pytheas(home);
        command.arg("keys").args(args).arg("--keys").arg(&folder);
        command
    };
    let rotated = parsed(&mut keys(&["rotate", "online"]));
    assert_eq!(rotated["in_force"], true, "{rotated}");
    let repo = hub.repo.display().to_string();
    let published = parsed(&mut keys(&["publish", "--repo", &repo]));
    assert_eq!(published["recovered"], true, "{published}");
    assert_eq!(published["releases"].as_array().unwrap().len(), 2);
    assert_eq!(published["timestamp_version"], 1_000_001);
    hub.up(&listen); // with `keys/online`, where the new keys lie

    script_tree(&home.join("2.0"), "2.0", &format!("{GOOD}# 2.0\n"));
    hub.publish(&home.join("2.0"));
    finished(&hub, "app@2.0");
    assert_eq!(hub.runs("gw").as_deref(), Some("app@2.0"));
    assert!(trusted(&hub).is_some_and(|version| version > 1_000_000));

    // What the thief signs now, nobody believes: not the hub, and not the devices.
    fast_forward(&hub, &stolen).unwrap();
    let output = ok(keys(&["show"]).arg("--json"));
    assert!(output.contains("\"root_version\": 2"), "{output}");
    let refused = keys(&["show", "--repo", &repo]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{words}");
    assert!(words.contains("timestamp.json"), "{words}");
}
