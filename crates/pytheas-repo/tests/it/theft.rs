//! The hub was stolen, and with it the online keys: what the thief can do, and the way back.

use std::{fs, num::NonZeroU64};

use pytheas_repo::{
    client::MetadataError,
    keys::{
        OnlineKeys,
        change::{Change, Source},
    },
    publish::Validity,
    renew::{RenewError, renew},
};
use tough::schema::{RoleType, Snapshot, Targets, Timestamp};

use crate::{
    ceremonies::{make, put},
    world::{Device, Forger, World, copy_dir, days, described, now, runtime},
};

const FAR: u64 = 1_000_000;

/// What the thief signs: snapshot and timestamp far ahead, `targets` as they are told.
fn fast_forward(world: &World, thief: &Forger, from: &str, targets: Option<(&str, u64)>) {
    let repo = world.repo();
    let far = NonZeroU64::new(FAR).unwrap();
    thief.resign(
        &repo,
        from,
        &format!("{FAR}.snapshot.json"),
        |s: &mut Snapshot| {
            s.version = far;
            s.expires = now() + days(3000);
            if let Some((name, version)) = targets {
                s.meta
                    .insert("targets.json".into(), described(&repo, name, version));
            }
        },
    );
    thief.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = far;
            t.expires = now() + days(3000);
            let meta = described(&repo, &format!("{FAR}.snapshot.json"), FAR);
            t.meta.insert("snapshot.json".into(), meta);
        },
    );
}

fn rotate(world: &World) {
    let online = vec![RoleType::Snapshot, RoleType::Timestamp];
    let changed = make(world, &Change::Rotate(online, None, Source::New)).unwrap();
    assert_eq!((changed.made.len(), changed.proposal), (2, None));
}

fn versions(device: &Device) -> Result<(u64, u64, u64, u64), MetadataError> {
    let r = device.refresh(now())?;
    Ok((r.root, r.targets, r.snapshot, r.timestamp))
}

#[test]
fn after_a_theft_of_the_online_keys_devices_come_back() {
    let world = World::with_two_releases();
    let (device, offline) = (world.device("device"), world.device("offline"));
    versions(&device).unwrap();
    versions(&offline).unwrap();
    let stolen = world.path("stolen");
    copy_dir(&world.keys_dir(), &stolen);
    let thief = Forger::with_keys(&stolen);
    fast_forward(&world, &thief, "2.snapshot.json", None);
    assert_eq!(
        versions(&device).unwrap(),
        (1, 2, FAR, FAR),
        "nobody can tell yet"
    );

    // A release cannot be forged: the thief has no targets key.
    let mut online_only = Forger::with_keys(&stolen);
    let online = online_only.root.roles[&RoleType::Snapshot].clone();
    online_only.root.roles.insert(RoleType::Targets, online);
    online_only.resign(
        &world.repo(),
        "2.targets.json",
        "3.targets.json",
        |t: &mut Targets| {
            t.version = NonZeroU64::new(3).unwrap();
            t.targets.clear();
        },
    );
    fast_forward(
        &world,
        &thief,
        "2.snapshot.json",
        Some(("3.targets.json", 3)),
    );
    let mut fresh = world.device("fresh");
    fresh.repo = world.repo();
    let error = versions(&fresh).unwrap_err();
    assert!(error.to_string().contains("3.targets.json"), "{error}");
    fast_forward(&world, &thief, "2.snapshot.json", None);

    // The drill: new online keys, and the repository signed again.
    rotate(&world);
    let hub = OnlineKeys::load(&stolen.join("online")).unwrap();
    let fresh = put(&world, now());
    assert!(fresh.recovered);
    assert_eq!(fresh.releases.len(), 2);
    let (snapshot, timestamp, _) = fresh.online.unwrap();
    assert_eq!(
        (snapshot, timestamp),
        (FAR + 1, FAR + 1),
        "they go on from the thief's"
    );
    for device in [&device, &offline, &world.device("new")] {
        assert_eq!(versions(device).unwrap(), (2, 2, FAR + 1, FAR + 1));
        device.release("1.1.0").unwrap();
    }
    // Stolen keys are of no use any more, neither to the thief nor to a hub that still has them.
    let before = fs::read(world.repo().join("metadata/timestamp.json")).unwrap();
    fast_forward(&world, &thief, "2.snapshot.json", None);
    let error = versions(&device).unwrap_err();
    assert!(error.to_string().contains("timestamp.json"), "{error}");
    fs::write(world.repo().join("metadata/timestamp.json"), before).unwrap();
    let store = world.store();
    let error = runtime().block_on(renew(&store, &hub, &Validity::default(), now()));
    assert!(
        matches!(error, Err(RenewError::Replaced { root: 2 })),
        "{error:?}"
    );
    let hub = OnlineKeys::load(&world.keys_dir().join("online")).unwrap();
    runtime()
        .block_on(renew(&store, &hub, &Validity::default(), now()))
        .unwrap();
    // And life goes on.
    world.publish("2.0.0", &[]).unwrap();
    versions(&device).unwrap();
    device.release("2.0.0").unwrap();
    let again = put(&world, now());
    assert!(!again.recovered && again.targets.is_none(), "{again:?}");
}

#[test]
fn versions_without_end_and_junk_in_place_of_roots_and_targets_do_not_stop_the_recovery() {
    let world = World::with_two_releases();
    let device = world.device("device");
    versions(&device).unwrap();
    let thief = Forger::with_keys(&world.keys_dir());
    let repo = world.repo();
    thief.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = NonZeroU64::MAX;
            t.expires = now() + days(3000);
        },
    );
    versions(&device).unwrap();
    fs::write(repo.join("metadata/2.root.json"), "{}").unwrap();
    for n in 3..40 {
        fs::write(repo.join(format!("metadata/{n}.targets.json")), "junk").unwrap();
    }
    rotate(&world);
    let fresh = put(&world, now());
    assert!(fresh.recovered && fresh.releases.len() == 2, "{fresh:?}");
    let (root, targets, ..) = versions(&device).unwrap();
    assert_eq!((root, targets), (2, 2));
    world.publish("2.0.0", &[]).unwrap();
    versions(&device).unwrap();
    device.release("2.0.0").unwrap();
}

#[test]
fn a_stolen_targets_key_is_replaced_and_its_releases_are_looked_at() {
    let world = World::with_two_releases();
    let device = world.device("device");
    versions(&device).unwrap();
    let change = Change::Rotate(vec![RoleType::Targets], None, Source::New);
    make(&world, &change).unwrap();
    let fresh = put(&world, now());
    assert_eq!((fresh.recovered, fresh.targets), (true, Some(3)));
    let (root, targets, ..) = versions(&device).unwrap();
    assert_eq!((root, targets), (2, 3));
    device.release("1.1.0").unwrap();
    world.publish("2.0.0", &[]).unwrap();
    versions(&device).unwrap();
    device.release("2.0.0").unwrap();
}
