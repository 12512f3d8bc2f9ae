//! Where advisories come from: a folder of OSV documents, a zip of them (the `all.zip` of an
//! ecosystem), or a server that speaks OSV's API (`POST /v1/querybatch`, `GET /v1/vulns/ID`).

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use miette::Diagnostic;
use pytheas_project::http::{Http, HttpError};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use walkdir::WalkDir;
use zip::ZipArchive;

use super::{
    advisory::{Advisory, Kind},
    subject::Part,
};

/// The public service.
pub const OSV_API: &str = "https://api.osv.dev";
/// One advisory is not larger, in bytes.
const DOCUMENT_MAX: u64 = 16 << 20;
/// Nor is a database.
const DATABASE_MAX: u64 = 2 << 30;
/// What the service takes in one request.
const BATCH: usize = 1000;
/// Requests under way at once.
const AT_ONCE: usize = 8;

/// A database of advisories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A folder, or a zip file.
    Path(PathBuf),
    /// A zip file with this address.
    Zip(Url),
    /// A server with OSV's API.
    Server(Url),
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let mut url = Url::parse(text).map_err(|error| format!("`{text}`: {error}"))?;
        if url.path().to_ascii_lowercase().ends_with(".zip") {
            return Ok(Self::Zip(url));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self::Server(url))
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Zip(url) | Self::Server(url) => {
                let mut url = url.clone();
                // Both fail only for addresses that cannot have credentials.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                f.write_str(url.as_str().trim_end_matches('/'))
            }
        }
    }
}

/// A database that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DatabaseError {
    /// It cannot be read.
    #[error("cannot read the advisories in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::audit::read),
        help("give a folder of OSV documents (JSON), or the `all.zip` of OSV's ecosystem `PyPI`")
    )]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is none in it.
    #[error("there are no advisories in `{database}`")]
    #[diagnostic(
        code(pytheas::audit::database::empty),
        help(
            "give a folder of OSV documents (`*.json`, also in folders below), or the `all.zip` of OSV's ecosystem `PyPI`"
        )
    )]
    Empty {
        /// The database.
        database: String,
    },
    /// A document that is none: what it says would be missed.
    #[error("`{document}` in `{database}` is no OSV document")]
    #[diagnostic(
        code(pytheas::audit::database::document),
        help("fetch the database again; nothing is reported from half of one")
    )]
    Document {
        /// The database.
        database: String,
        /// The file in it.
        document: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The server does not answer.
    #[error("cannot ask `{database}` for advisories")]
    #[diagnostic(
        code(pytheas::audit::network),
        help(
            "check the network and the proxy settings; offline, give a folder or `all.zip` with `--database`"
        )
    )]
    Network {
        /// The database.
        database: String,
        /// Why.
        source: HttpError,
    },
    /// The server says something else.
    #[error("`{database}` does not answer as OSV's API does: {reason}")]
    #[diagnostic(
        code(pytheas::audit::database::answer),
        help("give the root of the API: what `v1/querybatch` lies below")
    )]
    Answer {
        /// The database.
        database: String,
        /// What is wrong.
        reason: String,
    },
    /// No network allowed.
    #[error("`{database}` is on the network, which `--offline` forbids")]
    #[diagnostic(
        code(pytheas::audit::offline),
        help(
            "give a folder of OSV documents, or the `all.zip` of OSV's ecosystem `PyPI`, with `--database`"
        )
    )]
    Offline {
        /// The database.
        database: String,
    },
}

/// The advisories that speak of some of the parts.
#[derive(Debug, Default)]
pub(super) struct Relevant {
    pub(super) advisories: Vec<Advisory>,
    /// How many there are in the whole database, where that is known.
    pub(super) total: Option<usize>,
    /// Whether the database has any on CPython itself.
    pub(super) knows_interpreter: bool,
}

impl Relevant {
    fn take(&mut self, advisory: Advisory, names: &BTreeSet<(Kind, &str)>) {
        *self.total.get_or_insert_default() += 1;
        let is_about = |kind| {
            names
                .iter()
                .any(|(own, name)| *own == kind && advisory.is_about(kind, name))
        };
        let of_interpreter = advisory.is_about(Kind::Interpreter, "");
        self.knows_interpreter |= of_interpreter;
        if is_about(Kind::Package) || (of_interpreter && is_about(Kind::Interpreter)) {
            self.advisories.push(advisory);
        }
    }
}

impl Database {
    /// The advisories for `parts`.
    pub(super) fn load(&self, parts: &[Part], http: &Http) -> Result<Relevant, DatabaseError> {
        let names: BTreeSet<(Kind, &str)> = parts
            .iter()
            .map(|part| (part.kind, part.name.as_str()))
            .collect();
        let mut relevant = Relevant::default();
        match self {
            Self::Path(path) if path.is_dir() => self.folder(path, &names, &mut relevant)?,
            Self::Path(path) => {
                let read = |source| DatabaseError::Read {
                    path: path.clone(),
                    source,
                };
                let file = std::fs::File::open(path).map_err(read)?;
                self.zip(file, path, &names, &mut relevant)?;
            }
            Self::Zip(url) => {
                let (bytes, _) = http
                    .get(url, "*/*", DATABASE_MAX)
                    .map_err(|source| self.network(source))?;
                let path = PathBuf::from(self.to_string());
                self.zip(io::Cursor::new(bytes), &path, &names, &mut relevant)?;
            }
            Self::Server(url) => return self.server(url, parts, http),
        }
        if relevant.total.is_none() {
            return Err(DatabaseError::Empty {
                database: self.to_string(),
            });
        }
        Ok(relevant)
    }

    fn network(&self, source: HttpError) -> DatabaseError {
        DatabaseError::Network {
            database: self.to_string(),
            source,
        }
    }

    fn document(&self, name: &str, bytes: &[u8]) -> Result<Advisory, DatabaseError> {
        Advisory::parse(bytes).map_err(|source| DatabaseError::Document {
            database: self.to_string(),
            document: name.to_owned(),
            source,
        })
    }

    fn folder(
        &self,
        dir: &Path,
        names: &BTreeSet<(Kind, &str)>,
        relevant: &mut Relevant,
    ) -> Result<(), DatabaseError> {
        for entry in WalkDir::new(dir).follow_links(true).sort_by_file_name() {
            let entry = entry.map_err(|error| DatabaseError::Read {
                path: dir.to_owned(),
                source: error.into(),
            })?;
            let path = entry.path();
            if !entry.file_type().is_file() || path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let mut bytes = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(DOCUMENT_MAX).read_to_end(&mut bytes))
                .map_err(|source| DatabaseError::Read {
                    path: path.to_owned(),
                    source,
                })?;
            let name = path.strip_prefix(dir).unwrap_or(path);
            relevant.take(self.document(&name.to_string_lossy(), &bytes)?, names);
        }
        Ok(())
    }

    fn zip(
        &self,
        file: impl Read + io::Seek,
        path: &Path,
        names: &BTreeSet<(Kind, &str)>,
        relevant: &mut Relevant,
    ) -> Result<(), DatabaseError> {
        let read = |source| DatabaseError::Read {
            path: path.to_owned(),
            source,
        };
        let mut archive = ZipArchive::new(file).map_err(|error| read(io::Error::other(error)))?;
        for index in 0..archive.len() {
            let entry = archive
                .by_index(index)
                .map_err(|error| read(io::Error::other(error)))?;
            let name = entry
                .name()
                .map_err(|error| read(io::Error::other(error)))?;
            let name = name.into_owned();
            if entry.is_dir() || !name.ends_with(".json") {
                continue;
            }
            let mut bytes = Vec::new();
            entry
                .take(DOCUMENT_MAX)
                .read_to_end(&mut bytes)
                .map_err(read)?;
            relevant.take(self.document(&name, &bytes)?, names);
        }
        Ok(())
    }

    /// Asks for ids in batches, then for each document once.
    fn server(&self, url: &Url, parts: &[Part], http: &Http) -> Result<Relevant, DatabaseError> {
        let strange = |reason: String| DatabaseError::Answer {
            database: self.to_string(),
            reason,
        };
        let at = |path: &str| url.join(path).map_err(|error| strange(error.to_string()));
        let query = at("v1/querybatch")?;
        let mut open: Vec<serde_json::Value> = parts
            .iter()
            .filter(|part| part.version.is_some())
            .map(|part| {
                let (ecosystem, name) = match part.kind {
                    Kind::Package => ("PyPI", part.name.as_str()),
                    Kind::Interpreter => ("Bitnami", "python"),
                };
                let version = part.version.as_ref().map(ToString::to_string);
                json!({"package": {"ecosystem": ecosystem, "name": name}, "version": version})
            })
            .collect();
        let mut ids = BTreeSet::new();
        let mut rounds = 0;
        while !open.is_empty() {
            rounds += 1;
            if rounds > 1000 {
                return Err(strange("it never comes to the last page".to_owned()));
            }
            let batch: Vec<_> = open.drain(..open.len().min(BATCH)).collect();
            let body = json!({"queries": batch}).to_string();
            let answer = http
                .post_json(&query, body.as_bytes(), DOCUMENT_MAX)
                .map_err(|source| self.network(source))?;
            let answer: Answer =
                serde_json::from_slice(&answer).map_err(|error| strange(error.to_string()))?;
            if answer.results.len() != batch.len() {
                return Err(strange(format!(
                    "{} answers to {} questions",
                    answer.results.len(),
                    batch.len()
                )));
            }
            for (result, mut asked) in answer.results.into_iter().zip(batch) {
                ids.extend(result.vulns.into_iter().map(|found| found.id));
                if let Some(token) = result.next_page_token.filter(|token| !token.is_empty()) {
                    asked["page_token"] = token.into();
                    open.push(asked);
                }
            }
        }
        let ids: Vec<String> = ids.into_iter().collect();
        if let Some(odd) = ids.iter().find(|id| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            id.is_empty() || !id.chars().all(fits) || id.starts_with('.')
        }) {
            return Err(strange(format!("`{odd}` is no advisory's id")));
        }
        let fetch = |id: &String| {
            let address = at(&format!("v1/vulns/{id}"))?;
            let (bytes, _) = http
                .get(&address, "application/json", DOCUMENT_MAX)
                .map_err(|source| self.network(source))?;
            self.document(id, &bytes)
        };
        let share = ids.len().div_ceil(AT_ONCE).max(1);
        let fetched = std::thread::scope(|scope| {
            let workers: Vec<_> = ids
                .chunks(share)
                .map(|ids| scope.spawn(|| ids.iter().map(fetch).collect::<Result<Vec<_>, _>>()))
                .collect();
            let mut all = Vec::new();
            for worker in workers {
                match worker.join() {
                    Ok(part) => all.extend(part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, DatabaseError>(all)
        })?;
        Ok(Relevant {
            advisories: fetched,
            total: None,
            knows_interpreter: true,
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<QueryResult>,
}

#[derive(Deserialize)]
struct QueryResult {
    #[serde(default)]
    vulns: Vec<Found>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Found {
    id: String,
}
