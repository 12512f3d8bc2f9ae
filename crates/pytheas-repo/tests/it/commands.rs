//! Keys that a program signs with: OpenSSL, and a PKCS#11 token (SoftHSM). Skips without them.

use std::{fs, path::Path, process::Command};

use pytheas_repo::keys::{
    self, KeyError,
    change::{Change, Source},
};
use tough::schema::RoleType;

use crate::{
    ceremonies::{make, put},
    python::{SCRIPT, python},
    world::{World, now, target},
};

/// Runs a program that has to succeed.
fn run(program: &str, args: &[&str], dir: &Path) -> bool {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("SOFTHSM2_CONF", dir.join("softhsm2.conf"))
        .output();
    output.is_ok_and(|output| output.status.success())
}

/// The targets role signs with `command` only; a device and python-tuf believe it.
#[track_caller]
fn signs_releases(name: &str, command: &str, public: &Path, world: &World) {
    let dir = world.keys_dir();
    keys::new_command_key(&dir, name, command, public, None).unwrap();
    let source = Source::Here(name.into());
    make(
        world,
        &Change::Rotate(vec![RoleType::Targets], None, source),
    )
    .unwrap();
    assert!(put(world, now()).targets.is_some());
    world.publish("2.0.0", &[]).unwrap();
    let device = world.device(name);
    device.refresh(now()).unwrap();
    device.release("2.0.0").unwrap();
    let Some(python) = python() else { return };
    let script = world.path("read.py");
    fs::write(&script, SCRIPT).unwrap();
    let output = Command::new(python)
        .arg(script)
        .args([world.repo(), world.path(&format!("python-{name}"))])
        .arg(target("2.0.0"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn openssl_signs_with_every_kind_of_key() {
    for (kind, make, sign) in [
        (
            "ed25519",
            &["-algorithm", "ed25519"][..],
            // No pipe: OpenSSL wants to know the length.
            "openssl pkeyutl -sign -rawin -inkey KEY -in $PYTHEAS_MESSAGE",
        ),
        (
            "ecdsa",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "openssl dgst -sha256 -sign KEY | base64",
        ),
        (
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "openssl pkeyutl -sign -inkey KEY -in $PYTHEAS_DIGEST -out $PYTHEAS_SIGNATURE \
             -pkeyopt digest:sha256 -pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest",
        ),
    ] {
        let world = World::with_two_releases();
        let (key, public) = (world.path("key.pem"), world.path("key.pub"));
        let (key, file) = (key.to_str().unwrap(), public.to_str().unwrap());
        let made = run(
            "openssl",
            &[&["genpkey", "-out", key][..], make].concat(),
            world.dir.path(),
        ) && run(
            "openssl",
            &["pkey", "-in", key, "-pubout", "-out", file],
            world.dir.path(),
        );
        if !made {
            return testkit::skip("no OpenSSL 3");
        }
        signs_releases(kind, &sign.replace("KEY", key), &public, &world);
    }
}

#[test]
fn a_pkcs11_token_signs() {
    let world = World::with_two_releases();
    let dir = world.dir.path();
    let tokens = dir.join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        tokens.display()
    );
    fs::write(dir.join("softhsm2.conf"), conf).unwrap();
    let module = "/usr/lib/softhsm/libsofthsm2.so";
    let tool = [
        "--module",
        module,
        "--token-label",
        "ceremony",
        "--login",
        "--pin",
        "1234",
    ];
    let init = [
        "--init-token",
        "--free",
        "--label",
        "ceremony",
        "--pin",
        "1234",
        "--so-pin",
        "0000",
    ];
    let make = ["--keypairgen", "--key-type", "EC:prime256v1", "--id", "01"];
    let read = [
        "--read-object",
        "--type",
        "pubkey",
        "--id",
        "01",
        "-o",
        "token.der",
    ];
    let made = run("softhsm2-util", &init, dir)
        && run("pkcs11-tool", &[&tool[..], &make].concat(), dir)
        && run("pkcs11-tool", &[&tool[..], &read].concat(), dir)
        && run(
            "openssl",
            &[
                "pkey",
                "-pubin",
                "-inform",
                "DER",
                "-in",
                "token.der",
                "-out",
                "token.pub",
            ],
            dir,
        );
    if !made {
        return testkit::skip("no softhsm2 and opensc");
    }
    let command = format!(
        "SOFTHSM2_CONF={} pkcs11-tool {} --sign -m ECDSA --id 01 -i $PYTHEAS_DIGEST -o $PYTHEAS_SIGNATURE",
        dir.join("softhsm2.conf").display(),
        tool.join(" ")
    );
    signs_releases("token", &command, &dir.join("token.pub"), &world);
}

#[test]
fn a_command_that_does_not_sign_is_told_why() {
    let world = World::new();
    let dir = world.keys_dir();
    let public = world.path("key.pub");
    fs::write(&public, keys::new_key(&dir, "someone", None).unwrap()).unwrap();
    for (command, ms, words) in [
        ("echo no such slot >&2; exit 3", None, "exit status: 3"),
        ("true", None, "gave no signature"),
        ("echo AAAA", None, "is no ed25519 signature"),
        ("head -c 64 /dev/zero", None, "64 bytes"),
        ("sleep 600", Some(300), "took longer than 0.3 s"),
        ("yes", Some(600_000), "and was stopped"),
        ("/no/such/program", None, "exit status: 127"),
    ] {
        let error = keys::new_command_key(&dir, "token", command, &public, ms).unwrap_err();
        assert!(matches!(error, KeyError::Sign(_)), "{command}: {error}");
        let text = crate::world::shown(error);
        assert!(text.contains(words), "{command}: {text}");
        assert!(!dir.join("token.toml").exists(), "nothing is kept");
    }
    for text in [
        "",
        "command = 3",
        "command = \"x\"\npublic = \"y\"",
        "command = \"\"\npublic = \"\"\nx = 1",
    ] {
        fs::write(dir.join("token.toml"), text).unwrap();
        fs::set_permissions(
            dir.join("token.toml"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let error = keys::show(&dir, now()).unwrap_err();
        assert!(
            matches!(error, KeyError::BadCommand { .. }),
            "{text}: {error}"
        );
    }
    fs::set_permissions(
        dir.join("token.toml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o622),
    )
    .unwrap();
    let error = keys::show(&dir, now()).unwrap_err();
    assert!(matches!(error, KeyError::Mode { .. }), "{error}");
}
