//! What goes wrong between here and a board, and what to do about it.

use std::io;

use miette::Diagnostic;

use super::{Address, Holder, holders};

/// A line that does not open, a board that does not answer, or a program on it that failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LinkError {
    /// There is no such port.
    #[error("there is no port `{port}`")]
    #[diagnostic(
        code(pytheas::board::no_port),
        help(
            "plug the board in, with a cable that carries data; `pytheas board list` shows the ports of this machine"
        )
    )]
    NoPort {
        /// The port.
        port: String,
    },
    /// The path is something else.
    #[error("`{port}` is no serial port")]
    #[diagnostic(
        code(pytheas::board::not_serial),
        help("`pytheas board list` shows the ports of this machine")
    )]
    NotSerial {
        /// The path.
        port: String,
    },
    /// This user may not open it.
    #[error("this user may not open `{port}`")]
    #[diagnostic(
        code(pytheas::board::permission),
        help(
            "it belongs to the group `{group}`: run `sudo usermod -aG {group} $USER`, then log in again"
        )
    )]
    Permission {
        /// The port.
        port: String,
        /// The group that may.
        group: String,
    },
    /// Another program has it.
    #[error("`{port}` is used by {}", named(by))]
    #[diagnostic(
        code(pytheas::board::port_in_use),
        help("end that program, or leave its REPL, and try again")
    )]
    Busy {
        /// The port.
        port: String,
        /// Who has it open, as far as can be seen.
        by: Vec<Holder>,
    },
    /// Something is wrong, and another program has it open, too, without having locked it.
    #[error(
        "`{port}` is also open in {}, which may take what the board says",
        named(by)
    )]
    #[diagnostic(
        code(pytheas::board::port_in_use::shared),
        help("end that program and try again")
    )]
    Shared {
        /// The port.
        port: String,
        /// Who has it open, as far as can be seen.
        by: Vec<Holder>,
        /// What went wrong.
        #[source]
        #[diagnostic_source]
        source: Behind,
    },
    /// Nothing listens at that address.
    #[error("cannot connect to `{port}`")]
    #[diagnostic(
        code(pytheas::board::unreachable),
        help("start the program that serves the port there, and check host and port number")
    )]
    Unreachable {
        /// The address.
        port: String,
        /// What the system says.
        source: io::Error,
    },
    /// A server that is not of that kind.
    #[error("`{host}` does not speak RFC 2217")]
    #[diagnostic(
        code(pytheas::board::not_rfc2217),
        help("if it passes bytes on as they are, write `tcp://{host}`")
    )]
    NotRfc2217 {
        /// The host and its port.
        host: String,
    },
    /// Reading or writing failed.
    #[error("the line to the board on `{port}` failed")]
    #[diagnostic(
        code(pytheas::board::io),
        help("check the cable, and that nothing else reset the board; then try again")
    )]
    Io {
        /// The port.
        port: String,
        /// What the system says.
        source: io::Error,
    },
    /// The other end went away.
    #[error("the board on `{port}` went away")]
    #[diagnostic(
        code(pytheas::board::io::gone),
        help("it was unplugged, or reset itself; when it is back, try again")
    )]
    Gone {
        /// The port.
        port: String,
    },
    /// The board started anew in the middle.
    #[error("the board on `{port}` restarted in the middle")]
    #[diagnostic(
        code(pytheas::board::io::restarted),
        help(
            "its reset button, its supply or a watchdog did that, nothing here; what ran before is still there: try again"
        )
    )]
    Restarted {
        /// The port.
        port: String,
    },
    /// The board stopped taking or sending bytes.
    #[error("the board on `{port}` stopped answering{}", said(during))]
    #[diagnostic(
        code(pytheas::board::io::stalled),
        help(
            "reset the board and try again; `pytheas board reset --hard` does so where the port can"
        )
    )]
    Stalled {
        /// The port.
        port: String,
        /// What it was doing, or empty.
        during: String,
    },
    /// No REPL: nothing came at all.
    #[error("nothing answers on `{port}`")]
    #[diagnostic(
        code(pytheas::board::failed::silent),
        help(
            "either no MicroPython is there (powered? right port? still in its boot loader?), or a program is running that neither prints nor lets Ctrl-C stop it: press the board's reset button and within a second run this again with `--catch`"
        )
    )]
    Silent {
        /// The port.
        port: String,
    },
    /// No REPL: a program goes on in spite of Ctrl-C.
    #[error(
        "a program is running on `{port}` that Ctrl-C does not stop; it printed {}",
        quoted(seen)
    )]
    #[diagnostic(
        code(pytheas::board::failed::running),
        help(
            "it catches `KeyboardInterrupt` or has set `micropython.kbd_intr(-1)`: run this again with `--catch` and press the board's reset button, which stops the program before it starts"
        )
    )]
    Running {
        /// The port.
        port: String,
        /// The last it printed.
        seen: String,
    },
    /// No REPL: what came is noise.
    #[error(
        "what comes from `{port}` is no text ({} at {baud} baud)",
        quoted(seen)
    )]
    #[diagnostic(
        code(pytheas::board::failed::baud),
        help(
            "the rate of the line is another one: most boards use 115200, some 9600, 74880 or 921600; give it with `--baud`"
        )
    )]
    Garbage {
        /// The port.
        port: String,
        /// The first of it.
        seen: String,
        /// The rate we read at.
        baud: u32,
    },
    /// No REPL: our own bytes come back.
    #[error("`{port}` only sends back what it is sent")]
    #[diagnostic(
        code(pytheas::board::failed::echo),
        help("its lines RX and TX are connected to each other, or no board is behind it")
    )]
    Echo {
        /// The port.
        port: String,
    },
    /// No REPL: something else is there.
    #[error(
        "what answers on `{port}` is not MicroPython; it said {}",
        quoted(seen)
    )]
    #[diagnostic(
        code(pytheas::board::failed::not_micropython),
        help(
            "put MicroPython's firmware on the board first, or choose another port: `pytheas board list`"
        )
    )]
    NotMicroPython {
        /// The port.
        port: String,
        /// What it said last.
        seen: String,
    },
    /// A program that was sent raised an exception.
    #[error("the board raised an exception\n{}", traceback.trim_end())]
    #[diagnostic(code(pytheas::board::raised))]
    Raised {
        /// The traceback as the board printed it.
        traceback: String,
        /// What to do about it, where that can be told from here.
        #[help]
        advice: Option<&'static str>,
    },
    /// An answer that does not parse.
    #[error(
        "the board on `{port}` gave an answer that was not expected: {}",
        quoted(seen)
    )]
    #[diagnostic(
        code(pytheas::board::io::answer),
        help(
            "another program printed meanwhile, or bytes were lost; reset the board and try again"
        )
    )]
    Answer {
        /// The port.
        port: String,
        /// What came.
        seen: String,
    },
    /// The user stopped it.
    #[error("stopped")]
    #[diagnostic(code(pytheas::board::stopped))]
    Stopped,
}

/// The error behind another one.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error(transparent)]
#[diagnostic(transparent)]
pub struct Behind(Box<LinkError>);

impl LinkError {
    /// The name of the exception that a program on the board raised, such as `OSError`.
    pub fn exception(&self) -> Option<&str> {
        let Self::Raised { traceback, .. } = self else {
            return None;
        };
        let last = traceback.trim_end().lines().last()?;
        last.split(':').next()
    }

    /// The last line of the traceback of a program on the board.
    pub fn last_line(&self) -> Option<&str> {
        match self {
            Self::Raised { traceback, .. } => traceback.trim_end().lines().last(),
            _ => None,
        }
    }
}

/// What to do about an exception of the board's.
pub(super) fn advice(traceback: &str) -> Option<&'static str> {
    let last = traceback.trim_end().lines().last()?;
    if last.contains("incompatible .mpy") {
        return Some(
            "a `.mpy` file there was compiled for another version or processor: `pytheas board info` shows what this board loads (`mpy`), `pytheas board deploy` compiles for it and refuses others",
        );
    }
    last.starts_with("MemoryError").then_some(
        "the board's memory was not enough: bring modules compiled (`pytheas board deploy`), where an image in a ROMFS partition takes least, and see what is free with `pytheas board info`",
    )
}

fn named(by: &[Holder]) -> String {
    match by {
        [] => "another program, which this user may not see".to_owned(),
        by => {
            let each = by
                .iter()
                .map(|holder| format!("`{}` (process {})", holder.program, holder.pid));
            each.collect::<Vec<_>>().join(" and ")
        }
    }
}

fn said(during: &str) -> String {
    match during {
        "" => String::new(),
        during => format!(" while {during}"),
    }
}

fn quoted(seen: &str) -> String {
    format!("`{}`", seen.trim().replace('`', "'"))
}

/// The error; with it those who have the port open, too: they may be why.
pub(super) fn or_shared(error: LinkError, port: &str) -> LinkError {
    let by = match port.parse::<Address>() {
        Ok(Address::Serial(path)) => holders(&path),
        _ => Vec::new(),
    };
    if by.is_empty() {
        return error;
    }
    LinkError::Shared {
        port: port.to_owned(),
        by,
        source: Behind(Box::new(error)),
    }
}

/// The end of what came, as one short line of text.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(200)..]).into_owned();
    let line = text
        .split(['\r', '\n'])
        .rfind(|line| !line.trim().is_empty());
    let line: String = line.unwrap_or_default().chars().rev().take(60).collect();
    line.chars()
        .rev()
        .flat_map(|c| match c {
            c if c.is_control() => c.escape_default().collect::<Vec<_>>(),
            c => vec![c],
        })
        .collect()
}

/// Why there is no REPL, told from what came instead.
pub(super) fn no_repl(port: &str, baud: u32, seen: &[u8], sent: &[u8]) -> LinkError {
    let port = port.to_owned();
    if seen.is_empty() {
        return LinkError::Silent { port };
    }
    if sent.starts_with(seen)
        || seen.starts_with(sent) && seen.len().is_multiple_of(sent.len().max(1))
    {
        return LinkError::Echo { port };
    }
    let text = String::from_utf8_lossy(seen);
    let strange = |c: &char| {
        *c == char::REPLACEMENT_CHARACTER
            || c.is_control() && !"\r\n\t\x1b\x03\x01\x08".contains(*c)
    };
    let noise = text.chars().filter(strange).count();
    if noise * 5 > text.chars().count() {
        let start = &seen[..seen.len().min(12)];
        let seen = start
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ");
        return LinkError::Garbage { port, seen, baud };
    }
    let lines = seen.iter().rposition(|byte| *byte == b'\n');
    // A program is cut off in the middle of its last line, as a rule.
    let whole = lines.map_or(seen, |end| &seen[..end]);
    let seen = excerpt(seen);
    let other = [
        "login:", "assword", "$ ", "# ", "=> ", "U-Boot", "ERROR", "Zephyr", "uart:~$",
    ];
    if other.iter().any(|mark| text.contains(mark)) {
        return LinkError::NotMicroPython { port, seen };
    }
    let seen = Some(excerpt(whole)).filter(|whole| !whole.is_empty());
    LinkError::Running {
        port,
        seen: seen.unwrap_or_else(|| excerpt(text.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[u8], expected: &str) {
        let error = no_repl("/dev/ttyUSB0", 115_200, seen, b"\r\x03\r\x01");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn why_there_is_no_repl_is_told_from_what_came() {
        check(b"", "nothing answers on `/dev/ttyUSB0`");
        check(
            b"\r\x03\r\x01\r\x03\r\x01",
            "`/dev/ttyUSB0` only sends back what it is sent",
        );
        check(
            b"\xfe\xf0\x80\x00\xe6\x98\xff",
            "what comes from `/dev/ttyUSB0` is no text (`fe f0 80 00 e6 98 ff` at 115200 baud)",
        );
        check(
            b"\r\nraspberrypi login: ",
            "what answers on `/dev/ttyUSB0` is not MicroPython; it said `raspberrypi login:`",
        );
        check(
            b"23.5 degrees\r\n23.6 degrees\r\n",
            "a program is running on `/dev/ttyUSB0` that Ctrl-C does not stop; it printed `23.6 degrees`",
        );
        check(
            b"23.5 degrees\r\n23.6 degrees\r\n23.",
            "a program is running on `/dev/ttyUSB0` that Ctrl-C does not stop; it printed `23.6 degrees`",
        );
    }

    #[test]
    fn who_has_the_port_is_named() {
        let error = LinkError::Busy {
            port: "/dev/ttyACM0".into(),
            by: vec![Holder {
                pid: 7,
                program: "mpremote".into(),
            }],
        };
        assert_eq!(
            error.to_string(),
            "`/dev/ttyACM0` is used by `mpremote` (process 7)"
        );
    }
}
