//! Package files from their locked address or place, into the cache; each is checked against the
//! hash in the lock before anything looks into it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use pytheas_project::{
    Connectivity, Environment, IndexCredentials, LockedFile, ProjectIndexes, http::Http,
};
use pytheas_release::Sha256;
use url::Url;

use super::{
    InstallError, io_error,
    store::{Contents, Store},
};

/// The largest file that is taken: PyPI allows less.
const FILE_LIMIT_BYTES: u64 = 4 << 30;
const TRIES: u32 = 3;

/// Fetches package files; usable from many threads.
pub(super) struct Fetcher<'a> {
    store: &'a Store,
    http: Http,
    credentials: IndexCredentials,
    connectivity: Connectivity,
    /// Paths in the lock are relative to this folder.
    folder: &'a Path,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(
        store: &'a Store,
        environment: &Environment,
        connectivity: Connectivity,
        folder: &'a Path,
        indexes: &ProjectIndexes,
    ) -> Self {
        Self {
            store,
            http: Http::new(environment),
            credentials: IndexCredentials::with(environment, folder, indexes),
            connectivity,
            folder,
        }
    }

    /// The wheel `file`, unpacked in the cache.
    pub(super) fn wheel(
        &self,
        file: &LockedFile,
        sha256: Sha256,
    ) -> Result<Contents, InstallError> {
        if let Some(contents) = self.store.contents(file.file_name(), sha256) {
            return Ok(contents);
        }
        let bytes = match self.store.wheel_file(sha256) {
            Some(bytes) => bytes,
            None => self.bytes(file, sha256)?,
        };
        self.store.add(file.file_name(), &bytes, sha256)
    }

    /// The source distribution `file`, as a file in the cache that has its name.
    pub(super) fn source(
        &self,
        file: &LockedFile,
        sha256: Sha256,
    ) -> Result<PathBuf, InstallError> {
        if let Some(path) = self.store.source(file.file_name(), sha256) {
            return Ok(path);
        }
        let bytes = self.bytes(file, sha256)?;
        self.store.add_source(file.file_name(), &bytes, sha256)
    }

    pub(super) fn bytes(&self, file: &LockedFile, sha256: Sha256) -> Result<Vec<u8>, InstallError> {
        let name = file.file_name();
        let bytes = match (file.url().map(str::parse::<Url>), file.path()) {
            (Some(Ok(url)), _) if url.scheme() == "file" => {
                let path = url.to_file_path().unwrap_or_default();
                std::fs::read(&path).map_err(io_error("read", &path))?
            }
            (Some(Ok(url)), _) => self.download(name, url)?,
            (_, Some(path)) => {
                let path = self.folder.join(path);
                std::fs::read(&path).map_err(io_error("read", &path))?
            }
            (_, None) => {
                return Err(InstallError::Wheel {
                    file: name.to_owned(),
                    reason: "the lock file does not say where it is".to_owned(),
                });
            }
        };
        let found = Sha256::of(&bytes);
        if found != sha256 {
            return Err(InstallError::Hash {
                file: name.to_owned(),
                found,
                expected: sha256,
            });
        }
        Ok(bytes)
    }

    fn download(&self, name: &str, url: Url) -> Result<Vec<u8>, InstallError> {
        if self.connectivity == Connectivity::Offline {
            return Err(InstallError::Offline {
                file: name.to_owned(),
            });
        }
        let url = self.credentials.add_to(url);
        let mut pause = Duration::from_millis(300);
        for attempt in 1.. {
            match self.http.get(&url, "*/*", FILE_LIMIT_BYTES) {
                Ok((bytes, _)) => return Ok(bytes),
                Err(error) if attempt < TRIES && error.is_passing() => {
                    tracing::debug!(file = name, attempt, %error, "fetching `{name}` again");
                    std::thread::sleep(pause);
                    pause *= 3;
                }
                Err(source) if source.is_refusal() => {
                    return Err(InstallError::Credentials {
                        file: name.to_owned(),
                        source,
                    });
                }
                Err(source) => {
                    return Err(InstallError::Network {
                        file: name.to_owned(),
                        source,
                    });
                }
            }
        }
        unreachable!("the last try returns")
    }
}
