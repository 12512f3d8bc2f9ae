//! Releases that need each other, with a real hub and a real agent: refused, installed together with
//! their data migrated, rolled back together, and back to an older one at an operator's word.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::common::{GOOD, Hub, json as shown_json, ok, pytheas, tree, wait_for};

/// Publishes a release with these rules and hooks; hooks are shell scripts.
fn publish(hub: &Hub, name: &str, version: &str, script: &str, rules: &Value, hook: Option<&str>) {
    let dir = hub.home.join(format!("{name}-{version}"));
    let platform = pytheas_release::Platform::host().unwrap();
    let hooks = match hook {
        Some(_) => json!({"after-update": {"command": ["bin/hook"], "timeout_ms": 60_000}}),
        None => json!({}),
    };
    let record = json!({
        "format": 1, "name": name, "version": version, "form": "bundle",
        "platform": platform.as_str(), "entry": "bin/app",
        "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 20_000, "stay_up_ms": 500},
        "update": {"rules": rules, "hooks": hooks},
    });
    let script = format!("{script}# {name} {version}\n");
    tree(&dir, &record.to_string(), &script);
    if let Some(hook) = hook {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join("bin/hook");
        fs::write(&path, format!("#!/bin/sh\n{hook}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    hub.publish(&dir);
}

fn also(hub: &Hub) -> Value {
    shown_json(&mut hub.pytheas(&["device", "show", "gw"]))["device"]["also"].clone()
}

fn said(hub: &Hub) -> String {
    let detail = shown_json(&mut hub.pytheas(&["device", "show", "gw"]));
    detail["history"][0]["messages"].to_string()
}

fn data(state: &Path, name: &str) -> String {
    fs::read_to_string(state.join("data").join(name)).unwrap_or_default()
}

#[test]
fn releases_that_need_each_other_go_the_same_way() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let none = json!({});
    let needs = |broker: &str| json!({"requires": {"broker": broker, "model": "gw-*"}});
    publish(&hub, "app", "1.0", GOOD, &none, None);
    publish(
        &hub,
        "app",
        "2.0",
        GOOD,
        &needs(">=2,<3"),
        Some("echo two > schema"),
    );
    publish(
        &hub,
        "app",
        "3.0",
        "#!/bin/sh\nexit 3\n",
        &needs(">=3"),
        Some("echo three > schema"),
    );
    publish(&hub, "broker", "2.0", GOOD, &none, None);
    publish(
        &hub,
        "broker",
        "3.0",
        GOOD,
        &none,
        Some("echo three > schema"),
    );
    let _agent = hub.agent("gw", |command| {
        command.args(["--model", "gw-7"]);
    });
    wait_for("the device to enrol", Duration::from_secs(60), || {
        let devices = shown_json(&mut hub.pytheas(&["device", "list"]));
        devices[0]["last_seen_ms"].is_number().then_some(())
    });
    let finished = |args: &[&str]| {
        let status = hub.roll_out(args);
        status["rollout"]["state"] == "finished"
    };
    let state = hub.state("gw");
    assert!(finished(&["app@1.0"]));

    // Refused before anything is fetched, by name.
    let before = hub.moved("gw");
    assert!(!finished(&["app@2.0"]));
    let words = said(&hub);
    assert!(
        words.contains("`app@2.0` requires `broker` >=2,<3; it is not on this device"),
        "{words}"
    );
    assert!(
        hub.moved("gw") - before < 50_000,
        "{} bytes",
        hub.moved("gw") - before
    );

    // Together they fit; the data is migrated.
    let status = hub.roll_out(&["app@2.0", "broker@2.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{}", said(&hub));
    assert_eq!(status["rollout"]["release"], "app@2.0, broker@2.0");
    assert_eq!(data(&state, "schema"), "two\n");
    wait_for("the hub to know both", Duration::from_secs(60), || {
        (hub.runs("gw").as_deref() == Some("app@2.0") && also(&hub) == json!(["broker@2.0"]))
            .then_some(())
    });
    let verified = ok(pytheas(&hub.home)
        .args(["agent", "verify", "--state"])
        .arg(&state));
    assert_eq!(verified.matches("is whole").count(), 2, "{verified}");

    // The broker would do, the app does not: both and their data are as they were.
    assert!(!finished(&["app@3.0", "broker@3.0"]));
    assert!(said(&hub).contains("app@3.0"), "{}", said(&hub));
    assert_eq!(data(&state, "schema"), "two\n");
    assert_eq!(data(&state.join("components/broker"), "schema"), "");
    assert_eq!(hub.runs("gw").as_deref(), Some("app@2.0"));
    assert_eq!(also(&hub), json!(["broker@2.0"]));

    // Back only at somebody's word.
    assert!(!finished(&["app@1.0"]));
    assert!(
        said(&hub).contains("`app@1.0` is older than `app@2.0`"),
        "{}",
        said(&hub)
    );
    assert!(finished(&["app@1.0", "--allow-downgrade"]));
    wait_for("the older release", Duration::from_secs(60), || {
        (hub.runs("gw").as_deref() == Some("app@1.0")).then_some(())
    });
}

#[test]
fn a_rollout_names_each_app_once() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    publish(&hub, "app", "1.0", GOOD, &json!({}), None);
    publish(&hub, "app", "2.0", GOOD, &json!({}), None);
    let output = hub
        .pytheas(&["rollout", "start", "app@1.0", "app@2.0"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("names `app` twice"), "{text}");
}
