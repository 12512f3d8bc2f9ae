//! How devices become known.

use serde_json::{Value, json};

use crate::{wire::Reply, world::World};

fn claim(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn ask(world: &World, body: &Value) -> Reply {
    world.call("POST", "/api/v1/enrolment").json(body).send()
}

fn request(id: &str, digit: char) -> Value {
    json!({"device_id": id, "platform": "linux-x86_64", "claim": claim(digit)})
}

fn polls(world: &World, id: &str, token: &str) -> u16 {
    world
        .call("GET", &format!("/default/controller/v1/{id}"))
        .header("authorization", &format!("TargetToken {token}"))
        .send()
        .status
}

fn token(reply: &Reply) -> String {
    reply.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_device_waits_is_accepted_and_polls() {
    let world = World::new();
    insta::assert_snapshot!(ask(&world, &request("gw-1", 'a')).shown(), @r#"
    202
    content-type: application/json
    retry-after: 5
    content-length: 19

    {
      "state": "pending"
    }
    "#);
    let state = || world.get("/api/v1/devices/gw-1").json()["device"]["state"].clone();
    assert_eq!(state(), "pending");
    world
        .post("/api/v1/devices/gw-1/accept", &json!({}))
        .expect(200);
    world
        .post("/api/v1/devices/gw-1/accept", &json!({}))
        .expect(200);
    assert_eq!(state(), "accepted");
    let accepted = ask(&world, &request("gw-1", 'a')).expect(200);
    assert_eq!(accepted.json()["tenant"], "default");
    assert_eq!(polls(&world, "gw-1", &token(&accepted)), 200);
    assert_eq!(state(), "online");
    world.pass(3600);
    assert_eq!(state(), "offline");
}

#[test]
fn the_old_token_is_good_until_the_new_one_is_used() {
    let world = World::new();
    ask(&world, &request("gw-1", 'a')).expect(202);
    world
        .post("/api/v1/devices/gw-1/accept", &json!({}))
        .expect(200);
    let first = token(&ask(&world, &request("gw-1", 'a')));
    let lost = token(&ask(&world, &request("gw-1", 'a')));
    let second = token(&ask(&world, &request("gw-1", 'a')));
    assert_eq!(polls(&world, "gw-1", &first), 200);
    assert_eq!(
        polls(&world, "gw-1", &lost),
        401,
        "replaced before it was used"
    );
    assert_eq!(polls(&world, "gw-1", &second), 200);
    assert_eq!(polls(&world, "gw-1", &first), 401);
}

#[test]
fn an_id_belongs_to_who_claimed_it_first() {
    let world = World::new();
    ask(&world, &request("gw-1", 'a')).expect(202);
    insta::assert_snapshot!(ask(&world, &request("gw-1", 'b')).shown(), @r#"
    409
    content-type: application/json
    content-length: 186

    {
      "error": {
        "code": "claimed",
        "help": "is the device new, or was its state lost? Remove the old one first: `pytheas device remove gw-1`",
        "message": "the id `gw-1` belongs to another device"
      }
    }
    "#);
    world.device("made-by-hand");
    ask(&world, &request("made-by-hand", 'a')).expect(409);
    let gone = world
        .call("DELETE", "/api/v1/devices/gw-1")
        .bearer(&world.admin)
        .send();
    assert_eq!(gone.status, 204);
    ask(&world, &request("gw-1", 'b')).expect(202);
}

#[test]
fn an_enrolment_key_accepts_as_often_as_it_says() {
    let world = World::new();
    let body = json!({"name": "batch 7", "uses": 1, "valid_s": 60});
    let made = world
        .post("/api/v1/enrolment-keys", &body)
        .expect(201)
        .json();
    let key = made["key"].as_str().unwrap();
    let with_key = |id: &str, key: &str| {
        let mut body = request(id, 'a');
        body["enrolment_key"] = json!(key);
        ask(&world, &body)
    };
    insta::assert_snapshot!(with_key("gw-1", "enr_wrong").shown(), @r#"
    403
    content-type: application/json
    content-length: 101

    {
      "error": {
        "code": "wrong-enrolment-key",
        "message": "the enrolment key is unknown, expired or used up"
      }
    }
    "#);
    let accepted = with_key("gw-1", key).expect(200);
    assert_eq!(polls(&world, "gw-1", &token(&accepted)), 200);
    with_key("gw-1", key).expect(200);
    with_key("gw-2", key).expect(403);

    let body = json!({"name": "short", "valid_s": 60});
    let made = world
        .post("/api/v1/enrolment-keys", &body)
        .expect(201)
        .json();
    world.pass(61);
    with_key("gw-3", made["key"].as_str().unwrap()).expect(403);
    let listed = world.get("/api/v1/enrolment-keys").expect(200).text();
    assert!(
        !listed.contains(key) && listed.contains("batch 7"),
        "{listed}"
    );
    let id = made["info"]["id"].as_i64().unwrap();
    let path = format!("/api/v1/enrolment-keys/{id}");
    assert_eq!(
        world
            .call("DELETE", &path)
            .bearer(&world.admin)
            .send()
            .status,
        204
    );
    assert_eq!(
        world
            .call("DELETE", &path)
            .bearer(&world.admin)
            .send()
            .status,
        404
    );
}

#[test]
fn a_key_accepts_a_device_that_waits_already() {
    let world = World::new();
    ask(&world, &request("gw-1", 'a')).expect(202);
    let made = world
        .post("/api/v1/enrolment-keys", &json!({}))
        .expect(201)
        .json();
    let mut body = request("gw-1", 'a');
    body["enrolment_key"] = made["key"].clone();
    ask(&world, &body).expect(200);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let world = World::new();
    for (key, value, word) in [
        ("device_id", json!("../x"), "device id"),
        ("platform", json!("amiga"), "platform"),
        ("claim", json!("abc"), "claim"),
        ("name", json!("x".repeat(200)), "name"),
        ("attributes", json!({"a": "\u{1b}[31m"}), "attributes"),
    ] {
        let mut body = request("gw-1", 'a');
        body[key] = value;
        let reply = ask(&world, &body).expect(422);
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(world.get("/api/v1/devices").json(), json!([]));
}

#[test]
fn flooding_from_one_address_is_slowed() {
    let world = World::new();
    let mut last = 202;
    for n in 0..80 {
        last = ask(&world, &request(&format!("dev-{n}"), 'a')).status;
        if last != 202 {
            break;
        }
    }
    assert_eq!(last, 429);
    world.pass(5);
    ask(&world, &request("dev-late", 'a')).expect(202);
    // Waiting devices that ask again are no flood.
    for _ in 0..100 {
        ask(&world, &request("dev-1", 'a')).expect(202);
    }
}

#[test]
fn a_certificate_that_a_trusted_proxy_has_seen_is_its_device_and_no_other() {
    let behind_proxy = |certificates: bool| {
        World::with(|config| {
            config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
            config.client_certificates = certificates;
        })
    };
    let world = behind_proxy(true);
    let ask = |world: &World, id: &str, certificate: &str| {
        world
            .call("POST", "/api/v1/enrolment")
            .header("x-controller-id", certificate)
            .json(&request(id, 'a'))
            .send()
    };
    let poll = |world: &World, id: &str, certificate: &str, token: Option<&str>| {
        let call = world
            .call("GET", &format!("/default/controller/v1/{id}"))
            .header("x-controller-id", certificate);
        let call = match token {
            Some(token) => call.header("authorization", &format!("TargetToken {token}")),
            None => call,
        };
        call.send().status
    };
    let accepted = ask(&world, "gw-1", "gw-1").expect(200);
    let token = token(&accepted);
    assert_eq!(ask(&world, "gw-2", "gw-1").status, 403);
    ask(&world, "gw-3", "").expect(202);

    assert_eq!(poll(&world, "gw-1", "gw-1", Some(&token)), 200);
    assert_eq!(poll(&world, "gw-1", "gw-1", None), 200);
    assert_eq!(poll(&world, "new", "new", None), 200, "made known by it");
    // A stolen token does not help another device, a wrong one not even its own.
    assert_eq!(poll(&world, "gw-1", "new", Some(&token)), 401);
    assert_eq!(poll(&world, "gw-1", "gw-1", Some("wrong")), 401);
    assert_eq!(poll(&world, "gw-1", "", None), 401);
    // A name that cannot be read, and one besides that of the proxy, count as another's.
    let names: [&[&str]; 3] = [&["gw-1é"], &["gw-1", "new"], &["new", "gw-1"]];
    for names in names {
        let mut call = world.call("GET", "/default/controller/v1/gw-1");
        call = call.header("authorization", &format!("TargetToken {token}"));
        for name in names {
            call = call.header("x-controller-id", name);
        }
        assert_eq!(call.send().status, 401, "{names:?}");
    }
    assert_eq!(poll(&world, "gw-3", "gw-3", None), 401, "not accepted yet");
    ask(&world, "gw-3", "gw-3").expect(200);
    assert_eq!(poll(&world, "gw-3", "gw-3", None), 200);

    // Unless it was asked for, and from anybody else, the header says nothing.
    let without = behind_proxy(false);
    ask(&without, "gw-1", "gw-1").expect(202);
    assert_eq!(poll(&without, "new", "new", None), 401);
    let direct = World::with(|config| config.client_certificates = true);
    ask(&direct, "gw-1", "gw-1").expect(202);
    assert_eq!(poll(&direct, "new", "new", None), 401);
}
