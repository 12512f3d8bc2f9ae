//! Poetry's version constraints (`^1.2`, `~1.2`, `1.2.*`, `>=1,<2 || ^3`) as PEP 440 specifiers.
//!
//! PEP 440 knows no "or": a union of ranges is written as one range with the gaps as `!=`, where
//! that says the same for final releases; else it is refused.

use std::collections::BTreeSet;

use pep440_rs::Version;

/// Why a constraint has no PEP 440 spelling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeError {
    /// Not understood.
    #[error("it is no version range")]
    Syntax(String),
    /// Understood, but PEP 440 cannot say it.
    #[error("it is no single range: PEP 440 cannot leave out what lies between its parts")]
    Union(String),
}

/// One comparison of PEP 440.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) operator: &'static str,
    /// The version, with `.*` where the operator takes it.
    pub(crate) version: String,
}

/// The constraint as PEP 440 specifiers; empty when any version will do.
pub(crate) fn to_pep440(text: &str) -> Result<String, RangeError> {
    let parts = alternatives(text)?;
    if let [only] = parts.as_slice() {
        return Ok(shown(only));
    }
    let mut union = Vec::new();
    for part in &parts {
        let mut ranges = vec![Range::default()];
        for comparison in part {
            ranges = intersection(&ranges, &allowed(comparison, text)?);
        }
        union.extend(ranges);
    }
    render(merged(union)).ok_or_else(|| RangeError::Union(text.to_owned()))
}

/// As [`to_pep440`], for a constraint on Python: versions before 3 do not matter.
pub(crate) fn python_to_pep440(text: &str) -> Result<String, RangeError> {
    let three = [Range {
        low: Some((version("3", text)?, true)),
        high: None,
    }];
    match to_pep440(text) {
        Err(RangeError::Union(_)) => {}
        other => return other,
    }
    let mut union = Vec::new();
    for part in alternatives(text)? {
        let mut ranges = three.to_vec();
        for comparison in part {
            ranges = intersection(&ranges, &allowed(&comparison, text)?);
        }
        union.extend(ranges);
    }
    render(merged(union)).ok_or_else(|| RangeError::Union(text.to_owned()))
}

fn shown(part: &[Comparison]) -> String {
    let list: Vec<String> = part
        .iter()
        .map(|comparison| format!("{}{}", comparison.operator, comparison.version))
        .collect();
    list.join(",")
}

/// The parts between `||`, each a list of comparisons that all hold.
pub(crate) fn alternatives(text: &str) -> Result<Vec<Vec<Comparison>>, RangeError> {
    let parts: Vec<&str> = text.split('|').collect();
    let mut result = Vec::new();
    let mut pending_bar = false;
    for (index, part) in parts.iter().enumerate() {
        if part.trim().is_empty() {
            // `||` gives one empty part between two that are not.
            if pending_bar || index == 0 || index + 1 == parts.len() {
                if parts.len() == 1 {
                    return Ok(vec![Vec::new()]);
                }
                return Err(RangeError::Syntax(text.to_owned()));
            }
            pending_bar = true;
            continue;
        }
        pending_bar = false;
        result.push(conjunction(part, text)?);
    }
    Ok(result)
}

/// `>=1.2, <2` or `>=1.2 <2`.
fn conjunction(part: &str, whole: &str) -> Result<Vec<Comparison>, RangeError> {
    let mut result = Vec::new();
    let mut rest = part.trim();
    while !rest.is_empty() {
        let operator_end = rest
            .find(|c: char| !matches!(c, '<' | '>' | '=' | '!' | '~' | '^'))
            .unwrap_or(rest.len());
        let (operator, after) = rest.split_at(operator_end);
        let after = after.trim_start();
        let end = after
            .find(|c: char| c == ',' || c.is_whitespace())
            .unwrap_or(after.len());
        let (text, after) = after.split_at(end);
        result.extend(atom(operator, text, whole)?);
        rest = after.trim_start();
        if let Some(more) = rest.strip_prefix(',') {
            rest = more.trim_start();
            if rest.is_empty() {
                return Err(RangeError::Syntax(whole.to_owned()));
            }
        }
    }
    Ok(result)
}

fn atom(operator: &str, text: &str, whole: &str) -> Result<Vec<Comparison>, RangeError> {
    let wrong = || RangeError::Syntax(whole.to_owned());
    let one = |operator, version: String| Ok(vec![Comparison { operator, version }]);
    let text = text.strip_prefix('v').unwrap_or(text);
    if text == "*" && matches!(operator, "" | "=" | "==" | ">=") {
        return Ok(Vec::new());
    }
    if let Some(prefix) = text.strip_suffix(".*") {
        let prefix = version(prefix, whole)?;
        if prefix.any_prerelease() || prefix.is_post() || prefix.is_local() {
            return Err(wrong());
        }
        return match operator {
            "" | "=" | "==" | "~" | "^" => one("==", format!("{prefix}.*")),
            "!=" => one("!=", format!("{prefix}.*")),
            _ => Err(wrong()),
        };
    }
    let parsed = version(text, whole)?;
    let between = |to: Vec<u64>| {
        let mut range = vec![Comparison {
            operator: ">=",
            version: parsed.to_string(),
        }];
        range.push(Comparison {
            operator: "<",
            version: joined(&to),
        });
        Ok(range)
    };
    let release = parsed.release().to_vec();
    match operator {
        "" | "=" | "==" => one("==", parsed.to_string()),
        "===" => one("===", parsed.to_string()),
        "!=" => one("!=", parsed.to_string()),
        ">=" => one(">=", parsed.to_string()),
        "<=" => one("<=", parsed.to_string()),
        ">" => one(">", parsed.to_string()),
        "<" => one("<", parsed.to_string()),
        "~=" if release.len() > 1 => one("~=", parsed.to_string()),
        "~" => between(bumped(&release, 1.min(release.len() - 1))),
        "^" => {
            let first = release.iter().take(3).position(|part| *part > 0);
            between(bumped(&release, first.unwrap_or(release.len().min(3) - 1)))
        }
        _ => Err(wrong()),
    }
}

/// The first parts up to `at`, that one more by one.
fn bumped(release: &[u64], at: usize) -> Vec<u64> {
    let mut result = release[..=at].to_vec();
    if let Some(last) = result.last_mut() {
        *last = last.saturating_add(1);
    }
    result
}

fn joined(release: &[u64]) -> String {
    let parts: Vec<String> = release.iter().map(ToString::to_string).collect();
    parts.join(".")
}

fn version(text: &str, whole: &str) -> Result<Version, RangeError> {
    text.parse()
        .map_err(|_| RangeError::Syntax(whole.to_owned()))
}

/// Versions between two bounds, each with whether it belongs to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Range {
    low: Option<(Version, bool)>,
    high: Option<(Version, bool)>,
}

impl Range {
    fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Some((low, with_low)), Some((high, with_high))) => {
                low > high || (low == high && !(*with_low && *with_high))
            }
            _ => false,
        }
    }

    /// Sorts by the lower bound.
    fn key(&self) -> (Option<Version>, bool) {
        let low = self.low.clone();
        (
            low.as_ref().map(|(version, _)| version.clone()),
            low.is_some_and(|(_, with)| !with),
        )
    }
}

/// What a comparison allows, as ranges.
fn allowed(comparison: &Comparison, whole: &str) -> Result<Vec<Range>, RangeError> {
    let range = |low: Option<(Version, bool)>, high: Option<(Version, bool)>| Range { low, high };
    let (from, next) = match comparison.version.strip_suffix(".*") {
        Some(prefix) => {
            let prefix = version(prefix, whole)?;
            let last = prefix.release().len() - 1;
            let next = Version::new(bumped(prefix.release(), last));
            (prefix, Some(next))
        }
        None => (version(&comparison.version, whole)?, None),
    };
    Ok(match (comparison.operator, next) {
        ("==", Some(next)) => vec![range(Some((from, true)), Some((next, false)))],
        ("!=", Some(next)) => vec![
            range(None, Some((from, false))),
            range(Some((next, true)), None),
        ],
        ("==" | "===", None) => vec![range(Some((from.clone(), true)), Some((from, true)))],
        ("!=", None) => vec![
            range(None, Some((from.clone(), false))),
            range(Some((from, false)), None),
        ],
        (">=", _) => vec![range(Some((from, true)), None)],
        (">", _) => vec![range(Some((from, false)), None)],
        ("<=", _) => vec![range(None, Some((from, true)))],
        ("<", _) => vec![range(None, Some((from, false)))],
        ("~=", _) => {
            let next = Version::new(bumped(from.release(), from.release().len() - 2));
            vec![range(Some((from, true)), Some((next, false)))]
        }
        _ => return Err(RangeError::Syntax(whole.to_owned())),
    })
}

fn intersection(one: &[Range], two: &[Range]) -> Vec<Range> {
    let low = |a: &Option<(Version, bool)>, b: &Option<(Version, bool)>| match (a, b) {
        (None, other) | (other, None) => other.clone(),
        (Some(a), Some(b)) if a.0 == b.0 => Some((a.0.clone(), a.1 && b.1)),
        (Some(a), Some(b)) => Some(if a.0 > b.0 { a.clone() } else { b.clone() }),
    };
    let high = |a: &Option<(Version, bool)>, b: &Option<(Version, bool)>| match (a, b) {
        (None, other) | (other, None) => other.clone(),
        (Some(a), Some(b)) if a.0 == b.0 => Some((a.0.clone(), a.1 && b.1)),
        (Some(a), Some(b)) => Some(if a.0 < b.0 { a.clone() } else { b.clone() }),
    };
    one.iter()
        .flat_map(|a| {
            two.iter().map(move |b| Range {
                low: low(&a.low, &b.low),
                high: high(&a.high, &b.high),
            })
        })
        .filter(|range| !range.is_empty())
        .collect()
}

/// Sorted, with those that overlap or touch made one.
fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(Range::key);
    let mut result: Vec<Range> = Vec::new();
    for range in ranges {
        let Some(last) = result.last_mut() else {
            result.push(range);
            continue;
        };
        let touches = match (&last.high, &range.low) {
            (None, _) | (_, None) => true,
            (Some(high), Some(low)) => low.0 < high.0 || (low.0 == high.0 && (low.1 || high.1)),
        };
        if !touches {
            result.push(range);
            continue;
        }
        last.high = match (last.high.take(), range.high) {
            (None, _) | (_, None) => None,
            (Some(a), Some(b)) if a.0 == b.0 => Some((a.0, a.1 || b.1)),
            (Some(a), Some(b)) => Some(if a.0 > b.0 { a } else { b }),
        };
    }
    result
}

/// The ranges as one, with the gaps left out by `!=`.
fn render(ranges: Vec<Range>) -> Option<String> {
    let (first, last) = (ranges.first()?, ranges.last()?);
    if let [
        Range {
            low: Some((low, true)),
            high: Some((high, true)),
        },
    ] = ranges.as_slice()
        && low == high
    {
        return Some(format!("=={low}"));
    }
    let mut parts = Vec::new();
    if let Some((version, with)) = &first.low {
        parts.push(format!("{}{version}", if *with { ">=" } else { ">" }));
    }
    for pair in ranges.windows(2) {
        let (Some((from, with_from)), Some((to, with_to))) = (&pair[0].high, &pair[1].low) else {
            return None;
        };
        match (with_from, with_to) {
            (false, false) if from == to => parts.push(format!("!={from}")),
            (false, true) => parts.extend(gap(from, to)?),
            _ => return None,
        }
    }
    if let Some((version, with)) = &last.high {
        parts.push(format!("{}{version}", if *with { "<=" } else { "<" }));
    }
    let mut seen = BTreeSet::new();
    parts.retain(|part| seen.insert(part.clone()));
    Some(parts.join(","))
}

/// From `from` up to before `to` as `!=1.2.*,!=1.3.*`.
fn gap(from: &Version, to: &Version) -> Option<Vec<String>> {
    const MOST: u64 = 40;
    if [from, to]
        .iter()
        .any(|v| v.any_prerelease() || v.is_post() || v.is_local() || v.epoch() != 0)
    {
        return None;
    }
    let width = from.release().len().max(to.release().len());
    let padded = |version: &Version| {
        let mut parts = version.release().to_vec();
        parts.resize(width, 0);
        parts
    };
    let (from, to) = (padded(from), padded(to));
    // The first part in which they differ counts up; the parts behind it are zero in both.
    let at = from.iter().zip(&to).position(|(a, b)| a != b)?;
    if from[at + 1..]
        .iter()
        .chain(&to[at + 1..])
        .any(|part| *part > 0)
        || to[at] - from[at] > MOST
    {
        return None;
    }
    let name = |last: u64| {
        let mut parts = from[..at].to_vec();
        parts.push(last);
        format!("!={}.*", joined(&parts))
    };
    Some((from[at]..to[at]).map(name).collect())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use pep440_rs::VersionSpecifiers;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = to_pep440(text).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn poetrys_own_examples_have_their_documented_meaning() {
        // Poetry's documentation, "Dependency specification".
        check("^1.2.3", ">=1.2.3,<2");
        check("^1.2", ">=1.2,<2");
        check("^1", ">=1,<2");
        check("^0.2.3", ">=0.2.3,<0.3");
        check("^0.0.3", ">=0.0.3,<0.0.4");
        check("^0.0", ">=0.0,<0.1");
        check("^0", ">=0,<1");
        check("~1.2.3", ">=1.2.3,<1.3");
        check("~1.2", ">=1.2,<1.3");
        check("~1", ">=1,<2");
        check("*", "");
        check("", "");
        check("1.*", "==1.*");
        check("1.2.*", "==1.2.*");
        check(">= 1.2, < 1.5", ">=1.2,<1.5");
        check(">=1.2 <1.5", ">=1.2,<1.5");
        check("1.2.3", "==1.2.3");
        check("=1.2.3", "==1.2.3");
        check("!=1.5.*", "!=1.5.*");
        check("^1.0.0-beta.1", ">=1.0.0b1,<2");
    }

    #[test]
    fn a_union_is_one_range_with_gaps() {
        check("^1.2 || ^2.0", ">=1.2,<3");
        check("<1.5 || >=1.6", "!=1.5.*");
        check("<1.5 || >1.5", "!=1.5");
        check("^1.0|^3.0", ">=1.0,!=2.*,<4");
        check("1.2.3 || 1.2.3", "==1.2.3");
        check(
            "1.2 || 1.4",
            "it is no single range: PEP 440 cannot leave out what lies between its parts",
        );
        assert_eq!(python_to_pep440("~2.7 || ^3.6").as_deref(), Ok(">=3.6,<4"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in [
            "latest", "^", "1.x", ">=1,", "|| 1", "1 ||", "1 ||| 2", "^1.*.2", "=>1", "~=1", ">1.*",
        ] {
            assert!(
                matches!(to_pep440(wrong), Err(RangeError::Syntax(_))),
                "{wrong}: {:?}",
                to_pep440(wrong)
            );
        }
    }

    /// Poetry's semantics on three numbers, written without any of the code above.
    fn means(part: &(String, Vec<u64>), version: [u64; 3]) -> bool {
        let (operator, given) = part;
        let at = |index: usize| given.get(index).copied().unwrap_or(0);
        let base = [at(0), at(1), at(2)];
        match operator.as_str() {
            ">=" => version >= base,
            ">" => version > base,
            "<" => version < base,
            "<=" => version <= base,
            "==" => version == base,
            "!=" => version != base,
            ".*" => version[..given.len()] == given[..],
            "~" => {
                let kept = if given.len() == 1 { 1 } else { 2 };
                version >= base && version[..kept] == base[..kept]
            }
            "^" => {
                let kept = match given.iter().position(|part| *part > 0) {
                    Some(first) => first + 1,
                    None => given.len(),
                };
                version >= base && version[..kept] == base[..kept]
            }
            other => panic!("{other}"),
        }
    }

    fn part() -> impl Strategy<Value = (String, Vec<u64>)> {
        let operator = prop::sample::select(vec![">=", ">", "<", "<=", "==", "!=", ".*", "~", "^"]);
        (operator, prop::collection::vec(0u64..4, 1..=3)).prop_map(|(operator, mut parts)| {
            if operator == ".*" {
                parts.truncate(2);
            }
            (operator.to_owned(), parts)
        })
    }

    proptest! {
        #[test]
        fn a_translated_constraint_allows_the_same_versions(
            alternatives in prop::collection::vec(prop::collection::vec(part(), 1..3), 1..4)
        ) {
            let text: Vec<String> = alternatives.iter().map(|all| {
                let all: Vec<String> = all.iter().map(|(operator, parts)| match operator.as_str() {
                    ".*" => format!("{}.*", joined(parts)),
                    operator => format!("{operator}{}", joined(parts)),
                }).collect();
                all.join(",")
            }).collect();
            let text = text.join(" || ");
            let Ok(found) = to_pep440(&text) else { return Ok(()) };
            let specifiers = VersionSpecifiers::from_str(&found).unwrap();
            for a in 0..5 { for b in 0..5 { for c in 0..5 {
                let expected = alternatives.iter().any(|all| all.iter().all(|one| means(one, [a, b, c])));
                let version = Version::new([a, b, c]);
                prop_assert_eq!(specifiers.contains(&version), expected, "{} as {} on {}", text, found, version);
            }}}
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\^~<>=!0-9a-z.*|, ]{0,24}") {
            let _ = to_pep440(&text);
            let _ = python_to_pep440(&text);
        }
    }
}
