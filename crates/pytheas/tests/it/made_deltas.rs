//! Deltas on demand, end to end: the first device that lacks one fetches contents, and those that
//! come later take the delta that the hub has made meanwhile. Then the repository is tidied.

use std::{fs, time::Duration};

use pytheas_release::Sha256;
use serde_json::Value;

use crate::common::{GOOD, Hub, json, ok, pytheas, script_tree, shown, wait_for};

/// A release in which one larger file changes a little.
fn release(hub: &Hub, version: &str) -> Value {
    let dir = hub.home.join(version);
    script_tree(&dir, version, &format!("{GOOD}# {version}\n"));
    let lines = (0..20_000_u32).map(|n| Sha256::of(&n.to_le_bytes()).to_string());
    let text = lines.collect::<Vec<_>>().join("\n") + version;
    fs::write(dir.join("lib/table.txt"), text).unwrap();
    let mut command = pytheas(&hub.home);
    command
        .args(["publish", "--deltas", "1"])
        .arg(&dir)
        .arg("--repo")
        .arg(&hub.repo);
    json(command.arg("--keys").arg(&hub.keys))
}

fn pointers(hub: &Hub) -> Vec<std::path::PathBuf> {
    fs::read_dir(hub.repo.join("deltas"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn the_second_device_gets_the_delta_that_the_first_one_made_the_hub_make() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    release(&hub, "1.0.0");
    let _first = hub.agent("first", |_| {});
    let _second = hub.agent("second", |_| {});
    wait_for("the devices to enrol", Duration::from_secs(60), || {
        let devices = json(&mut hub.pytheas(&["device", "list"]));
        let all = devices.as_array()?;
        (all.len() == 2 && all.iter().all(|d| d["last_seen_ms"].is_number())).then_some(())
    });
    let status = hub.roll_out(&["app@1.0.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    release(&hub, "1.1.0");
    let published = release(&hub, "1.2.0");
    assert_eq!(published["deltas"].as_array().unwrap().len(), 1);
    assert_eq!(published["deltas"][0]["from"], "app@1.1.0");

    let update = |device: &str| {
        let before = hub.moved(device);
        let status = hub.roll_out(&["app@1.2.0", "--device", device]);
        assert_eq!(status["rollout"]["state"], "finished", "{status}");
        assert_eq!(hub.runs(device).as_deref(), Some("app@1.2.0"));
        hub.moved(device) - before
    };
    let contents = update("first");
    assert!(contents > 500_000, "{contents} bytes without a delta");
    wait_for("the hub to make the delta", Duration::from_secs(60), || {
        (!pointers(&hub).is_empty()).then_some(())
    });
    let delta = update("second");
    assert!(delta < contents / 10, "{delta} of {contents} bytes");
    for device in ["first", "second"] {
        let mut verify = pytheas(&hub.home);
        ok(verify
            .args(["agent", "verify", "--state"])
            .arg(hub.state(device)));
    }

    // What is in use stays, however young it need be; what a publish left behind goes.
    let junk = Sha256::of(b"junk").to_string();
    let junk = format!("blobs/{}/{junk}", &junk[..2]);
    fs::create_dir_all(hub.repo.join(&junk).parent().unwrap()).unwrap();
    fs::write(hub.repo.join(&junk), "junk").unwrap();
    let gc = |args: &[&str]| {
        let mut command = pytheas(&hub.home);
        command.args(["repo", "gc", "--repo"]).arg(&hub.repo);
        json(command.args(args))
    };
    let found = gc(&[]);
    assert_eq!(found["garbage_files"], 0, "all is too young: {found}");
    let found = gc(&["--min-age", "0s"]);
    let paths: Vec<&str> = found["garbage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert!(paths.contains(&junk.as_str()), "{found}");
    let allowed = |path: &&str| *path == junk || path.ends_with(".snapshot.json");
    assert!(paths.iter().all(allowed), "{found}");
    assert!(hub.repo.join(&junk).exists());
    let found = gc(&["--min-age", "0s", "--yes"]);
    assert_eq!(found["removed"], true);
    assert!(!hub.repo.join(&junk).exists());
    assert_eq!(pointers(&hub).len(), 1);

    // A new device installs from what is left.
    let _third = hub.agent("third", |_| {});
    wait_for("the device to enrol", Duration::from_secs(60), || {
        let devices = json(&mut hub.pytheas(&["device", "list"]));
        (devices.as_array()?.len() == 3).then_some(())
    });
    update("third");

    let mut over_http = pytheas(&hub.home);
    let url = format!("{}/repo", hub.url);
    let output = over_http.args(["repo", "gc", "--repo", &url]).output();
    let said = shown(&output.unwrap()).replace(&url, "URL");
    insta::assert_snapshot!(said, @r"
    exit 1
    --- stdout
    --- stderr
    looking through the repository in URL
    error: what lies in `URL` cannot be listed or removed over HTTP
      help: run it where the files are: for a hub `--repo DATA/repo` on its machine, or the bucket's own URL
    ");
}
