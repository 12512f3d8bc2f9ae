//! Whole numbers in as few bytes as they need (LEB128), for tables that are packed afterwards.

use crate::Damaged;

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number that may be negative.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes a number off the front of `bytes`.
///
/// # Errors
/// [`Damaged`] when there is none or it has more than 64 bits.
pub fn get(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Damaged("a number is missing"))?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Damaged("a number is too large"))
}

/// Takes a number that may be negative off the front of `bytes`.
///
/// # Errors
/// As [`get`].
pub fn get_signed(bytes: &mut &[u8]) -> Result<i64, Damaged> {
    let value = get(bytes)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Takes a number of at most `max` off the front of `bytes`.
///
/// # Errors
/// As [`get`], and when it is larger.
pub fn get_up_to(bytes: &mut &[u8], max: usize) -> Result<usize, Damaged> {
    usize::try_from(get(bytes)?)
        .ok()
        .filter(|value| *value <= max)
        .ok_or(Damaged("a number is larger than allowed"))
}
