//! Devices with several apps: one plan, switched together, rolled back together.

use pytheas_repo::publish::Published;

use crate::support::{App, Device, World, until};

fn app(version: &str) -> App {
    App::good(version)
}

fn broker(version: &str) -> App {
    App::good(version).named("broker")
}

/// A device on which `app@1.0.0` and `broker@1.0.0` run.
fn pair(world: &World) -> (Device, Published, Published) {
    let first = world.publish(&app("1.0.0"));
    let second = world.publish(&broker("1.0.0"));
    let device = world.device_with("device", &first);
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.component("broker").runs("1.0.0");
    (device, first, second)
}

#[track_caller]
fn both_run(device: &Device, versions: (&str, &str)) {
    device.is_idle();
    device.runs(versions.0);
    device.component("broker").runs(versions.1);
}

#[test]
fn another_app_is_installed_beside_the_first() {
    let world = World::new();
    let (mut device, first, second) = pair(&world);
    both_run(&device, ("1.0.0", "1.0.0"));
    assert_eq!(device.current(), Some(first.tree));
    assert_eq!(device.component("broker").current(), Some(second.tree));
    let status = device.status();
    assert_eq!(status["release"], "app@1.0.0");
    assert_eq!(status["components"][0]["release"], "broker@1.0.0");
    until("its process is shown", || {
        device.status()["components"][0]["app"]["pid"].as_u64()
    });
    let text = String::from_utf8(device.output("status", &[]).stdout).unwrap();
    assert!(text.contains("also       broker@1.0.0"), "{text}");
    until("the hub knows it", || {
        let talk = world.hub.talk();
        let data = &talk.attributes.last()?["data"];
        (data["pytheas.component.broker"] == "broker@1.0.0").then_some(())
    });
    // Each is updated by itself, and both come back after a crash of the agent.
    let action = world.hub.offer(&world.publish(&broker("1.1.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.kill();
    device.start();
    both_run(&device, ("1.0.0", "1.1.0"));
    let verified = device.output("verify", &[]);
    let text = String::from_utf8(verified.stdout).unwrap();
    assert!(
        text.contains("`app@1.0.0` is whole") && text.contains("`broker@1.1.0` is whole"),
        "{text}"
    );
    assert!(device.stop().success());
    assert_eq!(
        device.component("broker").app_pid(),
        None,
        "it is stopped with the agent"
    );
}

#[test]
fn a_plan_that_does_not_hold_is_refused_whole() {
    let world = World::new();
    let (device, ..) = pair(&world);
    let strict = world.publish(&app("2.0.0").requires("broker", ">=2"));
    let next = world.publish(&broker("2.0.0").conflicts("app", "<2"));
    let blobs = world.hub.asked("GET /repo/blobs/");
    let action = world.hub.offer(&strict.target);
    insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    `app@2.0.0` requires `broker` >=2; `broker@1.0.0` runs
    help: roll out `broker` >=2 in the same rollout, or before
    ");
    let action = world.hub.offer(&next.target);
    insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    `broker@2.0.0` conflicts with `app@1.0.0`: it rules out `app` <2
    help: roll out another version of `app` in the same rollout
    ");
    assert_eq!(
        world.hub.asked("GET /repo/blobs/"),
        blobs,
        "nothing was fetched"
    );
    both_run(&device, ("1.0.0", "1.0.0"));
    // Together they are a plan.
    let action = world.offer_together(&[&strict, &next]);
    assert_eq!(world.hub.closed(&action), Ok(()));
    both_run(&device, ("2.0.0", "2.0.0"));
    // What stays has its say.
    let action = world.hub.offer(&world.publish(&broker("3.0.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    world.hub.talk().downgrade = true;
    let action = world.hub.offer(&world.publish(&broker("1.5.0")).target);
    insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    `app@2.0.0` requires `broker` >=2; `broker@1.5.0` would run
    help: roll out `broker` >=2 in the same rollout, or before
    ");
    both_run(&device, ("2.0.0", "3.0.0"));
    // What moved last goes back.
    assert!(device.output("rollback", &[]).status.success());
    both_run(&device, ("2.0.0", "2.0.0"));
}

#[test]
fn what_is_moved_together_is_rolled_back_together() {
    let world = World::new();
    let (device, first, second) = pair(&world);
    // The broker works, the app that needs it does not; its data was migrated already.
    let bad_app = world.publish(&app("2.0.0").requires("broker", ">=2").crashing("exit 1"));
    let next = broker("2.0.0").hook("after-update", 60_000, "echo new > schema");
    let next = world.publish(&next);
    let action = world.offer_together(&[&bad_app, &next]);
    let lines = world.hub.failure(&action);
    assert!(lines[0].contains("app@2.0.0"), "{lines:?}");
    both_run(&device, ("1.0.0", "1.0.0"));
    assert_eq!(device.current(), Some(first.tree));
    assert_eq!(device.component("broker").current(), Some(second.tree));
    assert_eq!(device.component("broker").data("schema"), None);

    // Both good: then back together at an operator's word.
    let good_app = world.publish(&app("2.1.0").requires("broker", ">=2"));
    let action = world.offer_together(&[&good_app, &next]);
    assert_eq!(world.hub.closed(&action), Ok(()));
    both_run(&device, ("2.1.0", "2.0.0"));
    let asked = device.output("rollback", &[]);
    let said = String::from_utf8(asked.stdout).unwrap();
    assert!(said.contains("`broker@1.0.0`, `app@1.0.0`"), "{said}");
    both_run(&device, ("1.0.0", "1.0.0"));
}

#[test]
fn a_fresh_device_can_be_given_several_at_once() {
    let world = World::new();
    let needs = world.publish(&app("1.0.0").requires("broker", "*"));
    let needed = world.publish(&broker("1.0.0"));
    let mut device = world.device("device");
    device.start();
    let action = world.offer_together(&[&needs, &needed]);
    assert_eq!(world.hub.closed(&action), Ok(()));
    // What is required is switched to first, and is the first component.
    device.is_idle();
    device.runs("1.0.0");
    device.component("app").runs("1.0.0");
    assert_eq!(device.current(), Some(needed.tree));
    // Without its state the agent knows both again.
    device.kill();
    std::fs::remove_file(device.state.join("state.json")).unwrap();
    device.start();
    device.runs("1.0.0");
    device.component("app").runs("1.0.0");
    until("both are known", || {
        (device.status()["components"][0]["release"] == "app@1.0.0").then_some(())
    });
}

#[test]
fn killed_at_every_point_of_a_joint_update() {
    let world = World::new();
    let (mut device, ..) = pair(&world);
    let mut at = 0;
    for point in [
        "agent:state:fetching",
        "agent:state:verifying",
        "agent:verify:moved:1",
        "agent:verify:moved:2",
        "agent:state:switching",
        "agent:switch:one:1",
        "agent:switch:one:2",
        "agent:state:probation",
        "agent:app:spawned:3",
        "agent:app:spawned:4",
        "agent:state:committed",
        "agent:report:before",
    ] {
        at += 1;
        let version = format!("2.{at}.0");
        let next = [
            &world.publish(&app(&version).requires("broker", &format!("=={version}"))),
            &world.publish(&broker(&version)),
        ];
        device.kill();
        let action = world.offer_together(&next);
        device.start_with(Some(point));
        until(&format!("{point}: it dies"), || device.ended());
        device.start();
        assert_eq!(world.hub.closed(&action), Ok(()), "{point}");
        both_run(&device, (&version, &version));
    }
    let runs = format!("2.{at}.0");
    for (i, point) in [
        "agent:state:rolling-back",
        "agent:rollback:one:1",
        "agent:rollback:one:2",
    ]
    .iter()
    .enumerate()
    {
        let version = format!("3.{i}.0");
        let bad = [
            &world.publish(&app(&version).requires("broker", ">=3").crashing("exit 1")),
            &world.publish(&broker(&version)),
        ];
        device.kill();
        let action = world.offer_together(&bad);
        device.start_with(Some(point));
        until(&format!("{point}: it dies"), || device.ended());
        device.start();
        assert!(world.hub.closed(&action).is_err(), "{point}");
        both_run(&device, (&runs, &runs));
    }
}
