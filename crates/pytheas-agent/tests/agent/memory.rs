//! What an agent needs: memory while it updates and while it rests, bytes over the wire.
//!
//! `PYTHEAS_AGENT_BIN=target/agent/pytheas-agent` measures another build of it.

use std::fs;

use pytheas_repo::publish::Options;

use crate::support::{App, Device, World, noise};

/// Goal on the device for all that the agent shipped has in memory, in KiB: 32 MB.
const MOST_KIB: u64 = 32_000_000 >> 10;

/// What of it the shipped program itself may be, in KiB: `cargo xtask size` holds it to 6 MB.
const PROGRAM_KIB: u64 = 6_000_000 >> 10;

/// A field of `/proc/PID/status` of the agent, in KiB.
fn memory_kib(device: &Device, field: &str) -> u64 {
    let pid = device.child.as_ref().unwrap().id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// About what a bundle with its interpreter is: 2000 files, 50 MB.
fn bundle(version: &str) -> App {
    let mut app = App::good(version);
    for i in 0..2000_u64 {
        let text = "def f(x):\n    return x + 1\n".repeat(20 + (i as usize * 37) % 600);
        app = app.file(
            &format!("lib/python3.11/m{}/f{i}.py", i % 90),
            format!("# {i}\n{text}").into(),
        );
    }
    let mut interpreter = noise(1, 12_000_000);
    interpreter.extend(format!("interpreter of {version}").bytes());
    app.file("bin/python", interpreter)
        .file("lib/libbig.so", noise(2, 20_000_000))
}

#[test]
fn updating_a_large_release_takes_little_memory() {
    let world = World::new();
    let first = world.publish(&bundle("1.0.0"));
    let mut device = world.device_with("device", &first);
    let after_install = memory_kib(&device, "VmHWM");

    let began = std::time::Instant::now();
    let second = world.publish(&bundle("1.1.0").file("lib/python3.11/new.py", noise(3, 40_000)));
    let published_ms = began.elapsed().as_millis();
    assert_eq!(second.deltas.len(), 1);
    world.hub.talk().sent_bytes = 0;
    let began = std::time::Instant::now();
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let update_ms = began.elapsed().as_millis();
    let (after_delta, sent) = (memory_kib(&device, "VmHWM"), world.hub.talk().sent_bytes);

    let options = Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    let third = world.publish_with(&bundle("1.2.0"), &options);
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    let peak = memory_kib(&device, "VmHWM");
    world.hub.polled(3);
    let idle = memory_kib(&device, "VmRSS");
    let anonymous = memory_kib(&device, "RssAnon");
    // A debug build's program is three times as large as the shipped one, and how much of it is in
    // memory is the machine's choice: it counts as the one that is shipped.
    let program = memory_kib(&device, "RssFile");
    device.kill();
    device.start();
    world.hub.polled(3);
    let fresh = memory_kib(&device, "VmRSS");
    println!(
        "{} files, {} bytes: peak {after_install} KiB after the install, {after_delta} KiB after \
         a delta of {sent} bytes in {update_ms} ms (published in {published_ms} ms), {peak} KiB \
         after an update by contents; at rest {idle} KiB, {anonymous} KiB of it its own; {fresh} KiB after a restart",
        first.files, first.size_bytes
    );
    assert!(
        peak - program + PROGRAM_KIB <= MOST_KIB,
        "{peak} KiB, of them {program} of the program"
    );
}
