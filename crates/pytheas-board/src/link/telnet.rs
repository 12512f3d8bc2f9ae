//! Telnet with the COM-PORT option (RFC 854, RFC 2217), the client's side: bytes and commands in
//! one stream, told apart. Pure: no sockets.
//!
//! ```text
//! ff ff                              the byte ff
//! ff fb|fc|fd|fe OPTION              WILL, WON'T, DO, DON'T
//! ff fa 2c COMMAND VALUE… ff f0      COM-PORT: 1 baud (4 bytes), 2 data bits, 3 parity, 4 stop
//!                                    bits, 5 control (lines); answers are 100 more
//! ```

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;
const BINARY: u8 = 0;
const NO_GO_AHEAD: u8 = 3;
const COM_PORT: u8 = 44;
/// Longest subnegotiation that is kept; no answer of the COM-PORT option is longer than a few bytes,
/// but the server's signature.
const SUB_MAX: usize = 256;

/// The reader's place in the stream.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Data,
    Command,
    Option(u8),
    Sub(Vec<u8>),
    SubCommand(Vec<u8>),
}

/// The client's state.
#[derive(Debug, Default)]
pub(super) struct Telnet {
    place: Place,
    /// What the server has said about the COM-PORT option.
    pub com_port: Option<bool>,
    /// The server has answered the rate.
    pub rate: Option<u32>,
    /// The server has asked us to send nothing for now.
    pub suspended: bool,
}

/// What the client sends first: both directions binary, and will it speak RFC 2217?
pub(super) fn hello() -> Vec<u8> {
    let mut out = Vec::new();
    for (verb, option) in [
        (WILL, COM_PORT),
        (WILL, BINARY),
        (DO, BINARY),
        (WILL, NO_GO_AHEAD),
        (DO, NO_GO_AHEAD),
    ] {
        out.extend([IAC, verb, option]);
    }
    out
}

/// Rate, eight data bits, no parity, one stop bit, no flow control (RFC 2217 §3).
pub(super) fn settings(baud: u32) -> Vec<u8> {
    let mut out = command(1, &baud.to_be_bytes());
    for (number, value) in [(2, 8), (3, 1), (4, 1), (5, 1)] {
        out.extend(command(number, &[value]));
    }
    out
}

/// The lines DTR and RTS.
pub(super) fn lines(dtr: bool, rts: bool) -> Vec<u8> {
    let mut out = command(5, &[if dtr { 8 } else { 9 }]);
    out.extend(command(5, &[if rts { 11 } else { 12 }]));
    out
}

fn command(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![IAC, SB, COM_PORT, number];
    out.extend(escape(value));
    out.extend([IAC, SE]);
    out
}

/// `bytes` as they go over the wire.
pub(super) fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 64);
    for byte in bytes {
        out.push(*byte);
        if *byte == IAC {
            out.push(IAC);
        }
    }
    out
}

impl Telnet {
    /// Takes what came; data goes to `data`, what must be answered is returned.
    pub(super) fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Vec<u8> {
        let mut answer = Vec::new();
        for byte in bytes {
            self.place = match (std::mem::take(&mut self.place), *byte) {
                (Place::Data, IAC) => Place::Command,
                (Place::Data, byte) => {
                    data.push(byte);
                    Place::Data
                }
                (Place::Command, IAC) => {
                    data.push(IAC);
                    Place::Data
                }
                (Place::Command, SB) => Place::Sub(Vec::new()),
                (Place::Command, verb @ WILL..=DONT) => Place::Option(verb),
                (Place::Command, _) => Place::Data,
                (Place::Option(verb), option) => {
                    self.negotiate(verb, option, &mut answer);
                    Place::Data
                }
                (Place::Sub(sub), IAC) => Place::SubCommand(sub),
                (Place::Sub(mut sub), byte) => {
                    if sub.len() < SUB_MAX {
                        sub.push(byte);
                    }
                    Place::Sub(sub)
                }
                (Place::SubCommand(mut sub), IAC) => {
                    if sub.len() < SUB_MAX {
                        sub.push(IAC);
                    }
                    Place::Sub(sub)
                }
                (Place::SubCommand(sub), _) => {
                    self.answered(&sub);
                    Place::Data
                }
            };
        }
        answer
    }

    fn negotiate(&mut self, verb: u8, option: u8, answer: &mut Vec<u8>) {
        match (verb, option) {
            (DO, COM_PORT) => self.com_port = Some(true),
            (DONT, COM_PORT) => self.com_port = Some(false),
            // Our own offers and wishes: the server agrees or does not, nothing to say.
            (_, BINARY | NO_GO_AHEAD | COM_PORT) | (DONT | WONT, _) => {}
            (DO, option) => answer.extend([IAC, WONT, option]),
            (_, option) => answer.extend([IAC, DONT, option]),
        }
    }

    fn answered(&mut self, sub: &[u8]) {
        match sub {
            [COM_PORT, 101, a, b, c, d] => self.rate = Some(u32::from_be_bytes([*a, *b, *c, *d])),
            [COM_PORT, 8 | 108, ..] => self.suspended = true,
            [COM_PORT, 9 | 109, ..] => self.suspended = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_told_from_data_wherever_they_are_cut() {
        let mut stream = b"ab".to_vec();
        stream.extend([IAC, DO, COM_PORT, IAC, IAC, IAC, DO, 24]);
        stream.extend([IAC, SB, COM_PORT, 101, 0, 1, 0xc2, 0, IAC, SE]);
        stream.extend([IAC, SB, COM_PORT, 108, IAC, SE]);
        stream.extend(b"c");
        for cut in 0..stream.len() {
            let (mut telnet, mut data) = (Telnet::default(), Vec::new());
            let mut answer = telnet.receive(&stream[..cut], &mut data);
            answer.extend(telnet.receive(&stream[cut..], &mut data));
            assert_eq!(data, b"ab\xffc");
            assert_eq!(answer, [IAC, WONT, 24]);
            assert_eq!(telnet.com_port, Some(true));
            assert_eq!(telnet.rate, Some(115_200));
            assert!(telnet.suspended);
        }
    }

    proptest! {
        #[test]
        fn escaped_data_comes_out_as_it_went_in(bytes: Vec<u8>, noise: Vec<u8>) {
            let (mut telnet, mut data) = (Telnet::default(), Vec::new());
            let answer = telnet.receive(&escape(&bytes), &mut data);
            prop_assert_eq!(&data, &bytes);
            prop_assert!(answer.is_empty());
            telnet.receive(&noise, &mut data);
        }
    }
}
