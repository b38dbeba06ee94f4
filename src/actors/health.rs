//! Whether a service (the STAC API, one of the image hosts) is answering at all: its circuit breaker in this node.
//!
//! Contract: a task may fail because of a service only while that service works for others. When nothing
//! has succeeded since a task's first attempt, the service is down: the circuit opens, tasks are held
//! instead of failed, and one probe at a time is let through until one succeeds. After `patience` without
//! any success the failure becomes fatal: the node stops and leaves its tasks to be delivered again.
//! A service that can be asked for something else (an image host: for a file that worked) is asked before
//! it is called down, because one sick file is not a sick host.
//! Trap: an answer such as 404 is a success here: the service is there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// One service's state, shared by all tasks of the node.
pub struct Health {
    name: String,
    patience: Duration,
    ask: Option<Question>,
    state: Mutex<State>,
    probe: Semaphore,
}

/// Something else that a working service answers.
type Question = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    worked: Option<Instant>,
    open_since: Option<Instant>,
}

impl Health {
    /// A service that is believed to work; `patience`: the longest outage that is waited out.
    pub fn new(name: impl Into<String>, patience: Duration) -> Self {
        Self { name: name.into(), patience, ask: None, state: Mutex::default(), probe: Semaphore::new(1) }
    }

    /// The same, for a service that can be asked for something else.
    #[must_use]
    pub fn asking(mut self, ask: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        self.ask = Some(Box::new(ask));
        self
    }

    /// Whether it answers at all: somebody since `then`, or the question it is asked now.
    pub async fn answers_since(&self, then: Instant) -> bool {
        if self.worked_since(then) {
            return true;
        }
        let answers = match &self.ask {
            Some(ask) => ask().await,
            None => false,
        };
        if answers {
            self.works();
        }
        answers
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the service, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest outage that is waited out.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The service has answered.
    pub fn works(&self) {
        let mut state = self.state();
        state.worked = Some(Instant::now());
        if let Some(since) = state.open_since.take() {
            tracing::info!(service = self.name.as_str(), outage_s = since.elapsed().as_secs(), "answers again");
        }
    }

    /// Whether it has answered anybody since `then`.
    fn worked_since(&self, then: Instant) -> bool {
        self.state().worked.is_some_and(|at| at >= then)
    }

    /// Opens the circuit: nobody has had an answer for the time of a whole series of attempts.
    pub fn open(&self, reason: &str) {
        let mut state = self.state();
        if state.open_since.is_none() {
            state.open_since = Some(Instant::now());
            tracing::warn!(service = self.name.as_str(), "is not answering; tasks wait for it: {reason}");
        }
    }

    /// Whether the circuit is open.
    pub fn is_open(&self) -> bool {
        self.state().open_since.is_some()
    }

    /// Waits for the turn to probe when the circuit is open; `None`: it is closed, go ahead.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if !self.is_open() {
            return None;
        }
        let turn = self.probe.acquire().await.ok();
        // The one before may have found the service working.
        if self.is_open() { turn } else { None }
    }
}
