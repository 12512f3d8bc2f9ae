//! The packages that *are* the app when it is a published one (`--from`, `--with`): a slim build
//! keeps all their modules, as it keeps all of a project's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::known::{Distribution, Inventory};
use pytheas_project::{Project, RequirementSource, normalised_name};

/// Lines for `keep` that mean every module of the app's packages in `site`; none for a project with
/// sources of its own.
pub(crate) fn keep(project: &Project, site: &Path) -> Vec<String> {
    let wanted = names(project);
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut lines = BTreeSet::new();
    for child in fs::read_dir(site).into_iter().flatten().flatten() {
        let name = child.file_name().to_string_lossy().into_owned();
        let Some((name, _)) = name
            .strip_suffix(".dist-info")
            .and_then(|stem| stem.rsplit_once('-'))
        else {
            continue;
        };
        if wanted.contains(&normalised_name(name)) {
            let record = fs::read_to_string(child.path().join("RECORD")).unwrap_or_default();
            lines.extend(record.lines().filter_map(module_of));
        }
    }
    lines.into_iter().collect()
}

/// The normalised names of the app's packages; none for a project with sources of its own.
pub(crate) fn names(project: &Project) -> BTreeSet<String> {
    if project.source != RequirementSource::Published {
        return BTreeSet::new();
    }
    project
        .dependencies
        .iter()
        .map(|requirement| normalised_name(name_in(requirement)))
        .collect()
}

/// The distributions that the app's packages require (those of extras that were asked for, too) and
/// that some file of these packages names, of whatever kind: a template of a configuration, a string.
/// Of setuptools an app needs what it imports: much names it only from habit.
pub(crate) fn required(project: &Project, inventory: &Inventory) -> BTreeSet<String> {
    let extras = |distribution: &str| -> BTreeSet<String> {
        let asked = project.dependencies.iter();
        asked
            .filter(|text| normalised_name(name_in(text)) == distribution)
            .flat_map(|text| extras_in(text))
            .collect()
    };
    required_by(&names(project), inventory, &|distribution, extra| {
        extras(distribution).contains(extra)
    })
}

/// The distribution that is the app of a tree that nobody's sources are in: a published one.
pub(crate) fn published<'a>(
    inventory: &'a Inventory,
    project: Option<&Project>,
) -> Option<&'a Distribution> {
    let own = normalised_name(inventory.record.name.as_str());
    if project.is_some_and(|project| normalised_name(project.name.as_str()) == own) {
        return None;
    }
    let mut distributions = inventory.distributions.iter();
    distributions.find(|distribution| distribution.name == own)
}

/// As [`required`] for the package `own` of a built tree: which extras were asked for shows in what is
/// installed.
pub(crate) fn required_by_published(own: &Distribution, inventory: &Inventory) -> BTreeSet<String> {
    let own = BTreeSet::from([own.name.clone()]);
    required_by(&own, inventory, &|_, _| true)
}

fn required_by(
    own: &BTreeSet<String>,
    inventory: &Inventory,
    is_asked: &dyn Fn(&str, &str) -> bool,
) -> BTreeSet<String> {
    let mut required = BTreeSet::new();
    for distribution in &inventory.distributions {
        if !own.contains(&distribution.name) {
            continue;
        }
        for text in &distribution.metadata.requires_dist {
            let is_wanted = match text.split_once("extra ==") {
                None => true,
                Some((_, extra)) => {
                    let is_of_name =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                    let extra: String = extra
                        .trim_start_matches([' ', '\'', '"'])
                        .chars()
                        .take_while(|c| is_of_name(*c))
                        .collect();
                    is_asked(&distribution.name, &normalised_name(&extra))
                }
            };
            let name = normalised_name(name_in(text.trim()));
            if is_wanted && name != "setuptools" {
                required.insert(name);
            }
        }
    }
    let mut owners: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for distribution in &inventory.distributions {
        if required.contains(&distribution.name) {
            for module in modules_of(inventory, distribution) {
                owners.entry(module).or_default().insert(&distribution.name);
            }
        }
    }
    named(inventory, own, &owners)
}

/// The modules of a distribution, without its tests.
pub(crate) fn modules_of(inventory: &Inventory, distribution: &Distribution) -> Vec<String> {
    let inside = |file: &String| {
        let mut sites = inventory.sites.iter();
        sites.find_map(|site| module_of(file.strip_prefix(site)?.strip_prefix('/')?))
    };
    distribution.files.iter().filter_map(inside).collect()
}

/// Whose modules the text files of the packages `own` name, also at the beginning of a longer name.
fn named(
    inventory: &Inventory,
    own: &BTreeSet<String>,
    owners: &BTreeMap<String, BTreeSet<&str>>,
) -> BTreeSet<String> {
    const NOT_READ: &[&str] = &[".so", ".pyc", ".png", ".woff2", ".js", ".css", ".map"];
    const LONGEST: u64 = 1 << 20;
    let files = inventory
        .distributions
        .iter()
        .filter(|distribution| own.contains(&distribution.name))
        .flat_map(|distribution| &distribution.files)
        .filter(|file| !file.contains(".dist-info/"))
        .filter(|file| !NOT_READ.iter().any(|ending| file.ends_with(ending)))
        .filter(|file| {
            inventory
                .files
                .get(*file)
                .is_some_and(|size| *size <= LONGEST)
        });
    let mut found = BTreeSet::new();
    for file in files {
        let bytes = fs::read(inventory.dir.join(file)).unwrap_or_default();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        for word in bytes.split(|byte| !is_part(byte)) {
            let Ok(word) = std::str::from_utf8(word) else {
                continue;
            };
            let word = word.trim_matches('.');
            for end in word
                .match_indices('.')
                .map(|(at, _)| at)
                .chain([word.len()])
                .filter(|end| *end > 1)
            {
                let names = owners.get(&word[..end]).into_iter().flatten();
                found.extend(names.map(|name| (*name).to_owned()));
            }
        }
    }
    found
}

/// The normalised extras of a requirement: `a` and `b` of `name[a,b]==1`.
fn extras_in(requirement: &str) -> Vec<String> {
    let rest = requirement[name_in(requirement).len()..].trim_start();
    rest.strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map(|(extras, _)| extras.split(','))
        .into_iter()
        .flatten()
        .map(|extra| normalised_name(extra.trim()))
        .collect()
}

/// The name at the start of a requirement (PEP 508).
fn name_in(requirement: &str) -> &str {
    let end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(requirement.len());
    &requirement[..end]
}

/// The module that a line of `RECORD` is the file of: `tool.*` would also mean what other packages
/// have in the same namespace.
pub(crate) fn module_of(line: &str) -> Option<String> {
    let path = line.split(',').next()?.trim_matches('"');
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = match file.strip_suffix(".py") {
        Some(stem) => stem,
        None => file.strip_suffix(".so")?.split('.').next()?,
    };
    // A module may be called so for another reason: `commands/test.py` runs tests.
    let is_test = |part: &&str| matches!(*part, "tests" | "test" | "testing");
    let mut parts: Vec<&str> = folders.split('/').filter(|part| !part.is_empty()).collect();
    let is_of_tests = stem == "conftest" || parts.iter().any(is_test);
    if stem != "__init__" {
        parts.push(stem);
    }
    let is_name =
        |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    (!parts.is_empty() && parts.iter().all(is_name) && !is_of_tests).then(|| parts.join("."))
}

#[cfg(test)]
mod tests {
    use pytheas_project::graph::Reason;

    use super::*;

    #[test]
    fn a_published_app_keeps_its_own_modules_and_not_its_dependencies() {
        let dir = tempfile::tempdir().unwrap();
        for (name, record) in [
            (
                "Tool_X-1.0.dist-info",
                "tool_x/__init__.py,,\ntool_x/late.py,sha256=x,3\ntool_x/fast.cpython-311-x86_64-linux-gnu.so,,\n\
                 tool_x/data/a-b.py,,\ntool_x/tests/test_a.py,,\ntool_x/conftest.py,,\ntool_x/commands/test.py,,\ntool_x/a.txt,,\n../../../bin/tx,,\n",
            ),
            ("plugin-2.dist-info", "plugins/green.py,,\n"),
            ("other-1.dist-info", "other.py,,\n"),
        ] {
            let file = dir.path().join(name).join("RECORD");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            pytheas_durable::replace(&file, record.as_bytes()).unwrap();
        }
        let project =
            Project::published("tool-x[fast]==1.0", &["Plugin".to_owned()], dir.path()).unwrap();
        assert_eq!(
            keep(&project, dir.path()),
            [
                "plugins.green",
                "tool_x",
                "tool_x.commands.test",
                "tool_x.fast",
                "tool_x.late"
            ]
        );
    }

    #[test]
    fn what_a_published_app_requires_is_told_with_the_extras_that_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("python/lib/python3.11/site-packages");
        for (name, files, requires) in [
            (
                "tool_x-1.0.dist-info",
                "tool_x/__init__.py,,\ntool_x/logging.tpl,,\n",
                "Requires-Dist: Colour_Log>=1\nRequires-Dist: setuptools\nRequires-Dist: fast-io ; extra == 'fast'\n\
                 Requires-Dist: other (>=2) ; (python_version > \"3\") and extra == \"doc\"\n\
                 Requires-Dist: unnamed\n",
            ),
            (
                "strange-1.dist-info",
                "strange.py,,\n",
                "Requires-Dist: lonely\n",
            ),
            ("colour_log-1.dist-info", "colour_log/__init__.py,,\n", ""),
            ("fast_io-1.dist-info", "fast/io.py,,\n", ""),
            ("other-1.dist-info", "other.py,,\n", ""),
            ("unnamed-1.dist-info", "unnamed.py,,\n", ""),
        ] {
            let file = site.join(name).join("METADATA");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let record = site.join(name).join("RECORD");
            pytheas_durable::replace(&record, files.as_bytes()).unwrap();
            for line in files.lines() {
                let path = site.join(line.trim_end_matches(','));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                pytheas_durable::replace(&path, b"").unwrap();
            }
            let name = name.split('-').next().unwrap();
            let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}");
            pytheas_durable::replace(&file, text.as_bytes()).unwrap();
        }
        let record = serde_json::json!({
            "format": 1, "name": "tool", "version": "1.0", "form": "bundle",
            "platform": "linux-x86_64", "entry": "bin/tool",
        });
        let record = serde_json::from_value(record).unwrap();
        let inventory = Inventory::with_record(dir.path(), record).unwrap();
        let project = Project::published("tool-x[fast]==1.0", &[], dir.path()).unwrap();
        assert_eq!(required(&project, &inventory), BTreeSet::new());

        let named = site.join("tool_x/logging.tpl");
        pytheas_durable::replace(&named, b"class = colour_log.Formatter ; fast.io, other\n")
            .unwrap();
        let inventory = Inventory::with_record(dir.path(), inventory.record).unwrap();
        let required = required(&project, &inventory);
        assert_eq!(
            required,
            ["colour-log", "fast-io"].map(str::to_owned).into()
        );

        // Of the tree alone, somewhere else: `pytheas why`.
        let record = serde_json::json!({
            "format": 1, "name": "tool-x", "version": "1.0", "form": "bundle",
            "platform": "linux-x86_64", "entry": "bin/tool-x",
        });
        let path = dir.path().join(pytheas_release::RECORD_FILE);
        pytheas_durable::replace(&path, record.to_string().as_bytes()).unwrap();
        let graph = crate::import_graph(dir.path(), None).unwrap();
        let why = |module: &str| graph.chain(module).pop().map(|(_, reason)| reason);
        let required = |distribution: &str| {
            Some(Reason::Required {
                distribution: distribution.to_owned(),
            })
        };
        assert_eq!(why("tool_x"), Some(Reason::App));
        assert_eq!(why("colour_log"), required("colour-log"));
        assert_eq!(why("other"), required("other"));
        assert_eq!((why("unnamed"), why("strange")), (None, None));
    }
}
