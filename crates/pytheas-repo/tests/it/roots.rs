//! Keys that are replaced: the chain of roots, and recovery from versions driven high.

use std::{fs, num::NonZeroU64};

use pytheas_repo::{
    client::MetadataError,
    fetch::FolderFetch,
    keys::{self, Init},
};
use tough::schema::{Role as _, RoleType, Root, Snapshot, Timestamp};

use crate::world::{Device, Forger, World, copy_dir, days, described, now, shown};

fn version(n: u64) -> NonZeroU64 {
    n.try_into().unwrap()
}

/// A second set of keys, and a root `n` that replaces the keys of `roles` by them.
pub(crate) fn replace_keys(
    world: &World,
    old_keys: &str,
    new_keys: &str,
    n: u64,
    roles: &[RoleType],
) -> Root {
    let dir = world.path(new_keys);
    if !dir.exists() {
        let root_valid = days(365);
        keys::init(&Init {
            dir: &dir,
            passphrase: None,
            now: now(),
            root_valid,
        })
        .unwrap();
    }
    let (old, new) = (
        Forger::with_keys(&world.path(old_keys)),
        Forger::with_keys(&dir),
    );
    let mut root = old.root;
    root.version = version(n);
    for role in roles {
        root.roles.insert(*role, new.root.roles[role].clone());
    }
    root.keys.extend(new.root.keys);
    root
}

/// Writes `root` as the next version, signed with the keys of all `key_dirs`.
pub(crate) fn write_root(world: &World, root: &Root, key_dirs: &[&str]) {
    let mut forger = Forger::with_keys(&world.path(key_dirs[0]));
    for dir in &key_dirs[1..] {
        forger.add_keys(&world.path(dir));
    }
    // Signatures of old and new root keys, as the specification wants (§6.1).
    let mut signer = root.clone();
    let mut all = root.roles[&RoleType::Root].clone();
    all.keyids
        .extend(forger.root.roles[&RoleType::Root].keyids.clone());
    all.keyids.dedup();
    signer.roles.insert(RoleType::Root, all);
    forger.root = signer;
    let name = root.filename(true);
    fs::write(
        world.repo().join("metadata").join(name),
        forger.sign(root.clone()),
    )
    .unwrap();
}

/// Signs timestamp and snapshot anew, with the keys of `root`, at version `n`.
pub(crate) fn sign_online(world: &World, root: &Root, key_dirs: &[&str], n: u64) {
    let mut forger = Forger::with_keys(&world.path(key_dirs[0]));
    for dir in &key_dirs[1..] {
        forger.add_keys(&world.path(dir));
    }
    forger.root = root.clone();
    let repo = world.repo();
    forger.resign(
        &repo,
        "1.snapshot.json",
        &format!("{n}.snapshot.json"),
        |s: &mut Snapshot| {
            s.version = version(n);
        },
    );
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(n);
            t.expires = now() + days(7);
            t._extra.clear();
            let snapshot = described(&repo, &format!("{n}.snapshot.json"), n);
            t.meta.insert("snapshot.json".into(), snapshot);
        },
    );
}

fn world_with_release() -> (World, Device) {
    let world = World::new();
    world.publish("1.0.0", &[]).unwrap();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    (world, device)
}

#[test]
fn a_chain_of_roots_is_followed_by_old_and_new_devices() {
    let (world, device) = world_with_release();
    let root2 = replace_keys(&world, "keys", "keys2", 2, &[RoleType::Root]);
    write_root(&world, &root2, &["keys", "keys2"]);
    assert_eq!(device.refresh(now()).unwrap().root, 2);
    let mut root3 = root2.clone();
    root3.version = version(3);
    root3.expires = now() + days(700);
    write_root(&world, &root3, &["keys2"]);
    for device in [device, world.device("new")] {
        assert_eq!(device.refresh(now()).unwrap().root, 3);
        assert_eq!(device.refresh(now()).unwrap().root, 3);
    }
}

#[test]
fn a_root_that_the_old_keys_did_not_sign_is_refused() {
    let (world, device) = world_with_release();
    let root = replace_keys(&world, "keys", "keys2", 2, &[RoleType::Root]);
    write_root(&world, &root, &["keys2"]);
    let error = device.refresh(now()).unwrap_err();
    assert!(
        matches!(&error, MetadataError::UnknownKey { file, .. } if file == "metadata/2.root.json"),
        "{error}"
    );
    // Nor one that its own keys did not sign.
    write_root(&world, &root, &["keys"]);
    let error = device.refresh(now()).unwrap_err();
    assert!(
        matches!(&error, MetadataError::UnknownKey { file, .. } if file == "metadata/2.root.json"),
        "{error}"
    );
    fs::remove_file(world.repo().join("metadata/2.root.json")).unwrap();
    assert_eq!(device.refresh(now()).unwrap().root, 1);
}

#[test]
fn a_root_of_another_version_than_its_name_is_refused() {
    let (world, device) = world_with_release();
    let root = replace_keys(&world, "keys", "keys", 3, &[]);
    write_root(&world, &root, &["keys"]);
    let metadata = world.repo().join("metadata");
    fs::copy(metadata.join("3.root.json"), metadata.join("2.root.json")).unwrap();
    insta::assert_snapshot!(shown(device.refresh(now()).unwrap_err()), @r"
    error: `metadata/2.root.json` has version 3, its name promises version 2
      help: the repository mixes files of different states; publish again
    ");
    fs::copy(metadata.join("1.root.json"), metadata.join("2.root.json")).unwrap();
    device.refresh(now()).unwrap_err();
}

#[test]
fn an_expired_root_in_the_middle_of_the_chain_does_not_matter() {
    let (world, device) = world_with_release();
    let mut root = replace_keys(&world, "keys", "keys", 2, &[]);
    root.expires = now() - days(1);
    write_root(&world, &root, &["keys"]);
    let error = device.refresh(now()).unwrap_err();
    assert!(
        matches!(&error, MetadataError::Expired { file, .. } if file == "metadata/2.root.json"),
        "{error}"
    );
    root.version = version(3);
    root.expires = now() + days(9);
    write_root(&world, &root, &["keys"]);
    assert_eq!(device.refresh(now()).unwrap().root, 3);
}

#[test]
fn versions_driven_high_with_stolen_online_keys_are_forgotten_with_the_keys() {
    let (world, device) = world_with_release();
    let good = world.save("good");
    // A thief of the online keys makes versions that nothing can follow.
    let root1 = Forger::with_keys(&world.keys_dir()).root;
    sign_online(&world, &root1, &["keys"], u64::MAX >> 1);
    device.refresh(now()).unwrap();
    fs::remove_dir_all(world.repo()).unwrap();
    copy_dir(&good, &world.repo());
    let error = device.refresh(now()).unwrap_err();
    assert!(matches!(error, MetadataError::Older { .. }), "{error}");

    // The owner replaces the keys (§6.1); the device recovers (§5.3.11), also when power is cut
    // between its steps.
    let roles = [RoleType::Timestamp, RoleType::Snapshot];
    let root2 = replace_keys(&world, "keys", "keys2", 2, &roles);
    write_root(&world, &root2, &["keys"]);
    sign_online(&world, &root2, &["keys2"], 2);
    let tuf = device.state.join("tuf");
    let marker = r#"{"format":1,"root_version":2,"files":["timestamp.json","snapshot.json"]}"#;

    // Cut before the new root was kept: the marker is not due, nothing is forgotten.
    fs::write(tuf.join("forget"), marker).unwrap();
    device
        .refresh_from(&mut FolderFetch(good), now())
        .unwrap_err();
    assert!(tuf.join("timestamp.json").exists() && !tuf.join("forget").exists());

    // Cut after it was kept: the marker is due.
    let cut = Device {
        state: world.path("cut"),
        repo: world.repo(),
    };
    copy_dir(&device.state, &cut.state);
    fs::write(cut.state.join("tuf/forget"), marker).unwrap();
    fs::copy(
        world.repo().join("metadata/2.root.json"),
        cut.state.join("tuf/root.json"),
    )
    .unwrap();
    for device in [device, cut] {
        let refreshed = device.refresh(now()).unwrap();
        assert_eq!(
            (refreshed.root, refreshed.timestamp, refreshed.snapshot),
            (2, 2, 2)
        );
        assert!(!device.state.join("tuf/forget").exists());
    }
}

#[test]
fn two_signatures_are_needed_when_the_root_says_so() {
    let (world, device) = world_with_release();
    let mut root = replace_keys(&world, "keys", "keys2", 2, &[]);
    let second = Forger::with_keys(&world.path("keys2")).root.roles[&RoleType::Timestamp].clone();
    let role = root.roles.get_mut(&RoleType::Timestamp).unwrap();
    role.keyids.extend(second.keyids);
    role.threshold = version(2);
    write_root(&world, &root, &["keys"]);
    let error = device.refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/timestamp.json` has 1 valid signatures of the role `timestamp`, 2 are needed");
    sign_online(&world, &root, &["keys", "keys2"], 2);
    assert_eq!(device.refresh(now()).unwrap().timestamp, 2);
}
