//! Rollouts: groups, pauses, silence, restarts.

use serde_json::{Value, json};

use crate::world::{Device, PLATFORM, World};

fn fleet<'w>(world: &'w World, ids: &[&str]) -> Vec<Device<'w>> {
    world.artifact("fw", "1.0", b"one");
    world.artifact("fw", "2.0", b"two");
    ids.iter().map(|id| world.device(id)).collect()
}

fn canary() -> Value {
    json!({"artifact": "fw@1.0", "groups": ["1", "100%"], "silence_deadline_s": 600})
}

#[test]
fn a_release_goes_from_the_repository_to_the_device() {
    let world = World::new();
    world.publish("1.0.0");
    world.publish("1.1.0");
    let releases = world.get("/api/v1/releases").expect(200).json();
    let versions: Vec<&str> = releases
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1.0.0", "1.1.0"]);
    assert_eq!(releases[1]["deltas"], 1);

    let device = world.device_of("gw-1", Some(PLATFORM));
    let _other_platform = world.device_of("gw-2", Some("linux-aarch64"));
    let _no_platform = world.device("swupdate-1");
    let id = world.rollout(&json!({"release": "app@1.1.0"}));
    let shown = world.get(&format!("/api/v1/rollouts/{id}")).json();
    assert_eq!(shown["devices"].as_array().unwrap().len(), 1);

    let base = device.get("/deploymentBase/1").expect(200).json();
    let chunk = &base["deployment"]["chunks"][0];
    insta::assert_snapshot!(chunk["metadata"], @r#"[{"key":"pytheas.target","value":"app/1.1.0/linux-x86_64/release.json"},{"key":"pytheas.format","value":"1"}]"#);
    assert_eq!(chunk["part"], "bApp");
    let document = device
        .get("/softwaremodules/1/artifacts/release.json")
        .expect(200);
    assert_eq!(document.json()["version"], "1.1.0");
    for code in 1..=4 {
        let body = json!({"status": {"execution": "proceeding", "code": code,
            "result": {"finished": "none"}}});
        device
            .call("POST", "/deploymentBase/1/feedback")
            .json(&body)
            .send()
            .expect(200);
        let status = world.get("/api/v1/devices/gw-1").json()["device"]["action"]["status"].clone();
        let expected = ["downloading", "installing", "installing", "probation"][code - 1];
        assert_eq!(status, expected);
    }
    device
        .report(1, "closed", "success", "runs `app@1.1.0`")
        .expect(200);
    assert_eq!(world.rollout_state(id).0, "finished");
    let data =
        json!({"mode": "replace", "data": {"pytheas.release": "app@1.1.0", "pytheas.tree": "ab"}});
    device
        .call("PUT", "/configData")
        .json(&data)
        .send()
        .expect(200);
    let shown = world.get("/api/v1/devices/gw-1").json()["device"].clone();
    assert_eq!(
        (&shown["release"], &shown["update"]),
        (&json!("app@1.1.0"), &json!("in-sync"))
    );
}

#[test]
fn requests_that_cannot_be_carried_out_say_why() {
    let world = World::new();
    let start = |body: Value| world.post("/api/v1/rollouts", &body).shown();
    insta::assert_snapshot!(start(json!({"release": "app@1.0.0"})), @r#"
    404
    content-type: application/json
    content-length: 115

    {
      "error": {
        "code": "unknown-release",
        "help": "nothing called `app` was published",
        "message": "no release `app@1.0.0`"
      }
    }
    "#);
    world.publish("1.0.0");
    world.publish("1.1.0");
    insta::assert_snapshot!(start(json!({"release": "app@9.9.9"})), @r#"
    404
    content-type: application/json
    content-length: 112

    {
      "error": {
        "code": "unknown-release",
        "help": "of `app` there are 1.0.0, 1.1.0",
        "message": "no release `app@9.9.9`"
      }
    }
    "#);
    insta::assert_snapshot!(start(json!({"release": "app@1.0.0"})), @r#"
    422
    content-type: application/json
    content-length: 114

    {
      "error": {
        "code": "invalid",
        "help": "it is there for linux-x86_64",
        "message": "no accepted device fits `app@1.0.0`"
      }
    }
    "#);
    world.device_of("pi", Some("linux-aarch64"));
    insta::assert_snapshot!(start(json!({"release": "app@1.0.0", "devices": ["pi"]})), @r#"
    422
    content-type: application/json
    content-length: 135

    {
      "error": {
        "code": "invalid",
        "help": "it is there for linux-x86_64",
        "message": "`app@1.0.0` does not fit the device `pi` (linux-aarch64)"
      }
    }
    "#);
    insta::assert_snapshot!(start(json!({"release": "app@1.0.0", "devices": ["nobody"]})), @r#"
    422
    content-type: application/json
    content-length: 101

    {
      "error": {
        "code": "invalid",
        "help": "`pytheas device list` shows them",
        "message": "no device `nobody`"
      }
    }
    "#);
    insta::assert_snapshot!(start(json!({"artifact": "fw@1"})), @r#"
    404
    content-type: application/json
    content-length: 123

    {
      "error": {
        "code": "unknown-artifact",
        "help": "upload it: `POST /api/v1/artifacts/fw/1/FILE`",
        "message": "no artifact `fw@1`"
      }
    }
    "#);
    for (body, word) in [
        (json!({}), "either"),
        (
            json!({"release": "app@1.0.0", "artifact": "fw@1"}),
            "either",
        ),
        (json!({"release": "app"}), "release"),
        (
            json!({"release": "app@1.0.0", "groups": ["x"]}),
            "group size",
        ),
        (json!({"release": "app@1.0.0", "groups": []}), "1 to 500"),
        (
            json!({"release": "app@1.0.0", "groups": ["50%", "50%"]}),
            "no further",
        ),
        (
            json!({"release": "app@1.0.0", "success_threshold": 101}),
            "101%",
        ),
        (
            json!({"release": "app@1.0.0", "silence_deadline_s": 0}),
            "silence",
        ),
        (
            json!({"release": "app@1.0.0", "sucess_threshold": 1}),
            "sucess_threshold",
        ),
    ] {
        let reply = world.post("/api/v1/rollouts", &body).expect(422);
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(world.get("/api/v1/rollouts").json(), json!([]));
}

#[test]
fn an_expired_or_damaged_repository_starts_nothing() {
    let world = World::new();
    world.publish("1.0.0");
    world.device_of("gw-1", Some(PLATFORM));
    world.pass(8 * 24 * 3600);
    let reply = world
        .post("/api/v1/rollouts", &json!({"release": "app@1.0.0"}))
        .expect(503);
    let message = reply.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("timestamp") && message.contains("expired"),
        "{message}"
    );

    let world = World::new();
    world.publish("1.0.0");
    let targets = world.dir.path().join("data/repo/metadata/1.targets.json");
    let text = std::fs::read_to_string(&targets)
        .unwrap()
        .replace("1.0.0", "6.6.6");
    std::fs::write(&targets, text).unwrap();
    let reply = world.get("/api/v1/releases").expect(503);
    assert_eq!(reply.json()["error"]["code"], "repository");
}

#[test]
fn groups_open_one_after_another() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b", "c"]);
    let id = world.rollout(&canary());
    assert_eq!(devices[1].link("deploymentBase"), None, "its group waits");
    devices[0].succeed();
    assert!(devices[1].link("deploymentBase").is_some());
    devices[1].succeed();
    devices[2].succeed();
    let shown = world.get(&format!("/api/v1/rollouts/{id}")).json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown["rollout"]).unwrap(), @r#"
    {
      "created_by": "first",
      "created_ms": 1780000000000,
      "ended_ms": 1780000000000,
      "error_threshold": 0,
      "groups": [
        {
          "active": 0,
          "cancelled": 0,
          "failed": 0,
          "size": "1",
          "state": "done",
          "succeeded": 1,
          "total": 1,
          "waiting": 0
        },
        {
          "active": 0,
          "cancelled": 0,
          "failed": 0,
          "size": "100%",
          "state": "done",
          "succeeded": 2,
          "total": 2,
          "waiting": 0
        }
      ],
      "id": 1,
      "is_artifact": true,
      "release": "fw@1.0",
      "silence_deadline_s": 600,
      "state": "finished",
      "success_threshold": 100
    }
    "#);
}

#[test]
fn a_failed_canary_pauses_the_rollout_with_its_reason() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b"]);
    let id = world.rollout(&canary());
    devices[0].fail("not ready after 60 s\nTraceback (most recent call last):\nKeyError: 'x'");
    let (state, reason) = world.rollout_state(id);
    assert_eq!(state, "paused");
    insta::assert_snapshot!(reason, @"`a` failed: not ready after 60 s (group 1: 1 of 1 failed, 0% allowed)");
    assert_eq!(devices[1].link("deploymentBase"), None);
    let detail = world.get("/api/v1/devices/a").json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&detail["history"]).unwrap(), @r#"
    [
      {
        "created_ms": 1780000000000,
        "id": 1,
        "message": "not ready after 60 s",
        "messages": [
          {
            "at_ms": 1780000000000,
            "details": [
              "the device has read its assignment"
            ],
            "status": "retrieved"
          },
          {
            "at_ms": 1780000000000,
            "details": [
              "not ready after 60 s",
              "Traceback (most recent call last):",
              "KeyError: 'x'"
            ],
            "status": "failed"
          }
        ],
        "release": "fw@1.0",
        "rollout": 1,
        "status": "failed",
        "updated_ms": 1780000000000
      }
    ]
    "#);
    assert_eq!(detail["device"]["update"], "error");

    world
        .post(&format!("/api/v1/rollouts/{id}/resume"), &json!({}))
        .expect(200);
    devices[1].succeed();
    assert_eq!(world.rollout_state(id).0, "finished");
}

#[test]
fn a_paused_rollout_starts_nothing_until_it_is_resumed() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b"]);
    let id = world.rollout(&canary());
    world
        .post(&format!("/api/v1/rollouts/{id}/pause"), &json!({}))
        .expect(200);
    devices[0].succeed();
    assert_eq!(devices[1].link("deploymentBase"), None);
    assert_eq!(
        world.rollout_state(id),
        ("paused".into(), "by first".into())
    );
    world
        .post(&format!("/api/v1/rollouts/{id}/resume"), &json!({}))
        .expect(200);
    assert!(devices[1].link("deploymentBase").is_some());
    world
        .post("/api/v1/rollouts/77/pause", &json!({}))
        .expect(404);
}

#[test]
fn silence_counts_as_failure() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b"]);
    let id = world.rollout(&canary());
    let action = devices[0].action();
    devices[0]
        .get(&format!("/deploymentBase/{action}"))
        .expect(200);
    world.pass(599);
    devices[0]
        .report(action, "proceeding", "none", "still here")
        .expect(200);
    world.pass(599);
    devices[0].poll();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(world.rollout_state(id).0, "running");
    world.pass(2);
    world.wait_until("the rollout pauses", || {
        world.rollout_state(id).0 == "paused"
    });
    let reason = world.rollout_state(id).1;
    assert!(
        reason.starts_with("`a` failed: silent for 10 min"),
        "{reason}"
    );
    assert_eq!(
        devices[0]
            .report(action, "closed", "success", "late")
            .status,
        410
    );
}

#[test]
fn a_restarted_hub_goes_on_where_it_was() {
    let mut world = World::new();
    let tokens: Vec<(String, String)> = fleet(&world, &["a", "b", "c"])
        .into_iter()
        .map(|device| (device.id, device.token))
        .collect();
    let device = |world: &World, n: usize, work: &dyn Fn(&Device<'_>)| {
        let (id, token) = tokens[n].clone();
        work(&Device {
            world,
            id,
            token,
            tenant: "default",
        });
    };
    let id = world.rollout(&canary());
    device(&world, 0, &|device| {
        device.get("/deploymentBase/1").expect(200);
    });
    world.restart();
    assert_eq!(world.hub().first_token(), None, "told once");
    device(&world, 1, &|device| {
        assert_eq!(device.link("deploymentBase"), None)
    });
    device(&world, 0, &|device| {
        device.report(1, "closed", "success", "done").expect(200);
    });
    world.restart();
    device(&world, 0, &|device| {
        device.report(1, "closed", "success", "done").expect(200);
    });
    device(&world, 1, &|device| {
        device.succeed();
    });
    world.restart();
    device(&world, 2, &|device| {
        device.fail("broken");
    });
    let paused = world.rollout_state(id);
    assert!(paused.1.contains("`c` failed: broken"), "{paused:?}");
    let group = |world: &World, n: usize| {
        let shown = world.get(&format!("/api/v1/rollouts/{id}")).json();
        shown["rollout"]["groups"][n]["state"].clone()
    };
    assert_eq!(
        (group(&world, 0), group(&world, 1)),
        ("done".into(), "failed".into())
    );
    world.restart();
    assert_eq!(world.rollout_state(id), paused);
    world
        .post(&format!("/api/v1/rollouts/{id}/resume"), &json!({}))
        .expect(200);
    assert_eq!(world.rollout_state(id).0, "finished");
    assert_eq!(group(&world, 1), "done", "a person accepted the failure");
}

#[test]
fn the_silence_deadline_counts_from_the_last_report_even_after_a_restart() {
    let mut world = World::new();
    let _devices = fleet(&world, &["a"]).len();
    let id = world.rollout(&json!({"artifact": "fw@1.0", "silence_deadline_s": 600}));
    world.pass(300);
    world.restart();
    world.pass(301);
    world.wait_until("the rollout pauses", || {
        world.rollout_state(id).0 == "paused"
    });
}

#[test]
fn an_older_rollout_does_not_take_back_what_a_newer_one_brought() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b"]);
    let old = world.rollout(&canary());
    let new = world.rollout(&json!({"artifact": "fw@2.0", "devices": ["b"]}));
    assert_eq!(devices[1].action(), 2);
    devices[0].succeed();
    assert_eq!(world.rollout_state(old).0, "finished", "b left it");
    assert_eq!(devices[1].action(), 2, "not the old release");
    devices[1].succeed();
    assert_eq!(world.rollout_state(new).0, "finished");
    let shown = world.get("/api/v1/devices/b").json()["device"]["release"].clone();
    assert_eq!(shown, "fw@2.0");
}

#[test]
fn a_removed_device_leaves_its_rollouts() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b"]);
    let id = world.rollout(&canary());
    world
        .call("DELETE", "/api/v1/devices/a")
        .bearer(&world.admin)
        .send()
        .expect(204);
    assert_eq!(devices[0].get("").status, 401);
    // It was the canary: nothing is proved, and a person has to say whether to go on.
    assert_eq!(world.rollout_state(id).0, "paused");
    assert_eq!(devices[1].link("deploymentBase"), None);
    world
        .post(&format!("/api/v1/rollouts/{id}/resume"), &json!({}))
        .expect(200);
    devices[1].succeed();
    assert_eq!(world.rollout_state(id).0, "finished");
}

#[test]
fn chosen_devices_are_taken_in_their_order() {
    let world = World::new();
    let devices = fleet(&world, &["a", "b", "c"]);
    let body = json!({"artifact": "fw@1.0", "groups": ["1", "100%"], "devices": ["c", "a"]});
    world.rollout(&body);
    assert!(devices[2].link("deploymentBase").is_some());
    assert_eq!(devices[0].link("deploymentBase"), None);
    assert_eq!(devices[1].link("deploymentBase"), None);
}

#[test]
fn an_older_rollout_never_takes_devices_from_a_newer_one() {
    let world = World::new();
    let fleet = fleet(&world, &["d1", "d2", "d3"]);
    let old = world.rollout(&canary());
    // Everybody at once: the canary of the old rollout among them.
    let new = world.rollout(&json!({"artifact": "fw@2.0"}));
    let (state, reason) = world.rollout_state(old);
    assert_eq!(state, "paused", "{reason}");
    for device in &fleet {
        let action = device.action();
        let base = device.get(&format!("/deploymentBase/{action}")).json();
        assert_eq!(base["deployment"]["chunks"][0]["version"], "2.0");
    }
    // Also when a person lets the old one go on.
    world
        .post(&format!("/api/v1/rollouts/{old}/resume"), &json!({}))
        .expect(200);
    for device in &fleet {
        device.succeed();
        assert_eq!(device.link("deploymentBase"), None, "one assignment only");
    }
    assert_eq!(world.rollout_state(new).0, "finished");
    assert_eq!(world.rollout_state(old).0, "finished");
}

#[test]
fn what_has_ended_takes_no_commands() {
    let world = World::new();
    let fleet = fleet(&world, &["d1", "d2"]);
    let aborted = world.rollout(&json!({"artifact": "fw@1.0", "devices": ["d1"]}));
    let command =
        |id: i64, verb: &str| world.post(&format!("/api/v1/rollouts/{id}/{verb}"), &json!({}));
    command(aborted, "abort").expect(200);
    command(aborted, "abort").expect(200); // the answer may have been lost
    let finished = world.rollout(&json!({"artifact": "fw@1.0", "devices": ["d2"]}));
    fleet[1].succeed();
    for (id, verb) in [
        (aborted, "resume"),
        (finished, "pause"),
        (finished, "abort"),
    ] {
        let reply = command(id, verb).expect(409);
        assert_eq!(reply.json()["error"]["code"], "rollout-over", "{verb}");
    }
}
