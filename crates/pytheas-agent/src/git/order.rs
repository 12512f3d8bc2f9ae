//! The order of versions as tags have them.

use std::cmp::Ordering;

/// The order of versions: their leading numbers, then finished ones after those with a word
/// (`1.0.0rc1` before `1.0.0`), then the rest number by number.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let mut numbers = Vec::new();
        let mut rest = text;
        loop {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let Ok(number) = number.parse::<u64>() else {
                break;
            };
            numbers.push(number);
            rest = after;
            match after.strip_prefix('.') {
                Some(next) if next.starts_with(|c: char| c.is_ascii_digit()) => rest = next,
                _ => break,
            }
        }
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        // `+build` and `.post1` come after the version itself, all else before it.
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let stage = match rest {
            "" => 1,
            late if late.starts_with('+') || late.starts_with("post") => 2,
            _ => 0,
        };
        (numbers, stage, rest.to_owned())
    };
    let ((a_numbers, a_stage, a_rest), (b_numbers, b_stage, b_rest)) = (parts(a), parts(b));
    a_numbers
        .cmp(&b_numbers)
        .then(a_stage.cmp(&b_stage))
        .then_with(|| natural(&a_rest, &b_rest))
}

/// Text by text, numbers in it by their value: `rc9` before `rc10`.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let word: String = text.chars().take_while(|c| !c.is_ascii_digit()).collect();
        let rest = &text[word.len()..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let rest = rest[digits.len()..].to_owned();
        (word, digits.parse::<u64>().unwrap_or(0), rest)
    };
    if a.is_empty() || b.is_empty() {
        return a.len().cmp(&b.len());
    }
    let ((a_word, a_number, a_rest), (b_word, b_number, b_rest)) = (split(a), split(b));
    (a_word, a_number)
        .cmp(&(b_word, b_number))
        .then_with(|| natural(&a_rest, &b_rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_in_which_they_are_made() {
        let sorted = [
            "0.9",
            "0.10",
            "1.0.0a2",
            "1.0.0-rc9",
            "1.0.0-rc10",
            "1.0.0",
            "1.0.0.post1",
            "1.0.1",
            "1.2",
            "1.10",
            "2024.1.2",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.0.0"), Ordering::Equal);
    }
}
