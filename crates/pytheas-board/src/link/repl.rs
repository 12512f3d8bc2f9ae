//! The raw REPL: programs go to the board as text, what they print and raise comes back.
//!
//! ```text
//! we: \r ^C \r ^A               board: raw REPL; CTRL-B to exit\r\n>
//! we: ^E A ^A                   board: R ^A, window (2 bytes), ^A   raw paste
//!                                      R \0                         known, not here
//!                                      raw REPL; …>                 not known
//! we: text … ^D                 board: ^A for each window that is free; ^D at the end
//!                                      (without raw paste: OK)
//!                               board: output ^D traceback ^D >
//! ```

mod bytes;
mod programs;

use std::{
    io,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{
    Address, LinkError, Stop, Wire, trouble,
    wire::{self, Closed},
};

const BANNER: &[u8] = b"raw REPL; CTRL-B to exit\r\n>";
/// What asks for the raw REPL: stop what runs, then Ctrl-A.
const ENTER: &[u8] = b"\r\x03\r\x01";
/// How long one request for the raw REPL waits for an answer.
const ENTER_PATIENCE: Duration = Duration::from_millis(700);
/// What a board says while it ends a deploy, which is not to be interrupted (`finish.py`).
const AT_WORK: u8 = 0x16;
/// How long that may take.
const WORK: Duration = Duration::from_secs(600);
/// A board answers within this, except while a program of the user's runs.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How often Ctrl-C is sent while we wait for a reset.
const CATCH_STEP: Duration = Duration::from_millis(50);

/// How to get hold of a board.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rate of the line.
    pub baud: u32,
    /// How long to try to reach the REPL.
    pub patience: Duration,
    /// Wait for a reset (so long as `patience`) and stop the program before it starts.
    pub catch: bool,
    /// When to give up.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            baud: 115_200,
            patience: Duration::from_secs(5),
            catch: false,
            stop: Stop::default(),
        }
    }
}

/// Which REPL the board is in, as far as we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The friendly one, or a program of its own.
    Free,
    /// At the prompt of the raw REPL.
    Raw,
    /// In the raw REPL, running what we sent.
    Running,
}

/// A board on an open line. Dropping it leaves the raw REPL.
pub struct Board {
    wire: Box<dyn Wire>,
    port: String,
    options: Options,
    mode: Mode,
    /// Whether raw paste works; none before the first program.
    paste: Option<bool>,
    /// What came and was not used yet.
    ready: Vec<u8>,
    /// What the program that runs is to read.
    input: Option<Receiver<Vec<u8>>>,
    /// Helpers that the board has in memory, from this session.
    pub(super) taught: Vec<&'static str>,
}

impl Board {
    /// Opens the line; nothing is sent yet.
    ///
    /// # Errors
    /// [`LinkError`] when the line does not open.
    pub fn open(address: &Address, options: Options) -> Result<Self, LinkError> {
        let wire = wire::open(address, options.baud)?;
        Ok(Self::on(wire, address.to_string(), options))
    }

    /// A board on a line that is open already.
    pub fn on(wire: Box<dyn Wire>, port: String, options: Options) -> Self {
        Self {
            wire,
            port,
            options,
            mode: Mode::Free,
            paste: None,
            ready: Vec::new(),
            input: None,
            taught: Vec::new(),
        }
    }

    /// The port, as the user wrote it.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The line, for a terminal of its own.
    pub fn wire(&mut self) -> &mut dyn Wire {
        &mut *self.wire
    }

    /// Enters the raw REPL, if we are not in it.
    ///
    /// # Errors
    /// [`LinkError`] saying why there is none.
    pub fn enter(&mut self) -> Result<(), LinkError> {
        if self.mode == Mode::Raw {
            return Ok(());
        }
        if self.options.catch {
            self.catch()?;
        }
        let begun = Instant::now();
        let mut until = begun + self.options.patience;
        self.skip(Duration::ZERO)?;
        let (mut seen, mut sent, mut tries) = (Vec::new(), Vec::new(), 0);
        while !ends_with_banner(&seen) {
            if Instant::now() >= until {
                let error = trouble::no_repl(&self.port, self.options.baud, &seen, &sent);
                return Err(trouble::or_shared(error, &self.port));
            }
            tries += 1;
            self.give(ENTER)?;
            sent.extend(ENTER);
            let patience = until.min(Instant::now() + ENTER_PATIENCE);
            while !ends_with_banner(&seen) {
                // A board that is still printing a traceback is on its way.
                if self.more(&mut seen, patience)? == 0 || Instant::now() >= patience {
                    break;
                }
                if seen.contains(&AT_WORK) {
                    seen.retain(|byte| *byte != AT_WORK);
                    until = until.max((Instant::now() + self.options.patience).min(begun + WORK));
                }
                seen.drain(..seen.len().saturating_sub(4096));
            }
        }
        if tries > 1 {
            // Each request may have its own answer.
            self.skip(Duration::from_millis(200))?;
        }
        self.mode = Mode::Raw;
        Ok(())
    }

    /// Sends Ctrl-C again and again until something answers it as a REPL does: for boards whose
    /// program cannot be stopped, while they start.
    fn catch(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + self.options.patience.max(Duration::from_secs(30));
        let mut seen = Vec::new();
        while Instant::now() < until {
            // While a board resets, its port may be gone for a moment: writing fails, and that is fine.
            let _resetting = self.wire.give(b"\x03");
            match self.more(&mut seen, Instant::now() + CATCH_STEP) {
                Err(LinkError::Io { .. } | LinkError::Gone { .. }) => {
                    seen.clear();
                    self.open_again(until)?;
                }
                other => drop(other?),
            }
            let text = String::from_utf8_lossy(&seen);
            if text.ends_with(">>> ") || text.contains("KeyboardInterrupt") {
                return Ok(());
            }
        }
        Err(LinkError::Silent {
            port: self.port.clone(),
        })
    }

    /// Opens the line again when its port is back: that of a board on USB goes with the reset.
    ///
    /// # Errors
    /// [`LinkError`] when it is not back by then, or the user gives up.
    pub fn open_again(&mut self, until: Instant) -> Result<(), LinkError> {
        let Ok(address) = self.port.parse::<Address>() else {
            return Err(self.failed(io::ErrorKind::NotConnected.into()));
        };
        // Held open, the old port would keep its name from the new one.
        let closed = Closed::new().map_err(|error| self.failed(error))?;
        self.wire = Box::new(closed);
        (self.mode, self.paste) = (Mode::Free, None);
        self.taught.clear();
        loop {
            match wire::open(&address, self.options.baud) {
                Ok(wire) => {
                    self.wire = wire;
                    return Ok(());
                }
                // Another program was quicker, and says who it is.
                Err(error @ LinkError::Busy { .. }) => return Err(error),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) if self.options.stop.wanted() => {
                    return Err(self.failed(io::ErrorKind::Interrupted.into()));
                }
                Err(_) => std::thread::sleep(CATCH_STEP),
            }
        }
    }

    /// Leaves the raw REPL for the friendly one.
    ///
    /// # Errors
    /// [`LinkError`] when the line fails.
    pub fn leave(&mut self) -> Result<(), LinkError> {
        if self.mode == Mode::Free {
            return Ok(());
        }
        self.let_go()
    }

    fn let_go(&mut self) -> Result<(), LinkError> {
        self.taught.clear();
        if self.mode == Mode::Running {
            self.give(b"\x03")?;
        }
        self.mode = Mode::Free;
        self.give(b"\r\x02")
    }

    /// Restarts Python on the board, which then runs `boot.py` and `main.py` as after power-on.
    /// Returns when it has begun.
    ///
    /// # Errors
    /// [`LinkError`] when there is no REPL, or the board does not restart.
    pub fn restart(&mut self) -> Result<(), LinkError> {
        self.enter()?;
        self.taught.clear();
        self.mode = Mode::Free;
        // Main programs start only when the friendly REPL is the one to come back to.
        self.give(b"\r\x02")?;
        self.wait_for(b">>> ", "leaving the raw REPL")?;
        self.give(b"\x04")?;
        self.wait_for(b"reboot", "restarting")?;
        self.wait_for(b"\n", "restarting")
    }

    /// Waits until a board that was restarted has found the image it starts (`starter.py`), or is at its
    /// prompt. Who would stop it before that would find a board without the app.
    ///
    /// # Errors
    /// [`LinkError`] when the line fails.
    pub fn wait_for_image(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + ANSWER;
        let mut seen = Vec::new();
        while !seen.contains(&AT_WORK) && !seen.ends_with(b">>> ") && Instant::now() < until {
            self.more(&mut seen, until)?;
        }
        Ok(())
    }

    /// Begins a new Python on the board without its main program, still in the raw REPL: the heap of
    /// the program that ran is free, and in one piece.
    ///
    /// # Errors
    /// [`LinkError`] when there is no REPL, or the board does not restart.
    pub fn renew(&mut self) -> Result<(), LinkError> {
        self.enter()?;
        self.taught.clear();
        self.give(b"\x04")?;
        self.wait_for(b"reboot", "restarting")?;
        self.wait_for(BANNER, "restarting")
    }

    /// Resets the chip itself: by the lines DTR and RTS where the port has them, else by
    /// `machine.reset()`. The line may end with it.
    ///
    /// # Errors
    /// [`LinkError`] when neither works.
    pub fn reset_hard(&mut self) -> Result<(), LinkError> {
        if self.enter().is_ok() {
            let sent = self.send(b"import machine\nmachine.reset()");
            self.mode = Mode::Free;
            return match sent {
                // With it, the port of a board on USB goes away for a moment.
                Err(LinkError::Gone { .. } | LinkError::Io { .. }) => Ok(()),
                sent => sent,
            };
        }
        // The circuit of most boards: RTS pulls EN (reset) low, DTR off leaves the boot pin high.
        let pulled = self.wire.lines(false, true);
        let failed = |source| LinkError::Io {
            port: self.port.clone(),
            source,
        };
        pulled.map_err(failed)?;
        let _hold = wire::readable(self.wire.fd(), Duration::from_millis(100));
        self.wire.lines(false, false).map_err(failed)
    }

    /// The handle that stops waits.
    pub fn stop(&self) -> &Stop {
        &self.options.stop
    }

    /// Changes how to get hold of it.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if self.mode != Mode::Free {
            let _gone = self.let_go();
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

fn ends_with_banner(seen: &[u8]) -> bool {
    seen.ends_with(BANNER)
}
