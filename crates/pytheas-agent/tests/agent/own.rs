//! The agent updates itself: real agents behind small scripts, good and broken ones.

use std::fs;

use pytheas_release::Ready;
use serde_json::Value;

use crate::support::{App, Device, World, alive, until};

/// What a good agent's release starts.
const WORKS: &str = "exec \"$REAL_AGENT\" \"$@\"";

fn agent(version: &str, script: &str) -> App {
    App::good(version)
        .named("pytheas-agent")
        .script(script)
        .health(Ready::StayUp, 60_000)
}

/// A device that runs `app@1.0.0`, whose agents leave what they are in `agent/running`.
fn device(world: &World) -> Device {
    let mut device = world.device("device");
    let folder = world.path("agent");
    fs::create_dir(&folder).unwrap();
    for (name, value) in [
        ("PYTHEAS_DATA_DIR", folder.to_str().unwrap()),
        ("REAL_AGENT", env!("CARGO_BIN_EXE_pytheas-agent")),
        ("STATE", device.state.to_str().unwrap()),
    ] {
        device.env.push((name.into(), value.into()));
    }
    device.start();
    let action = world.hub.offer(&world.publish(&App::good("1.0.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device
}

/// Which agent was started last.
fn started(world: &World) -> String {
    let text = fs::read_to_string(world.path("agent/running")).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn worker(device: &Device) -> Option<u32> {
    let text = fs::read_to_string(device.state.join("agent.lock")).ok()?;
    text.trim().parse().ok().filter(|pid| alive(*pid))
}

#[track_caller]
fn base_works(device: &Device) {
    let base = device.child.as_ref().map(std::process::Child::id);
    until("the base works", || (worker(device) == base).then_some(()));
}

#[track_caller]
fn newer_works(device: &Device) {
    let base = device.child.as_ref().map(std::process::Child::id);
    until("another agent works", || {
        worker(device).filter(|worker| Some(*worker) != base)
    });
}

fn installed(device: &Device) -> Value {
    device.machine()["components"]["pytheas-agent"]["current"]["release"].clone()
}

/// Whatever works here updates the app.
#[track_caller]
fn updates_go_on(world: &World, device: &Device, version: &str) {
    let action = world.hub.offer(&world.publish(&App::good(version)).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.runs(version);
}

#[test]
fn a_newer_agent_takes_over_and_goes_on() {
    let world = World::new();
    let mut device = device(&world);
    base_works(&device);
    for version in ["2.0.0", "3.0.0"] {
        let action = world
            .hub
            .offer(&world.publish(&agent(version, WORKS)).target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        device.is_idle();
        newer_works(&device);
        assert_eq!(installed(&device), format!("pytheas-agent@{version}"));
        assert_eq!(started(&world), version);
        device.runs("1.0.0");
    }
    updates_go_on(&world, &device, "1.1.0");
    // After a power cut the base starts the newer one again.
    device.kill();
    fs::remove_file(world.path("agent/running")).unwrap();
    device.start();
    newer_works(&device);
    assert_eq!(started(&world), "3.0.0");
    device.runs("1.1.0");
    // One agent for one device, and both end when asked.
    let second = device.output("run", &[]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let (newer, app) = (worker(&device).unwrap(), device.app_pid().unwrap());
    assert!(device.stop().success());
    assert!(!alive(newer) && !alive(app));
}

#[test]
fn an_operator_goes_back_to_the_agent_before() {
    let world = World::new();
    let device = device(&world);
    for version in ["2.0.0", "3.0.0"] {
        let action = world
            .hub
            .offer(&world.publish(&agent(version, WORKS)).target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        device.is_idle();
    }
    assert!(device.output("rollback", &[]).status.success());
    until("the one before works", || {
        (started(&world) == "2.0.0").then_some(())
    });
    until("it is committed", || {
        (installed(&device) == "pytheas-agent@2.0.0").then_some(())
    });
    device.is_idle();
    updates_go_on(&world, &device, "1.1.0");
}

#[test]
fn the_first_thing_on_a_device_may_be_an_agent() {
    let world = World::new();
    let mut device = device_without_app(&world);
    device.start();
    let action = world
        .hub
        .offer(&world.publish(&agent("2.0.0", WORKS)).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    newer_works(&device);
    updates_go_on(&world, &device, "1.0.0");
    assert_eq!(device.status()["release"], "app@1.0.0");
}

fn device_without_app(world: &World) -> Device {
    let mut device = world.device("device");
    fs::create_dir(world.path("agent")).unwrap();
    let folder = world.path("agent").to_str().unwrap().to_owned();
    device.env.push(("PYTHEAS_DATA_DIR".into(), folder));
    device.env.push((
        "REAL_AGENT".into(),
        env!("CARGO_BIN_EXE_pytheas-agent").into(),
    ));
    device
}

#[test]
fn no_broken_agent_loses_the_device() {
    let world = World::new();
    let device = device(&world);
    let broken = [
        (
            "exit 1",
            "ended before it had proved itself: exit status: 1",
        ),
        (
            "exit 0",
            "ended before it had proved itself: exit status: 0",
        ),
        (
            "kill -SEGV $$",
            "ended before it had proved itself: signal: 11",
        ),
        ("exec sleep 100000", "did not prove itself within 2 s"),
        // Deaf, and it says what it is not asked.
        (
            "trap '' TERM; echo hello >&0; while :; do sleep 1; done",
            "within 2 s",
        ),
        // One that takes the state up and leaves it as nobody else can read it.
        (
            "printf '{\"format\": 99}' > \"$STATE/state.json\"; exit 4",
            "exit status: 4",
        ),
        // Works, and does not reach the hub.
        (
            "exec \"$REAL_AGENT\" \"$@\" --proxy http://127.0.0.1:9",
            "did not prove itself within 2 s",
        ),
    ];
    let mut count = 0;
    for under in ["", "2.0.0"] {
        if !under.is_empty() {
            let action = world.hub.offer(&world.publish(&agent(under, WORKS)).target);
            assert_eq!(world.hub.closed(&action), Ok(()));
        }
        for (script, why) in broken {
            count += 1;
            let mut release = agent(&format!("9.0.{count}"), script);
            if why.contains("within") {
                release = release.health(Ready::StayUp, 2_000);
            }
            let action = world.hub.offer(&world.publish(&release).target);
            let told = world.hub.failure(&action).join("\n");
            assert!(told.contains(why), "{script}: {told}");
            device.is_idle();
            match under {
                "" => base_works(&device),
                _ => newer_works(&device),
            }
            device.runs(&format!("1.0.{}", count - 1));
            updates_go_on(&world, &device, &format!("1.0.{count}"));
        }
    }
    assert_eq!(installed(&device), "pytheas-agent@2.0.0");
}

#[test]
fn an_agent_that_no_longer_starts_gives_way_to_the_one_before_or_the_base() {
    let world = World::new();
    let mut device = device(&world);
    let fragile = "test ! -e \"$STATE/trouble\" || exit 1\nexec \"$REAL_AGENT\" \"$@\"";
    let action = world
        .hub
        .offer(&world.publish(&agent("2.0.0", fragile)).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.kill();
    let trouble = device.state.join("trouble");
    pytheas_durable::replace(&trouble, b"").unwrap();
    device.start();
    base_works(&device);
    device.runs("1.0.0");
    updates_go_on(&world, &device, "1.1.0");
    // Another release is tried all the same, and is the way back from the next.
    let good = "#\nexec \"$REAL_AGENT\" \"$@\"";
    for (version, script) in [("2.1.0", good), ("2.2.0", fragile)] {
        fs::remove_file(&trouble).ok();
        let action = world
            .hub
            .offer(&world.publish(&agent(version, script)).target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        device.is_idle();
    }
    device.kill();
    pytheas_durable::replace(&trouble, b"").unwrap();
    device.start();
    until("the one before is back", || {
        (installed(&device) == "pytheas-agent@2.1.0").then_some(())
    });
    newer_works(&device);
    updates_go_on(&world, &device, "1.2.0");
}

/// Leaves what an agent of the future would: a state that nobody else can read, and a history.
fn leave_the_future(device: &Device) {
    let mut machine = device.machine();
    machine["update"] = serde_json::json!({"state": "hovering", "altitude_m": 3});
    machine.as_object_mut().unwrap().remove("check");
    let state = serde_json::to_vec_pretty(&machine).unwrap();
    let state = pytheas_update::checked::seal(state);
    pytheas_durable::replace(&device.state.join("state.json"), &state).unwrap();
    let path = device.state.join("history.json");
    let mut history: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let entry = serde_json::json!({"at_ms": 7, "outcome": "hovered", "by": "wind", "knots": 4});
    history["entries"].as_array_mut().unwrap().push(entry);
    pytheas_durable::replace(&path, history.to_string().as_bytes()).unwrap();
}

#[track_caller]
fn the_base_took_up_what_runs(world: &World, device: &Device) {
    base_works(device);
    device.runs("1.0.0");
    assert!(device.state.join("state.json.newer").exists());
    updates_go_on(world, device, "1.1.0");
    let shown = device.output("history", &["--json"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("hovered") && shown.contains("1.1.0"),
        "{shown}"
    );
    let kept = fs::read_to_string(device.state.join("history.json")).unwrap();
    assert!(kept.contains("\"knots\":4"), "{kept}");
}

#[test]
fn a_device_whose_newer_agent_has_rotted_goes_on_without_its_state() {
    let world = World::new();
    let mut device = device(&world);
    let newer = world.publish(&agent("2.0.0", WORKS));
    assert_eq!(world.hub.closed(&world.hub.offer(&newer.target)), Ok(()));
    device.is_idle();
    newer_works(&device);
    let record = device.component("pytheas-agent").state.join("launch.json");
    until("its guardian knows that it works", || {
        let record: Value = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        (record["proved"] == true).then_some(())
    });
    device.kill();
    leave_the_future(&device);
    // Who asks is told why there is no answer, and nothing is lost by asking.
    let status = device.output("status", &[]);
    assert_eq!(status.status.code(), Some(4), "{status:?}");
    let rotten = device
        .component("pytheas-agent")
        .state
        .join("current/bin/app");
    let rotten = fs::canonicalize(rotten).unwrap();
    fs::remove_file(&rotten).unwrap();
    pytheas_durable::replace(&rotten, b"#!/bin/sh\nexit 7\n").unwrap();
    device.start();
    the_base_took_up_what_runs(&world, &device);
}

#[test]
fn a_device_whose_newer_agent_no_longer_starts_goes_on_without_its_state() {
    let world = World::new();
    let mut device = device(&world);
    let fragile = "test ! -e \"$STATE/trouble\" || exit 1\nexec \"$REAL_AGENT\" \"$@\"";
    let newer = world.publish(&agent("2.0.0", fragile));
    assert_eq!(world.hub.closed(&world.hub.offer(&newer.target)), Ok(()));
    device.is_idle();
    newer_works(&device);
    let record = device.component("pytheas-agent").state.join("launch.json");
    until("its guardian knows that it works", || {
        let record: Value = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        (record["proved"] == true).then_some(())
    });
    device.kill();
    leave_the_future(&device);
    pytheas_durable::replace(&device.state.join("trouble"), b"").unwrap();
    device.start();
    the_base_took_up_what_runs(&world, &device);
}

#[test]
fn an_agent_that_has_not_proved_itself_is_started_also_without_a_state() {
    let world = World::new();
    let mut device = device(&world);
    let newer = world.publish(&agent("2.0.0", WORKS));
    assert_eq!(world.hub.closed(&world.hub.offer(&newer.target)), Ok(()));
    device.is_idle();
    newer_works(&device);
    device.kill();
    let home = device.component("pytheas-agent").state.clone();
    fs::remove_file(home.join("launch.json")).unwrap();
    let state = device.state.join("state.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    device.start();
    newer_works(&device);
    until("the state is there again", || state.is_file().then_some(()));
    device.runs("1.0.0");
    let before = home.join("state.before");
    assert!(!before.exists(), "what was then is no way back");
}

#[test]
fn a_power_cut_at_any_step_leaves_an_agent_that_works() {
    let world = World::new();
    let mut device = device(&world);
    for (n, fault) in [
        // The base gives way to the first one.
        "agent:launch:counted",
        "agent:state:switching",
        "agent:switch:one",
        "agent:state:probation",
        // Counted from the start of the base, which begins the newer one.
        "agent:launch:counted:2",
        "agent:launch:spawned:2",
        "agent:launch:healthy:2",
        "agent:save:before:4",
        "agent:state:committed",
        "agent:tidy:slot",
    ]
    .into_iter()
    .enumerate()
    {
        device.kill();
        device.start_with(Some(fault));
        let version = format!("2.{n}.0");
        let action = world
            .hub
            .offer(&world.publish(&agent(&version, WORKS)).target);
        let mut cut = false;
        until(&format!("it is told after {fault}"), || {
            if device.ended().is_some() {
                cut = true;
                device.start();
            }
            let talk = world.hub.talk();
            let is_closed = |told: &Value| told["status"]["execution"] == "closed";
            let told = talk.feedback.iter().filter(|(of, ..)| *of == action);
            told.map(|(.., status)| status).any(is_closed).then_some(())
        });
        // The newer agent may tell it while the one that watches it is being cut off.
        if !cut && fault.starts_with("agent:launch") {
            until(&format!("{fault} has hit"), || device.ended());
            cut = true;
            device.start();
        }
        // A fault in the newer agent hits at each of its starts: that one may be given up.
        let took = world.hub.closed(&action).is_ok();
        assert!(took || !fault.starts_with("agent:launch"), "{fault}");
        assert!(cut || !fault.starts_with("agent:launch"), "{fault}");
        device.kill();
        device.start();
        device.is_idle();
        let is_new = installed(&device) == format!("pytheas-agent@{version}");
        // One that was committed and killed at each start since has given way again.
        assert!(took || !is_new, "{fault}");
        newer_works(&device);
        updates_go_on(&world, &device, &format!("1.{}.0", n + 1));
    }
}
