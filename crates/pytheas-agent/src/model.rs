//! The device's model: what an operator says, else what the hardware says of itself.

use std::{fs, path::Path};

/// Longest name kept; the longest value of an attribute (hawkBit).
const MAX_CHARS: usize = 128;

/// Where the hardware says it: boards with a device tree, PCs.
const SOURCES: &[&str] = &["/proc/device-tree/model", "/sys/class/dmi/id/product_name"];

/// The model, by `named` if that is given.
pub(crate) fn find(named: Option<&str>) -> Option<String> {
    let said = || {
        SOURCES
            .iter()
            .find_map(|path| fs::read(Path::new(path)).ok())
    };
    let text = match named {
        Some(named) => named.to_owned(),
        None => String::from_utf8_lossy(&said()?).into_owned(),
    };
    // Device trees end their texts with a zero.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.chars().take(MAX_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_says_comes_first() {
        assert_eq!(find(Some(" gw-2\0")), Some("gw-2".into()));
        assert_eq!(find(Some("")), None);
        assert_eq!(find(Some(&"x".repeat(500))).unwrap().len(), MAX_CHARS);
    }
}
