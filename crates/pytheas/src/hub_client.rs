//! The hub's REST API as the command uses it.

use std::{
    io::{Read as _, Seek as _},
    time::Duration,
};

use miette::Diagnostic;
use pytheas_api::{DeviceState, DeviceView, ErrorBody};
use pytheas_repo::{
    busy::{self, Patience},
    steady::Steady,
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use url::Url;

use crate::credentials::CredentialsError;

/// No answer is longer.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// No longer silence while something is sent, or comes.
const SILENCE: Duration = Duration::from_secs(60);

/// How to reach the hub.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HubArgs {
    /// Address of the hub
    #[arg(
        long,
        env = "PYTHEAS_HUB",
        default_value = "http://127.0.0.1:8470",
        value_name = "URL"
    )]
    pub hub: Url,
    /// Token for the hub [default: what `pytheas login` stored]
    #[arg(
        long,
        env = "PYTHEAS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    /// Trust this certificate authority (PEM) besides the well-known ones
    #[arg(long, env = "PYTHEAS_CA", value_name = "FILE")]
    pub ca: Option<std::path::PathBuf>,
}

/// A call that failed.
#[derive(Debug, Error, Diagnostic)]
pub(crate) enum HubError {
    /// No answer at all.
    #[error("the hub at `{hub}` cannot be reached")]
    #[diagnostic(
        code(pytheas::hub::unreachable),
        help(
            "is it running? `pytheas hub` starts one; another address goes into `--hub` or PYTHEAS_HUB"
        )
    )]
    Unreachable {
        /// Its address.
        hub: Url,
        /// What the network says.
        source: Box<ureq::Error>,
    },
    /// An answer that does not come to its end.
    #[error("the answer of the hub at `{hub}` breaks off")]
    #[diagnostic(
        code(pytheas::hub::network::broken),
        help(
            "the network fails on the way, or a proxy does; whether the hub did what it was asked for shows when it is asked again"
        )
    )]
    Broken {
        /// Its address.
        hub: Url,
        /// What happened: silence, drips, an end before the end.
        source: std::io::Error,
    },
    /// More than is taken.
    #[error("the answer of the hub at `{hub}` is longer than {} MB", MAX_ANSWER_BYTES / 1_000_000)]
    #[diagnostic(
        code(pytheas::hub::network::too_long),
        help("ask for less at a time, one device or one rollout; `{url}` is what was asked for")
    )]
    TooLong {
        /// Its address.
        hub: Url,
        /// What was asked.
        url: String,
    },
    /// Somebody between here and the hub gave up, and the hub may have done it.
    #[error("something before the hub at `{hub}` answered {status} in its place")]
    #[diagnostic(
        code(pytheas::hub::network::in_between),
        help(
            "a proxy says that the hub is not there; whether the hub did what it was asked for before is not known: look (`pytheas rollout list`, `device list`, `token list`, …), then run the command again"
        )
    )]
    InBetween {
        /// Its address.
        hub: Url,
        /// What it said.
        status: u16,
    },
    /// Too much to do, also after a while.
    #[error("the hub at `{hub}` is busy (status {status}){}", pause(*asked, *waited))]
    #[diagnostic(
        code(pytheas::hub::network::busy),
        help("nothing was done; run the command again later{}", said.as_ref().map(|said| format!(" (the hub says: {said})")).unwrap_or_default())
    )]
    Busy {
        /// Its address.
        hub: Url,
        /// 429 or 503.
        status: u16,
        /// What it asks to wait.
        asked: Option<Duration>,
        /// How long it was asked again and again.
        waited: Duration,
        /// Its own words.
        said: Option<String>,
    },
    /// No token to show.
    #[error("the hub at `{hub}` wants a token and there is none")]
    #[diagnostic(
        code(pytheas::token::missing),
        help("`pytheas login` stores one; or give `--token` or PYTHEAS_TOKEN")
    )]
    NoToken {
        /// Its address.
        hub: Url,
    },
    /// The token is not known.
    #[error("the hub at `{hub}` does not accept this token")]
    #[diagnostic(
        code(pytheas::token::wrong),
        help(
            "the first token was printed when the hub first started; an admin makes new ones with `pytheas token create`"
        )
    )]
    WrongToken {
        /// Its address.
        hub: Url,
    },
    /// The hub says no.
    #[error("{message}")]
    #[diagnostic(code(pytheas::hub::says_no))]
    SaysNo {
        /// The hub's words.
        message: String,
        /// The hub's help.
        #[help]
        help: Option<String>,
    },
    /// The hub could not do it.
    #[error("{message}")]
    #[diagnostic(code(pytheas::hub::failed))]
    Failed {
        /// The hub's words.
        message: String,
        /// The hub's help.
        #[help]
        help: Option<String>,
    },
    /// Something else answers there.
    #[error("`{url}` answered {status}, and not as a hub does")]
    #[diagnostic(
        code(pytheas::hub::not_a_hub),
        help("is `{url}` really a Pytheas hub of this version?")
    )]
    NotAHub {
        /// What was asked.
        url: Url,
        /// Its status.
        status: u16,
    },
    /// The stored tokens cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Credentials(#[from] CredentialsError),
    /// The CA file.
    #[error("cannot read the certificates in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::ca::unusable),
        help("a PEM file with at least one certificate is wanted")
    )]
    Ca {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn source_of(error: &HubError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

fn pause(asked: Option<Duration>, waited: Duration) -> String {
    match asked {
        Some(asked) => format!(" and asks to be asked again in {} s", asked.as_secs()),
        None => format!(", for {} s by now", waited.as_secs()),
    }
}

/// What goes with a request; it can be sent once more.
enum Sent {
    Nothing,
    Json(Vec<u8>),
    File(std::fs::File),
}

/// An answer that came whole.
struct Answer {
    status: u16,
    asked_to_wait: Option<Duration>,
    bytes: Vec<u8>,
}

impl Answer {
    /// What the hub itself says, of an answer that is no success.
    fn said(&self) -> Option<pytheas_api::ErrorDetail> {
        let body: ErrorBody = serde_json::from_slice(&self.bytes).ok()?;
        Some(body.error)
    }

    /// Whether nothing was done for sure: 429 is said before a request is looked at (RFC 6585 §4), and
    /// the hub's own 503 before it is begun. That of a proxy may come after it has handed the
    /// request on.
    fn is_refusal(&self) -> bool {
        self.status == 429 || self.said().is_some()
    }
}

/// Whether doing it twice is as doing it once (RFC 9110 §9.2.2): what is lost may be sent again.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "PUT")
}

/// A hub and the right to talk to it.
pub(crate) struct HubClient {
    hub: Url,
    token: Option<String>,
    agent: ureq::Agent,
    /// What it says is worth waiting for.
    is_patient: bool,
}

impl HubClient {
    /// A client for the hub `args` name.
    ///
    /// # Errors
    /// [`HubError::Ca`] and [`HubError::Credentials`] when these files cannot be used.
    pub(crate) fn new(args: &HubArgs) -> Result<Self, HubError> {
        let token = match &args.token {
            Some(token) => Some(token.clone()),
            None => crate::credentials::token_for(&args.hub)?,
        };
        let agent = http_agent(args.ca.as_deref())?;
        Ok(Self {
            hub: args.hub.clone(),
            token,
            agent,
            is_patient: true,
        })
    }

    /// The same, for what is nice to know: a busy hub is not asked again.
    pub(crate) fn in_passing(self) -> Self {
        Self {
            is_patient: false,
            ..self
        }
    }

    /// The hub's address.
    pub(crate) fn url(&self) -> &Url {
        &self.hub
    }

    /// GET `/api/v1/{path}`.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, HubError> {
        self.call("GET", path, None::<&()>)
    }

    /// All devices, page by page; those of one `state` only, when it is given.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn devices(&self, state: Option<DeviceState>) -> Result<Vec<DeviceView>, HubError> {
        const PAGE: usize = 5000;
        let state = state.map_or(String::new(), |state| format!("&state={}", state.as_str()));
        let mut all: Vec<DeviceView> = Vec::new();
        loop {
            let after = all.last().map_or("", |device| device.id.as_str());
            let path = format!("devices?limit={PAGE}&after={}{state}", encoded(after));
            let page: Vec<DeviceView> = self.get(&path)?;
            let is_last = page.len() < PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// POST `/api/v1/{path}` with a JSON body.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HubError> {
        self.call("POST", path, Some(body))
    }

    /// PUT `/api/v1/{path}` with a JSON body.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HubError> {
        self.call("PUT", path, Some(body))
    }

    /// PATCH `/api/v1/{path}` with a JSON body.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HubError> {
        self.call("PATCH", path, Some(body))
    }

    /// DELETE `/api/v1/{path}`.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn delete(&self, path: &str) -> Result<(), HubError> {
        self.call::<serde_json::Value>("DELETE", path, None::<&()>)
            .map(|_| ())
    }

    /// POST `/api/v1/{path}` with a file as the body.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        file: std::fs::File,
    ) -> Result<T, HubError> {
        self.call_with("POST", path, &Sent::File(file))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, HubError> {
        let body = match body {
            Some(body) => Sent::Json(serde_json::to_vec(body).unwrap_or_default()),
            None => Sent::Nothing,
        };
        self.call_with(method, path, &body)
    }

    fn address(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.hub.as_str().trim_end_matches('/'))
    }

    /// Asks; a busy hub again, unless it may have done what must not be done twice.
    fn call_with<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &Sent,
    ) -> Result<T, HubError> {
        let mut patience = Patience::default();
        let mut broke_off = false;
        loop {
            let answer = match self.once(method, path, body) {
                // What only asks may ask again.
                Err(error @ HubError::Broken { .. }) if method == "GET" && !broke_off => {
                    broke_off = true;
                    tracing::warn!("{error} ({}); asking once more", source_of(&error));
                    continue;
                }
                other => other?,
            };
            if !busy::is_busy(answer.status) {
                return self.understood(path, &answer);
            }
            if !is_idempotent(method) && !answer.is_refusal() {
                let (hub, status) = (self.hub.clone(), answer.status);
                return Err(HubError::InBetween { hub, status });
            }
            let asked = answer.asked_to_wait;
            let pause = patience.next_pause(asked).filter(|_| self.is_patient);
            let Some(pause) = pause else {
                return Err(HubError::Busy {
                    hub: self.hub.clone(),
                    status: answer.status,
                    asked,
                    waited: patience.waited(),
                    said: answer.said().map(|error| error.message),
                });
            };
            tracing::warn!(
                "the hub at `{}` is busy (status {}); asking again in {} s",
                self.hub,
                answer.status,
                pause.as_secs_f64().ceil()
            );
            std::thread::sleep(pause);
        }
    }

    fn once(&self, method: &str, path: &str, body: &Sent) -> Result<Answer, HubError> {
        let unreachable = |source| HubError::Unreachable {
            hub: self.hub.clone(),
            source: Box::new(source),
        };
        let broken = |source| HubError::Broken {
            hub: self.hub.clone(),
            source,
        };
        let token = self.token.as_ref().ok_or_else(|| HubError::NoToken {
            hub: self.hub.clone(),
        })?;
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(self.address(path))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json");
        let kind = |kind| ("content-type", kind);
        let answer = match body {
            Sent::Nothing => {
                let request = request.body(()).map_err(|e| unreachable(e.into()))?;
                self.agent.run(request)
            }
            Sent::Json(bytes) => {
                let (name, kind) = kind("application/json");
                let request = request.header(name, kind).body(bytes.as_slice());
                self.agent.run(request.map_err(|e| unreachable(e.into()))?)
            }
            Sent::File(file) => {
                let mut from_its_start = file;
                from_its_start.rewind().map_err(broken)?;
                let (name, kind) = kind("application/octet-stream");
                let request = request.header(name, kind).body(file);
                self.agent.run(request.map_err(|e| unreachable(e.into()))?)
            }
        };
        let mut answer = answer.map_err(unreachable)?;
        let text = |name| answer.headers().get(name)?.to_str().ok();
        let sent = text("date").and_then(busy::http_date);
        let asked_to_wait = text("retry-after")
            .and_then(|value| busy::retry_after(value, sent, jiff::Timestamp::now()));
        let mut bytes = Vec::new();
        let body = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES + 1);
        Steady::new(body).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 > MAX_ANSWER_BYTES {
            let (hub, url) = (self.hub.clone(), self.address(path));
            return Err(HubError::TooLong { hub, url });
        }
        Ok(Answer {
            status: answer.status().as_u16(),
            asked_to_wait,
            bytes,
        })
    }

    fn understood<T: DeserializeOwned>(&self, path: &str, answer: &Answer) -> Result<T, HubError> {
        let status = answer.status;
        let not_a_hub = || HubError::NotAHub {
            url: self
                .address(path)
                .parse()
                .unwrap_or_else(|_| self.hub.clone()),
            status,
        };
        if status == 401 {
            return Err(HubError::WrongToken {
                hub: self.hub.clone(),
            });
        }
        if !(200..300).contains(&status) {
            return Err(match answer.said() {
                Some(error) => {
                    let (message, help) = (error.message, error.help);
                    if status < 500 {
                        HubError::SaysNo { message, help }
                    } else {
                        HubError::Failed { message, help }
                    }
                }
                None => not_a_hub(),
            });
        }
        // Calls without an answer come back empty.
        let text: &[u8] = match answer.bytes.is_empty() {
            true => b"null",
            false => &answer.bytes,
        };
        serde_json::from_slice(text).map_err(|_| not_a_hub())
    }
}

/// An HTTP client with our TLS, answering every status as a value.
///
/// # Errors
/// [`HubError::Ca`] when the certificate file cannot be used.
pub(crate) fn http_agent(ca: Option<&std::path::Path>) -> Result<ureq::Agent, HubError> {
    use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

    let mut tls = TlsConfig::builder().provider(ureq::tls::TlsProvider::Rustls);
    if let Some(path) = ca {
        let fail = |source| HubError::Ca {
            path: path.to_owned(),
            source,
        };
        let pem = std::fs::read(path).map_err(fail)?;
        let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(fail(std::io::Error::other("it holds no certificate")));
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    Ok(ureq::Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .build()
        .into())
}

/// `text` as one part of a path or query.
pub(crate) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
