//! A device's key that this process never sees: a program signs with it in each handshake.
//!
//! For a PKCS#11 token that is OpenSC's `pkcs11-tool`: a token's driver is a shared library, which a
//! static program cannot load. Any other keeper (TPM, secure element, a daemon) is a command of the
//! operator's; it speaks as the commands of `pytheas keys` do ([`pytheas_repo::signing`]). What comes
//! is verified with the key of the certificate before it is sent.
//!
//! A token locks itself after a few wrong PINs. One that it has refused is never tried again by this
//! agent, however often the hub is polled; a new one in the file is.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pytheas_repo::signing::{Listener, Signing, SigningError, candidates};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer},
    server::ParsedCertificate,
    sign::{Signer, SigningKey},
};

use crate::settings::TokenKey;

/// Where the PIN is when no file is named.
pub(crate) const PIN_VARIABLE: &str = "PYTHEAS_CLIENT_PIN";
/// What `pkcs11-tool` finds the PIN by: other processes of the machine read arguments.
const PIN_FOR_TOOL: &str = "PYTHEAS_TOKEN_PIN";
/// No PIN is longer.
const PIN_MAX: u64 = 256;

/// What keys here can do: the scheme, and what `pkcs11-tool` calls it.
const SCHEMES: [(SignatureScheme, &[&str]); 4] = [
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &["--mechanism", "ECDSA"],
    ),
    (
        SignatureScheme::ECDSA_NISTP384_SHA384,
        &["--mechanism", "ECDSA"],
    ),
    (SignatureScheme::ED25519, &["--mechanism", "EDDSA"]),
    (
        SignatureScheme::RSA_PSS_SHA256,
        &[
            "--mechanism",
            "RSA-PKCS-PSS",
            "--hash-algorithm",
            "SHA256",
            "--mgf",
            "MGF1-SHA256",
            "--salt-len",
            "32",
        ],
    ),
];

/// Who keeps a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keeper {
    /// A token, asked through `pkcs11-tool`.
    Token(TokenKey),
    /// What this command asks.
    Command(String),
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("`pkcs11-tool` cannot be run; install OpenSC (Debian: `apt install opensc`)")]
    NoTool(#[source] io::Error),
    #[error("cannot read the PIN in `{}`", .0.display())]
    Pin(PathBuf, #[source] io::Error),
    #[error("everybody can read the PIN in `{}`; `chmod 600` it", .0.display())]
    PinIsPublic(PathBuf),
    #[error(
        "the token refuses the PIN, which is not tried again, for tokens lock themselves: correct {0}"
    )]
    RefusedPin(String),
    #[error("the token has no private key `{0}` with an id, or wants a PIN before it shows it")]
    NoKey(String),
    #[error("the system gives no digest for this key")]
    Digest,
}

/// A key that somebody else keeps, for one certificate.
#[derive(Debug, Clone)]
pub(super) struct KeptKey {
    inner: Arc<Kept>,
}

struct Kept {
    keeper: Keeper,
    /// `SubjectPublicKeyInfo` of the certificate.
    public: SubjectPublicKeyInfoDer<'static>,
    scheme: SignatureScheme,
    for_tool: &'static [&'static str],
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    timeout: Duration,
    asked: Mutex<Asked>,
}

/// What came of asking the token before.
#[derive(Default)]
struct Asked {
    /// The PIN that it did not take.
    refused: Option<String>,
    /// The id of the key with the wanted label.
    id: Option<String>,
}

/// Without the PIN.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("keeper", &self.keeper)
            .finish_non_exhaustive()
    }
}

impl KeptKey {
    /// The key of `certificate`, which `keeper` keeps; a signature may take `timeout`. Nothing is
    /// asked of the keeper yet: a token that is away keeps no app from running.
    ///
    /// # Errors
    /// A certificate whose kind of key none of this is for.
    pub(super) fn new(
        keeper: Keeper,
        certificate: &CertificateDer<'_>,
        provider: &CryptoProvider,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let public = parsed.subject_public_key_info().into_owned();
        let kind = parts(&public).map(|(kind, _)| kind.to_vec());
        let known = provider.signature_verification_algorithms.mapping;
        let (scheme, for_tool, algorithm) = SCHEMES
            .into_iter()
            .find_map(|(scheme, for_tool)| {
                let (_, algorithms) = known.iter().find(|(known, _)| *known == scheme)?;
                let algorithm = *algorithms.first()?;
                let fits = kind.as_deref() == Some(algorithm.public_key_alg_id().as_ref());
                fits.then_some((scheme, for_tool, algorithm))
            })
            .ok_or_else(|| {
                rustls::Error::General(
                    "its key is of another kind than ECDSA (P-256, P-384), Ed25519 or RSA".into(),
                )
            })?;
        Ok(Self {
            inner: Arc::new(Kept {
                keeper,
                public,
                scheme,
                for_tool,
                algorithm,
                timeout,
                asked: Mutex::default(),
            }),
        })
    }
}

impl SigningKey for KeptKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let fits = offered.contains(&self.inner.scheme);
        fits.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.inner.public.clone())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.inner.scheme {
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            SignatureScheme::RSA_PSS_SHA256 => SignatureAlgorithm::RSA,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for KeptKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.inner.sign(message).map_err(|error| {
            let why = crate::http::one_line(&crate::http::chain(&error));
            rustls::Error::General(format!("the device's key does not sign: {why}"))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme
    }
}

impl Kept {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeptError> {
        let digest = digest(self.scheme, message).ok_or(KeptError::Digest)?;
        let signing = Signing::new(message, &digest)?;
        let answer = match &self.keeper {
            Keeper::Command(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                signing.run(&mut command, self.timeout, Listener::Nobody)?
            }
            Keeper::Token(token) => self.ask_token(token, signing)?,
        };
        let key = parts(&self.public).map_or(&[][..], |(_, key)| key);
        candidates(&answer)
            .into_iter()
            .find(|found| self.algorithm.verify_signature(key, message, found).is_ok())
            .ok_or_else(|| {
                KeptError::Signing(SigningError::Wrong {
                    size_bytes: answer.len(),
                    scheme: format!("{:?}", self.scheme),
                    key: "the key of the certificate".into(),
                })
            })
    }

    fn ask_token(&self, token: &TokenKey, signing: Signing) -> Result<Vec<u8>, KeptError> {
        let pin = pin(token)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = || {
            KeptError::RefusedPin(match &token.pin {
                Some(file) => format!("`{}`", file.display()),
                None => format!("{PIN_VARIABLE} and start the agent again"),
            })
        };
        if pin.is_some() && asked.refused == pin {
            return Err(refused());
        }
        let answer = self.ask_tool(token, pin.as_deref(), &mut asked.id, signing);
        match answer {
            Err(KeptError::Signing(SigningError::Failed { stderr, .. }))
                if pin.is_some() && stderr.contains("CKR_PIN_") =>
            {
                asked.refused = pin;
                Err(refused())
            }
            other => other,
        }
    }

    /// `known` is the key's id as far as the token has told it: older tools find no key by its label.
    fn ask_tool(
        &self,
        token: &TokenKey,
        pin: Option<&str>,
        known: &mut Option<String>,
        signing: Signing,
    ) -> Result<Vec<u8>, KeptError> {
        let run = |command: &mut Command, signing: Signing| {
            let answer = signing.run(command, self.timeout, Listener::Nobody);
            answer.map_err(|error| match error {
                SigningError::Run(error) if error.kind() == io::ErrorKind::NotFound => {
                    KeptError::NoTool(error)
                }
                other => other.into(),
            })
        };
        let id = match (&token.id, &known) {
            (Some(id), _) => hex::encode(id),
            (None, Some(id)) => id.clone(),
            (None, None) => {
                let mut list = tool(token, pin);
                list.args(["--list-objects", "--type", "privkey"]);
                let listed = run(&mut list, Signing::new(b"", b"")?)?;
                let label = token.object.as_deref().unwrap_or_default();
                let id = labelled(&String::from_utf8_lossy(&listed), label)
                    .ok_or_else(|| KeptError::NoKey(label.to_owned()))?;
                known.insert(id).clone()
            }
        };
        let mut sign = tool(token, pin);
        sign.arg("--sign").args(self.for_tool).args(["--id", &id]);
        // Ed25519 signs the message itself, which is on standard input.
        if self.scheme != SignatureScheme::ED25519 {
            sign.args(["--input-file", &signing.digest_path()]);
        }
        run(&mut sign, signing)
    }
}

/// `pkcs11-tool` with this token.
fn tool(token: &TokenKey, pin: Option<&str>) -> Command {
    let mut tool = Command::new("pkcs11-tool");
    if let Some(module) = &token.module {
        tool.arg("--module").arg(module);
    }
    if let Some(label) = &token.token {
        tool.args(["--token-label", label]);
    }
    if let Some(slot) = token.slot {
        tool.args(["--slot", &slot.to_string()]);
    }
    tool.env_remove(PIN_VARIABLE);
    if let Some(pin) = pin {
        let by = format!("env:{PIN_FOR_TOOL}");
        tool.args(["--login", "--pin", &by]).env(PIN_FOR_TOOL, pin);
    }
    tool
}

/// The id of the key with this label, in hex, in what `pkcs11-tool --list-objects` writes:
/// ```text
/// Private Key Object; EC
///   label:      tls
///   ID:         01
/// ```
fn labelled(list: &str, label: &str) -> Option<String> {
    let mut found = false;
    for line in list.lines() {
        if !line.starts_with(char::is_whitespace) {
            found = false;
        }
        match line.trim().split_once(':') {
            Some(("label", text)) => found = text.trim() == label,
            Some(("ID", id)) if found => return Some(id.trim().to_owned()),
            _ => {}
        }
    }
    None
}

/// The PIN, if there is one.
fn pin(token: &TokenKey) -> Result<Option<String>, KeptError> {
    let Some(path) = &token.pin else {
        let set = std::env::var(PIN_VARIABLE).ok();
        return Ok(set.filter(|pin| !pin.is_empty()));
    };
    let failed = |error| KeptError::Pin(path.clone(), error);
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o004 != 0 {
        return Err(KeptError::PinIsPublic(path.clone()));
    }
    let mut text = String::new();
    file.take(PIN_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let pin = text.trim_end_matches(['\n', '\r']);
    match pin.is_empty() || pin.contains(['\n', '\0']) {
        true => Err(failed(io::Error::other("one line with the PIN is wanted"))),
        false => Ok(Some(pin.to_owned())),
    }
}

fn digest(scheme: SignatureScheme, message: &[u8]) -> Option<Vec<u8>> {
    use rustls::crypto::aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384,
    };
    let suite = match scheme {
        SignatureScheme::ECDSA_NISTP384_SHA384 => TLS13_AES_256_GCM_SHA384,
        _ => TLS13_AES_128_GCM_SHA256,
    };
    let hash = suite.tls13()?.common.hash_provider;
    Some(hash.hash(message).as_ref().to_vec())
}

/// Of a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7): what `AlgorithmIdentifier` holds, and the key.
fn parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (all, _) = element(spki, 0x30)?;
    let (kind, rest) = element(all, 0x30)?;
    let (bits, _) = element(rest, 0x03)?;
    let (unused, key) = bits.split_first()?;
    (*unused == 0).then_some((kind, key))
}

/// The content of the DER element at the beginning, which has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let len = digits.iter().try_fold(0_usize, |len, digit| {
                len.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
            (len, rest)
        }
    };
    (*found == tag).then_some(())?;
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_label() {
        let list = "Private Key Object; EC\n  label:      tls\nPrivate Key Object; RSA \n  \
                    label:      a:b\n  ID:         02\n  Usage:      sign\n";
        assert_eq!(labelled(list, "a:b").as_deref(), Some("02"));
        assert_eq!(labelled(list, "tls"), None, "without an id");
        assert_eq!(labelled(list, "b"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_der_makes_the_reader_panic(der in proptest::collection::vec(0_u8.., 0..40)) {
            let _any = parts(&der);
        }
    }
}
