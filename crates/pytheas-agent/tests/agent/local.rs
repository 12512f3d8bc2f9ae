//! What somebody at the device can ask: history, verify, rollback and logs, as text and as JSON.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use serde_json::Value;

use crate::support::{App, Device, World, until};

fn json(device: &Device, verb: &str) -> Value {
    let output = device.output(verb, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(device: &Device, words: &[&str]) -> String {
    let output = device.output(words[0], &words[1..]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_happened_is_known_also_without_an_agent() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    assert_eq!(text(&device, &["history"]), "nothing has happened yet\n");
    assert_eq!(json(&device, "history"), serde_json::json!([]));
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let bad = world.publish(&App::good("1.1.0").crashing("echo no luck; exit 3"));
    let action = world.hub.offer(&bad.target);
    world.hub.closed(&action).unwrap_err();
    let second = world.publish(&App::good("1.2.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.kill();

    let history = json(&device, "history");
    let told: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            [&e["outcome"], &e["from"], &e["to"], &e["by"], &e["action"]]
                .map(Value::to_string)
                .join(" ")
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "committed" null "app@1.0.0" "hub" "1"
    "rolled-back" "app@1.0.0" "app@1.1.0" "hub" "2"
    "committed" "app@1.0.0" "app@1.2.0" "hub" "3"
    "#);
    assert!(
        history[1]["reason"]
            .as_str()
            .unwrap()
            .contains("exit status 3")
    );
    assert!(
        text(&device, &["history", "-n", "1"])
            .contains("committed    app@1.2.0 (from app@1.0.0), action 3\n")
    );

    let verified = json(&device, "verify");
    assert_eq!(
        (&verified["whole"], &verified["tree"]),
        (&Value::Bool(true), &Value::String(second.tree.to_string()))
    );
    let file = device.state.join("current/lib/module.py");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    pytheas_durable::replace(&file, b"rotten").unwrap();
    let output = device.output("verify", &["--json"]);
    assert_eq!(output.status.code(), Some(4));
    let verified: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verified["whole"], false);
    assert!(
        verified["damage"]
            .as_str()
            .unwrap()
            .contains("lib/module.py")
    );
}

#[test]
fn a_rollback_by_hand_is_told_and_not_undone_by_the_action_that_was_undone() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let asked = json(&device, "rollback");
    assert_eq!(asked["to"], "app@1.0.0");
    assert_eq!(asked["agent_pid"], device.child.as_ref().unwrap().id());
    device.runs("1.0.0");
    device.is_idle();
    let history = json(&device, "history");
    let last = history.as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["by"], &last["to"]),
        (&"operator".into(), &"app@1.0.0".into())
    );
    until("the hub knows", || {
        let talk = world.hub.talk();
        let data = &talk.attributes.last()?["data"];
        let told = data["pytheas.last-change"].as_str()?;
        (data["pytheas.release"] == "app@1.0.0" && told.contains("by an operator")).then_some(())
    });

    // A hub that forgot that the action was done (restored from a backup) wants it again.
    {
        let mut talk = world.hub.talk();
        talk.feedback.clear();
        talk.offer = Some((action.clone(), second.target.clone(), false));
    }
    let told = world.hub.closed(&action).unwrap_err().join("\n");
    assert!(told.contains("went back from"), "{told}");
    device.is_idle();
    device.runs("1.0.0");
    // Another action is another decision.
    let again = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&again), Ok(()));
    device.runs("1.1.0");
}

#[test]
fn the_apps_log_is_shown_and_followed() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0").script(
        "echo one; echo two; while ! [ -e \"$PYTHEAS_DATA_DIR/go\" ]; do sleep 0.05; done; echo three; exec sleep 100000",
    ));
    let fresh = world.device("fresh");
    assert_eq!(text(&fresh, &["logs"]), "");
    let mut device = world.device_with("device", &first);
    until("both lines", || {
        text(&device, &["logs"]).contains("two\n").then_some(())
    });
    assert_eq!(text(&device, &["logs", "-n", "2"]), "one\ntwo\n");
    let lines = text(&device, &["logs", "--json"]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines[0]["line"]
            .as_str()
            .unwrap()
            .starts_with("started app@1.0.0"),
        "{lines:?}"
    );
    assert_eq!(
        (&lines[0]["by"], &lines[1]["by"]),
        (&"agent".into(), &"app".into())
    );

    let mut following = device
        .command("logs")
        .args(["-f", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(shown.next().unwrap().unwrap(), "two");
    pytheas_durable::replace(&device.state.join("data/go"), b"").unwrap();
    assert_eq!(shown.next().unwrap().unwrap(), "three");
    drop(shown); // as `logs -f | head` does: the next line ends it
    device.stop();
    until("it ends", || following.try_wait().unwrap());
}

#[test]
fn who_may_not_write_can_still_look() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can become somebody else");
    }
    use std::os::unix::process::CommandExt as _;
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    fs::set_permissions(world.tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    // A copy in a place that everybody can reach.
    let program = world.path("pytheas-agent");
    fs::copy(env!("CARGO_BIN_EXE_pytheas-agent"), &program).unwrap();
    device.program = Some(program);
    let as_nobody = |words: &[&str]| {
        let mut command = device.command(words[0]);
        command
            .args(&words[1..])
            .uid(65534)
            .gid(65534)
            .current_dir("/");
        command.output().unwrap()
    };
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["history"],
        &["verify"],
        &["logs"],
    ] {
        let output = as_nobody(words);
        assert!(output.status.success(), "{words:?} {output:?}");
    }
    let status: Value = serde_json::from_slice(&as_nobody(&["status", "--json"]).stdout).unwrap();
    assert_eq!(
        (&status["device_id"], &status["accepted"]),
        (&"dev1".into(), &true.into())
    );
    let output = as_nobody(&["rollback"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("not writable for this user"), "{said}");
    device.runs("1.1.0");
}
