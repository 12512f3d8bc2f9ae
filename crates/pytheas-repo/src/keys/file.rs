//! One private key in a PEM file, and as a source of signatures for `tough`. A line before the PEM
//! block tells the public half; other programs skip it (RFC 7468 §2).

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use async_trait::async_trait;
use aws_lc_rs::{
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument, pkcs5::pbes2,
};
use tough::{
    key_source::KeySource,
    schema::{
        decoded::{Decoded, Hex},
        key::Key,
    },
    sign::Sign,
};
use zeroize::Zeroizing;

use super::{KeyError, public};

/// Asked for the passphrase of the key in a file; `None` when there is none to give.
pub type Passphrase<'a> = dyn Fn(&Path) -> Option<Zeroizing<String>> + 'a;

/// Begins the line before a key that tells its public half, so that it is known without the
/// passphrase. Nothing relies on it: a signature is made with the key itself.
const PUBLIC: &str = "Public: ";
/// What to do about a key that is not there.
pub(super) const MISSING: &str =
    "the key is needed to sign; copy it from where it is kept, or name its folder with `--keys`";
const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// OWASP's recommendation of 2023 for PBKDF2-HMAC-SHA-256.
const ROUNDS: u32 = if cfg!(test) { 1000 } else { 600_000 };

/// A private key (Ed25519) that was read from a file.
pub struct KeyFile {
    pkcs8: SecretDocument,
    id: Decoded<Hex>,
}

impl KeyFile {
    /// A new key, written to `path`, which must not exist.
    pub(super) fn generate(path: &Path, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let failed = |_| KeyError::io(path)(io::Error::other("no random numbers"));
        let pkcs8 = Ed25519KeyPair::generate()
            .and_then(|pair| pair.to_pkcs8v1()) // version 1: OpenSSL reads no other
            .map_err(failed)?;
        let not_a_key = |_| KeyError::NotAKey {
            path: path.to_owned(),
        };
        let plain = SecretDocument::try_from(pkcs8.as_ref()).map_err(not_a_key)?;
        let pem = match passphrase {
            None => plain.to_pem(PLAIN, LineEnding::LF),
            Some(passphrase) => {
                let (mut salt, mut iv) = ([0; 16], [0; 16]);
                let random = SystemRandom::new();
                random
                    .fill(&mut salt)
                    .and_then(|()| random.fill(&mut iv))
                    .map_err(failed)?;
                let key = PrivateKeyInfoRef::try_from(pkcs8.as_ref());
                pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, iv)
                    .map_err(pkcs8::Error::from)
                    .and_then(|parameters| key?.encrypt_with_params(parameters, passphrase))
                    .map_err(|_| KeyError::NotAKey {
                        path: path.to_owned(),
                    })?
                    .to_pem(ENCRYPTED, LineEnding::LF)
            }
        };
        let pem = pem.map_err(not_a_key)?;
        let key = Self::new(plain).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
        })?;
        let public = public::encode(&key.key_pair().tuf_key());
        let text = Zeroizing::new(format!("{PUBLIC}{public}\n{}", pem.as_str()));
        create(path, text.as_bytes())?;
        Ok(key)
    }

    /// The key in `path`; `passphrase` is asked when it is protected.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(path: &Path, passphrase: &Passphrase<'_>) -> Result<Self, KeyError> {
        let (label, document) = read(path)?;
        let not_a_key = || KeyError::NotAKey {
            path: path.to_owned(),
        };
        let plain = match label.as_str() {
            PLAIN => document,
            ENCRYPTED => {
                let Some(passphrase) = passphrase(path) else {
                    return Err(KeyError::PassphraseNeeded {
                        path: path.to_owned(),
                    });
                };
                EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
                    .map_err(|_| not_a_key())?
                    .decrypt(passphrase.as_bytes())
                    .map_err(|_| KeyError::WrongPassphrase {
                        path: path.to_owned(),
                    })?
            }
            _ => return Err(not_a_key()),
        };
        Self::new(plain).ok_or_else(not_a_key)
    }

    fn new(pkcs8: SecretDocument) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_bytes()).ok()?;
        let id = pair.tuf_key().key_id().ok()?;
        Some(Self { pkcs8, id })
    }

    /// The TUF key id.
    pub fn id(&self) -> Decoded<Hex> {
        self.id.clone()
    }

    /// The key, ready to sign.
    pub(crate) fn key_pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(self.pkcs8.as_bytes()).expect("it was one when it was loaded")
    }
}

/// What can be said of the private key in `path` without a passphrase.
pub(super) struct Glance {
    /// Whether it is protected by a passphrase.
    pub(super) encrypted: bool,
    /// Its public half; a protected key of older versions does not tell it.
    pub(super) public: Option<Key>,
}

/// Looks at the key in `path`; nothing when the file holds something else than a private key.
pub(super) fn glance(path: &Path) -> Result<Option<Glance>, KeyError> {
    let text = read_text(path)?;
    if !text.contains(&format!("-----BEGIN {PLAIN}-----"))
        && !text.contains(&format!("-----BEGIN {ENCRYPTED}-----"))
    {
        return Ok(None);
    }
    let encrypted = text.contains(&format!("-----BEGIN {ENCRYPTED}-----"));
    let public = if encrypted {
        text.lines()
            .find_map(|line| line.strip_prefix(PUBLIC))
            .and_then(public::parse)
    } else {
        Some(KeyFile::load(path, &|_| None)?.key_pair().tuf_key())
    };
    Ok(Some(Glance { encrypted, public }))
}

/// Writes the new file `path` (mode 0600), whole and durable; what is there stays.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let dir = path.parent().unwrap_or(path);
    let io = KeyError::io;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io(dir))?; // mode 0600
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(io(path))?;
    file.persist_noclobber(path)
        .map_err(|failed| match failed.error.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists {
                dir: dir.to_owned(),
                found: path.to_owned(),
            },
            _ => io(path)(failed.error),
        })?;
    pytheas_durable::sync_dir(dir).map_err(io(dir))
}

/// Label and content of the PEM file `path`, which only its owner may read.
fn read(path: &Path) -> Result<(String, SecretDocument), KeyError> {
    let text = read_text(path)?;
    let not_a_key = || KeyError::NotAKey {
        path: path.to_owned(),
    };
    // What stands before it is for people (RFC 7468 §2).
    let pem = text.find("-----BEGIN ").map(|at| &text[at..]);
    let (label, document) =
        SecretDocument::from_pem(pem.ok_or_else(not_a_key)?).map_err(|_| not_a_key())?;
    Ok((label.to_owned(), document))
}

/// The text in `path`, which only its owner may read.
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let mode = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing {
                path: path.to_owned(),
                help: MISSING,
            });
        }
        other => other.map_err(KeyError::io(path))?.permissions().mode() & 0o7777,
    };
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::NotAKey {
            path: path.to_owned(),
        }),
        other => Ok(Zeroizing::new(other.map_err(KeyError::io(path))?)),
    }
}

#[async_trait]
impl KeySource for KeyFile {
    async fn as_sign(
        &self,
    ) -> Result<Box<dyn Sign>, Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(Box::new(self.key_pair()))
    }

    async fn write(
        &self,
        _value: &str,
        _key_id_hex: &str,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Err("keys are never overwritten".into())
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({})", crate::client::short_key_id(&self.id))
    }
}
