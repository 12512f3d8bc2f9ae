//! The frame of every page, and the headers that guard it.

use std::sync::OnceLock;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use pytheas_api::ErrorDetail;
use sha2::{Digest, Sha256};

use super::parts;
use crate::auth::Session;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Asks for the part of a page that changes, and marks it in the answer.
const FRAGMENT: HeaderName = HeaderName::from_static("x-fragment");

/// Only our own style and script, by hash; nothing from elsewhere, nothing framed.
fn policy() -> HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    POLICY
        .get_or_init(|| {
            let (style, script) = (
                base64(&Sha256::digest(STYLE)),
                base64(&Sha256::digest(SCRIPT)),
            );
            let text = format!(
                "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
                 connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            );
            HeaderValue::from_str(&text).expect("base64 and constants are printable")
        })
        .clone()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[index])
            } else {
                '='
            });
        }
    }
    text
}

fn guarded(status: StatusCode, markup: Markup) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy()),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, Html(markup.into_string())).into_response()
}

fn frame(title: &str, bar: Markup, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Pytheas" }
                // Constants of this program.
                style { (PreEscaped(STYLE)) }
            }
            body {
                (bar)
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// A page of somebody who is logged in; only its changing part when that was asked for.
pub(crate) fn page(
    request: &HeaderMap,
    session: &Session,
    title: &str,
    content: Markup,
) -> Response {
    if request.contains_key(FRAGMENT) {
        let mut response = guarded(StatusCode::OK, content);
        response
            .headers_mut()
            .insert(FRAGMENT, HeaderValue::from_static("1"));
        return response;
    }
    let bar = html! {
        header.bar {
            a.name href="/" { "Pytheas" }
            form method="post" action="/logout" {
                input type="hidden" name="word" value=(session.form_word);
                span.soft { (session.token.name) ", " (session.token.role) }
                button.plain { "Log out" }
            }
        }
    };
    let main = html! {
        main #live { (content) }
        // Stays while the content is replaced, so that readers hear what is new and nothing else.
        p.hidden #news role="status" aria-live="polite" {}
    };
    guarded(StatusCode::OK, frame(title, bar, main))
}

/// A page of nobody in particular.
pub(crate) fn bare(status: StatusCode, title: &str, content: Markup) -> Response {
    guarded(status, frame(title, html! {}, content))
}

/// A page that says what failed.
pub(crate) fn failed(status: StatusCode, error: &ErrorDetail) -> Response {
    let content = html! {
        main.login {
            h1 { (parts::prose(&error.message)) }
            @if let Some(help) = &error.help { p { (parts::prose(help)) } }
            p { a href="/" { "Overview" } }
        }
    };
    bare(status, "Error", content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn constants_do_not_end_their_element() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
    }
}
