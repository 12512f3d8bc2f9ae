//! A statement and a bill of materials published beside the tree: signed so that
//! `securesystemslib`, which knows nothing of TUF repositories, verifies the envelope. That needs
//! the Python of `python.rs`; skips, saying so, without it.

use std::{fs, path::PathBuf, process::Command};

use pytheas_release::Release;
use pytheas_repo::{
    dsse::{Envelope, EnvelopeError, IN_TOTO},
    publish::{Attached, Options, PublishError},
    repository::Repository,
};

use crate::world::{PLATFORM, World, now, runtime, target};

const VERIFY: &str = r#"
import json, sys, pathlib
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
root = json.loads(pathlib.Path(sys.argv[1]).read_text())["signed"]
keys = [SSlibKey.from_dict(id, dict(root["keys"][id])) for id in root["roles"]["targets"]["keyids"]]
envelope = Envelope.from_dict(json.loads(pathlib.Path(sys.argv[2]).read_text()))
envelope.verify(keys, 1)
print(envelope.payload_type, json.loads(envelope.payload)["subject"][0]["name"])
"#;

/// A world with one release that has a statement and a bill; the release and its envelope.
fn published() -> (World, Release, Envelope) {
    let world = World::new();
    let dir = world.tree("1.0.0", PLATFORM, &[("a", b"a")]);
    let id = pytheas_durable::trees::scan(&dir).unwrap().id().0;
    let statement = world.path("statement.json");
    let text = format!(r#"{{"subject": [{{"name": "app", "digest": {{"sha256": "{id}"}}}}]}}"#);
    fs::write(&statement, text).unwrap();
    let sbom = world.path("sbom.json");
    fs::write(&sbom, b"{}").unwrap();
    let mut options = Options::at(now());
    options.attached = Attached {
        statement: Some(statement),
        sbom: Some(sbom),
        ..Attached::default()
    };
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    let repository = open(&world);
    let release = runtime()
        .block_on(repository.release(&target("1.0.0")))
        .unwrap();
    let blob = repository.blob(release.provenance.as_ref().unwrap());
    let envelope = Envelope::parse(&runtime().block_on(blob).unwrap().unwrap()).unwrap();
    (world, release, envelope)
}

fn open(world: &World) -> Repository {
    let keys = world.keys();
    let open = async { Repository::open(&world.store(), &keys.root.bytes, now()).await };
    runtime().block_on(open).unwrap()
}

#[test]
fn the_envelope_is_signed_and_the_bill_is_there() {
    let (world, release, envelope) = published();
    assert_eq!(envelope.payload_type, IN_TOTO);
    let root = world.keys().root.signed;
    let payload = envelope.verify(&root).unwrap();
    assert!(payload.starts_with(b"{\"subject\""));
    let bill = open(&world);
    let bill = bill.blob(release.sbom.as_ref().unwrap());
    assert_eq!(runtime().block_on(bill).unwrap().unwrap(), b"{}");

    let mut forged = envelope.clone();
    forged.payload = "e30=".into();
    let error = EnvelopeError::Unsigned {
        signed: 0,
        threshold: 1,
    };
    assert_eq!(forged.verify(&root).unwrap_err(), error);
    let mut renamed = envelope.clone();
    renamed.payload_type = "text/plain".into();
    assert_eq!(renamed.verify(&root).unwrap_err(), error);
    let other = World::new().keys().root.signed;
    assert_eq!(envelope.verify(&other).unwrap_err(), error);
}

#[test]
fn a_statement_on_another_tree_is_refused_and_nothing_is_published() {
    let world = World::new();
    let dir = world.tree("1.0.0", PLATFORM, &[("a", b"a")]);
    let statement = world.path("statement.json");
    fs::write(
        &statement,
        br#"{"subject": [{"digest": {"sha256": "00"}}]}"#,
    )
    .unwrap();
    let mut options = Options::at(now());
    options.attached.statement = Some(statement);
    let error = world.publish_dir(&world.store(), &dir, &options);
    assert!(matches!(error, Err(PublishError::Attached { .. })));
    assert!(!world.repo().join("metadata/timestamp.json").exists());

    // One that only lay there is left out.
    options.attached.statement_was_found = true;
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    let release = open(&world);
    let release = runtime().block_on(release.release(&target("1.0.0")));
    assert_eq!(release.unwrap().provenance, None);
}

#[test]
fn securesystemslib_verifies_the_envelope() {
    let python = std::env::var_os("PYTHEAS_TEST_PYTUF")
        .map_or_else(|| PathBuf::from("/tmp/pytuf/bin/python"), PathBuf::from);
    let ready = Command::new(&python)
        .args(["-c", "import securesystemslib.dsse, cryptography"])
        .status();
    if !ready.is_ok_and(|status| status.success()) {
        return testkit::skip(&format!(
            "no securesystemslib in `{}`; PYTHEAS_TEST_PYTUF names another Python",
            python.display()
        ));
    }
    let (world, _, mut envelope) = published();
    let script = world.path("verify.py");
    fs::write(&script, VERIFY).unwrap();
    let file = world.path("envelope.json");
    let verify = |envelope: &Envelope| {
        fs::write(&file, envelope.encode()).unwrap();
        Command::new(&python)
            .arg(&script)
            .arg(world.keys_dir().join("root.json"))
            .arg(&file)
            .output()
            .unwrap()
    };
    let output = verify(&envelope);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "application/vnd.in-toto+json app"
    );
    envelope.payload = "e30=".into();
    assert!(!verify(&envelope).status.success());
}
