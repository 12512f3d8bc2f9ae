//! `Retry-After` and the dates of HTTP (RFC 9110 §5.6.7, §10.2.3), all three forms of them.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A hub cannot silence its devices for longer with one answer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);

/// How long `Retry-After: value` asks to wait: seconds, or a date as seen by the sender's own
/// clock (`sent`, its `Date`), since ours may be wrong.
pub fn retry_after(value: &str, sent: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than fit are as good as the longest.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let seconds = http_date(value)?.as_second() - sent.unwrap_or(now).as_second();
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .take(7)
        .collect();
    let (day, month, year, time) = match words.as_slice() {
        [_, day, month, year, time, "GMT"] => (*day, *month, *year, *time),
        [_, date, time, "GMT"] => {
            let mut parts = date.split('-');
            let parts = (parts.next()?, parts.next()?, parts.next()?, parts.next());
            let (day, month, year, None) = parts else {
                return None;
            };
            (day, month, year, *time)
        }
        [_, month, day, time, year] => (*day, *month, *year, *time),
        _ => return None,
    };
    let number = |text: &str| -> Option<i16> {
        let plain = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut year_number = number(year)?;
    if year.len() == 2 {
        year_number += if year_number < 70 { 2000 } else { 1900 };
    }
    let mut clock = time.split(':');
    let clock = (clock.next()?, clock.next()?, clock.next()?, clock.next());
    let (hour, minute, second, None) = clock else {
        return None;
    };
    let small = |text: &str| number(text).and_then(|n| i8::try_from(n).ok());
    let date = civil::DateTime::new(
        year_number,
        i8::try_from(month).ok()? + 1,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?.min(59), // a leap second
        0,
    );
    TimeZone::UTC.to_timestamp(date.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_the_same_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                http_date(text).map(Timestamp::as_second),
                Some(784_111_777),
                "{text}"
            );
        }
        for wrong in [
            "",
            "now",
            "Sun, 36 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn waiting_is_by_the_senders_clock_and_has_an_end() {
        let (sent, ours) = (
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Timestamp::UNIX_EPOCH,
        );
        let wait = |value: &str| retry_after(value, sent, ours).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(6 * 3600));
        assert_eq!(wait("Thu, 31 Dec 2099 23:59:59 GMT"), Some(6 * 3600));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-5"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,60}", day in ".{0,3}", year in "[0-9]{0,5}") {
            let _refused = http_date(&text);
            let _refused = http_date(&format!("Sun, {day} Nov {year} 08:49:37 GMT"));
            let _refused = retry_after(&text, None, Timestamp::UNIX_EPOCH);
        }
    }
}
