//! From dependencies to a lock: versions that all who ask agree with, manifests followed, every
//! file fetched once and hashed.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::{Version, VersionSpecifiers};
use pytheas_project::{Event, Project, Uv, lock::Upgrade, normalised_name};
use url::Url;

use super::{
    LockedPackage, MipError, MipLock, MipOptions,
    dependency::{self, Dependency, Registry},
    fetch::Fetcher,
    index::{self, Index, Manifest},
    lock::{From, LockedFile},
    marker, pypi,
};
use crate::{event::Observer, micropython::compile::board_path};

/// How often versions are chosen again because a manifest asked for others.
const ROUNDS: usize = 30;

/// Who asks for which versions.
type Asked = BTreeMap<String, Vec<(String, VersionSpecifiers)>>;

/// Finds what is to be locked.
pub(super) struct Resolver<'a> {
    project: &'a Project,
    options: &'a MipOptions,
    fetcher: &'a Fetcher,
    index: Option<&'a Index<'a>>,
    before: Option<&'a MipLock>,
    asked: Asked,
    asked_before: Asked,
    found: BTreeMap<String, LockedPackage>,
    /// Requirements for the Python package index.
    pypi: Vec<String>,
    observer: Observer<'a>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        project: &'a Project,
        options: &'a MipOptions,
        fetcher: &'a Fetcher,
        index: Option<&'a Index<'a>>,
        before: Option<&'a MipLock>,
        observer: Observer<'a>,
    ) -> Self {
        Self {
            project,
            options,
            fetcher,
            index,
            before,
            asked: Asked::new(),
            asked_before: Asked::new(),
            found: BTreeMap::new(),
            pypi: Vec::new(),
            observer,
        }
    }

    /// Every package that the project's dependencies lead to.
    pub(super) fn packages(mut self) -> Result<Vec<LockedPackage>, MipError> {
        let written = &self.project.settings.micropython.dependencies;
        let dependencies = written
            .iter()
            .map(|text| Dependency::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        for _ in 0..ROUNDS {
            self.asked_before = std::mem::take(&mut self.asked);
            self.found.clear();
            self.pypi.clear();
            for dependency in &dependencies {
                self.dependency(dependency)?;
            }
            if self.asked == self.asked_before {
                let mut packages: Vec<LockedPackage> =
                    std::mem::take(&mut self.found).into_values().collect();
                packages.extend(self.of_pypi()?);
                return Ok(packages);
            }
        }
        let names: Vec<&str> = self.asked.keys().map(String::as_str).collect();
        Err(MipError::NoVersion {
            name: names.join("`, `"),
            wanted: "what all manifests agree on".to_owned(),
            known: "versions that ask for each other in turns; pin one with `==`".to_owned(),
        })
    }

    fn dependency(&mut self, dependency: &Dependency) -> Result<(), MipError> {
        match dependency {
            Dependency::Folder(folder) => {
                let dir = self.project.dir.join(folder);
                if !dir.is_dir() {
                    return Err(MipError::Dependency {
                        text: folder.clone(),
                        why: format!("`{}` is no folder", dir.display()),
                    });
                }
                let package = LockedPackage {
                    name: folder.clone(),
                    version: String::new(),
                    from: From::Folder,
                    marker: None,
                    needs: Vec::new(),
                    files: Vec::new(),
                };
                self.found.insert(folder.clone(), package);
                Ok(())
            }
            Dependency::Url(url) => self.url(url, &mut Vec::new()),
            Dependency::Named { name, wanted, from } => {
                let is_there = self.index.is_some_and(|index| index.has(name));
                match from {
                    Some(Registry::Pypi) => self.pypi.push(format!("{name}{wanted}")),
                    None if !is_there => self.pypi.push(format!("{name}{wanted}")),
                    _ => return self.named(name, wanted, &mut Vec::new()),
                }
                Ok(())
            }
        }
    }

    /// Follows the package `name` of the index; `above` are those whose manifests led here.
    fn named(
        &mut self,
        name: &str,
        wanted: &VersionSpecifiers,
        above: &mut Vec<String>,
    ) -> Result<(), MipError> {
        check_circle(name, above)?;
        let by = above.last().cloned();
        let asked = self.asked.entry(name.to_owned()).or_default();
        let asks = (by.clone().unwrap_or_default(), wanted.clone());
        if !asked.contains(&asks) {
            asked.push(asks);
        }
        if self.found.contains_key(name) {
            return Ok(());
        }
        let Some(index) = self.index else {
            return Err(MipError::NoPackage {
                name: name.to_owned(),
                by,
                place: "any index".to_owned(),
                help: "name an index of mip's format: `index = \"…\"` in `[tool.pytheas.micropython]`, or `PYTHEAS_MIP_INDEX`".to_owned(),
            });
        };
        (self.observer)(crate::Event::Step {
            text: format!("looking at `{name}`"),
        });
        let version = self.choose(index, name)?;
        let Some((manifest, place)) =
            index.manifest(name, version.as_deref().unwrap_or("latest"))?
        else {
            return Err(MipError::NoPackage {
                name: match &version {
                    Some(version) => format!("{name} {version}"),
                    None => name.to_owned(),
                },
                by,
                place: format!("the index `{}`", index.place),
                help: match index.near(name) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "check its name and the index".to_owned(),
                },
            });
        };
        let version = version.unwrap_or_else(|| manifest.version.clone());
        let fits = version.parse::<Version>().map_or(true, |version| {
            self.wishes(name)
                .all(|(_, wanted)| wanted.contains(&version))
        });
        if !fits {
            return Err(self.no_version(name, &version));
        }
        let mut package = LockedPackage {
            name: name.to_owned(),
            version,
            from: From::Mip,
            marker: None,
            needs: Vec::new(),
            files: Vec::new(),
        };
        self.follow(&mut package, &manifest, &place, name, above)
    }

    /// Follows the `package.json` or module at `url`.
    fn url(&mut self, url: &str, above: &mut Vec<String>) -> Result<(), MipError> {
        check_circle(url, above)?;
        if self.found.contains_key(url) {
            return Ok(());
        }
        let mut package = LockedPackage {
            name: url.to_owned(),
            version: String::new(),
            from: From::Url,
            marker: None,
            needs: Vec::new(),
            files: Vec::new(),
        };
        let bytes = self.fetcher.get(url)?.ok_or_else(|| MipError::Fetch {
            what: url.to_owned(),
            why: "nothing is there".to_owned(),
        })?;
        let parsed: Option<Url> = url.parse().ok();
        let last = parsed
            .as_ref()
            .map_or(url, Url::path)
            .rsplit('/')
            .next()
            .unwrap_or("");
        if last.ends_with(".py") || last.ends_with(".mpy") {
            let manifest = Manifest {
                urls: vec![(last.to_owned(), url.to_owned())],
                ..Manifest::default()
            };
            return self.follow(&mut package, &manifest, url, url, above);
        }
        let manifest = Manifest::parse(&bytes, url)?;
        package.version.clone_from(&manifest.version);
        self.follow(&mut package, &manifest, url, url, above)
    }

    /// Locks the files of `package` and follows what it needs.
    fn follow(
        &mut self,
        package: &mut LockedPackage,
        manifest: &Manifest,
        place: &str,
        key: &str,
        above: &mut Vec<String>,
    ) -> Result<(), MipError> {
        above.push(key.to_owned());
        for dep in &manifest.deps {
            let (name, version) = dep.parts();
            if name.contains(':') {
                let version = if version == "latest" { "" } else { version };
                let url = dependency::url(name, version).ok_or_else(|| MipError::Dependency {
                    text: name.to_owned(),
                    why: format!("the address in the manifest of `{key}` is none"),
                })?;
                self.url(&url, above)?;
                package.needs.push(url);
                continue;
            }
            let wanted = specifiers_of(version, name, key)?;
            self.named(name, &wanted, above)?;
            package.needs.push(name.to_owned());
        }
        above.pop();
        package.needs.sort();
        let kept = self.before.and_then(|before| before.package(&package.name));
        let is_same = |kept: &&LockedPackage| {
            kept.from == package.from
                && kept.version == package.version
                && !package.version.is_empty()
                && !self.may_change(&package.name)
        };
        package.files = match kept.filter(is_same) {
            Some(kept) => kept.files.clone(),
            None => self.lock_files(&package.name, manifest, place)?,
        };
        self.found.insert(key.to_owned(), package.clone());
        Ok(())
    }

    fn lock_files(
        &self,
        package: &str,
        manifest: &Manifest,
        place: &str,
    ) -> Result<Vec<LockedFile>, MipError> {
        let mut files = Vec::new();
        for (path, digits) in &manifest.hashes {
            check_path(package, path)?;
            let at = index::file_place(digits).ok_or_else(|| MipError::Document {
                what: "the package manifest",
                place: place.to_owned(),
                why: format!("`{digits}` is no beginning of a SHA-256"),
            })?;
            let base = match (self.index, place.rsplit_once("/package/")) {
                (_, Some((base, _))) => base.to_owned(),
                (Some(index), None) => index.place.clone(),
                (None, None) => String::new(),
            };
            let whole = format!("{base}/{at}");
            let bytes = self.fetcher.get(&whole)?.ok_or_else(|| MipError::Fetch {
                what: whole.clone(),
                why: format!("the index lacks a file of `{package}`"),
            })?;
            let sha256 = index::check_digits(package, path, &bytes, digits)?;
            self.fetcher.keep(&bytes, sha256);
            let is_of_index = self.index.is_some_and(|index| index.place == base);
            files.push(LockedFile {
                path: path.clone(),
                url: if is_of_index { at } else { whole },
                sha256,
            });
        }
        for (path, address) in &manifest.urls {
            check_path(package, path)?;
            let whole = absolute(address, place).ok_or_else(|| MipError::Document {
                what: "the package manifest",
                place: place.to_owned(),
                why: format!("`{address}` is no address"),
            })?;
            let bytes = self.fetcher.get(&whole)?.ok_or_else(|| MipError::Fetch {
                what: whole.clone(),
                why: format!("a file of `{package}` is not there"),
            })?;
            let sha256 = pytheas_release::Sha256::of(&bytes);
            self.fetcher.keep(&bytes, sha256);
            files.push(LockedFile {
                path: path.clone(),
                url: whole,
                sha256,
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn wishes<'b>(&'b self, name: &str) -> impl Iterator<Item = &'b (String, VersionSpecifiers)> {
        let now = self.asked.get(name).into_iter().flatten();
        now.chain(self.asked_before.get(name).into_iter().flatten())
    }

    fn may_change(&self, name: &str) -> bool {
        match &self.options.upgrade {
            Upgrade::Nothing => false,
            Upgrade::Everything => true,
            Upgrade::Packages(names) => names.iter().any(|other| other == name),
        }
    }

    /// The version to take; none where the index lists none: its latest.
    fn choose(&self, index: &Index<'_>, name: &str) -> Result<Option<String>, MipError> {
        let versions = index.versions(name);
        let fits = |version: &Version| {
            self.wishes(name)
                .all(|(_, wanted)| wanted.contains(version))
        };
        if versions.is_empty() {
            let exact = self.wishes(name).find_map(|(_, wanted)| {
                let text = wanted.to_string();
                let version = text.strip_prefix("==")?;
                (!version.contains(['*', ','])).then(|| version.to_owned())
            });
            return Ok(exact);
        }
        let locked = self
            .before
            .and_then(|before| before.package(name))
            .filter(|package| package.from == From::Mip && !self.may_change(name));
        if let Some(locked) = locked
            && let Some((_, text)) = versions
                .iter()
                .find(|(version, text)| *text == locked.version && fits(version))
        {
            return Ok(Some(text.clone()));
        }
        let fitting = |stable_only: bool| {
            versions
                .iter()
                .find(|(version, _)| fits(version) && !(stable_only && version.any_prerelease()))
        };
        match fitting(true).or_else(|| fitting(false)) {
            Some((_, text)) => Ok(Some(text.clone())),
            None => {
                let known: Vec<&str> = versions.iter().take(8).map(|(_, t)| t.as_str()).collect();
                Err(self.no_version(name, &known.join(", ")))
            }
        }
    }

    fn no_version(&self, name: &str, known: &str) -> MipError {
        let mut wanted: Vec<String> = self
            .wishes(name)
            .filter(|(_, wanted)| !wanted.is_empty())
            .map(|(by, wanted)| match by.as_str() {
                "" => format!("`{wanted}`"),
                by => format!("`{wanted}` (for `{by}`)"),
            })
            .collect();
        wanted.dedup();
        MipError::NoVersion {
            name: name.to_owned(),
            wanted: wanted.join(" and "),
            known: known.to_owned(),
        }
    }

    /// The packages of the Python package index.
    fn of_pypi(&self) -> Result<Vec<LockedPackage>, MipError> {
        if self.pypi.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |why: String| MipError::Pypi {
            names: self.pypi.iter().map(|text| format!("`{text}`")).collect(),
            why,
        };
        let kept: Vec<String> = self
            .before
            .iter()
            .flat_map(|before| &before.packages)
            .filter(|package| package.from == From::Pypi && !self.may_change(&package.name))
            .map(|package| format!("{}=={}", package.name, package.version))
            .collect();
        let tell = |event: Event| (self.observer)(crate::Event::Project(event));
        let uv = Uv::find(&self.options.environment, self.options.connectivity, &tell)
            .map_err(|error| failed(crate::error::chain(&error)))?;
        let names: BTreeSet<String> = self.wanted_closure();
        let kept: Vec<String> = kept.into_iter().filter(|k| names.contains(k)).collect();
        let lock = pypi::resolve(&self.pypi, Some(&self.project.dir), Some(&kept), &uv);
        let lock = lock.map_err(|error| match error {
            MipError::Pypi { names, why } if self.index.is_some() => MipError::Pypi {
                names,
                why: format!(
                    "the index that is set in mip's format has none of that name, either\n{why}"
                ),
            },
            error => error,
        })?;
        let mut packages = Vec::new();
        for package in &lock.packages {
            let version = package.version.clone().unwrap_or_default();
            let mut locked = LockedPackage {
                name: package.name.clone(),
                version: version.clone(),
                from: From::Pypi,
                marker: package.marker.clone(),
                needs: Vec::new(),
                files: Vec::new(),
            };
            // What no board needs may well be compiled for computers.
            let marker = package.marker.as_deref();
            if marker.is_some_and(|marker| !marker::applies(marker, None)) {
                packages.push(locked);
                continue;
            }
            let pure = package
                .wheels
                .iter()
                .find(|file| file.file_name().ends_with("-none-any.whl"));
            let wrong = |why: &str| MipError::NotPure {
                name: package.name.clone(),
                version: version.clone(),
                why: why.to_owned(),
            };
            if pure.is_none() && !package.wheels.is_empty() {
                return Err(wrong("has compiled code: its wheels are for computers"));
            }
            let file = pure
                .or(package
                    .sdist
                    .as_ref()
                    .filter(|file| file.file_name().ends_with(".tar.gz")))
                .ok_or_else(|| wrong("has neither a wheel of pure Python nor a source archive"))?;
            let sha256 = file
                .sha256()
                .ok_or_else(|| wrong("has no SHA-256 in the index"))?;
            let url = file
                .url()
                .or(file.path())
                .ok_or_else(|| wrong("has no address in the index"))?;
            locked.files.push(LockedFile {
                path: file.file_name().to_owned(),
                url: url.to_owned(),
                sha256,
            });
            packages.push(locked);
        }
        Ok(packages)
    }

    /// Pins of the old lock that are still about something asked for (a package that was removed
    /// from the dependencies must not come back as a preference).
    fn wanted_closure(&self) -> BTreeSet<String> {
        let roots: Vec<String> = self
            .pypi
            .iter()
            .map(|text| {
                let end = text
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
                    .unwrap_or(text.len());
                normalised_name(&text[..end])
            })
            .collect();
        self.before
            .iter()
            .flat_map(|before| &before.packages)
            .filter(|package| roots.contains(&normalised_name(&package.name)))
            .map(|package| format!("{}=={}", package.name, package.version))
            .collect()
    }
}

fn specifiers_of(text: &str, name: &str, by: &str) -> Result<VersionSpecifiers, MipError> {
    dependency::specifiers(text).map_err(|why| MipError::Dependency {
        text: format!("{name} {text}"),
        why: format!("{why} (in the manifest of `{by}`)"),
    })
}

fn check_circle(key: &str, above: &[String]) -> Result<(), MipError> {
    match above.iter().position(|other| other == key) {
        None => Ok(()),
        Some(at) => {
            let chain: Vec<&str> = above[at..]
                .iter()
                .map(String::as_str)
                .chain([key])
                .collect();
            Err(MipError::Circle {
                chain: chain
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" → "),
            })
        }
    }
}

pub(super) fn check_path(package: &str, path: &str) -> Result<(), MipError> {
    board_path(path)
        .map(|_| ())
        .map_err(|error| MipError::Path {
            package: package.to_owned(),
            path: path.chars().take(120).collect(),
            why: crate::error::chain(&error),
        })
}

/// `address`, seen from the manifest at `place`.
fn absolute(address: &str, place: &str) -> Option<String> {
    if address.contains(':') {
        let (plain, version) = match address.rsplit_once('@') {
            Some((plain, version)) if !version.contains(['/', ':']) => (plain, version),
            _ => (address, ""),
        };
        return dependency::url(plain, version);
    }
    if place.contains("://") {
        return Some(place.parse::<Url>().ok()?.join(address).ok()?.into());
    }
    let dir = place.rsplit_once('/').map_or("", |(dir, _)| dir);
    Some(format!("{dir}/{address}"))
}
