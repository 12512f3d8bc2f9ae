//! Python source as logical lines of tokens: as much of the lexical analysis (language reference
//! §2, Python 3.8 to 3.14) as finding imports needs. Strings, f-strings with nested quotes
//! (PEP 701), comments, brackets and continuation lines are understood; text that is no Python
//! gives some tokens instead of an error.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name or keyword.
    Name(&'a str),
    /// A string without its quotes, escapes as written.
    Text {
        /// What stands between the quotes.
        value: &'a str,
        /// It has replacement fields.
        is_format: bool,
    },
    /// One character of an operator or bracket.
    Op(char),
    /// A number; its value never matters here.
    Number,
}

/// A logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The physical line it begins on, from 1.
    pub(crate) number: u32,
    /// Its indentation in columns.
    pub(crate) indent: usize,
    /// The tokens with their physical lines.
    pub(crate) tokens: Vec<(Token<'a>, u32)>,
}

/// The logical lines of `source` that have tokens.
pub(crate) fn lines(source: &str) -> Vec<Line<'_>> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut scanner = Scanner {
        source,
        bytes: source.as_bytes(),
        at: 0,
        line: 1,
    };
    let mut lines = Vec::new();
    while scanner.at < scanner.bytes.len() {
        let line = scanner.logical_line();
        if !line.tokens.is_empty() {
            lines.push(line);
        }
    }
    lines
}

struct Scanner<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl<'a> Scanner<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// One byte on; counts lines.
    fn step(&mut self) {
        if self.peek(0) == b'\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn logical_line(&mut self) -> Line<'a> {
        let mut indent = 0;
        loop {
            match self.peek(0) {
                b' ' => indent += 1,
                b'\t' => indent = (indent / 8 + 1) * 8,
                b'\x0c' => indent = 0,
                _ => break,
            }
            self.at += 1;
        }
        let mut line = Line {
            number: self.line,
            indent,
            tokens: Vec::new(),
        };
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\n' => {
                    self.step();
                    if depth == 0 {
                        break;
                    }
                }
                b'\\' if matches!(self.peek(1), b'\n' | b'\r') => {
                    self.at += 1;
                    if self.peek(0) == b'\r' {
                        self.at += 1;
                    }
                    if self.peek(0) == b'\n' {
                        self.step();
                    }
                }
                b' ' | b'\t' | b'\r' | b'\x0c' => self.at += 1,
                b'#' => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                _ => {
                    let number = self.line;
                    let token = self.token();
                    match token {
                        Token::Op('(' | '[' | '{') => depth += 1,
                        Token::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    line.tokens.push((token, number));
                }
            }
        }
        line
    }

    fn token(&mut self) -> Token<'a> {
        let start = self.at;
        let byte = self.peek(0);
        if byte == b'"' || byte == b'\'' {
            return self.string(false, false);
        }
        if byte.is_ascii_digit() {
            while self.peek(0).is_ascii_alphanumeric() || matches!(self.peek(0), b'_' | b'.') {
                self.at += 1;
            }
            return Token::Number;
        }
        if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            while self.peek(0).is_ascii_alphanumeric()
                || self.peek(0) == b'_'
                || self.peek(0) >= 0x80
            {
                self.at += 1;
            }
            let name = self.source.get(start..self.at).unwrap_or("");
            let is_quote = matches!(self.peek(0), b'"' | b'\'');
            let is_prefix = name.len() <= 2
                && name
                    .bytes()
                    .all(|b| matches!(b.to_ascii_lowercase(), b'r' | b'b' | b'u' | b'f' | b't'));
            if is_quote && is_prefix {
                let has = |wanted: u8| name.bytes().any(|b| b.to_ascii_lowercase() == wanted);
                return self.string(has(b'f') || has(b't'), has(b'r'));
            }
            return Token::Name(name);
        }
        self.at += 1;
        Token::Op(char::from(byte))
    }

    /// A string; the scanner stands on its first quote.
    fn string(&mut self, is_format: bool, is_raw: bool) -> Token<'a> {
        let quote = self.peek(0);
        let is_triple = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if is_triple { 3 } else { 1 };
        let start = self.at;
        let mut end = self.bytes.len();
        while self.at < self.bytes.len() {
            let byte = self.peek(0);
            // A backslash keeps the next character from ending the string, in raw ones too.
            if byte == b'\\' {
                let _raw_strings_keep_the_backslash = is_raw;
                self.at += 1;
                if self.at < self.bytes.len() {
                    self.step();
                }
            } else if byte == quote
                && (!is_triple || (self.peek(1) == quote && self.peek(2) == quote))
            {
                end = self.at;
                self.at += if is_triple { 3 } else { 1 };
                break;
            } else if byte == b'\n' && !is_triple {
                end = self.at; // an unfinished string ends with its line
                break;
            } else if is_format && byte == b'{' {
                if self.peek(1) == b'{' {
                    self.at += 2;
                } else {
                    self.field(quote, is_triple, 0);
                }
            } else {
                self.step();
            }
        }
        // Multi-byte characters may have been cut only by unfinished text.
        let value = self.source.get(start..end.max(start)).unwrap_or("");
        Token::Text { value, is_format }
    }

    /// A replacement field; the scanner stands on its `{`. Inside the expression quotes begin
    /// strings (PEP 701), inside the format specification they are plain characters.
    fn field(&mut self, quote: u8, is_triple: bool, nested: usize) {
        self.at += 1;
        let mut brackets = 0_usize;
        let mut is_specification = false;
        while self.at < self.bytes.len() {
            let byte = self.peek(0);
            match byte {
                b'}' if brackets == 0 || is_specification => {
                    self.at += 1;
                    return;
                }
                b'{' if is_specification && nested < 8 => self.field(quote, is_triple, nested + 1),
                _ if is_specification => {
                    let ends = byte == quote
                        && (!is_triple || (self.peek(1) == quote && self.peek(2) == quote));
                    if ends || (byte == b'\n' && !is_triple) {
                        return; // no field after all
                    }
                    self.step();
                }
                b'(' | b'[' | b'{' => {
                    brackets += 1;
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    brackets = brackets.saturating_sub(1);
                    self.at += 1;
                }
                b':' if brackets == 0 => {
                    is_specification = true;
                    self.at += 1;
                }
                b'"' | b'\'' if nested < 8 => {
                    let before = self.at.checked_sub(1).map_or(0, |at| self.bytes[at]);
                    let is_inner_format = matches!(before, b'f' | b'F');
                    if is_inner_format {
                        self.inner_format(nested);
                    } else {
                        self.string(false, false);
                    }
                }
                _ => self.step(),
            }
        }
    }

    /// An f-string inside a field: bounded, since nobody nests eight of them.
    fn inner_format(&mut self, nested: usize) {
        if nested >= 4 {
            self.string(false, false);
        } else {
            self.string(true, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let shown: Vec<String> = lines(source)
            .iter()
            .map(|line| {
                let words: Vec<String> = line
                    .tokens
                    .iter()
                    .map(|(token, _)| match token {
                        Token::Name(name) => (*name).to_owned(),
                        Token::Text { value, .. } => format!("«{value}»"),
                        Token::Op(c) => c.to_string(),
                        Token::Number => "0".to_owned(),
                    })
                    .collect();
                format!("{}:{} {}", line.number, line.indent, words.join(" "))
            })
            .collect();
        assert_eq!(shown, expected, "{source}");
    }

    #[test]
    fn lines_are_logical() {
        check(
            "import a\n  import b # c\n\n",
            &["1:0 import a", "2:2 import b"],
        );
        check(
            "from a import (\n  b, # no\n  c)\nx",
            &["1:0 from a import ( b , c )", "4:0 x"],
        );
        check("import \\\n  a\nb", &["1:0 import a", "3:0 b"]);
        check(
            "x = '''\nimport no\n'''\nimport y",
            &["1:0 x = «\nimport no\n»", "4:0 import y"],
        );
    }

    #[test]
    fn strings_end_where_python_ends_them() {
        check(
            r#"a = "x\"import b" ; c"#,
            &[r#"1:0 a = «x\"import b» ; c"#],
        );
        check(r"a = r'\' ; b'", &[r"1:0 a = «\' ; b»"]);
        check("a = 'open\nb", &["1:0 a = «open»", "2:0 b"]);
        check(r#"f"{x["y"]}" ; z"#, &[r#"1:0 «{x["y"]}» ; z"#]);
        check(r#"f"{x:'>10}" ; z"#, &[r#"1:0 «{x:'>10}» ; z"#]);
        check(r#"f"{{" ; z"#, &[r#"1:0 «{{» ; z"#]);
        check(
            r#"f'{a!r:{b}}' f"{d["k"] + f"{e}"}" ; z"#,
            &[r#"1:0 «{a!r:{b}}» «{d["k"] + f"{e}"}» ; z"#],
        );
        check("b'x' Rb'y' fr\"z\" u'w'", &["1:0 «x» «y» «z» «w»"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(source in "([a-z\r\"'{}()\\[\\]\\\\:#\n f]|'''|\"\"\"|é|f\"|\\{x){0,80}") {
            let _ = lines(&source);
        }
    }
}
