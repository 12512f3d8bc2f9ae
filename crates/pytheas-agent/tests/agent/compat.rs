//! Releases that do not fit: refused by name, with what is missing, before anything is fetched.

use crate::support::{App, World};

#[test]
fn what_a_release_requires_is_checked_before_anything_is_fetched() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    device.args.extend(["--model".into(), "gw-2".into()]);
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let attributes = world.hub.talk().attributes.last().cloned().unwrap();
    assert_eq!(attributes["data"]["pytheas.model"], "gw-2");

    let demanding = App::good("1.1.0")
        .requires("agent", ">=99")
        .requires("model", "gw-1 | gx-*")
        .requires("current", ">=1.0.5")
        .requires("broker", ">=2,<3");
    let demanding = world.publish(&demanding);
    let blobs = world.hub.asked("GET /repo/blobs/");
    let action = world.hub.offer(&demanding.target);
    insta::with_settings!({ filters => [(r"agent 0\.[0-9.]+", "agent [VERSION]")] }, {
        insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    `app@1.1.0` requires agent >=99; this is agent [VERSION]
    help: update the agent first
    `app@1.1.0` requires current >=1.0.5; `app@1.0.0` runs
    help: roll out a release that is >=1.0.5 first, then this one
    `app@1.1.0` requires model gw-1 | gx-*; this is `gw-2`
    help: roll this release out to other devices, or correct the device's attribute
    `app@1.1.0` requires `broker` >=2,<3; it is not on this device
    help: roll out `broker` >=2,<3 in the same rollout, or before
    ");
    });
    assert_eq!(
        world.hub.asked("GET /repo/blobs/"),
        blobs,
        "nothing was fetched"
    );
    device.runs("1.0.0");

    let fitting = App::good("1.2.0")
        .requires("agent", ">=0.1")
        .requires("model", "gw-*")
        .requires("current", ">=1,<2")
        .conflicts("broker", "<2");
    let action = world.hub.offer(&world.publish(&fitting).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.2.0");
}

#[test]
fn an_older_release_needs_somebodys_word() {
    let world = World::new();
    let old = world.publish(&App::good("1.9.0"));
    let new = world.publish(&App::good("1.10.0"));
    let mut device = world.device_with("device", &new);
    let action = world.hub.offer(&old.target);
    insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    `app@1.9.0` is older than `app@1.10.0`, which runs
    help: start the rollout with `--allow-downgrade`, or set `allow-downgrade = true` in `[tool.pytheas]` of a release whose data older ones understand
    ");
    device.runs("1.10.0");

    // The rollout allows it, unless this device takes no hub's word.
    world.hub.talk().downgrade = true;
    device.kill();
    device.args.extend(["--downgrades".into(), "never".into()]);
    device.start();
    let action = world.hub.offer(&old.target);
    assert!(world.hub.failure(&action)[0].contains("is older than"));
    device.kill();
    device.args.truncate(2);
    device.start();
    let action = world.hub.offer(&old.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.9.0");

    // The release itself allows it.
    world.hub.talk().downgrade = false;
    let mut tolerant = App::good("1.8.0");
    tolerant.update.rules.allow_downgrade = true;
    let action = world.hub.offer(&world.publish(&tolerant).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.8.0");
}
