//! The packages of the lock without a package manager: the best wheel by tag for the *target*,
//! fetched in parallel, checked against the lock's hash, unpacked once into a content-addressed
//! cache, and copied from there. Works for every platform alike; nothing of a package is run.
//!
//! ```text
//! CACHE/wheels/<sha256>.whl          as fetched (wheelhouses take it from here)
//!             /<sha256>/contents     `SHA256 SIZE f|x PATH` per file, the last line its own hash
//!             /<sha256>/files/PATH   as they lie in site-packages; scripts in `bin`
//! ```
//! An entry appears by one rename and each file is hashed again whenever it is copied, so two
//! builds at once, a power cut or a damaged disk cannot bring a wrong byte into a bundle.

mod choose;
mod fetch;
mod store;
#[cfg(test)]
mod tests;
mod unpack;
mod wheels;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::{Connectivity, Environment, LockedFile, LockedPackage, Pylock, Uv};
use pytheas_release::{Platform, RelPath, Sha256};

use crate::{
    dependencies::DependencyError,
    event::{Event, Observer},
    interpreter::Interpreter,
    scratch,
};

pub(crate) use choose::{Chosen, choose};
use store::{Contents, Store};
pub(crate) use wheels::WheelFile;

/// A package file that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InstallError {
    /// The index does not answer.
    #[error("cannot fetch `{file}`")]
    #[diagnostic(
        code(pytheas::install::network),
        help(
            "check the network, proxy and index settings; what was fetched once stays in the cache"
        )
    )]
    Network {
        /// The file.
        file: String,
        /// Why.
        source: pytheas_project::http::HttpError,
    },
    /// The index does not know who asks.
    #[error("the package index refuses `{file}`")]
    #[diagnostic(
        code(pytheas::install::credentials),
        help(
            "check your credentials for its server: in the index's address, `netrc`, `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`, or keyring with `UV_KEYRING_PROVIDER=subprocess`"
        )
    )]
    Credentials {
        /// The file.
        file: String,
        /// What the server says.
        source: pytheas_project::http::HttpError,
    },
    /// Not in the cache, and the network is not to be used.
    #[error("`{file}` is not in the cache, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::install::offline),
        help("build once without `--offline`")
    )]
    Offline {
        /// The file.
        file: String,
    },
    /// Another file than the locked one.
    #[error("`{file}` is not the file that was locked")]
    #[diagnostic(
        code(pytheas::install::hash),
        help(
            "its SHA-256 is {found}, the lock file says {expected}; do not use it; if the index replaced it on purpose, run `pytheas lock --upgrade`"
        )
    )]
    Hash {
        /// The file.
        file: String,
        /// Its hash.
        found: Sha256,
        /// The locked one.
        expected: Sha256,
    },
    /// A wheel that is none, or one that must not be unpacked.
    #[error("`{file}` is no wheel that can be installed: {reason}")]
    #[diagnostic(
        code(pytheas::install::wheel),
        help(
            "it was not unpacked; report it to the package's authors, and require another version"
        )
    )]
    Wheel {
        /// The wheel.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It comes from somewhere that only uv can install from, for this machine.
    #[error(
        "`{package}` comes from {place}, which cannot be installed for `{platform}` on this machine"
    )]
    #[diagnostic(
        code(pytheas::install::foreign_source),
        help("build a wheel of it, and require that; or build on a `{platform}` machine")
    )]
    ForeignSource {
        /// The package.
        package: String,
        /// What kind of place.
        place: &'static str,
        /// What is built for.
        platform: Platform,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::install::io),
        help("check permissions and free space; `PYTHEAS_CACHE_DIR` chooses another cache")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError + use<> {
    let path = path.to_owned();
    move |source| InstallError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// What an installation works with.
#[derive(Clone, Copy)]
pub(crate) struct Installer<'a> {
    pub(crate) interpreter: &'a Interpreter,
    pub(crate) platform: &'a Platform,
    pub(crate) uv: &'a Uv,
    pub(crate) connectivity: Connectivity,
    pub(crate) environment: &'a Environment,
    pub(crate) observer: Observer<'a>,
}

impl Installer<'_> {
    /// Installs what the lock at `lock_path` needs into the new folder `site`. Gives false, having
    /// done nothing, when a package has no wheel and uv can install all of it on this machine.
    pub(crate) fn install_lock(
        &self,
        lock: &Pylock,
        lock_path: &Path,
        site: &Path,
    ) -> Result<bool, DependencyError> {
        let chosen = choose(lock, self.interpreter, self.platform)?;
        let all_wheels = chosen
            .iter()
            .all(|(_, choice)| matches!(choice, Chosen::Wheel(..)));
        // uv builds sources for this machine, unless they need a compiler that it does not have.
        if !all_wheels && self.interpreter.runs_here() {
            let has_other = chosen
                .iter()
                .any(|(_, choice)| matches!(choice, Chosen::Other(_)));
            if has_other || crate::native::host_compiles(self) {
                return Ok(false);
            }
        }
        let store = Store::new(self.environment);
        let folder = lock_path.parent().unwrap_or(Path::new("."));
        let fetcher = fetch::Fetcher::new(
            &store,
            self.environment,
            self.connectivity,
            folder,
            self.uv.indexes(),
        );
        let contents = self.each(
            &chosen,
            &|file, sha256| fetcher.wheel(file, sha256),
            &|package, file, sha256| {
                self.build_source(package, &fetcher.source(file, sha256)?, &store)
            },
        )?;
        self.place(&store, &contents, site)?;
        Ok(true)
    }

    /// The Python files that the lock's wheels will bring, unpacked in the cache: where they will lie
    /// in the folder for packages and where they are; none when a package has no wheel.
    pub(crate) fn sources(
        &self,
        lock: &Pylock,
        lock_path: &Path,
    ) -> Result<Option<Vec<(RelPath, PathBuf)>>, DependencyError> {
        let chosen = choose(lock, self.interpreter, self.platform)?;
        let is_wheel = |(_, choice): &(_, Chosen<'_>)| matches!(choice, Chosen::Wheel(..));
        if !chosen.iter().all(is_wheel) {
            return Ok(None);
        }
        let store = Store::new(self.environment);
        let folder = lock_path.parent().unwrap_or(Path::new("."));
        let fetcher = fetch::Fetcher::new(
            &store,
            self.environment,
            self.connectivity,
            folder,
            self.uv.indexes(),
        );
        let contents = in_parallel(&chosen, |(_, choice)| match choice {
            Chosen::Wheel(file, sha256) => fetcher.wheel(file, *sha256).map(Some),
            Chosen::Source(..) | Chosen::Other(_) => Ok(None),
        });
        let mut found = BTreeMap::new();
        for wheel in contents {
            let Some(wheel) = wheel? else { continue };
            for path in wheel.files.keys() {
                if path.as_str().ends_with(".py") {
                    found.insert(path.clone(), store.path(&wheel, path));
                }
            }
        }
        Ok(Some(found.into_iter().collect()))
    }

    /// What `wheel` gives for each wheel, side by side, and then `source` for each source
    /// distribution, in the order of `chosen`.
    fn each<T: Send>(
        &self,
        chosen: &[(&LockedPackage, Chosen<'_>)],
        wheel: &(dyn Fn(&LockedFile, Sha256) -> Result<T, InstallError> + Sync),
        source: &dyn Fn(&LockedPackage, &LockedFile, Sha256) -> Result<T, DependencyError>,
    ) -> Result<Vec<T>, DependencyError> {
        let fetched = in_parallel(chosen, |(_, choice)| match choice {
            Chosen::Wheel(file, sha256) => Some(wheel(file, *sha256)),
            Chosen::Source(..) | Chosen::Other(_) => None,
        });
        let made = chosen
            .iter()
            .zip(fetched)
            .map(|((package, choice), wheel)| {
                Ok(match (wheel, choice) {
                    (Some(wheel), _) => wheel?,
                    // Wheels are there by now, so this is a source.
                    (None, Chosen::Wheel(file, sha256) | Chosen::Source(file, sha256)) => {
                        source(package, file, *sha256)?
                    }
                    (None, Chosen::Other(place)) => {
                        return Err(InstallError::ForeignSource {
                            package: package.name.clone(),
                            place,
                            platform: self.platform.clone(),
                        }
                        .into());
                    }
                })
            });
        made.collect()
    }

    /// Installs the app's own wheel at `path`, which was just built here, into `site`.
    pub(crate) fn install_wheel(&self, path: &Path, site: &Path) -> Result<(), InstallError> {
        let store = Store::new(self.environment);
        let bytes = std::fs::read(path).map_err(io_error("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let contents = store.add(&name, &bytes, Sha256::of(&bytes))?;
        self.place(&store, &[contents], site)
    }

    /// Builds a source distribution for a platform that uv cannot build for: with the target's
    /// compiler when it holds code for one, else by uv, and then only a pure wheel will do.
    fn build_source(
        &self,
        package: &LockedPackage,
        sdist: &Path,
        store: &Store,
    ) -> Result<Contents, DependencyError> {
        let compiled = || -> Result<Contents, DependencyError> {
            let made = crate::native::wheel_of_sdist(self, package, sdist)?;
            Ok(store.add(&made.name, &made.bytes, Sha256::of(&made.bytes))?)
        };
        if crate::native::has_compiled_code(sdist) {
            return compiled();
        }
        let scratch = store.scratch()?;
        let mut command = self.uv.command();
        command
            .args(["build", "--wheel", "--no-create-gitignore", "--out-dir"])
            .arg(scratch.path());
        if let Some(python) = self.interpreter.tool() {
            command.arg("--python").arg(python);
        }
        command.arg(sdist).env("SOURCE_DATE_EPOCH", "315532800");
        self.uv
            .isolation()
            .describe(&mut command, &package.name, scratch.path());
        self.uv
            .run(command)
            .map_err(|error| crate::dependencies::uv_error(self.uv, error))?;
        let dir = scratch.path();
        let made = std::fs::read_dir(dir)
            .map_err(io_error("read", dir))?
            .flatten()
            .map(|child| child.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"));
        let name = made
            .as_ref()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_default();
        let (Some(made), true) = (made, name.ends_with("-none-any.whl")) else {
            return compiled();
        };
        let bytes = std::fs::read(&made).map_err(io_error("read", &made))?;
        Ok(store.add(&name, &bytes, Sha256::of(&bytes))?)
    }

    /// Copies the files of all wheels to `site`. Where two bring the same file, the later one of
    /// the lock's order wins, as with pip.
    fn place(&self, store: &Store, wheels: &[Contents], site: &Path) -> Result<(), InstallError> {
        let mut owners: BTreeMap<&RelPath, usize> = BTreeMap::new();
        for (index, wheel) in wheels.iter().enumerate() {
            for (path, file) in &wheel.files {
                let Some(before) = owners.insert(path, index) else {
                    continue;
                };
                if wheels[before].files.get(path) != Some(file) {
                    let text = format!(
                        "`{}` and `{}` both bring `{path}`; the second one's is taken",
                        wheels[before].name, wheel.name
                    );
                    (self.observer)(Event::Warning { text });
                }
            }
        }
        let mut folders: Vec<PathBuf> = owners
            .keys()
            .filter_map(|path| path.under(site).parent().map(Path::to_owned))
            .collect();
        folders.dedup();
        for folder in &folders {
            std::fs::create_dir_all(folder).map_err(io_error("make", folder))?;
        }
        let owners: Vec<(&RelPath, usize)> = owners.into_iter().collect();
        let copied = scratch::in_parallel(&owners, |(path, index)| {
            store.copy(&wheels[*index], path, &path.under(site))
        });
        copied.into_iter().collect()
    }
}

/// As [`scratch::in_parallel`], by at least eight threads: downloads wait for the network.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    scratch::in_threads(scratch::processors().max(8), items, work)
}
