//! Boards: a device that knows neither TUF nor redirects gets one file, the signed image.

use std::collections::BTreeMap;

use pytheas_release::{
    BuildRecord, Health, Sha256, UpdateRules,
    board::{self, BoardRules, Body, ImageManifest},
};
use pytheas_repo::{
    publish::{Events, Options, publish},
    store::Store,
};
use serde_json::json;

use crate::world::World;

/// Publishes `node@VERSION` for boards.
fn publish_board(world: &World, version: &str, platform: &str) {
    let dir = world.dir.path().join(format!("board-{version}-{platform}"));
    std::fs::create_dir_all(&dir).unwrap();
    let record = BuildRecord {
        format: 1,
        name: "node".parse().unwrap(),
        version: version.parse().unwrap(),
        form: "micropython".into(),
        platform: platform.parse().unwrap(),
        entry: "app.romfs".parse().unwrap(),
        health: Health::default(),
        config: BTreeMap::new(),
        interpreter: None,
        update: UpdateRules::default(),
    };
    let mut manifest = ImageManifest {
        format: 1,
        name: record.name.clone(),
        version: record.version.clone(),
        counter: 0,
        platform: record.platform.clone(),
        entry: "node:run".into(),
        mpy: None,
        front: 0,
        body: Body {
            sha256: Sha256::of(b""),
            size: 0,
        },
        requires: BoardRules::default(),
        allow_downgrade: false,
        keys: Vec::new(),
        config: BTreeMap::new(),
    };
    let body = platform.repeat(200).into_bytes();
    manifest.bind(&body);
    let image = board::assemble(&manifest, &[], &body).unwrap();
    std::fs::write(dir.join("app.romfs"), image).unwrap();
    std::fs::write(dir.join("pytheas.json"), record.encode()).unwrap();
    let lines = json!({"format": 1, "sources": {"node.py": "src/node.py"}});
    std::fs::write(dir.join("lines.json"), lines.to_string()).unwrap();
    let store = Store::folder(&world.dir.path().join("data/repo")).unwrap();
    let (keys, options, events) = (world.keys(), Options::at(world.now()), Events::none());
    let done = publish(&store, &keys, &dir, &options, &events);
    world.runtime.block_on(done).unwrap();
}

#[test]
fn a_board_gets_the_signed_image_in_parts_as_it_likes() {
    let world = World::new();
    publish_board(&world, "1.0", "micropython-any");
    let board = world.device_of("node-7", Some("micropython-xtensawin"));
    let linux = world.device_of("linux", Some("linux-x86_64"));
    world.rollout(&json!({"release": "node@1.0", "groups": ["100%"]}));
    assert_eq!(linux.link("deploymentBase"), None);
    let action = board.action();
    let base = board.get(&format!("/deploymentBase/{action}")).expect(200);
    let base = base.json();
    let chunk = &base["deployment"]["chunks"][0];
    assert_eq!(
        (&chunk["name"], &chunk["version"]),
        (&json!("node"), &json!("1.0"))
    );
    assert_eq!(chunk["artifacts"].as_array().unwrap().len(), 1);
    let file = &chunk["artifacts"][0];
    assert_eq!(file["filename"], "node-1.0.romfs");
    let href = file["_links"]["download-http"]["href"].as_str().unwrap();
    let below = href.split("/node-7").nth(1).unwrap();
    let whole = board.get(below).expect(200).body;
    let image = board::read(&whole).unwrap();
    assert_eq!((image.signatures.len(), image.manifest.counter), (1, 1));
    assert_eq!(file["size"], whole.len());
    assert_eq!(file["hashes"]["sha256"], Sha256::of(&whole).to_string());
    let part = board
        .call("GET", below)
        .header("range", "bytes=700-")
        .send();
    assert_eq!(part.expect(206).body, whole[700..]);
    let releases = world.get("/api/v1/releases").expect(200).json();
    assert_eq!(releases[0]["board"]["counter"], 1);
    assert_eq!(releases[0]["board"]["sha256"], file["hashes"]["sha256"]);
}

#[test]
fn the_best_image_for_its_core_is_a_boards_own() {
    let world = World::new();
    for platform in [
        "micropython-any",
        "micropython-armv6m",
        "micropython-armv7m",
    ] {
        publish_board(&world, "1.0", platform);
    }
    let devices = [
        ("m0", "micropython-armv6m", "micropython-armv6m"),
        ("m4", "micropython-armv7emsp", "micropython-armv7m"),
        ("esp", "micropython-xtensawin", "micropython-any"),
    ];
    let devices = devices.map(|(id, is, gets)| (world.device_of(id, Some(is)), gets));
    world.rollout(&json!({"release": "node@1.0", "groups": ["100%"]}));
    for (device, gets) in devices {
        let action = device.action();
        let base = device
            .get(&format!("/deploymentBase/{action}"))
            .expect(200)
            .json();
        let target = &base["deployment"]["chunks"][0]["metadata"][0]["value"];
        assert_eq!(target, &format!("node/1.0/{gets}/release.json"));
    }
}

#[test]
fn a_traceback_is_shown_line_by_line_with_the_names_of_its_sources() {
    let world = World::new();
    publish_board(&world, "1.0", "micropython-any");
    let board = world.device_of("node-7", Some("micropython-armv7m"));
    world.rollout(&json!({"release": "node@1.0", "groups": ["100%"]}));
    let action = board.action();
    let body = json!({"status": {"execution": "closed", "result": {"finished": "failure"},
        "details": ["it did not start", "Traceback:\n  File \"node.py\", line 1, in run\nValueError: 7"]}});
    board
        .call("POST", &format!("/deploymentBase/{action}/feedback"))
        .json(&body)
        .send()
        .expect(200);
    let detail = world.get("/api/v1/devices/node-7").expect(200).json();
    let said = &detail["history"][0]["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()["details"];
    assert_eq!(said[2], "  File \"src/node.py\", line 1, in run");
    assert_eq!(said[3], "ValueError: 7");
    let crash = |attributes: serde_json::Value| {
        let attributes = json!({"mode": "replace", "data": attributes});
        let put = board.call("PUT", "/configData").json(&attributes);
        put.send().expect(200);
        world.get("/api/v1/devices/node-7").expect(200).json()["attributes"].clone()
    };
    let frame = "  File \"node.py\", line 1, in run";
    let told = crash(
        json!({"pytheas.crash": "node 1.0", "pytheas.crash.0": "Traceback:",
        "pytheas.crash.1": frame, "pytheas.crash.2": "ValueError: \u{7}x"}),
    );
    assert_eq!(told["pytheas.crash.1"], said[2]);
    assert_eq!(told["pytheas.crash.2"], "ValueError: ?x");
    // Of a release that is not known here, and of none.
    let told = crash(json!({"pytheas.crash": "node 9.9", "pytheas.crash.0": frame}));
    assert_eq!(told["pytheas.crash.0"], frame);
    assert_eq!(told["pytheas.crash.1"], json!(null));
    let told = crash(json!({"pytheas.crash.0": frame}));
    assert_eq!(told["pytheas.crash.0"], frame);
}
