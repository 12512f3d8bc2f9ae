//! What must not turn a good release into a lost device: confirmations by others, a flash that stays
//! full, an app that takes all memory, and hubs that lie.

use std::fs;

use pytheas_release::Sha256;
use serde_json::json;

use crate::{
    hub::Hub,
    image::{Key, app, image},
    node::Node,
};

/// A device that runs 1.0 (counter 5), confirmed.
fn device(key: &Key) -> Option<Node> {
    let node = Node::new(key)?;
    assert!(node.update(&app(key, "1.0", 5, "")).contains("WRITTEN"));
    assert!(node.settle().ran("1.0"));
    Some(node)
}

/// Brings a release whose `run` is this code, at counter 6, and starts it once.
fn bring(node: &Node, key: &Key, code: &str, more: serde_json::Value) -> crate::node::Ended {
    let main = format!("import pytheas\ndef run():\n print('RUN', '2.0')\n {code}\n");
    let mut change = json!({"version": "2.0", "counter": 6});
    for (name, value) in more.as_object().expect("changes are an object") {
        change[name] = value.clone();
    }
    let text = node.update(&image(key, &[("main.py", &main)], &change));
    assert!(text.contains("WRITTEN"), "{text}");
    node.start()
}

#[test]
fn a_release_confirms_itself_and_not_the_one_that_was_written_meanwhile() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let bad = image(
        &key,
        &[("main.py", "def run(): 1/0")],
        &json!({"version": "3.0", "counter": 7}),
    );
    node.put("next", &bad);
    // An app that confirms itself after each measurement, and writes an update.
    let code = format!(
        "pytheas.confirm()\n from pytheas import hub\n \
         hub.start({}, '{}')\n \
         hub.write(open(pytheas.ROOT + 'next', 'rb').read())\n hub.finish()\n \
         print('AGAIN', pytheas.confirm())",
        bad.len(),
        Sha256::of(&bad)
    );
    let ended = bring(&node, &key, &code, json!({}));
    assert!(ended.text.contains("AGAIN None"), "{ended:?}");
    let status = node.status();
    assert_eq!(
        (&status["pending"], &status["counter"]),
        (&true.into(), &6.into()),
        "{status}"
    );
    for _ in 0..2 {
        assert_eq!(node.start().code, Some(75));
    }
    let ended = node.start();
    assert!(ended.ran("2.0"), "{ended:?}");
}

#[test]
fn a_confirmation_is_not_lost_to_somebody_who_saves_later() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let code = "pytheas.ready()\n pytheas.confirm()\n pytheas.save({9: None})";
    bring(&node, &key, code, json!({}));
    let status = node.status();
    assert_eq!(
        (&status["pending"], &status["counter"]),
        (&false.into(), &6.into()),
        "{status}"
    );
}

#[test]
fn a_flash_that_stays_full_keeps_no_good_release_from_its_start() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    bring(&node, &key, "pytheas.confirm()", json!({}));
    let mut bytes = fs::read(node.path("b.romfs")).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    node.put("b.romfs", bytes);
    // The other one runs, though that cannot be noted.
    let ended = node.start_with("full");
    assert!(ended.ran("1.0") && ended.code == Some(0), "{ended:?}");
    assert!(node.settle().ran("1.0"));
    assert!(node.update(&app(&key, "3.0", 7, "")).contains("WRITTEN"));
    let ended = node.start_with("full");
    assert!(ended.ran("1.0") && ended.code == Some(0), "{ended:?}");
    assert!(node.settle().ran("3.0"));
}

#[test]
fn what_runs_is_not_written_to_when_nothing_can_be_noted_of_the_other_slot() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    bring(&node, &key, "pytheas.confirm()", json!({}));
    let active = node.status()["active"].as_u64().unwrap();
    let slot = ["a.romfs", "b.romfs"][usize::try_from(active).unwrap()];
    let mut image = fs::read(node.path(slot)).unwrap();
    *image.last_mut().unwrap() ^= 1;
    node.put(slot, image);
    let code = "import pytheas\ndef save(w):\n raise OSError(28)\npytheas.ready()\n\
                pytheas.save = save\npytheas.pick()\nfrom pytheas import hub\n\
                hub.start(9999, 'x')\nprint('RUNS', pytheas.now, 'WRITES', hub.slot)";
    let text = node.package_in_its_folder(code).text;
    let wanted = format!("RUNS {} WRITES {active}\n", 1 - active);
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn keys_come_once_whatever_is_cut_and_those_set_over_the_cable_stay() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let second = Key::new(2).public();
    let keys = json!({"keys": [hex::encode(second)], "counter": 6});
    let main = "import pytheas\ndef run():\n print('RUN', '2.0')\n pytheas.confirm()\n";
    let new = image(&key, &[("main.py", main)], &keys);
    assert!(node.update(&new).contains("WRITTEN"));
    let text = node.copy().start_with("count").text;
    let calls = text.split("CALLS ").nth(1).unwrap().trim().parse().unwrap();
    for at in 1..=calls {
        let node = node.copy();
        node.start_with(&format!("die:{at}"));
        assert!(node.settle().ran("2.0"), "{at}");
        assert_eq!(fs::read(node.path("keys")).unwrap(), second, "{at}");
        assert_eq!(node.status()["keys"], json!(null), "{at}");
    }
    assert!(node.settle().ran("2.0"));
    node.put("keys", Key::new(3).public());
    assert!(node.settle().ran("2.0"));
    assert_eq!(fs::read(node.path("keys")).unwrap(), Key::new(3).public());
}

#[test]
fn what_was_taken_back_does_not_stay_when_the_boot_records_are_lost() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    bring(&node, &key, "1/0", json!({}));
    assert!(node.settle().ran("1.0"));
    for name in ["boot0", "boot1"] {
        fs::remove_file(node.path(name)).unwrap();
    }
    let ended = node.settle();
    assert!(ended.ran("1.0"), "{ended:?}");
    assert_eq!(node.status()["counter"], 6);
}

#[test]
fn keys_that_are_none_are_refused_before_anything_is_erased() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    for keys in [
        json!(["abc"]),
        json!(["zz".repeat(32)]),
        json!(["00".repeat(31)]),
    ] {
        let new = image(
            &key,
            &[("main.py", "")],
            &json!({"counter": 6, "keys": keys}),
        );
        let text = node.update(&new);
        assert!(text.contains("REFUSED no board image"), "{text}");
    }
}

#[test]
fn an_app_that_takes_all_memory_is_no_end_of_its_updates() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("", Vec::new());
    node.put("config.json", hub.config());
    let code = "pytheas.confirm()\n global kept\n kept = []\n while True: kept.append(bytearray(len(kept) % 64 + 1))";
    bring(&node, &key, code, json!({}));
    let before = hub.asked().len();
    let ended = node.start_in("320k");
    assert!(ended.ran("2.0") && ended.code == Some(75), "{ended:?}");
    let last = fs::read_to_string(node.path("crash")).unwrap_or_else(|_| panic!("{ended:?}"));
    assert!(last.contains("MemoryError"), "{last}");
    assert!(hub.asked().len() > before, "{ended:?}");
}

#[test]
fn a_callback_that_fails_keeps_no_board_from_its_update() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let next = app(&key, "3.0", 7, "");
    let hub = Hub::start("", next);
    node.put("config.json", hub.config());
    let code = "pytheas.confirm()\n pytheas.on_reset.append(lambda: 1/0)\n \
                try: pytheas.update()\n except Exception: print('STILL')";
    let ended = bring(&node, &key, code, json!({}));
    assert!(
        ended.code == Some(75) && !ended.text.contains("STILL"),
        "{ended:?}"
    );
    assert!(node.settle().ran("3.0"));
}

#[test]
fn what_a_hub_says_of_times_is_kept_within_reason() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    for (lie, wanted) in [
        ("sleep -9:00:00", 1),
        ("sleep 99:99:99", 86400),
        ("sleep x", 7),
    ] {
        let hub = Hub::start(lie, Vec::new());
        node.put("config.json", hub.config());
        let ended = bring(
            &node,
            &key,
            "pytheas.confirm()\n print('NEXT', pytheas.update())",
            json!({}),
        );
        assert!(
            ended.text.contains(&format!("NEXT {wanted}\n")),
            "{lie}: {ended:?}"
        );
    }
}

#[test]
fn a_report_that_a_hub_does_not_take_stops_no_update() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("no feedback", Vec::new());
    node.put("config.json", hub.config());
    bring(
        &node,
        &key,
        "pytheas.confirm()\n pytheas.update()",
        json!({}),
    );
    let asked = hub.asked();
    assert!(
        asked.iter().any(|line| line.starts_with("POST")),
        "{asked:?}"
    );
    assert!(
        asked.iter().any(|line| line.starts_with("GET")),
        "{asked:?}"
    );
    assert_eq!(node.status()["report"], json!(null));
}

#[test]
fn whatever_a_hub_answers_the_app_goes_on_and_asks_again() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let code = "pytheas.confirm()\n print('NEXT', pytheas.update())";
    for (lie, said) in [
        ("status 404 Not Found", "HTTP 404"),
        ("status 410 Gone", "HTTP 410"),
        ("status 429 Too Many Requests", "HTTP 429"),
        ("status 503 Service Unavailable", "HTTP 503"),
        ("status 302 Found", "HTTP 302"),
        ("status ", "hub "),
        ("root {\"config\": {\"pol", "hub "),
        ("root null", "hub "),
        ("root []", "hub "),
        ("root ", "hub "),
        ("root {\"_links\": {\"deploymentBase\": 7}}", "hub "),
        // What is no image is no answer for the whole rollout.
        ("image 302 Found", "HTTP 302"),
        ("image 404 Not Found", "HTTP 404"),
    ] {
        let hub = Hub::start(lie, app(&key, "3.0", 7, ""));
        let node = node.copy();
        node.put("config.json", hub.config());
        let ended = bring(&node, &key, code, json!({}));
        // What the hub said last, or the settings.
        let next = if lie.starts_with("image") { 5 } else { 7 };
        assert!(
            ended.code == Some(0)
                && ended.text.contains(said)
                && ended.text.contains(&format!("NEXT {next}\n")),
            "{lie}: {ended:?}"
        );
        assert!(node.settle().ran("2.0"), "{lie}");
    }
    let hub = Hub::start("no end", app(&key, "3.0", 7, ""));
    node.put("config.json", hub.config());
    let ended = bring(&node, &key, code, json!({}));
    assert_eq!(ended.code, Some(75), "{ended:?}");
    assert!(node.settle().ran("3.0"));
}

#[test]
fn settings_of_a_hub_come_go_and_keep_no_app_from_its_start() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let code = "pytheas.confirm()\n s = pytheas.settings\n print('BEFORE', sorted(s.items()))\n \
                pytheas.update()\n print('AFTER', sorted(s.items()))";
    let release = json!({"config": {"a": "r", "b": "r", "c": "r"}});
    let answer = |settings: &str| -> &'static str {
        format!(r#"root {{"config": {{"settings": {settings}, "revision": "r"}}, "_links": {{}}}}"#)
            .leak()
    };
    let mut before = "[('a', 'r'), ('b', 2), ('c', 'r')]".to_owned();
    for (settings, after) in [
        (
            r#"{"c": 3, "d": 3}"#,
            "[('a', 'r'), ('b', 2), ('c', 3), ('d', 3)]",
        ),
        (
            r#"{"d": 3}"#,
            "[('a', 'r'), ('b', 2), ('c', 'r'), ('d', 3)]",
        ),
        ("[1]", "[('a', 'r'), ('b', 2), ('c', 'r')]"),
        (r#""text""#, "[('a', 'r'), ('b', 2), ('c', 'r')]"),
        (r#"{"b": null}"#, "[('a', 'r'), ('b', None), ('c', 'r')]"),
        ("null", "[('a', 'r'), ('b', 2), ('c', 'r')]"),
    ] {
        let hub = Hub::start(answer(settings), Vec::new());
        let config = hub.config().replacen('{', r#"{"settings": {"b": 2},"#, 1);
        node.put("config.json", config);
        let ended = bring(&node, &key, code, release.clone());
        assert!(
            ended.text.contains(&format!("BEFORE {before}\n"))
                && ended.text.contains(&format!("AFTER {after}\n")),
            "{settings}: {ended:?}"
        );
        before = after.to_owned();
    }
}

#[test]
fn settings_that_cannot_be_kept_keep_no_board_from_its_update() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    fs::create_dir(node.path("settings")).unwrap();
    let hub = Hub::start(
        r#"root {"config": {"settings": {"a": 1}},
            "_links": {"deploymentBase": {"href": "http://h/default/controller/v1/node/deploymentBase/7"}}}"#,
        app(&key, "3.0", 7, ""),
    );
    node.put("config.json", hub.config());
    let code = "pytheas.confirm()\n pytheas.update()";
    let ended = bring(&node, &key, code, json!({}));
    assert!(ended.text.contains("hub [Errno"), "{ended:?}");
    assert!(node.settle().ran("3.0"));
}

#[test]
fn a_board_with_nothing_to_run_takes_settings_and_a_release() {
    let key = Key::new(1);
    let Some(node) = Node::new(&key) else { return };
    let hub = Hub::start(
        r#"root {"config": {"settings": {"a": 1}, "polling": {"sleep": "00:00:01"}}, "_links": {}}"#,
        Vec::new(),
    );
    node.put("config.json", hub.config());
    let code =
        "import os, pytheas; pytheas.ready(); print('NEXT', pytheas.update(), pytheas.settings)";
    let text = node.package_in_its_folder(code).text;
    assert!(text.contains("NEXT 1 {'a': 1}"), "{text}");
    let hub = Hub::start("", app(&key, "3.0", 7, ""));
    node.put("config.json", hub.config());
    assert!(node.settle().ran("3.0"));
}

#[test]
fn a_metric_of_zero_is_told() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("", Vec::new());
    node.put("config.json", hub.config());
    let code = "pytheas.confirm(); pytheas.metric('t', 0); pytheas.update()";
    bring(&node, &key, code, json!({}));
    let told = hub.asked().concat();
    assert!(told.contains(r#""pytheas.metric.t": "0""#), "{told}");
}

#[test]
fn a_token_goes_in_the_clear_only_where_the_settings_say_http() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("", Vec::new());
    node.put("config.json", hub.config().replace("http:", "HTTPS:"));
    let ended = bring(
        &node,
        &key,
        "pytheas.confirm()\n print('NEXT', pytheas.update())",
        json!({}),
    );
    // Nor does the app end for the hub's sake.
    assert!(
        ended.text.contains("hub ") && ended.text.contains("NEXT 7\n"),
        "{ended:?}"
    );
    assert!(hub.asked().is_empty(), "{:?}", hub.asked());
}

#[test]
fn an_app_whose_main_task_is_cancelled_is_started_again() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let code = "pytheas.confirm()\n import asyncio\n raise asyncio.CancelledError";
    let ended = bring(&node, &key, code, json!({}));
    assert_eq!(ended.code, Some(75), "{ended:?}");
    let last = fs::read_to_string(node.path("crash")).unwrap();
    assert!(last.contains("CancelledError"), "{last}");
}

#[test]
fn an_app_that_ends_is_no_end_of_its_updates() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("", app(&key, "3.0", 7, ""));
    node.put("config.json", hub.config().replace("\"stop\"", "\"poll\""));
    for code in [
        "pytheas.confirm()",
        "pytheas.confirm(); import sys; sys.exit(3)",
    ] {
        let node = node.copy();
        let ended = bring(&node, &key, code, json!({}));
        assert!(
            ended.ran("2.0") && ended.text.contains("the app ended") && ended.code == Some(75),
            "{ended:?}"
        );
        node.put("config.json", hub.config());
        assert!(node.settle().ran("3.0"));
    }
}

#[test]
fn an_app_that_ends_is_started_again_where_the_settings_say_so() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    node.put("config.json", r#"{"poll": 1, "on_exit": "restart"}"#);
    let mut ended = bring(&node, &key, "pytheas.confirm()", json!({}));
    for count in 1..4 {
        assert!(ended.ran("2.0") && ended.code == Some(75), "{ended:?}");
        let crash: serde_json::Value =
            serde_json::from_slice(&fs::read(node.path("crash")).unwrap()).unwrap();
        let told = json!({"why": "the app ended", "of": "node 2.0", "n": count});
        assert_eq!(crash, told);
        ended = node.start();
    }
    assert_eq!(node.status()["pending"], false);
}

#[test]
fn an_app_that_fails_while_it_asks_the_hub_is_no_end_of_its_updates() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let hub = Hub::start("", Vec::new());
    node.put("config.json", hub.config());
    // As the crash of a task leaves it, when another one asks at that moment.
    let code =
        "pytheas.confirm()\n from pytheas import hub\n pytheas.on_reset.append(hub.close)\n 1/0";
    let ended = bring(&node, &key, code, json!({}));
    assert_eq!(ended.code, Some(75), "{ended:?}");
    assert!(!hub.asked().is_empty(), "{ended:?}");
}

#[test]
fn a_crash_is_told_until_a_release_has_confirmed_itself() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let main = "import pytheas\ndef run():\n print('RUN', '2.0')\n \
                if pytheas.load('crash'): pytheas.confirm()\n else: 1/0\n";
    let change = json!({"version": "2.0", "counter": 6});
    let text = node.update(&image(&key, &[("main.py", main)], &change));
    assert!(text.contains("WRITTEN"), "{text}");
    assert_eq!(node.start().code, Some(75));
    let crash = fs::read_to_string(node.path("crash")).unwrap();
    assert!(
        crash.contains("node 2.0") && crash.contains("ZeroDivisionError"),
        "{crash}"
    );
    assert!(node.start().ran("2.0"));
    assert!(!node.path("crash").exists());
}

#[test]
fn an_app_may_change_the_folder() {
    let key = Key::new(1);
    let Some(node) = device(&key) else { return };
    let path = node.package_in_its_folder(
        "import pytheas, os\nos.chdir('/')\nfrom pytheas import hub\nprint('FOUND')",
    );
    assert!(path.text.contains("FOUND"), "{path:?}");
}
