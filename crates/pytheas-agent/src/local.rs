//! What somebody at the device asks beside `status`: `history`, `verify`, `rollback`, `logs`.
//!
//! All of them work without an agent that runs, and read no more than they have to: who may not
//! write the state directory can still look.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, IsTerminal as _, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use clap::Args;
use pytheas_api::ddi::Confirmation;
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::{RemoveArgs, StateArgs, StatusArgs, say},
    confirm,
    error::{AgentError, exit},
    history, remove, request, slots,
    status::load_machine,
};

/// How often `logs --follow` looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The app's log, oldest part first; see `supervisor::log`.
const LOG_FILES: [&str; 3] = ["app.log.2", "app.log.1", "app.log"];
/// Marks lines that are the supervisor's, not the app's.
const OWN_LINE: &str = "--- pytheas: ";

/// Show what happened to the device's releases, newest last
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Show only the newest N
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// As JSON: an array, oldest first
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Show what the app has written
///
/// On a terminal, what would steer it is written out (`\u{1b}[31m`); through a pipe come the app's
/// own bytes.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Show only the newest N lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Go on with what the app writes from now on, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// As JSON: one object a line, `{"by": "app" or "agent", "line": …}`
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// One line of JSON.
fn say_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), AgentError> {
    let text = serde_json::to_string_pretty(value).expect("all keys are strings");
    crate::cli::put_json(out, &text).map(drop)
}

/// `history`.
///
/// # Errors
/// [`AgentError`].
pub(crate) fn history(args: &HistoryArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let dir = args.state.dir();
    let entries = history::load(&dir).map_err(AgentError::history(&dir.history()))?;
    let newest = entries
        .len()
        .saturating_sub(args.lines.unwrap_or(usize::MAX));
    let shown = &entries[newest..];
    if args.json {
        say_json(out, &shown)?;
    } else if entries.is_empty() {
        say(out, format_args!("nothing has happened yet\n"))?;
    } else {
        for entry in shown {
            say(out, format_args!("{entry}\n"))?;
        }
    }
    Ok(exit::OK)
}

/// `rollback`.
///
/// # Errors
/// [`AgentError`].
pub(crate) fn rollback(args: &StatusArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let asked = request::rollback(&args.state.dir())?;
    let to = asked.to;
    if args.json {
        say_json(
            out,
            &json!({"to": to.join(", "), "agent_pid": asked.agent_pid}),
        )?;
        return Ok(exit::OK);
    }
    let to = to.join("`, `");
    match asked.agent_pid {
        Some(pid) => say(out, format_args!("agent {pid} goes back to `{to}`\n"))?,
        None => say(out, format_args!("`{to}` runs when the agent starts\n"))?,
    };
    Ok(exit::OK)
}

/// `approve` and `deny`.
///
/// # Errors
/// [`AgentError`].
pub(crate) fn answer(
    args: &StatusArgs,
    said: Confirmation,
    because: Option<&str>,
    out: &mut dyn Write,
) -> Result<u8, AgentError> {
    let answered = confirm::answer(&args.state.dir(), said, because)?;
    if args.json {
        let (release, action) = (answered.release, answered.action);
        say_json(
            out,
            &json!({"release": release, "action": action, "answer": said}),
        )?;
        return Ok(exit::OK);
    }
    match (answered.release, said) {
        (Some(release), Confirmation::Confirmed) => {
            say(out, format_args!("the update to `{release}` goes on\n"))?;
        }
        (Some(release), Confirmation::Denied) => {
            say(out, format_args!("`{release}` is not installed now\n"))?;
        }
        (None, _) => say(out, format_args!("no update waits\n"))?,
    }
    Ok(exit::OK)
}

/// `remove`.
///
/// # Errors
/// [`AgentError`].
pub(crate) fn remove(args: &RemoveArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let what = match args.data {
        true => remove::Data::Delete,
        false => remove::Data::Keep,
    };
    let removed = remove::remove(&args.asked.state.dir(), &args.name, what)?;
    let code = if removed.done { exit::OK } else { exit::WORLD };
    if args.asked.json {
        say_json(
            out,
            &json!({"release": removed.release, "removed": removed.done, "data": removed.data}),
        )?;
        return Ok(code);
    }
    match (removed.done, removed.data) {
        (false, _) => say(
            out,
            format_args!(
                "the agent has not removed `{}` yet; its log says why\n",
                removed.release
            ),
        )?,
        (true, Some(data)) => say(
            out,
            format_args!(
                "`{}` is removed; its data stays in `{}`\n",
                removed.release,
                data.display()
            ),
        )?,
        (true, None) => say(out, format_args!("`{}` is removed\n", removed.release))?,
    }
    Ok(code)
}

/// `verify`.
///
/// # Errors
/// [`AgentError::Damaged`] when a byte is wrong.
pub(crate) fn verify(args: &StatusArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let dir = args.state.dir();
    let machine = load_machine(&dir)?.unwrap_or_default();
    if machine.current().is_none() {
        return Err(AgentError::NothingInstalled {
            dir: dir.root().to_owned(),
        });
    }
    let mut all = Vec::new();
    for installed in machine.installed() {
        let dir = match machine.first_name() == Some(&installed.release.name) {
            true => dir.clone(),
            false => dir.component(&installed.release.name),
        };
        let (release, tree) = (installed.release.to_string(), installed.tree);
        let damage = slots::slot_damage(&dir, tree)?;
        let (files, bytes) = slots::document(&dir, tree).map_or((0, 0), |document| {
            (document.file_count(), document.size_bytes())
        });
        if args.json {
            all.push(json!({
                "release": release, "tree": tree, "whole": damage.is_none(),
                "files": files, "size_bytes": bytes, "damage": damage,
            }));
            continue;
        }
        if let Some(damage) = damage {
            return Err(AgentError::Damaged { release, damage });
        }
        say(
            out,
            format_args!("`{release}` is whole: {files} files, {bytes} bytes, tree {tree}\n"),
        )?;
    }
    if !args.json {
        return Ok(exit::OK);
    }
    let is_whole = all.iter().all(|found| found["damage"].is_null());
    // One app, as on most devices, is told as itself.
    match all.as_slice() {
        [one] => say_json(out, one)?,
        several => say_json(out, &several)?,
    };
    Ok(if is_whole { exit::OK } else { exit::REFUSED })
}

/// `logs`: ends when `out` is closed, with `--follow` not before.
///
/// # Errors
/// [`AgentError`].
pub(crate) fn logs(args: &LogsArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let folder = args.state.dir().logs();
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let mut open = None;
    for name in LOG_FILES {
        let path = folder.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(AgentError::io("read", &path))?,
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .map_err(AgentError::io("read", &path))?
            > 0
        {
            if last.len() == args.lines {
                last.pop_front();
            }
            if args.lines > 0 {
                last.push_back(std::mem::take(&mut line));
            }
            line.clear();
        }
        open = (name == LOG_FILES[2]).then_some(reader.into_inner());
    }
    let how = match (args.json, io::stdout().is_terminal()) {
        (true, _) => How::Json,
        (false, true) => How::Escaped,
        (false, false) => How::Raw,
    };
    let mut printer = Printer {
        out,
        how,
        begun: Vec::new(),
    };
    for line in last {
        if !printer.take(&line)? {
            return Ok(exit::OK);
        }
    }
    if args.follow {
        follow(&folder.join(LOG_FILES[2]), open, &mut printer)?;
    } else {
        printer.end()?;
    }
    Ok(exit::OK)
}

/// Shows what comes, through rotations, until nobody listens.
fn follow(
    path: &Path,
    mut open: Option<File>,
    printer: &mut Printer<'_>,
) -> Result<(), AgentError> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        if let Some(file) = &mut open {
            loop {
                let len = file
                    .read(&mut bytes)
                    .map_err(AgentError::io("read", path))?;
                if !printer.take(&bytes[..len])? {
                    return Ok(());
                }
                if len == 0 {
                    break;
                }
            }
        }
        let here = fs::metadata(path).map(|m| (m.dev(), m.ino(), m.len())).ok();
        let at = open.as_mut().and_then(|file| {
            let metadata = file.metadata().ok()?;
            Some((metadata.dev(), metadata.ino(), file.stream_position().ok()?))
        });
        match (here, at) {
            // Rotated: what was written to the old file until then was read above.
            (Some((dev, ino, _)), at) if at.is_none_or(|at| (at.0, at.1) != (dev, ino)) => {
                let rest = open.take();
                if let Some(mut rest) = rest {
                    let mut bytes = Vec::new();
                    let _what_there_is = rest.read_to_end(&mut bytes);
                    if !printer.take(&bytes)? {
                        return Ok(());
                    }
                }
                open = File::open(path).ok();
                continue;
            }
            // Cut by somebody: from its new end on.
            (Some((.., len)), Some((.., position))) if len < position => {
                if let Some(file) = &mut open {
                    let _read_again_next_time = file.seek(SeekFrom::Start(0));
                }
            }
            _ => {}
        }
        // Also says that nobody listens any more: `logs -f | head` ends when the next line comes.
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How lines are put out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// As they are: whoever reads them through a pipe wants the app's own bytes.
    Raw,
    /// Without what would steer a terminal.
    Escaped,
    /// One object a line.
    Json,
}

/// Puts lines out.
struct Printer<'a> {
    out: &'a mut dyn Write,
    how: How,
    begun: Vec<u8>,
}

impl Printer<'_> {
    /// Whether anybody still listens.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, AgentError> {
        if self.how == How::Raw {
            return crate::cli::put(self.out, bytes);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") && !self.end()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the line that was begun.
    fn end(&mut self) -> Result<bool, AgentError> {
        if self.begun.is_empty() {
            return Ok(true);
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned();
        if self.how == How::Escaped {
            return crate::cli::put(self.out, escaped(&line).as_bytes());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        let object = match line.strip_prefix(OWN_LINE) {
            Some(own) => json!({"by": "agent", "line": own}),
            None => json!({"by": "app", "line": line}),
        };
        crate::cli::put_json(self.out, &object.to_string())
    }
}

/// A line of the app's with what steers a terminal written as in a string: `\u{1b}[31m`.
fn escaped(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (text, end) = match line.strip_suffix('\n') {
        Some(text) => (text.strip_suffix('\r').unwrap_or(text), "\n"),
        None => (line, ""),
    };
    for c in text.chars() {
        match crate::cli::steers(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(how: How, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer {
            out: &mut out,
            how,
            begun: Vec::new(),
        };
        for piece in pieces {
            assert!(printer.take(piece).unwrap());
        }
        assert!(printer.end().unwrap());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn what_an_app_writes_steers_no_terminal_and_no_reader_of_json() {
        // Cut in the middle of a character, as reads are.
        let pieces: [&[u8]; 3] = [
            b"\x1b[31mred\x07\tcaf\xc3",
            b"\xa9 \xc2\x9b2J \xe2\x80\xae\r\n--- pytheas: started\n",
            b"no end \xff",
        ];
        insta::assert_snapshot!(shown(How::Escaped, &pieces), @r"
        \u{1b}[31mred\u{7}	café \u{9b}2J \u{202e}
        --- pytheas: started
        no end �
        ");
        insta::assert_snapshot!(shown(How::Json, &pieces), @r#"
        {"by":"app","line":"\u001b[31mred\u0007\tcafé \u009b2J \u202e"}
        {"by":"agent","line":"started"}
        {"by":"app","line":"no end �"}
        "#);
        assert!(shown(How::Raw, &pieces).contains("\u{1b}[31mred\u{7}"));
    }
}
