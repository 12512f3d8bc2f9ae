//! HTTP for fetching tools: one client with the machine's own certificates.

use std::{io::Read, path::PathBuf, sync::Arc, time::Duration};

use base64::Engine as _;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use url::Url;

use crate::{environment::Environment, steady::Steady};

/// No longer silence while something comes, or is sent. A whole body has no limit: a wheel of gigabytes
/// over a slow line may take hours, and [`Steady`] gives up who drips.
const SILENCE: Duration = Duration::from_secs(60);
/// What an index is given time for to look through an upload before it answers, in bytes a second.
const SLOWEST_INDEX: u64 = 1 << 20;

/// Where systems keep the certificates they trust, in the order tried.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",
];

/// An HTTP client.
#[derive(Debug, Clone)]
pub struct Http {
    agent: ureq::Agent,
}

/// What a server says to what was sent.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The start of its text.
    pub text: String,
    /// The address that a redirection names, without credentials.
    pub moved_to: Option<String>,
}

/// A request that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer, or an error status.
    #[error("cannot fetch `{url}`")]
    Request {
        /// The address, without credentials.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Nothing usable came for what was sent.
    #[error("cannot send to `{url}`")]
    Send {
        /// The address, without credentials.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The answer broke off.
    #[error("the answer from `{url}` broke off")]
    Body {
        /// The address, without credentials.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// The answer is larger than anything expected.
    #[error("the answer from `{url}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The address, without credentials.
        url: String,
        /// The limit.
        limit_bytes: u64,
    },
}

impl HttpError {
    /// Whether trying again may help: a broken connection or a server in trouble, no refusal.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Request { source, .. } => match &**source {
                ureq::Error::StatusCode(status) => *status >= 500 || *status == 429,
                _ => true,
            },
            Self::Send { .. } | Self::Body { .. } => true,
            Self::TooLarge { .. } => false,
        }
    }

    /// Whether the server ended the connection while it was sent to.
    pub fn is_broken_off(&self) -> bool {
        use std::io::ErrorKind as Kind;
        let Self::Send { source, .. } = self else {
            return false;
        };
        let ureq::Error::Io(error) = &**source else {
            return false;
        };
        matches!(
            error.kind(),
            Kind::BrokenPipe | Kind::ConnectionReset | Kind::ConnectionAborted
        )
    }

    /// Whether the server does not let us in.
    pub fn is_refusal(&self) -> bool {
        let Self::Request { source, .. } = self else {
            return false;
        };
        matches!(**source, ureq::Error::StatusCode(401 | 403))
    }
}

impl Http {
    /// A client that trusts `SSL_CERT_FILE` or `PIP_CERT`, else the system's certificates, else
    /// the built-in ones.
    pub fn new(environment: &Environment) -> Self {
        let own = environment
            .path("SSL_CERT_FILE")
            .or_else(|| environment.path("PIP_CERT"));
        let roots = own
            .into_iter()
            .chain(SYSTEM_ROOTS.iter().map(PathBuf::from))
            .find_map(|path| certificates(&path))
            .unwrap_or(RootCerts::WebPki);
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .root_certs(roots)
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .user_agent(concat!("pytheas/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent }
    }

    /// The body at `url`, at most `limit_bytes`, and its content type.
    ///
    /// # Errors
    /// When there is no answer, an error status, or more than `limit_bytes`.
    pub fn get(
        &self,
        url: &Url,
        accept: &str,
        limit_bytes: u64,
    ) -> Result<(Vec<u8>, String), HttpError> {
        let (address, authorization) = split_credentials(url);
        let mut request = self.agent.get(&address).header("accept", accept);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().map_err(|source| HttpError::Request {
            url: address.clone(),
            source: Box::new(source),
        })?;
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let mut body = Vec::new();
        Steady::new(response.body_mut().as_reader())
            .take(limit_bytes + 1)
            .read_to_end(&mut body)
            .map_err(|source| HttpError::Body {
                url: address.clone(),
                source,
            })?;
        if body.len() as u64 > limit_bytes {
            return Err(HttpError::TooLarge {
                url: address,
                limit_bytes,
            });
        }
        Ok((body, kind))
    }
}

impl Http {
    /// Sends `body`; gives the answer, whatever its status. Redirections are not followed.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(
        &self,
        url: &Url,
        authorization: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer, HttpError> {
        let (address, own) = split_credentials(url);
        let patience = SILENCE + Duration::from_secs(body.len() as u64 / SLOWEST_INDEX);
        let mut request = self
            .agent
            .post(&address)
            .config()
            .timeout_recv_response(Some(patience))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_recv_body(Some(Duration::from_secs(20)))
            .build()
            .header("content-type", content_type);
        if let Some(authorization) = authorization.or(own.as_deref()) {
            request = request.header("authorization", authorization);
        }
        let mut response = request.send(body).map_err(|source| HttpError::Send {
            url: address,
            source: Box::new(source),
        })?;
        let location = response.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok());
        let location = location.and_then(|to| url.join(to).ok());
        let mut text = Vec::new();
        // The status tells; a text that breaks off takes nothing from it.
        let _ = response
            .body_mut()
            .as_reader()
            .take(64 << 10)
            .read_to_end(&mut text);
        Ok(Answer {
            status: response.status().as_u16(),
            text: String::from_utf8_lossy(&text).into_owned(),
            moved_to: location.map(|to| split_credentials(&to).0),
        })
    }
}

impl Http {
    /// The answer to the JSON document `body`, at most `limit_bytes`.
    ///
    /// # Errors
    /// When there is no answer, an error status, or more than `limit_bytes`.
    pub fn post_json(
        &self,
        url: &Url,
        body: &[u8],
        limit_bytes: u64,
    ) -> Result<Vec<u8>, HttpError> {
        let (address, authorization) = split_credentials(url);
        let mut request = self
            .agent
            .post(&address)
            .header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.send(body).map_err(|source| HttpError::Request {
            url: address.clone(),
            source: Box::new(source),
        })?;
        let mut answer = Vec::new();
        Steady::new(response.body_mut().as_reader())
            .take(limit_bytes + 1)
            .read_to_end(&mut answer)
            .map_err(|source| HttpError::Body {
                url: address.clone(),
                source,
            })?;
        if answer.len() as u64 > limit_bytes {
            return Err(HttpError::TooLarge {
                url: address,
                limit_bytes,
            });
        }
        Ok(answer)
    }
}

/// The address without credentials, and the header that carries them.
fn split_credentials(url: &Url) -> (String, Option<String>) {
    let mut plain = url.clone();
    // Both fail only for addresses that cannot have credentials.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    let user = percent_decoded(url.username());
    if user.is_empty() && url.password().is_none() {
        return (plain.into(), None);
    }
    let password = percent_decoded(url.password().unwrap_or(""));
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    (plain.into(), Some(format!("Basic {encoded}")))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = rest
            .clone()
            .take(2)
            .map(|b| (b as char).to_digit(16))
            .collect::<Option<Vec<_>>>();
        match (byte, digits.as_deref()) {
            (b'%', Some([high, low])) => {
                bytes.push((high * 16 + low) as u8);
                rest.nth(1);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn certificates(path: &std::path::Path) -> Option<RootCerts> {
    let bytes = std::fs::read(path).ok()?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!found.is_empty()).then(|| RootCerts::Specific(Arc::new(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_into_a_header_and_not_into_messages() {
        let (address, header) =
            split_credentials(&"https://me:p%40ss@index.example/simple/".parse().unwrap());
        assert_eq!(address, "https://index.example/simple/");
        assert_eq!(header.as_deref(), Some("Basic bWU6cEBzcw=="));
        let (_, header) = split_credentials(&"https://index.example/simple/".parse().unwrap());
        assert_eq!(header, None);
    }

    #[test]
    fn only_silence_ends_a_body_however_long_it_takes() {
        let http = Http::new(&Environment::current());
        let config = http.agent.config();
        let timeouts = config.timeouts();
        assert_eq!(
            (
                timeouts.global,
                timeouts.per_call,
                timeouts.recv_body,
                timeouts.send_body
            ),
            (None, None, None, None)
        );
        assert_eq!(config.timeout_per_read(), Some(SILENCE));
        assert_eq!(config.timeout_per_write(), Some(SILENCE));
    }
}
