//! The hub's REST API as the command uses it.

use std::time::Duration;

use miette::Diagnostic;
use pytheas_api::{DeviceState, DeviceView, ErrorBody};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use url::Url;

use crate::credentials::CredentialsError;

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

/// A hub and the right to talk to it.
pub(crate) struct HubClient {
    hub: Url,
    token: Option<String>,
    agent: ureq::Agent,
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
        })
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
        let request = self
            .request("POST", path)?
            .header("content-type", "application/octet-stream");
        self.send(path, request, file)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, HubError> {
        let request = self.request(method, path)?;
        match body {
            Some(body) => {
                let bytes = serde_json::to_vec(body).unwrap_or_default();
                self.send(
                    path,
                    request.header("content-type", "application/json"),
                    bytes,
                )
            }
            None => self.send(path, request, ()),
        }
    }

    fn address(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.hub.as_str().trim_end_matches('/'))
    }

    fn request(&self, method: &str, path: &str) -> Result<ureq::http::request::Builder, HubError> {
        let token = self.token.as_ref().ok_or_else(|| HubError::NoToken {
            hub: self.hub.clone(),
        })?;
        Ok(ureq::http::Request::builder()
            .method(method)
            .uri(self.address(path))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json"))
    }

    fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        request: ureq::http::request::Builder,
        body: impl ureq::AsSendBody,
    ) -> Result<T, HubError> {
        let unreachable = |source| HubError::Unreachable {
            hub: self.hub.clone(),
            source: Box::new(source),
        };
        let request = request
            .body(body)
            .map_err(|error| unreachable(error.into()))?;
        let mut response = self.agent.run(request).map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_vec();
        let text = text.map_err(unreachable)?;
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
            return Err(match serde_json::from_slice::<ErrorBody>(&text) {
                Ok(ErrorBody { error }) => {
                    let (message, help) = (error.message, error.help);
                    if status < 500 {
                        HubError::SaysNo { message, help }
                    } else {
                        HubError::Failed { message, help }
                    }
                }
                Err(_) => not_a_hub(),
            });
        }
        // Calls without an answer come back empty.
        let text = if text.is_empty() {
            b"null".to_vec()
        } else {
            text
        };
        serde_json::from_slice(&text).map_err(|_| not_a_hub())
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
        .timeout_recv_body(Some(Duration::from_secs(300)))
        .build()
        .into())
}

/// `text` as one part of a path or query.
pub(crate) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
