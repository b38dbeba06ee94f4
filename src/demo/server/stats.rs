//! Counters per path class, and the knobs that slow the server down.
//!
//! Contract: a request is in flight from its head until the last byte of its answer was handed to the connection, or
//! the connection was dropped. Units: bytes of answer bodies, milliseconds, Mbit/s per connection.
//! Trap: body bytes are counted when handed over, so a client that leaves early may be counted up to one piece high.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How slow the server pretends to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knobs {
    /// Wait before each answer, ms.
    pub latency_ms: u64,
    /// Bandwidth of each connection, Mbit/s; 0 = unlimited.
    pub mbit: u64,
}

/// Counters of one kind of path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStats {
    /// Requests of any method.
    pub requests: u64,
    /// Of these, HEAD.
    pub heads: u64,
    /// Of these, with a `Range` header.
    pub ranges: u64,
    /// Bytes of answer bodies.
    pub bytes: u64,
    /// Answers with status 400 or above, and connections reset by a fault.
    pub errors: u64,
}

/// Counters since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The STAC API.
    pub stac: PathStats,
    /// `*.tif`.
    pub tif: PathStats,
    /// `*.json` files.
    pub json: PathStats,
    /// Every other path.
    pub other: PathStats,
    /// Answers under way now.
    pub in_flight: u64,
    /// The most answers that were under way at once.
    pub max_in_flight: u64,
}

impl Stats {
    /// All path classes together.
    pub fn total(&self) -> PathStats {
        [self.stac, self.tif, self.json, self.other].iter().fold(PathStats::default(), |a, b| PathStats {
            requests: a.requests + b.requests,
            heads: a.heads + b.heads,
            ranges: a.ranges + b.ranges,
            bytes: a.bytes + b.bytes,
            errors: a.errors + b.errors,
        })
    }
}

#[derive(Debug, Default)]
struct PathCounters {
    requests: AtomicU64,
    heads: AtomicU64,
    ranges: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl PathCounters {
    fn all(&self) -> [&AtomicU64; 5] {
        [&self.requests, &self.heads, &self.ranges, &self.bytes, &self.errors]
    }

    fn snapshot(&self) -> PathStats {
        let [requests, heads, ranges, bytes, errors] = self.all().map(|n| n.load(Relaxed));
        PathStats { requests, heads, ranges, bytes, errors }
    }
}

/// Index into [`Inner::paths`].
#[derive(Debug, Clone, Copy)]
enum PathClass {
    Stac,
    Tif,
    Json,
    Other,
}

impl PathClass {
    fn of(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "" | "conformance" | "collections" | "search" => Self::Stac,
            _ if path.ends_with(".tif") => Self::Tif,
            _ if path.ends_with(".json") => Self::Json,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    paths: [PathCounters; 4],
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    latency_ms: AtomicU64,
    mbit: AtomicU64,
}

/// The server's live counters and knobs; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Inner>);

impl Counters {
    pub(super) fn knobs(&self) -> Knobs {
        Knobs { latency_ms: self.0.latency_ms.load(Relaxed), mbit: self.0.mbit.load(Relaxed) }
    }

    pub(super) fn configure(&self, knobs: Knobs) {
        self.0.latency_ms.store(knobs.latency_ms, Relaxed);
        self.0.mbit.store(knobs.mbit, Relaxed);
    }

    pub(super) fn reset(&self) {
        for counter in self.0.paths.iter().flat_map(PathCounters::all) {
            counter.store(0, Relaxed);
        }
        self.0.max_in_flight.store(self.0.in_flight.load(Relaxed), Relaxed);
    }

    pub(super) fn snapshot(&self) -> Stats {
        let [stac, tif, json, other] = self.0.paths.each_ref().map(PathCounters::snapshot);
        let (in_flight, max_in_flight) = (self.0.in_flight.load(Relaxed), self.0.max_in_flight.load(Relaxed));
        Stats { stac, tif, json, other, in_flight, max_in_flight }
    }

    /// Counts a request in; the passage counts it out.
    pub(super) fn enter(&self, request: &Request) -> Passage {
        let class = PathClass::of(request.uri().path());
        let counters = &self.0.paths[class as usize];
        counters.requests.fetch_add(1, Relaxed);
        counters.heads.fetch_add(u64::from(request.method() == Method::HEAD), Relaxed);
        counters.ranges.fetch_add(u64::from(request.headers().contains_key(header::RANGE)), Relaxed);
        let now = self.0.in_flight.fetch_add(1, Relaxed) + 1;
        self.0.max_in_flight.fetch_max(now, Relaxed);
        Passage { inner: self.0.clone(), class }
    }
}

/// One request on its way through the server.
pub(super) struct Passage {
    inner: Arc<Inner>,
    class: PathClass,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.inner.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Passage {
    fn counters(&self) -> &PathCounters {
        &self.inner.paths[self.class as usize]
    }

    /// Wraps an answer's body so that it is counted, paced, and ends in an error when the server stops.
    pub(super) fn follow(self, answer: Response, stopping: CancellationToken) -> Response {
        if answer.status().as_u16() >= 400 {
            self.counters().errors.fetch_add(1, Relaxed);
        }
        let (mut head, body) = answer.into_parts();
        // A body that becomes a stream loses its length: keep it, or small answers would turn chunked.
        if !head.headers.contains_key(header::CONTENT_LENGTH)
            && let Some(exact) = axum::body::HttpBody::size_hint(&body).exact()
        {
            head.headers.insert(header::CONTENT_LENGTH, exact.into());
        }
        let pace = Pace { since: Instant::now(), sent: 0 };
        let pieces = stream::unfold((body.into_data_stream(), self, pace), move |(mut body, passage, mut pace)| {
            let stopping = stopping.clone();
            async move {
                let piece = tokio::select! {
                    piece = body.next() => piece?,
                    () = stopping.cancelled() => Err(axum::Error::new(std::io::Error::other("server stops"))),
                };
                if let Ok(bytes) = &piece {
                    passage.counters().bytes.fetch_add(bytes.len() as u64, Relaxed);
                    pace.wait(bytes, passage.inner.mbit.load(Relaxed)).await;
                }
                Some((piece, (body, passage, pace)))
            }
        });
        Response::from_parts(head, Body::from_stream(pieces))
    }
}

/// Keeps one answer under a bandwidth.
struct Pace {
    since: Instant,
    sent: u64,
}

impl Pace {
    async fn wait(&mut self, piece: &Bytes, mbit: u64) {
        self.sent += piece.len() as u64;
        // bits / (Mbit/s) = microseconds; no division, no limit
        if let Some(micros) = (self.sent * 8).checked_div(mbit) {
            tokio::time::sleep_until((self.since + Duration::from_micros(micros)).into()).await;
        }
    }
}
