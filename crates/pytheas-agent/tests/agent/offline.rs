//! Updates from a file, by real agents: with and without a hub, and files that must be refused.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use pytheas_release::Sha256;
use pytheas_repo::{
    export::{Exported, Selection, export},
    offline::{END_BYTES, OfflineFile, SUMS, header, padding},
    publish::Options,
    store::Store,
};
use serde_json::Value;

use crate::support::{App, Device, World, until};

fn exported(world: &World, name: &str, selection: &Selection) -> (PathBuf, Exported) {
    let path = world.path(name);
    let store = Store::folder(&world.repo()).unwrap();
    let now = jiff::Timestamp::now();
    let made = world.block_on(export(&store, None, selection, &path, now, |_, _| {}));
    (path, made.unwrap())
}

fn all(world: &World, name: &str) -> PathBuf {
    exported(world, name, &Selection::default()).0
}

/// `apply`: exit code, stdout, stderr.
fn apply(device: &Device, args: &[&str]) -> (i32, String, String) {
    let output = device.output("apply", args);
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[track_caller]
fn applied(device: &Device, args: &[&str]) -> String {
    let (code, out, err) = apply(device, args);
    assert_eq!(code, 0, "{out}{err}");
    out
}

/// Applying fails with this exit code; the errors, and nothing has changed.
#[track_caller]
fn refused(device: &Device, args: &[&str], code: i32) -> String {
    let (pid, current) = (device.app_pid(), device.current());
    let (found, out, err) = apply(device, args);
    assert_eq!(found, code, "{out}{err}");
    assert_eq!(
        device.app_pid(),
        pid,
        "the running app was not touched: {err}"
    );
    assert_eq!(device.current(), current);
    let told = err.find("error: ").expect("it says why");
    err[told..].to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A device that knows no hub, without a running agent.
fn lonely(world: &World) -> Device {
    world.device("lonely")
}

/// An agent that was told of no hub.
fn start_without_hub(device: &mut Device) {
    let mut command = device.command("run");
    command.stdout(Stdio::null()).stderr(
        File::options()
            .create(true)
            .append(true)
            .open(device.state.with_extension("log"))
            .unwrap(),
    );
    device.child = Some(command.spawn().unwrap());
}

#[test]
fn apps_that_need_each_other_come_from_one_file_together() {
    let world = World::new();
    let broker = |version| App::good(version).named("broker");
    let old = (App::good("1.0.0"), broker("1.0.0"));
    let new = (
        App::good("2.0.0").requires("broker", ">=2"),
        broker("2.0.0").requires("app", ">=2"),
    );
    for app in [&old.0, &old.1, &new.0, &new.1] {
        world.publish(app);
    }
    let releases = ["1.0.0", "2.0.0"]
        .map(|version| ["app", "broker"].map(|name| format!("--release={name}@{version}")));
    let [[app_1, broker_1], [app_2, broker_2]] = &releases;
    let every = Selection {
        releases: [app_1, broker_1, app_2, broker_2]
            .map(|arg| {
                let release: pytheas_release::ReleaseRef =
                    arg["--release=".len()..].parse().unwrap();
                (release.name, Some(release.version))
            })
            .to_vec(),
        ..Selection::default()
    };
    let (stick, _) = exported(&world, "all.pytheas", &every);
    let (stick, root, device) = (text(&stick), world.root_file(), lonely(&world));
    let out = applied(&device, &[stick, app_1, broker_1, "--root", text(&root)]);
    assert!(
        out.ends_with("`app@1.0.0`, `broker@1.0.0` runs and is committed\n"),
        "{out}"
    );
    // Neither can go alone.
    for alone in [app_2, broker_2] {
        let (code, _, err) = apply(&device, &[stick, alone]);
        assert_eq!(code, 4, "{err}");
        assert!(err.contains("requires"), "{err}");
    }
    let out = applied(&device, &[stick, app_2, broker_2, app_2, "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["release"], "app@2.0.0, broker@2.0.0", "{said}");
    let machine = device.machine();
    assert_eq!(machine["current"]["release"], "app@2.0.0");
    assert_eq!(
        machine["components"]["broker"]["current"]["release"],
        "broker@2.0.0"
    );
    let two_of_one = [stick, app_1, app_2];
    let (code, _, err) = apply(&device, &two_of_one);
    assert_eq!(code, 4, "{err}");
}

#[test]
fn a_device_that_was_never_online_is_installed_and_updated_from_files() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let stick = all(&world, "first.pytheas");
    let root = world.root_file();
    let mut device = lonely(&world);

    let (code, _, err) = apply(&device, &[text(&stick)]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("has no root of trust yet"), "{err}");

    let out = applied(
        &device,
        &[text(&stick), "--root", text(&root), "--id", "dev1"],
    );
    assert!(out.contains("`app@1.0.0` runs and is committed"), "{out}");
    assert_eq!(device.current(), Some(first.tree));
    assert_eq!(device.status()["device_id"], "dev1");
    assert!(
        device
            .app_pid()
            .is_none_or(|pid| !crate::support::alive(pid))
    );

    start_without_hub(&mut device);
    device.runs("1.0.0");
    until("status shows its process, though no hub is polled", || {
        device.status()["app"]["pid"].as_u64()
    });

    // With the agent at work; once more is harmless.
    let second = world.publish(&App::good("1.1.0"));
    let stick = all(&world, "second.pytheas");
    let out = applied(&device, &[text(&stick), "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["outcome"], "committed", "{shown}");
    assert_eq!(shown["release"], "app@1.1.0");
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
    applied(&device, &[text(&stick)]);
    assert_eq!(device.current(), Some(second.tree));

    // Given a hub later, it tells it what runs and goes on over the network.
    device.stop();
    device.child = None;
    device.start();
    until("the hub is told what runs", || {
        let talk = world.hub.talk();
        let data = &talk.attributes.last()?["data"];
        (data["pytheas.release"] == "app@1.1.0").then_some(())
    });
    let third = world.publish(&App::good("1.2.0"));
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.2.0");
}

/// The files of an offline file, to be written again with something changed.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = OfflineFile::open(path).unwrap();
    let parts = file.members().iter().map(|member| {
        let from = member.offset as usize;
        let content = bytes[from..from + member.size_bytes as usize].to_vec();
        (member.path.clone(), content)
    });
    parts.collect()
}

/// Writes them with right check sums: what someone does who wants to be believed.
fn forge(path: &Path, mut members: Vec<(String, Vec<u8>)>) {
    members.retain(|(path, _)| path != SUMS);
    let sums: String = members
        .iter()
        .map(|(path, content)| format!("{}  {path}\n", Sha256::of(content)))
        .collect();
    members.push((SUMS.into(), sums.into_bytes()));
    let mut bytes = Vec::new();
    for (path, content) in members {
        bytes.extend(header(&path, content.len() as u64).unwrap());
        bytes.extend(&content);
        bytes.resize(bytes.len() + padding(content.len() as u64) as usize, 0);
    }
    bytes.resize(bytes.len() + END_BYTES as usize, 0);
    pytheas_durable::replace(path, &bytes).unwrap();
}

#[test]
fn files_that_are_not_whole_or_not_for_this_device_are_refused_by_name() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.publish(&App::good("1.1.0"));
    let mut other = App::good("1.1.0");
    other.platform = "linux-armv7".parse().unwrap();
    world.publish(&other);
    let arm = Selection {
        platforms: vec![other.platform.clone()],
        ..Selection::default()
    };
    let (arm, _) = exported(&world, "arm.pytheas", &arm);
    let err = refused(&device, &[text(&arm)], 4);
    assert!(err.contains("has no release for `"), "{err}");
    assert!(
        err.contains("it has `app@1.1.0` for `linux-armv7`"),
        "{err}"
    );

    let version = |version: &str| ("app".parse().unwrap(), Some(version.parse().unwrap()));
    let both = Selection {
        releases: vec![version("1.0.0"), version("1.1.0")],
        ..Selection::default()
    };
    let (both, _) = exported(&world, "both.pytheas", &both);
    let err = refused(&device, &[text(&both)], 1);
    assert!(
        err.contains("several releases for this device: `app@1.0.0`, `app@1.1.0`"),
        "{err}"
    );
    applied(&device, &[text(&both), "--release", "app@1.0.0"]);

    let stick = all(&world, "stick.pytheas");
    let good = fs::read(&stick).unwrap();
    let damaged = world.path("damaged.pytheas");
    let bad = |bytes: &[u8]| pytheas_durable::replace(&damaged, bytes).unwrap();
    for len in [
        0,
        100,
        512,
        5000,
        good.len() / 2,
        good.len() - 600,
        good.len() - 1,
    ] {
        bad(&good[..len]);
        let err = refused(&device, &[text(&damaged)], 4);
        assert!(err.contains("damaged.pytheas`"), "{err}");
        assert!(
            err.contains("cut short") || err.contains("it has only"),
            "{err}"
        );
    }
    for part in 0..40 {
        let mut bytes = good.clone();
        bytes[part * good.len() / 40] ^= 1;
        bad(&bytes);
        let err = refused(&device, &[text(&damaged)], 4);
        assert!(err.contains("damaged.pytheas`"), "{err}");
    }
    bad(&[&good[..], b"more"].concat());
    refused(&device, &[text(&damaged)], 4);
    bad(&vec![b'x'; 20_000]);
    let err = refused(&device, &[text(&damaged)], 4);
    assert!(
        err.contains("is not a file that `pytheas export` made"),
        "{err}"
    );

    let err = refused(&device, &["/no/such/stick"], 3);
    assert!(err.contains("cannot open `/no/such/stick`"), "{err}");
    let err = refused(&device, &[text(&world.repo())], 4);
    assert!(err.contains("it is no file"), "{err}");
    let err = refused(&device, &[text(&stick), "--release", "app@9.9.9"], 4);
    assert!(err.contains("has no release `app@9.9.9` for `"), "{err}");

    // And the good one is taken after all that.
    applied(&device, &[text(&stick)]);
    device.runs("1.1.0");
}

#[test]
fn forgeries_with_right_check_sums_are_refused_by_the_same_client_as_online() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let stick = all(&world, "stick.pytheas");
    let forged = world.path("forged.pytheas");
    let parts = members(&stick);
    let with = |find: &dyn Fn(&str) -> bool, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = parts.clone();
        let found = parts.iter_mut().filter(|(path, _)| find(path));
        assert_ne!(found.map(|(_, content)| change(content)).count(), 0);
        forge(&forged, parts);
    };
    let flip = |content: &mut Vec<u8>| {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    };
    with(&|path| path.ends_with("release.json"), &flip);
    let err = refused(&device, &[text(&forged)], 4);
    assert!(
        err.contains("release.json` is not what was signed"),
        "{err}"
    );

    with(&|path| path == "metadata/timestamp.json", &|content| {
        let text = String::from_utf8(content.clone()).unwrap();
        *content = text
            .replace("\"expires\": \"20", "\"expires\": \"21")
            .into_bytes();
    });
    let err = refused(&device, &[text(&forged)], 4);
    assert!(
        err.contains("`metadata/timestamp.json` has 0 valid signatures"),
        "{err}"
    );

    with(&|path| path.starts_with("blobs/"), &flip);
    let err = refused(&device, &[text(&forged)], 4);
    assert!(
        err.contains("not what was signed") || err.contains("blobs/"),
        "{err}"
    );

    // A name that is only in the table of contents.
    let mut parts = members(&stick);
    let contents = String::from_utf8(parts[0].1.clone()).unwrap();
    parts[0].1 = contents.replace("1.1.0", "6.6.6").into_bytes();
    forge(&forged, parts.clone());
    let err = refused(&device, &[text(&forged)], 4);
    assert!(err.contains("no release `app/6.6.6/"), "{err}");
    parts[0].1 = b"[]".to_vec();
    forge(&forged, parts);
    let err = refused(&device, &[text(&forged)], 4);
    assert!(err.contains("is damaged at `export.json`"), "{err}");

    // A repository of someone else.
    let stranger = World::new();
    stranger.publish(&App::good("1.1.0"));
    let err = refused(&device, &[text(&all(&stranger, "theirs.pytheas"))], 4);
    assert!(err.contains("unknown key"), "{err}");
    let theirs = stranger.root_file();
    let err = refused(&device, &[text(&stick), "--root", text(&theirs)], 4);
    assert!(err.contains("is the root of another repository"), "{err}");

    // What the hub has shown since makes an older file a replay.
    let third = world.publish(&App::good("1.2.0"));
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let err = refused(&device, &[text(&stick)], 4);
    assert!(err.contains("older than version"), "{err}");
    assert_eq!(second.reference.version.as_str(), "1.1.0");
}

#[test]
fn a_file_that_waited_too_long_names_its_date_and_the_way_out() {
    let world = World::new();
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
    let options = Options {
        level: 3,
        ..Options::at(past)
    };
    world.publish_with(&App::good("1.0.0"), &options);
    let stick = world.path("old.pytheas");
    let store = Store::folder(&world.repo()).unwrap();
    let selection = Selection::default();
    let made = export(&store, None, &selection, &stick, past, |_, _| {});
    let expires = world.block_on(made).unwrap().expires;
    let device = lonely(&world);
    let root = world.root_file();
    let err = refused(&device, &[text(&stick), "--root", text(&root)], 4);
    assert!(err.contains(&format!("expired at {expires}")), "{err}");
    assert!(err.contains("run `pytheas export` again"), "{err}");
    // Nor is a file made of what is too old already.
    let now = jiff::Timestamp::now();
    let late = export(&store, None, &selection, &stick, now, |_, _| {});
    let error = world.block_on(late).unwrap_err().to_string();
    assert!(error.contains("expired at"), "{error}");
}

#[test]
fn a_root_file_that_is_none_is_named() {
    let world = World::new();
    world.publish(&App::good("1.0.0"));
    let stick = all(&world, "stick");
    let device = lonely(&world);
    let said = refused(&device, &[text(&stick), "--root", text(&stick)], 4);
    assert!(
        said.contains("is no root metadata that a device can trust"),
        "{said}"
    );
    assert!(said.contains("metadata/1.root.json"), "{said}");
}

#[test]
fn a_release_from_a_file_that_does_not_start_is_rolled_back() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.publish(&App::good("1.1.0").crashing("exit 7"));
    let (code, out, err) = apply(&device, &[text(&all(&world, "bad.pytheas"))]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(
        err.contains("`app@1.1.0` was not installed: `app@1.1.0` ended: exit status 7"),
        "{err}"
    );
    device.runs("1.0.0");
    assert_eq!(device.current(), Some(first.tree));
}

#[test]
fn a_stick_pulled_out_ends_the_update_and_an_agent_killed_goes_on_with_it() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let stick = all(&world, "stick.pytheas");
    let outcome = |device: &Device| -> Option<Value> {
        let bytes = fs::read(device.state.join("offline.json")).ok()?;
        let order: Value = serde_json::from_slice(&bytes).ok()?;
        Some(order["outcome"].clone()).filter(|outcome| !outcome.is_null())
    };
    // Gone between the look at it and the update: as if `apply` had asked for it.
    let gone = world.path("gone.pytheas");
    let order = serde_json::json!({"format": 1, "wanted": {"apply":
        {"format": 1, "id": "x", "file": gone, "target": second.target}}});
    let request = device.state.join("request.json");
    pytheas_durable::replace(&request, order.to_string().as_bytes()).unwrap();
    let pid = device.child.as_ref().unwrap().id();
    crate::support::signal(pid, rustix::process::Signal::USR1);
    let ended = until("it has ended", || outcome(&device));
    assert_eq!(ended["outcome"], "failed", "{ended}");
    assert!(
        ended["message"].as_str().unwrap().contains("cannot open `"),
        "{ended}"
    );
    device.runs("1.0.0");

    // Cut short behind the first half of its content.
    let bytes = fs::read(&stick).unwrap();
    let cut = OfflineFile::open(&stick).unwrap();
    pytheas_durable::replace(&gone, &bytes).unwrap();
    drop(cut);
    device.stop();
    device.child = None;
    for point in [
        "agent:state:checking",
        "agent:state:fetching",
        "agent:state:staging",
    ] {
        device.start_with(Some(point));
        until("it runs", || device.status()["agent_pid"].as_u64());
        let (code, _, err) = apply(&device, &[text(&gone)]);
        if point == "agent:state:checking" {
            assert_eq!(code, 3, "{err}");
            assert!(
                err.contains("the agent ended before the update did"),
                "{err}"
            );
        }
        until("the agent was killed", || device.ended());
    }
    // Only half of it is there when the power comes back: nothing but what was fetched is used.
    device.start();
    let ended = until("it has ended", || outcome(&device));
    assert_eq!(ended["outcome"], "committed", "{ended}");
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
}
