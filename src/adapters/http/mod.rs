//! The one door to HTTP(S), for scenes' pixels and for the catalog; and to `file:` where that is allowed.
//!
//! Contract: an answer is exactly what was asked for, or a typed error. Bounded: concurrent requests per host, bytes of
//! an answer, silence between two chunks, the time of a whole answer, and complete bodies that nobody has used yet. No
//! retries here: actors decide, on [`HttpError::severity`]. Nothing goes to a host that [`Trust`] refuses, redirects included.
//! Units: bytes, seconds. Trap: a budget slot is held until the body has been read and has a place, so hold no answer while
//! asking for another.

mod answer;
mod bodies;
mod budget;
mod error;
mod file;
mod retry_after;
mod trust;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

pub use budget::{HttpCounters, HttpTally, MAX_HOSTS};
pub use error::{Fault, HttpError, redact};
pub use trust::Trust;

use answer::Answer;
use bodies::Bodies;
use budget::Hosts;

/// How the door behaves. All of it comes from configuration.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Longest wait for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence: until the answer begins, and between two pieces of it.
    pub read_timeout: Duration,
    /// Longest time for a whole body, on top of what its bytes may take at `min_bytes_per_s`.
    pub body_timeout: Duration,
    /// Slower than this over a whole body, and the answer is given up.
    pub min_bytes_per_s: u64,
    /// Concurrent requests to one host.
    pub per_host: usize,
    /// Complete bodies of ranges that wait to be used; while there are so many, requests count as in flight.
    pub bodies: usize,
    /// Redirects followed in a row.
    pub max_redirects: usize,
    /// Largest range that may be asked for, bytes.
    pub max_range_bytes: u64,
    /// Longest `Retry-After` that is passed on, seconds.
    pub max_retry_after_s: u64,
    /// Where requests may go.
    pub trust: Trust,
    /// Proxy for every request; it then resolves the names, so only addresses written as such are checked here.
    pub proxy: Option<Url>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            min_bytes_per_s: 32 * 1024,
            per_host: 16,
            bodies: 6,
            max_redirects: 5,
            max_range_bytes: 64 << 20,
            max_retry_after_s: 300,
            trust: Trust::default(),
            proxy: None,
        }
    }
}

/// The door. Cheap to share behind an `Arc`; keeps connections alive.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    settings: HttpSettings,
    hosts: Hosts,
    bodies: Bodies,
}

/// What a ranged read takes for a full answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Every byte of the range.
    Exact,
    /// Fewer when the file ends before the range does.
    UpTo,
}

impl Http {
    /// Builds the client.
    ///
    /// # Errors
    /// [`Fault::Setup`] when the proxy is unusable or TLS cannot be set up.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpError> {
        let resolver = Arc::new(trust::Resolver::new(settings.trust.clone(), settings.proxy.as_ref()));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("satellite-pipeline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .pool_max_idle_per_host(settings.per_host)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .dns_resolver(resolver);
        if let Some(proxy) = &settings.proxy {
            let proxy = reqwest::Proxy::all(proxy.as_str());
            builder = builder.proxy(proxy.map_err(|e| HttpError::setup(&e))?);
        }
        let client = builder.build().map_err(|e| HttpError::setup(&e))?;
        let hosts = Hosts::new(settings.per_host);
        let bodies = Bodies::new(settings.bodies, settings.per_host);
        Ok(Self { client, settings, hosts, bodies })
    }

    /// Bytes `range` of a file: all of them.
    ///
    /// # Errors
    /// Any [`HttpError`]; a file that ends inside the range is [`Fault::WrongRange`] or [`Fault::OutOfRange`].
    pub async fn get_range(&self, href: &str, range: Range<u64>) -> Result<Bytes, HttpError> {
        self.ranged(href, range, Extent::Exact).await
    }

    /// Bytes `range` of a file, or as many of them as the file has: for headers.
    ///
    /// # Errors
    /// Any [`HttpError`]; a file that has none of them is [`Fault::OutOfRange`].
    pub async fn get_range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, HttpError> {
        self.ranged(href, range, Extent::UpTo).await
    }

    /// A JSON document of at most `cap` bytes, in answer to a JSON body.
    ///
    /// # Errors
    /// Any [`HttpError`]; [`Fault::NotJson`] for a page of HTML, with its first words.
    pub async fn post_json(&self, url: &Url, body: &Value, cap: usize) -> Result<Value, HttpError> {
        let answer = self.follow(Method::POST, url.clone(), None, Some(body)).await;
        self.json(Method::POST, url, answer, cap).await
    }

    /// A JSON document of at most `cap` bytes.
    ///
    /// # Errors
    /// As [`Http::post_json`].
    pub async fn get_json(&self, url: &Url, cap: usize) -> Result<Value, HttpError> {
        let answer = self.follow(Method::GET, url.clone(), None, None).await;
        self.json(Method::GET, url, answer, cap).await
    }

    /// Counters over all hosts.
    pub fn counters(&self) -> &HttpCounters {
        self.hosts.total()
    }

    /// Counters by host, in order of their names. Hosts beyond the first 256 share the name `(others)`.
    pub fn by_host(&self) -> Vec<(String, HttpTally)> {
        self.hosts.tallies()
    }

    /// What may be asked for.
    pub fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    async fn ranged(&self, href: &str, range: Range<u64>, extent: Extent) -> Result<Bytes, HttpError> {
        let fail = |fault| HttpError::new("GET", href, fault);
        let len = range.end.saturating_sub(range.start);
        if len == 0 || len > self.settings.max_range_bytes {
            return Err(fail(Fault::BadRange { range, max: self.settings.max_range_bytes }));
        }
        let url = Url::parse(href).map_err(|e| fail(Fault::BadUrl(e.to_string())))?;
        if url.scheme() == "file" {
            self.settings.trust.check(&url).map_err(fail)?;
            return file::read(&url, range, extent).await.map_err(fail);
        }
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = match self.follow(Method::GET, url, Some(&asked), None).await {
            Err(Fault::Status { status: 416, .. }) => return Err(fail(Fault::OutOfRange(range.start))),
            answer => answer.map_err(fail)?,
        };
        let deadline = self.deadline(len);
        let body = timeout_at(deadline, answer.range(range, extent, &self.bodies)).await;
        Ok(self.bodies.settle(body.unwrap_or(Err(Fault::TooSlow)).map_err(fail)?).await)
    }

    async fn json(
        &self,
        method: Method,
        url: &Url,
        answer: Result<Answer, Fault>,
        cap: usize,
    ) -> Result<Value, HttpError> {
        let fail = |fault| HttpError::new(if method == Method::POST { "POST" } else { "GET" }, url.as_str(), fault);
        let answer = answer.map_err(fail)?;
        let body = timeout_at(self.deadline(0), answer.json(cap)).await;
        body.unwrap_or(Err(Fault::TooSlow)).map_err(fail)
    }

    fn deadline(&self, bytes: u64) -> Instant {
        let at_worst = Duration::from_secs(bytes / self.settings.min_bytes_per_s.max(1));
        Instant::now() + self.settings.body_timeout + at_worst
    }

    /// Sends, and follows redirects by hand, so that each hop is checked and counted like a request of its own.
    async fn follow(
        &self,
        method: Method,
        mut url: Url,
        range: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        for _ in 0..=self.settings.max_redirects {
            self.settings.trust.check(&url)?;
            let answer = self.send(&method, &url, range, body).await?;
            if !is_redirect(answer.status()) {
                return self.successful(answer).await;
            }
            url = redirect_target(&method, &url, &answer)?;
        }
        Err(Fault::Redirect(format!("more than {} redirects in a row", self.settings.max_redirects)))
    }

    /// One request; the answer holds the host's slot until it is read or dropped.
    async fn send(
        &self,
        method: &Method,
        url: &Url,
        range: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let slot = self.hosts.slot(url.host_str().unwrap_or_default()).await?;
        let mut request = self.client.request(method.clone(), url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        } else {
            request = request.header(header::ACCEPT, "application/geo+json, application/json;q=0.9");
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let silence = self.settings.connect_timeout + self.settings.read_timeout;
        let sent = timeout(silence, request.send()).await.map_err(|_| Fault::Timeout(silence));
        match sent.and_then(|r| r.map_err(|e| Fault::from_request(&e, self.settings.read_timeout))) {
            Ok(response) => Ok(Answer::new(response, slot, self.settings.read_timeout)),
            Err(fault) => {
                slot.failed();
                Err(fault)
            }
        }
    }

    /// Turns a status other than success into its fault, with the first words of the body.
    async fn successful(&self, answer: Answer) -> Result<Answer, Fault> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let deadline = Instant::now() + self.settings.read_timeout;
        Err(answer.refusal(deadline, self.settings.max_retry_after_s).await)
    }
}

/// The host that an href names, with its port where it states one; all local files are one host.
pub fn host_of(href: &str) -> String {
    let Ok(url) = Url::parse(href) else { return String::new() };
    match (url.host_str(), url.port()) {
        _ if url.scheme() == "file" => "(local files)".to_owned(),
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads. A POST is not turned into a GET, as browsers do: its answer would be another one.
fn redirect_target(method: &Method, from: &Url, answer: &Answer) -> Result<Url, Fault> {
    let status = answer.status();
    let location = answer.header(header::LOCATION);
    let location = location.ok_or_else(|| Fault::Redirect(format!("status {status} without a Location")))?;
    let target = from.join(location).map_err(|e| Fault::Redirect(format!("to `{}`: {e}", redact(location))))?;
    if *method == Method::POST && !matches!(status.as_u16(), 307 | 308) {
        let target = redact(target.as_str());
        return Err(Fault::Redirect(format!("status {status} to {target}: configure that URL if it is the right one")));
    }
    if from.scheme() == "https" && target.scheme() != "https" {
        return Err(Fault::Redirect(format!("from https to {}", redact(target.as_str()))));
    }
    Ok(target)
}
