//! HTTP to a store that is busy, slow, or stops answering: what publishing sends and reads goes
//! through here.
//!
//! `object_store` tries again by itself, but knows no `Retry-After`, gives a busy server four tries in
//! a few seconds, and has one limit of time for a request, however long that is.
//!
//! - 429 and 503: asked again as [`Patience`] says; only then its answer is given on.
//! - No bytes of an answer for [`SILENCE`], or too few ([`Meter`]): an error, and `object_store` goes on
//!   from where it stopped.
//! - A request must be taken, and answered, within [`ANSWER`] and the time its bytes need at
//!   [`SLOWEST`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};
use tokio::time::{Instant, Sleep};

use crate::{
    busy::{self, Patience},
    steady::Meter,
};

/// How long a server may take to answer what it has been sent.
const ANSWER: Duration = Duration::from_secs(120);
/// The slowest line that something is published over, in bytes per second.
const SLOWEST: u64 = 2_000;
/// No longer silence within an answer.
const SILENCE: Duration = Duration::from_secs(60);

/// Makes clients that are patient, and not for ever.
#[derive(Debug, Default)]
pub(super) struct Patient;

impl HttpConnector for Patient {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { inner }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut patience = Patience::default();
        loop {
            let answer = self.once(request.clone()).await?;
            if !busy::is_busy(answer.status().as_u16()) {
                return Ok(answer);
            }
            let Some(pause) = patience.next_pause(asked_to_wait(&answer)) else {
                return Ok(answer);
            };
            let (host, status) = (request.uri().host().unwrap_or_default(), answer.status());
            let seconds = pause.as_secs_f64().ceil();
            tracing::warn!("`{host}` is busy (status {status}); asking again in {seconds} s");
            drop(answer);
            tokio::time::sleep(pause).await;
        }
    }
}

impl Service {
    async fn once(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bytes = u64::try_from(request.body().content_length()).unwrap_or(u64::MAX);
        let limit = ANSWER + Duration::from_secs(bytes / SLOWEST);
        let Ok(answer) = tokio::time::timeout(limit, self.inner.execute(request)).await else {
            let text = format!("no answer within {} s", limit.as_secs());
            return Err(timed_out(io::Error::new(io::ErrorKind::TimedOut, text)));
        };
        let (head, body) = answer?.into_parts();
        let body = SteadyBody {
            body,
            meter: Meter::default(),
            asked: None,
            silence: Box::pin(tokio::time::sleep(SILENCE)),
        };
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn asked_to_wait(answer: &HttpResponse) -> Option<Duration> {
    let text = |name| answer.headers().get(name)?.to_str().ok();
    let sent = text("date").and_then(busy::http_date);
    busy::retry_after(text("retry-after")?, sent, jiff::Timestamp::now())
}

fn timed_out(error: io::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, error)
}

/// A body that fails when it falls silent or drips.
struct SteadyBody {
    body: HttpResponseBody,
    meter: Meter,
    /// Since when more is waited for; who does not ask waits for nothing.
    asked: Option<Instant>,
    silence: Pin<Box<Sleep>>,
}

impl Body for SteadyBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        let asked = match this.asked {
            Some(asked) => asked,
            None => {
                let now = Instant::now();
                this.silence.as_mut().reset(now + SILENCE);
                *this.asked.insert(now)
            }
        };
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            ready!(this.silence.as_mut().poll(context));
            let text = format!("the server is silent for {} s", SILENCE.as_secs());
            let error = io::Error::new(io::ErrorKind::TimedOut, text);
            return Poll::Ready(Some(Err(timed_out(error))));
        };
        this.asked = None;
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref(),
            _ => None,
        };
        if let Some(data) = data
            && let Err(error) = this.meter.came(data.len(), asked.elapsed())
        {
            return Poll::Ready(Some(Err(timed_out(error))));
        }
        Poll::Ready(frame)
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
    use futures::StreamExt as _;

    use super::*;

    /// A byte after each pause, for ever.
    struct Drip(Pin<Box<Sleep>>);

    impl Body for Drip {
        type Data = Bytes;
        type Error = HttpError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
            ready!(self.0.as_mut().poll(context));
            let next = Instant::now() + Duration::from_millis(5);
            self.0.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test]
    async fn an_answer_that_drips_is_given_up() {
        let drip = Drip(Box::pin(tokio::time::sleep(Duration::ZERO)));
        let body = SteadyBody {
            body: HttpResponseBody::new(drip),
            meter: Meter::with_window(Duration::from_millis(50)),
            asked: None,
            silence: Box::pin(tokio::time::sleep(SILENCE)),
        };
        let mut chunks = HttpResponseBody::new(body).bytes_stream();
        let error = loop {
            if let Err(error) = chunks.next().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error.kind(), HttpErrorKind::Timeout);
        assert!(error.to_string().contains("the server drips: "), "{error}");
    }
}
