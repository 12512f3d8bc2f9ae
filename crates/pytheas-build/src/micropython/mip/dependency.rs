//! One entry of `dependencies`: what it names, and which versions it takes.

use pep440_rs::{Version, VersionSpecifiers};

use super::MipError;

/// What a dependency names.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dependency {
    /// A package of an index.
    Named {
        name: String,
        wanted: VersionSpecifiers,
        from: Option<Registry>,
    },
    /// The address of a `package.json` or of a module.
    Url(String),
    /// A folder, relative to the project.
    Folder(String),
}

/// Where a named package must come from, when the dependency says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registry {
    Mip,
    Pypi,
}

impl Dependency {
    pub(super) fn parse(text: &str) -> Result<Self, MipError> {
        let wrong = |why: &str| MipError::Dependency {
            text: text.chars().take(120).collect(),
            why: why.to_owned(),
        };
        let plain = text.trim();
        if plain.contains("://") || plain.starts_with("github:") || plain.starts_with("gitlab:") {
            let (address, version) = match plain.rsplit_once('@') {
                Some((address, version)) if !version.contains(['/', ':']) => (address, version),
                _ => (plain, ""),
            };
            return url(address, version)
                .map(Self::Url)
                .ok_or_else(|| wrong("the address is none"));
        }
        if plain.starts_with(['.', '/']) {
            return Ok(Self::Folder(plain.to_owned()));
        }
        let (from, rest) = match plain.split_once(':') {
            Some(("mip", rest)) => (Some(Registry::Mip), rest),
            Some(("pypi", rest)) => (Some(Registry::Pypi), rest),
            Some(_) => {
                return Err(wrong(
                    "nothing else than `mip:` and `pypi:` goes before a name",
                ));
            }
            None => (None, plain),
        };
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(rest.len());
        let (name, versions) = rest.split_at(end);
        if name.is_empty() || name.starts_with(['.', '-']) || name.contains("..") {
            return Err(wrong("it has no name"));
        }
        let wanted = specifiers(versions).map_err(|why| wrong(&why))?;
        Ok(Self::Named {
            name: name.to_owned(),
            wanted,
            from,
        })
    }
}

/// `>=2,<3` (PEP 440), `^1.2`, `~1.2`, `>=1 <2`, `1.x`, `1.2 - 1.9` (semver), `1.4.0`, `@1.4.0` and
/// `@latest` (mip), or nothing.
pub(super) fn specifiers(text: &str) -> Result<VersionSpecifiers, String> {
    let whole = text.trim();
    let wrong = |why: &str| format!("`{whole}` {why}");
    let text = whole.strip_prefix('@').unwrap_or(whole);
    if matches!(text, "" | "latest" | "*" | "x" | "X") {
        return Ok(VersionSpecifiers::default());
    }
    if text.contains("||") {
        return Err(wrong("has alternatives: write one range"));
    }
    if let Some((low, high)) = text.split_once(" - ") {
        // As semver has it: `1 - 2.3` takes all of 2.3.
        let top: Version = high
            .trim()
            .parse()
            .map_err(|_| wrong("is no range of versions"))?;
        let end = match top.release().len() {
            0..3 => format!("<{}", raised(&top, top.release().len() - 1)),
            _ => format!("<={top}"),
        };
        return format!(">={},{end}", low.trim())
            .parse()
            .map_err(|_| wrong("is no range of versions"));
    }
    let mut parts = Vec::new();
    for part in comparators(text) {
        let semver = part
            .strip_prefix('^')
            .map(|version| (version, true))
            .or_else(|| {
                let version = part.strip_prefix('~')?;
                (!version.starts_with('=')).then_some((version, false))
            });
        if let Some((version, is_caret)) = semver {
            let parsed: Version = version
                .trim()
                .parse()
                .map_err(|_| format!("`{part}` is no range of versions"))?;
            parts.push(format!(">={parsed},<{}", above(&parsed, is_caret)));
            continue;
        }
        let exact = match part.strip_prefix('=') {
            Some(rest) if !rest.starts_with('=') => Some(rest.trim()),
            _ => part
                .starts_with(|c: char| c.is_ascii_digit() || c == 'v')
                .then_some(&*part),
        };
        match exact {
            None => parts.push(part),
            Some(exact) => {
                let exact = exact.replace(".x", ".*").replace(".X", ".*");
                // `1.*.*`
                let short = exact
                    .split_once(".*")
                    .map(|(short, _)| format!("{short}.*"));
                let exact = short.unwrap_or(exact);
                let parsed: VersionSpecifiers = format!("=={exact}").parse().map_err(|_| {
                    match exact.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                        true => format!("`{exact}` is no version"),
                        false => wrong("is no range of versions"),
                    }
                })?;
                parts.push(parsed.to_string());
            }
        }
    }
    parts
        .join(",")
        .parse()
        .map_err(|_| wrong("is no range of versions"))
}

/// The parts of a range, which commas or blanks divide: `>= 1.0 <2`.
fn comparators(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
        match parts.last_mut() {
            // The operator stands alone.
            Some(last) if !last.contains(|c: char| c.is_ascii_digit()) => last.push_str(word),
            _ => parts.push(word.to_owned()),
        }
    }
    parts
}

/// The first version that `^version` (or `~version`) no longer takes: semver raises the leftmost
/// number that is not 0, `~` the second.
fn above(version: &Version, is_caret: bool) -> String {
    let release = version.release();
    let raised = if is_caret {
        release
            .iter()
            .position(|number| *number > 0)
            .unwrap_or(release.len().saturating_sub(1))
    } else {
        1.min(release.len().saturating_sub(1))
    };
    self::raised(version, raised)
}

/// The version with the number at this place raised, and none behind it.
fn raised(version: &Version, place: usize) -> String {
    let release = version.release();
    let before = release.iter().take(place).map(ToString::to_string);
    let last = release.get(place).copied().unwrap_or(0).saturating_add(1);
    let numbers: Vec<String> = before.chain([last.to_string()]).collect();
    numbers.join(".")
}

/// A full address: `github:` and `gitlab:` are written out as mip does; a repository or folder
/// there stands for its `package.json`.
pub(super) fn url(text: &str, version: &str) -> Option<String> {
    let branch = if version.is_empty() { "HEAD" } else { version };
    let parts = |rest: &str| -> Option<(String, String, String)> {
        let mut parts = rest.splitn(3, '/');
        let owner = parts.next().filter(|part| !part.is_empty())?.to_owned();
        let name = parts.next().filter(|part| !part.is_empty())?.to_owned();
        Some((owner, name, parts.next().unwrap_or("").to_owned()))
    };
    let address = if let Some(rest) = text.strip_prefix("github:") {
        let (owner, name, path) = parts(rest)?;
        format!("https://raw.githubusercontent.com/{owner}/{name}/{branch}/{path}")
    } else if let Some(rest) = text.strip_prefix("gitlab:") {
        let (owner, name, path) = parts(rest)?;
        format!("https://gitlab.com/{owner}/{name}/-/raw/{branch}/{path}")
    } else {
        text.to_owned()
    };
    let parsed: url::Url = address.parse().ok()?;
    if !matches!(parsed.scheme(), "http" | "https" | "file") {
        return None;
    }
    let is_file = [".json", ".py", ".mpy"]
        .iter()
        .any(|end| parsed.path().ends_with(end));
    if is_file {
        return Some(address);
    }
    let is_short = text.starts_with("github:") || text.starts_with("gitlab:");
    // An address that is given for a file of a package may end as it likes.
    Some(if is_short {
        format!("{}/package.json", address.trim_end_matches('/'))
    } else {
        address
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ranges(text: &str, expected: &str) {
        let found = specifiers(text).map(|found| found.to_string());
        assert_eq!(found.unwrap_or_else(|why| why), expected, "{text}");
    }

    #[test]
    fn ranges_are_those_of_pip_of_semver_and_of_mip() {
        ranges(">=2,<3", ">=2, <3");
        ranges("^1.2", ">=1.2, <2");
        ranges("^0.2.3", ">=0.2.3, <0.3");
        ranges("^0.0.3", ">=0.0.3, <0.0.4");
        ranges("~1.2.3", ">=1.2.3, <1.3");
        ranges("~=1.2", "~=1.2");
        ranges("@1.4.0", "==1.4.0");
        ranges("@latest", "");
        ranges("", "");
        ranges(">=1.0 <2", ">=1.0, <2");
        ranges(">= 1.0  < 2 , !=1.5", ">=1.0, !=1.5, <2");
        ranges("1.x", "==1.*");
        ranges("1.2.*", "==1.2.*");
        ranges("1.x.x", "==1.*");
        ranges("=1.4.0", "==1.4.0");
        ranges("1.4.0", "==1.4.0");
        ranges("1.2 - 1.9", ">=1.2, <1.10");
        ranges("1.2.3 - 2.0.0", ">=1.2.3, <=2.0.0");
        ranges("*", "");
        ranges("1 || 2", "`1 || 2` has alternatives: write one range");
        ranges("1 - x", "`1 - x` is no range of versions");
        ranges("=>1", "`=>1` is no range of versions");
        ranges("^x", "`^x` is no range of versions");
    }

    #[test]
    fn dependencies_are_names_addresses_and_folders() {
        let parse = |text: &str| match Dependency::parse(text) {
            Ok(Dependency::Named { name, wanted, from }) => format!("{from:?} {name} {wanted}"),
            Ok(Dependency::Url(url)) => url,
            Ok(Dependency::Folder(dir)) => dir,
            Err(error) => error.to_string(),
        };
        assert_eq!(parse("umqtt.simple"), "None umqtt.simple ");
        assert_eq!(parse("microdot >= 2"), "None microdot >=2");
        assert_eq!(parse("pypi:microdot==2.0"), "Some(Pypi) microdot ==2.0");
        assert_eq!(parse("./lib/mine"), "./lib/mine");
        assert_eq!(
            parse("github:me/thing@v1.2"),
            "https://raw.githubusercontent.com/me/thing/v1.2/package.json"
        );
        assert_eq!(
            parse("github:me/thing/sub/a.py"),
            "https://raw.githubusercontent.com/me/thing/HEAD/sub/a.py"
        );
        assert_eq!(
            parse("https://example.test/a/package.json"),
            "https://example.test/a/package.json"
        );
        insta::assert_snapshot!(parse("npm:left-pad"), @"`npm:left-pad` in `[tool.pytheas.micropython]` is no dependency: nothing else than `mip:` and `pypi:` goes before a name");
        insta::assert_snapshot!(parse("../x/../../y"), @"../x/../../y");
        insta::assert_snapshot!(parse("=1"), @"`=1` in `[tool.pytheas.micropython]` is no dependency: it has no name");
        insta::assert_snapshot!(parse("a..b"), @"`a..b` in `[tool.pytheas.micropython]` is no dependency: it has no name");
        insta::assert_snapshot!(parse("ftp://x/y.py"), @"`ftp://x/y.py` in `[tool.pytheas.micropython]` is no dependency: the address is none");
    }
}
