//! Where a lock has no wheel: for each platform, which packages are built from their source, which
//! cannot be had at all, and which refuse the Python. Read from the lock alone, so it is known
//! before anything is fetched.

use std::{collections::BTreeSet, str::FromStr};

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::MarkerEnvironment;
use pytheas_project::{LockedPackage, Project, Pylock, PylockError, normalised_name};
use pytheas_release::Platform;
use serde::{Deserialize as _, Serialize};

use crate::{
    dependencies::is_needed,
    interpreter::linux_markers,
    wheel::{Site, Tags},
};

/// The C library that wheels are chosen for when no interpreter is at hand: Debian 12's.
const GLIBC: (u16, u16) = (2, 36);

/// What the lock has for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformGaps {
    /// The platform.
    pub platform: Platform,
    /// The Python that it was looked at for, e.g. `3.11`.
    pub python: String,
    /// How many packages are needed there.
    pub packages: usize,
    /// How many of them have a wheel that fits.
    pub wheels: usize,
    /// What those wheels weigh, as far as the lock says.
    pub wheel_bytes: u64,
    /// The others, by name.
    pub gaps: Vec<Gap>,
}

/// A package without a wheel that fits, or one that refuses the Python.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: Option<String>,
    /// What is in the way.
    pub kind: GapKind,
    /// The same in words, with what the build does about it.
    pub text: String,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// Neither a wheel nor a source.
    Unavailable,
    /// Its `requires-python` excludes the Python.
    Python,
    /// A source distribution; wheels for other platforms show that it has compiled code.
    CompiledSource,
    /// A source distribution, nothing else.
    Source,
    /// It comes from version control, a folder or one archive.
    Elsewhere,
}

impl GapKind {
    /// Whether a build for the platform must fail.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::Unavailable | Self::Python)
    }

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Python => "python",
            Self::CompiledSource => "compiled-source",
            Self::Source => "source",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// The platforms of the project's targets; this machine's for targets that name none, or when there
/// are none. Boards without CPython have no wheels and are passed over.
pub fn target_platforms(project: &Project) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    let targets = project.settings.target.values();
    let mut add = |platform: Option<Platform>| {
        if let Some(platform) = platform
            && platform.as_str().starts_with("linux-")
            && !platforms.contains(&platform)
        {
            platforms.push(platform);
        }
    };
    for target in targets.filter(|target| target.board.is_none()) {
        add(target.platform.clone().or_else(|| Platform::host().ok()));
    }
    if project.settings.target.is_empty() {
        add(Platform::host().ok());
    }
    platforms
}

/// What the project's lock lacks on `platforms`; nothing when there is no lock. `python` is the
/// version that is built for, where it is known; else the lowest that the project or lock asks for.
///
/// # Errors
/// When the lock cannot be read.
pub fn platform_gaps(
    project: &Project,
    platforms: &[Platform],
    python: Option<&str>,
) -> Result<Vec<PlatformGaps>, PylockError> {
    let Some(lock) = Pylock::read(&project.lock_path())? else {
        return Ok(Vec::new());
    };
    let python = python_of(project, &lock, python);
    Ok(platforms
        .iter()
        .map(|platform| gaps(&lock, platform, &python))
        .collect())
}

/// The Python to look at the lock for.
fn python_of(project: &Project, lock: &Pylock, known: Option<&str>) -> Version {
    let asked = project.python(None);
    known
        .and_then(|text| text.parse::<Version>().ok())
        .filter(|version| asked.as_ref().is_none_or(|asked| asked.contains(version)))
        .or_else(|| asked?.lower_bound())
        .or_else(|| {
            let request: pytheas_project::PythonRequest =
                lock.requires_python.as_deref()?.parse().ok()?;
            request.lower_bound()
        })
        .unwrap_or_else(|| Version::new([3, 11]))
}

/// The names of what the lock installs on `platform`, normalised.
pub(crate) fn locked_for(
    project: &Project,
    lock: &Pylock,
    platform: &Platform,
    python: Option<&str>,
) -> BTreeSet<String> {
    let markers = markers(platform, &python_of(project, lock, python));
    let needed = lock
        .packages
        .iter()
        .filter(|package| is_needed(package, markers.as_ref()).unwrap_or(false));
    needed
        .map(|package| normalised_name(&package.name))
        .collect()
}

fn markers(platform: &Platform, python: &Version) -> Option<MarkerEnvironment> {
    let machine = match platform.arch() {
        "armv7" => "armv7l",
        other => other,
    };
    MarkerEnvironment::deserialize(linux_markers(python, machine)).ok()
}

fn gaps(lock: &Pylock, platform: &Platform, python: &Version) -> PlatformGaps {
    let part = |index: usize| python.release().get(index).copied().unwrap_or(0);
    let markers = markers(platform, python);
    let site = Site {
        platform,
        minor: u8::try_from(part(1)).unwrap_or(0),
        free_threaded: false,
        glibc: (!platform.is_musl()).then_some(GLIBC),
    };
    let mut found = PlatformGaps {
        platform: platform.clone(),
        python: format!("{}.{}", part(0), part(1)),
        packages: 0,
        wheels: 0,
        wheel_bytes: 0,
        gaps: Vec::new(),
    };
    for package in &lock.packages {
        // A marker that is not understood stops the build later, with its own words.
        if !is_needed(package, markers.as_ref()).unwrap_or(true) {
            continue;
        }
        found.packages += 1;
        let best = package
            .wheels
            .iter()
            .filter_map(|file| Some((Tags::parse(file.file_name())?.rank(site)?, file)))
            .max_by(|(a, _), (b, _)| a.cmp(b));
        if let Some((_, file)) = &best {
            found.wheels += 1;
            found.wheel_bytes += file.size.unwrap_or(0);
        }
        let refused = refused_python(package, python);
        let (kind, text) = match (refused, best) {
            (Some(requires), _) => (
                GapKind::Python,
                format!(
                    "needs Python {requires}; require another version or choose another Python"
                ),
            ),
            (None, Some(_)) => continue,
            (None, None) => without_wheel(package, platform),
        };
        found.gaps.push(Gap {
            package: package.name.clone(),
            version: package.version.clone(),
            kind,
            text,
        });
    }
    found
        .gaps
        .sort_by(|a, b| (a.kind, &a.package).cmp(&(b.kind, &b.package)));
    found
}

/// What its `requires-python` says, when that excludes the Python.
fn refused_python(package: &LockedPackage, python: &Version) -> Option<String> {
    let text = package.requires_python.as_deref()?;
    let specifiers = VersionSpecifiers::from_str(text).ok()?;
    // A minor version stands for its patches: the last of them may fit.
    let last = Version::new(
        python
            .release()
            .iter()
            .copied()
            .take(2)
            .chain([u64::from(u16::MAX)]),
    );
    (!specifiers.contains(python) && !specifiers.contains(&last)).then(|| text.to_owned())
}

fn without_wheel(package: &LockedPackage, platform: &Platform) -> (GapKind, String) {
    let is_host = Platform::host().is_ok_and(|host| host == *platform);
    let has_compiled = package
        .wheels
        .iter()
        .any(|file| !file.file_name().ends_with("-any.whl"));
    match &package.sdist {
        Some(_) if has_compiled && is_host => (
            GapKind::CompiledSource,
            "no wheel fits; its compiled code is built here, with this machine's compiler or Zig's"
                .to_owned(),
        ),
        Some(_) if has_compiled => (
            GapKind::CompiledSource,
            "no wheel fits; C code is cross-compiled with Zig's compiler, Rust and Fortran are not"
                .to_owned(),
        ),
        Some(_) => (
            GapKind::Source,
            "no wheel fits; built from its source, which runs its build code".to_owned(),
        ),
        None if package.vcs.is_some()
            || package.directory.is_some()
            || (package.archive.is_some() && package.wheels.is_empty()) =>
        {
            let place = if package.vcs.is_some() {
                "version control"
            } else if package.directory.is_some() {
                "a folder"
            } else {
                "an archive"
            };
            let text = if is_host {
                format!("comes from {place}; built here")
            } else {
                format!("comes from {place}; only a build on such a machine can use that")
            };
            (GapKind::Elsewhere, text)
        }
        None => (
            GapKind::Unavailable,
            "no wheel fits, and it has no source distribution; require another version or put a wheel into an index or `--find-links` folder"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
lock-version = "1.0"
created-by = "test"
[[packages]]
name = "everywhere"
version = "1.0"
wheels = [{ name = "everywhere-1.0-py3-none-any.whl", size = 10, hashes = {} }]
[[packages]]
name = "compiled"
version = "2.0"
sdist = { name = "compiled-2.0.tar.gz", hashes = {} }
wheels = [{ name = "compiled-2.0-cp311-cp311-manylinux_2_17_x86_64.whl", size = 100, hashes = {} }]
[[packages]]
name = "closed"
version = "3.0"
wheels = [{ name = "closed-3.0-cp311-cp311-manylinux_2_17_x86_64.whl", hashes = {} }]
[[packages]]
name = "old"
version = "4.0"
sdist = { name = "old-4.0.tar.gz", hashes = {} }
[[packages]]
name = "new"
version = "5.0"
requires-python = ">=3.12"
wheels = [{ name = "new-5.0-py3-none-any.whl", hashes = {} }]
[[packages]]
name = "patch"
version = "5.0"
requires-python = ">=3.11.4"
wheels = [{ name = "patch-5.0-py3-none-any.whl", hashes = {} }]
[[packages]]
name = "windows"
version = "6.0"
marker = "sys_platform == 'win32'"
"#;

    fn kinds(platform: &str) -> (usize, u64, Vec<(String, &'static str)>) {
        let lock: Pylock = toml::from_str(LOCK).unwrap();
        let found = gaps(&lock, &platform.parse().unwrap(), &Version::new([3, 11]));
        assert_eq!((found.packages, found.python.as_str()), (6, "3.11"));
        let gaps = found.gaps.into_iter();
        let gaps = gaps.map(|gap| (gap.package, gap.kind.as_str())).collect();
        (found.wheels, found.wheel_bytes, gaps)
    }

    #[test]
    fn a_lock_says_what_each_platform_lacks() {
        let owned = |list: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
            list.iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect()
        };
        let (wheels, bytes, gaps) = kinds("linux-x86_64");
        assert_eq!((wheels, bytes), (5, 110));
        assert_eq!(gaps, owned(&[("new", "python"), ("old", "source")]));
        let (wheels, bytes, gaps) = kinds("linux-armv7");
        assert_eq!((wheels, bytes), (3, 10));
        let expected = [
            ("closed", "unavailable"),
            ("new", "python"),
            ("compiled", "compiled-source"),
            ("old", "source"),
        ];
        assert_eq!(gaps, owned(&expected));
    }
}
