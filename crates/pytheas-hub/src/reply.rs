//! Failed REST calls: a word for programs, a sentence for people, and what to do about it.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request, rejection::JsonRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use pytheas_api::{ErrorBody, ErrorDetail};

/// A failed call; see [`ErrorBody`].
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) retry_after_s: Option<u64>,
}

/// What a REST handler answers.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            help: None,
            retry_after_s: None,
        }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn unknown(what: &'static str, name: &str) -> Self {
        let code = match what {
            "device" => "unknown-device",
            "rollout" => "unknown-rollout",
            "release" => "unknown-release",
            "artifact" => "unknown-artifact",
            "token" => "unknown-token",
            _ => "unknown",
        };
        Self::new(StatusCode::NOT_FOUND, code, format!("no {what} `{name}`"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }

    /// A disk that takes no more.
    pub(crate) fn disk_full() -> Self {
        let (code, message) = ("disk-full", "the hub's disk is full");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, code, message)
            .help("make room in its data directory")
    }

    /// Our bug, or the disk's: logged here, once, and told without its insides.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(error = chain, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the hub failed",
        )
        .help("its log says why; is the disk full?")
    }
}

/// Longest name of anything, in characters.
const NAME_MAX: usize = 128;

/// Whether `text` may be shown to people: not too long, nothing that moves a terminal's cursor.
pub(crate) fn is_printable(text: &str) -> bool {
    text.chars().count() <= NAME_MAX && !text.chars().any(char::is_control)
}

/// A name for people, without blanks around it.
pub(crate) fn printable<'t>(what: &str, text: &'t str) -> ApiResult<&'t str> {
    match text.trim() {
        text if is_printable(text) => Ok(text),
        _ => Err(ApiError::invalid(format!(
            "a {what}'s name has at most {NAME_MAX} printable characters"
        ))),
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_FULL: &str = "13";
        let code = error.as_database_error().and_then(|error| error.code());
        if code.is_some_and(|code| code == SQLITE_FULL) {
            tracing::error!(%error, "a request failed");
            return Self::disk_full();
        }
        Self::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorDetail {
            code: self.code.to_owned(),
            message: self.message,
            help: self.help,
        };
        let detail = error.clone();
        let mut response = (self.status, Json(ErrorBody { error })).into_response();
        response.extensions_mut().insert(detail); // for pages, which show it in their own way
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What stands behind the question mark; its errors are [`ErrorBody`]s.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "malformed",
                rejection.body_text(),
            )),
        }
    }
}

/// A JSON body whose errors are [`ErrorBody`]s.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let status = rejection.status();
                let code = match &rejection {
                    JsonRejection::JsonDataError(_) => "invalid",
                    JsonRejection::MissingJsonContentType(_) => "not-json",
                    _ if status == StatusCode::PAYLOAD_TOO_LARGE => "too-large",
                    _ => "malformed",
                };
                Err(ApiError::new(status, code, rejection.body_text()))
            }
        }
    }
}
