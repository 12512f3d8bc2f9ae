//! The dashboard: who gets in, what it shows, what devices cannot do to it.

use serde_json::json;

use crate::{
    wire::{Call, Reply},
    world::World,
};

struct Browser<'w> {
    world: &'w World,
    cookie: String,
}

fn log_in<'w>(world: &'w World, token: &str) -> Result<Browser<'w>, Reply> {
    let reply = world
        .call("POST", "/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={token}"))
        .send();
    match reply.header("set-cookie") {
        Some(cookie) if reply.status == 303 => Ok(Browser {
            world,
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }),
        _ => Err(reply),
    }
}

impl Browser<'_> {
    fn call(&self, method: &str, path: &str) -> Call {
        self.world.call(method, path).header("cookie", &self.cookie)
    }

    fn get(&self, path: &str) -> String {
        self.call("GET", path).send().expect(200).text()
    }

    fn form_word(&self) -> String {
        let page = self.get("/");
        page.split("name=\"word\" value=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    }

    fn press(&self, path: &str, word: &str) -> Reply {
        self.call("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("word={word}"))
            .send()
    }
}

#[test]
fn a_token_is_exchanged_for_a_session_that_ends() {
    let world = World::new();
    let reply = world.call("GET", "/").send();
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, Some("/login"))
    );
    let page = world.call("GET", "/login").send().expect(200);
    assert!(page.text().contains("<input"));
    let reply = world
        .call("POST", "/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", world.admin))
        .send();
    let cookie = reply.header("set-cookie").unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(
        !cookie.contains(&world.admin),
        "the token stays out of the browser"
    );
    let browser = log_in(&world, &world.admin).unwrap();
    assert!(browser.get("/").contains("Log out"));
    world.pass(13 * 3600);
    assert_eq!(
        browser.call("GET", "/").send().status,
        303,
        "after half a day"
    );

    let browser = log_in(&world, &world.admin).unwrap();
    let word = browser.form_word();
    assert_eq!(browser.press("/logout", &word).status, 303);
    assert_eq!(browser.call("GET", "/").send().status, 303);
}

#[test]
fn guessing_tokens_is_slowed_and_publishers_stay_outside() {
    let world = World::new();
    let publisher = world.token("publisher");
    assert_eq!(log_in(&world, &publisher).err().unwrap().status, 403);
    let statuses: Vec<u16> = (0..12)
        .map(|_| log_in(&world, "pyt_guess").err().unwrap().status)
        .collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[11], 429);
    assert_eq!(log_in(&world, &world.admin).err().unwrap().status, 429);
    world.pass(60);
    assert!(log_in(&world, &world.admin).is_ok());
}

#[test]
fn every_page_is_guarded_by_its_headers() {
    let world = World::new();
    let browser = log_in(&world, &world.admin).unwrap();
    for reply in [
        world.call("GET", "/login").send(),
        browser.call("GET", "/").send(),
    ] {
        let policy = reply.header("content-security-policy").unwrap();
        for word in [
            "default-src 'none'",
            "script-src 'sha256-",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(word), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(!reply.text().contains("style=\""), "the policy forbids it");
    }
}

#[test]
fn what_a_device_says_never_becomes_markup() {
    let world = World::new();
    let evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";
    world.artifact("fw", "1.0", b"x");
    let device = world.device("dev1");
    let data = json!({"data": {evil: evil, "pytheas.release": evil, "pytheas.platform": evil}});
    device
        .call("PUT", "/configData")
        .json(&data)
        .send()
        .expect(200);
    world.rollout(&json!({"artifact": "fw@1.0", "devices": ["dev1"]}));
    device.fail(&format!("{evil}\n{evil}\n{evil}"));
    let enrol = json!({"device_id": "dev2", "name": evil, "platform": "linux-x86_64",
        "claim": "a".repeat(64)});
    world
        .call("POST", "/api/v1/enrolment")
        .json(&enrol)
        .send()
        .expect(202);
    let browser = log_in(&world, &world.admin).unwrap();
    for path in ["/", "/devices/dev1", "/devices/dev2", "/rollouts/1"] {
        let page = browser.get(path);
        assert!(page.contains("&lt;script&gt;alert(1)"), "{path} shows it");
        assert!(
            !page.contains("<script>alert") && !page.contains("<img"),
            "{path}: {page}"
        );
        assert!(!page.contains("&\"'"), "{path}");
    }
}

#[test]
fn the_dashboard_tells_what_went_wrong_on_which_device() {
    let world = World::new();
    world.artifact("fw", "1.0", b"x");
    let device = world.device("gw-7");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    device.fail("not ready after 60 s\nTraceback\nKeyError: 'moisture'");
    let browser = log_in(&world, &world.admin).unwrap();
    let page = browser.get("/");
    for text in [
        "What went wrong",
        "gw-7",
        "not ready after 60 s",
        "paused",
        "Resume",
        "Abort",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let page = browser.get("/devices/gw-7");
    for text in ["fw@1.0", "failed", "KeyError: 'moisture'", "<pre"] {
        assert!(page.contains(text), "{text}");
    }
    let error = browser.call("GET", "/devices/nobody").send().expect(404);
    assert_eq!(
        error.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        error.text().contains("no device <code>nobody</code>"),
        "{}",
        error.text()
    );
}

#[test]
fn buttons_work_for_operators_with_their_own_form_only() {
    let world = World::new();
    world.artifact("fw", "1.0", b"x");
    world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    let operator = log_in(&world, &world.token("operator")).unwrap();
    let word = operator.form_word();
    assert_eq!(operator.press("/rollouts/1/pause", "wrong").status, 403);
    let elsewhere = operator
        .call("POST", "/rollouts/1/pause")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site")
        .body(format!("word={word}"))
        .send();
    assert_eq!(elsewhere.status, 403);
    assert_eq!(world.rollout_state(1).0, "running");
    assert_eq!(operator.press("/rollouts/1/pause", &word).status, 303);
    assert_eq!(
        world.rollout_state(1),
        ("paused".into(), "by operator".into())
    );
    assert_eq!(operator.press("/rollouts/1/resume", &word).status, 303);
    assert_eq!(operator.press("/rollouts/1/abort", &word).status, 303);
    assert_eq!(world.rollout_state(1).0, "aborted");

    let enrol = json!({"device_id": "dev2", "platform": "linux-x86_64", "claim": "a".repeat(64)});
    world
        .call("POST", "/api/v1/enrolment")
        .json(&enrol)
        .send()
        .expect(202);
    assert!(operator.get("/").contains("/devices/dev2/accept"));
    assert_eq!(operator.press("/devices/dev2/accept", &word).status, 303);
    assert_eq!(
        world.get("/api/v1/devices/dev2").json()["device"]["state"],
        "accepted"
    );
}

#[test]
fn devices_that_wait_to_be_accepted_stand_first() {
    let world = World::new();
    world.device("a-known-one");
    let enrol = json!({"device_id": "z-new", "platform": "linux-x86_64", "claim": "a".repeat(64)});
    world
        .call("POST", "/api/v1/enrolment")
        .json(&enrol)
        .send()
        .expect(202);
    let page = log_in(&world, &world.admin).unwrap().get("/");
    assert!(page.find("/devices/z-new\"") < page.find("/devices/a-known-one\""));
    assert_eq!(page.matches("/devices/z-new\"").count(), 1);
}

#[test]
fn viewers_see_no_buttons_and_cannot_press_them() {
    let world = World::new();
    world.artifact("fw", "1.0", b"x");
    world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    let viewer = log_in(&world, &world.token("viewer")).unwrap();
    assert!(!viewer.get("/").contains("/rollouts/1/pause"));
    let word = viewer.form_word();
    assert_eq!(viewer.press("/rollouts/1/pause", &word).status, 403);
    assert_eq!(world.rollout_state(1).0, "running");
}

#[test]
fn a_fragment_is_the_page_without_its_frame() {
    let world = World::new();
    world.device("dev1");
    let browser = log_in(&world, &world.admin).unwrap();
    let reply = browser
        .call("GET", "/")
        .header("x-fragment", "1")
        .send()
        .expect(200);
    assert_eq!(reply.header("x-fragment"), Some("1"));
    let text = reply.text();
    assert!(text.contains("dev1") && !text.contains("<html"));
    assert!(browser.get("/").contains(&text), "the same content");
}

#[test]
fn a_session_is_no_token_for_the_api() {
    let world = World::new();
    let browser = log_in(&world, &world.admin).unwrap();
    assert_eq!(browser.call("GET", "/api/v1/devices").send().status, 401);
    assert_eq!(
        browser.call("DELETE", "/api/v1/devices/x").send().status,
        401
    );
}

#[test]
fn revoking_a_token_ends_its_sessions() {
    let world = World::new();
    let viewer = world.token("viewer");
    let browser = log_in(&world, &viewer).unwrap();
    browser.get("/");
    world
        .call("DELETE", "/api/v1/tokens/2")
        .bearer(&world.admin)
        .send()
        .expect(204);
    assert_eq!(browser.call("GET", "/").send().status, 303);
}

#[test]
fn a_rollout_is_started_on_its_page_by_operators() {
    let world = World::new();
    world.publish("1.0.0");
    world.device_of("gw", Some(crate::world::PLATFORM));
    let browser = log_in(&world, &world.admin).unwrap();
    let page = browser.get("/rollouts/new");
    assert!(page.contains("<option value=\"app@1.0.0\">"), "{page}");
    assert!(page.contains("type=\"checkbox\" name=\"confirm\""));
    let word = browser.form_word();
    let start = |browser: &Browser<'_>, word: &str, release: &str, groups: &str| {
        let body = format!("{word}&release={release}&groups={groups}&confirm=true");
        browser.press("/rollouts/new", &body)
    };
    for (release, groups, status) in [
        ("app%409.9", "1", 404),
        ("app", "1", 422),
        ("app%401.0.0", "many", 422),
    ] {
        let reply = start(&browser, &word, release, groups);
        assert_eq!(reply.status, status, "{release} {groups}");
    }
    assert_eq!(start(&browser, "wrong", "app%401.0.0", "1").status, 403);
    let reply = start(&browser, &word, "app%401.0.0", "1%2C+100%25");
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, Some("/rollouts/1"))
    );
    let rollout = world.get("/api/v1/rollouts/1").expect(200).json();
    assert_eq!(rollout["rollout"]["confirm"], true);

    let viewer = log_in(&world, &world.token("viewer")).unwrap();
    assert!(!viewer.get("/").contains("/rollouts/new"));
    assert_eq!(viewer.call("GET", "/rollouts/new").send().status, 403);
}
