//! The size that a target may have, `budget = "40 MB"`, and its packages: `budgets = { numpy = "30 MB" }`.

use std::{collections::BTreeMap, path::Path};

use pytheas_project::normalised_name;
use pytheas_release::Tree;

use crate::{error::BuildError, known::Inventory};

/// A size as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) text: String,
    pub(crate) bytes: u64,
}

impl Budget {
    /// `40 MB`, `1.5 GB`, `800kB`, `64 MiB`.
    pub(crate) fn parse(text: &str) -> Result<Self, BuildError> {
        let wrong = || BuildError::Budget {
            text: text.to_owned(),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, unit) = text.split_at(end);
        let factor: u32 = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Ok(Self {
            text: text.to_owned(),
            bytes: (number * f64::from(factor)) as u64,
        })
    }
}

/// Packages, `app` and `python` of the tree in `dir` have at most what `budgets` allows; gives the
/// names that the tree does not have.
pub(crate) fn check_packages(
    budgets: &BTreeMap<String, String>,
    dir: &Path,
) -> Result<Vec<String>, BuildError> {
    if budgets.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = crate::explain::sizes(&Inventory::read(dir)?);
    let mut absent = Vec::new();
    for (name, text) in budgets {
        let budget = Budget::parse(text)?;
        let package = normalised_name(name);
        let parts = || sizes.iter().filter(|part| part.package == package);
        let size: u64 = parts().map(|part| part.size_bytes).sum();
        if parts().next().is_none() {
            absent.push(name.clone());
        } else if size > budget.bytes {
            let largest = parts().take(5);
            let largest =
                largest.map(|part| format!("`{}` {}", part.module, shown_bytes(part.size_bytes)));
            return Err(BuildError::PackageOverBudget {
                package: package.clone(),
                size: shown_bytes(size),
                over: shown_bytes(size - budget.bytes),
                budget: budget.text,
                largest: largest.collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok(absent)
}

/// `61.9 MB`.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The largest parts of a tree: packages, the standard library, libraries.
pub(crate) fn largest(tree: &Tree) -> String {
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for (path, size_bytes, _) in tree.files() {
        let depth = if path.as_str().contains("-packages/") {
            5
        } else {
            3
        };
        let part: Vec<&str> = path.as_str().split('/').take(depth).collect();
        *parts.entry(part.join("/")).or_default() += size_bytes;
    }
    let mut parts: Vec<(String, u64)> = parts.into_iter().collect();
    parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let shown = parts
        .iter()
        .take(5)
        .map(|(part, bytes)| format!("`{part}` {}", shown_bytes(*bytes)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        let bytes = |text: &str| Budget::parse(text).ok().map(|budget| budget.bytes);
        assert_eq!(bytes("40 MB"), Some(40_000_000));
        assert_eq!(bytes("1.5GB"), Some(1_500_000_000));
        assert_eq!(bytes("64 MiB"), Some(64 << 20));
        assert_eq!(bytes("100 KB"), bytes("100 kB"));
        for wrong in ["", "40", "MB", "4 0 MB", "1..2 MB", "-1 MB", "40 mb"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
