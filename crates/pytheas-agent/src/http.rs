//! HTTP, blocking and small: one `ureq` agent with keep-alive for the hub and its repository.
//!
//! TLS is rustls with aws-lc-rs; trusted are the web's authorities, or those of one file instead.

use std::{
    error::Error as _,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use miette::Diagnostic;
use pytheas_api::{DEVICE_HEADER, DeviceId, ErrorBody};
use pytheas_repo::fetch::{Body, Fetch, Request, TransportError};
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent,
    http::{Method, Response, StatusCode, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// No answer to a DDI or REST request is longer.
const MAX_JSON_BYTES: u64 = 1 << 20;
/// No DDI or REST request takes longer, however slowly the answer drips.
const MAX_JSON_TIME: Duration = Duration::from_secs(120);

/// A request that did not give what was asked for.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum HttpError {
    /// No connection, or it broke.
    #[error("cannot reach `{url}`")]
    #[diagnostic(
        code(pytheas::agent::unreachable),
        help("is the address right, the hub running, and the network up?")
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        source: ureq::Error,
    },
    /// The hub does not know this device's token.
    #[error("`{url}` refuses this device's token (status {status})")]
    #[diagnostic(
        code(pytheas::agent::unauthorised),
        help(
            "was the device removed from the hub? It asks to be accepted again by itself; see `pytheas device list`"
        )
    )]
    Unauthorised {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub has too much to do.
    #[error("`{url}` is busy (status {status})")]
    #[diagnostic(help("it is asked again later"))]
    Busy {
        /// What was asked for.
        url: String,
        /// 429 or 503.
        status: u16,
        /// What the hub asks for.
        retry_after: Option<Duration>,
    },
    /// Another answer than success.
    #[error("`{url}` answers with status {status}{}", said(message))]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the hub says about it.
        message: String,
    },
    /// Not what such an answer should be.
    #[error("the answer of `{url}` does not parse")]
    #[diagnostic(help("is that really the address of a Pytheas hub (or of another DDI server)?"))]
    Parse {
        /// What was asked for.
        url: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The answer broke off or is too long.
    #[error("cannot read the answer of `{url}`")]
    Read {
        /// What was asked for.
        url: String,
        /// What happened.
        source: io::Error,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl HttpError {
    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorised { status, .. }
            | Self::Busy { status, .. }
            | Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the hub asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// An authorities' file that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum CaError {
    /// Not readable.
    #[error("cannot read the certificates `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No certificate in it.
    #[error("`{}` holds no certificate", path.display())]
    #[diagnostic(help(
        "`--ca` wants a PEM file with the certificates of the authorities to trust"
    ))]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The connection to a hub.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    base: String,
}

impl Http {
    /// A connection to the hub at `base`; nothing is sent yet.
    ///
    /// # Errors
    /// [`CaError`] when `ca` is given and cannot be used.
    pub fn new(base: &str, ca: Option<&Path>) -> Result<Self, CaError> {
        let roots = match ca {
            None => RootCerts::WebPki,
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .user_agent(concat!("pytheas-agent/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            // A download may take hours on a thin line; only silence is a failure.
            .timeout_per_read(Some(Duration::from_secs(30)))
            .max_idle_connections(2)
            .max_idle_connections_per_host(1)
            .input_buffer_size(32 << 10)
            .output_buffer_size(16 << 10);
        let host = base.split("://").nth(1).unwrap_or(base);
        if ["127.", "localhost", "[::1]"]
            .iter()
            .any(|local| host.starts_with(local))
        {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().into(),
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// The JSON at `path`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        authorization: Option<&str>,
    ) -> Result<T, HttpError> {
        let url = format!("{}{path}", self.base);
        let answer = self.send(Method::GET, &url, authorization, None)?;
        read_json(answer, url)
    }

    /// Sends `body` and reads the JSON that comes back.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn exchange<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HttpError> {
        let url = format!("{}{path}", self.base);
        let body = serde_json::to_vec(body).expect("our messages have only string keys");
        let answer = self.send(Method::POST, &url, None, Some(body))?;
        read_json(answer, url)
    }

    /// Sends `body`; what comes back does not matter as long as it is a success.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn tell(
        &self,
        method: Method,
        path: &str,
        authorization: &str,
        body: &impl Serialize,
    ) -> Result<(), HttpError> {
        let url = format!("{}{path}", self.base);
        let body = serde_json::to_vec(body).expect("our messages have only string keys");
        let answer = self.send(method, &url, Some(authorization), Some(body))?;
        // Read to its end, so that the connection can be used again.
        let mut rest = answer.into_body().into_reader().take(MAX_JSON_BYTES);
        let _told_already = io::copy(&mut rest, &mut io::sink());
        Ok(())
    }

    /// The bytes at `path`, at most `max_bytes`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn bytes(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, HttpError> {
        let url = format!("{}{path}", self.base);
        let answer = self.send(Method::GET, &url, None, None)?;
        let read = answer
            .into_body()
            .into_with_config()
            .limit(max_bytes)
            .read_to_vec();
        read.map_err(|error| HttpError::Read {
            url,
            source: error.into_io(),
        })
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        authorization: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<Response<ureq::Body>, HttpError> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let unreachable = |source| HttpError::Unreachable {
            url: url.to_owned(),
            source,
        };
        let answer = match body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json");
                let request = request.body(body).map_err(|e| unreachable(e.into()))?;
                self.agent.run(self.in_time(request))
            }
            None => {
                let request = request.body(()).map_err(|e| unreachable(e.into()))?;
                self.agent.run(self.in_time(request))
            }
        };
        judge(url, answer.map_err(unreachable)?)
    }

    fn in_time<S: ureq::AsSendBody>(
        &self,
        request: ureq::http::Request<S>,
    ) -> ureq::http::Request<S> {
        let scope = self.agent.configure_request(request);
        scope.timeout_global(Some(MAX_JSON_TIME)).build()
    }

    /// The repository of this hub, fetched in the name of a device.
    pub fn repository(&self, device: &DeviceId, token: Option<&str>) -> RepositoryFetch {
        RepositoryFetch {
            http: self.clone(),
            device: device.to_string(),
            authorization: token.map(pytheas_api::ddi::target_token),
        }
    }
}

/// The answer, if it is a success.
fn judge(url: &str, answer: Response<ureq::Body>) -> Result<Response<ureq::Body>, HttpError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = url.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(HttpError::Unauthorised {
            url,
            status: status.as_u16(),
        }),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let retry_after = answer
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(|seconds: u64| Duration::from_secs(seconds.min(86_400)));
            Err(HttpError::Busy {
                url,
                status: status.as_u16(),
                retry_after,
            })
        }
        _ => {
            let body = answer
                .into_body()
                .into_with_config()
                .limit(16 << 10)
                .read_to_string();
            let message = body
                .ok()
                .and_then(|body| serde_json::from_str::<ErrorBody>(&body).ok())
                .map(|body| body.error.message)
                .unwrap_or_default();
            Err(HttpError::Status {
                url,
                status: status.as_u16(),
                message,
            })
        }
    }
}

fn read_json<T: DeserializeOwned>(
    answer: Response<ureq::Body>,
    url: String,
) -> Result<T, HttpError> {
    let body = answer
        .into_body()
        .into_with_config()
        .limit(MAX_JSON_BYTES)
        .read_to_vec();
    match body {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| HttpError::Parse { url, source })
        }
        Err(error) => Err(HttpError::Read {
            url,
            source: error.into_io(),
        }),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, CaError> {
    let pem = std::fs::read(path).map_err(|source| CaError::Read {
        path: path.to_owned(),
        source,
    })?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        Err(CaError::Empty {
            path: path.to_owned(),
        })
    } else {
        Ok(found)
    }
}

/// Files below `/repo/` of the hub, asked for in the name of the device so that the hub can count
/// what each device moves. What comes is not trusted here: pytheas-repo verifies it.
#[derive(Debug, Clone)]
pub struct RepositoryFetch {
    http: Http,
    device: String,
    authorization: Option<String>,
}

impl Fetch for RepositoryFetch {
    fn fetch(&mut self, wanted: &Request<'_>) -> Result<Option<Body>, TransportError> {
        let url = format!("{}/repo/{}", self.http.base, wanted.path);
        let mut request = self
            .http
            .agent
            .get(&url)
            .header(DEVICE_HEADER, &self.device);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(range) = &wanted.range {
            let last = range.end.saturating_sub(1);
            request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
        }
        let answer = request.call().map_err(|source| HttpError::Unreachable {
            url: url.clone(),
            source,
        })?;
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let answer = judge(&url, answer)?;
        let start = if answer.status() == StatusCode::PARTIAL_CONTENT {
            content_range_start(&answer).ok_or_else(|| HttpError::Status {
                url,
                status: 206,
                message: "a part without saying which".into(),
            })?
        } else {
            0
        };
        let reader = answer
            .into_body()
            .into_reader()
            .take(wanted.max_bytes.saturating_add(1));
        Ok(Some(Body {
            start,
            reader: Box::new(crate::steady::Steady::new(reader)),
        }))
    }
}

/// The first byte's number in `Content-Range: bytes FIRST-LAST/LENGTH` (RFC 9110 §14.4).
fn content_range_start<T>(answer: &Response<T>) -> Option<u64> {
    let value = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// The text of an error and of everything behind it, for places that show one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

impl HttpError {
    /// One line with everything that is known.
    pub fn line(&self) -> String {
        match self.source() {
            Some(_) => chain(self),
            None => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
