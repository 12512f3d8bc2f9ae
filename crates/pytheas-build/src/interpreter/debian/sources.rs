//! Which mirrors: `PYTHEAS_DEBIAN_MIRROR`, else what this machine's own apt uses (sources.list(5),
//! one-line and deb822 style). No address is built in.

use std::path::{Path, PathBuf};

use pytheas_project::Environment;

use super::release::Mirror;

/// Debian's releases that may still be somebody's, the oldest first.
const RELEASES: &[&str] = &["bullseye", "bookworm", "trixie", "forky"];

/// The mirrors to look into, in their order. Where this machine's own Debian is older than `since`,
/// they are looked into for that release.
pub(super) fn mirrors(environment: &Environment, since: Option<&str>) -> Vec<Mirror> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = codename(&release);
    if let Some(text) = environment.get("PYTHEAS_DEBIAN_MIRROR") {
        return named(text, codename.as_deref().unwrap_or("stable"));
    }
    let Some(codename) = codename else {
        return Vec::new(); // another distribution's sources are no use
    };
    let mut found = Vec::new();
    for file in files(Path::new("/etc/apt")) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let parsed = if file.extension().is_some_and(|end| end == "sources") {
            stanzas(&text)
        } else {
            lines(&text)
        };
        found.extend(parsed);
    }
    // Other people's repositories have suites of other names.
    let is_debians = |suite: &str| {
        [codename.as_str(), "stable"].iter().any(|name| {
            suite
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
        })
    };
    found.retain(|mirror| is_debians(&mirror.suite) && !mirror.suite.ends_with("-backports"));
    found.dedup();
    match since {
        Some(since) => newer(&found, &codename, since),
        None => found,
    }
}

/// The same mirrors for the release `since`, if `codename` is an older one.
fn newer(mirrors: &[Mirror], codename: &str, since: &str) -> Vec<Mirror> {
    let age = |name: &str| RELEASES.iter().position(|release| *release == name);
    let (Some(own), Some(wanted)) = (age(codename), age(since)) else {
        return mirrors.to_vec();
    };
    if own >= wanted {
        return mirrors.to_vec();
    }
    let renamed = |mirror: &Mirror| {
        let mut mirror = mirror.clone();
        // `stable` is whichever it is.
        if let Some(rest) = mirror.suite.strip_prefix(codename) {
            mirror.suite = format!("{since}{rest}");
        }
        mirror
    };
    mirrors.iter().map(renamed).collect()
}

/// `ADDRESS [SUITE…]`.
fn named(text: &str, suite: &str) -> Vec<Mirror> {
    let mut words = text.split_whitespace();
    let Some(base) = words.next() else {
        return Vec::new();
    };
    let mut suites: Vec<&str> = words.collect();
    if suites.is_empty() {
        suites.push(suite);
    }
    let mirror = |suite: &&str| Mirror::new(base, suite);
    suites.iter().map(mirror).collect()
}

/// Debian's code name when this is Debian.
fn codename(os_release: &str) -> Option<String> {
    let value = |name: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.trim_matches('"').to_owned())
        })
    };
    value("ID").filter(|id| id == "debian")?;
    value("VERSION_CODENAME")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut more: Vec<PathBuf> = std::fs::read_dir(dir.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|child| child.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "list" || end == "sources")
        })
        .collect();
    more.sort();
    let mut files = vec![dir.join("sources.list")];
    files.extend(more);
    files
}

/// One-line style: `deb [option=value …] ADDRESS SUITE COMPONENT…`.
fn lines(text: &str) -> Vec<Mirror> {
    let mirror = |line: &str| {
        let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
        let line = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.1,
            None => line,
        };
        let mut words = line.split_whitespace();
        let (base, suite) = (words.next()?, words.next()?);
        words
            .any(|component| component == "main")
            .then(|| Mirror::new(base, suite))
    };
    text.lines().filter_map(mirror).collect()
}

/// deb822 style: paragraphs of fields; continued lines begin with a space.
fn stanzas(text: &str) -> Vec<Mirror> {
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut mirrors = Vec::new();
    for stanza in text.replace("\n ", " ").replace("\n\t", " ").split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let has = |name: &str, word: &str| {
            field(name).is_some_and(|value| value.split_whitespace().any(|other| other == word))
        };
        if !has("Types", "deb") || !has("Components", "main") || has("Enabled", "no") {
            continue;
        }
        for base in field("URIs").unwrap_or_default().split_whitespace() {
            for suite in field("Suites").unwrap_or_default().split_whitespace() {
                mirrors.push(Mirror::new(base, suite));
            }
        }
    }
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_of_sources_are_read() {
        let one = "# deb http://no.example/debian x main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main contrib # mine\n\
            deb http://a.example/debian bookworm-extra contrib\n\
            deb-src http://a.example/debian bookworm main\n";
        assert_eq!(
            lines(one),
            [Mirror::new("http://a.example/debian", "bookworm")]
        );
        let many = "Types: deb deb-src\n# a comment\nURIs: http://a.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: http://b.example/\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            stanzas(many),
            [
                Mirror::new("http://a.example/debian", "bookworm"),
                Mirror::new("http://a.example/debian", "bookworm-updates"),
            ]
        );
        assert_eq!(
            named("/srv/debian trixie trixie-security", "stable"),
            [
                Mirror::new("/srv/debian", "trixie"),
                Mirror::new("/srv/debian", "trixie-security")
            ]
        );
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn a_cpu_that_came_later_is_looked_for_in_the_release_it_came_with() {
        let mirrors = [
            Mirror::new("http://a.example/debian", "bookworm"),
            Mirror::new("http://b.example/debian", "bookworm-security"),
            Mirror::new("http://a.example/debian", "stable"),
        ];
        let suites = |codename: &str| {
            newer(&mirrors, codename, "trixie")
                .iter()
                .map(|mirror| mirror.suite.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(suites("bookworm"), ["trixie", "trixie-security", "stable"]);
        for unchanged in ["trixie", "forky", "sid"] {
            assert_eq!(suites(unchanged)[0], "bookworm", "{unchanged}");
        }
    }
}
