//! One run of Python with `-X importtime`, and what it told.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    ImportRequest, ImportsError,
    error::io_error,
    subject::{Begin, Subject},
};

/// What the probe says before the first import of the app.
const BEGIN: &str = "pytheas: begin";

/// One run, as it was told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Run {
    /// Depth, name and microseconds, in the order of their end: what a module imports comes first.
    pub(super) before: Vec<(usize, String, u64)>,
    pub(super) after: Vec<(usize, String, u64)>,
    pub(super) spent_us: u64,
    pub(super) failed: Option<String>,
    /// Name → file, byte code.
    pub(super) files: BTreeMap<String, (PathBuf, PathBuf)>,
}

pub(super) fn run(
    subject: &Subject,
    request: &ImportRequest,
    room: &Path,
    probe: &Path,
) -> Result<Run, ImportsError> {
    let (out, said) = (room.join("out"), room.join("said"));
    let _absent_at_first = fs::remove_file(&out);
    let stderr = File::create(&said).map_err(io_error("write", &said))?;
    let mut command: Command = request.environment.python(&subject.python);
    command
        .args(&subject.flags)
        .args(["-X", "importtime"])
        .arg(probe)
        .arg(&out);
    match &subject.begin {
        Begin::Module(module) => command.arg("module").arg(module),
        Begin::Script(script) => command.arg("script").arg(script),
    };
    command
        .args(&subject.folders)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(io_error("start", &subject.python))?;
    let group = rustix::process::Pid::from_raw(child.id().cast_signed());
    // Processes that a module starts when it is imported would stay, one of each run.
    let end_group = || {
        if let Some(group) = group {
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    };
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .map_err(io_error("wait for", &subject.python))?
        {
            end_group();
            break status;
        }
        if begun.elapsed() > request.timeout {
            end_group();
            let _ended = child.wait();
            return Err(ImportsError::Timeout {
                entry: subject.entry.clone(),
                after: request.timeout,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = fs::read(&said).map_err(io_error("read", &said))?;
    let text = String::from_utf8_lossy(&text);
    let Ok(written) = fs::read(&out) else {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("import time:") && *line != BEGIN)
            .collect();
        return Err(ImportsError::Ended {
            entry: subject.entry.clone(),
            status,
            said: lines[lines.len().saturating_sub(5)..].join("\n"),
        });
    };
    Ok(parse(&text, &String::from_utf8_lossy(&written)))
}

/// What Python told on standard error, among all else that modules may write there, and the probe.
pub(super) fn parse(said: &str, written: &str) -> Run {
    let mut run = Run::default();
    let mut has_begun = false;
    for line in said.lines() {
        if line == BEGIN {
            has_begun = true;
        }
        let Some(rest) = line.strip_prefix("import time:") else {
            continue;
        };
        let mut parts = rest.splitn(3, '|');
        let (Some(own), Some(_), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Ok(own) = own.trim().parse() else {
            continue;
        };
        let name = name.strip_prefix(' ').unwrap_or(name);
        let depth = (name.len() - name.trim_start().len()) / 2;
        let entry = (depth, name.trim().to_owned(), own);
        if has_begun {
            run.after.push(entry);
        } else {
            run.before.push(entry);
        }
    }
    for line in written.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match *fields.as_slice() {
            ["spent", spent] => run.spent_us = spent.parse().unwrap_or(0),
            ["failed", reason] => run.failed = Some(reason.to_owned()),
            [_, name, file, code] => {
                run.files
                    .insert(name.to_owned(), (file.into(), code.into()));
            }
            _ => {}
        }
    }
    run
}
