//! The dashboard in a real browser: log in, see the fleet, see it change without a reload.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json as object};

use crate::common::{Hub, Running, json, ok, wait_for};

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

#[test]
fn the_dashboard_shows_the_fleet_and_its_changes_without_a_reload() {
    let have = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !have("chromedriver") || !have("chromium") {
        return testkit::skip("Debian's `chromium` and `chromium-driver` are not installed");
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
}
