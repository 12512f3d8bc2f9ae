//! Serves a stored file: whole, in one range, in several; with the conditions of RFC 9110 §13.
//!
//! The length is always told in advance, so that answers are never chunked.

use std::{io, ops::Range, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, path::Path};

use crate::ranges::{Wanted, wanted};

/// What there is to say about the file besides its bytes.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Without quotes; the store's own when absent.
    pub(crate) etag: Option<String>,
    pub(crate) content_type: &'static str,
    pub(crate) cache_control: Option<&'static str>,
    /// Name for `Content-Disposition: attachment`.
    pub(crate) attachment: Option<String>,
}

/// The file `path` of `store` as the request wants it.
pub(crate) async fn file(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    facts: Facts,
    request: &HeaderMap,
) -> Response {
    let meta = match store.head(path).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => return crate::reply::ApiError::internal(&error).into_response(),
    };
    let etag = match (facts.etag, meta.e_tag) {
        (Some(etag), _) => format!("\"{etag}\""),
        (None, Some(etag)) if etag.starts_with('"') || etag.starts_with("W/") => etag,
        (None, Some(etag)) => format!("\"{etag}\""),
        (None, None) => format!(
            "\"{}-{}\"",
            meta.last_modified.timestamp_millis(),
            meta.size
        ),
    };
    let modified = meta
        .last_modified
        .format("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    set(header::LAST_MODIFIED, &modified);
    set(header::ACCEPT_RANGES, "bytes");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(cache_control) = facts.cache_control {
        set(header::CACHE_CONTROL, cache_control);
    }
    if let Some(name) = &facts.attachment {
        set(
            header::CONTENT_DISPOSITION,
            &format!("attachment;filename=\"{name}\""),
        );
    }

    let asked = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    if asked(header::IF_MATCH).is_some_and(|list| !matches(list, &etag)) {
        return (StatusCode::PRECONDITION_FAILED, headers).into_response();
    }
    let unchanged = match asked(header::IF_NONE_MATCH) {
        Some(list) => matches(list, &etag),
        None => asked(header::IF_MODIFIED_SINCE).is_some_and(|date| date == modified),
    };
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let range_holds = asked(header::IF_RANGE).is_none_or(|tag| tag == etag || tag == modified);
    let wanted = match asked(header::RANGE) {
        Some(range) if range_holds => wanted(range, meta.size),
        _ => Wanted::Whole,
    };

    let source = Source {
        store: store.clone(),
        path: path.clone(),
    };
    let (status, body) = match wanted {
        Wanted::Unsatisfiable => {
            let range = format!("bytes */{}", meta.size);
            if let Ok(value) = HeaderValue::from_str(&range) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response();
        }
        Wanted::Whole => {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(facts.content_type),
            );
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(meta.size));
            (
                StatusCode::OK,
                source.body(vec![Piece::Range(0..meta.size)]),
            )
        }
        Wanted::Parts(parts) if parts.len() == 1 => {
            let part = parts[0].clone();
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, meta.size);
            if let Ok(value) = HeaderValue::from_str(&range) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(facts.content_type),
            );
            headers.insert(
                header::CONTENT_LENGTH,
                HeaderValue::from(part.end - part.start),
            );
            (
                StatusCode::PARTIAL_CONTENT,
                source.body(vec![Piece::Range(part)]),
            )
        }
        Wanted::Parts(parts) => {
            let (pieces, length) = multipart(parts, meta.size, facts.content_type);
            let content_type = HeaderValue::from_static(MULTIPART);
            headers.insert(header::CONTENT_TYPE, content_type);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            (StatusCode::PARTIAL_CONTENT, source.body(pieces))
        }
    };
    (status, headers, body).into_response()
}

/// Whether a list of entity tags names this one.
fn matches(list: &str, etag: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

const MULTIPART: &str = "multipart/byteranges; boundary=pytheas-part-5d0c1e";

enum Piece {
    Text(String),
    Range(Range<u64>),
}

fn multipart(parts: Vec<Range<u64>>, size: u64, content_type: &str) -> (Vec<Piece>, u64) {
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    let mut length = 0;
    for part in parts {
        let head = format!(
            "\r\n--pytheas-part-5d0c1e\r\nContent-Type: {content_type}\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
            part.start,
            part.end - 1
        );
        length += head.len() as u64 + (part.end - part.start);
        pieces.push(Piece::Text(head));
        pieces.push(Piece::Range(part));
    }
    let tail = "\r\n--pytheas-part-5d0c1e--\r\n".to_owned();
    length += tail.len() as u64;
    pieces.push(Piece::Text(tail));
    (pieces, length)
}

#[derive(Clone)]
struct Source {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Source {
    fn body(self, pieces: Vec<Piece>) -> Body {
        let stream = stream::iter(pieces)
            .then(move |piece| {
                let source = self.clone();
                async move { source.piece(piece).await }
            })
            .try_flatten();
        Body::from_stream(stream)
    }

    async fn piece(
        self,
        piece: Piece,
    ) -> io::Result<stream::BoxStream<'static, io::Result<Bytes>>> {
        let range = match piece {
            Piece::Text(text) => return Ok(stream::iter([Ok(Bytes::from(text))]).boxed()),
            Piece::Range(range) if range.is_empty() => return Ok(stream::empty().boxed()),
            Piece::Range(range) => range,
        };
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let result = self
            .store
            .get_opts(&self.path, options)
            .await
            .map_err(io::Error::other)?;
        Ok(result.into_stream().map_err(io::Error::other).boxed())
    }
}
