//! Deltas that the hub makes because a device asks: for whom, for which trees, and how long they
//! are kept.

use std::{fs, path::PathBuf, sync::atomic::Ordering, time::Duration};

use pytheas_release::{BlobRef, Sha256, TreeId};
use pytheas_repo::{layout, on_demand::Keep};

use crate::{wire::Reply, world::World};

/// Three releases; publishing has made deltas to each from all before it. Their trees.
fn three(world: &World) -> [TreeId; 3] {
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.publish(version);
    }
    let releases = world.get("/api/v1/releases").expect(200).json();
    [0, 1, 2].map(|number: usize| releases[number]["tree"].as_str().unwrap().parse().unwrap())
}

fn path(from: TreeId, to: TreeId) -> String {
    format!("/repo/{}", layout::offered_delta(from, to))
}

fn ask(world: &World, token: &str, from: TreeId, to: TreeId) -> Reply {
    world
        .call("GET", &path(from, to))
        .header("x-pytheas-device", "gw")
        .header("authorization", &format!("TargetToken {token}"))
        .send()
}

fn header(reply: &Reply, name: &str) -> Option<String> {
    let found = reply.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone())
}

fn repo(world: &World) -> PathBuf {
    world.dir.path().join("data/repo")
}

/// Waits until the delta is offered.
fn made(world: &World, from: TreeId, to: TreeId) -> BlobRef {
    for _ in 0..1200 {
        let reply = world.call("GET", &path(from, to)).send();
        if reply.status == 200 {
            return serde_json::from_slice(&reply.body).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the hub made no delta");
}

#[test]
fn a_device_that_asks_makes_the_hub_make_a_delta() {
    let world = World::new();
    let [first, _, third] = three(&world);
    let device = world.device("gw");
    // Back to the first one: publishing makes no such delta.
    let reply = ask(&world, &device.token, third, first);
    assert_eq!(reply.status, 404);
    assert_eq!(header(&reply, "retry-after").as_deref(), Some("60"));
    let blob = made(&world, third, first);
    let reply = ask(&world, &device.token, third, first).expect(200);
    assert_eq!(header(&reply, "cache-control").as_deref(), Some("no-cache"));
    let reply = world
        .call("GET", &format!("/repo/{}", layout::blob(&blob.sha256)))
        .send()
        .expect(200);
    assert_eq!(Sha256::of(&reply.body), blob.sha256);
    assert_eq!(reply.body.len() as u64, blob.size_bytes);
    let scratch = fs::read_dir(world.dir.path().join("data/incoming")).unwrap();
    assert_eq!(scratch.count(), 0, "nothing is left of the work");
}

#[test]
fn nobody_else_and_nothing_else_makes_the_hub_work() {
    let world = World::new();
    let [first, second, third] = three(&world);
    let device = world.device("gw");
    let nothing = |reply: Reply| {
        assert_eq!(reply.status, 404);
        assert_eq!(header(&reply, "retry-after"), None);
    };
    let strange = TreeId(Sha256::of(b"strange"));
    nothing(world.call("GET", &path(third, first)).send());
    nothing(ask(&world, "wrong", third, first));
    nothing(ask(&world, &device.token, strange, first));
    nothing(ask(&world, &device.token, first, strange));
    nothing(ask(&world, &device.token, first, first));
    // These are signed already.
    nothing(ask(&world, &device.token, first, second));
    nothing(ask(&world, &device.token, second, third));
    // A gateway's token makes no device here.
    let reply = world
        .call("GET", &path(third, first))
        .header("x-pytheas-device", "made-up")
        .header("authorization", "GatewayToken x")
        .send();
    nothing(reply);
    let devices = world.get("/api/v1/devices").expect(200).json();
    assert!(!devices.to_string().contains("made-up"), "{devices}");
    // Nor does a publisher put one there.
    let publisher = world.token("publisher");
    let reply = world
        .call("PUT", &path(third, first))
        .bearer(&publisher)
        .body("{}")
        .send();
    assert_eq!(reply.status, 400);
    assert!(!repo(&world).join("deltas").exists());
}

#[test]
fn a_hub_without_room_for_deltas_makes_none() {
    let world = World::with(|config| config.made_deltas = None);
    let [first, _, third] = three(&world);
    let device = world.device("gw");
    let reply = ask(&world, &device.token, third, first);
    assert_eq!(reply.status, 404);
    assert_eq!(header(&reply, "retry-after"), None);
}

#[test]
fn a_made_delta_outlives_a_restart_and_goes_when_nobody_asks_for_it() {
    let mut world = World::with(|config| {
        config.made_deltas = Some(Keep {
            size_bytes: 1_000_000,
            unused: jiff::SignedDuration::from_hours(24),
        });
    });
    // Files have the system's times.
    let now_ms = jiff::Timestamp::now().as_millisecond();
    world.clock.store(now_ms, Ordering::Relaxed);
    let [first, _, third] = three(&world);
    let token = world.device("gw").token.clone();
    ask(&world, &token, third, first);
    let blob = made(&world, third, first);
    world.restart();
    assert_eq!(made(&world, third, first), blob);
    world.stop();
    let pointer = repo(&world).join(layout::offered_delta(third, first));
    let then = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    fs::File::options()
        .write(true)
        .open(&pointer)
        .unwrap()
        .set_modified(then)
        .unwrap();
    world.restart();
    // The job looks as soon as the hub runs.
    for _ in 0..1200 {
        if !pointer.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!pointer.exists());
    for _ in 0..200 {
        if !repo(&world).join(layout::blob(&blob.sha256)).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("its blob is left");
}
