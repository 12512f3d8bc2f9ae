//! A device that was away for long: all keys were replaced several times meanwhile, and none of those
//! that it knew is left.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use pytheas_repo::{
    keys::{
        self, PublisherKeys,
        change::{Change, How, Source, change, roles},
    },
    publish::{Events, Options, Refresh, publish_keys},
    store::Store,
};

use crate::support::{App, World};

const ALL: [&str; 3] = ["root", "targets", "online"];

/// Replaces every key of the world's folder; the old ones' private halves are gone afterwards.
fn replace_all(world: &World, root_valid: SignedDuration) {
    let (dir, now) = (world.path("keys"), Timestamp::now());
    let how = How {
        dir: &dir,
        now,
        root_valid,
        new_passphrase: None,
        passphrase: &|_| None,
    };
    let all = ALL.iter().flat_map(|name| roles(name).unwrap()).collect();
    let changed = change(&how, &Change::Rotate(all, None, Source::New)).unwrap();
    assert_eq!(changed.proposal, None);
    for old in keys::show(&dir, now).unwrap().unused {
        fs::remove_file(old.file.unwrap()).unwrap();
    }
}

/// Signs everything anew with the keys that there are.
fn sign_anew(world: &World) {
    let keys = PublisherKeys::load(&world.path("keys"), &|_| None).unwrap();
    let store = Store::folder(&world.repo()).unwrap();
    let (options, events) = (Options::at(Timestamp::now()), Events::none());
    world
        .block_on(publish_keys(
            &store,
            &keys,
            &Refresh::default(),
            &options,
            &events,
        ))
        .unwrap();
}

#[test]
fn all_keys_replaced_three_times_while_a_device_was_off_bring_it_up_to_date_all_the_same() {
    let mut world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    device.kill();
    // The first two of the new roots have expired by the time that the device sees them, for nobody
    // signed under them for so long.
    let day = SignedDuration::from_hours(24);
    for root_valid in [-day, -day, day * 30] {
        replace_all(&world, root_valid);
    }
    sign_anew(&world);
    world.reload_keys();
    let second = world.publish(&App::good("1.1.0"));
    device.start();
    device.runs("1.0.0");
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert_eq!(device.current(), Some(second.tree));
    let root = fs::read_to_string(device.state.join("tuf/root.json")).unwrap();
    let root: serde_json::Value = serde_json::from_str(&root).unwrap();
    assert_eq!(root["signed"]["version"], 4);

    // A device that is new, and was given the very first root, comes the same way.
    device.kill();
    let mut fresh = world.device("fresh");
    fresh.trusts(&world.repo().join("metadata/1.root.json"));
    fresh.start();
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(fresh.current(), Some(second.tree));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own folder")]
fn a_chain_of_roots_of_which_one_is_lost_leads_nowhere_and_the_device_runs_on() {
    let mut world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    for _ in 0..3 {
        replace_all(&world, SignedDuration::from_hours(24 * 30));
    }
    sign_anew(&world);
    world.reload_keys();
    let second = world.publish(&App::good("1.1.0"));
    let lost = world.repo().join("metadata/3.root.json");
    let saved = world.path("3.root.json");
    fs::rename(&lost, &saved).unwrap();
    let action = world.hub.offer(&second.target);
    let lines = world.hub.failure(&action);
    assert!(lines[0].contains("signed by an unknown key"), "{lines:?}");
    device.runs("1.0.0");
    device.is_idle();
    fs::rename(&saved, &lost).unwrap();
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
}
