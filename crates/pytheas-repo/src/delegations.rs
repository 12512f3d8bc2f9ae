//! Teams that sign their own releases: delegated targets roles (TUF 1.0.33 §4.5).
//!
//! ```text
//! N.targets.json   delegations: keys { ID: KEY }, roles [ { name: "greenhouse-team", keyids,
//!                  threshold, paths: ["greenhouse/*/*/*"], terminating: true } ]
//! N.greenhouse-team.json     targets metadata, signed with the team's keys
//! N.snapshot.json            lists targets.json and greenhouse-team.json
//! ```
//! - One level: only the targets role delegates. Every delegation is terminating: a release that a
//!   team may sign and has not signed is not looked for at later teams. What the targets role
//!   itself lists comes first.
//! - A pattern has four parts, as names of releases have (`APP/VERSION/PLATFORM/release.json`);
//!   `*` and `?` stay within a part, as the specification says. A shorter one is made longer:
//!   `greenhouse/*` and `greenhouse` mean `greenhouse/*/*/*`.
//! - A team's metadata comes into the snapshot when somebody with the online keys signs one: the
//!   team itself if it has them, otherwise the hub, which looks for `N+1.TEAM.json`.
//! - A team that is removed stays listed in snapshots (a name that vanishes is a rollback to
//!   devices, §5.5.5), but nothing leads to it any more.
//! - When a team's keys are replaced, what the new keys have not signed is gone: the team publishes
//!   again what shall stay. Keys that overlap keep it: add the new one, publish, remove the old.

use std::{collections::HashMap, num::NonZeroU64};

use miette::Diagnostic;
use tough::schema::{
    DelegatedRole, Delegations, PathPattern, PathSet, RoleKeys, Targets, key::Key,
};

use crate::keys::public;

/// Names that are not for teams.
const TAKEN: [&str; 5] = ["root", "targets", "snapshot", "timestamp", "online"];

/// A delegation that is not made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DelegationError {
    /// Not a name.
    #[error("`{name}` is no name for a team")]
    #[diagnostic(
        code(pytheas::delegate::name),
        help("small letters, digits and `-`, at most 64, not the name of a role")
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Not a pattern.
    #[error("`{pattern}` is no pattern of releases: {why}")]
    #[diagnostic(
        code(pytheas::delegate::pattern),
        help(
            "`APP/*` is every release of an app, `APP-*/*` of every app whose name begins so; in full `APP/VERSION/PLATFORM/release.json`"
        )
    )]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something is missing.
    #[error("the team `{team}` has no {what} yet")]
    #[diagnostic(
        code(pytheas::delegate::incomplete),
        help(
            "a new team needs `--paths PATTERN` and `--key FILE`, what `pytheas keys export` wrote where its private key is"
        )
    )]
    Incomplete {
        /// The team.
        team: String,
        /// `paths`, `keys`.
        what: &'static str,
    },
    /// More signatures than keys.
    #[error("the team `{team}` would need {threshold} signatures of {keys} keys")]
    #[diagnostic(
        code(pytheas::delegate::refused::threshold),
        help("name more keys with `--key`, or lower `--threshold` (at least 1)")
    )]
    Threshold {
        /// The team.
        team: String,
        /// Signatures.
        threshold: u64,
        /// Keys.
        keys: usize,
    },
    /// No such team.
    #[error("there is no team `{team}`")]
    #[diagnostic(code(pytheas::delegate::unknown), help("{have}"))]
    Unknown {
        /// The team.
        team: String,
        /// Which there are.
        have: String,
    },
    /// The team may not publish this.
    #[error("the team `{team}` must not sign `{target}`")]
    #[diagnostic(
        code(pytheas::delegate::refused::path),
        help(
            "it may sign {paths}; the holder of the targets keys changes that with `pytheas keys delegate`"
        )
    )]
    Path {
        /// The team.
        team: String,
        /// The release.
        target: String,
        /// Its patterns.
        paths: String,
    },
    /// Another team comes first.
    #[error("the team `{first}` may sign `{target}`, too, and comes before `{team}`")]
    #[diagnostic(
        code(pytheas::delegate::refused::hidden),
        help("devices would not see it: give the teams patterns that do not overlap")
    )]
    Hidden {
        /// The team.
        team: String,
        /// The one before it.
        first: String,
        /// The release.
        target: String,
    },
}

/// A change of who may sign what.
#[derive(Debug, Clone)]
pub enum Delegate {
    /// A new team, or new parts of a team there is.
    Set {
        /// Its name.
        team: String,
        /// Patterns of its releases; empty: as they are.
        paths: Vec<String>,
        /// Its public keys; empty: as they are.
        keys: Vec<Key>,
        /// Signatures it needs; none: as it is, or 1.
        threshold: Option<u64>,
    },
    /// The team may not sign anything any more.
    Remove {
        /// Its name.
        team: String,
    },
}

/// A team, as the targets metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its name.
    pub name: String,
    /// Patterns of its releases.
    pub paths: Vec<String>,
    /// Ids of its keys (64 hex digits).
    pub keys: Vec<String>,
    /// Signatures it needs.
    pub threshold: u64,
}

/// The teams of `targets`.
pub(crate) fn teams(targets: &Targets) -> Vec<Team> {
    let roles = targets.delegations.iter().flat_map(|all| &all.roles);
    roles
        .map(|role| Team {
            name: role.name.clone(),
            paths: paths(role),
            keys: role.keyids.iter().map(|id| public::hex(id)).collect(),
            threshold: role.threshold.get(),
        })
        .collect()
}

fn paths(role: &DelegatedRole) -> Vec<String> {
    match &role.paths {
        PathSet::Paths(all) => all.iter().map(|path| path.value().to_owned()).collect(),
        PathSet::PathHashPrefixes(_) => Vec::new(),
    }
}

/// The delegation to `team`.
pub(crate) fn role<'t>(
    targets: &'t Targets,
    team: &str,
) -> Result<(&'t Delegations, &'t DelegatedRole), DelegationError> {
    let unknown = || DelegationError::Unknown {
        team: team.to_owned(),
        have: match &teams(targets)[..] {
            [] => "there are none; `pytheas keys delegate` makes one".to_owned(),
            all => {
                let names: Vec<_> = all.iter().map(|team| team.name.as_str()).collect();
                format!("there are {}", names.join(", "))
            }
        },
    };
    let all = targets.delegations.as_ref().ok_or_else(unknown)?;
    let role = all.roles.iter().find(|role| role.name == team);
    Ok((all, role.ok_or_else(unknown)?))
}

/// The keys that must sign for `role`.
pub(crate) fn signers(role: &DelegatedRole) -> RoleKeys {
    RoleKeys {
        keyids: role.keyids.clone(),
        threshold: role.threshold,
        _extra: HashMap::new(),
    }
}

/// Whether `team` may sign the release `target`, and devices would find it there.
pub(crate) fn may_sign(targets: &Targets, team: &str, target: &str) -> Result<(), DelegationError> {
    let (all, own) = role(targets, team)?;
    if !covers(&own.paths, target) {
        return Err(DelegationError::Path {
            team: team.to_owned(),
            target: target.to_owned(),
            paths: paths(own).join(", "),
        });
    }
    let first = all.roles.iter().find(|role| covers(&role.paths, target));
    match first {
        Some(first) if first.name != team => Err(DelegationError::Hidden {
            team: team.to_owned(),
            first: first.name.clone(),
            target: target.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether `paths` covers the target `name` (TUF §4.5, PATHPATTERN).
pub(crate) fn covers(paths: &PathSet, name: &str) -> bool {
    match paths {
        PathSet::Paths(all) => all.iter().any(|path| matches(path.value(), name)),
        PathSet::PathHashPrefixes(all) => {
            let hash = pytheas_release::Sha256::of(name.as_bytes()).to_string();
            all.iter().any(|prefix| hash.starts_with(prefix.value()))
        }
    }
}

/// Whether `pattern` matches `name`, part by part.
fn matches(pattern: &str, name: &str) -> bool {
    let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, name) = (parts(pattern), parts(name));
    pattern.len() == name.len()
        && pattern
            .iter()
            .zip(&name)
            .all(|(pattern, part)| part_matches(pattern.as_bytes(), part.as_bytes()))
}

/// `*` is any bytes, `?` is one; in time and memory that no pattern makes explode.
fn part_matches(pattern: &[u8], part: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < part.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == part[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    n = from + 1;
                    star = Some((at, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The pattern that is meant by `text`.
fn pattern(text: &str) -> Result<PathPattern, DelegationError> {
    let bad = |why| DelegationError::Pattern {
        pattern: text.to_owned(),
        why,
    };
    let right = |c: char| c.is_ascii_alphanumeric() || "-_.+!/*?".contains(c);
    if !text.chars().all(right) {
        return Err(bad(
            "only letters, digits, `-_.+!`, `*` and `?` may stand in it",
        ));
    }
    let mut parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "..") {
        return Err(bad("a part of it is empty"));
    }
    if parts.len() > 4 || (parts.len() > 1 && parts.len() < 4 && parts[parts.len() - 1] != "*") {
        return Err(bad("a release's name has four parts"));
    }
    parts.resize(4, "*");
    PathPattern::new(parts.join("/")).map_err(|_| bad("it cannot be parsed"))
}

/// `targets` with `change`. What is new, line by line.
pub(crate) fn apply(
    targets: &mut Targets,
    change: &Delegate,
) -> Result<Vec<String>, DelegationError> {
    let mut all = targets.delegations.clone().unwrap_or_default();
    let says = match change {
        Delegate::Remove { team } => {
            role(targets, team)?;
            all.roles.retain(|role| role.name != *team);
            vec![format!("{team}: may not sign anything any more")]
        }
        Delegate::Set {
            team,
            paths,
            keys,
            threshold,
        } => set(&mut all, team, paths, keys, *threshold)?,
    };
    let used: Vec<_> = all.roles.iter().flat_map(|r| r.keyids.clone()).collect();
    all.keys.retain(|id, _| used.contains(id));
    // An empty `delegations` is allowed, none is simpler.
    targets.delegations = Some(all).filter(|all| !all.roles.is_empty());
    Ok(says)
}

fn set(
    all: &mut Delegations,
    team: &str,
    paths: &[String],
    keys: &[Key],
    threshold: Option<u64>,
) -> Result<Vec<String>, DelegationError> {
    let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let numeric = |c: char| c.is_ascii_digit();
    if team.is_empty()
        || team.len() > 64
        || !team.chars().all(right)
        || team.chars().all(numeric)
        || team.starts_with('-')
        || TAKEN.contains(&team)
    {
        return Err(DelegationError::Name {
            name: team.to_owned(),
        });
    }
    let at = all.roles.iter().position(|role| role.name == team);
    let old = at.map(|at| all.roles[at].clone());
    let incomplete = |what| DelegationError::Incomplete {
        team: team.to_owned(),
        what,
    };
    let new_paths = match &old {
        Some(old) if paths.is_empty() => old.paths.clone(),
        _ if paths.is_empty() => return Err(incomplete("paths")),
        _ => PathSet::Paths(
            paths
                .iter()
                .map(|text| pattern(text))
                .collect::<Result<_, _>>()?,
        ),
    };
    let mut keyids = Vec::new();
    for key in keys {
        let id = public::id(key);
        if !keyids.contains(&id) {
            keyids.push(id.clone());
        }
        all.keys.insert(id, key.clone());
    }
    if keyids.is_empty() {
        keyids = match &old {
            Some(old) => old.keyids.clone(),
            None => return Err(incomplete("keys")),
        };
    }
    let wanted = threshold.or(old.as_ref().map(|old| old.threshold.get()));
    let wanted = wanted.unwrap_or(1);
    let too_much = || DelegationError::Threshold {
        team: team.to_owned(),
        threshold: wanted,
        keys: keyids.len(),
    };
    let threshold = NonZeroU64::new(wanted)
        .filter(|n| n.get() <= keyids.len() as u64)
        .ok_or_else(too_much)?;
    let role = DelegatedRole {
        name: team.to_owned(),
        keyids,
        threshold,
        paths: new_paths,
        terminating: true,
        targets: None,
    };
    let keys: Vec<_> = role
        .keyids
        .iter()
        .map(|id| public::hex(id)[..12].to_owned())
        .collect();
    let says = vec![
        format!("{team}: may sign {}", self::paths(&role).join(", ")),
        format!(
            "{team}: {} of {} signatures by {}",
            role.threshold,
            keys.len(),
            keys.join(", ")
        ),
    ];
    match at {
        Some(at) => all.roles[at] = role,
        None => all.roles.push(role),
    }
    Ok(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
    }

    #[test]
    fn patterns_stay_within_their_parts() {
        check("a/*/*/*", "a/1.0/linux/release.json", true);
        check("a/*/*/*", "ab/1.0/linux/release.json", false);
        check("a/*", "a/1.0/linux/release.json", false);
        check("a-*/*/*/*", "a-b-c/1/p/r", true);
        check("?/*/*/release.json", "a/1/p/release.json", true);
        check("?/*/*/release.json", "a/1/p/other.json", false);
        check("*a*b*/x", "xxaxxbxx/x", true);
        check("*a*b*/x", "xxbxxaxx/x", false);
        check(&"*a".repeat(30), &"a".repeat(5000), true);
    }

    #[test]
    fn short_patterns_mean_all_releases_of_an_app() {
        let full = |text| pattern(text).map(|p| p.value().to_owned()).ok();
        for text in [
            "greenhouse",
            "greenhouse/*",
            "greenhouse/*/*",
            "greenhouse/*/*/*",
        ] {
            assert_eq!(full(text).as_deref(), Some("greenhouse/*/*/*"));
        }
        assert_eq!(full("green*").as_deref(), Some("green*/*/*/*"));
        for text in [
            "",
            "/a",
            "a/",
            "a/1.0",
            "a/b/c/d/e",
            "a/[b]/*/*",
            "{a,b}/*",
            "../*",
            "a b",
        ] {
            assert_eq!(full(text), None, "{text}");
        }
    }
}
