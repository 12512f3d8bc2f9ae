//! Counts the bytes that move, per kind of request and per device.
//!
//! Counted is what HTTP moves: request and status line, headers, bodies as they stream. The head
//! is an estimate (what hyper adds on its own is added as a constant), the bodies are exact.
//! A request's device is the one that authenticated ([`Meter::set_device`]), so that nobody can
//! fill the table with names.

use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, Uri},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pytheas_api::{DeviceId, DeviceTraffic, TrafficKind, TrafficReport, TrafficSums};

use crate::app::App;

/// `date: Sun, 06 Nov 1994 08:49:37 GMT` and `content-length: 1234`, which hyper adds.
const HEAD_EXTRA: u64 = 37 + 22;

/// The kind of a request, from its path.
pub(crate) fn kind(uri: &Uri) -> TrafficKind {
    let path = uri.path();
    if path.starts_with("/api/") {
        TrafficKind::Api
    } else if path.starts_with("/repo/") {
        TrafficKind::Repo
    } else if path.split('/').nth(2) == Some("controller") {
        TrafficKind::Ddi
    } else {
        TrafficKind::Page
    }
}

type Key = (String, TrafficKind);

#[derive(Debug, Default)]
struct Counters {
    sums: BTreeMap<Key, TrafficSums>,
    unwritten: HashSet<Key>,
}

impl Counters {
    fn add(&mut self, device: &str, kind: TrafficKind, more: TrafficSums) {
        let key = (device.to_owned(), kind);
        let sums = self.sums.entry(key.clone()).or_default();
        sums.requests += more.requests;
        sums.received_bytes += more.received_bytes;
        sums.sent_bytes += more.sent_bytes;
        self.unwritten.insert(key);
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<Counters>);

impl Traffic {
    /// Goes on from what was written down.
    pub(crate) fn new(known: Vec<(String, TrafficKind, TrafficSums)>) -> Self {
        let sums = known
            .into_iter()
            .map(|(device, kind, sums)| ((device, kind), sums))
            .collect();
        Self(Mutex::new(Counters {
            sums,
            unwritten: HashSet::new(),
        }))
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of one device, or of all with the sums.
    pub(crate) fn report(&self, device: Option<&DeviceId>, at_ms: i64) -> TrafficReport {
        let counters = self.counters();
        let mut total: BTreeMap<TrafficKind, TrafficSums> = BTreeMap::new();
        let mut devices: BTreeMap<DeviceId, BTreeMap<TrafficKind, TrafficSums>> = BTreeMap::new();
        for ((name, kind), sums) in &counters.sums {
            let sum = total.entry(*kind).or_default();
            sum.requests += sums.requests;
            sum.received_bytes += sums.received_bytes;
            sum.sent_bytes += sums.sent_bytes;
            if let Ok(name) = name.parse::<DeviceId>()
                && device.is_none_or(|wanted| *wanted == name)
            {
                devices.entry(name).or_default().insert(*kind, *sums);
            }
        }
        if device.is_some() {
            total.clear();
        }
        let devices = devices
            .into_iter()
            .map(|(device, kinds)| DeviceTraffic { device, kinds })
            .collect();
        TrafficReport {
            at_ms,
            total,
            devices,
        }
    }

    /// What has to be written down.
    pub(crate) fn take_unwritten(&self) -> Vec<(String, TrafficKind, TrafficSums)> {
        let mut counters = self.counters();
        std::mem::take(&mut counters.unwritten)
            .into_iter()
            .filter_map(|key| counters.sums.get(&key).map(|sums| (key.0, key.1, *sums)))
            .collect()
    }

    /// It could not be written: once more, later.
    pub(crate) fn put_back(&self, unwritten: Vec<(String, TrafficKind, TrafficSums)>) {
        self.counters().unwritten.extend(
            unwritten
                .into_iter()
                .map(|(device, kind, _)| (device, kind)),
        );
    }
}

/// One request's measurements; lies in its extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Measured>);

#[derive(Debug, Default)]
struct Measured {
    received: AtomicU64,
    device: OnceLock<DeviceId>,
}

impl Meter {
    /// This device made the request, and proved it.
    pub(crate) fn set_device(&self, device: &DeviceId) {
        let _first_wins = self.0.device.set(device.clone());
    }
}

fn headers_size(headers: &HeaderMap) -> u64 {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>() as u64
}

/// The middleware.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let kind = kind(request.uri());
    let meter = Meter::default();
    let line = request.method().as_str().len() + request.uri().to_string().len() + 12 + 2;
    let received_head = line as u64 + headers_size(request.headers());
    let counting = meter.clone();
    let mut request = request.map(|body| {
        Body::new(Counted {
            body,
            count: move |bytes| {
                counting.0.received.fetch_add(bytes, Ordering::Relaxed);
            },
        })
    });
    request.extensions_mut().insert(meter.clone());
    let response = next.run(request).await;
    let device = meter.0.device.get().map_or("", DeviceId::as_str).to_owned();
    let sums = TrafficSums {
        requests: 1,
        received_bytes: received_head + meter.0.received.load(Ordering::Relaxed),
        sent_bytes: 17 + headers_size(response.headers()) + HEAD_EXTRA,
    };
    app.traffic.counters().add(&device, kind, sums);
    response.map(|body| {
        Body::new(Counted {
            body,
            count: move |sent_bytes| {
                let sums = TrafficSums {
                    sent_bytes,
                    ..TrafficSums::default()
                };
                app.traffic.counters().add(&device, kind, sums);
            },
        })
    })
}

/// A body whose frames are counted as they pass; its length stays known.
struct Counted<F> {
    body: Body,
    count: F,
}

impl<F: Fn(u64) + Unpin> HttpBody for Counted<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            (self.count)(data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_paths() {
        for (path, expected) in [
            ("/api/v1/devices", TrafficKind::Api),
            ("/repo/metadata/timestamp.json", TrafficKind::Repo),
            ("/DEFAULT/controller/v1/dev1", TrafficKind::Ddi),
            ("/", TrafficKind::Page),
            ("/devices/gw-1", TrafficKind::Page),
            ("/metrics", TrafficKind::Page),
        ] {
            assert_eq!(kind(&path.parse().unwrap()), expected, "{path}");
        }
    }
}
