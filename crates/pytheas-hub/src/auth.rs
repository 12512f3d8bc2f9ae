//! Who asks: a person (or program) with a token or a browser session, or a device.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use pytheas_api::{DEFAULT_TENANT, DEVICE_HEADER, DeviceId, EventKind, Role, TokenView};

use crate::{
    app::{App, Shared},
    origin::Origin,
    reply::ApiError,
    secret::{self, Hash},
    store::{self, audit, devices, tokens},
    traffic::Meter,
};

/// Name of the session's cookie.
pub(crate) const COOKIE: &str = "pytheas_session";

/// A token's last use is written down once a minute.
const USED_EVERY_MS: i64 = 60_000;

/// Whether this role may do what needs that one.
pub(crate) fn covers(role: Role, needed: Role) -> bool {
    match needed {
        Role::Viewer => role != Role::Publisher,
        Role::Operator => matches!(role, Role::Operator | Role::Admin),
        Role::Publisher => matches!(role, Role::Publisher | Role::Admin),
        Role::Admin => role == Role::Admin,
    }
}

/// What follows the scheme in `Authorization`.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix(scheme)?
        .strip_prefix(' ')
}

/// The token that a request carries.
pub(crate) async fn bearer(
    app: &Shared,
    headers: &HeaderMap,
    needed: Role,
) -> Result<TokenView, ApiError> {
    bearer_of(app, headers, needed, &[]).await
}

/// As [`bearer`]; any of the roles `or` will do as well.
pub(crate) async fn bearer_of(
    app: &Shared,
    headers: &HeaderMap,
    needed: Role,
    or: &[Role],
) -> Result<TokenView, ApiError> {
    let help = "send `Authorization: Bearer pyt_…`; the first token was shown when the hub first started, `pytheas token create` makes more";
    let unauthorized =
        |code, message: &str| ApiError::new(StatusCode::UNAUTHORIZED, code, message).help(help);
    let Some(token) = credentials(headers, "Bearer") else {
        return Err(unauthorized("no-token", "this needs a token"));
    };
    let Some(token) = tokens::by_hash(&app.store.read, secret::hash(token)).await? else {
        return Err(unauthorized(
            "wrong-token",
            "the hub does not know this token",
        ));
    };
    if !or.iter().any(|role| covers(token.role, *role)) {
        allow(&token, needed)?;
    }
    let now_ms = app.now_ms();
    if token
        .last_used_ms
        .is_none_or(|used| now_ms - used >= USED_EVERY_MS)
    {
        let mut tx = app.store.begin().await?;
        tokens::used(&mut tx, token.id, now_ms).await?;
        tx.commit().await?;
    }
    Ok(token)
}

/// Whether the token may do what needs this role.
pub(crate) fn allow(token: &TokenView, needed: Role) -> Result<(), ApiError> {
    if covers(token.role, needed) {
        return Ok(());
    }
    let message = format!(
        "the token `{}` is a {}; this needs the role {needed}",
        token.name, token.role
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
        .help("an administrator can make one: `pytheas token create --role …`"))
}

/// Somebody who may read; who it is does not matter.
#[derive(Debug)]
pub(crate) struct Viewer;

impl FromRequestParts<App> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        bearer(app, &parts.headers, Role::Viewer)
            .await
            .map(|_| Self)
    }
}

macro_rules! person {
    ($name:ident, $role:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) TokenView);

        impl FromRequestParts<App> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
                bearer(app, &parts.headers, Role::$role).await.map(Self)
            }
        }
    };
}

person!(
    Operator,
    Operator,
    "Somebody who may drive devices and rollouts."
);
person!(Admin, Admin, "Somebody who may do everything.");
person!(
    Publisher,
    Publisher,
    "Somebody who may write the repository."
);

/// A browser's session; without one, the login page.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) token: TokenView,
    /// The word its forms carry.
    pub(crate) form_word: String,
}

/// The session's secret in the cookies.
pub(crate) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

impl FromRequestParts<App> for Session {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let to_login = || Redirect::to("/login").into_response();
        let secret = session_cookie(&parts.headers).ok_or_else(to_login)?;
        let token = tokens::by_session(&app.store.read, secret::hash(secret), app.now_ms())
            .await
            .map_err(|error| ApiError::from(error).into_response())?
            .ok_or_else(to_login)?;
        allow(&token, Role::Viewer).map_err(IntoResponse::into_response)?;
        Ok(Self {
            token,
            form_word: secret::form_word(secret),
        })
    }
}

/// A device that proved who it is, on its DDI address.
#[derive(Debug)]
pub(crate) struct Device {
    /// Which.
    pub(crate) id: DeviceId,
    /// Its DDI address: `http://hub:8470/DEFAULT/controller/v1/dev1`, the tenant as it wrote it.
    pub(crate) root: String,
    /// Whether its attributes are wanted.
    pub(crate) wants_config: bool,
}

impl FromRequestParts<App> for Device {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let origin = Origin::from_request_parts(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(IntoResponse::into_response)?;
        let param = |name: &str| {
            params
                .iter()
                .find(|(key, _)| *key == name)
                .map_or("", |(_, value)| value)
                .to_owned()
        };
        let tenant = param("tenant");
        // Whoever has no business here learns nothing, not even which tenants there are.
        let denied = || StatusCode::UNAUTHORIZED.into_response();
        if !tenant.eq_ignore_ascii_case(DEFAULT_TENANT) {
            return Err(denied());
        }
        let id: DeviceId = param("id").parse().map_err(|_| denied())?;
        let wants_config = authenticate(app, &parts.headers, &id, &origin)
            .await
            .map_err(IntoResponse::into_response)?
            .ok_or_else(denied)?;
        if let Some(meter) = parts.extensions.get::<Meter>() {
            meter.set_device(&id);
        }
        if app
            .presence
            .heard(&id, origin.client.to_string(), app.now_ms())
        {
            app.bus
                .publish(EventKind::DeviceChanged { device: id.clone() });
        }
        let root = format!("{}/{tenant}/controller/v1/{id}", origin.base);
        Ok(Self {
            id,
            root,
            wants_config,
        })
    }
}

/// Whether these credentials are the device's; then, whether its attributes are wanted.
async fn authenticate(
    app: &Shared,
    headers: &HeaderMap,
    id: &DeviceId,
    origin: &Origin,
) -> Result<Option<bool>, ApiError> {
    // Whoever has shown a certificate is that device and no other, whatever else it knows.
    if origin
        .certified
        .as_deref()
        .is_some_and(|name| name != id.as_str())
    {
        return Ok(None);
    }
    if let Some(token) = credentials(headers, "TargetToken") {
        return target_token(app, token, id).await;
    }
    if let (Some(token), Some(gateway)) = (credentials(headers, "GatewayToken"), &app.gateway) {
        // A person chose this secret, so it may be guessed.
        let now_ms = app.now_ms();
        if !app.gateways.allows(origin.client, now_ms) {
            return Ok(None);
        }
        if secret::hash(token) != *gateway {
            app.gateways.count(origin.client, now_ms);
            return Ok(None);
        }
        return match devices::credentials(&app.store.read, id).await? {
            Some(known) => Ok(known.accepted.then_some(known.wants_config)),
            None => Ok(Some(gateway_creates(app, id, "gateway").await?)),
        };
    }
    if origin.certified.is_some() && !headers.contains_key(header::AUTHORIZATION) {
        return match devices::credentials(&app.store.read, id).await? {
            Some(known) => Ok(known.accepted.then_some(known.wants_config)),
            None => Ok(Some(gateway_creates(app, id, "certificate").await?)),
        };
    }
    Ok(None)
}

async fn target_token(app: &Shared, token: &str, id: &DeviceId) -> Result<Option<bool>, ApiError> {
    let hash: Hash = secret::hash(token);
    let Some(known) = devices::credentials(&app.store.read, id).await? else {
        return Ok(None);
    };
    if !known.accepted {
        return Ok(None);
    }
    if known.token_hash == Some(hash) {
        return Ok(Some(known.wants_config));
    }
    if known.next_token_hash == Some(hash) {
        // First use of the token given last: the one before it ends here.
        let mut tx = app.store.begin().await?;
        devices::set_token(&mut tx, id, Some(hash), None).await?;
        tx.commit().await?;
        return Ok(Some(known.wants_config));
    }
    Ok(None)
}

async fn gateway_creates(app: &Shared, id: &DeviceId, actor: &str) -> store::Result<bool> {
    let now_ms = app.now_ms();
    let mut tx = app.store.begin().await?;
    devices::add(&mut tx, id, id.as_str(), None, None, Some(now_ms), now_ms).await?;
    audit::note(&mut tx, now_ms, actor, "device.create", id.as_str(), "").await?;
    tx.commit().await?;
    app.bus
        .publish(EventKind::DeviceEnrolled { device: id.clone() });
    Ok(true)
}

/// Attributes a request outside DDI to the device that names itself and proves it.
pub(crate) async fn attribute(app: &Shared, headers: &HeaderMap, meter: Option<&Meter>) {
    let named = headers
        .get(DEVICE_HEADER)
        .and_then(|value| value.to_str().ok());
    let (Some(named), Some(token), Some(meter)) =
        (named, credentials(headers, "TargetToken"), meter)
    else {
        return;
    };
    let Ok(id) = named.parse::<DeviceId>() else {
        return;
    };
    if matches!(target_token(app, token, &id).await, Ok(Some(_))) {
        meter.set_device(&id);
    }
}

/// The accepted device that asks for a file of the repository, if it proves to be one. No device
/// comes into being by that.
pub(crate) async fn known_device(
    app: &Shared,
    headers: &HeaderMap,
    origin: &Origin,
) -> Option<DeviceId> {
    let named = headers
        .get(DEVICE_HEADER)
        .and_then(|value| value.to_str().ok())
        .or(origin.certified.as_deref())?;
    let id: DeviceId = named.parse().ok()?;
    let known = devices::credentials(&app.store.read, &id).await.ok()??;
    let proven =
        known.accepted && matches!(authenticate(app, headers, &id, origin).await, Ok(Some(_)));
    proven.then_some(id)
}
