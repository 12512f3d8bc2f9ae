//! Exit codes, documented in `docs/reference/exit-codes.md`: told by the words of an error's
//! `code(...)`, so that the error which knows its kind says it.

/// The user's mistake, or a check that found something.
pub(crate) const USER: u8 = 1;
/// What was asked for cannot be done as it was asked: a command line that does not parse (clap's own
/// code), and an audit that did not take place, since 1 says that it found something.
pub(crate) const USAGE: u8 = 2;
/// The world's failure: network, disk, a hub that does not answer.
pub(crate) const WORLD: u8 = 3;
/// Refused for safety: a signature, hash or version that must not be trusted.
pub(crate) const REFUSED: u8 = 4;

/// Words of codes that mean [`REFUSED`].
const REFUSED_WORDS: [&str; 2] = ["refused", "hash"];
/// Words of codes that mean [`WORLD`].
const WORLD_WORDS: [&str; 17] = [
    "cache",
    "data_dir",
    "database",
    "disk_full",
    "failed",
    "io",
    "listen",
    "locked",
    "network",
    "not_a_hub",
    "port_in_use",
    "read",
    "start",
    "state",
    "timeout",
    "unreachable",
    "write",
];

/// The exit code of an error with this `code(...)`, e.g. `pytheas::download::network::broken`.
pub(crate) fn of(code: Option<&str>) -> u8 {
    let mut words = code.unwrap_or_default().split("::").skip(1);
    words
        .find_map(|word| match word {
            word if REFUSED_WORDS.contains(&word) => Some(REFUSED),
            word if WORLD_WORDS.contains(&word) => Some(WORLD),
            _ => None,
        })
        .unwrap_or(USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_whose_fault_it_is() {
        for (code, expected) in [
            ("pytheas::repository::refused::unverified", REFUSED),
            ("pytheas::metadata::refused::parse", REFUSED),
            ("pytheas::interpreter::hash", REFUSED),
            ("pytheas::store::network::failed", WORLD),
            ("pytheas::publish::io::read", WORLD),
            ("pytheas::build::disk_full", WORLD),
            ("pytheas::hub::unreachable", WORLD),
            ("pytheas::rollout::timeout", WORLD),
            ("pytheas::hub::port_in_use", WORLD),
            ("pytheas::hub::says_no", USER),
            ("pytheas::hub::poll_interval", USER),
            ("pytheas::publish::taken", USER),
            ("pytheas::lock::stale", USER),
        ] {
            assert_eq!(of(Some(code)), expected, "{code}");
        }
        assert_eq!(of(None), USER);
    }
}
