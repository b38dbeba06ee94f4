//! The monitor's web page and its JSON: who is served, and what.
//!
//! Contract: everything is drawn from the last [`Moment`] the monitor has shown; no request asks the broker, changes
//! anything, or opens a path it names. Bounds: [`CONNECTIONS`], [`WATCHERS`], what `serve` allows a client, one
//! rendering per moment however many look. A port that is taken costs the page, not the run.
//! Trap: `moment` holds the whole run; handlers take it once, so that one answer never mixes two moments.

mod api;
pub(crate) mod chart;
pub(crate) mod document;
mod guard;
mod live;
pub(crate) mod map;
mod moment;
mod page;
pub(crate) mod panels;
mod pictures;
pub(super) mod serve;
mod tasks;
pub(crate) mod words;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use moment::Moment;

use super::config::Config;
use super::error::NodeError;
use crate::actors::cpu::CpuPool;
use crate::adapters::dataset::gallery::Gallery;
use guard::Guard;
use pictures::Pictures;

/// Connections at a time; further ones wait.
pub const CONNECTIONS: usize = 128;
/// Pages that are kept up to date at a time; further ones are told to come back later.
pub const WATCHERS: usize = 32;

/// What handlers share.
pub(crate) struct Site {
    seen: watch::Receiver<Arc<Moment>>,
    /// Pages are drawn here, one at a time.
    drawing: CpuPool,
    pictures: Pictures,
    watchers: Arc<Semaphore>,
    /// Seconds between two moments: how often a page without scripts loads itself again.
    interval_s: u64,
}

impl Site {
    fn moment(&self) -> Arc<Moment> {
        self.seen.borrow().clone()
    }
}

/// The page while the monitor runs; it goes when this is dropped.
#[derive(Debug)]
pub struct Web {
    to: watch::Sender<Arc<Moment>>,
    address: Option<std::net::SocketAddr>,
    /// Ends the server.
    _stop: DropGuard,
}

impl Web {
    /// Begins to serve on `monitor.listen`, if there is such an address and it is free; `others` are the routes of
    /// other parts (metrics, health), which the guard stands before too.
    ///
    /// # Errors
    /// A system that gives no threads.
    pub async fn start(config: &Config, others: Router) -> Result<Self, NodeError> {
        let (to, seen) = watch::channel(Arc::new(Moment::empty()));
        let stop = CancellationToken::new();
        let mut web = Self { to, address: None, _stop: stop.clone().drop_guard() };
        let Some(address) = config.monitor.listen() else { return Ok(web) };
        let listener = match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(
                    "no web page: monitor.listen = {address}: {error}; the monitor goes on without it \
                     (another address, or \"\" for none)"
                );
                return Ok(web);
            }
        };
        web.address = listener.local_addr().ok();
        let pool = || CpuPool::new(1).map_err(|e| NodeError::Stopped(format!("the web page's threads: {e}")));
        let site = Site {
            seen,
            drawing: pool()?,
            pictures: Pictures::new(Gallery::new(&config.output.dir), pool()?),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            interval_s: config.monitor.interval.as_secs().max(2),
        };
        let app = router(Arc::new(site), others, Guard::of(&config.monitor));
        tokio::spawn(serve::serve(listener, app, stop));
        tracing::info!("the run can be watched at http://{}/", web.address.unwrap_or(address));
        Ok(web)
    }

    /// Where the page is; `None`: nowhere.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.address
    }

    /// Shows another moment.
    pub fn show(&self, moment: Moment) {
        self.to.send_replace(Arc::new(moment));
    }
}

/// All routes, behind the guard.
fn router(site: Arc<Site>, others: Router, guard: Guard) -> Router {
    Router::new()
        .route("/", get(page::overview))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{task}", get(tasks::one))
        .route("/live", get(live::follow))
        .route("/pictures/{run}/{task}/{chip}/{kind}", get(pictures::picture))
        .route("/style.css", get(async || asset("text/css; charset=utf-8", include_str!("style.css"))))
        .route("/live.js", get(async || asset("text/javascript; charset=utf-8", include_str!("live.js"))))
        .route("/icon.svg", get(async || asset("image/svg+xml", include_str!("icon.svg"))))
        .nest("/api/v1", api::router())
        .with_state(site)
        .merge(others)
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is no such page"))
        .layer(axum::middleware::from_fn_with_state(Arc::new(guard), guard::check))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    // Short: the files change with the program, and an old script with a new page would be odd.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=300")], text).into_response()
}

/// An answer that is no page: one sentence as plain text.
fn problem(status: StatusCode, text: impl Into<String>) -> Response {
    let mut answer = (status, text.into() + "\n").into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
