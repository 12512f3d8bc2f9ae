//! How a started release proves that it works: the health rule.

use serde::{Deserialize, Serialize};

/// What counts as "it works".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ready {
    /// The app says `READY=1` on `NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// A GET of this address answers 2xx.
    Http {
        /// `http://127.0.0.1:8080/healthz`; only loopback makes sense.
        url: String,
    },
    /// The process is still there after [`Health::stay_up_ms`].
    StayUp,
}

/// The health rule of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What counts as "it works".
    pub ready: Ready,
    /// How long the app may take to get there, in milliseconds.
    pub deadline_ms: u64,
    /// How long the process must live before it counts as up, in milliseconds, when nothing
    /// else is asked; with `notify` and `http` it must also live this long *after* ready.
    pub stay_up_ms: u64,
}

impl Default for Health {
    /// Staying up for ten seconds, one minute at most.
    fn default() -> Self {
        Self {
            ready: Ready::StayUp,
            deadline_ms: 60_000,
            stay_up_ms: 10_000,
        }
    }
}

/// Milliseconds in `500ms`, `30s`, `5m`, `2h`, `1d`; `None` for anything else.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration_ms("500ms"), Some(500));
        assert_eq!(parse_duration_ms("30s"), Some(30_000));
        assert_eq!(parse_duration_ms("2 h"), Some(7_200_000));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1y",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration_ms(wrong), None, "{wrong}");
        }
    }
}
