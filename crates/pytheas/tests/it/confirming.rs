//! A rollout that somebody at each device has to agree to: real hub, real agent.

use std::{fs, time::Duration};

use crate::common::{GOOD, Hub, json, ok, pytheas, script_tree, wait_for};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_update_is_fetched_when_somebody_at_the_device_has_approved_it() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    for version in ["1.0", "1.1"] {
        let tree = home.path().join(version);
        script_tree(&tree, version, GOOD);
        hub.publish(&tree);
    }
    // The device's own rule, too: nobody is asked twice.
    let state = hub.state("till");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("agent.toml"), "[install]\nconsent = true\n").unwrap();
    let _agent = hub.agent("till", |_| {});
    let at_device = |words: &[&str]| {
        let mut command = pytheas(home.path());
        command.arg("agent").args(words).arg("--state").arg(&state);
        command
    };
    wait_for("the device", LONG, || {
        let devices = json(&mut hub.pytheas(&["device", "list"])).to_string();
        devices.contains("till").then_some(())
    });
    assert_eq!(hub.roll_out(&["app@1.0"])["rollout"]["state"], "finished");
    assert_eq!(ok(&mut at_device(&["approve"])), "no update waits\n");

    ok(&mut hub.pytheas(&["rollout", "start", "app@1.1", "--confirm"]));
    let waits = || {
        let status = json(&mut at_device(&["status"]));
        let confirm = status["confirm"].clone();
        confirm["release"].is_string().then_some(confirm)
    };
    let confirm = wait_for("it waits", LONG, waits);
    assert_eq!(confirm["release"], "app@1.1");
    let moved = hub.moved("till");

    let said = ok(&mut at_device(&["deny", "--because", "customers are here"]));
    assert_eq!(said, "`app@1.1` is not installed now\n");
    let status = wait_for("the hub knows", LONG, || {
        let detail = json(&mut hub.pytheas(&["rollout", "status", "2"]));
        let message = detail["devices"][0]["message"].as_str()?.to_owned();
        Some((detail["devices"][0]["status"].clone(), message))
    });
    assert_eq!(status.0, "unconfirmed");
    assert_eq!(status.1, "denied at the device: customers are here");
    assert_eq!(hub.runs("till").as_deref(), Some("app@1.0"));
    assert!(hub.moved("till") - moved < 20_000, "nothing was fetched");

    let answer = json(&mut at_device(&["approve"]));
    assert_eq!(answer["release"], "app@1.1", "{answer}");
    wait_for("the update", LONG, || {
        (hub.runs("till").as_deref() == Some("app@1.1")).then_some(())
    });
    assert!(json(&mut at_device(&["status"]))["confirm"].is_null());
    assert!(!state.join("answer.json").exists());
}
