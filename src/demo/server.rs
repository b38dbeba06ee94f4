//! A small HTTP server that plays both Earth Search (STAC API) and the object store with the COGs.
//!
//! Contract: [`DemoServer::start`] serves every file below a root with single ranges, and every STAC item found below
//! that root (`*.json` of type `Feature`) by id and by search. Paging, item order and what is silently ignored are
//! those of Earth Search v1. `/__stats`, `/__reset`, `/__config` and `/__fault` measure and trouble it while it runs.
//! Units: bytes, milliseconds, Mbit/s per connection (0 = unlimited).
//! Trap: items are read once, at the start; files are opened at each request.

mod control;
mod cut;
mod faults;
mod files;
mod items;
mod query;
mod range;
mod stac_api;
mod stats;

pub use faults::{Fault, FaultKind};
pub use stats::{Knobs, PathStats, Stats};

use super::DemoError;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use cut::{CuttableListener, Peer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long [`DemoServer::stop`] waits for answers under way before it drops them.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Everything a request can reach.
struct Shared {
    /// Canonical root; no served path leaves it.
    root: PathBuf,
    /// `http://host:port`, without a trailing slash.
    base: String,
    catalog: items::Catalog,
    counters: stats::Counters,
    faults: faults::Script,
    stopping: CancellationToken,
}

/// A running demo server; dropping it stops the server without waiting.
pub struct DemoServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl DemoServer {
    /// Serves `root` on `addr` (port 0: any free port) from tasks of the current tokio runtime.
    ///
    /// # Errors
    /// [`DemoError::Io`] if the root cannot be walked, [`DemoError::Listen`] if the address cannot be bound.
    pub async fn start(root: impl AsRef<Path>, addr: SocketAddr) -> Result<Self, DemoError> {
        let given = root.as_ref().to_path_buf();
        let listener = CuttableListener::bind(addr).await.map_err(|source| DemoError::Listen { addr, source })?;
        let addr = listener.addr();
        let base = format!("http://{addr}");
        let for_items = base.clone();
        let (root, catalog) = tokio::task::spawn_blocking(move || {
            let root = given.canonicalize().map_err(|e| DemoError::io(&given, e))?;
            let catalog = items::Catalog::scan(&root, &for_items)?;
            Ok::<_, DemoError>((root, catalog))
        })
        .await
        .map_err(|e| DemoError::io("item scan", std::io::Error::other(e)))??;
        let shared = Arc::new(Shared {
            root,
            base,
            catalog,
            counters: stats::Counters::default(),
            faults: faults::Script::default(),
            stopping: CancellationToken::new(),
        });
        let service = router(shared.clone()).into_make_service_with_connect_info::<Peer>();
        let stopping = shared.stopping.clone();
        let serving = tokio::spawn(async move {
            let serve = axum::serve(listener, service).with_graceful_shutdown(stopping.cancelled_owned());
            // `axum::serve` never returns an error: accept failures are waited out in the listener.
            let _ = serve.await;
        });
        Ok(Self { addr, shared, serving: Some(serving) })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Root of the STAC API and of the files, without a trailing slash.
    pub fn url(&self) -> String {
        self.shared.base.clone()
    }

    /// Number of STAC items found below the root.
    pub fn items(&self) -> usize {
        self.shared.catalog.len()
    }

    /// What was served since the start or the last [`DemoServer::reset`].
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// Zeroes the counters and forgets the faults; the knobs stay.
    pub fn reset(&self) {
        self.shared.counters.reset();
        self.shared.faults.clear();
    }

    /// Latency and bandwidth from now on.
    pub fn configure(&self, knobs: Knobs) {
        self.shared.counters.configure(knobs);
    }

    /// Adds a scripted fault; earlier ones are tried first.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Stops accepting, lets answers under way end for a second, drops the rest.
    pub async fn stop(mut self) {
        self.shared.stopping.cancel();
        if let Some(mut serving) = self.serving.take()
            && tokio::time::timeout(STOP_GRACE, &mut serving).await.is_err()
        {
            serving.abort();
        }
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let served = Router::new()
        .route("/", get(stac_api::landing))
        .route("/conformance", get(stac_api::conformance))
        .route("/collections", get(stac_api::collections))
        .route("/collections/{id}", get(stac_api::collection))
        .route("/collections/{id}/items/{item}", get(stac_api::item))
        .route("/search", get(stac_api::search_get).post(stac_api::search_post))
        .route("/{*path}", any(files::serve))
        .layer(middleware::from_fn_with_state(shared.clone(), measured));
    Router::new()
        .route("/__stats", get(control::stats))
        .route("/__reset", any(control::reset))
        .route("/__config", any(control::config))
        .route("/__fault", any(control::fault))
        .merge(served)
        .with_state(shared)
}

/// Counts a request, makes it wait as configured, and lets the script spoil its answer.
async fn measured(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let passage = shared.counters.enter(&request);
    let latency = shared.counters.knobs().latency_ms;
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let fault = shared.faults.take(request.uri().path());
    let answer = match fault {
        Some(kind) => faults::spoil(kind, &peer, request, next).await,
        None => next.run(request).await,
    };
    passage.follow(answer, shared.stopping.clone())
}
