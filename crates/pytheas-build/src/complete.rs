//! Whether what is installed has all that it says it needs. A lock that was merged or edited by
//! hand, or that another tool made without dependencies, would give an app that fails on the device.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use pep508_rs::MarkerEnvironment;
use pytheas_project::{normalised_name, parse_requirement};
use serde::Deserialize;

use crate::{form::Job, known::Metadata};

/// Warns of each requirement of an installed package that is not installed. Requirements of extras
/// are passed over, as nothing tells which were asked for, and what `[tool.uv]` overrides.
pub(crate) fn warn_of_missing(job: &Job<'_>, site: &Path) {
    let Ok(markers) = MarkerEnvironment::deserialize(job.interpreter.markers.clone()) else {
        return;
    };
    // The app may lie beside its packages, and a plug-in of its own requires it all the same.
    let mut there = job.project.overridden();
    there.insert(normalised_name(job.project.name.as_str()));
    for (name, users) in missing(&installed(site), there, &markers) {
        job.warn(format!(
            "{} needs `{name}`, which the lock does not have: if nobody left it out on purpose, `pytheas lock` brings it back",
            users.join(" and "),
        ));
    }
}

/// The metadata of the packages in `site`.
fn installed(site: &Path) -> Vec<Metadata> {
    let children = std::fs::read_dir(site).into_iter().flatten().flatten();
    let folders = children
        .map(|child| child.path())
        .filter(|path| path.extension().is_some_and(|end| end == "dist-info"));
    let texts = folders.filter_map(|folder| std::fs::read(folder.join("METADATA")).ok());
    texts
        .map(|bytes| Metadata::parse(&String::from_utf8_lossy(&bytes)))
        .collect()
}

/// What is needed and neither installed nor among the `names`, with those that need it.
fn missing(
    installed: &[Metadata],
    mut names: BTreeSet<String>,
    markers: &MarkerEnvironment,
) -> BTreeMap<String, Vec<String>> {
    names.extend(
        installed
            .iter()
            .map(|package| normalised_name(&package.name)),
    );
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in installed {
        let needed: BTreeSet<String> = package
            .requires_dist
            .iter()
            .filter_map(|text| parse_requirement(text))
            .filter(|requirement| requirement.evaluate_markers(markers, &[]))
            .map(|requirement| normalised_name(requirement.name.as_ref()))
            .filter(|name| !names.contains(name))
            .collect();
        for name in needed {
            let users = missing.entry(name).or_default();
            users.push(format!("`{}`", normalised_name(&package.name)));
        }
    }
    missing.values_mut().for_each(|users| users.sort());
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers() -> MarkerEnvironment {
        let text = serde_json::json!({
            "implementation_name": "cpython", "implementation_version": "3.11.7", "os_name": "posix",
            "platform_machine": "x86_64", "platform_python_implementation": "CPython",
            "platform_release": "", "platform_system": "Linux", "platform_version": "",
            "python_full_version": "3.11.7", "python_version": "3.11", "sys_platform": "linux",
        });
        MarkerEnvironment::deserialize(text).unwrap()
    }

    #[test]
    fn what_holds_here_and_is_not_installed_is_missing() {
        let package = |name: &str, requires: &[&str]| Metadata {
            name: name.to_owned(),
            requires_dist: requires.iter().map(ToString::to_string).collect(),
            ..Metadata::default()
        };
        let requires = [
            "Char_Set.Normalizer<4,>=2",
            "certifi>=2017.4.17",
            "colorama; sys_platform == 'win32'",
            "PySocks!=1.5.7; extra == 'socks'",
            "evil-",
            "the_app",
            "tomli (>=1) ; python_version < '3.11'",
        ];
        let installed = [
            package("requests", &requires),
            package("Charset", &["certifi"]),
            package("char-set-normalizer", &[]),
        ];
        let found = missing(&installed, ["the-app".to_owned()].into(), &markers());
        let expected = vec!["`charset`".to_owned(), "`requests`".to_owned()];
        assert_eq!(found, BTreeMap::from([("certifi".to_owned(), expected)]));
    }
}
