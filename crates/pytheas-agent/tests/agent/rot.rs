//! Bit rot: slots in which a byte has changed, a file or everything is gone.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use pytheas_release::TreeId;
use serde_json::Value;

use crate::support::{App, Device, World, until};

fn slot(device: &Device, tree: TreeId) -> PathBuf {
    device.state.join("slots").join(tree.to_string())
}

/// Changes a byte in place, as a failing disk does: in every slot that shares the file.
fn rot(path: &Path) {
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\xff\xfe", 7).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

fn told(device: &Device, outcome: &str) -> Vec<Value> {
    let output = device.output("history", &["--json"]);
    let history: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    history
        .into_iter()
        .filter(|entry| entry["outcome"] == outcome)
        .collect()
}

fn is_whole(device: &Device, tree: TreeId) -> bool {
    pytheas_durable::trees::scan(&slot(device, tree)).is_ok_and(|found| found.id() == tree)
}

/// A device that runs 1.1.0, could go back to 1.0.0, and reads everything again all the time.
fn device(world: &World, script: &str) -> (Device, TreeId, TreeId) {
    let first = world.publish(&App::good("1.0.0").script(script));
    let mut device = world.device("device");
    device.args.extend(["--scrub", "1s"].map(String::from));
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let second = world.publish(&App::good("1.1.0").script(script));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.runs("1.1.0");
    (device, first.tree, second.tree)
}

#[test]
fn what_rots_while_the_app_runs_is_fetched_anew_for_every_slot() {
    let world = World::new();
    let (device, old, new) = device(&world, crate::support::STAYS);
    let app = device.app_pid();
    let shared = slot(&device, new).join("lib/shared-3");
    assert_eq!(
        fs::metadata(&shared).unwrap().ino(),
        fs::metadata(slot(&device, old).join("lib/shared-3"))
            .unwrap()
            .ino()
    );
    rot(&shared);
    until("both slots are whole again", || {
        (is_whole(&device, new) && is_whole(&device, old)).then_some(())
    });
    let told = until("it is told", || {
        Some(told(&device, "repaired")).filter(|told| !told.is_empty())
    });
    assert!(
        told[0]["reason"]
            .as_str()
            .unwrap()
            .contains("`lib/shared-3` had rotted"),
        "{told:?}"
    );
    assert_eq!(fs::metadata(&shared).unwrap().mode() & 0o7777, 0o444);
    until("the hub knows", || {
        let talk = world.hub.talk();
        let data = &talk.attributes.last()?["data"];
        data["pytheas.last-change"]
            .as_str()?
            .contains("repaired")
            .then_some(())
    });
    // The app had read it and let it go: it is not disturbed.
    assert_eq!(device.app_pid(), app);
    assert_eq!(device.status()["damage"], Value::Null);
}

#[test]
fn an_app_that_uses_a_rotten_file_is_started_again() {
    let world = World::new();
    let (device, _, new) = device(&world, "exec 9< \"$here/lib/shared-5\"; exec sleep 100000");
    let app = device.app_pid().unwrap();
    rot(&slot(&device, new).join("lib/shared-5"));
    until("another process runs", || {
        device
            .app_pid()
            .filter(|pid| *pid != app && crate::support::alive(*pid))
    });
    assert!(is_whole(&device, new));
}

#[test]
fn without_a_network_another_slot_helps_and_what_is_nowhere_is_marked() {
    let world = World::new();
    let (mut device, old, new) = device(&world, crate::support::STAYS);
    world.hub.talk().away = true;
    // Not the same file in both slots any more, the same content.
    let shared = slot(&device, new).join("lib/shared-4");
    fs::remove_file(&shared).unwrap();
    until("it is back", || is_whole(&device, new).then_some(()));
    // Only in the old release, and the hub is away.
    let only_there = slot(&device, old).join("lib/version");
    rot(&only_there);
    let damage = until("it is marked", || {
        device.status()["damage"].as_str().map(str::to_owned)
    });
    assert!(damage.contains("`lib/version` of `app@1.0.0`"), "{damage}");
    device.runs("1.1.0");
    world.hub.talk().away = false;
    device.kill();
    device.start();
    until("it is whole when the hub is back", || {
        is_whole(&device, old).then_some(())
    });
    until("and no longer marked", || {
        device.status()["damage"].is_null().then_some(())
    });
}

#[test]
fn a_current_release_that_is_lost_is_fetched_again_or_the_one_before_takes_over() {
    let world = World::new();
    let (mut device, old, new) = device(&world, crate::support::STAYS);
    device.kill();
    pytheas_durable::remove_tree(&slot(&device, new)).unwrap();
    device.start();
    device.runs("1.1.0");
    until("all of it is back", || is_whole(&device, new).then_some(()));

    device.kill();
    pytheas_durable::remove_tree(&slot(&device, new)).unwrap();
    pytheas_durable::remove_tree(&device.state.join(format!("slots/{new}.tree"))).unwrap();
    world.hub.talk().away = true;
    device.start();
    device.runs("1.0.0");
    assert_eq!(device.current(), Some(old));
    let last = until("it is told", || {
        told(&device, "committed")
            .pop()
            .filter(|e| e["by"] == "agent")
    });
    assert!(
        last["reason"]
            .as_str()
            .unwrap()
            .contains("`app@1.1.0` is damaged"),
        "{last}"
    );
}

#[test]
fn a_repair_survives_power_cuts() {
    let world = World::new();
    let (mut device, old, new) = device(&world, crate::support::STAYS);
    device.kill();
    for fault in [
        "agent:scrub:gathered",
        "agent:scrub:replace:1",
        "agent:scrub:replace:6",
    ] {
        pytheas_durable::remove_tree(&slot(&device, new)).unwrap();
        rot(&slot(&device, old).join("lib/shared-6"));
        device.start_with(Some(fault));
        until(&format!("it is killed at {fault}"), || device.ended());
        device.start();
        device.runs("1.1.0");
        until(&format!("all is whole after {fault}"), || {
            (is_whole(&device, new) && is_whole(&device, old)).then_some(())
        });
        device.kill();
    }
}

#[test]
fn a_device_without_a_hub_is_mended_by_the_file_it_came_from() {
    let world = World::new();
    let release = world.publish(&App::good("1.0.0"));
    let (stick, root) = (world.path("first.pytheas"), world.root_file());
    let store = pytheas_repo::store::Store::folder(&world.repo()).unwrap();
    let selection = pytheas_repo::export::Selection::default();
    let now = jiff::Timestamp::now();
    world
        .block_on(pytheas_repo::export::export(
            &store,
            None,
            &selection,
            &stick,
            now,
            |_, _| {},
        ))
        .unwrap();
    let device = world.device("lonely");
    let apply = || {
        let (stick, root) = (stick.to_str().unwrap(), root.to_str().unwrap());
        let output = device.output("apply", &[stick, "--root", root, "--id", "dev1"]);
        assert!(output.status.success(), "{output:?}");
    };
    apply();
    let file = device
        .state
        .join(format!("slots/{}/lib/version", release.tree));
    pytheas_durable::remove_tree(&file).unwrap();
    pytheas_durable::replace(&file, b"rot").unwrap();
    assert_eq!(device.output("verify", &[]).status.code(), Some(4));
    apply();
    let verified = device.output("verify", &[]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn every_component_is_read_and_repaired_and_each_falls_back_on_its_own() {
    let world = World::new();
    let (mut device, ..) = device(&world, crate::support::STAYS);
    let broker = |version: &str| world.publish(&App::good(version).named("broker"));
    let (old, new) = (broker("1.0.0"), broker("1.1.0"));
    for release in [&old, &new] {
        let action = world.hub.offer(&release.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
    }
    // What moved last is another component.
    let action = world.hub.offer(&world.publish(&App::good("1.2.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let beside = device.component("broker");
    beside.runs("1.1.0");
    for (tree, file) in [(new.tree, "lib/shared-3"), (old.tree, "lib/version")] {
        rot(&slot(&beside, tree).join(file));
        until(&format!("`{file}` is whole again"), || {
            is_whole(&beside, tree).then_some(())
        });
    }
    let told = until("it is told", || {
        Some(told(&device, "repaired")).filter(|told| told.len() >= 2)
    });
    assert!(
        told.iter()
            .all(|told| told["to"].as_str().unwrap().starts_with("broker@")),
        "{told:?}"
    );

    device.kill();
    pytheas_durable::remove_tree(&slot(&beside, new.tree)).unwrap();
    world.hub.talk().away = true;
    device.start();
    let beside = device.component("broker");
    beside.runs("1.0.0");
    assert_eq!(beside.current(), Some(old.tree));
    device.runs("1.2.0");
}

#[test]
fn who_a_device_is_and_what_it_trusts_survive_a_rotten_file() {
    let world = World::new();
    let (mut device, ..) = device(&world, crate::support::STAYS);
    device.kill();
    for file in [
        "identity.json",
        "tuf/root.json",
        "tuf/timestamp.json",
        "tuf/snapshot.json",
    ] {
        rot(&device.state.join(file));
    }
    device.start();
    let action = world.hub.offer(&world.publish(&App::good("1.2.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.2.0");
    let identity = fs::read(device.state.join("identity.json")).unwrap();
    assert_eq!(
        identity,
        fs::read(device.state.join("identity.copy")).unwrap()
    );
}
