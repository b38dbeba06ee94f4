//! What can go wrong between us and a server, and what to do about it.
//!
//! Contract: every fault has one severity; messages name the URL without its query and credentials, because signed
//! URLs are secrets and messages end up in logs and dead letters. Trap: reqwest hides the cause at the end of its
//! chain of sources, so the chain is walked.

use std::error::Error as StdError;
use std::ops::Range;
use std::time::Duration;

use crate::domain::failure::Severity;

use super::trust::Refused;

/// A request that did not give what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{method} {href}: {fault}")]
pub struct HttpError {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The URL, without query and credentials.
    pub href: String,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The client could not be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
    /// Not an absolute URL.
    #[error("not a usable URL: {0}")]
    BadUrl(String),
    /// An empty range, or one larger than allowed.
    #[error("a range of {} bytes from {} cannot be asked for: 1 to {max} are allowed", .range.end.saturating_sub(.range.start), .range.start)]
    BadRange {
        /// What was asked.
        range: Range<u64>,
        /// Most that may be asked.
        max: u64,
    },
    /// Trust says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A redirect that is not followed.
    #[error("redirect not followed: {0}")]
    Redirect(String),
    /// The server's refusal.
    #[error("status {status}{}{}", if .said.is_empty() { "" } else { ": " }, .said)]
    Status {
        /// HTTP status.
        status: u16,
        /// Whether the server means "too many requests", whatever the status.
        throttled: bool,
        /// Its `Retry-After`, seconds, capped.
        retry_after_s: Option<u64>,
        /// First words of the body.
        said: String,
    },
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// A certificate that cannot be trusted, or no TLS on the other side.
    #[error("TLS: {0} (check the host name, its certificate, and this machine's CA certificates)")]
    Tls(String),
    /// Connection lost before the answer began.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Silence.
    #[error("no byte for {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// Bytes come, but too few.
    #[error("the answer came too slowly and was given up")]
    TooSlow,
    /// The body ended early.
    #[error("the answer ended after {got} bytes{}: {why}", .wanted.map(|n| format!(" of {n}")).unwrap_or_default())]
    Truncated {
        /// Bytes that came.
        got: u64,
        /// Bytes that were due, when known.
        wanted: Option<u64>,
        /// What the connection said.
        why: String,
    },
    /// The whole file came instead of the range.
    #[error(
        "the server ignores Range requests: it answered {status} to {asked:?}; serve the file with a server that knows them"
    )]
    RangeIgnored {
        /// What was asked.
        asked: Range<u64>,
        /// What came.
        status: u16,
    },
    /// The file is shorter than the range.
    #[error("asked for bytes {asked:?}, but the file has {total} bytes: it is truncated")]
    ShortFile {
        /// What was asked.
        asked: Range<u64>,
        /// Length of the file.
        total: u64,
    },
    /// Another range came than the one asked for: a confused proxy or cache, which may come to its senses.
    #[error("asked for bytes {asked:?}, the server sent {answered}")]
    WrongRange {
        /// What was asked.
        asked: Range<u64>,
        /// What came.
        answered: String,
    },
    /// The file ends before the range begins.
    #[error("the file ends before byte {0}: it is empty or truncated")]
    OutOfRange(u64),
    /// A body in an encoding we did not ask for.
    #[error("the server sent the body in encoding `{0}` though `identity` was asked for")]
    Encoded(String),
    /// A document that is not JSON.
    #[error("the answer is {what}, not JSON; it begins: {said}")]
    NotJson {
        /// HTML, or what the parser says.
        what: String,
        /// First words of it.
        said: String,
    },
    /// A document larger than allowed.
    #[error("the answer is larger than the {0} bytes allowed")]
    TooLarge(usize),
    /// A `file:` that cannot be read.
    #[error("cannot be read: {0}")]
    File(#[source] std::io::Error),
    /// A `file:` that is a directory, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
}

impl HttpError {
    pub(super) fn new(method: &'static str, href: &str, fault: Fault) -> Self {
        Self { method, href: redact(href), fault }
    }

    pub(super) fn setup(error: &reqwest::Error) -> Self {
        Self::new("GET", "", Fault::Setup(chain(error)))
    }

    /// What to do about it.
    pub fn severity(&self) -> Severity {
        self.fault.severity()
    }

    /// The server's own wish for the next attempt, seconds from the answer, capped by configuration.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self.fault {
            Fault::Status { retry_after_s, .. } if self.severity() == Severity::Transient => retry_after_s,
            _ => None,
        }
    }

    /// HTTP status, when the server gave one.
    pub fn status(&self) -> Option<u16> {
        match self.fault {
            Fault::Status { status, .. } => Some(status),
            _ => None,
        }
    }
}

impl Fault {
    /// What to do about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Setup(_) => Severity::Fatal,
            Self::Status { throttled: true, .. } => Severity::Transient,
            Self::Status { status: 408 | 425 | 429 | 500 | 502 | 503 | 504, .. } => Severity::Transient,
            Self::Connect(_) | Self::Lost(_) | Self::Timeout(_) | Self::TooSlow => Severity::Transient,
            Self::Truncated { .. } | Self::WrongRange { .. } => Severity::Transient,
            Self::File(error) => file_severity(error),
            _ => Severity::Permanent,
        }
    }

    /// Why a request was not even answered.
    pub(super) fn from_request(error: &reqwest::Error, read_timeout: Duration) -> Self {
        if let Some(refused) = sources(error).find_map(|e| e.downcast_ref::<Refused>()) {
            return Self::Refused(refused.clone());
        }
        let why = chain(error);
        if is_tls(&why) {
            Self::Tls(why)
        } else if error.is_connect() {
            Self::Connect(why)
        } else if error.is_timeout() {
            Self::Timeout(read_timeout)
        } else if error.is_builder() {
            Self::BadUrl(why)
        } else {
            Self::Lost(why)
        }
    }

    /// Why a body stopped.
    pub(super) fn from_body(error: &reqwest::Error, got: u64, wanted: Option<u64>, read_timeout: Duration) -> Self {
        if error.is_timeout() {
            return Self::Timeout(read_timeout);
        }
        Self::Truncated { got, wanted, why: chain(error) }
    }
}

/// Errors of the file system that stay; the rest (`EIO`, `ESTALE`, a mount that comes back) may go away.
fn file_severity(error: &std::io::Error) -> Severity {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound | Kind::PermissionDenied | Kind::NotADirectory | Kind::IsADirectory => Severity::Permanent,
        Kind::InvalidInput | Kind::InvalidFilename => Severity::Permanent,
        _ => Severity::Transient,
    }
}

/// OpenSSL's words for what no second attempt mends. It has no typed error on this side of reqwest.
fn is_tls(why: &str) -> bool {
    ["certificate", "wrong version number", "http request", "packet length too long"].iter().any(|w| why.contains(w))
        && ["ssl", "SSL", "TLS"].iter().any(|w| why.contains(w))
}

fn sources<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&e: &&'a (dyn StdError + 'static)| e.source())
}

/// The causes of an error, without reqwest's own line (it repeats the URL, query and all).
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in sources(error).map(ToString::to_string) {
        if !parts.iter().any(|said| said.contains(&part)) {
            parts.push(part);
        }
    }
    if parts.is_empty() { "no cause given".into() } else { snippet(&parts.join(": "), 300) }
}

/// A URL without what may be secret in it.
pub fn redact(href: &str) -> String {
    let plain = match url::Url::parse(href) {
        Ok(mut url) => {
            let _ = (url.set_username(""), url.set_password(None));
            url.set_fragment(None);
            if url.query().is_some() {
                url.set_query(Some("…"));
                return snippet(&url.as_str().replace("?%E2%80%A6", "?…"), 300);
            }
            url.to_string()
        }
        Err(_) => href.split('?').next().unwrap_or_default().to_owned(),
    };
    snippet(&plain, 300)
}

/// The first `max` characters of a text on one line, without control characters.
pub(super) fn snippet(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty());
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() > 4 * max {
            break;
        }
    }
    match out.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &out[..at]),
        None => out,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_messages() {
        assert_eq!(redact("https://u:p@h.example/a/b.tif?X-Amz-Signature=abc#f"), "https://h.example/a/b.tif?…");
        assert_eq!(redact("https://h.example/a.tif"), "https://h.example/a.tif");
        assert_eq!(redact("../a.tif?sig=abc"), "../a.tif");
    }

    #[test]
    fn snippets_are_one_clean_line() {
        assert_eq!(snippet("<html>\r\n\t<b>\u{1b}[31mNo\u{0}</b>", 18), "<html> <b> [31mNo …");
        assert_eq!(snippet(" a \n b ", 18), "a b");
        assert_eq!(snippet(&"é".repeat(500), 3), "ééé…");
        assert!(snippet(&"a ".repeat(1_000_000), 120).len() < 130);
    }

    #[test]
    fn severities() {
        let status =
            |status, throttled| Fault::Status { status, throttled, retry_after_s: Some(3), said: String::new() };
        for transient in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(status(transient, false).severity(), Severity::Transient, "{transient}");
        }
        for permanent in [400, 401, 403, 404, 410, 413, 501] {
            assert_eq!(status(permanent, false).severity(), Severity::Permanent, "{permanent}");
        }
        assert_eq!(status(403, true).severity(), Severity::Transient);
        assert_eq!(HttpError::new("GET", "http://h/", status(429, false)).retry_after_s(), Some(3));
        assert_eq!(HttpError::new("GET", "http://h/", status(404, false)).retry_after_s(), None);
    }

    #[test]
    fn words_of_openssl() {
        assert!(is_tls(
            "client error (Connect): error:0A000086:SSL routines:tls_post_process_server_certificate: certificate verify failed"
        ));
        assert!(is_tls("error:0A00010B:SSL routines:ssl3_get_record:wrong version number"));
        assert!(!is_tls("tcp connect error: Connection refused (os error 111)"));
    }
}
