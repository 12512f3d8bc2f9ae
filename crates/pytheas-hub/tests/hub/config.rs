//! Settings: layers, revisions, delivery in a poll's answer, what devices say of them.

use serde_json::{Value, json};

use crate::world::{Device, World};

fn change(world: &World, method: &str, layers: &Value) -> Value {
    let body = json!({"layers": layers});
    let call = world.call(method, "/api/v1/config").bearer(&world.admin);
    call.json(&body).send().expect(200).json()
}

fn says(device: &Device<'_>, data: &Value) {
    let call = device.call("PUT", "/configData");
    call.json(&json!({"mode": "replace", "data": data}))
        .send()
        .expect(200);
}

fn of(world: &World, id: &str) -> Value {
    world
        .get(&format!("/api/v1/devices/{id}/config"))
        .expect(200)
        .json()
}

fn group(world: &World, id: &str, group: &Value) {
    let path = format!("/api/v1/devices/{id}/group");
    let call = world.call("PUT", &path).bearer(&world.admin);
    call.json(&json!({"group": group})).send().expect(200);
}

#[test]
fn settings_that_devices_could_not_read_back_are_refused() {
    let world = World::new();
    let put = |levels: usize| {
        let (begin, end) = ("{\"a\":".repeat(levels), "}".repeat(levels));
        let settings: Value = serde_json::from_str(&format!("{begin}1{end}")).unwrap();
        let call = world.call("PUT", "/api/v1/config").bearer(&world.admin);
        call.json(&json!({"layers": {"all": settings}})).send()
    };
    put(64).expect(200);
    let refused = put(65).expect(422).json();
    assert_eq!(refused["error"]["code"], "too-deep");
}

#[test]
fn a_device_gets_its_layers_merged_once_and_nothing_more_while_it_runs_with_them() {
    let world = World::new();
    let device = world.device("gw-1");
    change(
        &world,
        "PATCH",
        &json!({"all": {"interval": 30, "mqtt": {"host": "a", "port": 1883}}}),
    );
    change(
        &world,
        "PATCH",
        &json!({"group:north": {"mqtt": {"host": "b"}}}),
    );
    change(&world, "PATCH", &json!({"device:gw-1": {"interval": 5}}));
    group(&world, "gw-1", &json!("north"));

    // Who never said that it takes settings gets none: other DDI clients have small buffers.
    assert_eq!(of(&world, "gw-1")["state"], "unsupported");
    says(&device, &json!({"pytheas.agent": "1.0"}));
    let idle = device.get("").expect(200).text();
    assert!(!idle.contains("settings"), "{idle}");

    says(
        &device,
        &json!({"pytheas.agent": "1.0", "pytheas.config": "0"}),
    );
    let poll = device.poll();
    let merged = json!({"interval": 5, "mqtt": {"host": "b", "port": 1883}});
    assert_eq!(poll["config"]["settings"], merged);
    let tag = poll["config"]["revision"].as_str().unwrap().to_owned();
    assert!(tag.starts_with("3-"), "{tag}");
    assert!(
        poll["_links"]["configData"].is_object(),
        "asked what became of it: {poll}"
    );
    assert_eq!(of(&world, "gw-1")["state"], "pending");

    says(
        &device,
        &json!({"pytheas.agent": "1.0", "pytheas.config": tag}),
    );
    assert_eq!(
        device.get("").expect(200).text(),
        idle,
        "as if there were no settings"
    );
    let shown = of(&world, "gw-1");
    assert_eq!(
        (&shown["state"], &shown["settings"]),
        (&json!("applied"), &merged)
    );
    assert_eq!(
        shown["layers"],
        json!(["all", "group:north", "device:gw-1"])
    );

    // Others' settings are not its own; out of its group it gets those without it.
    change(
        &world,
        "PATCH",
        &json!({"group:south": {"interval": 1}, "device:gw-1": {}}),
    );
    assert_eq!(device.get("").expect(200).text(), idle);
    group(&world, "gw-1", &Value::Null);
    let poll = device.poll();
    assert_eq!(poll["config"]["settings"]["mqtt"]["host"], "a");
    assert_ne!(poll["config"]["revision"], json!(tag));
}

#[test]
fn what_a_device_gave_up_is_not_sent_again_until_it_changes() {
    let world = World::new();
    let device = world.device("gw-1");
    change(&world, "PATCH", &json!({"all": {"sensor": "<b>bad</b>"}}));
    says(&device, &json!({"pytheas.config": "0"}));
    let tag = device.poll()["config"]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    let told = json!({"pytheas.config": "0", "pytheas.config-log.0": "KeyError: 'bad'",
        "pytheas.config-refused": format!("{tag} it ended: exit status 3")});
    says(&device, &told);
    assert_eq!(device.poll()["config"]["settings"], Value::Null);
    let shown = of(&world, "gw-1");
    assert_eq!(shown["state"], "refused");
    assert_eq!(
        shown["because"],
        json!(["it ended: exit status 3", "KeyError: 'bad'"])
    );

    let reply = world
        .call("POST", "/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", world.admin))
        .send();
    let cookie = reply
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let page = world
        .call("GET", "/devices/gw-1")
        .header("cookie", &cookie)
        .send();
    let page = page.expect(200).text();
    for text in [
        "Configuration",
        "it went back to the settings before",
        "it ended: exit status 3",
        "KeyError: &#39;bad&#39;",
        "&lt;b&gt;bad&lt;/b&gt;",
    ] {
        assert!(
            page.contains(text) || page.contains(&text.replace("&#39;", "'")),
            "{text}: {page}"
        );
    }

    change(&world, "PATCH", &json!({"all": {"sensor": "good"}}));
    assert_eq!(
        device.poll()["config"]["settings"],
        json!({"sensor": "good"})
    );
}

#[test]
fn each_change_is_a_revision_and_any_can_be_brought_back() {
    let world = World::new();
    let made = change(&world, "PATCH", &json!({"all": {"a": 1}}));
    assert_eq!(
        (&made[0]["revision"], &made[0]["author"]),
        (&json!(1), &json!("first"))
    );
    change(&world, "PATCH", &json!({"all": {"a": 2, "b": {"c": 3}}}));
    assert_eq!(
        change(&world, "PATCH", &json!({"all": {"a": 2}})),
        json!([]),
        "nothing changes"
    );
    change(&world, "PATCH", &json!({"group:north": {"a": 9}}));
    let rollback = |body: Value| world.post("/api/v1/config/rollback", &body);
    let back = rollback(json!({"revision": 1})).expect(200).json();
    assert_eq!(
        (&back["revision"], &back["settings"]),
        (&json!(4), &json!({"a": 1}))
    );
    assert_eq!(back["note"], "back to revision 1");
    rollback(json!({"revision": 1})).expect(409);
    rollback(json!({"revision": 99})).expect(404);
    // At revision 2 there was nothing in the group yet.
    let back = rollback(json!({"revision": 2, "layer": "group:north"}))
        .expect(200)
        .json();
    assert_eq!(back["settings"], json!({}));
    let view = world.get("/api/v1/config").expect(200).json();
    assert_eq!(view, json!({"revision": 5, "layers": {"all": {"a": 1}}}));
    let history = world
        .get("/api/v1/config/history?layer=all")
        .expect(200)
        .json();
    let numbers: Vec<i64> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["revision"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [4, 2, 1]);

    // `null` of an import hides what a layer below says.
    world.device("gw-1");
    change(&world, "PUT", &json!({"device:gw-1": {"a": null, "d": 1}}));
    assert_eq!(of(&world, "gw-1")["settings"], json!({"d": 1}));
    world
        .call("DELETE", "/api/v1/devices/gw-1")
        .bearer(&world.admin)
        .send()
        .expect(204);
    world.device("gw-1");
    assert_eq!(
        of(&world, "gw-1")["settings"],
        json!({"a": 1}),
        "another device by the same id"
    );
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let world = World::new();
    let patch = |layers: Value| {
        let call = world.call("PATCH", "/api/v1/config").bearer(&world.admin);
        call.json(&json!({"layers": layers})).send()
    };
    patch(json!({"all": {"a": 1}, "device:nobody": {"a": 1}})).expect(404);
    patch(json!({"all": {"a": 1}, "group:north": {"text": "x".repeat(70_000)}})).expect(422);
    patch(json!({"al": {"a": 1}})).expect(422);
    patch(json!({"all": [1]})).expect(422);
    let view = world.get("/api/v1/config").expect(200).json();
    assert_eq!(view, json!({"revision": 0, "layers": {}}));
    let viewer = world.token("viewer");
    let call = world.call("PATCH", "/api/v1/config").bearer(&viewer);
    call.json(&json!({"layers": {"all": {"a": 1}}}))
        .send()
        .expect(403);
    world
        .call("GET", "/api/v1/config")
        .bearer(&viewer)
        .send()
        .expect(200);
    world.call("GET", "/api/v1/config").send().expect(401);
}
