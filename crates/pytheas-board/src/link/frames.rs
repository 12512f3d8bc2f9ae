//! Bytes and small programs to a board in one stream: compressed where the board can, acknowledged
//! frame by frame, with Ctrl-C working between any two of them. The board's side is `frames.py`.
//!
//! A frame of kind `x` is a program, `d` data, `z` deflated data (each frame for itself, so that it
//! is decompressed from memory), `q` the end. The board answers each with ACK (6), or NAK (21) from
//! the first exception on, which comes at the end. A board whose `sys.stdin` has no bytes gets the
//! same frames as programs with base64.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};

use super::{Board, Facts, LinkError};

/// The board's side.
pub const RECEIVER: &str = include_str!("frames.py");
const ACK: u8 = 6;
const NAK: u8 = 21;
const END: u8 = 4;
/// Payload of a frame, in bytes: at most what a patch can point into, 14 bits.
const FRAME_MAX: usize = 8192;
const FRAME_MIN: usize = 512;

/// A stream to a board. It must be ended with [`Frames::end`]; else the board is told to stop.
pub struct Frames<'a> {
    board: &'a mut Board,
    stream: bool,
    deflate: bool,
    size: usize,
    under_way: usize,
    open: bool,
    refused: bool,
}

/// A Python program without its comments and with one blank for four: what goes over the line.
pub fn slim(program: &str) -> String {
    let mut out = String::with_capacity(program.len());
    for line in program.lines() {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let indent = (line.len() - text.len()) / 4;
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// `text` as a Python literal.
pub fn quote(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// The helpers that the board does not have yet (without comments), and then `program`, as what is sent: deflated where
/// the board can inflate. It must be run next.
pub fn teach(board: &mut Board, facts: &Facts, helpers: &[&'static str], program: &str) -> Vec<u8> {
    let mut text = String::new();
    for helper in helpers {
        if !board.taught.contains(helper) {
            board.taught.push(helper);
            text.push_str(&slim(helper));
        }
    }
    text.push_str(program);
    packed(facts, text)
}

/// A program as one that unpacks it, if that is shorter. Needs a line whose bytes all arrive, as
/// boards with a stream have.
fn packed(facts: &Facts, program: String) -> Vec<u8> {
    let room = facts.heap_free > 8 << window(&program);
    if !(facts.stream && facts.deflate && room) {
        return program.into_bytes();
    }
    let small = unpacking(&program);
    small.unwrap_or_else(|| program.into_bytes())
}

/// The window that a program of this length is inflated with, as a power of two.
fn window(program: &str) -> u32 {
    program.len().next_power_of_two().ilog2().max(9)
}

/// A program that inflates and runs this one; none when it is not shorter.
pub(super) fn unpacking(program: &str) -> Option<Vec<u8>> {
    let window = window(program);
    let small = deflated(program.as_bytes()).filter(|_| window < 15)?;
    let mut out = b"import io,deflate\nexec(deflate.DeflateIO(io.BytesIO(b'".to_vec();
    for byte in small {
        match byte {
            b'\'' | b'\\' => out.extend([b'\\', byte]),
            // What means something to a REPL or to a reader of lines.
            0..=5 | b'\n' | b'\r' | 0x11 | 0x13 => out.extend(format!("\\x{byte:02x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.extend(format!("'),deflate.RAW,{window}).read())").bytes());
    (out.len() < program.len()).then_some(out)
}

impl<'a> Frames<'a> {
    /// Begins a stream: `program` defines what the frames' programs call, and `_pw(bytes)`, which
    /// gets the data.
    ///
    /// # Errors
    /// [`LinkError`] when the board does not take it.
    pub fn begin(board: &'a mut Board, facts: &Facts, program: &str) -> Result<Self, LinkError> {
        Self::start(board, facts, &[], program)
    }

    /// Begins a stream whose programs call these helpers, which are sent if the board does not have
    /// them yet.
    ///
    /// # Errors
    /// [`LinkError`] when the board does not take it.
    pub fn with(
        board: &'a mut Board,
        facts: &Facts,
        helpers: &[&'static str],
    ) -> Result<Self, LinkError> {
        Self::start(board, facts, helpers, "")
    }

    fn start(
        board: &'a mut Board,
        facts: &Facts,
        helpers: &[&'static str],
        program: &str,
    ) -> Result<Self, LinkError> {
        let room = usize::try_from(facts.heap_free / 12).unwrap_or(usize::MAX);
        let size = (1 << room.max(1).ilog2()).clamp(FRAME_MIN, FRAME_MAX);
        let size = if facts.stream { size } else { size.min(1024) };
        let start = if facts.stream {
            format!("_pr({size},{})", size.ilog2())
        } else {
            format!(
                "from binascii import a2b_base64 as _pa\n_pb={}\n_po=bytearray({size})",
                size.ilog2()
            )
        };
        let helpers = [&[RECEIVER], helpers].concat();
        let program = teach(board, facts, &helpers, &(slim(program) + &start));
        if facts.stream {
            board.send(&program)?;
        } else {
            board.exec(&program)?;
        }
        let mut frames = Self {
            board,
            stream: facts.stream,
            deflate: facts.deflate,
            size,
            under_way: usize::from(facts.stream),
            open: true,
            refused: false,
        };
        frames.settle(0)?;
        Ok(frames)
    }

    /// Longest program that [`Frames::exec`] takes, in bytes.
    pub fn room(&self) -> usize {
        self.size
    }

    /// Runs a program in the stream.
    ///
    /// # Errors
    /// [`LinkError`] when the line fails, or an earlier frame raised.
    pub fn exec(&mut self, program: &str) -> Result<(), LinkError> {
        if program.len() > self.size {
            return Err(self
                .board
                .unexpected(b"a name longer than the board's memory"));
        }
        self.frame(b'x', program.as_bytes())
    }

    /// Sends data; `sent` is told how many bytes more are on their way.
    ///
    /// # Errors
    /// See [`Frames::exec`].
    pub fn data(&mut self, bytes: &[u8], sent: &mut dyn FnMut(usize)) -> Result<(), LinkError> {
        for part in bytes.chunks(self.size) {
            let small = if self.deflate { deflated(part) } else { None };
            match small {
                Some(small) => self.frame(b'z', &small)?,
                None => self.frame(b'd', part)?,
            }
            sent(part.len());
        }
        Ok(())
    }

    /// Ends the stream, after the board has taken all of it.
    ///
    /// # Errors
    /// [`LinkError::Raised`] with the first exception a frame raised.
    pub fn end(mut self) -> Result<(), LinkError> {
        self.close()
    }

    fn close(&mut self) -> Result<(), LinkError> {
        if !std::mem::take(&mut self.open) || !self.stream {
            return Ok(());
        }
        self.settle(0)?;
        self.board.give(&header(b'q', 0, 0))?;
        self.board.follow(Some(super::repl::ANSWER), &mut |_| {})
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), LinkError> {
        if !self.stream {
            let text = STANDARD.encode(payload);
            let program = format!("_pf({kind},_pa(b'{text}'))");
            return self.board.exec(&program).map(drop);
        }
        // A line that holds bytes back may have the next frame on its way while one is worked on.
        let ahead = usize::from(self.board.holds_back());
        self.settle(ahead)?;
        if self.refused {
            return Err(self.close().err().unwrap_or(LinkError::Stopped));
        }
        self.under_way += 1;
        self.board.give(&encode(kind, payload))
    }

    /// Waits until no more than `left` frames are unanswered.
    fn settle(&mut self, left: usize) -> Result<(), LinkError> {
        while self.under_way > left {
            let answer = self.board.next_of(&[ACK, NAK, END]).inspect_err(|error| {
                // The user's wish aside, nobody is left to say the end to.
                self.open &= matches!(error, LinkError::Stopped);
            })?;
            match answer {
                ACK => self.under_way -= 1,
                NAK => {
                    self.under_way -= 1;
                    self.refused = true;
                }
                _ => {
                    // The receiver itself ended: an interrupt, or no memory.
                    (self.open, self.under_way) = (false, 0);
                    self.board.follow(Some(super::repl::ANSWER), &mut |_| {})?;
                    return Err(self.board.unexpected(b"the stream ended early"));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Frames<'_> {
    fn drop(&mut self) {
        if self.open {
            // The user's wish to stop must not keep us from stopping in order.
            let stop = std::mem::take(&mut self.board.options().stop);
            let _failed_before = self.close();
            self.board.options().stop = stop;
        }
    }
}

fn deflated(part: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(part.len()), Compression::best());
    encoder.write_all(part).ok()?;
    let small = encoder.finish().ok()?;
    (small.len() + 8 < part.len()).then_some(small)
}

fn seven(value: usize, bytes: usize) -> impl Iterator<Item = u8> {
    (0..bytes)
        .rev()
        .map(move |at| 0x80 | (value >> (7 * at) & 0x7f) as u8)
}

fn header(kind: u8, length: usize, patches: usize) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(seven(length, 3));
    out.extend(seven(patches, 2));
    out
}

fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let patches: Vec<_> = (0..payload.len()).filter(|at| payload[*at] == 3).collect();
    let mut out = header(kind, payload.len(), patches.len());
    out.extend(
        payload
            .iter()
            .map(|byte| if *byte == 3 { 0 } else { *byte }),
    );
    for at in patches {
        out.extend(seven(at, 2));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `frames.py` does.
    fn decode(frame: &[u8]) -> (u8, Vec<u8>) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 7 | usize::from(b & 0x7f));
        let (length, patches) = (number(&frame[1..4]), number(&frame[4..6]));
        let mut payload = frame[6..6 + length].to_vec();
        let places = &frame[6 + length..];
        assert_eq!(places.len(), 2 * patches);
        for place in places.chunks(2) {
            payload[number(place)] = 3;
        }
        (frame[0], payload)
    }

    proptest! {
        #[test]
        fn a_frame_carries_every_byte_and_never_ctrl_c(
            payload in prop::collection::vec(prop_oneof![Just(3_u8), any::<u8>()], 0..FRAME_MAX)
        ) {
            let frame = encode(b'd', &payload);
            prop_assert!(!frame.contains(&3));
            prop_assert_eq!(decode(&frame), (b'd', payload));
        }

        #[test]
        fn quoted_text_has_no_way_out(text: String) {
            let quoted = quote(&text);
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert!(!inner.contains(['\n', '\r']));
            let mut escaped = false;
            for c in inner.chars() {
                prop_assert!(escaped || c != '\'');
                escaped = !escaped && c == '\\';
            }
            prop_assert!(!escaped);
        }
    }

    #[test]
    fn programs_travel_without_comments() {
        assert_eq!(
            slim("# a\ndef f():\n    # b\n    return 1\n\n"),
            "def f():\n return 1\n"
        );
    }
}
