//! Public halves of keys: read, named, checked against.
//!
//! A public half is TUF's KEY object (TUF 1.0.33 §4.3) on one line, which is what `pytheas keys
//! export` writes; what OpenSSL and hardware write (SubjectPublicKeyInfo in PEM) is read, too.
//! Ed25519, ECDSA on P-256 with SHA-256, and RSA-PSS with SHA-256 (2048 to 8192 bits).

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tough::schema::{
    decoded::{Decoded, Hex},
    key::{EcdsaKey, EcdsaScheme, Ed25519Key, Ed25519Scheme, Key, RsaKey, RsaScheme},
};

/// DER of an Ed25519 SubjectPublicKeyInfo up to the 32 bytes of the key (RFC 8410 §4).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A TUF key id.
pub(crate) type KeyId = Decoded<Hex>;

/// The public half in `text`: a KEY object, or a public key in PEM.
pub(crate) fn parse(text: &str) -> Option<Key> {
    let text = text.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).ok().filter(usable);
    }
    let start = text.find("-----BEGIN PUBLIC KEY-----")?;
    // Line ends and the text around it are not part of the key, but would be part of its id.
    let body: String = text[start..]
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    let der = STANDARD.decode(&body).ok()?;
    if let Some(public) = der.strip_prefix(&ED25519_SPKI) {
        return Some(ed25519(public)).filter(usable);
    }
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    let ecdsa = pem.parse().map(|public| Key::Ecdsa {
        keyval: EcdsaKey {
            public,
            _extra: HashMap::new(),
        },
        scheme: EcdsaScheme::EcdsaSha2Nistp256,
        _extra: HashMap::new(),
    });
    let rsa = pem.parse().map(|public| Key::Rsa {
        keyval: RsaKey {
            public,
            _extra: HashMap::new(),
        },
        scheme: RsaScheme::RsassaPssSha256,
        _extra: HashMap::new(),
    });
    ecdsa.ok().or(rsa.ok()).filter(usable)
}

/// The KEY object of an Ed25519 public key.
fn ed25519(public: &[u8]) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key {
            public: public.to_vec().into(),
            _extra: HashMap::new(),
        },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

/// Whether its bytes can be a key of its kind.
fn usable(key: &Key) -> bool {
    match key {
        Key::Ed25519 { keyval, .. } => keyval.public.len() == 32,
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => {
            keyval.public.len() == 65 && keyval.public[0] == 4
        }
        Key::Rsa { keyval, .. } => (256..=1100).contains(&keyval.public.len()),
    }
}

/// The KEY object on one line.
pub(crate) fn encode(key: &Key) -> String {
    serde_json::to_string(key).expect("keys are strings")
}

/// The id of `key` (TUF §4.3: SHA-256 of its canonical JSON).
pub(crate) fn id(key: &Key) -> KeyId {
    key.key_id().expect("keys are strings")
}

/// All 64 digits of a key id.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `ed25519`, `ecdsa-sha2-nistp256` or `rsassa-pss-sha256`.
pub(crate) fn scheme(key: &Key) -> &'static str {
    match key {
        Key::Ed25519 { .. } => "ed25519",
        Key::Ecdsa { .. } | Key::EcdsaOld { .. } => "ecdsa-sha2-nistp256",
        Key::Rsa { .. } => "rsassa-pss-sha256",
    }
}

/// Whether `signature` is one by `key` over `message`.
pub(crate) fn verify(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    let (algorithm, public): (&'static dyn VerificationAlgorithm, &[u8]) = match key {
        Key::Ed25519 { keyval, .. } => (&ED25519, &keyval.public),
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => {
            (&ECDSA_P256_SHA256_ASN1, &keyval.public)
        }
        Key::Rsa { keyval, .. } => (&RSA_PSS_2048_8192_SHA256, &keyval.public),
    };
    UnparsedPublicKey::new(algorithm, public)
        .verify(message, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_of_openssl_are_read_and_named_as_python_tuf_names_them() {
        // `openssl genpkey -algorithm ed25519 | openssl pkey -pubout`
        let pem = "noise\n-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let key = parse(pem).unwrap();
        assert_eq!(scheme(&key), "ed25519");
        assert_eq!(parse(&encode(&key)), Some(key));
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in [
            "",
            "{}",
            "{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{\"public\":\"00\"}}",
            "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
