//! Ed25519 on boards says of every signature what RFC 8032 and aws-lc say of it.

use std::process::Command;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use testkit::board::Rig;

use crate::{image::Key, node::package};

/// The group's order, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

struct Case {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Case {
    fn is_good(&self) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(&self.message, &self.signature)
            .is_ok()
    }
}

fn hex_case(key: &str, message: &str, signature: &str) -> Case {
    let bytes = |text: &str| hex::decode(text).expect("hex");
    Case {
        key: bytes(key),
        message: bytes(message),
        signature: bytes(signature),
    }
}

/// Adds the order to S: the same number modulo it, which must be refused.
fn malleable(signature: &[u8]) -> Vec<u8> {
    let mut out = signature.to_vec();
    let mut carry = 0_u16;
    for (byte, add) in out[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    out
}

fn cases() -> Vec<Case> {
    // RFC 8032, section 7.1: tests 1 to 3.
    let mut cases = vec![
        hex_case(
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        hex_case(
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        hex_case(
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    assert!(cases.iter().all(Case::is_good));
    for seed in 0..40 {
        let key = Key::new(seed);
        let message = vec![seed; usize::from(seed) * 7 % 48];
        let good = key.sign(&message);
        let with = |signature: Vec<u8>| Case {
            key: key.public().to_vec(),
            message: message.clone(),
            signature,
        };
        let flipped = |at: usize| {
            let mut bytes = good.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            bytes
        };
        cases.push(with(good.to_vec()));
        cases.push(with(malleable(&good)));
        cases.push(with(flipped(usize::from(seed) * 5)));
        cases.push(with(flipped(511 - usize::from(seed) * 3)));
        cases.push(with(flipped(255)));
        cases.push(with(good[..63].to_vec()));
        cases.push(with([&good[..], &[0]].concat()));
        let mut other = with(good.to_vec());
        other.message.push(0);
        cases.push(other);
        let mut other = with(good.to_vec());
        other.key[usize::from(seed) % 32] ^= 0x10;
        cases.push(other);
    }
    // Points that are none, or not in their one encoding, as R and as the key.
    let key = Key::new(9);
    let good = key.sign(b"m");
    let p = |low: u8| {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        bytes[31] = 0x7f;
        bytes
    };
    let point = |y: u8, sign: u8| {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes[31] = sign;
        bytes
    };
    for odd in [
        point(2, 0),
        point(1, 0x80),
        p(0xed),
        p(0xee),
        p(0xff),
        [0xff; 32],
    ] {
        cases.push(Case {
            key: key.public().to_vec(),
            message: b"m".to_vec(),
            signature: [&odd[..], &good[32..]].concat(),
        });
        cases.push(Case {
            key: odd.to_vec(),
            message: b"m".to_vec(),
            signature: good.to_vec(),
        });
    }
    for short in [vec![], key.public()[..31].to_vec()] {
        cases.push(Case {
            key: short,
            message: b"m".to_vec(),
            signature: good.to_vec(),
        });
    }
    // S of zero and of the order, and a signature of zeros.
    for s in [[0; 32], ORDER] {
        cases.push(Case {
            key: key.public().to_vec(),
            message: b"m".to_vec(),
            signature: [&good[..32], &s].concat(),
        });
    }
    cases.push(Case {
        key: key.public().to_vec(),
        message: vec![],
        signature: vec![0; 64],
    });
    cases
}

#[test]
fn a_board_says_of_every_signature_what_aws_lc_says() {
    let Some(program) = Rig::find().and_then(|rig| rig.unix()) else {
        return;
    };
    let cases = cases();
    let lines: String = cases
        .iter()
        .map(|case| {
            let [key, message, signature] =
                [&case.key, &case.message, &case.signature].map(hex::encode);
            format!("{key},{message},{signature}\n")
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("cases");
    #[expect(clippy::disallowed_methods, reason = "a test's input")]
    std::fs::write(&list, lines).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onboard/verify.py");
    let output = Command::new(program)
        .args([script.as_ref(), package().as_os_str(), list.as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Vec<bool> = said.lines().map(|line| line.trim() == "1").collect();
    assert_eq!(said.len(), cases.len(), "{output:?}");
    for (case, said) in cases.iter().zip(said) {
        let what = [&case.key, &case.message, &case.signature].map(hex::encode);
        assert_eq!(case.is_good(), said, "{what:?}");
    }
    assert!(cases.iter().filter(|case| case.is_good()).count() >= 43);
}
