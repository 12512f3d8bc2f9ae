//! HTTP, blocking and small: one `ureq` agent with keep-alive for the hub and its repository.
//!
//! TLS is rustls with aws-lc-rs; trusted are the web's authorities, or those of one file instead
//! ([`tls`]). A poll that finds nothing new costs a few hundred bytes when the connection of the
//! poll before is still there, so one with TLS is kept for as long as the hub keeps it.

mod limit;
mod tls;

use std::{
    error::Error as _,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_api::{DEVICE_HEADER, DeviceId, ErrorBody};
use pytheas_repo::{
    busy,
    fetch::{Body, Fetch, Request, TransportError},
    steady::Steady,
};
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent,
    http::{HeaderMap, Method, Response, StatusCode, header},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, TcpConnector},
    },
};

use self::limit::Limited;
pub(crate) use self::{limit::Limiter, tls::PIN_VARIABLE};
use crate::settings::{Network, ProxyChoice, without_password};

/// No answer to a DDI or REST request is longer.
const MAX_JSON_BYTES: u64 = 1 << 20;
/// No DDI or REST request takes longer, however slowly the answer drips.
const MAX_JSON_TIME: Duration = Duration::from_secs(120);
/// No more of what a hub says about an error is told on.
const MAX_SAID_CHARS: usize = 500;
/// How long a connection may stay idle. Making one anew costs nothing worth keeping without TLS,
/// and more than a poll with it.
const IDLE: Duration = Duration::from_secs(15);
const IDLE_TLS: Duration = Duration::from_secs(20 * 60);

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

/// What somebody else says, as part of a line of ours: it begins no other line and is no essay.
pub(crate) fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_SAID_CHARS).map(plain).collect()
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

/// A connection that cannot be set up as it is asked for.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum CaError {
    /// Not readable.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(help(
        "is the path right (relative ones begin where the settings file lies), and does it belong to the user that runs the agent?"
    ))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No certificate in it.
    #[error("`{}` holds no certificate", path.display())]
    #[diagnostic(help("a PEM file is wanted, with `-----BEGIN CERTIFICATE-----` in it"))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No private key in it.
    #[error("`{}` holds no private key", path.display())]
    #[diagnostic(help(
        "a PEM file without password is wanted: PKCS#8, PKCS#1 or SEC 1; `tls.key` names it when it is not in the certificate's file"
    ))]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A key, and no certificate.
    #[error("there is a private key, `{}`, and no certificate for it", path.display())]
    #[diagnostic(help("name it with `tls.certificate` or `--client-certificate`"))]
    KeyAlone {
        /// The key.
        path: PathBuf,
    },
    /// A key that somebody else keeps, and no certificate.
    #[error("there is a private key that somebody else keeps, and no certificate for it")]
    #[diagnostic(help("name it with `tls.certificate` or `--client-certificate`"))]
    TokenAlone,
    /// A certificate that no key can be used for.
    #[error("the certificate `{}` cannot be used", path.display())]
    #[diagnostic(help("is the device's own certificate the first one in the file?"))]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// What TLS says.
        source: rustls::Error,
    },
    /// A key that is not the certificate's.
    #[error("the private key `{}` cannot be used", path.display())]
    #[diagnostic(help("is it the key of the first certificate in the certificate's file?"))]
    Key {
        /// The key.
        path: PathBuf,
        /// What TLS says.
        source: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("cannot use the authorities")]
    Roots {
        /// What TLS says.
        source: rustls::client::VerifierBuilderError,
    },
    /// TLS cannot be used.
    #[error("cannot set TLS up")]
    Tls {
        /// What TLS says.
        source: rustls::Error,
    },
    /// Not the address of a proxy.
    #[error("`{proxy}` is not the address of a proxy")]
    #[diagnostic(help("write `http://HOST:PORT` or `https://HOST:PORT`"))]
    Proxy {
        /// The address, without password.
        proxy: String,
    },
}

/// The connection to a hub.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    base: String,
    limiter: Option<Arc<Limiter>>,
    learnt: Arc<Mutex<Learnt>>,
}

/// What answers have said besides their content.
#[derive(Debug, Default)]
struct Learnt {
    /// The hub's clock, and when it said so.
    clock: Option<(Timestamp, Instant)>,
    /// Before that the hub does not want to be asked.
    not_before: Option<Instant>,
    /// The last answer.
    answered: Option<Instant>,
}

impl Http {
    /// A connection to the hub at `base`; nothing is sent yet.
    ///
    /// # Errors
    /// [`CaError`] when a file that TLS needs, or the proxy, cannot be used.
    pub fn new(base: &str, network: &Network) -> Result<Self, CaError> {
        let base = base.trim_end_matches('/');
        let host = host(base);
        let is_tls = base.starts_with("https://");
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("pytheas-agent/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(network.connect))
            .timeout_recv_response(Some(network.answer))
            .timeout_per_read(Some(network.silence))
            .max_idle_connections(2)
            .max_idle_connections_per_host(1)
            .max_idle_age(if is_tls { IDLE_TLS } else { IDLE })
            .input_buffer_size(32 << 10)
            .output_buffer_size(16 << 10);
        match &network.proxy {
            ProxyChoice::None => config = config.proxy(None),
            ProxyChoice::Environment => {
                if host == "localhost" || host == "[::1]" || host.starts_with("127.") {
                    config = config.proxy(None);
                }
            }
            ProxyChoice::Url { url, no_proxy } => {
                config = config.proxy(Some(proxy(url, no_proxy)?));
            }
        }
        let connector = ()
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(tls::TlsConnector::new(host, &network.tls, network.answer)?);
        Ok(Self {
            agent: Agent::with_parts(config.build(), connector, DefaultResolver::default()),
            base: base.to_owned(),
            limiter: network.limit.map(|rate| Arc::new(Limiter::new(rate))),
            learnt: Arc::default(),
        })
    }

    /// The time by the hub's clock, as far as it has told; nobody vouches for it.
    pub(crate) fn hub_time(&self) -> Option<Timestamp> {
        let (told, at) = self.learnt(|learnt| learnt.clock)?;
        told.checked_add(jiff::SignedDuration::try_from(at.elapsed()).ok()?)
            .ok()
    }

    /// Before that the hub has asked not to be asked again.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.learnt(|learnt| learnt.not_before)
            .filter(|moment| *moment > Instant::now())
    }

    fn learnt<T>(&self, with: impl FnOnce(&mut Learnt) -> T) -> T {
        with(&mut self.learnt.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What there is to learn from an answer.
    fn learn(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let text = |name| headers.get(name)?.to_str().ok();
        let sent = text(header::DATE).and_then(busy::http_date);
        let is_busy = busy::is_busy(status.as_u16());
        let wait = text(header::RETRY_AFTER)
            .filter(|_| is_busy)
            .and_then(|value| busy::retry_after(value, sent, crate::clock::now()));
        let now = Instant::now();
        self.learnt(|learnt| {
            learnt.answered = Some(now);
            if let Some(sent) = sent {
                learnt.clock = Some((sent, now));
            }
            learnt.not_before = wait.map(|wait| now + wait);
        });
        wait
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
        // A router on the way may have forgotten a connection that was silent for minutes: once
        // more, then, on a new one.
        let is_stale = self.base.starts_with("https://")
            && self
                .learnt(|learnt| learnt.answered.take())
                .is_some_and(|at| at.elapsed() > IDLE);
        let answer = match self.send(Method::GET, &url, authorization, None) {
            Err(HttpError::Unreachable { .. }) if is_stale => {
                self.send(Method::GET, &url, authorization, None)?
            }
            other => other?,
        };
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

    /// What a peer that answers within `patience` has at `path`, to be read as it comes; nothing when
    /// it has no such content.
    ///
    /// # Errors
    /// [`HttpError`]; also when it sends elsewhere.
    pub(crate) fn peer_content(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<Option<impl Read + use<>>, HttpError> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.get(&url).config();
        let request = request.max_redirects(0).max_redirects_will_error(true);
        let request = request.timeout_recv_response(Some(patience)).build();
        let answer = request.call().map_err(|source| HttpError::Unreachable {
            url: url.clone(),
            source,
        })?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(self.judge(&url, answer)?.into_body().into_reader()))
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
        self.judge(url, answer.map_err(unreachable)?)
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

/// The host in an address, as it stands there.
fn host(base: &str) -> &str {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.split_once(']') {
        Some((address, _)) => authority.get(..=address.len()).unwrap_or(authority),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn proxy(url: &str, no_proxy: &[String]) -> Result<ureq::Proxy, CaError> {
    let wrong = |_| CaError::Proxy {
        proxy: without_password(url),
    };
    let parsed = ureq::Proxy::new(url).map_err(wrong)?;
    let mut builder = ureq::Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port());
    if let Some(name) = parsed.username() {
        builder = builder.username(name);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in no_proxy {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(wrong)
}

impl Http {
    /// The answer, if it is a success.
    fn judge(
        &self,
        url: &str,
        answer: Response<ureq::Body>,
    ) -> Result<Response<ureq::Body>, HttpError> {
        let status = answer.status();
        let retry_after = self.learn(status, answer.headers());
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
                    .map(|body| one_line(&body.error.message))
                    .unwrap_or_default();
                Err(HttpError::Status {
                    url,
                    status: status.as_u16(),
                    message,
                })
            }
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
        let answer = self.http.judge(&url, answer)?;
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
        let reader = Steady::new(reader);
        let reader: Box<dyn Read> = match &self.http.limiter {
            None => Box::new(reader),
            Some(limiter) => Box::new(Limited {
                inner: reader,
                limiter: Arc::clone(limiter),
                until: None,
            }),
        };
        Ok(Some(Body { start, reader }))
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
