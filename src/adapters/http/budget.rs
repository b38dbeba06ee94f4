//! How many requests run at once per host, and what has been asked and answered.
//!
//! Contract: a [`Slot`] is one request in flight; dropping it gives the place back and counts it out. Bounded: 256
//! hosts have a budget and counters of their own; hosts beyond that share one, so that items cannot make us remember
//! without end. Units: bytes of bodies as read, without headers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Fault;

const MAX_HOSTS: usize = 256;
const OTHERS: &str = "(others)";

/// Plain counters; read them whenever you like.
#[derive(Debug, Default)]
pub struct HttpCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    in_flight: AtomicU64,
    peak_in_flight: AtomicU64,
    waiting: AtomicU64,
    unanswered: AtomicU64,
    by_class: [AtomicU64; 5],
}

/// [`HttpCounters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpTally {
    /// Requests sent, redirects included.
    pub requests: u64,
    /// Bytes of bodies read.
    pub bytes: u64,
    /// Requests whose answer is not yet read.
    pub in_flight: u64,
    /// Most of these at once so far.
    pub peak_in_flight: u64,
    /// Requests waiting for a place in the budget.
    pub waiting: u64,
    /// Requests that got no answer: no connection, silence.
    pub unanswered: u64,
    /// Answers of status 1xx to 5xx.
    pub by_class: [u64; 5],
}

impl HttpCounters {
    /// Their values now.
    pub fn tally(&self) -> HttpTally {
        HttpTally {
            requests: self.requests.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            peak_in_flight: self.peak_in_flight.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            by_class: std::array::from_fn(|i| self.by_class[i].load(Relaxed)),
        }
    }

    fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.peak_in_flight.fetch_max(now, Relaxed);
    }
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    counters: HttpCounters,
}

/// The budget of every host met so far.
#[derive(Debug)]
pub(super) struct Hosts {
    per_host: usize,
    total: Arc<HttpCounters>,
    known: Mutex<BTreeMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(super) fn new(per_host: usize) -> Self {
        Self { per_host: per_host.max(1), total: Arc::default(), known: Mutex::default() }
    }

    pub(super) fn total(&self) -> &HttpCounters {
        &self.total
    }

    pub(super) fn tallies(&self) -> Vec<(String, HttpTally)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, host)| (name.clone(), host.counters.tally())).collect()
    }

    /// Waits for a place at a host.
    pub(super) async fn slot(&self, name: &str) -> Result<Slot, Fault> {
        let host = self.host(name);
        let waiting = Waiting::new(&self.total, &host.counters);
        let place = Arc::clone(&host.places).acquire_owned().await;
        drop(waiting);
        let place = place.map_err(|_| Fault::Setup("the request budget is closed".into()))?;
        let slot = Slot { total: Arc::clone(&self.total), host, _place: place };
        slot.each(HttpCounters::begin);
        Ok(slot)
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(name) {
            return Arc::clone(host);
        }
        let name = if known.len() < MAX_HOSTS { name } else { OTHERS };
        let new = || Host { places: Arc::new(Semaphore::new(self.per_host)), counters: HttpCounters::default() };
        Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(new())))
    }
}

/// Counts a request that waits, for as long as it does (its future may be dropped meanwhile).
struct Waiting<'a>([&'a HttpCounters; 2]);

impl<'a> Waiting<'a> {
    fn new(total: &'a HttpCounters, host: &'a HttpCounters) -> Self {
        [total, host].iter().for_each(|c| _ = c.waiting.fetch_add(1, Relaxed));
        Self([total, host])
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|c| _ = c.waiting.fetch_sub(1, Relaxed));
    }
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct Slot {
    total: Arc<HttpCounters>,
    host: Arc<Host>,
    _place: OwnedSemaphorePermit,
}

impl Slot {
    fn each(&self, count: impl Fn(&HttpCounters)) {
        count(&self.total);
        count(&self.host.counters);
    }

    pub(super) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.each(|c| _ = c.by_class[class].fetch_add(1, Relaxed));
    }

    pub(super) fn failed(&self) {
        self.each(|c| _ = c.unanswered.fetch_add(1, Relaxed));
    }

    pub(super) fn read(&self, bytes: usize) {
        self.each(|c| _ = c.bytes.fetch_add(bytes as u64, Relaxed));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.each(|c| _ = c.in_flight.fetch_sub(1, Relaxed));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_has_so_many_places_and_no_more() {
        let hosts = Hosts::new(2);
        let (one, _two) = (hosts.slot("a").await.unwrap(), hosts.slot("a").await.unwrap());
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), hosts.slot("a"));
        assert!(full.await.is_err());
        assert_eq!(hosts.total().tally().waiting, 0, "whoever gave up waiting is not counted");
        let _other = hosts.slot("b").await.unwrap();
        drop(one);
        let _three = hosts.slot("a").await.unwrap();
        let tally = hosts.total().tally();
        assert_eq!((tally.requests, tally.in_flight, tally.peak_in_flight), (4, 3, 3));
        assert_eq!(hosts.tallies()[0].1.peak_in_flight, 2);
    }

    #[tokio::test]
    async fn hosts_without_end_share_a_budget() {
        let hosts = Hosts::new(1);
        for i in 0..MAX_HOSTS + 50 {
            drop(hosts.slot(&format!("h{i}")).await.unwrap());
        }
        assert_eq!(hosts.tallies().len(), MAX_HOSTS + 1);
        assert_eq!(
            hosts.tallies()[0],
            (OTHERS.into(), HttpTally { requests: 50, peak_in_flight: 1, ..Default::default() })
        );
    }
}
