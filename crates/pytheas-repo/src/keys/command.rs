//! A key that somebody else keeps: a program signs with it (token, KMS, smart card).
//!
//! ```toml
//! # keys/root-token.toml, mode 0600
//! command = "pkcs11-tool --token-label ceremony --login --sign -m ECDSA-SHA256 --id 01 -i $PYTHEAS_MESSAGE -o $PYTHEAS_SIGNATURE"
//! public = '{"keytype":"ecdsa",…}'     # or the public key in PEM
//! timeout = "2m"                       # default
//! ```
//! The command runs under `/bin/sh -c` and gets the message on standard input. It answers on
//! standard output, or in the file `$PYTHEAS_SIGNATURE`. `$PYTHEAS_MESSAGE` is a file with the
//! message, `$PYTHEAS_DIGEST` one with the 32 bytes of its SHA-256 (what cloud KMSs want). The
//! signature may be raw, in base64 or in hex; ECDSA's as DER or as the 64 bytes `r ‖ s`. Whatever
//! comes is verified with the public key before it is used.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pytheas_release::Sha256;
use serde::Deserialize;
use tough::schema::key::Key;

use super::{KeyError, public};

/// How long a command may take when its file does not say: somebody must touch a token.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// What writes more than this is stopped: it would fill the disk.
const MUCH: u64 = 4 << 20;

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

/// A command that gave no signature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("the signing command cannot be run")]
    Run(#[source] io::Error),
    #[error("the signing command took longer than {} s and was stopped", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("the signing command wrote more than {MUCH} bytes and was stopped")]
    TooMuch,
    #[error("the signing command failed ({status}){}", said(.stderr))]
    Failed { status: ExitStatus, stderr: String },
    #[error("the signing command gave no signature{}", said(.stderr))]
    Nothing { stderr: String },
    #[error(
        "what the signing command gave ({size_bytes} bytes) is no {scheme} signature by the key `{id}`"
    )]
    Wrong {
        size_bytes: usize,
        scheme: &'static str,
        id: String,
    },
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
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
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CommandError> {
        let dir = tempfile::tempdir().map_err(CommandError::Run)?;
        let file = |name: &str| dir.path().join(name);
        let digest = Sha256::of(message);
        for (name, bytes) in [("message", message), ("digest", digest.as_bytes())] {
            pytheas_durable::replace_private(&file(name), bytes).map_err(CommandError::Run)?;
        }
        let open = |name: &str| File::create(file(name)).map_err(CommandError::Run);
        // A person at a terminal types PINs and reads what the program says.
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &self.command])
            .env("PYTHEAS_MESSAGE", file("message"))
            .env("PYTHEAS_DIGEST", file("digest"))
            .env("PYTHEAS_SIGNATURE", file("signature"))
            .stdin(File::open(file("message")).map_err(CommandError::Run)?)
            .stdout(open("stdout")?);
        if terminal.is_ok() {
            command.stderr(Stdio::inherit());
        } else {
            command.stderr(open("stderr")?).process_group(0);
        }
        let mut child = command.spawn().map_err(CommandError::Run)?;
        let outputs = ["stdout", "stderr", "signature"].map(file);
        let status = wait(&mut child, self.timeout, terminal.is_err(), &outputs)?;
        let stderr = String::from_utf8_lossy(&read(&file("stderr"))).into_owned();
        if !status.success() {
            return Err(CommandError::Failed { status, stderr });
        }
        let answer = match read(&file("signature")) {
            bytes if bytes.is_empty() => read(&file("stdout")),
            bytes => bytes,
        };
        if answer.is_empty() {
            return Err(CommandError::Nothing { stderr });
        }
        candidates(&answer)
            .into_iter()
            .find(|signature| public::verify(&self.key, message, signature))
            .ok_or_else(|| CommandError::Wrong {
                size_bytes: answer.len(),
                scheme: public::scheme(&self.key),
                id: crate::client::short_key_id(&public::id(&self.key)),
            })
    }
}

/// The first bytes of a file; none when there is no such file.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _as_far_as_it_goes = file.take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// Waits until it ends, the time is over, or one of `outputs` is too long; then it is ended, with all
/// it started when it has a process group of its own.
fn wait(
    child: &mut Child,
    timeout: Duration,
    group: bool,
    outputs: &[PathBuf],
) -> Result<ExitStatus, CommandError> {
    let start = Instant::now();
    let long = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.len() > MUCH);
    loop {
        if let Some(status) = child.try_wait().map_err(CommandError::Run)? {
            return Ok(status);
        }
        let error = if start.elapsed() >= timeout {
            CommandError::Timeout(timeout)
        } else if outputs.iter().any(long) {
            CommandError::TooMuch
        } else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        if group && let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            let _gone = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _gone = child.kill();
        child.wait().map_err(CommandError::Run)?;
        return Err(error);
    }
}

/// What `answer` may mean.
fn candidates(answer: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![answer.to_vec()];
    if let Ok(text) = std::str::from_utf8(answer) {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let nibble = |c: u8| (c as char).to_digit(16);
        let hex: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => u8::try_from(nibble(*a)? * 16 + nibble(*b)?).ok(),
                _ => None,
            })
            .collect();
        all.extend(hex);
        all.extend(STANDARD.decode(&text).ok());
    }
    let ders: Vec<_> = all.iter().filter_map(|raw| der(raw)).collect();
    all.extend(ders);
    all
}

/// ECDSA's `r ‖ s` (PKCS#11) as the DER that TUF wants (RFC 3279 §2.2.3).
fn der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 {
        return None;
    }
    let mut body = Vec::with_capacity(72);
    for number in raw.chunks(32) {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(31);
        let number = &number[zeros..];
        let sign = usize::from(number[0] >= 0x80);
        body.extend([0x02, u8::try_from(number.len() + sign).ok()?]);
        body.extend(std::iter::repeat_n(0, sign));
        body.extend_from_slice(number);
    }
    let mut all = vec![0x30, u8::try_from(body.len()).ok()?];
    all.extend(body);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_ecdsa_signatures_become_der() {
        let mut raw = [0; 64];
        (raw[31], raw[32], raw[63]) = (1, 0x80, 2);
        let der = der(&raw).unwrap();
        assert_eq!(der[..7], [0x30, 38, 2, 1, 1, 2, 33]);
        assert_eq!(der.len(), 40);
        assert_eq!((der[7], der[8], der[39]), (0, 0x80, 2));
    }
}
