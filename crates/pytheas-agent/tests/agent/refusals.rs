//! Bad releases, bad files, bad hosts: refused by name, the running release untouched.

use std::{fs, path::PathBuf, process::Command};

use pytheas_release::{Ready, Release, Sha256};
use pytheas_repo::publish::{Options, Published, Validity};

use crate::support::{App, Device, World, alive, until};

/// Offers `target`, which must be refused, and returns the hub's lines.
#[track_caller]
fn refused(world: &World, device: &Device, target: &str) -> Vec<String> {
    let (pid, current) = (device.app_pid(), device.current());
    let action = world.hub.offer(target);
    let lines = world.hub.failure(&action);
    device.is_idle();
    assert_eq!(
        device.app_pid(),
        pid,
        "the running app was not touched: {lines:?}"
    );
    assert!(pid.is_none_or(alive));
    assert_eq!(device.current(), current);
    lines
}

fn release_document(world: &World, published: &Published) -> (PathBuf, Release) {
    let folder = world.repo().join("targets").join(&published.target);
    let folder = folder.parent().unwrap();
    let path = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let release = Release::parse(&published.target, &fs::read(&path).unwrap()).unwrap();
    (path, release)
}

#[test]
fn an_app_that_crashes_at_start_is_rolled_back_and_not_tried_again() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let script = "echo start >> \"$PYTHEAS_DATA_DIR/starts\"\necho 'KeyError: plants' >&2\nexit 7";
    let bad = world.publish(&App::good("1.1.0").crashing(script));
    let action = world.hub.offer(&bad.target);
    let lines = world.hub.failure(&action);
    assert_eq!(
        lines,
        ["`app@1.1.0` ended: exit status 7", "KeyError: plants"]
    );
    device.runs("1.0.0");
    device.is_idle();
    assert_eq!(device.current(), Some(first.tree));
    // Tidied after the hub was told.
    until("the failed slot is gone", || {
        (device.slots() == [first.tree.to_string()]).then_some(())
    });
    assert_eq!(device.machine()["refused"][0]["release"], "app@1.1.0");
    let starts = || {
        fs::read_to_string(device.state.join("data/starts"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(starts(), 3);
    assert_eq!(
        device.status()["last_error"],
        "`app@1.1.0` ended: exit status 7"
    );

    // A hub that forgot: the same action again is answered without trying, also after a restart.
    world.hub.talk().feedback.clear();
    world.hub.talk().offer = Some((action.clone(), bad.target.clone(), false));
    assert_eq!(world.hub.failure(&action), lines);
    device.is_idle();
    device.kill();
    world.hub.talk().feedback.clear();
    world.hub.talk().offer = Some((action.clone(), bad.target.clone(), false));
    device.start();
    assert_eq!(world.hub.failure(&action), lines);
    device.runs("1.0.0");
    let starts = fs::read_to_string(device.state.join("data/starts"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(starts, 3, "nobody started it again");
}

#[test]
fn an_app_that_is_never_ready_is_rolled_back() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let hanging = App::good("1.1.0").script("echo waiting for a sensor\nexec sleep 100000");
    let bad = world.publish(&hanging.health(Ready::Notify, 700));
    let action = world.hub.offer(&bad.target);
    assert_eq!(
        world.hub.failure(&action),
        [
            "`app@1.1.0` did not say `READY=1` within 0.7 s",
            "waiting for a sensor"
        ]
    );
    device.runs("1.0.0");
    device.is_idle();
    assert_eq!(device.current(), Some(first.tree));
}

#[test]
fn a_first_install_that_fails_leaves_nothing_behind() {
    let world = World::new();
    let bad = world.publish(&App::good("1.0.0").crashing("exit 1"));
    let mut device = world.device("device");
    device.start();
    let action = world.hub.offer(&bad.target);
    world.hub.failure(&action);
    device.is_idle();
    assert_eq!(device.current(), None);
    until("the failed slot is gone", || {
        device.slots().is_empty().then_some(())
    });
    // And the next one is taken.
    let good = world.publish(&App::good("1.0.1"));
    let action = world.hub.offer(&good.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.0.1");
}

#[test]
fn a_flipped_byte_in_any_published_file_is_refused_by_name() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let blob = |sha256: &Sha256| format!("blobs/{}/{sha256}", &sha256.to_string()[..2]);

    // With a delta: the delta is what is downloaded.
    let second = world.publish(&App::good("1.1.0"));
    let (path, release) = release_document(&world, &second);
    let delta = blob(&release.deltas[&first.tree].sha256);
    let document = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut cases = vec![
        (
            second.target.clone(),
            "metadata/timestamp.json".to_owned(),
            40,
        ),
        (second.target.clone(), ".snapshot.json".to_owned(), 60),
        (second.target.clone(), ".targets.json".to_owned(), 200),
        (second.target.clone(), document, 11),
        (second.target.clone(), delta, 100),
    ];
    // Without one: tree document, index and pack.
    let options = Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let third = world.publish_with(&App::good("1.2.0"), &options);
    let (_, release) = release_document(&world, &third);
    cases.push((
        third.target.clone(),
        blob(&release.tree.document.sha256),
        30,
    ));
    cases.push((third.target.clone(), blob(&release.index.sha256), 30));
    let known: Vec<String> = cases.iter().map(|(_, file, _)| file.clone()).collect();
    let pack = newest_other_blob(&world, &known);
    cases.push((third.target.clone(), pack, 1000));

    for (target, file, offset) in cases {
        world.hub.talk().flip = Some((file.clone(), offset));
        // Metadata that did not change is not asked for again: renew what can be.
        world.publish(&App::good(&format!("0.{offset}.{}", file.len())));
        let lines = refused(&world, &device, &target);
        let shown = file.trim_start_matches("metadata/");
        assert!(lines[0].contains(shown), "{file}: {lines:?}");
        world.hub.talk().flip = None;
    }
    // Nothing was wrong with the releases themselves.
    for published in [second, third] {
        let action = world.hub.offer(&published.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        assert_eq!(device.current(), Some(published.tree));
        device.is_idle();
    }
}

/// The pack that was written last.
fn newest_other_blob(world: &World, known: &[String]) -> String {
    let mut blobs = Vec::new();
    for folder in fs::read_dir(world.repo().join("blobs")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path
                .strip_prefix(world.repo())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if !known.contains(&name) && fs::metadata(&path).unwrap().len() > 30_000 {
                blobs.push((fs::metadata(&path).unwrap().modified().unwrap(), name));
            }
        }
    }
    blobs.sort();
    blobs.pop().unwrap().1
}

#[test]
fn a_release_for_another_platform_is_refused_by_name() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let mut other = App::good("1.1.0");
    let here = other.platform.to_string();
    let there = if here == "linux-armv7" {
        "linux-riscv64"
    } else {
        "linux-armv7"
    };
    other.platform = there.parse().unwrap();
    let other = world.publish(&other);
    let lines = refused(&world, &device, &other.target);
    assert_eq!(
        lines[0],
        format!(
            "`{}` is for platform `{there}`, this device is `{here}`",
            other.target
        )
    );

    let mut form = App::good("1.2.0");
    form.form = "image".into();
    let form = world.publish(&form);
    let lines = refused(&world, &device, &form.target);
    assert_eq!(
        lines[0],
        "`app@1.2.0` has the form `image`; this agent runs bundle"
    );
}

#[test]
fn an_unknown_release_and_an_unsigned_one_are_refused() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let platform = App::good("1").platform;
    let target = format!("app/9.9.9/{platform}/release.json");
    let lines = refused(&world, &device, &target);
    assert!(
        lines[0].contains(&format!("no release `{target}`")),
        "{lines:?}"
    );
    for odd in [
        "../../etc/passwd",
        "",
        "app",
        "app/1.0.0/x/y/../release.json",
    ] {
        refused(&world, &device, odd);
    }

    // The same device against a repository signed by somebody else.
    let stranger = World::new();
    let theirs = stranger.publish(&App::good("2.0.0"));
    for folder in ["metadata", "targets", "blobs"] {
        copy(&stranger.repo().join(folder), &world.repo().join(folder));
    }
    let lines = refused(&world, &device, &theirs.target);
    assert!(lines[0].contains("metadata/timestamp.json"), "{lines:?}");
    assert!(lines[0].contains("signed by an unknown key"), "{lines:?}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp")
        .arg("-r")
        .arg(from)
        .arg(to.parent().unwrap())
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn expired_and_older_metadata_are_refused() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let timestamp = world.repo().join("metadata/timestamp.json");
    let old = fs::read(&timestamp).unwrap();
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();

    let now = fs::read(&timestamp).unwrap();
    pytheas_durable::replace(&timestamp, &old).unwrap();
    let lines = refused(&world, &device, &first.target);
    assert!(
        lines[0].contains("`metadata/timestamp.json` has version 1"),
        "{lines:?}"
    );
    pytheas_durable::replace(&timestamp, &now).unwrap();

    let validity = Validity {
        timestamp: jiff::SignedDuration::from_secs(1),
        ..Validity::default()
    };
    let options = Options {
        validity,
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let third = world.publish_with(&App::good("1.2.0"), &options);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let lines = refused(&world, &device, &third.target);
    assert!(
        lines[0].contains("`metadata/timestamp.json` expired at"),
        "{lines:?}"
    );
}

#[test]
fn a_deployment_without_a_release_is_answered() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let lines = refused(&world, &device, "firmware");
    assert_eq!(
        lines[0],
        "action has no Pytheas release in it (only: firmware)"
    );
}

/// A small file system that a test may fill.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _lazily = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_with_its_numbers_and_the_device_goes_on() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(world.path("disk"), "6M") else {
        testkit::skip("a full disk needs the right to mount a tmpfs");
        return;
    };
    let first = world.publish(&App::good("1.0.0"));
    let mut device = Device::new(&world, disk.0.join("state"));
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();

    // Too large for what is free: refused before a byte of content is fetched.
    let second = world.publish(&App::good("1.1.0").file("lib/big.bin", noise(1, 12_000_000)));
    let lines = refused(&world, &device, &second.target);
    assert!(
        lines[0].starts_with("no space for `app@1.1.0`: "),
        "{lines:?}"
    );
    assert!(lines[0].contains(" bytes are needed and "), "{lines:?}");

    // Filled by somebody else in the middle of a download that would have fitted.
    let third = world.publish(&App::good("1.2.0").file("lib/new.bin", noise(2, 2_000_000)));
    world.hub.talk().slow = std::time::Duration::from_millis(10);
    let action = world.hub.offer(&third.target);
    until("it downloads", || {
        (device.state_name() == "fetching").then_some(())
    });
    let hog = disk.0.join("hog");
    let _until_it_is_full = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "count=1000"])
        .arg(format!("of={}", hog.display()))
        .output();
    let lines = world.hub.failure(&action);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("No space left on device") || line.contains("no space for")),
        "{lines:?}"
    );
    device.runs("1.0.0");
    assert_eq!(device.current(), Some(first.tree));

    // Started without a byte of room: the app runs all the same, once.
    device.kill();
    fs::remove_file(device.state.join("data/running")).unwrap();
    let _what_was_free = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "count=10000"])
        .arg(format!("of={}.2", hog.display()))
        .output();
    assert!(pytheas_durable::replace(&disk.0.join("probe"), &[1; 9000]).is_err());
    device.start();
    until("the app runs", || device.status()["app"]["pid"].as_u64());
    fs::remove_file(disk.0.join("hog.2")).unwrap();

    // With room again, the next action works.
    fs::remove_file(hog).unwrap();
    world.hub.talk().slow = std::time::Duration::ZERO;
    device.is_idle();
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(third.tree));
    device.kill();
}

#[test]
fn on_a_disk_that_went_read_only_the_app_runs_on() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(world.path("disk"), "6M") else {
        testkit::skip("a read-only disk needs the right to mount a tmpfs");
        return;
    };
    let first = world.publish(&App::good("1.0.0"));
    let mut device = Device::new(&world, disk.0.clone());
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.stop();
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&disk.0)
        .status();
    assert!(remounted.unwrap().success());

    // An update cannot be begun there, however often it is offered; the app is not touched.
    device.start();
    let agent = device.child.as_ref().unwrap().id();
    let app = until("the app runs", || child_of(agent));
    let second = world.publish(&App::good("1.1.0"));
    world.hub.offer(&second.target);
    world.hub.polled(5);
    assert!(device.ended().is_none());
    assert_eq!(child_of(agent), Some(app));
    device.kill();
}

/// A process that one of the threads of `pid` has started.
fn child_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    })
}

use crate::support::noise;
