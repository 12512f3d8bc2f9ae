//! A key that somebody else keeps: a program signs with it (token, KMS, smart card).
//!
//! ```toml
//! # keys/root-token.toml, mode 0600
//! command = "pkcs11-tool --token-label ceremony --login --sign -m ECDSA-SHA256 --id 01 -i $PYTHEAS_MESSAGE -o $PYTHEAS_SIGNATURE"
//! public = '{"keytype":"ecdsa",…}'     # or the public key in PEM
//! timeout = "2m"                       # default
//! ```
//! The command runs under `/bin/sh -c`; [`crate::signing`] says what it gets and may answer. The
//! digest is SHA-256 (what cloud KMSs want). Whatever comes is verified with the public key before
//! it is used.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pytheas_release::Sha256;
use serde::Deserialize;
use tough::schema::key::Key;

use super::{KeyError, public};
use crate::signing::{Listener, Signing, SigningError, candidates};

/// How long a command may take when its file does not say: somebody must touch a token.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    command: String,
    public: String,
    #[serde(default)]
    timeout: Option<String>,
}

/// A key that signs by running a program.
#[derive(Debug, Clone)]
pub struct CommandKey {
    path: PathBuf,
    command: String,
    key: Key,
    timeout: Duration,
}

impl CommandKey {
    /// The key that `text`, the content of `path`, describes.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, KeyError> {
        let bad = |why: String| KeyError::BadCommand {
            path: path.to_owned(),
            why,
        };
        let document: Document =
            toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
        let key = public::parse(&document.public)
            .ok_or_else(|| bad("`public` is no public key".to_owned()))?;
        if document.command.trim().is_empty() {
            return Err(bad("`command` is empty".to_owned()));
        }
        let timeout = match document.timeout.as_deref() {
            None => TIMEOUT,
            Some(text) => pytheas_release::parse_duration_ms(text)
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis)
                .ok_or_else(|| bad(format!("`timeout` is `{text}`, no duration such as `90s`")))?,
        };
        Ok(Self {
            path: path.to_owned(),
            command: document.command,
            key,
            timeout,
        })
    }

    /// The file that describes a key.
    pub(super) fn document(command: &str, key: &Key, timeout_ms: Option<u64>) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!(
            "# A key that signs by running a program; see `pytheas help keys new`.\ncommand = {}\npublic = {}\n",
            quoted(command),
            quoted(&public::encode(key)),
        );
        if let Some(ms) = timeout_ms {
            text += &format!("timeout = \"{ms}ms\"\n");
        }
        text
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the command over `message`. The signature, verified.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        // A person at a terminal types PINs and reads what the program says.
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        let listener = match terminal {
            Ok(_) => Listener::Person,
            Err(_) => Listener::Nobody,
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &self.command]);
        let signing = Signing::new(message, Sha256::of(message).as_bytes())?;
        let answer = signing.run(&mut command, self.timeout, listener)?;
        candidates(&answer)
            .into_iter()
            .find(|signature| public::verify(&self.key, message, signature))
            .ok_or_else(|| SigningError::Wrong {
                size_bytes: answer.len(),
                scheme: public::scheme(&self.key).to_owned(),
                key: format!(
                    "the key `{}`",
                    crate::client::short_key_id(&public::id(&self.key))
                ),
            })
    }
}
