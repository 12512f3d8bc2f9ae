//! Where a request comes from, and by which address the hub was reached: what links are made of.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use crate::{
    app::{App, Shared},
    tls::OverTls,
};

/// The other end of the connection; set when it is accepted.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// What the handshake brought, over TLS.
    pub(crate) tls: Option<OverTls>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// `http://hub.example:8470`, without a final slash.
    pub(crate) base: String,
    /// Who asks, seen through trusted proxies.
    pub(crate) client: IpAddr,
    /// The device whose certificate the hub, or a trusted proxy, has verified.
    pub(crate) certified: Option<String>,
}

impl Origin {
    /// Whether the request came over TLS, as far as links are concerned.
    pub(crate) fn is_tls(&self) -> bool {
        self.base.starts_with("https://")
    }
}

impl FromRequestParts<App> for Origin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let peer = parts.extensions.get::<Peer>();
        let address = peer.map_or(app.address, |peer| peer.address);
        let tls = peer.and_then(|peer| peer.tls.as_ref());
        find(app, &parts.headers, parts.uri.host(), address.ip(), tls)
            .ok_or_else(|| (StatusCode::BAD_REQUEST, "bad Host header\n").into_response())
    }
}

/// Whose certificate the proxy has seen. A name that cannot be read, or a second one, which a proxy
/// adds when the client has sent one itself, is nobody's: no device is called so.
fn certified(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all("x-controller-id").iter();
    let mut names = all.filter(|name| !name.is_empty());
    let first = names.next()?;
    let name = first.to_str().ok().filter(|_| names.next().is_none());
    Some(name.unwrap_or("?").to_owned())
}

fn find(
    app: &Shared,
    headers: &HeaderMap,
    in_line: Option<&str>,
    peer: IpAddr,
    tls: Option<&OverTls>,
) -> Option<Origin> {
    let peer = peer.to_canonical();
    let trusted = app.trusts(peer);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = |name: &str| text(name).filter(|_| trusted);
    // The last address was written by our own proxy; the ones before it anybody can write.
    let client = forwarded("x-forwarded-for")
        .and_then(|list| list.rsplit(',').next())
        .and_then(|address| address.trim().parse().ok())
        .unwrap_or(peer);
    // An empty one is a proxy's word for "no certificate".
    let certified = (trusted && app.config.client_certificates)
        .then(|| certified(headers))
        .flatten()
        .or_else(|| tls.and_then(|tls| tls.certified.clone()));
    if let Some(url) = &app.config.external_url {
        return Some(Origin {
            base: url.as_str().trim_end_matches('/').to_owned(),
            client,
            certified,
        });
    }
    let scheme = match forwarded("x-forwarded-proto") {
        Some("https") => "https",
        None if tls.is_some() => "https",
        _ => "http",
    };
    let host = forwarded("x-forwarded-host")
        .or_else(|| text(header::HOST.as_str()))
        .or(in_line)
        .map_or_else(|| app.address.to_string(), str::to_owned);
    let sane = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]_".contains(&b);
    (!host.is_empty() && host.len() <= 255 && host.bytes().all(sane)).then(|| Origin {
        base: format!("{scheme}://{host}"),
        client,
        certified,
    })
}
