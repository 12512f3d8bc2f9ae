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

use std::{
    io,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{
    Address, LinkError, Stop, Wire, trouble,
    wire::{self, Closed, read},
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
/// What boards say when they start.
const RESTARTS: [&[u8]; 3] = [b">>> ", b"MicroPython v", b"soft reboot"];
/// A board answers within this, except while a program of the user's runs.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How often it is looked whether there is input for the program that runs.
const INPUT_STEP: Duration = Duration::from_millis(50);
/// How often Ctrl-C is sent while we wait for a reset.
const CATCH_STEP: Duration = Duration::from_millis(50);
/// Without raw paste: so many bytes, then a look at what came.
const PLAIN_STEP: usize = 256;

/// With raw paste: so many bytes at most in one write.
const PASTE_STEP: usize = 4096;

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

    /// The handle that stops waits.
    pub fn stop(&self) -> &Stop {
        &self.options.stop
    }

    /// Changes how to get hold of it.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Sends a program and starts it.
    pub(super) fn send(&mut self, text: &[u8]) -> Result<(), LinkError> {
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
    fn paste(&mut self, text: &[u8]) -> Result<bool, LinkError> {
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

    fn until_end(
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

    /// The next byte of what the program prints that is one of `wanted`; end of transmission (4) is
    /// left where it is.
    pub(super) fn next_of(&mut self, wanted: &[u8]) -> Result<u8, LinkError> {
        let mut until = Instant::now() + ANSWER * 3;
        loop {
            let found = self.ready.iter().position(|byte| wanted.contains(byte));
            if let Some(at) = found {
                let byte = self.ready[at];
                self.ready.drain(..at + usize::from(byte != 4));
                return Ok(byte);
            }
            if self.ready.contains(&AT_WORK) {
                until = Instant::now() + ANSWER * 3;
            }
            // A board that was reset starts its own program, which may print for ever.
            if RESTARTS.iter().any(|text| contains(&self.ready, text)) {
                self.mode = Mode::Free;
                let port = self.port.clone();
                return Err(LinkError::Restarted { port });
            }
            let mut came = Vec::new();
            self.ready.clear();
            if Instant::now() >= until || self.more(&mut came, until)? == 0 {
                return Err(self.stalled("it received"));
            }
            self.ready = came;
        }
    }

    pub(super) fn give(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match self.wire.give(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.stalled("it was sent bytes"))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Appends what comes until `until` to `buf`; 0 when nothing came.
    pub(super) fn more(&mut self, buf: &mut Vec<u8>, until: Instant) -> Result<usize, LinkError> {
        if !self.ready.is_empty() {
            let count = self.ready.len();
            buf.append(&mut self.ready);
            return Ok(count);
        }
        let mut chunk = [0; 4096];
        match read(&mut *self.wire, &mut chunk, until, &self.options.stop) {
            Ok(count) => {
                buf.extend(&chunk[..count]);
                Ok(count)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn has_more(&mut self) -> Result<bool, LinkError> {
        let mut came = Vec::new();
        self.more(&mut came, Instant::now())?;
        self.ready = came;
        Ok(!self.ready.is_empty())
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, LinkError> {
        let until = Instant::now() + ANSWER;
        while self.ready.len() < count {
            let mut came = std::mem::take(&mut self.ready);
            let before = came.len();
            let mut chunk = Vec::new();
            let got = self.more(&mut chunk, until);
            came.append(&mut chunk);
            self.ready = came;
            if got? == 0 && self.ready.len() == before {
                return Err(self.stalled(""));
            }
        }
        Ok(self.ready.drain(..count).collect())
    }

    fn expect(&mut self, wanted: &[u8]) -> Result<(), LinkError> {
        let came = self.exactly(wanted.len())?;
        if came == wanted {
            return Ok(());
        }
        Err(self.unexpected(&came))
    }

    fn wait_for(&mut self, wanted: &[u8], during: &str) -> Result<(), LinkError> {
        let mut seen = Vec::new();
        loop {
            if let Some(at) = find(&seen, wanted) {
                self.ready = seen.split_off(at + wanted.len());
                return Ok(());
            }
            if self.more(&mut seen, Instant::now() + ANSWER)? == 0 {
                return Err(self.stalled(during));
            }
        }
    }

    /// Throws away what is there and what comes before it has been quiet for so long.
    fn skip(&mut self, quiet: Duration) -> Result<(), LinkError> {
        let end = Instant::now() + ENTER_PATIENCE;
        let mut nothing = Vec::new();
        while self.more(&mut nothing, Instant::now() + quiet)? > 0 && Instant::now() < end {
            nothing.clear();
        }
        Ok(())
    }

    /// Whether more bytes may be under way than the board's buffer takes.
    pub(super) fn holds_back(&self) -> bool {
        self.wire.holds_back()
    }

    pub(crate) fn unexpected(&self, seen: &[u8]) -> LinkError {
        let error = LinkError::Answer {
            port: self.port.clone(),
            seen: trouble::excerpt(seen),
        };
        trouble::or_shared(error, &self.port)
    }

    fn stalled(&self, during: &str) -> LinkError {
        let error = LinkError::Stalled {
            port: self.port.clone(),
            during: during.to_owned(),
        };
        trouble::or_shared(error, &self.port)
    }

    fn failed(&self, source: io::Error) -> LinkError {
        let port = self.port.clone();
        match source.kind() {
            io::ErrorKind::Interrupted => LinkError::Stopped,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => LinkError::Gone { port },
            _ => LinkError::Io { port, source },
        }
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
