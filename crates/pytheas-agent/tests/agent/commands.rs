//! The commands beside `run`: enrol, status, rollback, verify; locks and signals.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use pytheas_release::Sha256;

use crate::support::{App, World, alive, signal, until};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_device_waits_until_it_is_accepted() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    world.hub.talk().pending = true;
    let mut device = world.device("device");
    let root = world.root_file();
    let args = [
        "--hub",
        &world.hub.url(),
        "--root",
        root.to_str().unwrap(),
        "--id",
        "dev1",
        "--no-wait",
    ];
    let output = device.output("enrol", &args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "device `dev1` waits to be accepted: `pytheas device accept dev1`\n"
    );
    let identity = device.state.join("identity.json");
    assert_eq!(
        fs::metadata(&identity).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(device.status()["accepted"], false);

    let action = world.hub.offer(&first.target);
    device.start();
    until("it asks again", || {
        (world.hub.talk().enrolments.len() >= 3).then_some(())
    });
    world.hub.talk().pending = false;
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.status()["accepted"], true);
    let claims: std::collections::BTreeSet<String> = world
        .hub
        .talk()
        .enrolments
        .iter()
        .map(|e| e["claim"].to_string())
        .collect();
    assert_eq!(claims.len(), 1, "one device, one claim");
}

#[test]
fn the_root_can_be_fetched_when_its_hash_is_known() {
    let world = World::new();
    world.publish(&App::good("1.0.0"));
    let device = world.device("device");
    let hash = Sha256::of(&fs::read(world.root_file()).unwrap()).to_string();
    let wrong = Sha256::of(b"another").to_string();
    let enrol = |hash: &str| {
        device.output(
            "enrol",
            &[
                "--hub",
                &world.hub.url(),
                "--root-sha256",
                hash,
                "--id",
                "dev1",
            ],
        )
    };
    let output = enrol(&wrong);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("has SHA-256 {hash}, {wrong} was expected")));
    assert!(
        world.hub.talk().enrolments.is_empty(),
        "nobody was asked before the root was right"
    );
    let output = enrol(&hash);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn wrong_use_is_explained() {
    let world = World::new();
    let device = world.device("device");
    let shown = |output: std::process::Output| {
        let text = stderr(&output)
            .replace(&device.state.display().to_string(), "[STATE]")
            .replace(&world.hub.url(), "[HUB]");
        format!("exit {}\n{text}", output.status.code().unwrap())
    };
    insta::assert_snapshot!(shown(device.output("run", &[])), @r"
    exit 1
    error: this device is not enrolled: there is no `[STATE]/identity.json`
      help: enrol it with `pytheas agent enrol --hub URL --root FILE`
    ");
    let url = world.hub.url();
    insta::assert_snapshot!(shown(device.output("enrol", &["--hub", &url])), @r"
    exit 1
    error: this device has no root of trust yet
      help: give it the repository's first root metadata with `--root FILE`; `run` and `enrol` can fetch it, too, and compare it with `--root-sha256 HEX`
    ");
    insta::assert_snapshot!(shown(device.output("verify", &[])), @r"
    exit 1
    error: no release is installed in `[STATE]`
    ");
    insta::assert_snapshot!(shown(device.output("rollback", &[])), @r"
    exit 1
    error: there is nothing to go back to
      help: what the last update moved goes back together, and of that this device keeps no release before
    ");
    let hub = "http://127.0.0.1:1";
    let root = world.root_file();
    let args = [
        "--hub",
        hub,
        "--root",
        root.to_str().unwrap(),
        "--id",
        "dev1",
    ];
    insta::assert_snapshot!(shown(device.output("enrol", &args)), @r"
    exit 3
    error: cannot reach `http://127.0.0.1:1/api/v1/enrolment`
      because: io: Connection refused (os error 111)
      help: is the address right, the hub running, and the network up?
    ");
    let args = [
        "--hub",
        &url,
        "--root",
        root.to_str().unwrap(),
        "--id",
        "dev1",
    ];
    insta::assert_snapshot!(shown(device.output("enrol", &args)), @r"
    exit 1
    error: this device is enrolled at `http://127.0.0.1:1`, not at `[HUB]`
      help: to hand it over, remove `[STATE]` (its app's data is in `data/`) and enrol it again
    ");
}

#[test]
fn one_agent_works_in_a_state_directory() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let agent = device.child.as_ref().unwrap().id();
    let output = device.output("run", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains(&format!("another agent (process {agent}) works in")));
    assert_eq!(device.status()["agent_pid"], agent);
    assert!(
        device.app_pid().is_some_and(alive),
        "the app was not disturbed"
    );
}

#[test]
fn the_app_ends_with_its_agent() {
    let world = World::new();
    let first = world.publish(
        &App::good("1.0.0")
            .script("trap 'echo goodbye; exit 0' TERM\nwhile :; do sleep 0.05; done"),
    );
    let mut device = world.device_with("device", &first);
    let app = device.app_pid().unwrap();
    let began = std::time::Instant::now();
    assert!(device.stop().success());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!alive(app));
    let log = fs::read_to_string(device.state.join("logs/app.log")).unwrap();
    assert!(log.contains("goodbye"), "{log}");
    assert_eq!(device.status()["agent_pid"], serde_json::Value::Null);

    device.start();
    device.runs("1.0.0");
    let app = until("another process", || {
        device.app_pid().filter(|pid| *pid != app && alive(*pid))
    });
    device.kill();
    until("the kernel ends the app", || (!alive(app)).then_some(()));
}

#[test]
fn an_app_that_crashes_later_is_started_again_and_not_rolled_back() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let app = device.app_pid().unwrap();
    signal(app, rustix::process::Signal::KILL);
    until("a new process", || {
        device.app_pid().filter(|pid| *pid != app && alive(*pid))
    });
    until("status counts it", || {
        (device.status()["app"]["restarts"] == 1).then_some(())
    });
    let status = device.status();
    assert_eq!(status["app"]["last_exit"], "killed by SIGKILL (9)");
    assert_eq!(status["release"], "app@1.0.0");
}

#[test]
fn an_operator_goes_back_and_checks_every_byte() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();

    let output = device.output("rollback", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("goes back to `app@1.0.0`"));
    device.runs("1.0.0");
    device.is_idle();
    assert_eq!(device.current(), Some(first.tree));
    assert_eq!(device.status()["previous"], "app@1.1.0");

    // And forth again, with no agent running.
    device.stop();
    let output = device.output("rollback", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    device.start();
    device.runs("1.1.0");
    device.is_idle();

    let output = device.output("verify", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.starts_with("`app@1.1.0` is whole: 13 files, "),
        "{shown}"
    );
    let file = device.state.join("current/lib/version");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    std::io::Write::write_all(&mut fs::File::create(&file).unwrap(), b"1.1.x\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let output = device.output("verify", &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains(
        "the running release `app@1.1.0` is damaged: `lib/version` has another content or mode"
    ));
}

#[test]
fn a_damaged_previous_release_is_not_gone_back_to() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let file = device
        .state
        .join("slots")
        .join(first.tree.to_string())
        .join("lib/version");
    fs::remove_file(file).unwrap();
    assert!(device.output("rollback", &[]).status.success(), "asked for");
    until("it is refused", || {
        let error = device.status()["last_error"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        error
            .contains("`app@1.0.0` is damaged on this device: `lib/version` is missing")
            .then_some(())
    });
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
}

#[test]
fn a_lost_state_is_rebuilt_from_what_runs() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    device.kill();
    pytheas_durable::replace(&device.state.join("state.json"), b"{\"format\": 1, \"cur").unwrap();
    device.start();
    device.runs("1.0.0");
    until("it is told", || {
        let error = device.status()["last_error"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        error
            .contains("was lost and was rebuilt from what runs")
            .then_some(())
    });
    assert!(device.state.join("state.json.damaged").exists());
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();

    // Gone, or something else in its place: whoever asks is told that, and not that nothing runs.
    for (in_its_place, told) in [
        (false, "is gone, and a release is installed"),
        (true, "cannot be read"),
    ] {
        device.kill();
        let state = device.state.join("state.json");
        fs::remove_file(&state).unwrap();
        if in_its_place {
            fs::create_dir_all(state.join("in-it")).unwrap();
        }
        for verb in ["status", "verify", "rollback"] {
            let output = device.output(verb, &[]);
            assert_eq!(output.status.code(), Some(4), "{verb}");
            assert!(
                stderr(&output).contains(told),
                "{verb}: {}",
                stderr(&output)
            );
        }
        device.start();
        until("the state is there again", || {
            (device.machine()["current"]["release"] == "app@1.1.0").then_some(())
        });
    }
    device.runs("1.1.0");
    until("the state is there again", || {
        (device.machine()["current"]["release"] == "app@1.1.0").then_some(())
    });

    // A newer agent's state is not ours to touch.
    device.kill();
    pytheas_durable::replace(&device.state.join("state.json"), b"{\"format\": 3}").unwrap();
    let output = device.output("run", &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("has format 3; this agent reads formats 1 and 2"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn once_polls_once_finishes_the_update_and_ends() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    let action = world.hub.offer(&first.target);
    device.args.push("--once".into());
    device.start();
    let status = until("it ends by itself", || device.ended());
    assert!(status.success());
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(first.tree));
    assert_eq!(device.state_name(), "idle");
    assert!(device.app_pid().is_none(), "the app was stopped");

    world.hub.talk().away = true;
    device.start();
    let status = until("it ends by itself", || device.ended());
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_token_given_by_hand_needs_nobody_to_accept_the_device() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    let root = world.root_file();
    let url = world.hub.url();
    let args = [
        "--hub",
        &url,
        "--root",
        root.to_str().unwrap(),
        "--id",
        "dev1",
        "--token",
        "token-1",
    ];
    let output = device.output("enrol", &args);
    assert!(output.status.success(), "{}", stderr(&output));
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert!(world.hub.talk().enrolments.is_empty());
}

/// Time on a processor, in clock ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_agent_that_waits_sleeps() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    // Waiting to be accepted; waiting for the next poll; waiting for a hub that is away.
    world.hub.talk().pending = true;
    let mut device = world.device("device");
    device.args = Vec::new();
    device.start();
    until("it asked", || {
        (!world.hub.talk().enrolments.is_empty()).then_some(())
    });
    let rests = |device: &crate::support::Device, what: &str| {
        let pid = device.child.as_ref().unwrap().id();
        std::thread::sleep(Duration::from_millis(200));
        let before = ticks(pid);
        std::thread::sleep(Duration::from_millis(1_500));
        let used = ticks(pid) - before;
        assert!(used <= 3, "{what}: {used} ticks of 10 ms in 1.5 s");
    };
    rests(&device, "not accepted");
    device.kill();
    world.hub.talk().pending = false;
    let action = world.hub.offer(&first.target);
    device.start();
    assert_eq!(world.hub.closed(&action), Ok(()));
    rests(&device, "idle");
    world.hub.talk().away = true;
    signal(
        device.child.as_ref().unwrap().id(),
        rustix::process::Signal::HUP,
    );
    rests(&device, "no hub");
}

#[test]
fn a_hub_that_does_not_answer_does_not_keep_the_app_from_being_stopped() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    world.hub.talk().stall = Duration::from_secs(20);
    std::thread::sleep(Duration::from_millis(500));
    let app = device.app_pid().unwrap();
    signal(
        device.child.as_ref().unwrap().id(),
        rustix::process::Signal::TERM,
    );
    let began = std::time::Instant::now();
    until("the app is stopped", || (!alive(app)).then_some(()));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let status = until("the agent ends", || device.ended());
    assert_eq!(status.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_known_device_starts_its_app_without_hub_and_without_the_roots_file() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    device.stop();
    world.hub.talk().away = true;
    fs::remove_file(device.state.join("data/running")).unwrap();
    fs::remove_file(world.root_file()).unwrap();
    device.start();
    device.runs("1.0.0");
    device.stop();

    device.args.extend([
        "--root-sha256".into(),
        Sha256::of(b"not asked for again").to_string(),
    ]);
    fs::remove_file(device.state.join("data/running")).unwrap();
    device.start();
    device.runs("1.0.0");
}

#[test]
fn an_app_that_wrote_into_its_slot_does_not_block_the_way_back_to_it() {
    let world = World::new();
    let script = format!(
        "mkdir -p \"$here/lib/cache/x\" && echo 1 > \"$here/lib/cache/x/y\"\n{}",
        crate::support::STAYS
    );
    let first = world.publish(&App::good("1.0.0").script(&script));
    let device = world.device_with("device", &first);
    let slot = device.state.join("slots").join(first.tree.to_string());
    until("it wrote", || {
        slot.join("lib/cache/x/y").exists().then_some(())
    });
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert!(device.output("rollback", &[]).status.success());
    device.runs("1.0.0");
    device.is_idle();
    assert_eq!(device.status()["release"], "app@1.0.0");
}

#[test]
fn without_state_and_with_a_ruined_current_release_a_whole_one_runs() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.kill();
    fs::remove_file(device.state.join("state.json")).unwrap();
    fs::remove_file(device.state.join("current/pytheas.json")).unwrap();
    device.start();
    device.runs("1.0.0");
    device.kill();

    // Neither state nor link nor any usable slot: it says so and waits for a release.
    fs::remove_file(device.state.join("state.json")).unwrap();
    fs::remove_file(device.state.join("current/pytheas.json")).unwrap();
    device.start();
    until("it is told", || {
        // Until the state is there again, `status` says that it is gone.
        let status = device.output("status", &["--json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).ok()?;
        let error = status["last_error"].as_str()?;
        error
            .contains("no whole release was found; roll one out to this device")
            .then_some(())
    });
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
}

#[test]
fn no_interval_a_hub_may_send_ends_the_agent() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    world.hub.talk().sleep = "P200000000000000D".into();
    let mut device = world.device("device");
    device.args = Vec::new();
    let action = world.hub.offer(&first.target);
    device.start();
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert!(device.ended().is_none());
}

#[test]
fn a_foreign_server_that_refused_a_token_once_is_asked_again() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.hub.talk().accepts_nobody = true;
    let token = std::mem::replace(&mut world.hub.talk().token, "another".into());
    until("it asks to be accepted", || {
        (world.hub.talk().enrolments.len() == 2).then_some(())
    });
    world.hub.talk().token = token;
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
}
