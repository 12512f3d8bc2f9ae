//! The wheels of a lock as files, for people whose device has a package manager of its own.

use std::path::Path;

use pytheas_project::{LockedFile, LockedPackage, Pylock};
use pytheas_release::Sha256;

use super::{InstallError, Installer, choose, fetch::Fetcher, io_error, store::Store};
use crate::{dependencies::DependencyError, wheel_form};

/// A wheel.
pub(crate) struct WheelFile {
    /// Its file name.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Installer<'_> {
    /// Every wheel that the lock at `lock_path` needs on the platform. What has a source only is
    /// built here, now.
    pub(crate) fn wheels(
        &self,
        lock: &Pylock,
        lock_path: &Path,
    ) -> Result<Vec<WheelFile>, DependencyError> {
        let chosen = choose(lock, self.interpreter, self.platform)?;
        let store = Store::new(self.environment);
        let folder = lock_path.parent().unwrap_or(Path::new("."));
        let fetcher = Fetcher::new(
            &store,
            self.environment,
            self.connectivity,
            folder,
            self.uv.indexes(),
        );
        self.each(
            &chosen,
            &|file, sha256| fetch_wheel(&fetcher, &store, file, sha256),
            &|package, file, sha256| {
                self.wheel_of_source(package, &fetcher.source(file, sha256)?, &store)
            },
        )
    }

    /// Builds a source distribution, with this machine's compiler or the target's.
    fn wheel_of_source(
        &self,
        package: &LockedPackage,
        sdist: &Path,
        store: &Store,
    ) -> Result<WheelFile, DependencyError> {
        let compiled = || -> Result<WheelFile, DependencyError> {
            let made = crate::native::wheel_of_sdist(self, package, sdist)?;
            Ok(WheelFile {
                name: made.name,
                bytes: made.bytes,
            })
        };
        if crate::native::has_compiled_code(sdist) && !crate::native::host_compiles(self) {
            return compiled();
        }
        let scratch = store.scratch()?;
        let dir = scratch.path();
        let mut command = self.uv.command();
        command
            .args(["build", "--wheel", "--no-create-gitignore", "--out-dir"])
            .arg(dir);
        if let Some(python) = self.interpreter.tool() {
            command.arg("--python").arg(python);
        }
        command.arg(sdist).env("SOURCE_DATE_EPOCH", "315532800");
        self.uv
            .isolation()
            .describe(&mut command, &package.name, dir);
        self.uv
            .run(command)
            .map_err(|error| crate::dependencies::uv_error(self.uv, error))?;
        let name = std::fs::read_dir(dir)
            .map_err(io_error("read", dir))?
            .flatten()
            .filter_map(|child| child.file_name().into_string().ok())
            .find(|name| name.ends_with(".whl"))
            .unwrap_or_default();
        let fits = name.ends_with("-none-any.whl") || self.interpreter.runs_here();
        if name.is_empty() || !fits {
            return compiled();
        }
        let path = dir.join(&name);
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        let bytes = wheel_form::normalised_wheel(&bytes, wheel_form::EARLIEST)
            .map_err(io_error("read", &path))?;
        Ok(WheelFile { name, bytes })
    }
}

/// The wheel as it was fetched; the cache may hold only what was unpacked from it.
fn fetch_wheel(
    fetcher: &Fetcher<'_>,
    store: &Store,
    file: &LockedFile,
    sha256: Sha256,
) -> Result<WheelFile, InstallError> {
    let name = file.file_name().to_owned();
    if let Some(bytes) = store.wheel_file(sha256) {
        return Ok(WheelFile { name, bytes });
    }
    let bytes = fetcher.bytes(file, sha256)?;
    store.add(&name, &bytes, sha256)?; // refuses what must not be unpacked
    Ok(WheelFile { name, bytes })
}
