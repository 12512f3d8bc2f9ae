//! The device API, answer by answer.

use serde_json::json;

use crate::world::World;

const BYTES: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A device with an artifact of 36 bytes rolled out to it.
fn assigned(world: &World) -> crate::world::Device<'_> {
    world.artifact("fw", "1.0", BYTES);
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    device
}

#[test]
fn a_new_device_has_nothing_to_do_but_to_tell_its_attributes() {
    let world = World::new();
    let device = world.device("dev1");
    insta::assert_snapshot!(device.get("").shown(), @r#"
    200
    content-type: application/json
    etag: "2c8561af0d25328d05bf566e"
    content-length: 137

    {
      "_links": {
        "configData": {
          "href": "http://hub.test:8470/default/controller/v1/dev1/configData"
        }
      },
      "config": {
        "polling": {
          "sleep": "00:05:00"
        }
      }
    }
    "#);
}

#[test]
fn an_update_from_poll_to_success() {
    let world = World::new();
    let device = assigned(&world);
    insta::assert_snapshot!(device.get("").shown(), @r#"
    200
    content-type: application/json
    etag: "5947c02457e6b2a8dfc9e5be"
    content-length: 234

    {
      "_links": {
        "configData": {
          "href": "http://hub.test:8470/default/controller/v1/dev1/configData"
        },
        "deploymentBase": {
          "href": "http://hub.test:8470/default/controller/v1/dev1/deploymentBase/1?c=1"
        }
      },
      "config": {
        "polling": {
          "sleep": "00:05:00"
        }
      }
    }
    "#);
    insta::assert_snapshot!(device.get("/deploymentBase/1?c=1").shown(), @r#"
    200
    content-type: application/json
    etag: "d3462a08eb7217a78b328a71"
    content-length: 791

    {
      "deployment": {
        "chunks": [
          {
            "artifacts": [
              {
                "_links": {
                  "download": {
                    "href": "http://hub.test:8470/default/controller/v1/dev1/softwaremodules/1/artifacts/fw.swu"
                  },
                  "download-http": {
                    "href": "http://hub.test:8470/default/controller/v1/dev1/softwaremodules/1/artifacts/fw.swu"
                  },
                  "md5sum": {
                    "href": "http://hub.test:8470/default/controller/v1/dev1/softwaremodules/1/artifacts/fw.swu.MD5SUM"
                  },
                  "md5sum-http": {
                    "href": "http://hub.test:8470/default/controller/v1/dev1/softwaremodules/1/artifacts/fw.swu.MD5SUM"
                  }
                },
                "filename": "fw.swu",
                "hashes": {
                  "md5": "e9b1713db620f1e3a14b6812de523f4b",
                  "sha1": "a26704c04fc5f10db5aab58468035531cc542485",
                  "sha256": "74e7e5bb9d22d6db26bf76946d40fff3ea9f0346b884fd0694920fccfad15e33"
                },
                "size": 36
              }
            ],
            "name": "fw",
            "part": "os",
            "version": "1.0"
          }
        ],
        "download": "forced",
        "update": "forced"
      },
      "id": "1"
    }
    "#);
    insta::assert_snapshot!(device.report(1, "proceeding", "none", "Installing").shown(), @"
    200
    content-length: 0
    ");
    insta::assert_snapshot!(device.report(1, "closed", "success", "Update Installed.").shown(), @"
    200
    content-length: 0
    ");
    insta::assert_snapshot!(device.get("").shown(), @r#"
    200
    content-type: application/json
    etag: "a59a64548dc076de550f479e"
    content-length: 228

    {
      "_links": {
        "configData": {
          "href": "http://hub.test:8470/default/controller/v1/dev1/configData"
        },
        "installedBase": {
          "href": "http://hub.test:8470/default/controller/v1/dev1/installedBase/1"
        }
      },
      "config": {
        "polling": {
          "sleep": "00:05:00"
        }
      }
    }
    "#);
    let history = device
        .get("/installedBase/1?actionHistory=2")
        .expect(200)
        .json();
    insta::assert_snapshot!(history["actionHistory"], @r#"{"messages":["Update Installed.","Installing"],"status":"FINISHED"}"#);
    assert_eq!(world.rollout_state(1).0, "finished");
}

#[test]
fn nobody_else_gets_in_and_learns_why() {
    let world = World::new();
    let device = assigned(&world);
    insta::assert_snapshot!(world.call("GET", "/default/controller/v1/dev1").send().shown(), @"
    401
    content-length: 0
    ");
    let other = world.device("dev2");
    let dev1 = "/default/controller/v1/dev1";
    for header in [
        "TargetToken wrong".to_owned(),
        format!("TargetToken {}", other.token),
        format!("targettoken {}", device.token),
        format!("TargetToken  {}", device.token),
        format!("GatewayToken {}", device.token),
        format!("Bearer {}", world.admin),
    ] {
        let call = world.call("GET", dev1).header("authorization", &header);
        assert_eq!(call.send().status, 401, "{header}");
    }
    let token = format!("TargetToken {}", device.token);
    for path in ["/other/controller/v1/dev1", "/default/controller/v1/dev9"] {
        let call = world.call("GET", path).header("authorization", &token);
        assert_eq!(call.send().status, 401, "{path}");
    }
}

#[test]
fn attributes_are_merged_replaced_removed_and_bounded() {
    let world = World::new();
    let device = world.device("dev1");
    assert!(device.link("configData").is_some());
    let put = |body: serde_json::Value| device.call("PUT", "/configData").json(&body).send();
    let reply = put(json!({"id": "", "time": "", "status": {}, "data": {"hw": "rev2", "os": "a"}}));
    insta::assert_snapshot!(reply.shown(), @"
    200
    content-length: 0
    ");
    assert_eq!(device.link("configData"), None, "not wanted any more");
    put(json!({"mode": "merge", "data": {"os": "b"}})).expect(200);
    let attributes = || world.get("/api/v1/devices/dev1").expect(200).json()["attributes"].clone();
    assert_eq!(attributes(), json!({"hw": "rev2", "os": "b"}));
    put(json!({"mode": "remove", "data": {"hw": ""}})).expect(200);
    assert_eq!(attributes(), json!({"os": "b"}));
    put(json!({"mode": "replace", "data": {"x": "y"}})).expect(200);
    assert_eq!(attributes(), json!({"x": "y"}));

    let many: serde_json::Map<_, _> = (0..101).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (body, status) in [
        (json!({"data": {}}), 400),
        (json!({"mode": "explode", "data": {"a": "b"}}), 400),
        (json!({"data": {"a": 1}}), 400),
        (json!({"data": {"a".repeat(129): "b"}}), 400),
        (json!({"data": {"a": "b".repeat(129)}}), 400),
        (json!({"data": many}), 429),
    ] {
        assert_eq!(put(body.clone()).status, status, "{body}");
    }
    assert_eq!(
        attributes(),
        json!({"x": "y"}),
        "what is refused changes nothing"
    );
}

#[test]
fn a_poll_that_changed_nothing_is_not_sent_again() {
    let world = World::new();
    let device = world.device("dev1");
    let etag = device
        .get("")
        .expect(200)
        .header("etag")
        .unwrap()
        .to_owned();
    let again = || device.call("GET", "").header("if-none-match", &etag).send();
    assert_eq!(again().status, 304);
    world.artifact("fw", "1.0", BYTES);
    world.rollout(&json!({"artifact": "fw@1.0"}));
    assert_eq!(again().status, 200);
    let hal = device
        .call("GET", "")
        .header("accept", "application/hal+json")
        .send();
    assert_eq!(hal.header("content-type"), Some("application/hal+json"));
}

#[test]
fn malformed_reports_are_400_and_change_nothing() {
    let world = World::new();
    let device = assigned(&world);
    for body in [
        "{",
        "{}",
        r#"{"status":{"execution":"closed"}}"#,
        r#"{"status":{"execution":"exploded","result":{"finished":"none"}}}"#,
        r#"{"status":{"execution":"closed","result":{"finished":"maybe"}}}"#,
    ] {
        let call = device.call("POST", "/deploymentBase/1/feedback").body(body);
        assert_eq!(call.send().status, 400, "{body}");
    }
    assert_eq!(device.action(), 1);
    let large = vec![b' '; 2 << 20];
    let call = device
        .call("POST", "/deploymentBase/1/feedback")
        .body(large);
    assert_eq!(call.send().status, 413);
}

#[test]
fn an_operators_abort_is_told_by_cancel_action() {
    let world = World::new();
    let device = assigned(&world);
    device.get("/deploymentBase/1").expect(200);
    assert_eq!(
        device.get("/cancelAction/1").status,
        404,
        "nobody cancels it"
    );
    assert_eq!(device.report_cancel(1, "closed", "success").status, 405);
    world
        .post("/api/v1/rollouts/1/abort", &json!({}))
        .expect(200);

    assert_eq!(device.link("deploymentBase"), None);
    assert_eq!(
        device.link("cancelAction").as_deref(),
        Some("/cancelAction/1"),
        "without a query"
    );
    assert_eq!(device.get("/deploymentBase/1").status, 404);
    insta::assert_snapshot!(device.get("/cancelAction/1").shown(), @r#"
    200
    content-type: application/json
    etag: "1ffd0341da7ee13248f15b0d"
    content-length: 40

    {
      "cancelAction": {
        "stopId": "1"
      },
      "id": "1"
    }
    "#);
    device.report_cancel(1, "proceeding", "none").expect(200);
    device.report_cancel(1, "closed", "success").expect(200);
    device.report_cancel(1, "closed", "success").expect(200);
    assert_eq!(device.report_cancel(1, "closed", "failure").status, 410);
    assert_eq!(device.link("cancelAction"), None);
    assert_eq!(
        device.get("/cancelAction/1").status,
        200,
        "it was cancelled"
    );
    let detail = world.get("/api/v1/devices/dev1").json();
    assert_eq!(detail["history"][0]["status"], "cancelled");
}

#[test]
fn a_device_past_the_point_refuses_the_cancellation_and_goes_on() {
    let world = World::new();
    let device = assigned(&world);
    device.get("/deploymentBase/1").expect(200);
    world
        .post("/api/v1/rollouts/1/abort", &json!({}))
        .expect(200);
    device.report_cancel(1, "rejected", "none").expect(200);
    assert_eq!(device.action(), 1);
    device
        .report(1, "closed", "success", "too late")
        .expect(200);
    assert_eq!(world.rollout_state(1).0, "aborted");
    let detail = world.get("/api/v1/devices/dev1").json();
    assert_eq!(detail["device"]["update"], "in-sync");
}

#[test]
fn a_gateway_may_act_as_any_device_only_when_it_is_switched_on() {
    let world = World::with(|config| config.gateway_token = Some("s3cret".into()));
    let poll = |id: &str, token: &str| {
        world
            .call("GET", &format!("/default/controller/v1/{id}"))
            .header("authorization", &format!("GatewayToken {token}"))
            .send()
    };
    assert_eq!(poll("new1", "wrong").status, 401);
    assert_eq!(poll("new1", "").status, 401);
    assert_eq!(poll("new1", "s3cret").status, 200);
    assert_eq!(
        world.get("/api/v1/devices/new1").json()["device"]["state"],
        "online"
    );
    // Guessing is slowed, also for whoever guesses right after many wrong tries.
    for _ in 0..10 {
        assert_eq!(poll("new1", "wrong").status, 401);
    }
    assert_eq!(poll("new1", "s3cret").status, 401);
    world.pass(60);
    assert_eq!(poll("new1", "s3cret").status, 200);
    let without = World::with(|config| config.gateway_token = Some(String::new()));
    let call = without.call("GET", "/default/controller/v1/new1");
    assert_eq!(
        call.header("authorization", "GatewayToken ").send().status,
        401
    );
}
