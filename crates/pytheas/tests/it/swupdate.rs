//! SWUpdate, as Debian ships it, is told by our hub to install a plain artifact, and does.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::common::{Hub, Running, json, ok, wait_for};

fn have(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}

/// A signed image that puts `payload.txt` at `to`.
fn image(dir: &Path, to: &Path) {
    fs::write(dir.join("payload.txt"), "the new firmware\n").unwrap();
    let sum = ok(Command::new("sha256sum").arg(dir.join("payload.txt")));
    let description = format!(
        "software = {{\n version = \"7\";\n hardware-compatibility: [ \"1.0\" ];\n \
         files: ( {{ filename = \"payload.txt\"; path = \"{}\"; type = \"rawfile\"; \
         sha256 = \"{}\"; }} );\n}}\n",
        to.display(),
        &sum[..64]
    );
    fs::write(dir.join("sw-description"), description).unwrap();
    let openssl = |args: &str| {
        ok(Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=test \
         -addext extendedKeyUsage=emailProtection -addext keyUsage=digitalSignature",
    );
    openssl(
        "cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem \
         -outform DER -nosmimecap -binary",
    );
    let pack = "printf 'sw-description\\nsw-description.sig\\npayload.txt\\n' \
                | cpio -o -H crc --quiet > fw.swu";
    ok(Command::new("sh").args(["-c", pack]).current_dir(dir));
}

#[test]
fn swupdate_installs_what_a_rollout_gives_it() {
    if let Some(missing) = ["swupdate", "openssl", "cpio"]
        .into_iter()
        .find(|p| !have(p))
    {
        return testkit::skip(&format!("Debian's `{missing}` is not installed"));
    }
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (work, installed) = (home.join("swu"), home.join("installed.txt"));
    fs::create_dir_all(work.join("tmp")).unwrap();
    image(&work, &installed);

    let hub = Hub::start(home);
    let added = json(&mut hub.pytheas(&["device", "add", "dev1"]));
    let token = added["token"].as_str().unwrap();
    let file = work.join("fw.swu");
    let upload = [
        "artifact",
        "upload",
        file.to_str().unwrap(),
        "--name",
        "firmware",
    ];
    ok(hub
        .pytheas(&upload)
        .args(["--version", "7", "--part", "os"]));
    let rollout = json(&mut hub.pytheas(&[
        "rollout",
        "start",
        "--artifact",
        "firmware@7",
        "--device",
        "dev1",
    ]));
    let rollout = rollout["rollout"]["id"].as_i64().unwrap().to_string();

    let marker = work.join("done");
    fs::write(
        work.join("after.sh"),
        format!("#!/bin/sh\ntouch {}\n", marker.display()),
    )
    .unwrap();
    ok(Command::new("chmod").arg("755").arg(work.join("after.sh")));
    let swupdate = |extra: &str| {
        let mut command = Command::new("swupdate");
        let suricatta = format!("-t default -u {} -i dev1 -k {token} -p 1{extra}", hub.url);
        command
            .args(["-M", "-m", "-H", "board:1.0", "-k"])
            .arg(work.join("cert.pem"))
            .arg("-p")
            .arg(work.join("after.sh"))
            .args(["-u", &suricatta])
            // Its sockets lie there: many can run side by side.
            .env("TMPDIR", work.join("tmp"))
            .current_dir(&work);
        Running::start(&mut command, &work.join("log"))
    };
    let mut first = swupdate("");
    wait_for("swupdate to install", Duration::from_secs(60), || {
        marker.exists().then_some(())
    });
    // Without a boot loader it keeps no state and would install again: a real device reboots here.
    first.kill();
    ok(Command::new("sh")
        .args(["-c", "rm -rf tmp && mkdir tmp"])
        .current_dir(&work));
    let _second = swupdate(" -c 2");
    let status = wait_for("the rollout to finish", Duration::from_secs(60), || {
        let value = json(&mut hub.pytheas(&["rollout", "status", &rollout]));
        (value["rollout"]["state"] != "running").then_some(value)
    });
    assert_eq!(status["rollout"]["state"], "finished", "{status}");
    assert_eq!(status["devices"][0]["status"], "succeeded", "{status}");
    assert_eq!(
        fs::read_to_string(&installed).unwrap(),
        "the new firmware\n"
    );
}
