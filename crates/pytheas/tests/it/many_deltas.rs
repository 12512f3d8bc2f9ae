//! Many devices that lack deltas at once, at a real hub: each delta is made once, all devices get
//! the same bytes, and the hub's memory and work stay bounded.

use std::{
    fs,
    sync::Barrier,
    time::{Duration, Instant},
};

use pytheas_release::Sha256;
use serde_json::{Value, json as object};

use crate::common::{GOOD, Hub, json, pytheas, script_tree, wait_for};

const DEVICES: usize = 50;

/// Publishes `versions` without deltas; their trees. In each a file of so many lines (65 bytes) is
/// cut out of the same sequence a little later.
fn trees(hub: &Hub, versions: u32, lines: u32) -> Vec<String> {
    let publish = |version: u32| {
        let dir = hub.home.join(format!("1.{version}"));
        script_tree(
            &dir,
            &format!("1.{version}"),
            &format!("{GOOD}# {version}\n"),
        );
        let lines = (0..lines).map(|n| Sha256::of(&(n + version * 50).to_le_bytes()).to_string());
        fs::write(
            dir.join("lib/table.txt"),
            lines.collect::<Vec<_>>().join("\n"),
        )
        .unwrap();
        let mut command = pytheas(&hub.home);
        command.arg("publish").arg(&dir).args(["--deltas", "0"]);
        command
            .arg("--repo")
            .arg(&hub.repo)
            .arg("--keys")
            .arg(&hub.keys);
        json(&mut command)["tree"].as_str().unwrap().to_owned()
    };
    (0..versions).map(publish).collect()
}

/// Devices that somebody made: ids and tokens.
fn devices(hub: &Hub) -> Vec<(String, String)> {
    let add = |number: usize| {
        let id = format!("gw-{number}");
        let answer = ureq::post(format!("{}/api/v1/devices", hub.url))
            .header("authorization", format!("Bearer {}", hub.token))
            .header("content-type", "application/json")
            .send(object!({"device_id": id}).to_string());
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        (id, value["token"].as_str().unwrap().to_owned())
    };
    (0..DEVICES).map(add).collect()
}

/// Status, whether it is to be asked again, and the body.
fn get(hub: &Hub, path: &str, device: &(String, String), from: usize) -> (u16, bool, Vec<u8>) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let mut answer = ureq::Agent::from(config.build())
        .get(format!("{}/repo/{path}", hub.url))
        .header("x-pytheas-device", &device.0)
        .header("authorization", format!("TargetToken {}", device.1))
        .header(
            "x-forwarded-for",
            format!("10.0.{}.{}", from / 200, from % 200 + 1),
        )
        .call()
        .unwrap();
    let again = answer.headers().contains_key("retry-after");
    let body = answer.body_mut().read_to_vec().unwrap();
    (answer.status().as_u16(), again, body)
}

/// All devices ask at the same moment.
fn together<T: Send>(devices: &[(String, String)], ask: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(devices.len());
    std::thread::scope(|scope| {
        let ask = |number| {
            let (barrier, ask) = (&barrier, &ask);
            scope.spawn(move || {
                barrier.wait();
                ask(number)
            })
        };
        let all: Vec<_> = (0..devices.len()).map(ask).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// How many deltas the hub says it has made.
fn made(hub: &Hub) -> usize {
    let log = fs::read_to_string(hub.home.join("hub.log")).unwrap();
    log.matches("made a delta of ").count()
}

/// A field of the hub's `/proc/PID/status`, in KiB.
fn memory_kib(hub: &Hub, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", hub.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn fifty_devices_that_lack_one_delta_make_the_hub_make_it_once() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(home.path(), &["--trusted-proxies", "127.0.0.1"], None);
    let trees = trees(&hub, 2, 20_000);
    let devices = devices(&hub);
    let pointer = format!("deltas/{}-{}.json", trees[0], trees[1]);
    let asked = together(&devices, |number| {
        get(&hub, &pointer, &devices[number], number)
    });
    for (status, again, _) in &asked {
        assert_eq!((*status, *again), (404, true), "it is being made");
    }
    let pointers = together(&devices, |number| {
        wait_for("the delta", Duration::from_secs(120), || {
            let (status, _, body) = get(&hub, &pointer, &devices[number], number);
            (status == 200).then_some(body)
        })
    });
    let blob: Value = serde_json::from_slice(&pointers[0]).unwrap();
    let sha256 = blob["sha256"].as_str().unwrap();
    let path = format!("blobs/{}/{sha256}", &sha256[..2]);
    let before_kib = memory_kib(&hub, "VmHWM");
    let blobs = together(&devices, |number| {
        get(&hub, &path, &devices[number], number).2
    });
    let peak_kib = memory_kib(&hub, "VmHWM");
    println!("{peak_kib} KiB at the peak, {before_kib} KiB before all fetched it");
    for (pointer, bytes) in pointers.iter().zip(&blobs) {
        assert_eq!(*pointer, pointers[0]);
        assert_eq!(Sha256::of(bytes).to_string(), sha256);
    }
    assert_eq!(made(&hub), 1);
    assert!(peak_kib < 300 << 10, "{peak_kib} KiB");
}

#[test]
fn fifty_devices_that_lack_different_deltas_are_served_one_after_the_other() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(home.path(), &["--trusted-proxies", "127.0.0.1"], None);
    let trees = trees(&hub, 8, 600);
    let devices = devices(&hub);
    let pairs: Vec<String> = (0..8 * 8)
        .filter(|n| n / 8 != n % 8)
        .take(DEVICES)
        .map(|n| format!("deltas/{}-{}.json", trees[n / 8], trees[n % 8]))
        .collect();
    let asked = together(&devices, |number| {
        get(&hub, &pairs[number], &devices[number], number)
    });
    let taken: Vec<usize> = (0..DEVICES).filter(|n| asked[*n].1).collect();
    assert!(
        asked
            .iter()
            .all(|(status, ..)| *status == 404 || *status == 200)
    );
    // 32 wait; meanwhile some are made already.
    assert!((32..DEVICES).contains(&taken.len()), "{}", taken.len());
    let begun = Instant::now();
    for number in &taken {
        wait_for("its delta", Duration::from_secs(300), || {
            (get(&hub, &pairs[*number], &devices[*number], *number).0 == 200).then_some(())
        });
    }
    let peak_kib = memory_kib(&hub, "VmHWM");
    println!(
        "{} made in {:?}, {peak_kib} KiB",
        taken.len(),
        begun.elapsed()
    );
    assert_eq!(made(&hub), taken.len());
    assert!(peak_kib < 300 << 10, "{peak_kib} KiB");
}
