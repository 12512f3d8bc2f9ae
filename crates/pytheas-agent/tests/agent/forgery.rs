//! The attacks that the TUF specification lists (§1.5.1), one test each, tried on the real agent
//! over HTTP by whoever answers for its repository. After each the running release still runs, and
//! with the true repository the device updates.

use std::{fs, path::Path, path::PathBuf, process::Command};

use pytheas_release::Release;
use pytheas_repo::publish::{Options, Published, Validity};

use crate::{
    python_tuf::{make_repository, python},
    support::{App, Device, World, alive, until},
};

/// A device that runs 1.0.0, and its world.
fn running() -> (World, Device, Published) {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    (world, device, first)
}

fn without_deltas() -> Options {
    Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    }
}

/// Offers `target`, which must fail while the app runs on; the hub's lines.
#[track_caller]
fn refused(world: &World, device: &Device, target: &str) -> String {
    let (pid, current) = (device.app_pid(), device.current());
    let action = world.hub.offer(target);
    let lines = world.hub.failure(&action);
    device.is_idle();
    assert_eq!(device.app_pid(), pid, "the app was touched: {lines:?}");
    assert!(pid.is_some_and(alive));
    assert_eq!(device.current(), current);
    lines[0].clone()
}

/// Offers `published`, which must succeed.
#[track_caller]
fn taken(world: &World, device: &Device, published: &Published) {
    let action = world.hub.offer(&published.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert_eq!(device.current(), Some(published.tree));
}

/// The file of the only release document of `published`.
fn document(world: &World, published: &Published) -> (PathBuf, Release) {
    let path = world.repo().join("targets").join(&published.target);
    let path = fs::read_dir(path.parent().unwrap()).unwrap().next();
    let path = path.unwrap().unwrap().path();
    let release = Release::parse(&published.target, &fs::read(&path).unwrap()).unwrap();
    (path, release)
}

/// The newest file `*.ROLE.json`.
fn metadata(world: &World, role: &str) -> PathBuf {
    let number = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(&format!(".{role}.json"))?.parse().ok()
    };
    let all = fs::read_dir(world.repo().join("metadata")).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    all.filter(|path| number(path).is_some())
        .max_by_key(number)
        .unwrap()
}

fn timestamp(world: &World) -> PathBuf {
    world.repo().join("metadata/timestamp.json")
}

fn blob(sha256: &pytheas_release::Sha256) -> String {
    format!("blobs/{}/{sha256}", &sha256.to_string()[..2])
}

fn copy_all(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

/// Bytes of all files below `dir`.
fn size_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_bytes(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |file| file.len()),
        _ => 0,
    });
    sizes.sum()
}

#[test]
fn arbitrary_software_is_not_installed() {
    let (world, device, _) = running();
    // A whole repository of somebody else, signed by their keys, in the place of ours.
    let saved = world.path("saved");
    copy_all(&world.repo(), &saved);
    let thief = World::new();
    let theirs = thief.publish(&App::good("6.6.6").script("touch \"$PYTHEAS_DATA_DIR/pwned\""));
    for folder in ["metadata", "targets", "blobs"] {
        copy_all(&thief.repo().join(folder), &world.repo());
    }
    let line = refused(&world, &device, &theirs.target);
    assert!(line.contains("signed by an unknown key"), "{line}");
    // Only a document that nobody signed.
    copy_all(&saved.join("metadata"), &world.repo());
    let line = refused(&world, &device, &theirs.target);
    assert!(line.contains("the repository has no release"), "{line}");
    // The content of a signed release replaced.
    let second = world.publish_with(&App::good("1.1.0"), &without_deltas());
    let (path, _) = document(&world, &second);
    let good = fs::read(&path).unwrap();
    let bad = String::from_utf8(good.clone()).unwrap();
    let bad = bad.replace("bin/app", "bin/sh\u{0}");
    pytheas_durable::replace(&path, bad.as_bytes()).unwrap();
    let line = refused(&world, &device, &second.target);
    assert!(
        line.contains("is not what was signed")
            || line.contains("is cut short")
            || line.contains("is larger"),
        "{line}"
    );
    assert!(!device.state.join("data/pwned").exists());
    pytheas_durable::replace(&path, &good).unwrap();
    taken(&world, &device, &second);
}

#[test]
fn a_rollback_is_refused() {
    let (world, device, first) = running();
    let old = world.path("old");
    copy_all(&world.repo(), &old);
    let second = world.publish(&App::good("1.1.0"));
    taken(&world, &device, &second);
    let new = world.path("new");
    copy_all(&world.repo(), &new);
    // All files as they were, every one signed.
    copy_all(&old.join("metadata"), &world.repo());
    let line = refused(&world, &device, &first.target);
    assert!(
        line.contains("`metadata/timestamp.json` has version 1"),
        "{line}"
    );
    assert!(line.contains("older than version 2"), "{line}");
    copy_all(&new.join("metadata"), &world.repo());
    let third = world.publish(&App::good("1.2.0"));
    taken(&world, &device, &third);
}

#[test]
fn an_indefinite_freeze_is_noticed() {
    let (world, device, _) = running();
    let validity = Validity {
        timestamp: jiff::SignedDuration::from_secs(2),
        ..Validity::default()
    };
    let options = Options {
        validity,
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let second = world.publish_with(&App::good("1.1.0"), &options);
    // Newer ones are kept away from the device: it sees this one until it has expired.
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    let line = refused(&world, &device, &second.target);
    assert!(
        line.contains("`metadata/timestamp.json` expired at"),
        "{line}"
    );
    let third = world.publish(&App::good("1.2.0"));
    taken(&world, &device, &third);
}

#[test]
fn endless_data_fills_neither_memory_nor_disk() {
    let (world, device, _) = running();
    let second = world.publish_with(&App::good("1.1.0"), &without_deltas());
    let (path, release) = document(&world, &second);
    let document = path.file_name().unwrap().to_str().unwrap().to_owned();
    let before = size_bytes(&device.state);
    for file in [
        "metadata/2.root.json".to_owned(),
        "metadata/timestamp.json".into(),
        ".snapshot.json".into(),
        ".targets.json".into(),
        document,
        blob(&release.tree.document.sha256),
        blob(&release.index.sha256),
    ] {
        // The agent's own metadata must be older than what is offered.
        world.publish_with(
            &App::good(&format!("0.0.{}", file.len())),
            &without_deltas(),
        );
        world.hub.talk().endless = Some(file.clone());
        let line = refused(&world, &device, &second.target);
        let named = file.trim_start_matches('.');
        assert!(line.contains(named), "{file}: {line}");
        let grown = size_bytes(&device.state).saturating_sub(before);
        assert!(grown < 1 << 20, "{file}: the disk grew by {grown} bytes");
        world.hub.talk().endless = None;
    }
    let memory = memory_kib(&device);
    assert!(memory < 64 << 10, "the agent took {memory} KiB");
    taken(&world, &device, &second);
}

/// The most memory that the agent ever had, in KiB.
fn memory_kib(device: &Device) -> u64 {
    let pid = device.child.as_ref().unwrap().id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[test]
fn slow_retrieval_is_given_up_and_the_app_is_not_touched() {
    let (world, device, _) = running();
    let second = world.publish(&App::good("1.1.0"));
    world.hub.talk().drip = Some("metadata/timestamp.json".into());
    let action = world.hub.offer(&second.target);
    until("a byte dripped", || {
        (world.hub.asked("timestamp.json") > 1).then_some(())
    });
    // While it drips the app is looked after: one that dies is started again.
    let first_pid = device.app_pid().unwrap();
    crate::support::signal(first_pid, rustix::process::Signal::KILL);
    until("the app runs again", || {
        device
            .app_pid()
            .filter(|pid| *pid != first_pid && alive(*pid))
    });
    until("it is given up", || {
        device.log().contains("the server drips").then_some(())
    });
    device.runs("1.0.0");
    // No failure of the release: the network is tried again.
    world.hub.talk().drip = None;
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert_eq!(device.current(), Some(second.tree));
}

#[test]
fn extraneous_files_do_not_get_into_a_release() {
    let (world, device, _) = running();
    // The tree of a release is replaced by one with more files in it, signed too, but for another
    // version.
    let second = world.publish_with(&App::good("1.1.0"), &without_deltas());
    let more = App::good("1.2.0").file("lib/extra.py", b"import os".to_vec());
    let third = world.publish_with(&more, &without_deltas());
    let (wanted, other) = (document(&world, &second).1, document(&world, &third).1);
    let theirs = fs::read(world.repo().join(blob(&other.tree.document.sha256))).unwrap();
    let tree = blob(&wanted.tree.document.sha256);
    world.hub.talk().instead = vec![(tree.clone(), theirs)];
    let line = refused(&world, &device, &second.target);
    assert!(line.contains(&tree), "{line}");
    world.hub.talk().instead.clear();
    taken(&world, &device, &second);
    assert!(!device.state.join("current/lib/extra.py").exists());
}

#[test]
fn metadata_of_different_states_do_not_mix() {
    let (world, device, _) = running();
    let old_snapshot = fs::read(metadata(&world, "snapshot")).unwrap();
    let old_targets = fs::read(metadata(&world, "targets")).unwrap();
    let second = world.publish(&App::good("1.1.0"));
    for (role, old) in [("snapshot", old_snapshot), ("targets", old_targets)] {
        let path = metadata(&world, role);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        world.hub.talk().instead = vec![(format!("metadata/{name}"), old)];
        let line = refused(&world, &device, &second.target);
        assert!(line.contains(&name), "{line}");
    }
    world.hub.talk().instead.clear();
    taken(&world, &device, &second);
}

#[test]
fn the_wrong_software_is_not_installed() {
    let (world, device, _) = running();
    // Both are signed; the document of the one is sent for the other.
    let second = world.publish_with(&App::good("1.1.0"), &without_deltas());
    let third = world.publish_with(&App::good("1.2.0"), &without_deltas());
    let (wanted, _) = document(&world, &second);
    let (other, _) = document(&world, &third);
    let name = wanted.file_name().unwrap().to_str().unwrap().to_owned();
    world.hub.talk().instead = vec![(name.clone(), fs::read(other).unwrap())];
    let line = refused(&world, &device, &second.target);
    assert!(line.contains(&name), "{line}");
    world.hub.talk().instead.clear();
    taken(&world, &device, &second);
}

#[test]
fn a_malicious_mirror_prevents_updates_only_while_it_answers() {
    let (world, device, _) = running();
    let second = world.publish(&App::good("1.1.0"));
    // Rubbish, a login page, somebody else's files.
    for rubbish in [&b""[..], b"<html>log in first</html>", b"{}", &[0xff; 300]] {
        world.hub.talk().instead = vec![("metadata/timestamp.json".into(), rubbish.to_vec())];
        let line = refused(&world, &device, &second.target);
        assert!(line.contains("metadata/timestamp.json"), "{line}");
    }
    world.hub.talk().instead.clear();
    // Nothing at all, then downloads that break off: no failures, only patience.
    world.hub.talk().away = true;
    let action = world.hub.offer(&second.target);
    std::thread::sleep(std::time::Duration::from_millis(500));
    world.hub.talk().break_off = vec![10, 0, 1000];
    world.hub.talk().away = false;
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert_eq!(device.current(), Some(second.tree));
}

#[test]
fn stolen_keys_below_the_threshold_sign_nothing() {
    let Some(python) = python() else { return };
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    // Two of three targets keys must sign; the thief has one, and both online keys.
    make_repository(&python, &world, &[]);
    let device = world.device_with("device", &first);
    let good = world.path("good");
    copy_all(&world.repo(), &good);
    make_repository(&python, &world, &["steal"]);
    let lie = first.target.replace("/1.0.0/", "/9.9.9/");
    let line = refused(&world, &device, &lie);
    assert!(
        line.contains("has 1 valid signatures of the role `targets`, 2 are needed"),
        "{line}"
    );
}

#[test]
fn versions_driven_ahead_with_stolen_online_keys_are_forgotten_with_the_keys() {
    let Some(python) = python() else { return };
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let second = world.publish(&App::good("1.1.0"));
    make_repository(&python, &world, &[]);
    let device = world.device_with("device", &first);
    let good = world.path("good");
    copy_all(&world.repo(), &good);
    let lie = first.target.replace("/1.0.0/", "/9.9.9/");
    make_repository(&python, &world, &["ahead"]);
    refused(&world, &device, &lie);
    // The thief is gone, but now the truth looks old.
    copy_all(&good.join("metadata"), &world.repo());
    let line = refused(&world, &device, &second.target);
    assert!(line.contains("older than version 1000001"), "{line}");
    make_repository(&python, &world, &["recover"]);
    taken(&world, &device, &second);
}

#[test]
fn with_a_clock_of_1970_updates_work_and_older_metadata_is_refused() {
    let Some(library) = faketime() else {
        return testkit::skip("a clock of 1970 needs `faketime`");
    };
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    device.env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", "@1970-01-01 00:02:00"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    device.start();
    taken(&world, &device, &first);
    assert!(device.log().contains("1970-01-01"), "{}", device.log());
    let old = fs::read(timestamp(&world)).unwrap();
    let second = world.publish(&App::good("1.1.0"));
    taken(&world, &device, &second);
    // Restarted: the clock begins at 1970 again, what was seen does not.
    let before = device.app_pid();
    device.kill();
    device.start();
    until("the app runs again", || {
        device
            .app_pid()
            .filter(|pid| Some(*pid) != before && alive(*pid))
    });
    let new = fs::read(timestamp(&world)).unwrap();
    pytheas_durable::replace(&timestamp(&world), &old).unwrap();
    let line = refused(&world, &device, &first.target);
    assert!(line.contains("older than version 2"), "{line}");
    pytheas_durable::replace(&timestamp(&world), &new).unwrap();
    // Expired by the time that the metadata itself tells.
    let validity = Validity {
        snapshot: jiff::SignedDuration::from_secs(1),
        ..Validity::default()
    };
    let options = Options {
        validity,
        level: 3,
        ..Options::at(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60))
    };
    let late = world.publish_with(&App::good("1.2.0"), &options);
    let line = refused(&world, &device, &late.target);
    assert!(line.contains("expired at"), "{line}");
}

/// The library that changes a program's clock.
fn faketime() -> Option<String> {
    let found = fs::read_dir("/usr/lib").ok()?.flatten().find_map(|entry| {
        let path = entry.path().join("faketime/libfaketime.so.1");
        path.exists().then_some(path)
    });
    found?.to_str().map(str::to_owned)
}
