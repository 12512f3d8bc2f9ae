//! What the agent's commands write: much of it was said by a hub or by the app, and none of it
//! steers a terminal.

use std::io::{self, Write};

use crate::error::AgentError;

pub(crate) fn say(out: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<(), AgentError> {
    put(out, printable(&text.to_string()).as_bytes()).map(drop)
}

/// Whether `c` would steer a terminal or turn its lines around.
pub(crate) fn steers(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes the JSON `text` and a line's end; what would steer a terminal stands in it as `\uXXXX`,
/// which means the same. Whether anybody still listens.
pub(crate) fn put_json(out: &mut dyn Write, text: &str) -> Result<bool, AgentError> {
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match steers(c) {
            // All of them lie below U+10000, and JSON has them inside of strings only.
            true => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => safe.push(c),
        }
    }
    safe.push('\n');
    put(out, safe.as_bytes())
}

/// `text` without what would steer a terminal or turn its lines around: much of it was said by a
/// hub or by the app.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Writes `bytes`; whether anybody still listens (`… | head`: whoever read has read enough).
pub(crate) fn put(out: &mut dyn Write, bytes: &[u8]) -> Result<bool, AgentError> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(AgentError::io(
            "write to",
            std::path::Path::new("standard output"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_steers_the_terminal() {
        let evil = "a\u{1b}]0;title\u{7}b\u{9b}2J\rc\u{202e}d\n\te\u{7f} ä→日本";
        let mut out = Vec::new();
        say(&mut out, format_args!("{evil}")).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(
            shown,
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}2J\u{fffd}c\u{fffd}d\n\te\u{fffd} ä→日本"
        );
    }
}
