//! The rules file: what well-known modules need beyond what their source shows.

use std::sync::LazyLock;

use serde::Deserialize;

/// The rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) rule: Vec<Rule>,
    pub(crate) ignore: Vec<Ignore>,
}

/// `when` a module is reached (`*`: always), `keep` these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rule {
    pub(crate) when: String,
    #[serde(default)]
    pub(crate) keep: Vec<String>,
    /// Every reached package that has one of these modules is kept whole.
    #[serde(default)]
    pub(crate) whole_with: Vec<String>,
}

/// Imports that do not count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ignore {
    from: Vec<String>,
    imports: Vec<String>,
}

/// The rules that come with Pytheas.
pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    // Proof: the file is part of the program, and a test reads it.
    toml::from_str(include_str!("rules.toml")).expect("the built-in rules parse")
});

impl Rules {
    /// Whether the import of `name` by `module` does not count.
    pub(crate) fn ignores(&self, module: &str, name: &str) -> bool {
        self.ignore.iter().any(|ignore| {
            ignore.from.iter().any(|from| from == module)
                && ignore.imports.iter().any(|import| import == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_parse() {
        assert!(RULES.rule.iter().any(|rule| rule.when == "*"));
        assert!(RULES.ignores("_sitebuiltins", "pydoc"));
        assert!(!RULES.ignores("mine", "pydoc"));
    }
}
