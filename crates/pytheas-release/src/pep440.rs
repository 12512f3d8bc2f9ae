//! Versions and version specifiers as PEP 440 orders them: `1.4.2`, `>=2,<3`.
//!
//! Devices compare versions with this, so it is small, takes any text without panicking, and knows
//! nothing of installers' habits: a pre-release is a version like any other, later than what it is
//! later than (`2.1rc1` fits `>=2`, `2.0rc1` does not).
//!
//! Off-spec: numbers beyond 64 bits are no versions.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A version that can be compared.
#[derive(Debug, Clone)]
pub struct Pep440 {
    epoch: u64,
    release: Vec<u64>,
    pre: Option<(Phase, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    local: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Alpha,
    Beta,
    Candidate,
}

/// Part of a local version; numbers are later than words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Word(String),
    Number(u64),
}

/// A text that is no version by PEP 440.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version by PEP 440, so it cannot be compared")]
pub struct NotPep440(pub String);

/// What remains to be read of a version; ASCII, lower case.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn number(&mut self) -> Option<u64> {
        let digits = self
            .0
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.0.len());
        let (number, rest) = self.0.split_at(digits);
        let number = number.parse().ok()?;
        self.0 = rest;
        Some(number)
    }

    fn skip(&mut self, char: char) -> bool {
        match self.0.strip_prefix(char) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// `[-_.]? WORD [-_.]? NUMBER?`: which of `words`, and the number (0 when absent).
    fn labelled(&mut self, words: &[&str]) -> Option<(usize, Option<u64>)> {
        let body = self.0.strip_prefix(['-', '_', '.']).unwrap_or(self.0);
        let (which, rest) = words
            .iter()
            .enumerate()
            .find_map(|(at, word)| Some((at, body.strip_prefix(word)?)))?;
        let after = rest.strip_prefix(['-', '_', '.']).unwrap_or(rest);
        if after.starts_with(|c: char| c.is_ascii_digit()) {
            self.0 = after;
            Some((which, self.number()))
        } else {
            self.0 = rest;
            Some((which, Some(0)))
        }
    }
}

impl FromStr for Pep440 {
    type Err = NotPep440;

    fn from_str(text: &str) -> Result<Self, NotPep440> {
        parse(text).ok_or_else(|| NotPep440(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<Pep440> {
    let lower = text.trim().to_ascii_lowercase();
    let (public, local) = match lower.split_once('+') {
        Some((public, local)) => (public, Some(local)),
        None => (lower.as_str(), None),
    };
    let mut rest = Rest(public.strip_prefix('v').unwrap_or(public));
    let first = rest.number()?;
    let (epoch, first) = if rest.skip('!') {
        (first, rest.number()?)
    } else {
        (0, first)
    };
    let mut release = vec![first];
    while rest.0.starts_with('.') && rest.0[1..].starts_with(|c: char| c.is_ascii_digit()) {
        rest.skip('.');
        release.push(rest.number()?);
    }
    let words = ["alpha", "a", "beta", "b", "preview", "pre", "rc", "c"];
    let pre = match rest.labelled(&words) {
        Some((0 | 1, number)) => Some((Phase::Alpha, number?)),
        Some((2 | 3, number)) => Some((Phase::Beta, number?)),
        Some((_, number)) => Some((Phase::Candidate, number?)),
        None => None,
    };
    let implicit = rest.0.strip_prefix('-').unwrap_or("");
    let post = if implicit.starts_with(|c: char| c.is_ascii_digit()) {
        rest.skip('-');
        Some(rest.number()?)
    } else {
        match rest.labelled(&["post", "rev", "r"]) {
            Some((_, number)) => Some(number?),
            None => None,
        }
    };
    let dev = match rest.labelled(&["dev"]) {
        Some((_, number)) => Some(number?),
        None => None,
    };
    let local = match local {
        None => Vec::new(),
        Some(local) => local
            .split(['-', '_', '.'])
            .map(segment)
            .collect::<Option<Vec<_>>>()?,
    };
    rest.0.is_empty().then_some(Pep440 {
        epoch,
        release,
        pre,
        post,
        dev,
        local,
    })
}

fn segment(text: &str) -> Option<Segment> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Segment::Number(text.parse().ok()?));
    }
    Some(Segment::Word(text.to_owned()))
}

impl Pep440 {
    fn is_pre_release(&self) -> bool {
        self.pre.is_some() || self.dev.is_some()
    }

    /// Without the local version.
    fn public(&self) -> Self {
        Self {
            local: Vec::new(),
            ..self.clone()
        }
    }

    /// The numbers without zeros at the end.
    fn numbers(&self) -> &[u64] {
        let end = self.release.iter().rposition(|n| *n != 0);
        &self.release[..end.map_or(0, |at| at + 1)]
    }

    fn has_base_of(&self, other: &Self) -> bool {
        (self.epoch, self.numbers()) == (other.epoch, other.numbers())
    }

    /// Whether this is `prefix` or `prefix` with more numbers behind.
    fn begins_with(&self, prefix: &Self, numbers: usize) -> bool {
        let number = |version: &Self, at: usize| version.release.get(at).copied().unwrap_or(0);
        self.epoch == prefix.epoch && (0..numbers).all(|at| number(self, at) == number(prefix, at))
    }

    /// PEP 440, "Summary of permitted suffixes and relative ordering": `1.dev0 < 1a1 < 1 < 1.post1`.
    fn rank(&self) -> impl Ord {
        let pre = match (self.pre, self.post, self.dev) {
            (Some((phase, number)), _, _) => (1, Some((phase, number))),
            (None, None, Some(_)) => (0, None),
            (None, _, _) => (2, None),
        };
        let dev = self.dev.map_or((1, 0), |number| (0, number));
        (pre, self.post, dev, self.local.clone())
    }
}

impl Ord for Pep440 {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.epoch, self.numbers())
            .cmp(&(other.epoch, other.numbers()))
            .then_with(|| self.rank().cmp(&other.rank()))
    }
}

impl PartialOrd for Pep440 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pep440 {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pep440 {}

/// A range of versions: `>=2,<3`; `*` or nothing for any.
#[derive(Debug, Clone)]
pub struct Specifiers {
    all: Vec<Specifier>,
    text: String,
}

#[derive(Debug, Clone)]
enum Specifier {
    /// `==V` (and, negated, `!=V`).
    Is {
        not: bool,
        version: Pep440,
    },
    /// `==V.*` (and, negated, `!=V.*`).
    Begins {
        not: bool,
        prefix: Pep440,
    },
    /// `~=V`.
    Compatible(Pep440),
    Least(Pep440),
    Most(Pep440),
    More(Pep440),
    Less(Pep440),
    /// `===TEXT`.
    Text(String),
}

/// A text that is no range of versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no range of versions: write e.g. `>=1.2`, `>=2,<3`, `==1.4.*`, `~=2.1` or `*`")]
pub struct NotSpecifiers(pub String);

impl FromStr for Specifiers {
    type Err = NotSpecifiers;

    fn from_str(text: &str) -> Result<Self, NotSpecifiers> {
        let trimmed = text.trim();
        let wrong = || NotSpecifiers(text.chars().take(120).collect());
        let all = if trimmed.is_empty() || trimmed == "*" {
            Vec::new()
        } else {
            trimmed
                .split(',')
                .map(|one| specifier(one.trim()).ok_or_else(wrong))
                .collect::<Result<_, _>>()?
        };
        let text = if trimmed.is_empty() { "*" } else { trimmed };
        Ok(Self {
            all,
            text: text.to_owned(),
        })
    }
}

fn specifier(text: &str) -> Option<Specifier> {
    if let Some(exact) = text.strip_prefix("===") {
        let exact = exact.trim();
        return (!exact.is_empty()).then(|| Specifier::Text(exact.to_owned()));
    }
    let (operator, version) = ["==", "!=", "~=", ">=", "<=", ">", "<"]
        .iter()
        .find_map(|operator| Some((*operator, text.strip_prefix(operator)?.trim())))?;
    let equality = matches!(operator, "==" | "!=");
    let not = operator == "!=";
    if let Some(prefix) = version.strip_suffix(".*").filter(|_| equality) {
        let prefix: Pep440 = prefix.parse().ok()?;
        let plain = !prefix.is_pre_release() && prefix.post.is_none() && prefix.local.is_empty();
        return plain.then_some(Specifier::Begins { not, prefix });
    }
    let version: Pep440 = version.parse().ok()?;
    if !equality && !version.local.is_empty() {
        return None; // local versions have no order between publishers
    }
    Some(match operator {
        "==" | "!=" => Specifier::Is { not, version },
        "~=" if version.release.len() >= 2 => Specifier::Compatible(version),
        ">=" => Specifier::Least(version),
        "<=" => Specifier::Most(version),
        ">" => Specifier::More(version),
        "<" => Specifier::Less(version),
        _ => return None,
    })
}

impl Specifiers {
    /// Whether any version fits, also one that cannot be compared.
    pub fn is_any(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the version `text` is in the range.
    ///
    /// # Errors
    /// [`NotPep440`] when it cannot be compared.
    pub fn contain(&self, text: &str) -> Result<bool, NotPep440> {
        let parsed = text.parse::<Pep440>();
        for one in &self.all {
            let fits = match one {
                Specifier::Text(exact) => exact.eq_ignore_ascii_case(text.trim()),
                other => other.holds(parsed.as_ref().map_err(Clone::clone)?),
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Specifier {
    fn holds(&self, version: &Pep440) -> bool {
        match self {
            Self::Text(_) => false, // compared as text, above
            Self::Is { not, version: with } => {
                let equal = if with.local.is_empty() {
                    version.public() == *with
                } else {
                    version == with
                };
                equal != *not
            }
            Self::Begins { not, prefix } => {
                version.begins_with(prefix, prefix.release.len()) != *not
            }
            Self::Compatible(least) => {
                version.public() >= *least && version.begins_with(least, least.release.len() - 1)
            }
            Self::Least(least) => version.public() >= *least,
            Self::Most(most) => version.public() <= *most,
            // `>1.7` is not met by `1.7.post1` nor by `1.7+local`; `<2` not by `2rc1`.
            Self::More(than) => {
                version > than
                    && (than.post.is_some() || version.post.is_none() || !version.has_base_of(than))
                    && (version.local.is_empty() || !version.has_base_of(than))
            }
            Self::Less(than) => {
                version < than
                    && (than.is_pre_release()
                        || !version.is_pre_release()
                        || !version.has_base_of(than))
            }
        }
    }
}

impl fmt::Display for Specifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
