//! Updates on the Unix port: what is refused, what goes back, and what faults leave.

use std::fs;

use serde_json::json;

use crate::{
    image::{Key, app, image},
    node::Node,
};

/// A device that runs version 1.0 (counter 5), confirmed.
fn device(key: &Key) -> Option<Node> {
    let node = Node::new(key)?;
    assert!(node.update(&app(key, "1.0", 5, "")).contains("WRITTEN"));
    let ended = node.settle();
    assert!(ended.ran("1.0"), "{ended:?}");
    assert_eq!(node.status()["pending"], false);
    Some(node)
}

/// The device refuses this image, says so, and runs what it ran.
#[track_caller]
fn refuses(node: &Node, image: &[u8], why: &str) {
    let text = node.update(image);
    assert!(text.contains("REFUSED") && text.contains(why), "{text}");
    assert!(node.settle().ran("1.0"));
}

#[test]
fn a_signed_release_is_taken_and_stays_when_it_confirms_itself() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let text = node.update(&app(&key, "2.0", 6, ""));
    assert!(text.contains("WRITTEN"), "{text}");
    assert!(node.settle().ran("2.0"));
    let status = node.status();
    assert_eq!(status["counter"], 6);
    assert_eq!(
        status["report"],
        json!(["7", 1, "node 2.0: confirmed"]),
        "{status}"
    );
    assert!(node.settle().ran("2.0"));
}

#[test]
fn what_is_not_meant_for_this_device_is_refused_before_anything_is_erased() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    assert!(node.update(&app(&key, "2.0", 5, "")).contains("WRITTEN"));
    assert!(node.settle().ran("2.0"));
    assert!(node.update(&app(&key, "1.0", 5, "")).contains("WRITTEN"));
    assert!(node.settle().ran("1.0"));
    let other = fs::read(node.path("b.romfs")).unwrap();
    let main = [("main.py", "def run(): pass")];
    let with = |change| image(&key, &main, &change);

    refuses(
        &node,
        &app(&Key::new(2), "2.0", 6, ""),
        "signed by no key here",
    );
    refuses(
        &node,
        &app(&key, "2.0", 4, ""),
        "its counter is 4, here is 5",
    );
    let arch = json!({"counter": 6, "platform": "micropython-armv7m"});
    refuses(&node, &with(arch), "its platform is armv7m, here is x64");
    let model = json!({"counter": 6, "requires": {"boards": ["other"]}});
    refuses(&node, &with(model), "its model is ['other'], here is rig");
    let firmware = json!({"counter": 6, "requires": {"firmware": "f-1"}});
    refuses(&node, &with(firmware), "its firmware is f-1, here is None");
    let newer = json!({"counter": 6, "requires": {"micropython": "9.1"}});
    refuses(&node, &with(newer), "its micropython is 9.1");
    refuses(
        &node,
        &with(json!({"counter": 6, "mpy": 5})),
        "its .mpy is 5, here is 6",
    );
    // The same key id, another signature.
    let mut forged = app(&key, "2.0", 6, "");
    let at = forged.windows(2).position(|two| two == [0x73, 72]).unwrap();
    forged[at + 2 + 8 + 40] ^= 1;
    refuses(&node, &forged, "wrong signature");
    // A manifest that was changed after it was signed.
    let mut forged = app(&key, "2.0", 6, "");
    let at = forged.windows(3).position(|text| text == b"2.0").unwrap();
    forged[at] = b'3';
    refuses(&node, &forged, "wrong signature");
    // Files in the unsigned rest of the front.
    let mut smuggled = app(&key, "2.0", 6, "");
    let at = smuggled
        .windows(2)
        .position(|two| two == [0x73, 72])
        .unwrap()
        + 74;
    assert_eq!(smuggled[at], 1, "padding follows the signature");
    smuggled[at] = 5;
    refuses(&node, &smuggled, "no board image");
    refuses(&node, b"no image at all", "cut off");
    refuses(&node, &[0xd2; 20_000], "no board image");

    assert_eq!(fs::read(node.path("b.romfs")).unwrap(), other);
}

#[test]
fn an_image_whose_content_is_not_what_was_signed_never_starts() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let mut rotten = app(&key, "2.0", 6, "");
    *rotten.last_mut().unwrap() ^= 1;
    refuses(&node, &rotten, "its content was not signed");
    let whole = app(&key, "2.0", 6, "");
    let cut = node.update_cut(&whole, whole.len() - 1, "-");
    assert!(cut.text.contains("REFUSED cut off"), "{cut:?}");
    assert!(node.settle().ran("1.0"));
    assert!(node.update(&whole).contains("WRITTEN"));
    assert!(node.settle().ran("2.0"));
}

#[test]
fn an_interrupted_write_goes_on_where_it_was() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let new = app(&key, "2.0", 6, "");
    node.update_cut(&new, new.len() - 600, "-");
    let text = node.update(&new);
    let done: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("DONE "))
        .and_then(|done| done.parse().ok())
        .unwrap();
    assert!(done >= 8192, "{text}");
    assert!(text.contains("WRITTEN"));
    assert!(node.settle().ran("2.0"));
}

#[test]
fn of_an_image_that_was_not_finished_some_is_always_left_to_ask_for() {
    let Some(node) = Node::new(&Key::new(1)) else {
        return;
    };
    let code = "from pytheas import file; print('DONE', file.done(0, 8192), file.done(0, 9000))";
    for (size, done) in [(0, "0 0"), (8191, "4096 4096"), (8192, "4096 8192")] {
        node.put("a.romfs", vec![1; size]);
        let text = node.package_in_its_folder(code).text;
        assert!(text.contains(&format!("DONE {done}\n")), "{size}: {text}");
    }
}

#[test]
fn a_release_that_fails_goes_back_by_itself_and_says_why() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let bad = [
        (
            "an import error",
            "import nothing_like_this\ndef run(): pass",
        ),
        ("an exception", "def run():\n 1/0"),
        ("no confirmation", "def run(): pass"),
        ("an exit", "import sys\ndef run(): sys.exit(3)"),
        ("no such entry", "x = 1"),
        ("no Python", "def run(:"),
    ];
    for (what, source) in bad {
        let new = image(
            &key,
            &[("main.py", source)],
            &json!({"version": "2.0", "counter": 6}),
        );
        assert!(node.update(&new).contains("WRITTEN"), "{what}");
        for _ in 0..2 {
            let ended = node.start();
            assert_eq!(ended.code, Some(75), "{what}: {ended:?}");
        }
        assert!(node.settle().ran("1.0"), "{what}");
        let status = node.status();
        assert_eq!(
            status["report"],
            json!(["7", 0, "node 2.0: not confirmed in 2 starts"]),
            "{what}"
        );
        assert_eq!(status["counter"], 5, "{what}");
    }
    let last = fs::read_to_string(node.path("crash")).unwrap();
    assert!(last.contains("SyntaxError"), "{last}");
}

#[test]
fn a_release_that_hangs_is_ended_and_goes_back() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    node.put(
        "config.json",
        r#"{"id": "node", "poll": 1, "confirm": 1, "attempts": 1}"#,
    );
    let source = "def run():\n while True: pass";
    let new = image(&key, &[("main.py", source)], &json!({"counter": 6}));
    assert!(node.update(&new).contains("WRITTEN"));
    assert_eq!(node.start().code, None, "the alarm kills it");
    assert!(node.settle().ran("1.0"));
}

#[test]
fn a_confirmed_release_that_crashes_is_started_again_and_stays() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    assert!(node.update(&app(&key, "2.0", 6, "1/0")).contains("WRITTEN"));
    for _ in 0..4 {
        let ended = node.start();
        assert!(ended.ran("2.0") && ended.code == Some(75), "{ended:?}");
    }
    let last = fs::read_to_string(node.path("crash")).unwrap();
    assert!(last.contains("ZeroDivisionError"), "{last}");
}

#[test]
fn a_rotten_slot_is_not_started_and_the_other_one_is() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    assert!(node.update(&app(&key, "2.0", 6, "")).contains("WRITTEN"));
    assert!(node.settle().ran("2.0"));
    for name in ["b.romfs", "a.romfs"] {
        let mut bytes = fs::read(node.path(name)).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        node.put(name, bytes);
        let ended = node.settle();
        if name == "b.romfs" {
            assert!(ended.ran("1.0"), "{ended:?}");
        } else {
            // Nothing is left: the device stays reachable and can be updated.
            assert!(ended.text.contains("nothing to run"), "{ended:?}");
        }
    }
    assert!(node.update(&app(&key, "3.0", 7, "")).contains("WRITTEN"));
    assert!(node.settle().ran("3.0"));
}

#[test]
fn a_rotten_boot_record_loses_nothing() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    assert!(node.update(&app(&key, "2.0", 6, "")).contains("WRITTEN"));
    assert!(node.settle().ran("2.0"));
    for rotten in [&["boot0"][..], &["boot1"], &["boot0", "boot1"]] {
        let node = node.copy();
        for name in rotten {
            let mut bytes = fs::read(node.path(name)).unwrap();
            let at = bytes.len() / 3;
            bytes[at] ^= 4;
            node.put(name, bytes);
        }
        let ended = node.settle();
        assert!(ended.ran("2.0"), "{rotten:?} {ended:?}");
        assert_eq!(node.status()["counter"], 6, "{rotten:?}");
        assert!(node.update(&app(&key, "1.0", 5, "")).contains("REFUSED"));
    }
}

#[test]
fn a_release_brings_the_keys_of_the_next_ones_once_it_is_confirmed() {
    let (old, new) = (Key::new(1), Key::new(2));
    let Some(node) = device(&old) else { return };
    let keys: Vec<String> = vec![hex::encode(new.public())];
    let change = |version: &str, code: &str| {
        let main = format!("import pytheas\ndef run():\n print('RUN', '{version}')\n {code}\n");
        let change = json!({"version": version, "counter": 6, "keys": keys});
        image(&old, &[("main.py", &main)], &change)
    };
    // Not confirmed: the keys stay as they were.
    assert!(node.update(&change("1.5", "1/0")).contains("WRITTEN"));
    assert!(node.settle().ran("1.0"));
    refuses(&node, &app(&new, "3.0", 7, ""), "signed by no key here");
    assert!(
        node.update(&change("2.0", "pytheas.confirm()"))
            .contains("WRITTEN")
    );
    assert!(node.settle().ran("2.0"));
    let text = node.update(&app(&old, "3.0", 7, ""));
    assert!(text.contains("signed by no key here"), "{text}");
    assert!(node.update(&app(&new, "3.0", 7, "")).contains("WRITTEN"));
    assert!(node.settle().ran("3.0"));
}

#[test]
fn settings_come_from_the_release_and_from_the_device() {
    let key = Key::new(1);
    let Some(node) = Node::new(&key) else { return };
    node.put("config.json", r#"{"settings": {"b": "device"}}"#);
    let main = "import pytheas\ndef run():\n s = pytheas.settings\n print(s['a'], s['b'])\n pytheas.confirm()\n";
    let config = json!({"config": {"a": "release", "b": "release"}});
    assert!(
        node.update(&image(&key, &[("main.py", main)], &config))
            .contains("WRITTEN")
    );
    assert!(node.settle().text.contains("release device"));
}

/// Number of file-system calls of a run that counts them.
fn calls(text: &str) -> u32 {
    text.lines()
        .find_map(|line| line.strip_prefix("CALLS "))
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no count: {text}"))
}

#[test]
fn a_fault_at_any_call_of_the_file_system_leaves_a_whole_release() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let (new, next) = (app(&key, "2.0", 6, ""), app(&key, "3.0", 7, ""));
    let updates = calls(&node.copy().update_cut(&new, new.len(), "count").text);
    let written = node.copy();
    assert!(written.update(&new).contains("WRITTEN"));
    let starts = calls(&written.copy().start_with("count").text);
    // Power cuts, torn writes, ENOSPC, EIO.
    let all: Vec<(bool, String)> = ["die", "tear", "28", "5"]
        .iter()
        .flat_map(|mode| {
            let fault = move |at| format!("{mode}:{at}");
            let update = (1..=updates).map(move |at| (false, fault(at)));
            update.chain((1..=starts).map(move |at| (true, fault(at))))
        })
        .collect();
    let check = |(starting, fault): &(bool, String)| {
        let node = if *starting { &written } else { &node }.copy();
        let hit = if *starting {
            node.start_with(fault)
        } else {
            node.update_cut(&new, new.len(), fault)
        };
        let at = format!("{fault}, starting: {starting}: {hit:?}");
        let after = node.settle();
        assert!(after.ran("1.0") || after.ran("2.0"), "{at}\n{after:?}");
        assert_eq!(node.status()["pending"], false, "{at}");
        let text = node.update(&next);
        assert!(text.contains("WRITTEN"), "{at}\n{text}");
        let after = node.settle();
        assert!(after.ran("3.0"), "{at}\n{after:?}");
    };
    let half = all.len() / 2;
    std::thread::scope(|scope| {
        for part in [&all[..half], &all[half..]] {
            scope.spawn(move || part.iter().for_each(check));
        }
    });
    let faults = all.len();
    testkit::faults(&format!(
        "{faults} faults at file-system calls of the Unix port ({updates} calls of an update, {starts} of a \
         start, four ways each): a whole release each time"
    ));
    assert!(updates > 40 && starts > 15, "calls are missed");
}
