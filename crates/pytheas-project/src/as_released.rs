//! A release that has been superseded, asked for by its exact number, gets the dependencies of its
//! day: later ones nobody tried with it. The day is the one that the index tells.

use std::ffi::OsString;

use jiff::{Timestamp, ToSpan};
use pep440_rs::{Operator, Version};
use pep508_rs::VersionOrUrl;
use serde::Deserialize;

use crate::{
    normalised_name,
    project::{Project, RequirementSource},
    requirements,
    uv::Uv,
};

/// What belongs to a release may come out a little later than it.
const GRACE_DAYS: i64 = 7;

/// The package and version of a `--from NAME==VERSION`.
pub(crate) fn pinned(project: &Project) -> Option<(String, Version)> {
    if project.source != RequirementSource::Published {
        return None;
    }
    let requirement = requirements::parse(project.dependencies.first()?)?;
    let Some(VersionOrUrl::VersionSpecifier(range)) = &requirement.version_or_url else {
        return None;
    };
    let mut parts = range.iter();
    match (parts.next(), parts.next()) {
        (Some(one), None) if matches!(one.operator(), Operator::Equal | Operator::ExactEqual) => {
            let name = normalised_name(requirement.name.as_ref());
            Some((name, one.version().clone()))
        }
        _ => None,
    }
}

/// The newest time of files to look at, when the release of `package` in the lock file `text` is
/// not the newest one.
pub(crate) fn limit(
    text: &str,
    package: &str,
    version: &Version,
    uv: &Uv,
    arguments: &[OsString],
) -> Option<Timestamp> {
    let released = uploaded(text, package)?;
    let newest = newest(package, uv, arguments)?;
    if newest <= *version {
        return None;
    }
    released.checked_add((GRACE_DAYS * 24).hours()).ok()
}

/// When the last of the package's files was uploaded.
fn uploaded(text: &str, package: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Lock {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        #[serde(default)]
        wheels: Vec<File>,
        sdist: Option<File>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct File {
        upload_time: Option<toml::value::Datetime>,
    }
    let lock: Lock = toml::from_str(text).ok()?;
    let found = lock.packages.into_iter().find(|one| one.name == package)?;
    found
        .wheels
        .iter()
        .chain(&found.sdist)
        .filter_map(|file| file.upload_time.as_ref()?.to_string().parse().ok())
        .max()
}

/// The newest version of the package that the index has for this Python.
fn newest(package: &str, uv: &Uv, arguments: &[OsString]) -> Option<Version> {
    let mut command = uv.command();
    command
        .current_dir(std::env::temp_dir())
        .args([
            "pip",
            "compile",
            "--no-deps",
            "--no-header",
            "--no-annotate",
        ])
        .args(arguments)
        .arg("-");
    let (found, _) = uv.run_with_input(command, package).ok()?;
    found
        .lines()
        .find_map(|line| line.split_once("=="))
        .and_then(|(_, version)| version.trim().parse().ok())
}

/// What is said when it was done.
pub(crate) fn note(package: &str, version: &Version, limit: Timestamp) -> String {
    let day = limit.to_string();
    let day = day.split('T').next().unwrap_or(&day);
    format!(
        "`{package}` has newer releases than {version}: its dependencies were locked as of {day}, \
         soon after it came out; `pytheas lock --upgrade --from {package}=={version}` takes the newest"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_exact_version_pins() {
        let dir = tempfile::tempdir().unwrap();
        for (requirement, expected) in [
            ("OctoPrint==1.10.3", Some("octoprint 1.10.3")),
            ("uvicorn[standard]===0.30.6", Some("uvicorn 0.30.6")),
            ("black==24.*", None),
            ("black>=24", None),
            ("black>=24,==24.8.0", None),
            ("black", None),
        ] {
            let project = Project::published(requirement, &[], dir.path()).unwrap();
            let found = pinned(&project).map(|(name, version)| format!("{name} {version}"));
            assert_eq!(found.as_deref(), expected, "{requirement}");
        }
    }

    #[test]
    fn the_last_of_its_files_tells_when_a_release_came_out() {
        let text = "
            [[packages]]
            name = \"other\"
            wheels = [{ upload-time = 2026-01-01T00:00:00Z }]
            [[packages]]
            name = \"tool\"
            sdist = { upload-time = 2024-11-05T10:00:00Z }
            wheels = [{ upload-time = 2024-11-04T10:00:00Z }, { url = \"x\" }]
        ";
        let found = uploaded(text, "tool").map(|time| time.to_string());
        assert_eq!(found.as_deref(), Some("2024-11-05T10:00:00Z"));
        assert_eq!(uploaded(text, "absent"), None);
        assert_eq!(uploaded("[[packages]]\nname = \"tool\"\n", "tool"), None);
    }
}
