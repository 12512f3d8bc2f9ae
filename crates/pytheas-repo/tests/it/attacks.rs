//! What an attacker on the network, on the server, or with stolen keys can try.

use std::{fs, num::NonZeroU64};

use pytheas_release::Sha256;
use pytheas_repo::{
    client::{self, Client, MetadataError},
    fetch::{DownloadError, FolderFetch},
};
use tough::schema::{Snapshot, Targets, Timestamp};

use crate::world::{
    Device, Forger, World, copy_dir, days, described, now, platform, shown, target,
};

fn version(n: u64) -> NonZeroU64 {
    n.try_into().unwrap()
}

/// A world, and a device that knows its newest state.
fn knowing() -> (World, Device) {
    let world = World::with_two_releases();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    (world, device)
}

/// The device still works with the true repository.
fn unharmed(world: &World, device: &Device) {
    device
        .install(&mut FolderFetch(world.repo()), "1.1.0")
        .unwrap();
}

#[test]
fn a_repository_signed_by_unknown_keys_is_refused() {
    let (world, device) = knowing();
    let stranger = World::with_two_releases();
    let error = device
        .refresh_from(&mut FolderFetch(stranger.repo()), now())
        .unwrap_err();
    let MetadataError::UnknownKey { keys, .. } = &error else {
        panic!("{error}")
    };
    let keys = keys.clone();
    insta::assert_snapshot!(shown(error).replace(&keys, "[KEY]"), @r"
    error: `metadata/timestamp.json` is signed by an unknown key ([KEY]), not by a key of the role `timestamp`
      help: someone without the keys of this repository made it; it was refused. If the keys were replaced on purpose, publish the new root metadata signed with the old root keys too
    ");
    unharmed(&world, &device);
}

#[test]
fn each_role_must_be_signed_by_its_own_key() {
    let world = World::with_two_releases();
    // Someone with the online keys puts a release into the targets metadata.
    let mut thief = Forger::with_keys(&world.keys_dir());
    let keys = thief.root.roles[&tough::schema::RoleType::Timestamp].clone();
    thief
        .root
        .roles
        .insert(tough::schema::RoleType::Targets, keys);
    let repo = world.repo();
    thief.resign(
        &repo,
        "2.targets.json",
        "3.targets.json",
        |t: &mut Targets| t.version = version(3),
    );
    thief.resign(
        &repo,
        "2.snapshot.json",
        "3.snapshot.json",
        |s: &mut Snapshot| {
            s.version = version(3);
            s.meta
                .insert("targets.json".into(), described(&repo, "3.targets.json", 3));
        },
    );
    thief.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(3);
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "3.snapshot.json", 3),
            );
        },
    );
    let error = world.device("device").refresh(now()).unwrap_err();
    assert!(
        matches!(&error, MetadataError::UnknownKey { file, .. } if file == "metadata/3.targets.json"),
        "{error}"
    );
}

#[test]
fn too_few_signatures_are_too_few() {
    let world = World::with_two_releases();
    let repo = world.repo();
    let path = repo.join("metadata/timestamp.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 2", "\"version\": 9")).unwrap();
    let error = world.device("device").refresh(now()).unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: `metadata/timestamp.json` has 0 valid signatures of the role `timestamp`, 1 are needed
      help: it was changed after it was signed, or not all needed keys signed it; it was refused
    ");
    let mut metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    metadata["signatures"] = serde_json::json!([]);
    fs::write(&path, metadata.to_string()).unwrap();
    let error = world.device("device").refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/timestamp.json` is signed by an unknown key (it has no signature), not by a key of the role `timestamp`");
}

#[test]
fn an_expired_timestamp_is_refused() {
    let (world, device) = knowing();
    let error = device.refresh(now() + days(7)).unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: `metadata/timestamp.json` expired at 2026-06-08T12:00:00Z and it is 2026-06-08T12:00:00Z
      help: is the device's clock right? If so, the hub (or `pytheas publish`) has stopped renewing the role `timestamp`, or someone keeps newer metadata away
    ");
    unharmed(&world, &device);
}

#[test]
fn expired_roles_are_named() {
    // (role kept fresh up to this one, expired role)
    let world = World::with_two_releases();
    let forger = Forger::with_keys(&world.keys_dir());
    let repo = world.repo();
    let late = now() + days(31);
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.expires = now() + days(400);
        },
    );
    let error = world
        .device("device")
        .refresh(late)
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!(error, @"`metadata/2.snapshot.json` expired at 2026-07-01T12:00:00Z and it is 2026-07-02T12:00:00Z");
    forger.resign(
        &repo,
        "2.snapshot.json",
        "2.snapshot.json",
        |s: &mut Snapshot| {
            s.expires = now() + days(400);
        },
    );
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "2.snapshot.json", 2),
            );
        },
    );
    let late = now() + days(91);
    let error = world
        .device("device2")
        .refresh(late)
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!(error, @"`metadata/2.targets.json` expired at 2026-08-30T12:00:00Z and it is 2026-08-31T12:00:00Z");
    let error = world
        .device("device3")
        .refresh(now() + days(365))
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!(error, @"`metadata/1.root.json` expired at 2027-06-01T12:00:00Z and it is 2027-06-01T12:00:00Z");
}

#[test]
fn an_older_timestamp_is_refused() {
    let world = World::new();
    world.publish("1.0.0", &[]).unwrap();
    let old = world.save("old");
    world.publish("1.1.0", &[]).unwrap();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let error = device
        .refresh_from(&mut FolderFetch(old), now())
        .unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: `metadata/timestamp.json` has version 1 of the role `timestamp`, older than version 2, which is trusted
      help: someone replays old metadata, or the repository was restored from a backup: then publish again until its versions are higher
    ");
    assert_eq!(device.refresh(now()).unwrap().timestamp, 2);
}

#[test]
fn an_older_snapshot_under_a_newer_timestamp_is_refused() {
    let (world, device) = knowing();
    let (forger, repo) = (Forger::with_keys(&world.keys_dir()), world.repo());
    let good = world.save("good");
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(3);
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "1.snapshot.json", 1),
            );
        },
    );
    let error = device.refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/timestamp.json` has version 1 of the role `snapshot`, older than version 2, which is trusted");
    device.install(&mut FolderFetch(good), "1.1.0").unwrap();
}

#[test]
fn older_targets_under_a_newer_snapshot_are_refused() {
    let (world, device) = knowing();
    let (forger, repo) = (Forger::with_keys(&world.keys_dir()), world.repo());
    forger.resign(
        &repo,
        "2.snapshot.json",
        "3.snapshot.json",
        |s: &mut Snapshot| {
            s.version = version(3);
            s.meta
                .insert("targets.json".into(), described(&repo, "1.targets.json", 1));
        },
    );
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(3);
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "3.snapshot.json", 3),
            );
        },
    );
    let error = device.refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/3.snapshot.json` has version 1 of the role `targets`, older than version 2, which is trusted");
    // Nor may the targets vanish from the snapshot.
    forger.resign(
        &repo,
        "3.snapshot.json",
        "3.snapshot.json",
        |s: &mut Snapshot| {
            s.meta.clear();
        },
    );
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(4);
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "3.snapshot.json", 3),
            );
        },
    );
    let error = world.device("new").refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/3.snapshot.json` does not list `targets.json`");
}

#[test]
fn files_of_different_states_do_not_mix() {
    let world = World::with_two_releases();
    let (forger, repo) = (Forger::with_keys(&world.keys_dir()), world.repo());
    let metadata = repo.join("metadata");
    // An old snapshot under the new name: the hash in the timestamp tells.
    let good = fs::read(metadata.join("2.snapshot.json")).unwrap();
    fs::copy(
        metadata.join("1.snapshot.json"),
        metadata.join("2.snapshot.json"),
    )
    .unwrap();
    let error = world.device("a").refresh(now()).unwrap_err();
    assert!(
        matches!(&error, MetadataError::Download(DownloadError::Mismatch { file, .. } | DownloadError::Truncated { file, .. })
            if file == "metadata/2.snapshot.json"),
        "{error}"
    );
    // Without hashes in the timestamp, the version tells.
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            let meta = t.meta.get_mut("snapshot.json").unwrap();
            (meta.length, meta.hashes) = (None, None);
        },
    );
    let error = world.device("b").refresh(now()).unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: `metadata/2.snapshot.json` has version 1, `metadata/timestamp.json` promises version 2
      help: the repository mixes files of different states; publish again
    ");
    // The same for targets.
    fs::write(metadata.join("2.snapshot.json"), good).unwrap();
    fs::copy(
        metadata.join("1.targets.json"),
        metadata.join("2.targets.json"),
    )
    .unwrap();
    forger.resign(
        &repo,
        "2.snapshot.json",
        "2.snapshot.json",
        |s: &mut Snapshot| {
            let meta = s.meta.get_mut("targets.json").unwrap();
            (meta.length, meta.hashes) = (None, None);
        },
    );
    let error = world.device("c").refresh(now()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`metadata/2.targets.json` has version 1, `metadata/2.snapshot.json` promises version 2");
}

#[test]
fn a_release_for_another_platform_is_refused_by_name() {
    let world = World::with_two_releases();
    let dir = world.tree("1.0.0", "linux-aarch64", &[]);
    let options = pytheas_repo::publish::Options::at(now());
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    let device = world.device("device");
    let mut fetch = FolderFetch(world.repo());
    let mut client = Client::open(&device.state, &mut fetch).unwrap();
    client.refresh(now()).unwrap();
    let name = "app/1.0.0/linux-aarch64/release.json";
    insta::assert_snapshot!(shown(client.fetch_release(name, &platform()).unwrap_err()), @r"
    error: `app/1.0.0/linux-aarch64/release.json` is for platform `linux-aarch64`, this device is `linux-x86_64`
      help: build and publish the release for `linux-x86_64` too, or leave this device out of the rollout
    ");
    client
        .fetch_release(name, &"linux-aarch64".parse().unwrap())
        .unwrap();
}

#[test]
fn a_signed_document_under_another_releases_name_is_refused() {
    let world = World::with_two_releases();
    let (forger, repo) = (Forger::with_keys(&world.keys_dir()), world.repo());
    // Someone who may sign targets, but mixed up: 1.1.0's name with 1.0.0's document.
    let (old, new) = (target("1.0.0"), target("1.1.0"));
    forger.resign(
        &repo,
        "2.targets.json",
        "3.targets.json",
        |t: &mut Targets| {
            t.version = version(3);
            let name = |text: &str| tough::TargetName::new(text).unwrap();
            let document = t.targets[&name(&old)].clone();
            let hash = Sha256::from_bytes((&document.hashes.sha256[..]).try_into().unwrap());
            let file = |name: &str| repo.join(pytheas_repo::layout::target(name, &hash));
            fs::copy(file(&old), file(&new)).unwrap();
            t.targets.insert(name(&new), document);
        },
    );
    forger.resign(
        &repo,
        "2.snapshot.json",
        "3.snapshot.json",
        |s: &mut Snapshot| {
            s.version = version(3);
            s.meta
                .insert("targets.json".into(), described(&repo, "3.targets.json", 3));
        },
    );
    forger.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut Timestamp| {
            t.version = version(3);
            t.meta.insert(
                "snapshot.json".into(),
                described(&repo, "3.snapshot.json", 3),
            );
        },
    );
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let error = device.release("1.1.0").unwrap_err();
    let text = format!("{error}: {}", error.chain().nth(1).unwrap());
    assert!(
        text.contains("describes `app/1.0.0/linux-x86_64/release.json`"),
        "{text}"
    );
}

#[test]
fn an_unknown_release_is_named_with_the_ones_there_are() {
    let (_world, device) = knowing();
    insta::assert_snapshot!(shown(device.release("9.9.9").unwrap_err()), @r"
    error: the repository has no release `app/9.9.9/linux-x86_64/release.json`
      help: it has app/1.0.0/linux-x86_64/release.json, app/1.1.0/linux-x86_64/release.json
    ");
}

#[test]
fn torn_trusted_metadata_is_repaired_from_its_copy_or_an_error_and_never_none() {
    let (world, device) = knowing();
    let (tuf, copies) = (device.state.join("tuf"), device.state.join("tuf-copy"));
    for (file, damage) in [
        (
            "timestamp.json",
            &(|b: &[u8]| b[..b.len() / 2].to_vec()) as &dyn Fn(&[u8]) -> Vec<u8>,
        ),
        ("timestamp.json", &|_| Vec::new()),
        ("snapshot.json", &|b| b[..10].to_vec()),
        ("targets.json", &|b| vec![0; b.len()]),
        ("root.json", &|b| b[..b.len() - 3].to_vec()),
        // Whole, but changed: an older version slipped in would be believed.
        ("timestamp.json", &|b| {
            String::from_utf8_lossy(b)
                .replace("\"version\": 2", "\"version\": 1")
                .into_bytes()
        }),
        ("root.json", &|b| {
            String::from_utf8_lossy(b)
                .replace("\"version\": 1", "\"version\": 7")
                .into_bytes()
        }),
        ("forget", &|_| b"{".to_vec()),
    ] {
        let (path, copy) = (tuf.join(file), copies.join(file));
        let good = fs::read(&path).ok();
        let bad = damage(good.as_deref().unwrap_or_default());
        if let Some(good) = &good {
            // One of the two, without a repository: all that is needed is on the device.
            for (rotten, whole) in [(&path, &copy), (&copy, &path)] {
                fs::write(rotten, &bad).unwrap();
                Client::open(&device.state, &mut FolderFetch(world.path("nowhere"))).unwrap();
                if file != "targets.json" {
                    assert_eq!(fs::read(rotten).unwrap(), *good, "{file}");
                    assert_eq!(fs::read(whole).unwrap(), *good, "{file}");
                }
            }
        }
        fs::write(&path, &bad).unwrap();
        fs::write(&copy, &bad).unwrap();
        if file == "targets.json" {
            device.refresh(now()).unwrap(); // only a cache
            assert_eq!(fs::read(&path).ok(), good);
            continue;
        }
        let error = device.refresh(now()).unwrap_err();
        assert!(
            matches!(&error, MetadataError::Damaged { path: named, .. } if *named == path),
            "{file}: {error}"
        );
        for path in [&path, &copy] {
            match &good {
                Some(good) => fs::write(path, good).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        device.refresh(now()).unwrap();
    }
    // What a power cut between the two left: the newer one counts, whichever it is.
    let newer = fs::read(tuf.join("timestamp.json")).unwrap();
    world.publish("1.2.0", &[]).unwrap();
    for (ahead, behind) in [(&tuf, &copies), (&copies, &tuf)] {
        device.refresh(now()).unwrap();
        let newest = fs::read(ahead.join("timestamp.json")).unwrap();
        assert_ne!(newest, newer);
        fs::write(behind.join("timestamp.json"), &newer).unwrap();
        Client::open(&device.state, &mut FolderFetch(world.path("nowhere"))).unwrap();
        assert_eq!(fs::read(behind.join("timestamp.json")).unwrap(), newest);
    }
    // Gone is as good as damaged; the whole folder gone is on purpose.
    for file in ["root.json", "timestamp.json", "snapshot.json"] {
        fs::remove_file(tuf.join(file)).unwrap();
    }
    Client::open(&device.state, &mut FolderFetch(world.path("nowhere"))).unwrap();
    assert!(tuf.join("snapshot.json").exists());
    let aside = world.path("aside");
    fs::rename(&tuf, &aside).unwrap();
    let error = device.refresh(now()).unwrap_err();
    assert!(
        matches!(error, MetadataError::NotInitialised { .. }),
        "{error}"
    );
    fs::rename(&aside, &tuf).unwrap();
    fs::write(copies.join("timestamp.json"), "{").unwrap();
    fs::write(tuf.join("timestamp.json"), "{\"signed\"").unwrap();
    let text = shown(device.refresh(now()).unwrap_err());
    insta::assert_snapshot!(text.replace(world.dir.path().to_str().unwrap(), "[DIR]"), @r"
    error: trusted metadata `[DIR]/device/tuf/timestamp.json` is damaged: it does not parse: EOF while parsing an object at line 1 column 9
      help: the disk lost it or someone changed it. Without it old metadata could not be told from new, so nothing is updated; the running release is not affected. Compare with the repository, then remove this file to trust what the repository offers next
    ");
}

#[test]
fn a_cycle_cut_off_after_the_timestamp_is_finished_later() {
    let world = World::new();
    world.publish("1.0.0", &[]).unwrap();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    world.publish("1.1.0", &[]).unwrap();
    let half = world.path("half");
    copy_dir(&world.repo(), &half);
    fs::remove_file(half.join("metadata/2.snapshot.json")).unwrap();
    device
        .refresh_from(&mut FolderFetch(half), now())
        .unwrap_err();
    let refreshed = device.refresh(now()).unwrap();
    assert_eq!(
        (refreshed.timestamp, refreshed.snapshot, refreshed.targets),
        (2, 2, 2)
    );
    assert!(refreshed.changed && !device.refresh(now()).unwrap().changed);
}

#[test]
fn a_device_belongs_to_one_repository() {
    let (world, device) = knowing();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    client::init(&device.state, &root, None).unwrap();
    let other = fs::read(World::new().keys_dir().join("root.json")).unwrap();
    let error = client::init(&device.state, &other, None).unwrap_err();
    let text = shown(error).replace(world.dir.path().to_str().unwrap(), "[DIR]");
    insta::assert_snapshot!(text, @r"
    error: `[DIR]/device/tuf/root.json` is the root of another repository
      help: this device trusts other keys; to hand it over, remove its state directory and enrol it again
    ");
    let error = client::init(&world.path("new"), &other, Some(&Sha256::of(&root))).unwrap_err();
    assert!(matches!(error, MetadataError::WrongRoot { .. }), "{error}");
    let mut folder = FolderFetch(world.repo());
    let error = Client::open(&world.path("new"), &mut folder).unwrap_err();
    let text = shown(error).replace(world.dir.path().to_str().unwrap(), "[DIR]");
    insta::assert_snapshot!(text, @r"
    error: there is no trusted root metadata in `[DIR]/new/tuf`
      help: enrol the device first: `pytheas agent enrol --hub URL --root FILE`
    ");
}
