//! `pytheas config` with the real hub and agent: set, applied, given up, brought back; and waiting
//! for a device that never comes.

use std::time::Duration;

use serde_json::{Value, json as value};

use crate::common::{Hub, json, ok, shown, tree, wait_for};

/// An app that has to find an interval it can work with.
const APP: &str = "#!/bin/sh\ntrap 'exit 0' TERM\n[ \"$APP_INTERVAL\" = 0s ] && { echo 'cannot divide by zero'; exit 3; }\n\
    cp \"$PYTHEAS_CONFIG\" \"$PYTHEAS_DATA_DIR/seen.json\"\nwhile :; do sleep 0.1; done\n";

fn of_device(hub: &Hub, state: &str) -> Value {
    wait_for(
        &format!("settings are {state}"),
        Duration::from_secs(60),
        || {
            let config = json(&mut hub.pytheas(&["config", "show", "--device", "gw"]));
            (config["state"] == state).then_some(config)
        },
    )
}

#[test]
fn settings_reach_the_app_and_go_back_by_themselves_when_it_does_not_work() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let platform = pytheas_release::Platform::host().unwrap();
    let record = value!({
        "format": 1, "name": "app", "version": "1.0", "form": "bundle",
        "platform": platform.as_str(), "entry": "bin/app",
        "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 10_000, "stay_up_ms": 300},
        "config": {"interval": {"type": "duration", "default": "10s", "env": "APP_INTERVAL"}},
    });
    tree(&dir.path().join("1.0"), &record.to_string(), APP);
    hub.publish(&dir.path().join("1.0"));
    let _agent = hub.agent("gw", |_| {});
    wait_for("the device", Duration::from_secs(30), || {
        hub.runs("gw").or_else(|| {
            let devices = json(&mut hub.pytheas(&["device", "list"]));
            devices[0]["id"].as_str().map(str::to_owned)
        })
    });
    let status = hub.roll_out(&["app@1.0"]);
    assert_eq!(status["rollout"]["state"], "finished", "{status}");

    let run = |args: &[&str]| shown(&hub.pytheas(args).output().unwrap());
    insta::assert_snapshot!(run(&["config", "set", "mqtt.host=a", "mqtt.port=1883", "interval=30s", "--note", "first"]), @"
    exit 0
    --- stdout
    revision 1: all
    --- stderr
    ");
    ok(&mut hub.pytheas(&["device", "group", "gw", "--to", "north"]));
    ok(&mut hub.pytheas(&["config", "set", "--group", "north", "mqtt.host=b"]));
    let config = of_device(&hub, "applied");
    assert_eq!(
        config["settings"],
        value!({"interval": "30s", "mqtt": {"host": "b", "port": 1883}})
    );
    let seen = || std::fs::read(hub.state("gw").join("data/seen.json")).unwrap_or_default();
    wait_for("the app to see them", Duration::from_secs(20), || {
        let seen: Value = serde_json::from_slice(&seen()).ok()?;
        (seen == config["settings"]).then_some(())
    });

    ok(&mut hub.pytheas(&["config", "set", "--device", "gw", "interval=0s"]));
    let refused = of_device(&hub, "refused");
    assert_eq!(refused["applied"], config["tag"]);
    let because: Vec<&str> = refused["because"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    assert!(because[0].contains("exit status 3"), "{because:?}");
    assert!(because.contains(&"cannot divide by zero"), "{because:?}");

    insta::assert_snapshot!(run(&["config", "show"]), @r#"
    exit 0
    --- stdout
    revision      3

    all
    interval = "30s"
    mqtt.host = "a"
    mqtt.port = 1883

    group:north
    mqtt.host = "b"

    device:gw
    interval = "0s"
    --- stderr
    "#);
    insta::assert_snapshot!(run(&["config", "get", "mqtt.host", "--device", "gw"]), @"
    exit 0
    --- stdout
    b
    --- stderr
    ");
    insta::assert_snapshot!(run(&["config", "get", "nothing", "--group", "north"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no setting `nothing` in `group:north`
      help: `pytheas config show` shows those there are
    ");
    insta::assert_snapshot!(run(&["config", "unset", "--device", "gw", "interval", "more"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no setting `more` in `device:gw`
      help: `pytheas config show` shows those there are
    ");
    insta::assert_snapshot!(run(&["config", "unset", "--device", "gw", "interval"]), @"
    exit 0
    --- stdout
    revision 4: device:gw
    --- stderr
    ");
    insta::assert_snapshot!(run(&["config", "rollback", "1"]), @"
    exit 1
    --- stdout
    --- stderr
    error: settings of `all` are as they were at revision 1
      help: `pytheas config history` shows which revision changed what
    ");
    of_device(&hub, "applied");

    let exported = ok(&mut hub.pytheas(&["config", "export"]));
    let file = dir.path().join("config.json");
    std::fs::write(&file, &exported).unwrap();
    ok(&mut hub.pytheas(&["config", "set", "interval=1s"]));
    let file = file.to_str().unwrap();
    insta::assert_snapshot!(run(&["config", "import", file]), @"
    exit 0
    --- stdout
    revision 6: all
    --- stderr
    ");
    insta::assert_snapshot!(run(&["config", "import", file]), @"
    exit 0
    --- stdout
    --- stderr
    nothing to change: that is how it is
    ");
    insta::assert_snapshot!(run(&["config", "import", file, "--device", "nobody"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no device `nobody`
      help: `pytheas device list` shows them
    ");
    assert_eq!(ok(&mut hub.pytheas(&["config", "export"])), exported);
    let history = json(&mut hub.pytheas(&["config", "history", "--all"]));
    assert_eq!(history.as_array().unwrap().len(), 3);
}

#[test]
fn waiting_for_a_device_that_never_comes_ends_in_time_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    ok(&mut hub.pytheas(&["device", "add", "gone", "--platform", "linux-x86_64"]));
    ok(&mut hub.pytheas(&["device", "add", "other", "--group", "north"]));
    let file = dir.path().join("fw.swu");
    std::fs::write(&file, b"firmware").unwrap();
    let mut upload = hub.pytheas(&["artifact", "upload"]);
    ok(upload.arg(&file).args(["--name", "fw", "--version", "1"]));
    let run = |args: &[&str]| shown(&hub.pytheas(args).output().unwrap());
    let start = [
        "rollout",
        "start",
        "--artifact",
        "fw@1",
        "--device",
        "gone",
        "--wait",
        "--timeout",
        "1s",
    ];
    insta::assert_snapshot!(run(&start), @"
    exit 3
    --- stdout
    ROLLOUT  RELEASE  STATE    DONE  FAILED  OF  GROUPS
    1        fw@1     running  0     0       1   100% open

    DEVICE  GROUP  STATUS   MESSAGE
    gone    1      pending
    --- stderr
    fw@1: 0 of 1 done, 0 failed
    error: rollout 1 has not ended after 1 s: it waits for `gone` (pending, never seen)
      help: it goes on: `pytheas rollout status 1 --wait` waits again, `pytheas rollout abort 1` ends it
    ");
    insta::assert_snapshot!(run(&["rollout", "status", "--wait"]), @"
    exit 2
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <ID>

    Usage: pytheas rollout status --wait --hub <URL> --token <TOKEN> <ID>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(run(&["device", "delete", "gone"]), @"
    exit 1
    --- stdout
    --- stderr
    error: nobody is there to agree that devices are deleted
      help: `--yes` agrees
    ");
    insta::assert_snapshot!(run(&["device", "delete", "--yes", "gone", "nobody"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no device `nobody`
      help: `pytheas device list` shows them
    ");
    insta::assert_snapshot!(run(&["device", "delete", "--yes", "--json", "gone", "other"]), @r#"
    exit 0
    --- stdout
    {
      "deleted": [
        "gone",
        "other"
      ]
    }
    --- stderr
    "#);
    insta::assert_snapshot!(run(&["device", "delete", "--yes", "gone"]), @"
    exit 1
    --- stdout
    --- stderr
    error: no device `gone`
      help: `pytheas device list` shows them
    ");
    assert_eq!(json(&mut hub.pytheas(&["device", "list"])), value!([]));
}
