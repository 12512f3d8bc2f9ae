//! How much may be downloaded in a second: `200 kB/s`, `1.5 MB/s`, `64 KiB/s`.

use std::{num::NonZeroU64, str::FromStr};

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

/// Less than this and a poll's answer would not come in time.
const LEAST: u64 = 1000;

impl Rate {
    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no rate; write bytes per second: `200 kB/s`, `1.5 MB/s`");
        let amount = text.trim().strip_suffix("/s").ok_or_else(wrong)?.trim();
        let digits = amount
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, unit) = amount.split_at(digits);
        let unit: u64 = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let part = part.get(..part.len().min(6)).unwrap_or(part);
        let tenths = u32::try_from(part.len()).map_err(|_| wrong())?;
        let scale = 10_u64.checked_pow(tenths).ok_or_else(wrong)?;
        let (whole, part): (u64, u64) = (
            whole.parse().map_err(|_| wrong())?,
            part.parse().map_err(|_| wrong())?,
        );
        let bytes = whole
            .checked_mul(unit)
            .and_then(|bytes| bytes.checked_add(part.checked_mul(unit)? / scale))
            .ok_or_else(wrong)?;
        if bytes < LEAST {
            return Err(format!(
                "`{text}` is too little: at least 1 kB/s, or no release ever arrives"
            ));
        }
        NonZeroU64::new(bytes).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit() {
        let bytes = |text: &str| text.parse::<Rate>().map(Rate::bytes_per_second);
        assert_eq!(bytes("200 kB/s"), Ok(200_000));
        assert_eq!(bytes("1.5MB/s"), Ok(1_500_000));
        assert_eq!(bytes(" 64 KiB/s "), Ok(65_536));
        assert_eq!(bytes("0.25 GB/s"), Ok(250_000_000));
        for wrong in [
            "",
            "200",
            "200 kB",
            "kB/s",
            "1..5 MB/s",
            "-1 MB/s",
            "10 B/s",
            "0 kB/s",
            "9 XB/s",
            "99999999999999999999 GB/s",
            "1. MB/s",
            ".5 MB/s",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,30}", number in "[0-9.]{0,25}") {
            let _refused = text.parse::<Rate>();
            let _refused = format!("{number} GB/s").parse::<Rate>();
        }
    }
}
