//! A dependency as Poetry and pipenv write it, a table of properties, as a PEP 508 requirement.

use toml::Value;

/// The properties that decide what is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) extras: Vec<String>,
    /// PEP 440 specifiers; empty when any version will do.
    pub(crate) specifiers: String,
    /// Where it lies, when not on an index; `./` and `../` are relative to the project.
    pub(crate) url: Option<String>,
    /// Markers that all hold.
    pub(crate) markers: Vec<String>,
    /// The name of the index it comes from.
    pub(crate) index: Option<String>,
}

impl Dependency {
    /// PEP 508.
    pub(crate) fn requirement(&self) -> String {
        let mut text = self.name.clone();
        if !self.extras.is_empty() {
            text.push_str(&format!("[{}]", self.extras.join(",")));
        }
        match &self.url {
            Some(url) => text.push_str(&format!(" @ {url}")),
            None => text.push_str(&self.specifiers),
        }
        match self.markers.as_slice() {
            [] => {}
            [only] => text.push_str(&format!(" ; {only}")),
            several => {
                let all: Vec<String> = several.iter().map(|one| format!("({one})")).collect();
                text.push_str(&format!(" ; {}", all.join(" and ")));
            }
        }
        text
    }
}

/// Where a table with `git`, `path`, `file` or `url` says that the package lies.
pub(crate) fn location(table: &toml::Table) -> Result<Option<String>, String> {
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    if let Some(git) = text("git") {
        let address = match git.split_once("://") {
            Some(_) => git.to_owned(),
            // `git@host:path`, as git itself takes it.
            None => match git.split_once(':') {
                Some((host, path)) => format!("ssh://{host}/{path}"),
                None => return Err(format!("`{git}` is no address of a repository")),
            },
        };
        let mut url = format!("git+{}", address.trim_start_matches("git+"));
        if let Some(at) = ["rev", "ref", "tag", "branch"]
            .iter()
            .find_map(|key| text(key))
        {
            url.push_str(&format!("@{at}"));
        }
        if let Some(folder) = text("subdirectory") {
            url.push_str(&format!("#subdirectory={folder}"));
        }
        return Ok(Some(url));
    }
    for other in ["hg", "svn", "bzr"] {
        if table.contains_key(other) {
            return Err(format!(
                "`{other}` repositories are not supported, only `git`"
            ));
        }
    }
    if let Some(url) = text("url").or_else(|| text("file").filter(|file| file.contains("://"))) {
        let folder = text("subdirectory").map(|folder| format!("#subdirectory={folder}"));
        return Ok(Some(format!("{url}{}", folder.unwrap_or_default())));
    }
    Ok(text("path").or_else(|| text("file")).map(|path| {
        if path.starts_with('/') {
            format!("file://{path}")
        } else if path.starts_with("./") || path.starts_with("../") || path == ".." {
            path.to_owned()
        } else {
            format!("./{path}")
        }
    }))
}

/// The strings of a list.
pub(crate) fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &str, expected: &str) {
        let table: toml::Table = table.parse().unwrap();
        let found = location(&table).map(Option::unwrap_or_default);
        assert_eq!(found.unwrap_or_else(|error| error), expected);
    }

    #[test]
    fn places_are_addresses() {
        check(
            "git = 'https://h/r.git'\nref = 'v1'",
            "git+https://h/r.git@v1",
        );
        check(
            "git = 'git@h:o/r.git'\nsubdirectory = 's'",
            "git+ssh://git@h/o/r.git#subdirectory=s",
        );
        check("path = 'libs/x'\neditable = true", "./libs/x");
        check("path = '.'", "./.");
        check("file = 'https://h/x-1.tar.gz'", "https://h/x-1.tar.gz");
        check(
            "hg = 'x'",
            "`hg` repositories are not supported, only `git`",
        );
    }
}
