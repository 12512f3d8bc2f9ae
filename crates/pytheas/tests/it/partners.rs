//! The real programs on the way between a device and its hub: tinyproxy with and without a password,
//! TLS through its CONNECT, a device's own certificate, pins while the hub changes its key, a slow
//! line, consent, and a proxy that goes away. Skips without tinyproxy and OpenSSL.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{GOOD, Hub, Running, json, ok, pytheas, script_tree, shown, wait_for};

const LONG: Duration = Duration::from_secs(120);

/// A hub with TLS that knows devices by their certificates, and what is needed to get there.
struct Site {
    dir: tempfile::TempDir,
    hub: Hub,
    port: u16,
}

fn openssl(dir: &Path, args: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(dir);
    command.output().is_ok_and(|output| output.status.success())
}

impl Site {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let new = "req -x509 -nodes -days 30 -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        let leaf = "-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
        let mut ready = Command::new("tinyproxy").arg("-v").output().is_ok()
            && openssl(
                dir.path(),
                &format!("{new} -subj /CN=ca -keyout ca.key -out ca.crt"),
            );
        for (name, cn) in [("hub", "hub"), ("next", "hub"), ("gw", "gw")] {
            let alt = "-addext subjectAltName=IP:127.0.0.1";
            let make =
                format!("{new} -subj /CN={cn} -keyout {name}.key -out {name}.crt {leaf} {alt}");
            ready = ready && openssl(dir.path(), &make);
        }
        if !ready {
            testkit::skip("no tinyproxy and openssl");
            return None;
        }
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (cert, key, ca) = (path("hub.crt"), path("hub.key"), path("ca.crt"));
        let tls = [
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &ca,
        ];
        let hub = Hub::start_with(dir.path(), &tls, Some(dir.path().join("ca.crt")));
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        Some(Self { dir, hub, port })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts tinyproxy; with `login` it wants that name and password.
    fn proxy(&self, login: &str) -> Running {
        let log = self.path("proxy.log");
        let login = match login.is_empty() {
            true => String::new(),
            false => format!("BasicAuth {login}\n"),
        };
        let text = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Connect\n\
             LogFile \"{}\"\nAllow 127.0.0.1\n{login}",
            self.port,
            log.display()
        );
        fs::write(self.path("proxy.conf"), text).unwrap();
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c"]).arg(self.path("proxy.conf"));
        let running = Running::start(&mut command, &self.path("proxy.out"));
        wait_for("the proxy", LONG, || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        running
    }

    /// How often the proxy was asked for a way to the hub.
    fn ways(&self) -> usize {
        let log = fs::read_to_string(self.path("proxy.log")).unwrap_or_default();
        let hub = self
            .hub
            .url
            .trim_start_matches("https://")
            .trim_end_matches('/');
        log.matches(&format!("CONNECT {hub} ")).count()
    }

    /// SHA-256 of the public key in a certificate, as pins have it.
    fn pin(&self, name: &str) -> String {
        let pem = format!("x509 -in {name}.crt -pubkey -noout -out {name}.pub");
        let der = format!("pkey -pubin -in {name}.pub -outform DER -out {name}.der");
        assert!(openssl(self.dir.path(), &pem) && openssl(self.dir.path(), &der));
        let der = fs::read(self.path(&format!("{name}.der"))).unwrap();
        pytheas_release::Sha256::of(&der).to_string()
    }

    /// An agent of the device `gw` with these further settings.
    fn agent(
        &self,
        state: &str,
        login: &str,
        pins: &[&str],
        more: &str,
        words: &[&str],
    ) -> Command {
        let settings = format!(
            "proxy.url = \"http://{login}127.0.0.1:{}\"\n{more}\n[tls]\nca = \"ca.crt\"\n\
             certificate = \"gw.crt\"\nkey = \"gw.key\"\npins = {pins:?}\n",
            self.port
        );
        let file = self.path(&format!("{state}.toml"));
        fs::write(&file, settings).unwrap();
        let mut command = pytheas(self.dir.path());
        command.args(["agent", "run", "--id", "gw", "--poll-interval", "500ms"]);
        command
            .arg("--hub")
            .arg(&self.hub.url)
            .arg("--config")
            .arg(file);
        command.arg("--root").arg(self.hub.keys.join("root.json"));
        command.arg("--state").arg(self.path(state)).args(words);
        // A machine's own settings must not help.
        for name in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn at_device(&self, words: &[&str]) -> Command {
        let mut command = pytheas(self.dir.path());
        command
            .arg("agent")
            .args(words)
            .arg("--state")
            .arg(self.path("gw"));
        command
    }

    fn publish(&self, version: &str, noise: u64) {
        let tree = self.path(version);
        script_tree(&tree, version, &format!("{GOOD}# {version}\n"));
        // Nothing that a delta or a codec makes small.
        let mut state = noise;
        let bytes: Vec<u8> = (0..1_200_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(99);
                (state >> 56) as u8
            })
            .collect();
        fs::write(tree.join("lib/noise"), bytes).unwrap();
        self.hub.publish(&tree);
    }
}

#[test]
fn a_hub_behind_tls_is_reached_over_a_real_proxy_that_wants_a_password_and_goes_away() {
    let Some(site) = Site::new() else { return };
    let mut proxy = site.proxy("device pass-word");
    let pin = site.pin("hub");
    site.publish("1.0", 1);
    site.publish("1.1", 2);

    for (state, login) in [("none", ""), ("wrong", "device:wrong-word@")] {
        let output = site
            .agent(state, login, &[&pin], "", &["--once"])
            .output()
            .unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains("proxy") && !said.contains("wrong-word"),
            "{said}"
        );
    }
    assert_eq!(site.hub.runs("gw"), None, "nobody came through");

    let more = "download.limit = \"300 kB/s\"\ninstall.consent = true";
    let log = site.path("gw.log");
    let mut command = site.agent("gw", "device:pass%2Dword@", &[&pin], more, &[]);
    let mut agent = Running::start(&mut command, &log);
    wait_for("the device", LONG, || {
        let devices = json(&mut site.hub.pytheas(&["device", "list"])).to_string();
        devices.contains("\"gw\"").then_some(())
    });
    let begun = Instant::now();
    ok(&mut site.hub.pytheas(&["rollout", "start", "app@1.0"]));
    // In the middle of the download the proxy is gone for a while.
    std::thread::sleep(Duration::from_millis(1500));
    proxy.kill();
    std::thread::sleep(Duration::from_millis(500));
    let _proxy = site.proxy("device pass-word");
    wait_for("the first release", LONG, || {
        (site.hub.runs("gw").as_deref() == Some("app@1.0")).then_some(())
    });
    let least = Duration::from_millis(1_200_000 / 300);
    assert!(
        begun.elapsed() >= least,
        "the line was not limited: {:?}",
        begun.elapsed()
    );
    assert!(site.ways() > 0, "past the proxy");

    // The next one waits for somebody at the device.
    ok(&mut site.hub.pytheas(&["rollout", "start", "app@1.1"]));
    wait_for("it waits for consent", LONG, || {
        let held = json(&mut site.at_device(&["status"]))["held"].clone();
        held.as_str()?.contains("waits for consent").then_some(())
    });
    assert_eq!(site.hub.runs("gw").as_deref(), Some("app@1.0"));
    assert_eq!(
        json(&mut site.at_device(&["approve"]))["release"],
        "app@1.1"
    );
    wait_for("the second release", LONG, || {
        (site.hub.runs("gw").as_deref() == Some("app@1.1")).then_some(())
    });
    let status = ok(&mut site.at_device(&["status", "--json"]));
    agent.stop();
    let told = fs::read_to_string(&log).unwrap() + &status;
    assert!(
        !told.contains("pass-word") && !told.contains("pass%2Dword"),
        "{told}"
    );
}

#[test]
fn a_device_with_both_pins_follows_a_hub_that_changes_its_key_and_one_with_the_old_says_which() {
    let Some(site) = Site::new() else { return };
    let _proxy = site.proxy("");
    let (old, next) = (site.pin("hub"), site.pin("next"));
    let once = |state: &str, pins: &[&str]| {
        let output = site
            .agent(state, "", pins, "", &["--once"])
            .output()
            .unwrap();
        (output.status.code().unwrap(), shown(&output))
    };
    let (code, said) = once("old", &[&old]);
    assert_eq!(code, 0, "{said}");
    // The same device, with other settings.
    let mut copy = Command::new("cp");
    copy.arg("-a").args([site.path("old"), site.path("both")]);
    assert!(copy.status().unwrap().success());
    let (code, said) = once("both", &[&old, &next]);
    assert_eq!(code, 0, "{said}");
    // The hub takes renewed files up by itself.
    for kind in ["key", "crt"] {
        fs::copy(
            site.path(&format!("next.{kind}")),
            site.path(&format!("hub.{kind}")),
        )
        .unwrap();
    }
    wait_for("the hub's new key", LONG, || {
        let (code, said) = once("old", &[&old]);
        let named = said.contains(&format!("the server's key is not pinned: it is {next}"));
        assert!(code == 0 || code == 3 && named, "{said}");
        (code == 3).then_some(())
    });
    let (code, said) = once("both", &[&old, &next]);
    assert_eq!(code, 0, "{said}");
}
