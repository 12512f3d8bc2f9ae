//! Exit codes, documented in `docs/reference/exit-codes.md`.

/// The user's mistake, or a check that found something.
pub(crate) const USER: u8 = 1;
/// The world's failure: network, disk, a hub that does not answer.
pub(crate) const WORLD: u8 = 3;
/// Refused for safety: a signature, hash or version that must not be trusted.
pub(crate) const REFUSED: u8 = 4;

/// The exit code of an error with this `code(...)`: its second part names the kind.
pub(crate) fn of(code: Option<String>) -> u8 {
    match code.as_deref().unwrap_or_default() {
        code if code.contains("::network") || code.contains("::io") || code.contains("::hub") => {
            WORLD
        }
        code if code.contains("::refused") => REFUSED,
        _ => USER,
    }
}
