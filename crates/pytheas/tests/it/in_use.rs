//! `pytheas publish` makes deltas from what devices run: real hub, real agents' reports.

use std::{path::Path, time::Duration};

use pytheas_release::Sha256;
use serde_json::Value;

use crate::common::{GOOD, Hub, json, pytheas, script_tree, shown, wait_for};

/// A tree in which one larger file changes a little, so that a delta is worth it.
fn tree(home: &Path, version: &str) -> std::path::PathBuf {
    let dir = home.join(version);
    script_tree(&dir, version, &format!("{GOOD}# {version}\n"));
    let lines = (0..2_000_u32).map(|n| Sha256::of(&n.to_le_bytes()).to_string());
    let text = lines.collect::<Vec<_>>().join("\n") + version;
    std::fs::write(dir.join("lib/table.txt"), text).unwrap();
    dir
}

fn deltas(published: &Value) -> String {
    let deltas = published["deltas"].as_array().unwrap().iter();
    let line = |delta: &Value| {
        let devices = delta["devices"].as_u64().map(|n| format!(" {n}"));
        let (from, reason) = (&delta["from"], &delta["reason"]);
        format!("{from} {reason}{}\n", devices.unwrap_or_default())
    };
    deltas.map(line).collect()
}

#[test]
fn deltas_are_made_from_the_releases_that_devices_report() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let repo = hub.repo.to_str().unwrap().to_owned();
    let keys = hub.keys.to_str().unwrap().to_owned();
    let publish = |version: &str, more: &[&str]| {
        let dir = tree(home.path(), version);
        let mut command = pytheas(home.path());
        command.arg("publish").arg(dir).args(["--keys", &keys]);
        command.args(more);
        command
    };
    for version in ["1.0", "1.1", "1.2", "1.3", "1.4"] {
        let none = ["--repo", &repo, "--deltas", "0"];
        json(&mut publish(version, &none));
    }
    let _agents = ["a", "b", "c"].map(|id| hub.agent(id, |_| {}));
    wait_for("the devices to enrol", Duration::from_secs(60), || {
        let devices = json(&mut hub.pytheas(&["device", "list"]));
        let all = devices.as_array()?;
        (all.len() == 3 && all.iter().all(|d| d["last_seen_ms"].is_number())).then_some(())
    });
    for (release, devices) in [("app@1.0", &["a", "b"][..]), ("app@1.2", &["c"])] {
        let mut args = vec![release];
        args.extend(devices.iter().flat_map(|id| ["--device", id]));
        let status = hub.roll_out(&args);
        assert_eq!(status["rollout"]["state"], "finished", "{status}");
        for id in devices {
            wait_for("the device's report", Duration::from_secs(60), || {
                (hub.runs(id)? == release).then_some(())
            });
        }
    }

    // Over the hub's own repository, with a token that may publish and nothing else.
    let made = json(&mut hub.pytheas(&["token", "create", "--role", "publisher", "ci"]));
    let token = made["token"].as_str().unwrap();
    let url = format!("{}/repo", hub.url);
    let published = json(publish("2.0", &["--repo", &url]).env("PYTHEAS_TOKEN", token));
    insta::assert_snapshot!(deltas(&published), @r#"
    "app@1.0" "in-use" 2
    "app@1.2" "in-use" 1
    "app@1.4" "newest"
    "#);
    assert_eq!(published["in_use"]["releases"][0]["release"], "app@1.0");
    assert_eq!(published["in_use"]["releases"][0]["devices"], 2);

    // Another repository than the hub's; the hub is named.
    let named = ["--repo", &repo, "--hub", &hub.url, "--deltas", "1"];
    let published = json(publish("2.1", &named).env("PYTHEAS_TOKEN", &hub.token));
    insta::assert_snapshot!(deltas(&published), @r#""app@1.0" "in-use" 2"#);

    // A hub that does not answer is no reason not to publish.
    for (version, hub, token) in [
        ("2.2", "http://127.0.0.1:9", hub.token.as_str()),
        ("2.3", hub.url.as_str(), "pyt_wrong"),
    ] {
        let mut command = publish(version, &["--repo", &repo, "--hub", hub, "--json"]);
        let output = command.env("PYTHEAS_TOKEN", token).output().unwrap();
        let said = shown(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("not known what devices run"), "{said}");
        let published: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = deltas(&published);
        assert_eq!(all.matches("\"newest\"").count(), 3, "{all}");
        assert!(published["in_use"]["error"].is_string(), "{published}");
    }
    // Nobody knows a hub.
    let published = json(&mut publish("2.4", &["--repo", &repo]));
    assert!(published["in_use"].is_null());
    assert_eq!(published["deltas"].as_array().unwrap().len(), 3);
}
