//! Getting documents and files from addresses and folders; what has a known hash is kept in the
//! cache under it.

use std::{fs, path::PathBuf};

use pytheas_project::{
    Connectivity, Environment, IndexCredentials,
    http::{Http, HttpError},
};
use pytheas_release::Sha256;
use url::Url;

use super::{MipError, error::io_error};
use crate::scratch;

/// Largest file of a package, or document.
const LIMIT_BYTES: u64 = 64 << 20;

/// Fetches.
pub(crate) struct Fetcher {
    http: Http,
    credentials: IndexCredentials,
    connectivity: Connectivity,
    cache: PathBuf,
}

impl Fetcher {
    pub(super) fn new(
        environment: &Environment,
        connectivity: Connectivity,
        project: &std::path::Path,
    ) -> Self {
        Self {
            http: Http::new(environment),
            credentials: IndexCredentials::of(environment, project),
            connectivity,
            cache: environment.cache_dir().join("micropython/files"),
        }
    }

    /// What is at `place`, an address or a path; none when nothing is there.
    pub(super) fn get(&self, place: &str) -> Result<Option<Vec<u8>>, MipError> {
        let url: Option<Url> = place.contains("://").then(|| place.parse().ok()).flatten();
        let path = match url {
            None => PathBuf::from(place),
            Some(url) if url.scheme() == "file" => {
                url.to_file_path().map_err(|()| MipError::Fetch {
                    what: place.to_owned(),
                    why: "the address is no path of this machine".to_owned(),
                })?
            }
            Some(url) => return self.download(place, url),
        };
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    fn download(&self, place: &str, url: Url) -> Result<Option<Vec<u8>>, MipError> {
        if self.connectivity == Connectivity::Offline {
            return Err(MipError::Offline {
                what: place.to_owned(),
            });
        }
        let url = self.credentials.add_to(url);
        match self.http.get(&url, "*/*", LIMIT_BYTES) {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(HttpError::Request { source, .. })
                if matches!(*source, ureq::Error::StatusCode(404 | 410)) =>
            {
                Ok(None)
            }
            Err(error) => Err(MipError::Fetch {
                what: place.to_owned(),
                why: crate::error::chain(&error),
            }),
        }
    }

    /// The file with this hash, from the cache or one of `places`; every byte is checked.
    pub(super) fn checked(
        &self,
        package: &str,
        file: &str,
        places: &[String],
        sha256: Sha256,
    ) -> Result<Vec<u8>, MipError> {
        let cached = self.cached(sha256);
        if let Ok(bytes) = fs::read(&cached)
            && Sha256::of(&bytes) == sha256
        {
            return Ok(bytes);
        }
        let mut found = None;
        for place in places {
            found = self.get(place)?.map(|bytes| (place, bytes));
            if found.is_some() {
                break;
            }
        }
        let Some((_, bytes)) = found else {
            return Err(MipError::Fetch {
                what: places.join("`, `"),
                why: "it is not there any more".to_owned(),
            });
        };
        let hash = Sha256::of(&bytes);
        if hash != sha256 {
            return Err(MipError::Hash {
                package: package.to_owned(),
                file: file.to_owned(),
                found: hash.to_string(),
                expected: sha256.to_string(),
            });
        }
        self.keep(&bytes, sha256);
        Ok(bytes)
    }

    /// Keeps `bytes` for later; a cache that cannot be written costs time only.
    pub(super) fn keep(&self, bytes: &[u8], sha256: Sha256) {
        let cached = self.cached(sha256);
        if let Err(error) = scratch::write(&cached, bytes, scratch::Kind::Data) {
            tracing::debug!(%error, path = %cached.display(), "cannot cache a file");
        }
    }

    fn cached(&self, sha256: Sha256) -> PathBuf {
        let name = sha256.to_string();
        self.cache.join(&name[..2]).join(&name[2..])
    }
}
