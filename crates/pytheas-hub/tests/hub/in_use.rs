//! What devices say they run, counted for those who publish.

use serde_json::json;

use crate::world::World;

fn shown(world: &World, query: &str) -> String {
    let path = format!("/api/v1/releases/in-use{query}");
    let views = world.get(&path).expect(200).json();
    let views = views.as_array().unwrap().iter();
    let line = |view: &serde_json::Value| {
        let text = |key: &str| view[key].as_str().unwrap_or("?").to_owned();
        let (release, platform) = (text("release"), text("platform"));
        format!("{} {release} {platform}", view["devices"])
    };
    views.map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn releases_in_use_are_counted_by_platform_the_most_used_first() {
    let world = World::new();
    let say = |id: &str, platform: &str, data: serde_json::Value| {
        let device = world.device_of(id, Some(platform));
        let body = json!({"mode": "merge", "data": data});
        device
            .call("PUT", "/configData")
            .json(&body)
            .send()
            .expect(200);
    };
    let app = |version: &str| json!({"pytheas.release": format!("app@{version}")});
    say("a", "linux-x86_64", app("1.0"));
    say("b", "linux-aarch64", app("1.0"));
    say("c", "linux-x86_64", app("1.1"));
    say(
        "d",
        "linux-x86_64",
        json!({
            "pytheas.release": "app@1.1",
            "pytheas.component.broker": "broker@2.0",
            "pytheas.component.node": "node@7",
            "pytheas.board-app.node": "micropython-armv7m",
        }),
    );
    say(
        "odd",
        "linux-x86_64",
        json!({"pytheas.release": "app'; --"}),
    );
    say(
        "apple",
        "linux-x86_64",
        json!({"pytheas.release": "apple@1.1"}),
    );
    world.device("silent");
    insta::assert_snapshot!(shown(&world, ""), @"
    2 app@1.1 linux-x86_64
    1 app'; -- linux-x86_64
    1 app@1.0 linux-aarch64
    1 app@1.0 linux-x86_64
    1 apple@1.1 linux-x86_64
    1 broker@2.0 linux-x86_64
    1 node@7 micropython-armv7m
    ");
    insta::assert_snapshot!(shown(&world, "?name=app&platform=linux-x86_64"), @"
    2 app@1.1 linux-x86_64
    1 app@1.0 linux-x86_64
    ");
    assert_eq!(shown(&world, "?name=%25"), "");
}

#[test]
fn who_publishes_may_ask_what_is_in_use_and_nothing_else_of_the_devices() {
    let world = World::new();
    let ask = |token: &str, path: &str| world.call("GET", path).bearer(token).send().status;
    for role in ["publisher", "viewer", "operator"] {
        let token = world.token(role);
        assert_eq!(ask(&token, "/api/v1/releases/in-use"), 200, "{role}");
    }
    assert_eq!(ask(&world.token("publisher"), "/api/v1/devices"), 403);
    assert_eq!(ask("pyt_wrong", "/api/v1/releases/in-use"), 401);
}
