//! Scripted faults: the troubles a real STAC API or object store causes, on demand and a given number of times.
//!
//! Contract: of the faults whose glob matches a path, the oldest one with turns left is used up and spoils that answer.
//! Trap: a fault matches the decoded URL path with its leading slash; `*` also matches slashes.

use super::cut::Peer;
use crate::demo::DemoError;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use futures_util::{StreamExt, stream};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most faults kept at once; more are refused silently, as no test needs them.
const MAX_FAULTS: usize = 1000;

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// This status instead, with an optional `Retry-After` in seconds: `status:503`, `status:429:2`.
    Status(u16, Option<u64>),
    /// The connection is reset without an answer: `reset`.
    Reset,
    /// The head promises the whole body, half of it comes, then the connection ends: `truncate`.
    Truncate,
    /// The body comes one byte per so many ms: `drip` (100 ms), `drip:MS`.
    Drip(u64),
    /// A 206 that says, and holds, other bytes than those asked for: `wrong_range`.
    WrongRange,
    /// A 200 with a web page, as captive portals and gateways answer: `html`.
    Html,
    /// The right answer, so many ms late: `slow:MS`.
    Slow(u64),
}

impl FromStr for FaultKind {
    type Err = DemoError;

    fn from_str(text: &str) -> Result<Self, DemoError> {
        let unknown = || DemoError::UnknownFault(text.to_owned());
        let number = |n: &str| n.parse::<u64>().map_err(|_| unknown());
        let parts: Vec<&str> = text.split(':').collect();
        let status = |n: &str| n.parse().ok().filter(|n| (200..=599).contains(n)).ok_or_else(unknown);
        Ok(match parts.as_slice() {
            ["status", code] => Self::Status(status(code)?, None),
            ["status", code, after] => Self::Status(status(code)?, Some(number(after)?)),
            ["reset"] => Self::Reset,
            ["truncate"] => Self::Truncate,
            ["drip"] => Self::Drip(100),
            ["drip", ms] => Self::Drip(number(ms)?),
            ["wrong_range"] => Self::WrongRange,
            ["html"] => Self::Html,
            ["slow", ms] => Self::Slow(number(ms)?),
            _ => return Err(unknown()),
        })
    }
}

/// One line of the script.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which paths: `*` any characters, `?` one character.
    pub path: String,
    /// What happens.
    pub kind: FaultKind,
    /// How many answers it spoils; 0 = every one until a reset.
    pub times: u32,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Vec<Fault>>);

impl Script {
    pub(super) fn add(&self, fault: Fault) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < MAX_FAULTS {
            faults.push(fault);
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fault of this path, if any; uses one of its turns.
    pub(super) fn take(&self, path: &str) -> Option<FaultKind> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults.iter().position(|f| matches(f.path.as_bytes(), path.as_bytes()))?;
        let kind = faults[at].kind;
        match faults[at].times {
            0 => {}
            1 => drop(faults.remove(at)),
            _ => faults[at].times -= 1,
        }
        Some(kind)
    }
}

/// Whether a glob of `*` and `?` covers a whole text; linear in practice, never recursive.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => (g, t) = (g + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (g, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

/// Answers a request the way `kind` says.
pub(super) async fn spoil(kind: FaultKind, peer: &Peer, request: Request, next: Next) -> Response {
    match kind {
        FaultKind::Status(code, retry_after) => status(code, retry_after),
        FaultKind::Reset => {
            peer.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        FaultKind::Html => {
            Html("<!doctype html><title>Sign in</title><p>Please sign in to this network.").into_response()
        }
        FaultKind::Slow(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            next.run(request).await
        }
        FaultKind::Truncate => truncate(next.run(request).await),
        FaultKind::Drip(ms) => drip(next.run(request).await, ms),
        FaultKind::WrongRange => wrong_range(request, next).await,
    }
}

fn status(code: u16, retry_after: Option<u64>) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = (code, "scripted fault\n").into_response();
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// The length the head of an answer promises.
fn promised(answer: &Response) -> u64 {
    let said = answer.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    said.or_else(|| axum::body::HttpBody::size_hint(answer.body()).exact()).unwrap_or(0)
}

fn truncate(answer: Response) -> Response {
    let length = promised(&answer);
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONTENT_LENGTH, length.into());
    let pieces = stream::unfold((body.into_data_stream(), length / 2), |(mut body, left)| async move {
        if left == 0 {
            let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Some((Err(axum::Error::new(gone)), (body, 0)));
        }
        let piece = body.next().await?;
        let piece = piece.map(|bytes| bytes.slice(..bytes.len().min(left as usize)));
        let rest = left - piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
        // A pause, so that the half is on the wire before the connection ends.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((piece, (body, rest)))
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

fn drip(answer: Response, ms: u64) -> Response {
    let length = promised(&answer);
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONTENT_LENGTH, length.into());
    let drops = stream::unfold((body.into_data_stream(), Bytes::new()), move |(mut body, mut left)| async move {
        while left.is_empty() {
            match body.next().await? {
                Ok(piece) => left = piece,
                Err(e) => return Some((Err(e), (body, left))),
            }
        }
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let drop = left.split_to(1);
        Some((Ok(drop), (body, left)))
    });
    Response::from_parts(head, Body::from_stream(drops))
}

/// Serves the range one byte off (earlier, or later if it begins at 0), and says so in `Content-Range`.
async fn wrong_range(mut request: Request, next: Next) -> Response {
    let asked = request.headers().get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| {
        let (first, last) = v.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()))
    });
    let shifted = match asked {
        Some((0, Some(last))) => format!("bytes=1-{}", last.saturating_add(1)),
        Some((first, Some(last))) if last >= first && first > 0 => format!("bytes={}-{}", first - 1, last - 1),
        Some((first, None)) if first > 0 => format!("bytes={}-", first - 1),
        _ => "bytes=1-".to_owned(),
    };
    if let Ok(value) = HeaderValue::from_str(&shifted) {
        request.headers_mut().insert(header::RANGE, value);
    }
    next.run(request).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(matches(b"*.tif", b"/a/b/B02.tif"));
        assert!(matches(b"/search", b"/search"));
        assert!(matches(b"/*/B0?.tif", b"/x/y/B02.tif"));
        assert!(matches(b"*a*b*", b"xxaabyyb"));
        assert!(!matches(b"/search", b"/search/"));
        assert!(!matches(b"*.tif", b"/a.tiff"));
        assert!(matches(b"*", b""));
    }

    #[test]
    fn turns_are_used_up_oldest_first() {
        let script = Script::default();
        script.add(Fault { path: "*.tif".into(), kind: FaultKind::Reset, times: 2 });
        script.add(Fault { path: "*".into(), kind: FaultKind::Html, times: 0 });
        let seen: Vec<_> = ["/a.tif", "/a", "/b.tif", "/c.tif"].map(|p| script.take(p).unwrap()).into();
        assert_eq!(seen, [FaultKind::Reset, FaultKind::Html, FaultKind::Reset, FaultKind::Html]);
    }

    #[test]
    fn kinds_are_read_or_refused() {
        assert_eq!("status:429:2".parse::<FaultKind>().unwrap(), FaultKind::Status(429, Some(2)));
        assert_eq!("drip".parse::<FaultKind>().unwrap(), FaultKind::Drip(100));
        for bad in ["status", "status:99", "slow", "slow:x", "", "boom"] {
            assert!(bad.parse::<FaultKind>().is_err(), "{bad}");
        }
    }
}
