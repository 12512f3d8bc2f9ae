//! Pages in a real browser: the dashboard (log in, see the fleet, see it change without a reload),
//! and the treemap of a build's sizes.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json as object};

use crate::common::{GOOD, Hub, Running, json, ok, pytheas, script_tree, wait_for};

/// A browser, spoken to in the W3C WebDriver protocol.
struct Browser {
    session: String,
    _driver: Running,
}

impl Browser {
    fn start(home: &Path) -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let mut command = Command::new("chromedriver");
        let driver = Running::start(
            command.arg(format!("--port={port}")),
            &home.join("chromedriver.log"),
        );
        let base = format!("http://127.0.0.1:{port}");
        wait_for("chromedriver", Duration::from_secs(20), || {
            ureq::get(format!("{base}/status")).call().ok().map(|_| ())
        });
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = object!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Self {
            session: format!("{base}/session"),
            _driver: driver,
        };
        let answer = browser.post("", &wanted);
        let id = answer["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {answer}"));
        browser.session = format!("{base}/session/{id}");
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        let mut answer = ureq::Agent::from(config)
            .post(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .send(body.to_string())
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value["value"].take()
    }

    fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &object!({"script": script, "args": []}))
    }

    /// What a person reads on the page.
    fn text(&self) -> String {
        self.script("return document.body.innerText")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn element(&self, css: &str) -> String {
        let found = self.post(
            "/element",
            &object!({"using": "css selector", "value": css}),
        );
        let id = found
            .as_object()
            .and_then(|map| map.values().next()?.as_str());
        id.unwrap_or_else(|| panic!("no `{css}` on the page: {}", self.text()))
            .to_owned()
    }

    fn click(&self, css: &str) {
        let element = self.element(css);
        let answer = self.post(&format!("/element/{element}/click"), &object!({}));
        assert!(answer.is_null(), "{answer}");
    }

    /// What the page and the browser wrote to the console.
    fn console(&self) -> Value {
        self.post("/se/log", &object!({"type": "browser"}))
    }

    fn close(&self) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        let _gone = ureq::Agent::from(config).delete(&self.session).call();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.close();
    }
}

fn has_browser() -> bool {
    let have = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let both = have("chromedriver") && have("chromium");
    if !both {
        testkit::skip("Debian's `chromium` and `chromium-driver` are not installed");
    }
    both
}

#[test]
fn the_treemap_of_a_build_shows_its_packages_and_zooms_into_one() {
    if !has_browser() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let project = home.path().join("plants");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(
        project.join("main.py"),
        "import idna\nprint(idna.encode('a'))\n",
    )
    .unwrap();
    std::fs::write(project.join("requirements.txt"), "idna==3.7\n").unwrap();
    ok(pytheas(home.path()).arg("build").arg(&project));
    let page = home.path().join("sizes.html");
    ok(pytheas(home.path())
        .args(["check", "--treemap"])
        .arg(&page)
        .arg("-C")
        .arg(&project));

    let browser = Browser::start(home.path());
    let address = format!("file://{}", page.display());
    browser.post("/url", &object!({"url": address}));
    assert!(browser.text().contains("plants"), "{}", browser.text());
    let packages = browser.script(
        "return [...document.querySelectorAll('section>button')].map(button => button.title)",
    );
    let packages: Vec<&str> = packages
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_str)
        .collect();
    let has = |name: &str| packages.iter().any(|title| title.starts_with(name));
    assert!(
        has("python ") && has("idna ") && has("app "),
        "{packages:?}"
    );

    // What the mouse is over says what it is, and lies within its package.
    let inside = browser.script(
        "const module = document.querySelector('section i'), around = module.closest('section');\
         const [a, b] = [module, around].map(part => part.getBoundingClientRect());\
         const found = document.elementFromPoint(a.x + a.width / 2, a.y + a.height / 2);\
         return [found === module, found.title,\
         a.x >= b.x - 1 && a.right <= b.right + 1 && a.y >= b.y - 1 && a.bottom <= b.bottom + 1]",
    );
    assert_eq!(inside[0], true, "{inside}");
    assert!(inside[1].as_str().unwrap().ends_with('B'), "{inside}");
    assert_eq!(inside[2], true, "{inside}");

    let shown = "return [...document.querySelectorAll('section')]\
                 .filter(part => part.getClientRects().length).length";
    let all = browser.script(shown).as_u64().unwrap();
    assert_eq!(all, packages.len() as u64);
    browser.click("section:has(button[title^='idna ']) button");
    assert_eq!(browser.script(shown), 1);
    let width = "const part = name => document.querySelector(name).getBoundingClientRect().width;\
                 return part('section.on') / part('#map')";
    assert!(browser.script(width).as_f64().unwrap() > 0.99);
    let keys = object!({"actions": [{"type": "key", "id": "keys", "actions": [
        {"type": "keyDown", "value": "\u{e00c}"}, {"type": "keyUp", "value": "\u{e00c}"},
    ]}]});
    browser.post("/actions", &keys);
    assert_eq!(browser.script(shown), all);
    assert_eq!(browser.console(), object!([]));
}

#[test]
fn the_dashboard_shows_the_fleet_and_its_changes_without_a_reload() {
    if !has_browser() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let browser = Browser::start(home.path());

    browser.post("/url", &object!({"url": hub.url}));
    let field = browser.element("#token");
    browser.post(
        &format!("/element/{field}/value"),
        &object!({"text": hub.token}),
    );
    let button = browser.element("form button");
    browser.post(&format!("/element/{button}/click"), &object!({}));
    wait_for("the overview", Duration::from_secs(10), || {
        browser
            .text()
            .to_lowercase()
            .contains("devices")
            .then_some(())
    });
    assert!(
        !browser.text().contains("gateway-seven"),
        "{}",
        browser.text()
    );

    // The mark is gone if the page is loaded again.
    browser.script("window.mark = 'still here'");
    json(&mut hub.pytheas(&["device", "add", "gateway-seven"]));
    let markup = "<img src=x onerror=\"document.title='owned'\">";
    ok(&mut hub.pytheas(&["device", "add", "gw-8", "--name", markup]));
    wait_for("both devices to appear", Duration::from_secs(15), || {
        let text = browser.text();
        (text.contains("gateway-seven") && text.contains(markup)).then_some(())
    });
    assert_eq!(browser.script("return window.mark"), "still here");
    assert_ne!(browser.script("return document.title"), "owned");

    // A rollout that waits for somebody at each device, one device first.
    let tree = home.path().join("1.0");
    script_tree(&tree, "1.0", GOOD);
    hub.publish(&tree);
    for id in ["till-1", "till-2"] {
        let platform = pytheas_release::Platform::host().unwrap();
        let args = ["device", "add", id, "--platform", platform.as_str()];
        json(&mut hub.pytheas(&args));
    }
    browser.post(
        "/url",
        &object!({"url": format!("{}/rollouts/new", hub.url)}),
    );
    browser.click("#confirm");
    std::thread::sleep(Duration::from_millis(500));
    let checked = "return document.querySelector('#confirm').checked";
    assert_eq!(browser.script(checked), true, "nothing updates it in place");
    browser.click("#start");
    wait_for("the rollout's page", Duration::from_secs(15), || {
        browser
            .text()
            .contains("Somebody at each device agrees")
            .then_some(())
    });
    let rollout = json(&mut hub.pytheas(&["rollout", "status", "1"]));
    assert_eq!(rollout["rollout"]["confirm"], true, "{rollout}");
    assert_eq!(rollout["rollout"]["release"], "app@1.0");
    assert_eq!(rollout["rollout"]["groups"].as_array().unwrap().len(), 2);
    let console = browser.console().to_string();
    assert!(!console.contains("SEVERE"), "{console}");
}
