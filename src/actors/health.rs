//! Whether a service (the STAC API, the image host) is answering at all: the node's circuit breaker.
//!
//! Contract: a task may fail because of a service only while that service works for others. When nothing
//! has succeeded since a task's first attempt, the service is down: the circuit opens, tasks are held
//! instead of failed, and one probe at a time is let through until one succeeds. After `patience` without
//! any success the failure becomes fatal: the node stops and leaves its tasks to be delivered again.
//! Trap: an answer such as 404 is a success here: the service is there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// One service's state, shared by all tasks of the node.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    patience: Duration,
    state: Mutex<State>,
    probe: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    worked: Option<Instant>,
    open_since: Option<Instant>,
}

impl Health {
    /// A service that is believed to work; `patience`: the longest outage that is waited out.
    pub fn new(name: &'static str, patience: Duration) -> Self {
        Self { name, patience, state: Mutex::default(), probe: Semaphore::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the service, for messages.
    pub fn name(&self) -> &'static str {
        self.name
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
            tracing::info!(service = self.name, outage_s = since.elapsed().as_secs(), "answers again");
        }
    }

    /// Whether it has answered anybody since `then`.
    pub fn worked_since(&self, then: Instant) -> bool {
        self.state().worked.is_some_and(|at| at >= then)
    }

    /// Opens the circuit: nobody has had an answer for the time of a whole series of attempts.
    pub fn open(&self, reason: &str) {
        let mut state = self.state();
        if state.open_since.is_none() {
            state.open_since = Some(Instant::now());
            tracing::warn!(service = self.name, "is not answering; tasks wait for it: {reason}");
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
