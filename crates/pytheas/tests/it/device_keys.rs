//! Devices whose private key lies in a PKCS#11 token (SoftHSM, through OpenSC), at a hub that knows
//! them by their certificates (`--tls-client-ca`). Skips without the programs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::common::{GOOD, Hub, Running, ok, pytheas, script_tree, shown, wait_for};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A hub with TLS, a token with keys, and certificates for them.
struct Site {
    dir: tempfile::TempDir,
    hub: Hub,
}

impl Site {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(dir.path().join("tokens")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            path("tokens")
        );
        fs::write(dir.path().join("softhsm2.conf"), conf).unwrap();
        let run = |program: &str, args: &str| {
            let mut command = Command::new(program);
            command.args(args.split(' ')).current_dir(dir.path());
            command.env("SOFTHSM2_CONF", path("softhsm2.conf"));
            command.output().is_ok_and(|output| {
                let done = output.status.success();
                assert!(done || program != "openssl", "{}", shown(&output));
                done
            })
        };
        let ready = Command::new("openssl").arg("version").output().is_ok()
            && run(
                "softhsm2-util",
                "--init-token --free --label device --pin 1234 --so-pin 0000",
            )
            && Command::new("pkcs11-tool").output().is_ok();
        if !ready {
            testkit::skip("no softhsm2, opensc and openssl");
            return None;
        }
        let new = "req -x509 -nodes -days 30 -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        run(
            "openssl",
            &format!("{new} -subj /CN=ca -keyout ca.key -out ca.crt"),
        );
        run(
            "openssl",
            &format!(
                "{new} -subj /CN=hub -keyout hub.key -out hub.crt -CA ca.crt -CAkey ca.key \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
            ),
        );
        let tool = format!("--module {MODULE} --token-label device --login --pin 1234");
        fs::write(
            dir.path().join("v3.cnf"),
            "basicConstraints=critical,CA:FALSE\n",
        )
        .unwrap();
        // One key is born in the token, the others are put into it.
        let issued = "-days 30 -CA ca.crt -CAkey ca.key -out";
        let made = run(
            "pkcs11-tool",
            &format!("{tool} --keypairgen --key-type EC:prime256v1 --id 01 --label dev-ec"),
        ) && run(
            "pkcs11-tool",
            &format!("{tool} --read-object --type pubkey --id 01 -o dev-ec.der"),
        );
        assert!(made);
        run(
            "openssl",
            "pkey -pubin -inform DER -in dev-ec.der -out dev-ec.pub",
        );
        run(
            "openssl",
            &format!(
                "x509 -new -force_pubkey dev-ec.pub -subj /CN=dev-ec -extfile v3.cnf {issued} dev-ec.crt"
            ),
        );
        for (name, id, kind) in [
            ("dev-rsa", "02", "-algorithm RSA"),
            (
                "dev-p384",
                "03",
                "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            ),
            ("dev-ed", "04", "-algorithm ed25519"),
        ] {
            run("openssl", &format!("genpkey {kind} -out {name}.key"));
            run(
                "openssl",
                &format!(
                    "req -x509 -new -key {name}.key -subj /CN={name} {issued} {name}.crt \
                     -addext basicConstraints=critical,CA:FALSE"
                ),
            );
            let import =
                format!("--import {name}.key --token device --label {name} --id {id} --pin 1234");
            assert!(run("softhsm2-util", &import), "{name}");
            fs::remove_file(dir.path().join(format!("{name}.key"))).unwrap();
        }
        let tls = [
            "--tls-cert",
            &path("hub.crt"),
            "--tls-key",
            &path("hub.key"),
            "--tls-client-ca",
            &path("ca.crt"),
        ];
        let hub = Hub::start_with(dir.path(), &tls, Some(dir.path().join("ca.crt")));
        Some(Self { dir, hub })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the agent of `name` says to `words`, with this key.
    fn agent(&self, name: &str, key: &str, words: &[&str]) -> Command {
        let settings = format!("[tls]\nca = \"ca.crt\"\ncertificate = \"{name}.crt\"\n{key}\n");
        fs::write(self.path(&format!("{name}.toml")), settings).unwrap();
        let mut command = pytheas(self.dir.path());
        command.arg("agent").args(words);
        command.arg("--hub").arg(&self.hub.url).args(["--id", name]);
        command.arg("--root").arg(self.hub.keys.join("root.json"));
        command
            .arg("--config")
            .arg(self.path(&format!("{name}.toml")));
        command
            .arg("--state")
            .arg(self.path(&format!("devices/{name}")));
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.env_remove("PYTHEAS_CLIENT_PIN");
        command
    }

    fn enrol(&self, name: &str, key: &str) -> Output {
        let mut command = self.agent(name, key, &["enrol", "--no-wait"]);
        command.output().unwrap()
    }
}

fn pin(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn devices_with_keys_in_a_token_are_known_by_their_certificates_and_update() {
    let Some(site) = Site::new() else { return };
    pin(&site.path("pin"), "1234\n", 0o600);
    let uri = |name: &str| {
        format!(
            "key = \"pkcs11:token=device;object={name}?module-path={MODULE}&pin-source=file:pin\""
        )
    };
    let by_command = format!(
        "key-command = \"pkcs11-tool --module {MODULE} --token-label device --login --pin 1234 \
         --sign -m ECDSA --id 03 -i $PYTHEAS_DIGEST -o $PYTHEAS_SIGNATURE\""
    );
    for (name, key) in [
        ("dev-ec", uri("dev-ec")),
        ("dev-rsa", uri("dev-rsa")),
        ("dev-ed", uri("dev-ed")),
        ("dev-p384", by_command),
    ] {
        let output = site.enrol(name, &key);
        let said = shown(&output);
        assert!(
            said.contains(&format!("device `{name}` is enrolled at")),
            "{said}"
        );
    }
    script_tree(&site.path("app"), "1.0", GOOD);
    site.hub.publish(&site.path("app"));
    let start = ["rollout", "start", "app@1.0", "--device", "dev-ec"];
    ok(&mut site.hub.pytheas(&start));
    // The PIN by the environment this time, the key by its id.
    let key = format!("key = \"pkcs11:token=device;id=%01?module-path={MODULE}\"");
    let mut run = site.agent("dev-ec", &key, &["run", "--once"]);
    ok(run.env("PYTHEAS_CLIENT_PIN", "1234"));
    assert_eq!(site.hub.runs("dev-ec").as_deref(), Some("app@1.0"));
}

#[test]
fn a_token_that_does_not_sign_is_told_why_and_a_wrong_pin_is_tried_once() {
    let Some(site) = Site::new() else { return };
    let file = site.path("pin");
    pin(&file, "1234\n", 0o600);
    let uri = |rest: &str| format!("key = \"pkcs11:{rest}&module-path={MODULE}\"");
    let said = |key: &str| {
        let output = site.enrol("dev-ec", key);
        assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
        shown(&output)
    };
    for (key, words) in [
        (
            uri("token=other;object=dev-ec?pin-source=pin"),
            "No slot with token named",
        ),
        (uri("token=device;object=nobody?pin-source=pin"), "nobody"),
        (uri("token=device;object=dev-rsa?pin-source=pin"), "CKR_"),
        (
            uri("token=device;object=dev-p384?pin-source=pin"),
            "is no ECDSA_NISTP256_SHA256 signature by the key of the certificate",
        ),
        (
            uri("token=device;object=dev-ec?pin-source=none"),
            "cannot read the PIN in `",
        ),
        (
            "key = \"pkcs11:object=a?module-path=/no/such.so\"".into(),
            "such.so",
        ),
        (
            "key-command = \"echo the token is away >&2; exit 7\"".into(),
            "(exit status: 7): the token is away",
        ),
        (
            "key-command = \"sleep 600\"\n[timeouts]\nanswer = \"300ms\"".into(),
            "took longer than 0.3 s",
        ),
        (
            "key-command = \"head -c 70 /dev/urandom\"".into(),
            "(70 bytes) is no ECDSA",
        ),
    ] {
        let said = said(&key);
        assert!(
            said.contains("the device's key does not sign: ") && said.contains(words),
            "{key}: {said}"
        );
    }
    pin(&file, "1234\n", 0o644);
    let key = uri("token=device;object=dev-ec?pin-source=pin");
    assert!(said(&key).contains("everybody can read the PIN in `"));

    // A device that polls and polls does not lock its token: what is asked of it is written down.
    pin(&file, "9999\n", 0o600);
    let (calls, log) = (site.path("calls"), site.path("device.log"));
    let tool = find("pkcs11-tool");
    fs::create_dir(site.path("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        calls.display(),
        tool.display()
    );
    pin(&site.path("bin/pkcs11-tool"), &script, 0o755);
    let mut run = site.agent("dev-ec", &key, &["run", "--poll-interval", "200ms"]);
    let paths = std::env::var("PATH").unwrap();
    run.env("PATH", format!("{}:{paths}", site.path("bin").display()));
    let _running = Running::start(&mut run, &log);
    let text = wait_for("polls with a wrong PIN", LONG, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        (text.matches("the token refuses the PIN").count() >= 3).then_some(text)
    });
    assert!(!text.contains("9999"), "{text}");
    let asked = fs::read_to_string(&calls).unwrap();
    assert_eq!(asked.lines().count(), 1, "{asked}");
    assert!(!asked.contains("9999"), "{asked}");
    pin(&file, "1234\n", 0o600);
    wait_for("the corrected PIN", LONG, || {
        let list = site.hub.pytheas(&["device", "list"]).output().unwrap();
        String::from_utf8_lossy(&list.stdout)
            .contains("dev-ec")
            .then_some(())
    });
}

const LONG: Duration = Duration::from_secs(60);

fn find(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&paths)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .unwrap()
}
