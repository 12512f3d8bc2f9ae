//! A published package by its requirement (`octoprint==1.10.3`): an app that needs no project.

use std::path::Path;

use pytheas_release::Name;

use super::{InputError, Sources};
use crate::{
    project::{Project, RequirementSource, normalised_name},
    requirements,
    settings::Settings,
};

impl Project {
    /// The app that `requirement` (PEP 508, or the path of a wheel) installs, with `also` beside
    /// it (its plug-ins, for example). `dir` is where its lock and results are kept.
    ///
    /// # Errors
    /// When a requirement is none.
    pub fn published(
        requirement: &str,
        also: &[String],
        dir: &Path,
    ) -> Result<Self, crate::ProjectError> {
        let dir = dir
            .canonicalize()
            .map_err(|source| crate::ProjectError::Missing {
                path: dir.to_owned(),
                source,
            })?;
        let requirement = with_name(requirement, &dir)?;
        let parsed = requirements::parse(&requirement).ok_or_else(|| InputError::Requirement {
            text: requirements::without_credentials(&requirement),
        })?;
        let package = parsed.name.to_string();
        let name: Name = package.parse().map_err(|_| crate::ProjectError::Name {
            text: package.clone(),
        })?;
        let mut dependencies = vec![requirement.clone()];
        for text in also {
            dependencies.push(with_name(text, &dir)?);
        }
        Ok(Self {
            version: None,
            source: RequirementSource::Published,
            sources: Sources::None,
            package: Some(normalised_name(&package)),
            lock_name: Some(normalised_name(&package)),
            input: format!("--from {}", requirements::without_credentials(&requirement)),
            dependencies,
            settings: Settings::default(),
            ..Self::empty(dir, name)
        })
    }
}

/// The requirement with its name: a wheel's path becomes `NAME @ file://…`.
fn with_name(text: &str, dir: &Path) -> Result<String, InputError> {
    let text = text.trim();
    let wrong = || InputError::Requirement {
        text: requirements::without_credentials(text),
    };
    if text.ends_with(".whl") && !text.contains(" @ ") {
        let file = text.rsplit('/').next().unwrap_or(text);
        let name = file
            .split('-')
            .next()
            .filter(|name| !name.is_empty())
            .ok_or_else(wrong)?;
        if text.contains("://") {
            return Ok(format!("{name} @ {text}"));
        }
        let path = dir.join(text);
        let path = path
            .canonicalize()
            .map_err(|source| InputError::Wheel { path, source })?;
        let url = url::Url::from_file_path(path).map_err(|()| wrong())?;
        return Ok(format!("{name} @ {url}"));
    }
    requirements::parse(text)
        .map(|_| text.to_owned())
        .ok_or_else(wrong)
}
