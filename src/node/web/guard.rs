//! Who may read, and what every answer says about itself.
//!
//! Contract: with a token, a request shows it (`Authorization: Bearer`, or the cookie that `/?token=` leaves) or gets
//! nothing but the question for it; health checks are free. Without one, and unless `monitor.allow_public`, the page
//! answers only to names of this machine, so that a site elsewhere cannot read it through the visitor's browser by
//! pointing its own name here. Every answer carries a policy under which no script but our own file runs.
//! Trap: secrets are compared as hashes, so the time it takes tells nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;
use sha2::{Digest as _, Sha256};

use super::document::{document, files};
use super::problem;
use crate::domain::checksum::hex;
use crate::node::config::Monitor;

/// Longest address that is looked at, bytes.
const MAX_URI: usize = 2048;

/// No script, style, picture or connection but our own; no frame around us; no form elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const COOKIE: &str = "satellite_monitor";
/// How long a browser keeps it, seconds: a month.
const COOKIE_AGE: u32 = 2_592_000;

/// Paths that need no token: they say that the process lives, how the page looks, and nothing of the run.
const FREE: [&str; 4] = ["/healthz", "/readyz", "/style.css", "/icon.svg"];

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// Hash of the token.
    token: Option<[u8; 32]>,
    /// What the cookie holds: not the token itself.
    cookie: String,
    any_name: bool,
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Guard {
    pub(super) fn of(monitor: &Monitor) -> Self {
        let token = monitor.token();
        let cookie = token.map(|token| hex(&hash(&format!("{COOKIE} {token}")))).unwrap_or_default();
        Self { token: token.map(hash), cookie, any_name: token.is_some() || monitor.allow_public }
    }

    /// Whether the request may be addressed like this: an IP address, or a name of this machine.
    fn knows(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).or_else(|| uri.host());
        self.any_name || host.is_some_and(is_local)
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token else { return true };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
        let bearer = bearer.and_then(|h| h.strip_prefix("Bearer "));
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|h| h.to_str().ok());
        let mut cookies = cookies.flat_map(|h| h.split(';')).filter_map(|pair| pair.trim().split_once('='));
        bearer.is_some_and(|given| hash(given) == token)
            || cookies.any(|(name, value)| name == COOKIE && hash(value) == hash(&self.cookie))
    }

    /// The answer to an address with a token in it: a cookie, and the same address without it.
    fn exchange(&self, uri: &Uri) -> Option<Response> {
        let given = url::form_urlencoded::parse(uri.query()?.as_bytes()).find(|(name, _)| name == "token")?.1;
        let right = self.token.is_some_and(|token| hash(given.trim()) == token);
        if !right {
            return self.token.is_some().then(|| ask("This is not the token."));
        }
        let cookie = format!("{COOKIE}={}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax", self.cookie);
        Some((StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())]).into_response())
    }
}

/// `localhost`, or an address: those cannot be made to point here by a stranger's name server.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Lets a request through, or not, and puts the headers on whatever answer there is.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let refused = if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI {
        Some(problem(StatusCode::URI_TOO_LONG, format!("an address has at most {MAX_URI} bytes here")))
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Some(problem(StatusCode::METHOD_NOT_ALLOWED, "everything here is only read: GET"))
    } else if FREE.contains(&uri.path()) {
        None
    } else if !guard.knows(headers, uri) {
        let text = "this page answers to localhost and to addresses only; for another name set monitor.token, or \
                    monitor.allow_public = true";
        Some(problem(StatusCode::MISDIRECTED_REQUEST, text))
    } else if uri.path() == "/"
        && let Some(answer) = guard.exchange(uri)
    {
        Some(answer)
    } else {
        (!guard.admits(headers)).then(|| ask("This monitor asks for a token (monitor.token)."))
    };
    let mut answer = match refused {
        Some(answer) => answer,
        None => next.run(request).await,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// The question for the token.
fn ask(text: &str) -> Response {
    let body = html! {
        main.narrow {
            h1 { "satellite-pipeline" }
            p { (text) }
            form method="get" action="/" {
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus;
                button { "Show the run" }
            }
            p.faint { "Programs send " code { "Authorization: Bearer TOKEN" } "." }
        }
    };
    let page = document("Token · satellite-pipeline", &files(), &body);
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, headers, page).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LocalHost:8787", "127.0.0.1:8787", "127.0.0.1", "[::1]:8787", "192.168.1.4:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8787", "", "[::1", "127.0.0.1.evil.example", ":80"] {
            assert_eq!(is_local(host), host == "[::1", "{host}");
        }
    }
}
