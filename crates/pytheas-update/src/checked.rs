//! JSON with a check: one bit that decays on the disk is noticed, not believed.
//!
//! ```json
//! {
//!   "check": "6b86b273ff34fce1",
//!   …
//! ```
//! `check` is the beginning of the SHA-256 of all that follows its line. A file without the line is
//! taken as it is.

use pytheas_release::Sha256;

/// What stands before and after the check.
const BEFORE_CHECK: &[u8] = b"{\n  \"check\": \"";
const AFTER_CHECK: &[u8] = b"\",\n";
/// Bytes of the hash that the check is.
const CHECK_LEN: usize = 8;

/// `json`, pretty-printed as an object, with a check and a final newline.
pub fn seal(mut json: Vec<u8>) -> Vec<u8> {
    json.push(b'\n');
    let rest = json.strip_prefix(b"{\n").unwrap_or(&json);
    [BEFORE_CHECK, check(rest).as_bytes(), AFTER_CHECK, rest].concat()
}

/// Whether `bytes` have a check and are not what it was made of.
pub fn is_damaged(bytes: &[u8]) -> bool {
    split_check(bytes).is_some_and(|(said, rest)| said != check(rest).as_bytes())
}

/// Whether `bytes` have a check and are what it was made of.
pub fn is_whole(bytes: &[u8]) -> bool {
    split_check(bytes).is_some_and(|(said, rest)| said == check(rest).as_bytes())
}

fn check(rest: &[u8]) -> String {
    let mut hash = Sha256::of(rest).to_string();
    hash.truncate(2 * CHECK_LEN);
    hash
}

/// The check and what it is of.
fn split_check(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (said, rest) = bytes
        .strip_prefix(BEFORE_CHECK)?
        .split_at_checked(2 * CHECK_LEN)?;
    Some((said, rest.strip_prefix(AFTER_CHECK)?))
}
