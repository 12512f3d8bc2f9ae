//! What commands print: one value, as text for people or JSON for programs (`--json`).

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use owo_colors::OwoColorize;
use serde::Serialize;

/// A result a command shows.
pub(crate) trait Show: Serialize {
    /// Writes it for people.
    ///
    /// # Errors
    /// Whatever the stream says.
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()>;
}

/// When to use colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On terminals, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether to colour a stream that is, or is not, a terminal.
    pub(crate) fn wanted(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                terminal && !set("NO_COLOR") && !dumb || set("CLICOLOR_FORCE")
            }
        }
    }

    /// Whether to colour standard output.
    pub(crate) fn on_stdout(self) -> bool {
        self.wanted(io::stdout().is_terminal())
    }

    /// Whether to colour standard error.
    pub(crate) fn on_stderr(self) -> bool {
        self.wanted(io::stderr().is_terminal())
    }
}

/// A stream that knows whether it may use colour.
pub(crate) struct Paint<'a> {
    out: &'a mut dyn Write,
    color: bool,
}

impl<'a> Paint<'a> {
    /// A painter on `out`.
    pub(crate) fn new(out: &'a mut dyn Write, color: bool) -> Self {
        Self { out, color }
    }

    /// A line.
    ///
    /// # Errors
    /// Whatever the stream says.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// `label` padded to a column, then the value: one fact a line.
    ///
    /// # Errors
    /// Whatever the stream says.
    pub(crate) fn fact(&mut self, label: &str, value: impl std::fmt::Display) -> io::Result<()> {
        if self.color {
            writeln!(self.out, "{} {value}", format!("{label:<13}").dimmed())
        } else {
            writeln!(self.out, "{label:<13} {value}")
        }
    }

    /// A word in the colour of what it means.
    pub(crate) fn state(&self, word: &str) -> String {
        if !self.color {
            return word.to_owned();
        }
        match word.trim_end() {
            "online" | "succeeded" | "finished" | "running" | "in-sync" | "done" => {
                word.green().to_string()
            }
            "failed" | "error" | "offline" | "aborted" => word.red().to_string(),
            "paused" | "pending" | "probation" | "updating" => word.yellow().to_string(),
            _ => word.to_owned(),
        }
    }

    /// A table; the first row is its head. Columns are as wide as their widest cell.
    ///
    /// # Errors
    /// Whatever the stream says.
    pub(crate) fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let mut widths = head.map(|cell| cell.chars().count());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let pad = |cells: &[String; N], paint: &dyn Fn(String) -> String| {
            let mut line = String::new();
            for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
                let fill = if i + 1 == N {
                    0
                } else {
                    width - cell.chars().count() + 2
                };
                line.push_str(&paint(cell.clone()));
                line.push_str(&" ".repeat(fill));
            }
            line.trim_end().to_owned()
        };
        let head = head.map(str::to_owned);
        let color = self.color;
        let bold = move |cell: String| if color { cell.bold().to_string() } else { cell };
        let head = pad(&head, &bold);
        self.line(head)?;
        for row in rows {
            let line = pad(row, &|cell| self.state(&cell));
            self.line(line)?;
        }
        Ok(())
    }
}

/// `text` without what a terminal would obey: names and messages come from repositories, hubs and
/// packages. Control characters and those that turn the direction of writing are shown as `\u{1b}`;
/// line feeds and tabs stay, colours only if `color` is wanted.
pub(crate) fn harmless(text: &str, color: bool) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            if color {
                out.push_str(&rest[..length]);
            }
            rest = &rest[length..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if c == '\r' && rest.starts_with('\n') {
            continue;
        }
        if obeyed(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The length of the colour (ECMA-48 SGR) that `text` begins with.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    body[end..].starts_with('m').then_some(end + 3)
}

/// JSON in which control characters that JSON leaves as they are (DEL, C1) are escaped, too.
pub(crate) fn harmless_json(text: String) -> String {
    let left = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !text.contains(left) {
        return text;
    }
    let escaped = |c: char| format!("\\u{:04x}", u32::from(c));
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if left(c) {
            out.push_str(&escaped(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Bytes for people: `4.2 KB`, `61.3 MB` (powers of 1000).
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration for people: `340 ms`, `4.2 s`, `3 min 20 s`.
pub(crate) fn duration(time: std::time::Duration) -> String {
    match time.as_millis() {
        ms @ 0..=999 => format!("{ms} ms"),
        ms @ 1000..=119_999 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// How long ago, for people: `now`, `12 s ago`, `3 h ago`.
pub(crate) fn ago(then_ms: i64, now_ms: i64) -> String {
    match now_ms - then_ms {
        ..2000 => "now".into(),
        ms => format!("{} ago", span(ms)),
    }
}

/// A length of time for people, roughly: `12 s`, `3 h`, `9 d`.
pub(crate) fn span(ms: i64) -> String {
    match ms / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Milliseconds since 1970, now.
#[expect(
    clippy::disallowed_methods,
    reason = "the command is the edge where time comes in"
)]
pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| {
            i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        let sizes = [
            0,
            999,
            1000,
            4210,
            61_349_000,
            999_999_999,
            5_000_000_000_000_000,
        ];
        let shown: Vec<_> = sizes.into_iter().map(bytes).collect();
        assert_eq!(
            shown,
            [
                "0 B",
                "999 B",
                "1.0 KB",
                "4.2 KB",
                "61.3 MB",
                "1.0 GB",
                "5000.0 TB"
            ]
        );
        assert_eq!(duration(Duration::from_millis(340)), "340 ms");
        assert_eq!(duration(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(ago(1000, 500), "now");
        assert_eq!(ago(0, 7_200_000), "2 h ago");
    }

    #[test]
    fn nothing_that_a_terminal_would_obey_is_shown() {
        let text = "a\x1b]0;title\x07b\u{9b}2Jc\rd\u{202e}e\x7f\tf\r\n\x1b[31mred\x1b[0m\x1b[2J\n";
        assert_eq!(
            harmless(text, false),
            "a\\u{1b}]0;title\\u{7}b\\u{9b}2Jc\\u{d}d\\u{202e}e\\u{7f}\tf\nred\\u{1b}[2J\n"
        );
        assert!(harmless(text, true).contains("\x1b[31mred\x1b[0m\\u{1b}[2J"));
        let json = harmless_json(serde_json::json!("\u{9b}2J\x7fé").to_string());
        assert_eq!(json, r#""\u009b2J\u007fé""#);
        assert_eq!(
            serde_json::from_str::<String>(&json).unwrap(),
            "\u{9b}2J\x7fé"
        );
    }

    #[test]
    fn tables_align_and_end_without_blanks() {
        let mut out = Vec::new();
        Paint::new(&mut out, false)
            .table(
                ["NAME", "STATE"],
                &[
                    ["gateway-1".into(), "online".into()],
                    ["é".into(), "".into()],
                ],
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME       STATE\ngateway-1  online\né\n"
        );
    }
}
