//! `Range` requests (RFC 9110 §14): what was asked for, of a file of known length.

use std::ops::Range;

/// More ranges than this, or overlapping ones, are answered with the whole file (§14.2 allows it,
/// and it keeps a small request from making a large answer).
const RANGES_MAX: usize = 64;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything.
    Whole,
    /// These bytes, at least one range, each within the file and not empty.
    Parts(Vec<Range<u64>>),
    /// Nothing of it is there, or the header cannot be understood: 416.
    Unsatisfiable,
}

/// What `header` asks of a file of `length` bytes.
pub(crate) fn wanted(header: &str, length: u64) -> Wanted {
    let Some((unit, specs)) = header.split_once('=') else {
        return Wanted::Unsatisfiable;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole; // an unknown unit is ignored (§14.2)
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut count = 0;
    for spec in specs
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty())
    {
        count += 1;
        match part(spec, length) {
            None => return Wanted::Unsatisfiable,
            Some(range) if range.is_empty() => {}
            Some(range) => parts.push(range),
        }
        if count > RANGES_MAX {
            return Wanted::Whole;
        }
    }
    let mut sorted = parts.clone();
    sorted.sort_by_key(|range| range.start);
    if sorted.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Wanted::Whole;
    }
    if parts.is_empty() {
        Wanted::Unsatisfiable
    } else {
        Wanted::Parts(parts)
    }
}

/// `2-5`, `2-`, `-5`; empty when it lies behind the end, nothing when it is none of these.
fn part(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // Too many digits for us is behind the end of any file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        return Some(length.saturating_sub(number(last)?)..length);
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        length
    } else {
        number(last)?.saturating_add(1)
    };
    if end <= start && !last.is_empty() {
        return None; // `5-2`
    }
    Some(start.min(length)..end.min(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(header: &str, expected: &[(u64, u64)]) {
        let expected = expected.iter().map(|(start, end)| *start..*end).collect();
        assert_eq!(wanted(header, 100), Wanted::Parts(expected), "{header}");
    }

    #[test]
    fn ranges_are_those_of_the_standard() {
        check("bytes=0-0", &[(0, 1)]);
        check("bytes=2-5", &[(2, 6)]);
        check("bytes=90-", &[(90, 100)]);
        check("bytes=90-1000", &[(90, 100)]);
        check("bytes=-5", &[(95, 100)]);
        check("bytes=-500", &[(0, 100)]);
        check("Bytes=0-1, 5-6 ,98-", &[(0, 2), (5, 7), (98, 100)]);
        check("bytes=5-6,0-1", &[(5, 7), (0, 2)]);
        check("bytes=0-1,200-300", &[(0, 2)]);
        check("bytes=0-99999999999999999999999", &[(0, 100)]);
    }

    #[test]
    fn what_cannot_be_satisfied_is_416_and_what_is_unreasonable_gets_the_whole_file() {
        for header in [
            "bytes=100-",
            "bytes=5-2",
            "bytes=",
            "bytes=a-b",
            "bytes",
            "bytes=-0",
            "bytes=--1",
            "bytes=+1-2",
        ] {
            assert_eq!(wanted(header, 100), Wanted::Unsatisfiable, "{header}");
        }
        let many = format!("bytes={}", vec!["0-0"; 65].join(","));
        for header in ["lines=1-2", "bytes=0-5,3-8", &many] {
            assert_eq!(wanted(header, 100), Wanted::Whole, "{header}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn no_header_leads_outside_the_file(header in "bytes=[0-9, -]{0,40}", length in 0u64..200) {
            if let Wanted::Parts(parts) = wanted(&header, length) {
                prop_assert!(!parts.is_empty());
                for part in parts {
                    prop_assert!(part.start < part.end && part.end <= length);
                }
            }
        }
    }
}
