//! The repository over HTTP: read by everybody, written by publishers.

use pytheas_repo::store::Store;
use serde_json::json;

use crate::{wire::Reply, world::World};

fn put(world: &World, token: &str, path: &str, body: &[u8]) -> Reply {
    world
        .call("PUT", &format!("/repo/{path}"))
        .bearer(token)
        .body(body)
        .send()
}

fn metadata(role: &str, version: u64, more: &str) -> Vec<u8> {
    json!({"signed": {"_type": role, "version": version, "x": more}, "signatures": []})
        .to_string()
        .into_bytes()
}

/// SHA-256 of `hello`.
const HELLO: &str = "blobs/2c/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn publishing_over_http_makes_a_release_that_can_be_rolled_out() {
    let world = World::new();
    let publisher = world.token("publisher");
    let store = Store::open(
        &format!("http://{}/repo", world.address()),
        Some(&publisher),
    )
    .unwrap();
    world.publish_to(&store, "1.0.0");
    world.publish_to(&store, "1.1.0");
    let releases = world.get("/api/v1/releases").expect(200).json();
    assert_eq!(releases.as_array().unwrap().len(), 2);
    assert_eq!(releases[1]["deltas"], 1, "{releases}");
    let left = std::fs::read_dir(world.dir.path().join("data/repo/.incoming"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_wrong_token_publishes_nothing() {
    let world = World::new();
    let viewer = world.token("viewer");
    for token in [viewer.as_str(), "pyt_wrong"] {
        let address = format!("http://{}/repo", world.address());
        let store = Store::open(&address, Some(token)).unwrap();
        let done = world.runtime.block_on(store.put(HELLO, "hello".into()));
        let error = done.unwrap_err().to_string();
        assert!(error.contains("does not allow to write"), "{error}");
    }
    assert!(!world.dir.path().join("data/repo/blobs").exists());
}

#[test]
fn blobs_are_what_their_name_says_and_are_served_in_ranges() {
    let world = World::new();
    let publisher = world.token("publisher");
    let wrong = put(&world, &publisher, HELLO, b"hallo");
    insta::assert_snapshot!(wrong.shown(), @r#"
    422
    content-type: application/json
    content-length: 223

    {
      "error": {
        "code": "invalid",
        "message": "`blobs/2c/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824` is not stored: its bytes have the SHA-256 d3751d33f9cd5049c4af2b462735457e4d3baf130bcbb87f389e349fbaeb20b9"
      }
    }
    "#);
    assert_eq!(
        world.call("GET", &format!("/repo/{HELLO}")).send().status,
        404
    );
    put(&world, &publisher, HELLO, b"hello").expect(201);
    put(&world, &publisher, HELLO, b"hello").expect(204);
    insta::assert_snapshot!(world.call("GET", &format!("/repo/{HELLO}")).send().shown(), @r#"
    200
    etag: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    last-modified: [DATE]
    accept-ranges: bytes
    x-content-type-options: nosniff
    cache-control: public, max-age=31536000, immutable
    content-type: application/octet-stream
    content-length: 5

    hello
    "#);
    let part = world
        .call("GET", &format!("/repo/{HELLO}"))
        .header("range", "bytes=1-3")
        .send();
    assert_eq!((part.status, part.text()), (206, "ell".into()));
    let head = world
        .call("HEAD", &format!("/repo/{HELLO}"))
        .send()
        .expect(200);
    assert_eq!(head.header("content-length"), Some("5"));
    let again = world
        .call("PUT", &format!("/repo/{HELLO}"))
        .bearer(&publisher)
        .header("if-none-match", "*")
        .body("hello")
        .send();
    assert_eq!(again.status, 412);
}

#[test]
fn a_damaged_blob_is_put_again() {
    let world = World::new();
    let publisher = world.token("publisher");
    put(&world, &publisher, HELLO, b"hello").expect(201);
    std::fs::write(world.dir.path().join("data/repo").join(HELLO), "hel").unwrap();
    put(&world, &publisher, HELLO, b"hello").expect(201);
    assert_eq!(
        world.call("GET", &format!("/repo/{HELLO}")).send().text(),
        "hello"
    );
}

#[test]
fn metadata_never_changes_but_the_timestamp_moves_on() {
    let world = World::new();
    let publisher = world.token("publisher");
    let targets = "metadata/1.targets.json";
    put(&world, &publisher, targets, &metadata("targets", 1, "a")).expect(201);
    put(&world, &publisher, targets, &metadata("targets", 1, "a")).expect(204);
    let other = put(&world, &publisher, targets, &metadata("targets", 1, "b"));
    insta::assert_snapshot!(other.shown(), @r#"
    412
    content-type: application/json
    content-length: 159

    {
      "error": {
        "code": "not-replaced",
        "help": "somebody else published meanwhile; publish again",
        "message": "`metadata/1.targets.json` is there with another content"
      }
    }
    "#);
    for (path, body) in [
        ("metadata/2.targets.json", metadata("targets", 1, "")),
        ("metadata/1.snapshot.json", metadata("targets", 1, "")),
        ("metadata/1.snapshot.json", b"not json".to_vec()),
        ("metadata/timestamp.json", b"{}".to_vec()),
    ] {
        assert_eq!(put(&world, &publisher, path, &body).status, 422, "{path}");
    }
    let timestamp = "metadata/timestamp.json";
    put(&world, &publisher, timestamp, &metadata("timestamp", 2, "")).expect(201);
    put(&world, &publisher, timestamp, &metadata("timestamp", 2, "")).expect(204);
    put(
        &world,
        &publisher,
        timestamp,
        &metadata("timestamp", 2, "x"),
    )
    .expect(412);
    put(&world, &publisher, timestamp, &metadata("timestamp", 1, "")).expect(412);
    put(&world, &publisher, timestamp, &metadata("timestamp", 3, "")).expect(201);
    let caching = |path: &str| {
        let reply = world
            .call("GET", &format!("/repo/{path}"))
            .send()
            .expect(200);
        reply.header("cache-control").unwrap().to_owned()
    };
    assert_eq!(caching(timestamp), "no-cache");
    assert_eq!(caching(targets), "public, max-age=31536000, immutable");
}

#[test]
fn nothing_is_written_or_read_outside_the_repository() {
    let world = World::new();
    let publisher = world.token("publisher");
    for path in [
        "x",
        ".publish.lock",
        "metadata/x.json",
        "blobs/2c/x",
        "../hub.db",
        "metadata/../../hub.db",
        "metadata/%2e%2e/%2e%2e/hub.db",
        "targets/%2e%2e/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.x",
    ] {
        assert_eq!(
            put(&world, &publisher, path, b"hello").status,
            400,
            "{path}"
        );
        assert_eq!(
            world.call("GET", &format!("/repo/{path}")).send().status,
            404,
            "{path}"
        );
    }
}

#[test]
fn the_hub_signs_the_timestamp_again_before_it_expires() {
    let mut world = World::new();
    world.publish("1.0.0");
    world.device_of("gw-1", Some(crate::world::PLATFORM));
    world.stop();
    world.pass(5 * 24 * 3600);
    world.config.online_keys = Some(world.dir.path().join("keys/online"));
    world.restart();
    let path = world.dir.path().join("data/repo/metadata/timestamp.json");
    let version = || {
        let timestamp: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        timestamp["signed"]["version"].as_u64().unwrap()
    };
    world.wait_until("a new timestamp", || version() == 2);
    world.pass(5 * 24 * 3600);
    world
        .post("/api/v1/rollouts", &json!({"release": "app@1.0.0"}))
        .expect(201);
}
