//! The REST API: who may what, what is told, what is remembered.

use std::io::{BufRead, BufReader};

use serde_json::json;

use crate::world::World;

#[test]
fn roles_open_what_they_name_and_nothing_else() {
    let world = World::new();
    world.device("dev1");
    let calls: &[(&str, &str, &str)] = &[
        // call, and who may: v(iewer) o(perator) a(dmin) p(ublisher)
        ("GET", "/api/v1/devices", "voa"),
        ("GET", "/api/v1/devices/dev1", "voa"),
        ("GET", "/api/v1/releases", "voa"),
        ("GET", "/api/v1/artifacts", "voa"),
        ("GET", "/api/v1/rollouts", "voa"),
        ("GET", "/api/v1/traffic", "voa"),
        ("POST", "/api/v1/devices", "oa"),
        ("POST", "/api/v1/devices/dev1/accept", "oa"),
        ("POST", "/api/v1/artifacts/a/1/f", "oa"),
        ("POST", "/api/v1/rollouts", "oa"),
        ("POST", "/api/v1/rollouts/1/pause", "oa"),
        ("POST", "/api/v1/rollouts/1/resume", "oa"),
        ("POST", "/api/v1/rollouts/1/abort", "oa"),
        ("DELETE", "/api/v1/devices/none", "oa"),
        ("GET", "/api/v1/tokens", "a"),
        ("POST", "/api/v1/tokens", "a"),
        ("DELETE", "/api/v1/tokens/99", "a"),
        ("GET", "/api/v1/enrolment-keys", "a"),
        ("POST", "/api/v1/enrolment-keys", "a"),
        ("DELETE", "/api/v1/enrolment-keys/99", "a"),
        ("GET", "/api/v1/audit", "a"),
        ("PUT", "/repo/metadata/timestamp.json", "pa"),
    ];
    let roles = [
        ('v', world.token("viewer")),
        ('o', world.token("operator")),
        ('p', world.token("publisher")),
        ('a', world.admin.clone()),
    ];
    for (method, path, allowed) in calls {
        for (letter, token) in &roles {
            let reply = world
                .call(method, path)
                .bearer(token)
                .json(&json!({}))
                .send();
            let refused = reply.status == 403;
            assert_eq!(
                !refused,
                allowed.contains(*letter),
                "{method} {path} {letter}: {reply:?}"
            );
        }
        for header in ["Bearer wrong", "Basic YTpi", "Bearer "] {
            let call = world.call(method, path).header("authorization", header);
            assert_eq!(call.send().status, 401, "{method} {path}");
        }
        assert_eq!(
            world.call(method, path).send().status,
            401,
            "{method} {path}"
        );
    }
}

#[test]
fn failed_calls_say_what_failed_and_what_to_do() {
    let world = World::new();
    let viewer = world.token("viewer");
    insta::assert_snapshot!(world.call("GET", "/api/v1/devices").send().shown(), @r#"
    401
    content-type: application/json
    www-authenticate: Bearer
    content-length: 195

    {
      "error": {
        "code": "no-token",
        "help": "send `Authorization: Bearer pyt_…`; the first token was shown when the hub first started, `pytheas token create` makes more",
        "message": "this needs a token"
      }
    }
    "#);
    let forbidden = world.call("GET", "/api/v1/tokens").bearer(&viewer).send();
    insta::assert_snapshot!(forbidden.shown(), @r#"
    403
    content-type: application/json
    content-length: 174

    {
      "error": {
        "code": "forbidden",
        "help": "an administrator can make one: `pytheas token create --role …`",
        "message": "the token `viewer` is a viewer; this needs the role admin"
      }
    }
    "#);
    insta::assert_snapshot!(world.get("/api/v1/devices/dev9").shown(), @r#"
    404
    content-type: application/json
    content-length: 106

    {
      "error": {
        "code": "unknown-device",
        "help": "`pytheas device list` shows them",
        "message": "no device `dev9`"
      }
    }
    "#);
    insta::assert_snapshot!(world.get("/api/v1/nothing").shown(), @r#"
    404
    content-type: application/json
    content-length: 101

    {
      "error": {
        "code": "unknown-call",
        "help": "/openapi.json lists them",
        "message": "there is no such call"
      }
    }
    "#);
    let wrong = world
        .call("PATCH", "/api/v1/devices")
        .bearer(&world.admin)
        .send();
    insta::assert_snapshot!(wrong.shown(), @r#"
    405
    content-type: application/json
    allow: GET,HEAD,POST
    content-length: 105

    {
      "error": {
        "code": "wrong-method",
        "help": "/openapi.json lists the calls",
        "message": "not with this method"
      }
    }
    "#);
    let malformed = world.call("POST", "/api/v1/tokens").bearer(&world.admin);
    let malformed = malformed
        .header("content-type", "application/json")
        .body("{\"name\":")
        .send();
    insta::assert_snapshot!(malformed.shown(), @r#"
    400
    content-type: application/json
    content-length: 135

    {
      "error": {
        "code": "malformed",
        "message": "Failed to parse the request body as JSON: name: EOF while parsing a value at line 1 column 8"
      }
    }
    "#);
}

#[test]
fn tokens_are_told_once_used_and_revoked() {
    let world = World::new();
    let token = world.token("viewer");
    assert!(token.starts_with("pyt_"));
    let list = world.get("/api/v1/tokens").text();
    assert!(!list.contains(&token) && !list.contains(&world.admin));
    assert_eq!(
        world
            .call("GET", "/api/v1/devices")
            .bearer(&token)
            .send()
            .status,
        200
    );
    let listed = world.get("/api/v1/tokens").json();
    assert!(listed[1]["last_used_ms"].is_i64(), "{listed}");
    let delete = |id: i64| {
        world
            .call("DELETE", &format!("/api/v1/tokens/{id}"))
            .bearer(&world.admin)
            .send()
            .status
    };
    assert_eq!(delete(listed[1]["id"].as_i64().unwrap()), 204);
    assert_eq!(
        world
            .call("GET", "/api/v1/devices")
            .bearer(&token)
            .send()
            .status,
        401
    );
    assert_eq!(
        delete(listed[0]["id"].as_i64().unwrap()),
        409,
        "the last administrator"
    );
    assert_eq!(world.get("/api/v1/tokens").status, 200);
    for body in [
        json!({"name": " ", "role": "viewer"}),
        json!({"name": "x", "role": "king"}),
    ] {
        assert_eq!(world.post("/api/v1/tokens", &body).status, 422, "{body}");
    }
}

#[test]
fn no_secret_is_written_to_the_disk() {
    let mut world = World::new();
    let device = world.device("dev1");
    let key = world.post("/api/v1/enrolment-keys", &json!({})).json()["key"].clone();
    let secrets = [
        device.token.clone(),
        key.as_str().unwrap().to_owned(),
        world.admin.clone(),
    ];
    drop(device);
    world.stop();
    let mut seen = 0;
    for entry in std::fs::read_dir(world.dir.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        seen += bytes.len();
        for secret in &secrets {
            let digits = secret
                .trim_start_matches("pyt_")
                .trim_start_matches("enr_")
                .as_bytes();
            assert!(
                !bytes.windows(64).any(|window| window == digits),
                "{}",
                path.display()
            );
        }
    }
    assert!(seen > 10_000, "the database was looked at");
}

#[test]
fn every_change_is_in_the_audit_log() {
    let world = World::new();
    world.device("dev1");
    world.artifact("fw", "1.0", b"x");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    for verb in ["pause", "resume", "abort"] {
        world
            .post(&format!("/api/v1/rollouts/1/{verb}"), &json!({}))
            .expect(200);
    }
    world.token("viewer");
    world
        .call("DELETE", "/api/v1/devices/dev1")
        .bearer(&world.admin)
        .send()
        .expect(204);
    let entries = world.get("/api/v1/audit?limit=50").expect(200).json();
    let lines: Vec<String> = entries
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {}",
                text("actor"),
                text("action"),
                text("subject"),
                text("detail")
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    hub token.create 1 `first`, admin
    first device.create dev1 
    first artifact.upload fw@1.0 fw.swu, 1 bytes, sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    first rollout.start 1 fw@1.0 to 1 devices
    first rollout.pause 1 
    first rollout.resume 1 
    first rollout.abort 1 
    first token.create 2 `viewer`, viewer
    first device.remove dev1
    ");
}

#[test]
fn what_happens_is_streamed() {
    let world = World::new();
    let stream = world
        .call("GET", "/api/v1/events")
        .bearer(&world.admin)
        .open();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    assert!(lines.any(|line| line.is_empty()), "the head ends");
    world.artifact("fw", "1.0", b"x");
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    device.fail("no space left");
    let mut kinds = Vec::new();
    for line in lines {
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: serde_json::Value = serde_json::from_str(data).unwrap();
        kinds.push(format!(
            "{} {}",
            event["kind"].as_str().unwrap(),
            event["status"]
                .as_str()
                .or(event["state"].as_str())
                .unwrap_or_default()
        ));
        if event["state"] == "paused" {
            assert!(event["reason"].as_str().unwrap().contains("no space left"));
            break;
        }
    }
    insta::assert_snapshot!(kinds.join("\n"), @"
    releases-changed 
    device-enrolled 
    action-changed pending
    rollout-changed running
    device-changed 
    action-changed retrieved
    action-changed failed
    rollout-changed paused
    ");
}

#[test]
fn bytes_are_counted_per_device_and_kind_and_survive_a_restart() {
    let mut world = World::new();
    world.artifact("fw", "1.0", &[1; 50_000]);
    let token = {
        let device = world.device("dev1");
        world.rollout(&json!({"artifact": "fw@1.0"}));
        device
            .get("/softwaremodules/1/artifacts/fw.swu")
            .expect(200);
        // Whoever names a device without its token is nobody.
        world
            .call("GET", "/repo/metadata/timestamp.json")
            .header("X-Pytheas-Device", "dev1")
            .send();
        device.token.clone()
    };
    let named = world
        .call("GET", "/repo/metadata/timestamp.json")
        .header("X-Pytheas-Device", "dev1")
        .header("authorization", &format!("TargetToken {token}"))
        .send();
    assert_eq!(named.status, 404);
    let traffic = |world: &World| world.get("/api/v1/traffic?device=dev1").expect(200).json();
    let before = traffic(&world);
    let kinds = &before["devices"][0]["kinds"];
    assert_eq!(kinds["ddi"]["requests"], 1);
    assert_eq!(kinds["repo"]["requests"], 1, "{kinds}");
    let sent = kinds["ddi"]["sent_bytes"].as_u64().unwrap();
    assert!((50_100..51_000).contains(&sent), "{sent}");
    assert_eq!(before.get("total"), None);
    let total = world.get("/api/v1/traffic").json()["total"].clone();
    assert!(
        total["api"]["received_bytes"].as_u64().unwrap() > 50_000,
        "the upload: {total}"
    );
    world.restart();
    assert_eq!(traffic(&world)["devices"], before["devices"]);
    let metrics = world.call("GET", "/metrics").send().expect(200).text();
    assert!(
        metrics.contains(r#"pytheas_http_bytes_total{kind="ddi",direction="sent"} "#),
        "{metrics}"
    );
    assert!(
        metrics.contains("pytheas_devices{state=\"online\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains("dev1"));
}

#[test]
fn the_hub_is_well() {
    let world = World::new();
    assert_eq!(
        world.call("GET", "/healthz").send().expect(200).text(),
        "ok\n"
    );
}

#[test]
fn devices_are_listed_by_page_and_state() {
    let world = World::new();
    for id in ["a", "b", "c"] {
        world.device(id);
    }
    let ids = |query: &str| {
        let list = world
            .get(&format!("/api/v1/devices{query}"))
            .expect(200)
            .json();
        let ids: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["id"].as_str().unwrap().into())
            .collect();
        ids.join(",")
    };
    assert_eq!(ids(""), "a,b,c");
    assert_eq!(ids("?limit=2"), "a,b");
    assert_eq!(ids("?after=b"), "c");
    assert_eq!(ids("?state=pending"), "");
    assert_eq!(ids("?state=accepted&limit=1"), "a");
}

#[test]
fn the_api_is_described_as_it_was_last_time() {
    let world = World::new();
    let served = world.call("GET", "/openapi.json").send().expect(200).json();
    let described: serde_json::Value = serde_json::from_str(&pytheas_hub::openapi_json()).unwrap();
    assert_eq!(served, described);
    insta::assert_snapshot!("openapi", pytheas_hub::openapi_json());
}

#[test]
fn names_that_would_move_a_terminals_cursor_are_refused() {
    let world = World::new();
    let evil = "ev\u{1b}[31mil";
    for (path, body) in [
        ("devices", json!({"device_id": "dev1", "name": evil})),
        ("tokens", json!({"name": evil, "role": "viewer"})),
        ("enrolment-keys", json!({"name": evil})),
        ("enrolment-keys", json!({"name": "x".repeat(129)})),
    ] {
        let reply = world.post(&format!("/api/v1/{path}"), &body).expect(422);
        assert_eq!(reply.json()["error"]["code"], "invalid", "{path}");
    }
}

#[test]
fn a_query_that_does_not_parse_is_told_as_all_errors_are() {
    let world = World::new();
    for path in ["devices?limit=-1", "devices?state=x", "rollouts?before=x"] {
        let reply = world.get(&format!("/api/v1/{path}")).expect(400);
        assert_eq!(reply.json()["error"]["code"], "malformed", "{path}");
    }
}
