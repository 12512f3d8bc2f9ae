//! Maintenance windows: days and times of day at which something may happen.
//!
//! `mon-fri 01:00-05:00`, `sat,sun 22:00-04:00` (until four in the morning after), `00:00-24:00`
//! (every day when none is named). Which wall clock they mean is [`Schedule::zone`]'s matter.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

const MINUTES_OF_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// One window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens, Monday first.
    days: [bool; 7],
    /// Minutes after midnight.
    opens: u16,
    /// Minutes after that same midnight; beyond 24 hours when it closes on the day after.
    closes: u16,
}

impl std::str::FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase().replace(" - ", "-");
        let (days, times) = match text.rsplit_once(char::is_whitespace) {
            Some((days, times)) => (parse_days(days.trim())?, times),
            None => ([true; 7], text.as_str()),
        };
        let (opens, closes) = times
            .split_once('-')
            .ok_or_else(|| format!("`{times}` is no time of day like `01:00-05:00`"))?;
        let (opens, closes) = (parse_time(opens)?, parse_time(closes)?);
        if opens == closes || opens == MINUTES_OF_DAY {
            return Err(format!("`{times}` never opens; all day is `00:00-24:00`"));
        }
        let next_day = if closes < opens { MINUTES_OF_DAY } else { 0 };
        Ok(Self {
            days,
            opens,
            closes: closes + next_day,
        })
    }
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        DAYS.iter()
            .position(|day| name.trim().len() >= 3 && day.starts_with(name.trim()))
            .ok_or_else(|| {
                format!(
                    "`{}` is no day; days are mon, tue, wed, thu, fri, sat, sun",
                    name.trim()
                )
            })
    };
    if matches!(text, "daily" | "every day") {
        return Ok([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        // `sat-mon` goes over the end of the week.
        let count = (last + 7 - first) % 7;
        for i in 0..=count {
            days[(first + i) % 7] = true;
        }
    }
    Ok(days)
}

fn parse_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no time of day; write hours and minutes: `05:30`");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (
        number(hours).ok_or_else(wrong)?,
        number(minutes).ok_or_else(wrong)?,
    );
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= MINUTES_OF_DAY)
        .then_some(time)
        .ok_or_else(wrong)
}

/// Windows by one wall clock. Without any window it is always open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    windows: Vec<Window>,
    zone: TimeZone,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::new(Vec::new(), TimeZone::UTC)
    }
}

impl Schedule {
    /// These windows, by the wall clock of `zone`.
    pub fn new(windows: Vec<Window>, zone: TimeZone) -> Self {
        Self { windows, zone }
    }

    /// Whether it is open at all times, so that no clock is needed.
    pub fn is_always(&self) -> bool {
        self.windows.is_empty()
    }

    /// The wall clock that is meant.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Whether it is open at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.is_always()
            || self
                .openings(now)
                .any(|(opens, closes)| opens <= now && now < closes)
    }

    /// When it opens next; `now` when it is open.
    pub fn opens_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_open(now) {
            return Some(now);
        }
        self.openings(now)
            .map(|(opens, _)| opens)
            .filter(|opens| *opens > now)
            .min()
    }

    /// Every opening from two days before `now` to eight after: windows last less than two days,
    /// and come again each week.
    fn openings(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let today = self.zone.to_datetime(now).date();
        (-2..=8).flat_map(move |offset: i64| {
            let day = today.checked_add(offset.days()).ok();
            day.into_iter().flat_map(move |day| {
                let index = usize::from(weekday_index(day).unsigned_abs());
                self.windows
                    .iter()
                    .filter(move |window| window.days.get(index).copied().unwrap_or(false))
                    .filter_map(move |window| {
                        Some((self.at(day, window.opens)?, self.at(day, window.closes)?))
                    })
            })
        })
    }

    fn at(&self, day: Date, minutes: u16) -> Option<Timestamp> {
        let day = day
            .checked_add(i64::from(minutes / MINUTES_OF_DAY).days())
            .ok()?;
        let minutes = minutes % MINUTES_OF_DAY;
        let hour = i8::try_from(minutes / 60).ok()?;
        let minute = i8::try_from(minutes % 60).ok()?;
        let time = day.at(hour, minute, 0, 0);
        let time = self.zone.to_ambiguous_timestamp(time);
        if let AmbiguousOffset::Gap { .. } = time.offset() {
            // The clock leaps over it in spring: what would begin or end then does so at the leap.
            let before = time.earlier().ok()?;
            let leap = self.zone.following(before).next();
            return leap.map(|leap| leap.timestamp());
        }
        time.compatible().ok()
    }
}

fn weekday_index(day: Date) -> i8 {
    let weekday: Weekday = day.weekday();
    weekday.to_monday_zero_offset()
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    fn schedule(windows: &[&str], hours: i8) -> Schedule {
        let windows = windows.iter().map(|text| text.parse().unwrap()).collect();
        Schedule::new(windows, TimeZone::fixed(Offset::constant(hours)))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn windows_open_by_their_own_wall_clock_and_over_midnight() {
        // 2026-11-21 is a Saturday.
        let nights = schedule(&["sat,sun 22:00-04:00", "wed 12:30-13:00"], 2);
        for (time, open) in [
            ("2026-11-21T19:59:00Z", false),
            ("2026-11-21T20:00:00Z", true),
            ("2026-11-22T01:59:59Z", true),
            ("2026-11-22T02:00:00Z", false),
            ("2026-11-23T01:00:00Z", true), // Sunday's window, on Monday
            ("2026-11-24T01:00:00Z", false),
            ("2026-11-25T10:30:00Z", true),
        ] {
            assert_eq!(nights.is_open(at(time)), open, "{time}");
        }
        assert_eq!(
            nights.opens_at(at("2026-11-23T02:00:00Z")),
            Some(at("2026-11-25T10:30:00Z"))
        );
        let open = at("2026-11-21T21:00:00Z");
        assert_eq!(nights.opens_at(open), Some(open));
        let weekly = schedule(&["sat 00:00-24:00"], 0);
        assert!(weekly.is_open(at("2026-11-21T23:59:59Z")));
        assert_eq!(
            weekly.opens_at(at("2026-11-22T00:00:00Z")),
            Some(at("2026-11-28T00:00:00Z"))
        );
        assert!(schedule(&[], 0).is_open(at("1970-01-01T00:00:00Z")));
        assert!(schedule(&["fri-mon 00:00-24:00"], 0).is_open(at("2026-11-23T08:00:00Z")));
    }

    #[test]
    fn windows_keep_to_the_wall_clock_when_it_leaps() {
        // Berlin, by its rule, so that no tzdata is needed: 02:00 to 03:00 on 2026-03-29, and back
        // from 03:00 on 2026-10-25.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let open = |window: &str, times: &[(&str, bool)]| {
            let schedule = Schedule::new(vec![window.parse().unwrap()], zone.clone());
            for (time, open) in times {
                assert_eq!(schedule.is_open(at(time)), *open, "{window} at {time}");
            }
        };
        let (before, leap, after) = (
            "2026-03-29T00:59:59Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:29:59Z",
        );
        let late = "2026-03-29T01:30:00Z";
        open("01:30-02:30", &[(before, true), (leap, false)]);
        open(
            "02:30-03:30",
            &[(before, false), (leap, true), (after, true), (late, false)],
        );
        open(
            "02:10-02:50",
            &[(before, false), (leap, false), (after, false)],
        );
        open("22:00-04:00", &[(before, true), (leap, true), (late, true)]);
        // The hour that comes twice belongs to a window that holds all of it.
        for (window, first, second) in [("02:00-03:00", true, true), ("01:00-02:30", true, false)] {
            open(
                window,
                &[
                    ("2026-10-25T00:15:00Z", first),
                    ("2026-10-25T01:15:00Z", second),
                ],
            );
        }
    }

    #[test]
    fn what_is_no_window_says_why() {
        let errors: Vec<_> = [
            "",
            "someday 01:00-02:00",
            "mon",
            "mon 1-2",
            "05:00-05:00",
            "24:00-05:00",
            "mon 25:00-26:00",
            "01:60-02:00",
            "mon-fri 01:00-05:00-06:00",
        ]
        .iter()
        .map(|text| text.parse::<Window>().unwrap_err())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @"
        `` is no time of day like `01:00-05:00`
        `someday` is no day; days are mon, tue, wed, thu, fri, sat, sun
        `mon` is no time of day like `01:00-05:00`
        `1` is no time of day; write hours and minutes: `05:30`
        `05:00-05:00` never opens; all day is `00:00-24:00`
        `24:00-05:00` never opens; all day is `00:00-24:00`
        `25:00` is no time of day; write hours and minutes: `05:30`
        `01:60` is no time of day; write hours and minutes: `05:30`
        `05:00-06:00` is no time of day; write hours and minutes: `05:30`
        ");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,40}") {
            let _refused = text.parse::<Window>();
        }

        #[test]
        fn what_opens_next_is_open(first in 0_u16..1440, length in 1_u16..1439, day in 0_usize..7, second in 0_i64..4_000_000_000) {
            let last = (first + length) % 1440;
            let text = format!("{:.3} {:02}:{:02}-{:02}:{:02}", DAYS[day], first / 60, first % 60, last / 60, last % 60);
            let schedule = schedule(&[&text], -7);
            let now = Timestamp::from_second(second).unwrap();
            let opens = schedule.opens_at(now).unwrap();
            proptest::prop_assert!(schedule.is_open(opens) && opens >= now);
            proptest::prop_assert!(opens.as_second() - now.as_second() <= 8 * 86_400);
        }
    }
}
