//! Programs in the raw REPL: sent by raw paste or plainly, and followed to their end.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{ANSWER, BANNER, Board, Mode, ends_with_banner};
use crate::link::{LinkError, trouble};

/// How often it is looked whether there is input for the program that runs.
const INPUT_STEP: Duration = Duration::from_millis(50);
/// Without raw paste: so many bytes, then a look at what came.
const PLAIN_STEP: usize = 256;
/// With raw paste: so many bytes at most in one write.
const PASTE_STEP: usize = 4096;

impl Board {
    /// Runs a program and returns what it printed.
    ///
    /// # Errors
    /// [`LinkError::Raised`] with the traceback; others when the line fails.
    pub fn exec(&mut self, program: &(impl AsRef<[u8]> + ?Sized)) -> Result<Vec<u8>, LinkError> {
        let mut out = Vec::new();
        self.run(program, Some(ANSWER), &mut |bytes| out.extend(bytes))?;
        Ok(out)
    }

    /// Runs a program; what it prints goes to `print` as it comes. `silence`: how long it may
    /// print nothing.
    ///
    /// # Errors
    /// See [`Board::exec`].
    pub fn run(
        &mut self,
        program: &(impl AsRef<[u8]> + ?Sized),
        silence: Option<Duration>,
        print: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LinkError> {
        self.send(program.as_ref())?;
        self.follow(silence, print)
    }

    /// Interrupts the program that runs, as Ctrl-C at a terminal does.
    ///
    /// # Errors
    /// [`LinkError`] when the line fails.
    pub fn interrupt(&mut self) -> Result<(), LinkError> {
        self.give(b"\x03")
    }

    /// What the board prints, as it comes; nothing when nothing came until `until`.
    ///
    /// # Errors
    /// [`LinkError`] when the line fails.
    pub fn output(&mut self, until: Instant) -> Result<Vec<u8>, LinkError> {
        let mut out = Vec::new();
        self.more(&mut out, until)?;
        Ok(out)
    }

    /// What comes from `typed` is what programs read from now on (`input()`), so long as one runs.
    pub fn read_from(&mut self, typed: Receiver<Vec<u8>>) {
        self.input = Some(typed);
    }

    /// Sends a program and starts it.
    pub(in crate::link) fn send(&mut self, text: &[u8]) -> Result<(), LinkError> {
        self.enter()?;
        if self.paste != Some(false) && self.paste(text)? {
            return Ok(());
        }
        for part in text.chunks(PLAIN_STEP) {
            self.give(part)?;
            // The line's own buffers are the only pace there is; take what comes meanwhile.
            let mut came = Vec::new();
            self.more(&mut came, Instant::now())?;
        }
        self.give(b"\x04")?;
        self.mode = Mode::Running;
        self.expect(b"OK")
    }

    /// Sends a program by raw paste; false when the board cannot.
    pub(super) fn paste(&mut self, text: &[u8]) -> Result<bool, LinkError> {
        self.give(b"\x05A\x01")?;
        let reply = self.exactly(2)?;
        match reply.as_slice() {
            b"R\x01" => self.paste = Some(true),
            b"R\x00" => {
                self.paste = Some(false);
                return Ok(false);
            }
            _ => {
                // A board that does not know it takes Ctrl-A for what it is.
                let mut seen = reply;
                while !ends_with_banner(&seen) {
                    if self.more(&mut seen, Instant::now() + ANSWER)? == 0 {
                        return Err(self.unexpected(&seen));
                    }
                }
                self.paste = Some(false);
                return Ok(false);
            }
        }
        self.mode = Mode::Running;
        let window = self.exactly(2)?;
        let window = usize::from(window[0]) | usize::from(window[1]) << 8;
        // A line that holds bytes back needs no window of the board's: nothing is lost on the way.
        let held = self.holds_back();
        let (mut free, mut at) = (if held { text.len() } else { window }, 0);
        while at < text.len() {
            while !held && (free == 0 || !self.ready.is_empty() || self.has_more()?) {
                match self.exactly(1)?.as_slice() {
                    b"\x01" => free += window,
                    // The compiler gave up (or Ctrl-C): the traceback follows.
                    b"\x04" => {
                        self.give(b"\x04")?;
                        return Ok(true);
                    }
                    other => return Err(self.unexpected(other)),
                }
            }
            let part = &text[at..text.len().min(at + free.min(PASTE_STEP))];
            self.give(part)?;
            (at, free) = (at + part.len(), free - part.len());
        }
        self.give(b"\x04")?;
        loop {
            match self.exactly(1)?.as_slice() {
                b"\x01" => {}
                b"\x04" => return Ok(true),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Passes on what the program that runs prints, to its end.
    ///
    /// # Errors
    /// See [`Board::exec`].
    pub fn follow(
        &mut self,
        silence: Option<Duration>,
        print: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LinkError> {
        self.until_end(silence, print)?;
        let mut raised = Vec::new();
        self.until_end(Some(ANSWER), &mut |bytes| raised.extend(bytes))?;
        let next = self.exactly(1)?;
        if next != b">" {
            // `sys.exit()` begins a new Python, in the raw REPL.
            self.ready.splice(..0, next);
            self.taught.clear();
            self.wait_for(BANNER, "restarting")?;
        }
        self.mode = Mode::Raw;
        if raised.is_empty() {
            return Ok(());
        }
        let traceback = String::from_utf8_lossy(&raised).replace("\r\n", "\n");
        Err(LinkError::Raised {
            advice: trouble::advice(&traceback),
            traceback,
        })
    }

    pub(super) fn until_end(
        &mut self,
        silence: Option<Duration>,
        print: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LinkError> {
        loop {
            let end = self.ready.iter().position(|byte| *byte == 4);
            let count = end.unwrap_or(self.ready.len());
            if count > 0 {
                print(&self.ready[..count]);
            }
            self.ready.drain(..count + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(());
            }
            let mut came = Vec::new();
            let patience = silence.unwrap_or(Duration::from_secs(3600));
            let until = Instant::now() + patience;
            loop {
                let wait = match &self.input {
                    None => until,
                    Some(typed) => {
                        let typed: Vec<_> = typed.try_iter().flatten().collect();
                        if !typed.is_empty() {
                            self.give(&typed)?;
                        }
                        until.min(Instant::now() + INPUT_STEP)
                    }
                };
                if self.more(&mut came, wait)? > 0 || Instant::now() >= until {
                    break;
                }
            }
            if came.is_empty() && silence.is_some() {
                return Err(self.stalled("a program ran"));
            }
            self.ready = came;
        }
    }
}
