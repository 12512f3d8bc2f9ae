//! The local control where things are wrong: damaged files, a full disk, an update under way, several
//! people at once. Every verb answers, with `--json` in JSON, and nothing is touched that works.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::support::{App, Device, World, until};

const VERBS: [&str; 5] = ["status", "history", "verify", "rollback", "logs"];

/// What a verb answers in JSON: exit code, values (several are one a line).
#[track_caller]
fn answer(output: &Output) -> (i32, Vec<Value>) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let values = serde_json::Deserializer::from_str(&text).into_iter();
    let values: Result<Vec<Value>, _> = values.collect();
    let values = values.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), values)
}

fn asked(device: &Device, verb: &str) -> (i32, Vec<Value>) {
    answer(&device.output(verb, &["--json"]))
}

/// A device on which 1.1.0 runs after 1.0.0.
fn updated(world: &World) -> Device {
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device
}

#[test]
fn every_verb_answers_in_json_whatever_file_is_damaged() {
    let world = World::new();
    let mut device = updated(&world);
    device.stop();
    let good = world.path("good");
    let copy = |from: &Path, to: &Path| {
        let done = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(done.unwrap().success());
    };
    copy(&device.state, &good);
    let files = [
        "state.json",
        "identity.json",
        "history.json",
        "status.json",
        "agent.toml",
        "tuf/root.json",
        "logs/app.log",
        "current",
    ];
    for file in files {
        for damage in ["gone", "noise", "folder"] {
            let path = device.state.join(file);
            pytheas_durable::remove_tree(&path).unwrap();
            match damage {
                "noise" => pytheas_durable::replace(&path, b"\xff{\"format\": 1, ").unwrap(),
                "folder" => fs::create_dir_all(path.join("in-it")).unwrap(),
                _ => {}
            }
            for verb in VERBS {
                let (code, values) = asked(&device, verb);
                let what = format!("{verb} with {damage} {file}: {code} {values:?}");
                assert!([0, 1, 3, 4].contains(&code), "{what}");
                let last = values.last();
                match code {
                    // A log may hold no line.
                    0 => assert!(last.is_some() || verb == "logs", "{what}"),
                    _ => {
                        let told = last.unwrap();
                        let why = [
                            &told["error"]["message"],
                            &told["state_error"],
                            &told["damage"],
                            &told["identity_error"],
                        ];
                        assert!(why.iter().any(|why| why.is_string()), "{what}");
                    }
                }
            }
            pytheas_durable::remove_tree(&device.state).unwrap();
            copy(&good, &device.state);
        }
    }
    // And with all of it in place again, the device works.
    device.start();
    device.runs("1.1.0");
}

#[test]
fn what_is_unknown_is_called_so_beside_what_is_known() {
    let world = World::new();
    let mut device = updated(&world);
    device.stop();
    pytheas_durable::replace(&device.state.join("state.json"), b"{").unwrap();
    let output = device.output("status", &["--json"]);
    let (code, values) = answer(&output);
    assert_eq!((code, values.len()), (4, 1));
    let status = &values[0];
    assert_eq!(
        (&status["device_id"], &status["state"]),
        (&"dev1".into(), &"unknown".into())
    );
    let why = status["state_error"].as_str().unwrap();
    assert!(
        why.contains("state.json") && why.contains("does not parse"),
        "{why}"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("start the agent: it sets the file aside"),
        "{said}"
    );

    for file in ["identity.json", "identity.copy"] {
        pytheas_durable::replace_private(&device.state.join(file), b"{").unwrap();
    }
    let (code, values) = asked(&device, "status");
    assert_eq!(code, 4);
    assert!(
        values[0]["identity_error"]
            .as_str()
            .unwrap()
            .contains("does not parse")
    );
}

#[test]
fn a_rollback_without_a_way_back_says_so_and_a_second_one_leads_forth_again() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    let (code, values) = asked(&device, "rollback");
    assert_eq!(
        (code, &values[0]["error"]["message"]),
        (1, &"there is nothing to go back to".into())
    );
    assert!(!device.state.exists(), "asking made nothing");
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert_eq!(
        asked(&device, "rollback").0,
        1,
        "the first release has none before it"
    );
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let (code, values) = asked(&device, "rollback");
    assert_eq!((code, &values[0]["to"]), (0, &"app@1.0.0".into()));
    device.runs("1.0.0");
    device.is_idle();
    // Two slots: the release before is now the one that was gone back from.
    let (code, values) = asked(&device, "rollback");
    assert_eq!((code, &values[0]["to"]), (0, &"app@1.1.0".into()));
    device.runs("1.1.0");
    device.is_idle();
}

#[test]
fn a_rollback_by_hand_without_an_agent_is_done_by_the_next_one_and_only_once() {
    let world = World::new();
    let mut device = updated(&world);
    device.stop();
    // Two people at once: one of them, or both, are told where it goes.
    let ask = || {
        let mut command = device.command("rollback");
        command.arg("--json").output().unwrap()
    };
    let both = std::thread::scope(|scope| {
        let one = scope.spawn(ask);
        [ask(), one.join().unwrap()]
    });
    let codes = both.each_ref().map(|output| answer(output).0);
    assert!(codes.contains(&0), "{both:?}");
    assert!(codes.iter().all(|code| [0, 3].contains(code)), "{both:?}");
    assert_eq!(device.state_name(), "verifying");
    let (code, values) = asked(&device, "rollback");
    assert_eq!(code, 3, "{values:?}");
    device.start();
    device.runs("1.0.0");
    device.is_idle();
}

#[test]
fn while_an_update_runs_everything_can_be_asked_and_nothing_undone() {
    let world = World::new();
    let device = updated(&world);
    let third =
        world.publish(&App::good("1.2.0").file("lib/big", crate::support::noise(5, 300_000)));
    world.hub.talk().slow = Duration::from_millis(150);
    let action = world.hub.offer(&third.target);
    until("it is fetched", || {
        (device.state_name() == "fetching").then_some(())
    });
    for verb in VERBS {
        let (code, values) = asked(&device, verb);
        let expected = if verb == "rollback" { 3 } else { 0 };
        assert_eq!(code, expected, "{verb} {values:?}");
        assert!(!values.is_empty(), "{verb}");
    }
    assert_eq!(asked(&device, "status").1[0]["updating_to"], "app@1.2.0");
    world.hub.talk().slow = Duration::ZERO;
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.2.0");
}

/// A small file system that a test may fill.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=4M", "tmpfs"])
            .arg(&path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }

    /// Not a byte is left.
    #[expect(clippy::disallowed_methods, reason = "it is to fail half way")]
    fn fill(&self) {
        let _until_it_is_full = fs::write(self.0.join("rest"), vec![1; 8 << 20]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _lazily = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_everything_can_be_asked_and_what_cannot_be_done_is_said() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(world.path("disk")) else {
        return testkit::skip("a full disk needs the right to mount a tmpfs");
    };
    let first = world.publish(&App::good("1.0.0"));
    let mut device = Device::new(&world, disk.0.join("state"));
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    for is_running in [true, false] {
        if !is_running {
            device.stop();
        }
        disk.fill();
        for verb in VERBS {
            let (code, values) = asked(&device, verb);
            let expected = if verb == "rollback" { 3 } else { 0 };
            assert_eq!(code, expected, "{verb} {values:?}");
            if verb == "rollback" {
                let told = &values[0]["error"];
                let why = told["because"][0].as_str().unwrap_or_default();
                assert!(why.contains("No space left"), "{told}");
            }
        }
        assert!(device.machine()["current"]["release"] == "app@1.1.0");
        fs::remove_file(disk.0.join("rest")).unwrap();
    }
    // With room again it is done.
    device.start();
    device.runs("1.1.0");
    assert_eq!(asked(&device, "rollback").0, 0);
    device.runs("1.0.0");
    device.is_idle();
}
