//! Distributions to a package index, by the upload API that every index speaks ("legacy"): one
//! multipart form a file, with the fields of its metadata.
//!
//! Before a file is sent, the index's simple API (PEP 503/691) is asked whether it is there; an
//! index that says so only when it refuses the upload is understood, too.

#[cfg(test)]
mod answers;
mod attestation;
mod credentials;
mod distribution;

use std::{io, path::PathBuf, time::Duration};

use miette::Diagnostic;
use pytheas_project::{
    Index,
    http::{Http, HttpError},
};
use pytheas_release::Sha256;
use url::Url;

pub use attestation::{AttestationError, attestations_of};
pub use credentials::{Credentials, Given};
pub use distribution::Distribution;

/// An upload that was not made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum UploadError {
    /// Not a wheel or source distribution.
    #[error("`{}` is no wheel and no source distribution: {reason}", path.display())]
    #[diagnostic(
        code(pytheas::upload::not_a_distribution),
        help("build them with `pytheas build --form wheel`")
    )]
    NotADistribution {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::upload::read),
        help("check that the file exists and its permissions allow it")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The index does not answer.
    #[error("cannot reach the index `{index}`")]
    #[diagnostic(
        code(pytheas::upload::network),
        help("check the address, the network and the proxy settings; files uploaded before stay")
    )]
    Network {
        /// Its address.
        index: String,
        /// Why.
        source: HttpError,
    },
    /// The index ends the connection while the file goes there.
    #[error("the index `{index}` broke off while `{file}` ({size_bytes} bytes) was sent")]
    #[diagnostic(
        code(pytheas::upload::network::broken_off),
        help(
            "it, or a proxy before it, does not take the file: perhaps it is too large for them, or they want other credentials; files uploaded before stay"
        )
    )]
    BrokenOff {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// Its size.
        size_bytes: u64,
        /// What the system says.
        source: HttpError,
    },
    /// Wrong or no credentials.
    #[error("the index `{index}` refuses `{file}`: {answer}")]
    #[diagnostic(code(pytheas::upload::credentials), help("{help}"))]
    Credentials {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// What it says.
        answer: String,
        /// What to do.
        help: String,
    },
    /// The index does not take the file.
    #[error("the index `{index}` does not take `{file}`: {answer}")]
    #[diagnostic(
        code(pytheas::upload::not_taken),
        help(
            "check the address (it is that of uploads) and what the index says; files uploaded before stay"
        )
    )]
    Refused {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// What it says.
        answer: String,
    },
    /// The index is in trouble, or too busy.
    #[error("the index `{index}` cannot take `{file}` now: {answer}")]
    #[diagnostic(
        code(pytheas::upload::failed),
        help("try again later; files uploaded before stay and are passed over")
    )]
    Trouble {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// What it says.
        answer: String,
    },
    /// The index names another address.
    #[error("the index `{index}` sends `{file}` on to `{to}`")]
    #[diagnostic(
        code(pytheas::upload::moved),
        help(
            "nothing was sent there; if that is your index's address for uploads (and no log-in page), give it with `--index`"
        )
    )]
    Moved {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// Where to.
        to: String,
    },
    /// Something that is no index answers.
    #[error(
        "what answers at `{index}` is no package index: a web page came for `{file}`: {answer}"
    )]
    #[diagnostic(
        code(pytheas::upload::page),
        help(
            "it is not known whether the file arrived; check that the address is that of uploads, and that no log-in page or proxy stands before it"
        )
    )]
    Page {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// The page's words.
        answer: String,
    },
    /// Another file of the same name is there.
    #[error("the index `{index}` has another `{file}`")]
    #[diagnostic(
        code(pytheas::upload::other_content),
        help(
            "its SHA-256 is {theirs}, this one's is {ours}; indexes do not replace files: publish a new version"
        )
    )]
    OtherContent {
        /// Its address.
        index: String,
        /// The file.
        file: String,
        /// The hash there.
        theirs: Sha256,
        /// The hash here.
        ours: Sha256,
    },
}

/// How long is waited before a file goes once more to an index that is in trouble.
pub const UPLOAD_PAUSES: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(4)];

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It is there now.
    New,
    /// It was there before.
    Before,
    /// It would be uploaded.
    Would,
}

/// Whether anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Yes.
    Real,
    /// No: `--dry-run`.
    Dry,
}

/// Where distributions go.
pub struct Target<'a> {
    /// The address of uploads.
    pub url: &'a Url,
    /// The simple API's root, when it is not `simple/` below `url`.
    pub check: Option<&'a Url>,
    /// Who we are.
    pub credentials: Option<&'a Credentials>,
    /// The client.
    pub http: &'a Http,
    /// The pauses before further tries, [`UPLOAD_PAUSES`].
    pub pauses: &'a [Duration],
}

impl Target<'_> {
    /// Uploads `file`, unless it is there.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub fn upload(&self, file: &Distribution, sending: Sending) -> Result<Uploaded, UploadError> {
        if self.is_there(file)? {
            return Ok(Uploaded::Before);
        }
        if sending == Sending::Dry {
            return Ok(Uploaded::Would);
        }
        let mut pauses = self.pauses.iter();
        loop {
            match (self.send(file), pauses.next()) {
                (Err(UploadError::Trouble { answer, .. }), Some(pause)) => {
                    tracing::debug!(answer, "sending `{}` again", file.file_name);
                    std::thread::sleep(*pause);
                }
                (result, _) => return result,
            }
        }
    }

    /// Sends `file` and judges the answer.
    fn send(&self, file: &Distribution) -> Result<Uploaded, UploadError> {
        let (kind, body) = file.form();
        let authorization = self.credentials.map(Credentials::header);
        let answer = self
            .http
            .post(self.url, authorization.as_deref(), &kind, &body)
            .map_err(|source| match source {
                source if source.is_broken_off() => UploadError::BrokenOff {
                    index: shown(self.url),
                    file: file.file_name.clone(),
                    size_bytes: file.size_bytes(),
                    source,
                },
                source => UploadError::Network {
                    index: shown(self.url),
                    source,
                },
            })?;
        let (status, text) = (answer.status, answer.text);
        let said = summary(status, &text);
        let lower = text.to_lowercase();
        let exists = ["already exist", "already been taken", "already uploaded"]
            .iter()
            .any(|words| lower.contains(words));
        match status {
            // A page to log in at, a portal, a proxy: an index answers with nothing, or a word.
            200..=299 if is_page(&lower) => Err(UploadError::Page {
                index: shown(self.url),
                file: file.file_name.clone(),
                answer: said,
            }),
            200..=299 => Ok(Uploaded::New),
            // Followed, it would become a request without the file, or give it to somebody else.
            300..=399 if answer.moved_to.is_some() => Err(UploadError::Moved {
                index: shown(self.url),
                file: file.file_name.clone(),
                to: answer.moved_to.unwrap_or_default(),
            }),
            409 => Ok(Uploaded::Before),
            400 | 403 if exists => Ok(Uploaded::Before),
            401 | 403 => Err(UploadError::Credentials {
                index: shown(self.url),
                file: file.file_name.clone(),
                answer: said,
                help: match self.credentials {
                    None => "give a token with `PYTHEAS_INDEX_TOKEN`, or user and password with `--username` and `PYTHEAS_INDEX_PASSWORD`, or in `~/.netrc`".to_owned(),
                    Some(given) => format!("the credentials came from {}; check them, and that they may upload this project", given.origin),
                },
            }),
            429 | 500 | 502..=504 => Err(UploadError::Trouble {
                index: shown(self.url),
                file: file.file_name.clone(),
                answer: said,
            }),
            _ => Err(UploadError::Refused {
                index: shown(self.url),
                file: file.file_name.clone(),
                answer: said,
            }),
        }
    }

    /// Whether the index lists the file. One that has no such page, or refuses to show it, is asked
    /// by uploading.
    fn is_there(&self, file: &Distribution) -> Result<bool, UploadError> {
        let mut url = match self.check {
            Some(url) => url.clone(),
            None => {
                let mut url = self.url.clone();
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                url.join("simple/").unwrap_or(url)
            }
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        if let Some(credentials) = self.credentials.filter(|_| url.host() == self.url.host()) {
            credentials.add_to(&mut url);
        }
        let index = Index {
            url,
            configured_by: "--index".to_owned(),
        };
        let name = pytheas_project::normalised_name(&file.name);
        let found = match index.find(self.http, &name, &file.file_name) {
            Ok(found) => found,
            Err(HttpError::Request { source, .. })
                if matches!(*source, ureq::Error::StatusCode(_)) =>
            {
                return Ok(false);
            }
            Err(source) => {
                return Err(UploadError::Network {
                    index: index.shown(),
                    source,
                });
            }
        };
        let Some(link) = found else {
            return Ok(false);
        };
        // The same name with other bytes is no reason for joy.
        let (bytes, _) =
            self.http
                .get(&link, "*/*", 4 << 30)
                .map_err(|source| UploadError::Network {
                    index: index.shown(),
                    source,
                })?;
        let theirs = Sha256::of(&bytes);
        if theirs != file.sha256 {
            return Err(UploadError::OtherContent {
                index: shown(self.url),
                file: file.file_name.clone(),
                theirs,
                ours: file.sha256,
            });
        }
        Ok(true)
    }
}

/// The address without credentials.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for addresses that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Whether a lower-case text is a web page.
fn is_page(text: &str) -> bool {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// The text without what a page has for browsers only.
fn without_styles(text: &str) -> String {
    let mut text = text.to_owned();
    for (start, end) in [
        ("<style", "</style>"),
        ("<script", "</script>"),
        ("<title", "</title>"),
    ] {
        // In ASCII's lower case all places stay where they are.
        while let Some(from) = text.to_ascii_lowercase().find(start) {
            let length = text[from..].to_ascii_lowercase().find(end);
            let to = length.map_or(text.len(), |length| from + length + end.len());
            text.replace_range(from..to, " ");
        }
    }
    text
}

/// What an index says, in one line: its text without tags, at most 300 characters.
fn summary(status: u16, text: &str) -> String {
    let mut plain = String::new();
    let mut in_tag = false;
    let shown: String = text.chars().take(20_000).collect();
    for c in without_styles(&shown).chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                plain.push(' ');
            }
            c if !in_tag && !c.is_control() => plain.push(c),
            _ => plain.push(' '),
        }
    }
    let words: Vec<&str> = plain.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(300).collect();
    if line.is_empty() {
        format!("status {status}")
    } else {
        format!("status {status}, {line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_says_is_told_without_its_styles() {
        let page = "<!DOCTYPE HTML><head><title>Error</title><STYLE>html {color: #eee}</style></head><body><h1>Forbidden</h1> no\nway<script>x()";
        assert_eq!(summary(403, page), "status 403, Forbidden no way");
        assert_eq!(summary(500, ""), "status 500");
        assert!(is_page(&page.to_lowercase()) && is_page("\u{feff} <html><body>"));
        assert!(!is_page("") && !is_page("ok") && !is_page("{\"message\": \"201 created\"}"));
    }
}
