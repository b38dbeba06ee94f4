//! A small HTTP server on the loopback whose every answer is scripted: for tests of what a client makes of faults.
//!
//! Contract: one closure answers all requests; the server remembers them, and how many were open at once. It ends with
//! its value. Units: bytes, milliseconds. Trap: `Content-Length` is sent as scripted, even if the body is shorter.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, header};
use futures_util::stream;
use serde_json::Value;
use url::Url;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// JSON body, or null.
    pub body: Value,
    /// Requests the server was working on, this one included.
    pub open: usize,
}

impl Asked {
    /// First and last byte of its `Range`.
    pub fn range(&self) -> Option<(usize, usize)> {
        let range = self.headers.get(header::RANGE)?.to_str().ok()?;
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// The server.
pub struct FaultServer {
    /// `http://127.0.0.1:port/`
    pub url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    peak: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultServer {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start(answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (asked, peak) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, most, open) = (asked.clone(), peak.clone(), Arc::new(AtomicUsize::new(0)));
        let answer = Arc::new(answer);
        let app = Router::new().fallback(move |request: Request| {
            let (answer, log, most, open) = (answer.clone(), log.clone(), most.clone(), open.clone());
            async move {
                let now = open.fetch_add(1, SeqCst) + 1;
                most.fetch_max(now, SeqCst);
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let asked = Asked {
                    method: parts.method.to_string(),
                    path: parts.uri.path_and_query().unwrap().to_string(),
                    headers: parts.headers,
                    body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                    open: now,
                };
                log.lock().unwrap().push(asked.clone());
                let response = answer(&asked);
                tokio::time::sleep(Duration::from_millis(5)).await;
                open.fetch_sub(1, SeqCst);
                response
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, asked, peak, task }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Most requests it was working on at once.
    pub fn peak(&self) -> usize {
        self.peak.load(SeqCst)
    }

    /// An URL below its root.
    pub fn at(&self, path: &str) -> String {
        self.url.join(path).unwrap().into()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with these headers and body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// A JSON document.
pub fn json(value: &Value) -> Response<Body> {
    answer(200, &[("content-type", "application/geo+json")], value.to_string())
}

/// What an honest file server answers.
pub fn file(asked: &Asked, bytes: &[u8]) -> Response<Body> {
    let Some((first, last)) = asked.range() else { return answer(200, &[], bytes.to_vec()) };
    if first >= bytes.len() {
        let range = format!("bytes */{}", bytes.len());
        return answer(StatusCode::RANGE_NOT_SATISFIABLE.as_u16(), &[("content-range", &range)], "");
    }
    let last = last.min(bytes.len() - 1);
    let range = format!("bytes {first}-{last}/{}", bytes.len());
    answer(206, &[("content-range", &range)], bytes[first..=last].to_vec())
}

/// A body of pieces with a pause before each.
pub fn drip(pieces: usize, piece: &'static [u8], pause: Duration) -> Body {
    Body::from_stream(stream::unfold(0, move |sent| async move {
        if sent == pieces {
            return None;
        }
        tokio::time::sleep(pause).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(piece)), sent + 1))
    }))
}

/// A body that breaks off, once its first bytes have left.
pub fn broken(first: &'static [u8]) -> Body {
    Body::from_stream(stream::unfold(0, move |sent| async move {
        if sent == 0 {
            return Some((Ok(Bytes::from_static(first)), 1));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Err(std::io::Error::other("broken off")), 2))
    }))
}
