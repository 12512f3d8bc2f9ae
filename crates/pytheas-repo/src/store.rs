//! Where a repository is written: a folder, or any `object_store` URL.
//!
//! What publishing relies on: a put is whole or nothing, a folder's puts survive a power cut, and
//! two writers find out about each other (a lock in folders, conditional puts elsewhere).

mod made;
mod patient;
mod sweep;

use std::{
    fmt, io,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use miette::Diagnostic;
use object_store::{
    Certificate, ClientOptions, GetOptions, GetRange, HeaderMap, HeaderValue, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
    http::HttpBuilder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};
use pytheas_durable::{FileLock, LockError};
use tokio::io::AsyncReadExt;
use url::Url;

pub(crate) use sweep::Lying;

/// Larger files are sent in parts of this size, in bytes.
const PART: usize = 8 << 20;

/// How often a folder may vanish while it is opened.
const FOLDER_ATTEMPTS: usize = 20;

/// A place for a repository.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    shown: String,
    kind: Kind,
    /// Gone with the last clone, unless something was written.
    _made: Option<Arc<made::Made>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Locked while it is written.
    Folder(PathBuf),
    /// Puts whole files only, and cannot put on a condition.
    Http,
    /// Everything else.
    Cloud,
}

/// A store that does not do what is asked.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StoreError {
    /// The location cannot be understood.
    #[error("`{location}` is no place for a repository: {why}")]
    #[diagnostic(
        code(pytheas::store::location),
        help(
            "a folder, or a URL such as `http://hub:8470/repo`, `s3://bucket/prefix`, `file:///srv/repo`"
        )
    )]
    Location {
        /// What was given.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// Not allowed.
    #[error("`{store}` does not allow to {action} `{path}`")]
    #[diagnostic(
        code(pytheas::store::forbidden),
        help(
            "is the token right, and does it have the role `publisher`? (with S3: the AWS_* variables)"
        )
    )]
    Forbidden {
        /// The store.
        store: String,
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the store says.
        source: Box<object_store::Error>,
    },
    /// A server that only serves files.
    #[error("`{store}` serves a repository and takes nothing")]
    #[diagnostic(
        code(pytheas::store::read_only),
        help(
            "publish to the folder that this server serves, to its bucket, or to a hub's `/repo`; a plain web server's folder may be filled with `rsync` afterwards, `metadata/timestamp.json` last"
        )
    )]
    ReadOnly {
        /// The store.
        store: String,
    },
    /// Another writer was there first.
    #[error("`{path}` in `{store}` was changed by another publisher meanwhile")]
    #[diagnostic(
        code(pytheas::store::network::conflict),
        help("run the command again: it goes on from what the other one published")
    )]
    Conflict {
        /// The store.
        store: String,
        /// The file.
        path: String,
    },
    /// Another process is writing.
    #[error("someone else is publishing to `{store}`")]
    #[diagnostic(
        code(pytheas::store::network::locked),
        help("wait until it is done and run the command again")
    )]
    Locked {
        /// The store.
        store: String,
        /// Who.
        source: LockError,
    },
    /// More than was expected.
    #[error("`{path}` in `{store}` is larger than the {limit_bytes} bytes allowed")]
    #[diagnostic(code(pytheas::store::too_large))]
    TooLarge {
        /// The store.
        store: String,
        /// The file.
        path: String,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The store fails.
    #[error("cannot {action} `{path}` in `{store}`")]
    #[diagnostic(
        code(pytheas::store::network::failed),
        help(
            "is the store reachable (a hub's is at `/repo`), is there room, and may this user {action} there?"
        )
    )]
    Failed {
        /// The store.
        store: String,
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the store says.
        source: Box<object_store::Error>,
    },
    /// A local file fails.
    #[error("cannot use `{}`", path.display())]
    #[diagnostic(
        code(pytheas::store::io::local),
        help("is the disk full, or the folder not yours?")
    )]
    Local {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A file, and which version of it this is.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) bytes: Bytes,
    version: UpdateVersion,
}

/// Why a file was not read.
enum Read {
    /// It had begun to come.
    BrokeOff(object_store::Error),
    Failed(StoreError),
}

impl Store {
    /// The store at `location`: a folder (made if missing) or a URL. `token` is the bearer token
    /// for HTTP.
    ///
    /// # Errors
    /// [`StoreError::Location`] when it cannot be understood; [`StoreError::Local`] when the
    /// folder cannot be made.
    pub fn open(location: &str, token: Option<&str>) -> Result<Self, StoreError> {
        Self::open_trusting(location, token, None)
    }

    /// As [`Self::open`]; with HTTP the certificate authorities in `ca` (PEM) are trusted besides
    /// the well-known ones.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_trusting(
        location: &str,
        token: Option<&str>,
        ca: Option<&[u8]>,
    ) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Location {
            location: location.to_owned(),
            why,
        };
        if !location.contains("://") {
            return Self::folder(FsPath::new(location));
        }
        let url = Url::parse(location).map_err(|error| wrong(error.to_string()))?;
        match url.scheme() {
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| wrong("not a local path".into()))?;
                Self::folder(&path)
            }
            "http" | "https" => Self::http(&url, token, ca),
            _ => {
                let (objects, prefix) = object_store::parse_url_opts(&url, std::env::vars())
                    .map_err(|error| wrong(error.to_string()))?;
                let objects: Arc<dyn ObjectStore> = Arc::from(objects);
                let objects = Arc::new(PrefixStore::new(objects, prefix));
                Ok(Self {
                    objects,
                    shown: location.to_owned(),
                    kind: Kind::Cloud,
                    _made: None,
                })
            }
        }
    }

    /// The store in the folder `path`, made if missing.
    ///
    /// # Errors
    /// [`StoreError::Local`] when it cannot be made.
    pub fn folder(path: &FsPath) -> Result<Self, StoreError> {
        let local = |source| StoreError::Local {
            path: path.to_owned(),
            source,
        };
        let made = made::Made::by_making(path);
        let (path, objects) = retried(|| {
            pytheas_durable::create_dir_all(path)?;
            let path = path.canonicalize()?;
            match LocalFileSystem::new_with_prefix(&path) {
                Ok(objects) => Ok((path, objects.with_fsync(true))),
                Err(_) if !path.exists() => Err(io::ErrorKind::NotFound.into()),
                Err(error) => Err(io::Error::other(error)),
            }
        })
        .map_err(local)?;
        let shown = path.display().to_string();
        Ok(Self {
            objects: Arc::new(objects),
            shown,
            kind: Kind::Folder(path),
            _made: (!made.is_nothing()).then(|| Arc::new(made)),
        })
    }

    fn http(url: &Url, token: Option<&str>, ca: Option<&[u8]>) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Location {
            location: url.to_string(),
            why,
        };
        // With a final slash the paths of files would get two.
        let url = url.as_str().trim_end_matches('/');
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| wrong("the token has characters that no token has".into()))?;
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        let certificates = Certificate::from_pem_bundle(ca.unwrap_or_default())
            .map_err(|error| wrong(format!("the certificates cannot be used: {error}")))?;
        if ca.is_some() && certificates.is_empty() {
            return Err(wrong("the file of certificates holds none".into()));
        }
        let options = certificates
            .into_iter()
            .fold(ClientOptions::new(), ClientOptions::with_root_certificate)
            .with_allow_http(true) // what is signed needs no secrecy, and hubs live on loopback too
            .with_default_headers(headers)
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout_disabled(); // by size and progress instead: see `patient`
        let retry = RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        };
        let objects = HttpBuilder::new()
            .with_url(url)
            .with_client_options(options)
            .with_retry(retry)
            .with_http_connector(patient::Patient)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            objects: Arc::new(objects),
            shown: url.to_owned(),
            kind: Kind::Http,
            _made: None,
        })
    }

    /// A store that is open already; `shown` is what messages call it.
    pub fn from_objects(objects: Arc<dyn ObjectStore>, shown: &str) -> Self {
        Self {
            objects,
            shown: shown.to_owned(),
            kind: Kind::Cloud,
            _made: None,
        }
    }

    /// Keeps other writers of a folder away while the result lives; other stores have no locks
    /// (`None`), their puts are conditional. The hub takes it while it stores what is put by HTTP.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process is writing.
    pub fn lock(&self) -> Result<Option<FileLock>, StoreError> {
        let Kind::Folder(path) = &self.kind else {
            return Ok(None);
        };
        let mut held = None;
        let lock = retried(|| {
            pytheas_durable::create_dir_all(path)?;
            match FileLock::acquire(&path.join(made::LOCK)) {
                Err(LockError::Io { source, .. }) => Err(source),
                Err(other) => {
                    held = Some(other);
                    Ok(None)
                }
                Ok(lock) => Ok(Some(lock)),
            }
        });
        let path = path.join(made::LOCK);
        let lock = lock.map_err(|source| StoreError::Local { path, source })?;
        match held {
            None => Ok(lock),
            Some(source) => Err(StoreError::Locked {
                store: self.shown.clone(),
                source,
            }),
        }
    }

    /// The file `path`, if it is there, at most `limit_bytes` long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, path: &str, limit_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .read(path, None, limit_bytes)
            .await?
            .map(|seen| seen.bytes))
    }

    /// As [`Self::get`], with what is needed to replace exactly this version.
    pub(crate) async fn look(&self, path: &str, limit: u64) -> Result<Option<Seen>, StoreError> {
        self.read(path, None, limit).await
    }

    /// What broke off, or fell silent, is asked for once more.
    pub(crate) async fn read(
        &self,
        path: &str,
        range: Option<std::ops::Range<u64>>,
        limit_bytes: u64,
    ) -> Result<Option<Seen>, StoreError> {
        match self.read_once(path, range.clone(), limit_bytes).await {
            Err(Read::BrokeOff(error)) => {
                tracing::warn!("`{path}` in `{self}` broke off ({error}); asking once more");
                let again = self.read_once(path, range, limit_bytes).await;
                again.map_err(|error| self.unread(path, error))
            }
            other => other.map_err(|error| self.unread(path, error)),
        }
    }

    fn unread(&self, path: &str, error: Read) -> StoreError {
        match error {
            Read::BrokeOff(source) => self.failed("read", path, source),
            Read::Failed(error) => error,
        }
    }

    async fn read_once(
        &self,
        path: &str,
        range: Option<std::ops::Range<u64>>,
        limit_bytes: u64,
    ) -> Result<Option<Seen>, Read> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let result = match self.objects.get_opts(&Path::from(path), options).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|source| Read::Failed(self.failed("read", path, source)))?,
        };
        let length = result.range.end - result.range.start;
        if length > limit_bytes {
            let (store, path) = (self.shown.clone(), path.to_owned());
            return Err(Read::Failed(StoreError::TooLarge {
                store,
                path,
                limit_bytes,
            }));
        }
        let version = UpdateVersion {
            e_tag: result.meta.e_tag.clone(),
            version: result.meta.version.clone(),
        };
        let bytes = result.bytes().await.map_err(Read::BrokeOff)?;
        Ok(Some(Seen { bytes, version }))
    }

    /// The file `path` as it comes, if it is there: for what is too long for memory.
    pub(crate) async fn chunks(
        &self,
        path: &str,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        let result = match self.objects.get(&Path::from(path)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|source| self.failed("read", path, source))?,
        };
        let (store, path) = (self.clone(), path.to_owned());
        let chunks = result.into_stream();
        Ok(Some(
            chunks
                .map_err(move |source| store.failed("read", &path, source))
                .boxed(),
        ))
    }

    /// Length of the file `path` in bytes, if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn size_bytes(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&Path::from(path)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            other => Ok(Some(
                other
                    .map_err(|source| self.failed("read", path, source))?
                    .size,
            )),
        }
    }

    /// Writes the file `path`, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(path, bytes, PutMode::Overwrite).await
    }

    /// As [`Self::put`], for a file that must not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.kind == Kind::Http {
            // HTTP stores know no conditions: look first. (A hub refuses to replace it anyway.)
            if self.size_bytes(path).await?.is_some() {
                return Err(self.conflict(path));
            }
            return self.put(path, bytes).await;
        }
        self.write(path, bytes, PutMode::Create).await
    }

    /// Writes the file `path` in place of the version `seen` (`None`: of none at all).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is another one by now.
    pub(crate) async fn replace(
        &self,
        path: &str,
        bytes: Bytes,
        seen: Option<&Seen>,
    ) -> Result<(), StoreError> {
        let Some(seen) = seen else {
            return self.create(path, bytes).await;
        };
        if self.kind == Kind::Cloud {
            let mode = PutMode::Update(seen.version.clone());
            match self.write(path, bytes.clone(), mode).await {
                Err(StoreError::Failed { source, .. })
                    if matches!(
                        *source,
                        object_store::Error::NotImplemented { .. }
                            | object_store::Error::NotSupported { .. }
                    ) => {}
                other => return other,
            }
        }
        // Folders are locked; a hub refuses a timestamp that is not newer; elsewhere the window
        // between looking and writing stays.
        let now = self.look(path, u64::MAX).await?;
        if now.is_none_or(|now| now.bytes != seen.bytes) {
            return Err(self.conflict(path));
        }
        self.put(path, bytes).await
    }

    /// Writes the local file `from` (of `size_bytes`) as `path`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_file(
        &self,
        path: &str,
        from: &FsPath,
        size_bytes: u64,
    ) -> Result<(), StoreError> {
        let local = |source| StoreError::Local {
            path: from.to_owned(),
            source,
        };
        let mut file = tokio::fs::File::open(from).await.map_err(local)?;
        let failed = |source| self.failed("write", path, source);
        if self.kind == Kind::Http || size_bytes <= 2 * PART as u64 {
            let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
            file.read_to_end(&mut bytes).await.map_err(local)?;
            return self.put(path, bytes.into()).await;
        }
        let upload = self
            .objects
            .put_multipart(&Path::from(path))
            .await
            .map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut buffer = vec![0; PART];
        loop {
            upload.wait_for_capacity(2).await.map_err(failed)?;
            match file.read(&mut buffer).await.map_err(local)? {
                0 => break,
                n => upload.write(&buffer[..n]),
            }
        }
        upload.finish().await.map(drop).map_err(failed)
    }

    async fn write(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let payload = PutPayload::from(bytes);
        match self
            .objects
            .put_opts(&Path::from(path), payload, options)
            .await
        {
            Ok(_) => Ok(()),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Err(self.conflict(path)),
            Err(source) => Err(self.failed("write", path, source)),
        }
    }

    /// Its folder, if that is `dir` or lies in it.
    pub(crate) fn lies_in(&self, dir: &FsPath) -> Option<PathBuf> {
        let Kind::Folder(folder) = &self.kind else {
            return None;
        };
        let (folder, dir) = (folder.canonicalize().ok()?, dir.canonicalize().ok()?);
        folder.starts_with(dir).then_some(folder)
    }

    fn conflict(&self, path: &str) -> StoreError {
        StoreError::Conflict {
            store: self.shown.clone(),
            path: path.to_owned(),
        }
    }

    fn failed(&self, action: &'static str, path: &str, source: object_store::Error) -> StoreError {
        let (store, path, source) = (self.shown.clone(), path.to_owned(), Box::new(source));
        if self.kind == Kind::Http && action == "write" && knows_no_put(&source) {
            return StoreError::ReadOnly { store };
        }
        match *source {
            object_store::Error::Unauthenticated { .. }
            | object_store::Error::PermissionDenied { .. } => StoreError::Forbidden {
                store,
                action,
                path,
                source,
            },
            _ => StoreError::Failed {
                store,
                action,
                path,
                source,
            },
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shown)
    }
}

/// What `work` in a folder gives, which another publisher may have made, put nothing into, and may be
/// removing at this moment.
fn retried<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..FOLDER_ATTEMPTS {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    work()
}

/// Whether this is a web server's word that it takes no files: status 405 or 501, which the client
/// tells in words only.
fn knows_no_put(error: &object_store::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if text.contains("status code: 405") || text.contains("status code: 501") {
            return true;
        }
        next = error.source();
    }
    false
}
