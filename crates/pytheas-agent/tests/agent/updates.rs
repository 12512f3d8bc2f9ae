//! Whole updates: an agent as a real process against a hub that serves a published repository.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use crate::support::{App, World, alive, noise, signal, until};
use pytheas_release::Ready;
use pytheas_repo::publish::Options;

#[test]
fn a_first_install_and_an_update_by_delta() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(world.hub.codes(&action), [1, 2, 3, 4]);
    device.runs("1.0.0");
    assert_eq!(device.current(), Some(first.tree));

    let second = world.publish(&App::good("1.1.0"));
    assert_eq!(second.deltas.len(), 1);
    world.hub.talk().sent_bytes = 0;
    let packs = world.hub.asked("GET /repo/blobs/");
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
    // The delta alone: no tree document, no index, no pack.
    assert_eq!(world.hub.asked("GET /repo/blobs/") - packs, 1);
    let sent = world.hub.talk().sent_bytes;
    assert!(sent < 12_000, "{sent} bytes were sent");

    // Unchanged files are the same files; all are read-only.
    let slot = |tree: pytheas_release::TreeId| device.state.join("slots").join(tree.to_string());
    let shared = |tree| fs::metadata(slot(tree).join("lib/shared-3")).unwrap();
    assert_eq!(shared(first.tree).ino(), shared(second.tree).ino());
    assert_eq!(shared(second.tree).mode() & 0o7777, 0o444);
    assert_eq!(
        fs::metadata(slot(second.tree).join("bin/app"))
            .unwrap()
            .mode()
            & 0o7777,
        0o555
    );

    // Attributes say what runs; status too.
    let attributes = until("attributes after the update", || {
        let talk = world.hub.talk();
        let last = talk.attributes.last()?.clone();
        (last["data"]["pytheas.release"] == "app@1.1.0").then_some(last)
    });
    assert_eq!(attributes["mode"], "replace");
    assert_eq!(attributes["data"]["pytheas.tree"], second.tree.to_string());
    device.is_idle();
    let status = device.status();
    assert_eq!(status["release"], "app@1.1.0");
    assert_eq!(status["previous"], "app@1.0.0");
    assert_eq!(status["app"]["pid"], device.app_pid().unwrap());
    assert_eq!(status["accepted"], true);

    // A third one: the oldest slot goes, downloads are gone.
    let third = world.publish(&App::good("1.2.0"));
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let mut expected = [second.tree.to_string(), third.tree.to_string()];
    expected.sort();
    until("the oldest slot is removed", || {
        (device.slots() == expected).then_some(())
    });
    assert_eq!(
        fs::read_dir(device.state.join("downloads"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        fs::read_dir(device.state.join("staging")).unwrap().count(),
        0
    );
}

#[test]
fn without_a_delta_the_missing_contents_are_fetched() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let options = Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let second = world.publish_with(
        &App::good("1.1.0").file("lib/new.bin", noise(7, 90_000)),
        &options,
    );
    assert!(second.deltas.is_empty());
    world.hub.talk().sent_bytes = 0;
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
    // The changed module and the new file, not the 160 KB that are shared.
    let sent = world.hub.talk().sent_bytes;
    assert!((130_000..160_000).contains(&sent), "{sent} bytes were sent");
}

#[test]
fn thousands_of_missing_contents_come_in_a_handful_of_requests() {
    // Each version changes a third of the files, another third each time, and some more.
    let release = |version: u64| {
        let mut app = App::good(&format!("1.{version}.0"));
        for n in 0..2300_u64 {
            let since = (0..=version)
                .rev()
                .find(|v| (v + n) % 3 == 0 || n % (v + 7) == 0);
            let seed = n * 100 + since.unwrap_or(0);
            let len = 300 + (n as usize * 37) % 4000;
            app = app.file(&format!("lib/p{}/f{n}.py", n % 60), noise(seed, len));
        }
        app
    };
    let world = World::new();
    let options = Options {
        deltas: Some(0),
        level: 1,
        ..Options::at(jiff::Timestamp::now())
    };
    let all: Vec<_> = (0..3)
        .map(|version| world.publish_with(&release(version), &options))
        .collect();
    let device = world.device_with("device", &all[0]);
    let update = |to: &pytheas_repo::publish::Published| {
        world.hub.talk().requests.clear();
        let action = world.hub.offer(&to.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        assert_eq!(device.current(), Some(to.tree));
        device.is_idle();
        let requests = world.hub.talk().requests.clone();
        let of_repo = requests.iter().filter(|line| line.contains("/repo/"));
        let blobs = of_repo.clone().filter(|line| line.contains("/blobs/"));
        println!("{} files, {} requests", to.files, of_repo.clone().count());
        (blobs.count(), of_repo.count())
    };
    // Two versions at once: contents out of two packs, the tree's document and the index.
    let (blobs, all_requests) = update(&all[2]);
    assert!(all[1].new_objects + all[2].new_objects > 1500);
    assert!(blobs <= 2 + 8, "{blobs} requests for contents");
    // Metadata, the release document, and whether the hub has made a delta.
    assert!(all_requests <= 2 + 8 + 6, "{all_requests} requests");
}

#[test]
fn a_broken_download_goes_on_where_it_stopped_also_after_a_restart() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let mut big = App::good("1.1.0");
    for i in 0..10 {
        big = big.file(&format!("lib/new-{i}.bin"), noise(100 + i, 60_000));
    }
    let options = Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let second = world.publish_with(&big, &options);
    {
        let mut talk = world.hub.talk();
        talk.sent_bytes = 0;
        talk.slow = Duration::from_millis(5);
        talk.break_off = vec![150_000, 200_000, 300_000]; // taken from the end
    }
    let action = world.hub.offer(&second.target);
    until("a part has arrived", || {
        (world.hub.talk().sent_bytes > 250_000).then_some(())
    });
    device.kill();
    assert_eq!(device.current(), Some(first.tree));
    device.start();
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(second.tree));
    // 640 KB of content; what was cut off in the middle of an object is fetched again, no more.
    let sent = world.hub.talk().sent_bytes;
    assert!(
        (640_000..1_000_000).contains(&sent),
        "{sent} bytes were sent"
    );
}

#[test]
fn a_delta_goes_on_where_it_stopped() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0").file("lib/new.bin", noise(5, 300_000)));
    assert_eq!(second.deltas.len(), 1);
    {
        let mut talk = world.hub.talk();
        talk.sent_bytes = 0;
        talk.break_off = vec![100_000, 100_000];
    }
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(second.tree));
    let sent = world.hub.talk().sent_bytes;
    assert!((270_000..330_000).contains(&sent), "{sent} bytes were sent");
}

#[test]
fn bit_rot_in_the_running_slot_is_not_taken_over() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let slot = device.state.join("slots").join(first.tree.to_string());
    rot(&slot.join("lib/shared-5"));
    for deltas in [3, 0] {
        let version = format!("1.{}.0", 4 - deltas);
        let options = Options {
            deltas: Some(deltas),
            level: 3,
            ..Options::at(jiff::Timestamp::now())
        };
        let next = world.publish_with(&App::good(&version), &options);
        let action = world.hub.offer(&next.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        assert_eq!(
            device.current(),
            Some(next.tree),
            "every byte is right again"
        );
        device.is_idle();
        rot(&device
            .state
            .join("slots")
            .join(next.tree.to_string())
            .join("lib/shared-1"));
    }
}

/// Changes a byte of a read-only file in place, as a failing disk does.
fn rot(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, b"rot").unwrap();
    fs::set_permissions(path, mode).unwrap();
}

#[test]
fn the_same_tree_under_another_action_is_done_at_once() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let pid = device.app_pid();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.app_pid(), pid, "the app was not touched");
}

#[test]
fn an_update_can_be_cancelled_until_the_switch() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let big = App::good("1.1.0").file("lib/new.bin", noise(5, 2_000_000));
    let second = world.publish(&big);
    world.hub.talk().slow = Duration::from_millis(40); // five seconds for all
    let action = world.hub.offer(&second.target);
    until("it downloads", || {
        (device.state_name() == "fetching").then_some(())
    });
    let began = std::time::Instant::now();
    world.hub.cancel();
    until("the cancellation is acknowledged", || {
        let talk = world.hub.talk();
        talk.feedback
            .iter()
            .any(|(of, kind, body)| {
                *of == action && kind == "cancelAction" && body["status"]["execution"] == "closed"
            })
            .then_some(())
    });
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "the download was broken off"
    );
    device.is_idle();
    device.runs("1.0.0");
    world.hub.talk().slow = Duration::ZERO;

    // During probation it is too late.
    let health = App::good("1.2.0").script("sleep 1; exec sleep 100000");
    let third = world.publish(&App {
        health: pytheas_release::Health {
            ready: Ready::StayUp,
            deadline_ms: 20_000,
            stay_up_ms: 2_000,
        },
        ..health
    });
    let action = world.hub.offer(&third.target);
    until("it is on probation", || {
        (device.state_name() == "probation").then_some(())
    });
    world.hub.cancel();
    assert_eq!(world.hub.closed(&action), Ok(()));
    let talk = world.hub.talk();
    let rejected = talk.feedback.iter().any(|(of, kind, body)| {
        *of == action && kind == "cancelAction" && body["status"]["execution"] == "rejected"
    });
    assert!(rejected);
    drop(talk);
    device.runs("1.2.0");
}

#[test]
fn a_report_that_the_hub_missed_is_told_later_once_more() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    device.start();
    world.hub.talk().lose_answers = 1;
    let action = world.hub.offer(&first.target);
    device.runs("1.0.0");
    device.is_idle();
    let talk = world.hub.talk();
    let told = talk
        .feedback
        .iter()
        .filter(|(of, _, body)| *of == action && body["status"]["execution"] == "closed");
    assert_eq!(told.count(), 2);
}

#[test]
fn a_hub_that_is_away_delays_and_loses_nothing() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    for (i, state) in [
        "checking",
        "fetching",
        "staging",
        "verifying",
        "switching",
        "probation",
        "committed",
    ]
    .iter()
    .enumerate()
    {
        // Each time the agent is killed in the middle of that state and comes back without a hub.
        let version = format!("1.{}.0", i + 1);
        let next = world.publish(&App::good(&version));
        device.is_idle();
        device.kill();
        let action = world.hub.offer(&next.target);
        device.start_with(Some(&format!("agent:state:{state}")));
        until(&format!("it dies in {state}"), || device.ended());
        world.hub.talk().away = true;
        device.start();
        std::thread::sleep(Duration::from_millis(300));
        until("the app runs without a hub", || {
            device.app_pid().filter(|pid| alive(*pid))
        });
        if matches!(
            *state,
            "staging" | "verifying" | "switching" | "probation" | "committed"
        ) {
            // Everything is on the device: it needs nobody.
            device.runs(&version);
            until("it is committed", || {
                (device.state_name() == "idle").then_some(())
            });
        }
        world.hub.talk().away = false;
        assert_eq!(world.hub.closed(&action), Ok(()), "{state}");
        device.runs(&version);
        assert_eq!(device.current(), Some(next.tree));
    }
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.hub.talk().busy = Some(2);
    let polls = || world.hub.asked("controller/v1/dev1 ");
    until("an error", || {
        device.status()["last_error"]
            .as_str()
            .is_some_and(|e| e.contains("is busy (status 503)"))
            .then_some(())
    });
    let before = polls();
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(polls(), before, "it waits as long as it was told");
    world.hub.talk().busy = None;
    world.hub.polled(2);
}

#[test]
fn an_interval_of_minutes_can_be_cut_short_by_a_signal() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    device.args = Vec::new(); // five minutes, says the hub
    device.start();
    until("the first poll", || {
        (world.hub.talk().attributes.len() == 1).then_some(())
    });
    let action = world.hub.offer(&first.target);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.hub.codes(&action), [0; 0]);
    signal(
        device.child.as_ref().unwrap().id(),
        rustix::process::Signal::HUP,
    );
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.0.0");
}

#[test]
fn a_token_that_was_withdrawn_is_replaced_by_asking_again() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.hub.talk().token = "token-2".into();
    until("it asks again", || {
        (world.hub.talk().enrolments.len() == 2).then_some(())
    });
    {
        let talk = world.hub.talk();
        assert_eq!(talk.enrolments[0]["claim"], talk.enrolments[1]["claim"]);
    }
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
}
