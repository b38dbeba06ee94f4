//! One answer that has begun, and the ways to read it.
//!
//! Contract: reads never keep more than was asked for (a range) or allowed (a document), and check before they believe.
//! Trap: the body of a refused request is read too, for its first words, but only the first [`SAID_BYTES`] of it.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderName};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Extent;
use super::bodies::{Bodies, Body, Received};
use super::budget::Slot;
use super::error::{Fault, snippet};
use super::retry_after;
use crate::adapters::spare::Lent;

/// Most that is read of a refusal.
const SAID_BYTES: usize = 2048;
/// Most that is quoted of an unexpected body.
const SAID_CHARS: usize = 120;

#[derive(Debug)]
pub(super) struct Answer {
    response: Response,
    slot: Slot,
    read_timeout: Duration,
}

impl Answer {
    pub(super) fn new(response: Response, slot: Slot, read_timeout: Duration) -> Self {
        slot.answered(response.status().as_u16());
        Self { response, slot, read_timeout }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|v| v.to_str().ok())
    }

    /// The next piece of the body.
    async fn piece(&mut self, got: usize, wanted: Option<u64>) -> Result<Option<Bytes>, Fault> {
        match self.response.chunk().await {
            Ok(piece) => {
                self.slot.read(piece.as_ref().map_or(0, Bytes::len));
                Ok(piece)
            }
            Err(error) => Err(Fault::from_body(&error, got as u64, wanted, self.read_timeout)),
        }
    }

    fn must_be_plain(&self) -> Result<(), Fault> {
        match self.header(header::CONTENT_ENCODING) {
            None | Some("" | "identity") => Ok(()),
            Some(other) => Err(Fault::Encoded(snippet(other, 40))),
        }
    }

    /// The bytes of a range that was asked for.
    pub(super) async fn range(mut self, asked: Range<u64>, extent: Extent, bodies: &Bodies) -> Result<Received, Fault> {
        self.must_be_plain()?;
        let due = if self.status() == StatusCode::PARTIAL_CONTENT {
            let stated = self.header(header::CONTENT_RANGE).unwrap_or("no Content-Range").to_owned();
            Some(partial_len(&stated, &asked, extent)?)
        } else {
            self.whole_len(&asked, extent)?
        };
        let body = self.at_most(asked.end - asked.start, due, &asked, bodies).await?;
        let got = body.bytes().len() as u64;
        let short = due.is_some_and(|n| got < n) || (extent == Extent::Exact && got < asked.end - asked.start);
        if short {
            let wanted = due.or(Some(asked.end - asked.start));
            return Err(Fault::Truncated { got, wanted, why: "the body is short".into() });
        }
        if got == 0 { Err(Fault::OutOfRange(asked.start)) } else { Ok(Received { body, slot: self.slot }) }
    }

    /// A 200 is believed only when the file is no longer than the range: its length, when stated.
    fn whole_len(&self, asked: &Range<u64>, extent: Extent) -> Result<Option<u64>, Fault> {
        let len = self.response.content_length();
        let fits = match extent {
            Extent::Exact => len.is_none_or(|n| n == asked.end),
            Extent::UpTo => len.is_none_or(|n| n <= asked.end),
        };
        if asked.start == 0 && fits {
            return Ok(len);
        }
        Err(Fault::RangeIgnored { asked: asked.clone(), status: self.status().as_u16() })
    }

    /// The body, which must not have more than `max` bytes nor more than are `due`.
    async fn at_most(
        &mut self,
        max: u64,
        due: Option<u64>,
        asked: &Range<u64>,
        bodies: &Bodies,
    ) -> Result<Body, Fault> {
        let limit = due.unwrap_or(max).min(max) as usize;
        let mut whole = Bytes::new();
        let mut body: Option<Lent<u8>> = None;
        loop {
            let got = body.as_ref().map_or(whole.len(), |body| body.len());
            let Some(piece) = self.piece(got, due).await? else { break };
            if piece.len() > limit - got {
                let asked = asked.clone();
                return Err(match self.status() {
                    StatusCode::PARTIAL_CONTENT => Fault::WrongRange { asked, answered: "more bytes".into() },
                    status => Fault::RangeIgnored { asked, status: status.as_u16() },
                });
            }
            // HTTP/2 may send frames without data.
            if piece.is_empty() {
                continue;
            }
            if piece.len() == limit {
                whole = piece;
                continue;
            }
            // Copied at once: the connection reads on into the same memory only when nobody holds a piece of it.
            body.get_or_insert_with(|| bodies.lend(limit)).extend_from_slice(&piece);
        }
        Ok(body.map_or(Body::Piece(whole), Body::Copied))
    }

    /// A JSON document of at most `cap` bytes.
    pub(super) async fn json(mut self, cap: usize) -> Result<Value, Fault> {
        self.must_be_plain()?;
        let stated = self.response.content_length();
        if stated.is_some_and(|n| n > cap as u64) {
            return Err(Fault::TooLarge(cap));
        }
        let html = self.header(header::CONTENT_TYPE).is_some_and(|t| t.contains("html"));
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece(body.len(), stated).await? {
            if piece.len() > cap - body.len() {
                return Err(Fault::TooLarge(cap));
            }
            body.extend_from_slice(&piece);
            if html && body.len() > SAID_BYTES {
                break;
            }
        }
        let not_json = |what: String| Fault::NotJson { what, said: said(&body) };
        if html || body.trim_ascii_start().starts_with(b"<") {
            return Err(not_json("a page of HTML or XML".into()));
        }
        serde_json::from_slice(&body).map_err(|e| not_json(format!("unreadable ({e})")))
    }

    /// What a status other than success means.
    pub(super) async fn refusal(mut self, deadline: Instant, max_retry_after_s: u64) -> Fault {
        let status = self.status().as_u16();
        let retry_after_s = self.header(header::RETRY_AFTER).and_then(|v| {
            let date = self.header(header::DATE);
            retry_after::seconds(v, date, max_retry_after_s)
        });
        let body = timeout_at(deadline, self.beginning()).await.unwrap_or_default();
        let throttled = status == 403 && is_gateway_throttle(&body);
        Fault::Status { status, throttled, retry_after_s, said: said(&body) }
    }

    async fn beginning(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(piece)) = self.piece(body.len(), None).await {
            let room = SAID_BYTES - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == SAID_BYTES {
                break;
            }
        }
        body
    }
}

fn said(body: &[u8]) -> String {
    snippet(&String::from_utf8_lossy(&body[..body.len().min(SAID_BYTES)]), SAID_CHARS)
}

/// The API gateway before Earth Search says 403 `{"message":"Forbidden"}` when it means 429.
fn is_gateway_throttle(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|v| v == serde_json::json!({"message": "Forbidden"}))
}

/// Length of a partial answer, if it is the range that was asked for (RFC 9110, section 14.4).
fn partial_len(stated: &str, asked: &Range<u64>, extent: Extent) -> Result<u64, Fault> {
    let wrong = || Fault::WrongRange { asked: asked.clone(), answered: snippet(stated, 80) };
    let (first, last, total) = content_range(stated).ok_or_else(wrong)?;
    let end = last.checked_add(1).ok_or_else(wrong)?;
    let whole = end == asked.end;
    if let Some(total) = total
        && extent == Extent::Exact
        && (first, end) == (asked.start, total)
        && end < asked.end
    {
        return Err(Fault::ShortFile { asked: asked.clone(), total });
    }
    let to_the_end = extent == Extent::UpTo && end < asked.end && total.is_none_or(|t| t == end);
    if first == asked.start && end > first && (whole || to_the_end) { Ok(end - first) } else { Err(wrong()) }
}

/// `bytes 0-99/1234` or `bytes 0-99/*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (span, total) = rest.trim().split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    unit.eq_ignore_ascii_case("bytes").then_some((first.parse().ok()?, last.parse().ok()?, total))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_that_was_asked_for() {
        let exact = |s| partial_len(s, &(100..200), Extent::Exact).ok();
        assert_eq!(exact("bytes 100-199/1000"), Some(100));
        assert_eq!(exact("bytes 100-199/*"), Some(100));
        for wrong in
            ["bytes 100-198/1000", "bytes 0-99/1000", "bytes 100-200/1000", "bytes 199-100/1000", "bytes */1000"]
        {
            assert_eq!(exact(wrong), None, "{wrong}");
        }
        for wrong in ["", "items 100-199/1000", "bytes 100-199", "bytes 100-18446744073709551615/*", "bytes -1-2/3"] {
            assert_eq!(exact(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_may_be_all_there_is() {
        let upto = |s| partial_len(s, &(0..8192), Extent::UpTo).ok();
        assert_eq!(upto("bytes 0-8191/9000"), Some(8192));
        assert_eq!(upto("bytes 0-999/1000"), Some(1000));
        assert_eq!(upto("bytes 0-999/*"), Some(1000));
        assert_eq!(upto("bytes 0-999/9000"), None, "there is more, and it was asked for");
    }
}
