//! Killed at every named point and at random moments: after each, the device runs the old or the
//! new release, whole, and the update still comes to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pytheas_repo::publish::Published;

use crate::support::{App, Device, World, alive, noise, until};

/// The points at which something on disk is half done.
const POINTS: &[&str] = &[
    "agent:save:before",
    "agent:save:after",
    "agent:effect:before",
    "agent:effect:after",
    "agent:fetch:object",
    "agent:stage:entry",
    "agent:verify:moving",
    "agent:verify:moved",
    "agent:switch:stopped",
    "agent:rollback:stopped",
    "agent:discard:moved",
    "agent:tidy:slot",
    "agent:app:spawned",
    "agent:report:before",
    "agent:report:after",
    "replace:before-rename",
    "replace:after-rename",
    "move-dir:before",
    "move-dir:after",
    "swap-symlink:before",
    "swap-symlink:after",
];

/// Passings of one point that are tried; those further on are the same files again.
const PASSINGS: u32 = 14;

#[track_caller]
fn invariant_the_device_is_whole(device: &Device, releases: &[&Published], when: &str) {
    let trees: Vec<_> = releases.iter().map(|release| release.tree).collect();
    let current = device.current();
    assert!(
        current.is_some_and(|current| trees.contains(&current)),
        "{when}: current is {current:?}, none of {trees:?}"
    );
}

/// Kills the agent at `point` while it goes from `first` to `next`; false when the point was not
/// passed so often.
fn cut_once(
    world: &World,
    device: &mut Device,
    (from, to): (&Published, &Published),
    point: &str,
    expected: Result<(), ()>,
) -> bool {
    device.kill();
    let action = world.hub.offer(&to.target);
    device.start_with(Some(point));
    let mut reached = false;
    until(&format!("{point}: dead or done"), || {
        reached = device.ended().is_some();
        (reached || world.hub.talk().offer.is_none()).then_some(())
    });
    if !reached {
        // Points after the report may come a moment later.
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(10));
            reached = reached || device.ended().is_some();
        }
    }
    invariant_the_device_is_whole(device, &[from, to], point);
    if reached {
        until(&format!("{point}: the app went with the agent"), || {
            device.app_pid().is_none_or(|pid| !alive(pid)).then_some(())
        });
        device.start();
    }
    assert_eq!(
        world.hub.closed(&action).map_err(|_| ()),
        expected,
        "{point}"
    );
    device.is_idle();
    let runs = if expected.is_ok() { to } else { from };
    device.runs(runs.reference.version.as_str());
    invariant_the_device_is_whole(device, &[runs], point);
    reached
}

#[test]
fn killed_at_every_point_of_an_update() {
    let world = World::new();
    // Round and round: by delta, by delta, then back by single contents, since nobody makes deltas
    // from a later release. Each time one slot is made and one removed.
    let releases = [
        world.publish(&App::good("1.0.0")),
        world.publish(&App::good("1.1.0").file("lib/more.bin", noise(3, 70_000))),
        world.publish(&App::good("1.2.0")),
    ];
    world.hub.talk().downgrade = true;
    let mut device = world.device_with("device", &releases[0]);
    let mut passed = BTreeSet::new();
    let mut at = 0;
    for point in POINTS {
        for passing in 1..=PASSINGS {
            let (from, to) = (&releases[at], &releases[(at + 1) % 3]);
            let name = format!("{point}:{passing}");
            let reached = cut_once(&world, &mut device, (from, to), &name, Ok(()));
            at = (at + 1) % 3;
            if !reached {
                break;
            }
            passed.insert(*point);
        }
    }
    let never: Vec<_> = POINTS
        .iter()
        .filter(|point| !passed.contains(**point))
        .collect();
    assert_eq!(
        never,
        [&"agent:rollback:stopped"],
        "points that an update passes"
    );
}

#[test]
fn killed_at_every_point_of_a_roll_back() {
    let world = World::new();
    let good = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &good);
    let bad = world.publish(&App::good("1.1.0").crashing("exit 1"));
    // With fewer passings than above: each takes the pauses between three starts.
    for (point, passings) in [
        ("agent:save:after", 11),
        ("agent:effect:after", 6),
        ("agent:rollback:stopped", 1),
        ("swap-symlink:before", 2),
        ("swap-symlink:after", 2),
        ("agent:app:spawned", 5),
        ("agent:discard:moved", 1),
        ("agent:report:before", 1),
    ] {
        for passing in 1..=passings {
            let name = format!("{point}:{passing}");
            let reached = cut_once(&world, &mut device, (&good, &bad), &name, Err(()));
            assert!(reached, "{name} is not passed");
        }
    }
}

#[test]
fn killed_at_random_moments() {
    let world = World::new();
    let releases: Vec<Published> = ["1.0.0", "1.1.0", "1.2.0"]
        .iter()
        .enumerate()
        .map(|(i, version)| {
            let more = noise(50 + i as u64, 100_000);
            world.publish(&App::good(version).file("lib/more.bin", more))
        })
        .collect();
    world.hub.talk().downgrade = true;
    let mut device = world.device_with("device", &releases[0]);
    world.hub.talk().slow = Duration::from_millis(8);
    let kills: u32 = std::env::var("PYTHEAS_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let mut seed = 42_u64;
    let mut at = 0;
    let mut during = BTreeMap::<String, u32>::new();
    let mut action = world.hub.offer(&releases[1].target);
    let whole: Vec<&Published> = releases.iter().collect();
    for kill in 0..kills {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((seed >> 33) % 300));
        device.kill();
        *during.entry(device.state_name()).or_default() += 1;
        invariant_the_device_is_whole(&device, &whole, &format!("kill {kill}"));
        device.start();
        if world.hub.talk().offer.is_none() {
            at = ended(&world, &action, at);
            action = world.hub.offer(&releases[(at + 1) % 3].target);
        }
    }
    at = ended(&world, &action, at);
    device.is_idle();
    device.runs(releases[at].reference.version.as_str());
    println!("killed {kills} times, in: {during:?}");
    assert!(during.len() >= 4, "{during:?}");
}

/// Which release runs after the update from release `at` to the next one.
#[track_caller]
fn ended(world: &World, action: &str, at: usize) -> usize {
    match world.hub.closed(action) {
        Ok(()) => (at + 1) % 3,
        Err(lines) => {
            // Three kills in its probation: nobody can know that it was not its fault.
            assert!(
                lines[0].contains("the device or its agent ended while"),
                "{lines:?}"
            );
            at
        }
    }
}
