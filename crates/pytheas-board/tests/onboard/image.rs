//! Signed images to put on boards, and keys to sign them with.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use pytheas_board::romfs;
use pytheas_release::{
    Sha256,
    board::{ImageManifest, ImageSignature, assemble, key_id, read, signed_message},
};
use serde_json::{Value, json};

/// A publisher's key, the same for the same number.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed"))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0
            .public_key()
            .as_ref()
            .try_into()
            .expect("32 bytes are a key")
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.0.sign(message);
        signature
            .as_ref()
            .try_into()
            .expect("64 bytes are a signature")
    }
}

/// An image of these files, signed; `change` alters its manifest before.
pub(crate) fn image(key: &Key, files: &[(&str, &str)], change: &Value) -> Vec<u8> {
    let mut manifest = json!({
        "format": 1, "name": "node", "version": "1.0", "counter": 1, "platform": "micropython-any",
        "entry": "main:run", "mpy": 6, "front": 0, "body": {"sha256": "0".repeat(64), "size": 0},
        "requires": {}
    });
    for (name, value) in change.as_object().expect("changes are an object") {
        manifest[name] = value.clone();
    }
    let mut manifest: ImageManifest = serde_json::from_value(manifest).expect("a manifest");
    let files: BTreeMap<_, _> = files
        .iter()
        .map(|(path, text)| (path.parse().expect("a path"), text.as_bytes().to_vec()))
        .collect();
    let unsigned = romfs::image(&mut manifest, &files).expect("an image");
    let unsigned = read(&unsigned).expect("what was built is an image");
    let signature = ImageSignature {
        key_id: key_id(&key.public()),
        signature: key.sign(signed_message(&manifest.encode()).as_bytes()),
    };
    assemble(&manifest, &[signature], unsigned.body).expect("a signed image")
}

/// The version `version` of an app that runs `code` and confirms itself before, with some ballast.
pub(crate) fn app(key: &Key, version: &str, counter: u32, code: &str) -> Vec<u8> {
    let main = format!(
        "import pytheas\ndef run():\n print('RUN', {version:?})\n pytheas.confirm()\n{}\n",
        code.lines()
            .map(|line| format!(" {line}\n"))
            .collect::<String>()
    );
    let ballast = ballast(version, 9000);
    image(
        key,
        &[("main.py", &main), ("data/ballast.txt", &ballast)],
        &json!({"version": version, "counter": counter}),
    )
}

/// Text that differs between versions.
pub(crate) fn ballast(version: &str, size: usize) -> String {
    let mut text = String::new();
    let mut at = 0_u32;
    while text.len() < size {
        text.push_str(&Sha256::of(format!("{version} {at}").as_bytes()).to_string());
        at += 1;
    }
    text
}
