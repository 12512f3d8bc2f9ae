//! DDI's confirmation flow: somebody at the device agrees before anything is fetched.

use serde_json::json;

use crate::world::{Device, World};

fn asked(world: &World) -> Device<'_> {
    world.artifact("fw", "1.0", b"0123456789");
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0", "confirm": true}));
    device
}

fn say(device: &Device<'_>, action: i64, word: &str) -> u16 {
    let below = format!("/confirmationBase/{action}/feedback");
    let body = json!({"confirmation": word, "code": 1, "details": ["at the till"]});
    device.call("POST", &below).json(&body).send().status
}

#[test]
fn an_update_waits_until_somebody_at_the_device_has_confirmed_it() {
    let world = World::new();
    let device = asked(&world);
    let links = device.poll()["_links"].clone();
    assert!(links["deploymentBase"].is_null(), "{links}");
    let href = links["confirmationBase"]["href"].as_str().unwrap();
    assert!(href.ends_with("/dev1/confirmationBase/1?c=1"), "{href}");

    // Nothing of it before that.
    assert_eq!(device.get("/deploymentBase/1").status, 404);
    assert_eq!(device.report(1, "proceeding", "none", "x").status, 404);
    let base = device.get("/confirmationBase/1?c=1&actionHistory=5").json();
    assert_eq!(base["id"], "1");
    assert_eq!(base["confirmation"]["chunks"][0]["name"], "fw");
    let root = device.get("/confirmationBase").json();
    assert_eq!(root["autoConfirm"], json!({"active": false}));
    assert_eq!(root["_links"]["confirmationBase"]["href"], href);
    assert!(root["_links"]["activateAutoConfirm"].is_object(), "{root}");

    assert_eq!(say(&device, 1, "maybe"), 400);
    assert_eq!(say(&device, 2, "confirmed"), 404);
    assert_eq!(say(&device, 1, "denied"), 200);
    assert!(
        device.link("confirmationBase").is_some(),
        "it goes on waiting"
    );
    let shown = world.get("/api/v1/rollouts/1").json();
    assert_eq!(shown["rollout"]["confirm"], true);
    assert_eq!(shown["devices"][0]["status"], "unconfirmed");
    assert_eq!(
        shown["devices"][0]["message"],
        "denied at the device: at the till"
    );

    assert_eq!(say(&device, 1, "confirmed"), 200);
    assert_eq!(say(&device, 1, "confirmed"), 404, "it waits no longer");
    assert!(device.link("confirmationBase").is_none());
    // Somebody thinks better of it before the device has looked.
    assert_eq!(say(&device, 1, "denied"), 200);
    assert!(device.link("deploymentBase").is_none());
    assert_eq!(say(&device, 1, "confirmed"), 200);
    assert_eq!(device.get("/deploymentBase/1").status, 200);
    assert_eq!(say(&device, 1, "denied"), 404, "too late");
    assert_eq!(device.report(1, "closed", "success", "done").status, 200);
    assert_eq!(say(&device, 1, "confirmed"), 410);
    assert_eq!(world.rollout_state(1).0, "finished");
}

#[test]
fn a_device_may_agree_by_itself_from_now_on() {
    let world = World::new();
    let device = asked(&world);
    let auto = |verb: &str, body: &serde_json::Value| {
        let below = format!("/confirmationBase/{verb}");
        device.call("POST", &below).json(body).send().status
    };
    let who = json!({"initiator": "shop 7", "remark": "closed at night"});
    assert_eq!(auto("activateAutoConfirm", &who), 200);
    assert_eq!(auto("activateAutoConfirm", &who), 409);
    assert!(
        device.link("deploymentBase").is_some(),
        "what waited goes on"
    );
    let root = device.get("/confirmationBase").json();
    assert_eq!(root["autoConfirm"]["initiator"], "shop 7");
    assert!(root["autoConfirm"]["activatedAt"].is_i64(), "{root}");
    assert!(
        root["_links"]["deactivateAutoConfirm"].is_object(),
        "{root}"
    );
    device.succeed();

    world.artifact("fw", "2.0", b"another");
    let next = json!({"artifact": "fw@2.0", "confirm": true});
    world.rollout(&next);
    assert_eq!(device.link("confirmationBase"), None);
    device.succeed();

    assert_eq!(auto("deactivateAutoConfirm", &json!({})), 200);
    world.artifact("fw", "3.0", b"yet another");
    world.rollout(&json!({"artifact": "fw@3.0", "confirm": true}));
    assert!(device.link("confirmationBase").is_some());
    // Taken back, it is over at once: the device has not begun anything.
    world.post("/api/v1/rollouts/3/abort", &json!({}));
    assert_eq!(device.link("confirmationBase"), None);
    assert_eq!(device.link("cancelAction"), None);
}

#[test]
fn who_says_nothing_until_the_deadline_has_failed() {
    let world = World::new();
    world.artifact("fw", "1.0", b"0123456789");
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0", "confirm": true, "silence_deadline_s": 60}));
    device.poll();
    world.pass(61);
    world.wait_until("it is given up", || world.rollout_state(1).0 != "running");
    assert_eq!(device.link("confirmationBase"), None);
    assert_eq!(say(&device, 1, "confirmed"), 410);
}
