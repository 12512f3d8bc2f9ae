//! A program that signs with a key that somebody else keeps (token, KMS, smart card): what it gets,
//! and what it may answer.
//!
//! It gets the message on standard input and in the file `$PYTHEAS_MESSAGE`, its digest in
//! `$PYTHEAS_DIGEST`, and answers on standard output or in the file `$PYTHEAS_SIGNATURE`: raw, in
//! base64 or in hex; ECDSA's as DER or as `r ‖ s`. The files lie in memory alone (memfd_create(2))
//! and are reached below `/proc`; nothing is left behind, whatever happens. Whoever calls verifies
//! each candidate with the public key before it is used.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, kill_process_group},
};

/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// What writes more than this is stopped: it would fill the memory.
const MUCH: u64 = 4 << 20;
/// How often a program is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A program that gave no signature.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// It could not be started, or not be watched.
    #[error("the signing command cannot be run")]
    Run(#[source] io::Error),
    /// Its time was over.
    #[error("the signing command took longer than {} s and was stopped", .0.as_secs_f32())]
    Timeout(Duration),
    /// It wrote without end.
    #[error("the signing command wrote more than {MUCH} bytes and was stopped")]
    TooMuch,
    /// It said that it failed.
    #[error("the signing command failed ({status}){}", said(.stderr))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// It ended well and wrote nothing.
    #[error("the signing command gave no signature{}", said(.stderr))]
    Nothing {
        /// What it said.
        stderr: String,
    },
    /// What it wrote is no signature by the key.
    #[error("what the signing command gave ({size_bytes} bytes) is no {scheme} signature by {key}")]
    Wrong {
        /// How much it wrote.
        size_bytes: usize,
        /// What was wanted.
        scheme: String,
        /// Whose it should be: `the key …`.
        key: String,
    },
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// Who reads what the program says while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// A person at a terminal, who also types PINs.
    Person,
    /// Nobody: it is kept for the error; the program has a process group of its own and is ended
    /// with all that it started.
    Nobody,
}

/// One signature to be made.
#[derive(Debug)]
pub struct Signing {
    message: File,
    digest: File,
    signature: File,
}

impl Signing {
    /// The files for the signature of `message`, whose digest is `digest`.
    ///
    /// # Errors
    /// [`SigningError::Run`] when there are no files in memory.
    pub fn new(message: &[u8], digest: &[u8]) -> Result<Self, SigningError> {
        Ok(Self {
            message: in_memory("message", message)?,
            digest: in_memory("digest", digest)?,
            signature: in_memory("signature", b"")?,
        })
    }

    /// The file with the digest, for programs that want its name as an argument.
    pub fn digest_path(&self) -> String {
        path(&self.digest)
    }

    /// Runs `command`. What it answers, to be looked at through [`candidates`].
    ///
    /// # Errors
    /// [`SigningError`], all but `Wrong`.
    pub fn run(
        self,
        command: &mut Command,
        timeout: Duration,
        listener: Listener,
    ) -> Result<Vec<u8>, SigningError> {
        let (stdout, stderr) = (in_memory("stdout", b"")?, in_memory("stderr", b"")?);
        let shared = |file: &File| file.try_clone().map_err(SigningError::Run);
        command
            .env("PYTHEAS_MESSAGE", path(&self.message))
            .env("PYTHEAS_DIGEST", path(&self.digest))
            .env("PYTHEAS_SIGNATURE", path(&self.signature))
            .stdin(shared(&self.message)?)
            .stdout(shared(&stdout)?);
        match listener {
            Listener::Person => command.stderr(Stdio::inherit()),
            Listener::Nobody => command.stderr(shared(&stderr)?).process_group(0),
        };
        let mut child = command.spawn().map_err(SigningError::Run)?;
        let outputs = [&stdout, &stderr, &self.signature];
        let status = wait(&mut child, timeout, listener, outputs)?;
        let stderr = String::from_utf8_lossy(&read(stderr)).into_owned();
        if !status.success() {
            return Err(SigningError::Failed { status, stderr });
        }
        let answer = match read(self.signature) {
            bytes if bytes.is_empty() => read(stdout),
            bytes => bytes,
        };
        match answer.is_empty() {
            true => Err(SigningError::Nothing { stderr }),
            false => Ok(answer),
        }
    }
}

/// A file that is nowhere on the disk, read from its beginning.
fn in_memory(name: &str, bytes: &[u8]) -> Result<File, SigningError> {
    let make = || {
        let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    make().map_err(SigningError::Run)
}

/// Under which name programs that we start find it.
fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// The first bytes of a file.
fn read(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(0)).is_ok() {
        let _as_far_as_it_goes = file.take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// Waits until it ends, the time is over, or one of `outputs` is too long; then it is ended.
fn wait(
    child: &mut Child,
    timeout: Duration,
    listener: Listener,
    outputs: [&File; 3],
) -> Result<ExitStatus, SigningError> {
    let start = Instant::now();
    let long = |file: &File| file.metadata().is_ok_and(|meta| meta.len() > MUCH);
    loop {
        if let Some(status) = child.try_wait().map_err(SigningError::Run)? {
            return Ok(status);
        }
        let error = if start.elapsed() >= timeout {
            SigningError::Timeout(timeout)
        } else if outputs.into_iter().any(long) {
            SigningError::TooMuch
        } else {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        };
        if listener == Listener::Nobody
            && let Some(pid) = Pid::from_raw(child.id().cast_signed())
        {
            let _gone = kill_process_group(pid, Signal::KILL);
        }
        let _gone = child.kill();
        child.wait().map_err(SigningError::Run)?;
        return Err(error);
    }
}

/// What `answer` may mean.
pub fn candidates(answer: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![answer.to_vec()];
    if let Ok(text) = std::str::from_utf8(answer) {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        all.extend(hex::decode(&text).ok());
        all.extend(STANDARD.decode(&text).ok());
    }
    let ders: Vec<_> = all.iter().filter_map(|raw| der(raw)).collect();
    all.extend(ders);
    all
}

/// ECDSA's `r ‖ s` (PKCS#11) on P-256 or P-384 as DER (RFC 3279 §2.2.3).
fn der(raw: &[u8]) -> Option<Vec<u8>> {
    if !matches!(raw.len(), 64 | 96) {
        return None;
    }
    let mut body = Vec::with_capacity(104);
    for number in raw.chunks(raw.len() / 2) {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros.min(number.len() - 1)..)?;
        let sign = usize::from(*number.first()? >= 0x80);
        body.extend([0x02, u8::try_from(number.len() + sign).ok()?]);
        body.extend(std::iter::repeat_n(0, sign));
        body.extend_from_slice(number);
    }
    // Below 128, the length is one byte (X.690 §8.1.3.4).
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 128)?;
    let mut all = vec![0x30, len];
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
        let found = der(&raw).unwrap();
        assert_eq!(found[..7], [0x30, 38, 2, 1, 1, 2, 33]);
        assert_eq!(found.len(), 40);
        assert_eq!((found[7], found[8], found[39]), (0, 0x80, 2));

        let found = der(&[0xff; 96]).unwrap();
        assert_eq!(found[..5], [0x30, 102, 2, 49, 0]);
        assert_eq!(found.len(), 104);
        assert_eq!(der(&[0; 64]).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(der(&[1; 63]), None);
    }

    #[test]
    fn a_program_reads_its_files_and_answers_in_one_or_on_standard_output() {
        let ask = |script: &str| {
            let signing = Signing::new(b"the message", b"the digest").unwrap();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            signing.run(&mut command, Duration::from_secs(60), Listener::Nobody)
        };
        assert_eq!(ask("cat").unwrap(), b"the message");
        assert_eq!(
            ask("cat $PYTHEAS_DIGEST - $PYTHEAS_MESSAGE > $PYTHEAS_SIGNATURE; echo not this")
                .unwrap(),
            b"the digestthe messagethe message"
        );
        let error = ask("echo no token >&2; exit 3").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the signing command failed (exit status: 3): no token"
        );
    }
}
