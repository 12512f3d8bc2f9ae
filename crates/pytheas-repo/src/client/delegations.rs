//! Who else may name targets: delegations of targets metadata (TUF §4.5), and which of them a
//! target belongs to.

use std::{collections::HashMap, num::NonZeroU64};

use pytheas_release::Sha256;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::keys::{Key, Keys};

/// Names that are taken.
const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// What a role delegates.
#[derive(Debug)]
pub(super) struct Delegations {
    keys: HashMap<String, Key>,
    to: To,
}

#[derive(Debug)]
enum To {
    /// Named roles, in the order in which they are asked.
    Roles(Vec<DelegatedRole>),
    /// Numbered bins (TAP 15).
    Bins(Bins),
}

#[derive(Debug, Deserialize)]
struct DelegatedRole {
    name: String,
    keyids: Vec<String>,
    threshold: NonZeroU64,
    terminating: bool,
    paths: Option<Vec<String>>,
    path_hash_prefixes: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Bins {
    keyids: Vec<String>,
    threshold: NonZeroU64,
    bit_length: u32,
    name_prefix: String,
}

/// A role that may name a target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delegate {
    pub(super) role: String,
    /// Whether nobody after it may.
    pub(super) terminating: bool,
}

impl<'de> Deserialize<'de> for Delegations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Text {
            keys: HashMap<String, Key>,
            roles: Option<Vec<DelegatedRole>>,
            succinct_roles: Option<Bins>,
        }
        let Text {
            keys,
            roles,
            succinct_roles,
        } = Text::deserialize(deserializer)?;
        let to = match (roles, succinct_roles) {
            (Some(roles), None) => To::Roles(roles),
            (None, Some(bins)) => To::Bins(bins),
            _ => {
                return Err(D::Error::custom(
                    "delegations have either `roles` or `succinct_roles`",
                ));
            }
        };
        to.check().map_err(D::Error::custom)?;
        Ok(Self { keys, to })
    }
}

impl To {
    fn check(&self) -> Result<(), String> {
        let roles = match self {
            Self::Roles(roles) => roles,
            Self::Bins(bins) => {
                return if (1..=32).contains(&bins.bit_length) {
                    Ok(())
                } else {
                    Err(format!(
                        "{} is no `bit_length`, 1 to 32 is",
                        bins.bit_length
                    ))
                };
            }
        };
        for (at, role) in roles.iter().enumerate() {
            let name = &role.name;
            if name.is_empty() || TOP_LEVEL.contains(&name.as_str()) {
                return Err(format!("`{name}` cannot be the name of a delegated role"));
            }
            if roles[..at].iter().any(|earlier| earlier.name == *name) {
                return Err(format!("the role `{name}` is delegated to twice"));
            }
            if role.paths.is_some() == role.path_hash_prefixes.is_some() {
                return Err(format!(
                    "the role `{name}` needs either `paths` or `path_hash_prefixes`"
                ));
            }
        }
        Ok(())
    }
}

impl Delegations {
    /// The roles that may name `target`, in order, up to a terminating one (§5.6.7.2).
    pub(super) fn of(&self, target: &str) -> Vec<Delegate> {
        match &self.to {
            To::Bins(bins) => vec![Delegate {
                role: bins.name_of(target),
                terminating: true,
            }],
            To::Roles(roles) => {
                let mut found = Vec::new();
                for role in roles.iter().filter(|role| role.covers(target)) {
                    found.push(Delegate {
                        role: role.name.clone(),
                        terminating: role.terminating,
                    });
                    if role.terminating {
                        break;
                    }
                }
                found
            }
        }
    }

    /// Who signs the delegated role `role`.
    pub(super) fn keys(&self, role: &str) -> Keys<'_> {
        let (keyids, threshold): (&[String], u64) = match &self.to {
            To::Bins(bins) => (&bins.keyids, bins.threshold.get()),
            To::Roles(roles) => match roles.iter().find(|r| r.name == role) {
                Some(role) => (&role.keyids, role.threshold.get()),
                None => (&[], 1),
            },
        };
        Keys {
            keys: &self.keys,
            keyids,
            threshold,
        }
    }
}

impl DelegatedRole {
    fn covers(&self, target: &str) -> bool {
        let patterns = self.paths.iter().flatten();
        if patterns.into_iter().any(|pattern| matches(pattern, target)) {
            return true;
        }
        let mut prefixes = self.path_hash_prefixes.iter().flatten().peekable();
        prefixes.peek().is_some() && {
            let digest = Sha256::of(target.as_bytes()).to_string();
            prefixes.any(|prefix| digest.starts_with(prefix.as_str()))
        }
    }
}

impl Bins {
    /// The bin of `target`: the first `bit_length` bits of its name's SHA-256, in as many
    /// hexadecimal digits as the last bin has.
    fn name_of(&self, target: &str) -> String {
        let digest = Sha256::of(target.as_bytes());
        let [a, b, c, d, ..] = *digest.as_bytes();
        let bin = u32::from_be_bytes([a, b, c, d]) >> (32 - self.bit_length);
        let digits = self.bit_length.div_ceil(4) as usize;
        format!("{}-{bin:0digits$x}", self.name_prefix)
    }
}

/// Whether `path` is matched by `pattern`: `*`, `?` and `[a-z]` as in a shell, none of them
/// matching a `/` (§4.5, PATHPATTERN).
fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                let (pattern, part): (Vec<char>, Vec<char>) =
                    (pattern.chars().collect(), part.chars().collect());
                if !matches_part(&pattern, &part) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// One part of a path, in at most `pattern.len() * part.len()` steps.
fn matches_part(pattern: &[char], part: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how far it reached when the rest was tried.
    let mut star: Option<(usize, usize)> = None;
    while t < part.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => set(&pattern[p + 1..], part[t]),
            Some(literal) => (*literal == part[t]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                t += 1;
            }
            (None, Some((at, reached))) => {
                star = Some((at, reached + 1));
                p = at + 1;
                t = reached + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

/// Whether `c` is in the set that begins after a `[`: the length of the set with its `[`. A `[`
/// without an end stands for itself.
fn set(rest: &[char], c: char) -> Option<usize> {
    let negated = rest.first() == Some(&'!');
    let body = usize::from(negated);
    // A `]` in the first place is a member.
    let end = rest
        .iter()
        .enumerate()
        .skip(body + 1)
        .find(|(_, c)| **c == ']');
    let Some((end, _)) = end else {
        return (c == '[').then_some(1);
    };
    let members = &rest[body..end];
    let mut at = 0;
    let mut found = false;
    while at < members.len() {
        if let [low, '-', high, ..] = members[at..] {
            found |= (low..=high).contains(&c);
            at += 3;
        } else {
            found |= members[at] == c;
            at += 1;
        }
    }
    (found != negated).then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        assert_eq!(matches(pattern, path), expected, "`{pattern}` on `{path}`");
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        check("*", "release.json", true);
        check("*", "a/b", false);
        check("*/*", "a/b", true);
        check("*.tgz", "foo.tgz", true);
        check("*.tgz", "targets/foo.tgz", false);
        check("foo-?.tgz", "foo-a.tgz", true);
        check("foo-?.tgz", "foo-alpha.tgz", false);
        check("team/*/*/release.json", "team/1.0/linux/release.json", true);
        check("team/*", "team/", true);
        check("team/*", "team", false);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("", "", true);
        check("[a-c]x", "bx", true);
        check("[!a-c]x", "bx", false);
        check("[!a-c]x", "dx", true);
        check("[]]x", "]x", true);
        check("[x", "[x", true);
        check("[x", "x", false);
        check("é?", "éü", true);
        // Long, and no pattern makes it slow.
        check(&"*a".repeat(200), &"a".repeat(2000), true);
        check(&format!("{}b", "*a".repeat(200)), &"a".repeat(2000), false);
    }

    fn delegations(json: &str) -> Result<Delegations, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn role(name: &str, rest: &str) -> String {
        format!(r#"{{"name": "{name}", "keyids": [], "threshold": 1, {rest}}}"#)
    }

    #[test]
    fn roles_are_asked_in_order_up_to_a_terminating_one() {
        let json = format!(
            r#"{{"keys": {{}}, "roles": [{}, {}, {}, {}]}}"#,
            role("one", r#""paths": ["a/*"], "terminating": false"#),
            // SHA-256 of `a/b` begins with c14cddc0.
            role(
                "two",
                r#""path_hash_prefixes": ["ff", "c14c"], "terminating": false"#
            ),
            role("three", r#""paths": ["x", "a/b"], "terminating": true"#),
            role("four", r#""paths": ["*", "a/*"], "terminating": false"#),
        );
        let asked = |target: &str| {
            let found = delegations(&json).unwrap().of(target);
            found.into_iter().map(|d| d.role).collect::<Vec<_>>()
        };
        assert_eq!(asked("a/b"), ["one", "two", "three"]);
        assert_eq!(asked("a/c"), ["one", "four"]);
        assert_eq!(asked("b/c/d"), [""; 0]);
    }

    #[test]
    fn bins_are_numbered_by_the_hash_of_the_name() {
        let json = |bits: u32| {
            format!(
                r#"{{"keys": {{}}, "succinct_roles": {{"keyids": [], "threshold": 1,
                    "bit_length": {bits}, "name_prefix": "bin"}}}}"#
            )
        };
        let bin = |bits| delegations(&json(bits)).unwrap().of("a/b")[0].role.clone();
        assert_eq!(
            [bin(1), bin(8), bin(9), bin(32)],
            ["bin-1", "bin-c1", "bin-182", "bin-c14cddc0"]
        );
        assert!(delegations(&json(0)).unwrap_err().contains("bit_length"));
        assert!(delegations(&json(33)).unwrap_err().contains("bit_length"));
    }

    #[test]
    fn delegations_that_mean_two_things_are_refused() {
        let paths = r#""paths": [], "terminating": false"#;
        for (roles, expected) in [
            (role("", paths), "cannot be the name"),
            (role("snapshot", paths), "cannot be the name"),
            (
                format!("{},{}", role("a", paths), role("a", paths)),
                "delegated to twice",
            ),
            (role("a", r#""terminating": true"#), "either `paths`"),
            (
                role(
                    "a",
                    r#""paths": [], "path_hash_prefixes": [], "terminating": true"#,
                ),
                "either `paths`",
            ),
        ] {
            let error = delegations(&format!(r#"{{"keys": {{}}, "roles": [{roles}]}}"#));
            assert!(
                error.as_ref().is_err_and(|e| e.contains(expected)),
                "{roles}: {error:?}"
            );
        }
        assert!(delegations(r#"{"keys": {}}"#).is_err());
    }
}
