//! How many requests run at once per host, and what has been asked and answered.
//!
//! Contract: a [`Slot`] is one request in flight; dropping it gives the place back and counts it out. A host that
//! refuses (429, 503) gets fewer at once, down to one, and slowly more again as it serves, up to the budget: so many
//! nodes that each have a budget do not hold a host above what it bears ([`Throttle`]). Bounded: 256
//! hosts have a budget and counters of their own; hosts beyond that share one, so that items cannot make us remember
//! without end. Units: bytes of bodies as read, without headers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Fault;
use crate::domain::throttle::{Throttle, is_refusal};

/// Hosts that are told apart; those beyond are treated as one.
pub const MAX_HOSTS: usize = 256;
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
    name: String,
    places: Arc<Semaphore>,
    limit: Mutex<Limit>,
    counters: HttpCounters,
}

/// The learnt limit, and how many places there are: more for as long as slots taken before a cut are in use.
#[derive(Debug)]
struct Limit {
    throttle: Throttle,
    places: u32,
}

impl Host {
    fn new(name: &str, places: usize) -> Self {
        let places = u32::try_from(places).unwrap_or(u32::MAX).max(1);
        Self {
            name: name.to_owned(),
            places: Arc::new(Semaphore::new(places as usize)),
            limit: Mutex::new(Limit { throttle: Throttle::new(places), places }),
            counters: HttpCounters::default(),
        }
    }

    /// Learns from an answer to a request sent at `sent_ms`.
    fn learn(&self, status: u16, sent_ms: u64, now_ms: u64) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let before = limit.throttle.allowed();
        if is_refusal(status) {
            limit.throttle.refused(sent_ms, now_ms);
        } else if status < 400 {
            limit.throttle.served();
        }
        let allowed = limit.throttle.allowed();
        if allowed < before {
            tracing::info!(host = self.name, status, "refused: at most {allowed} requests at once for now");
            let surplus = limit.places.saturating_sub(allowed) as usize;
            limit.places -= self.places.forget_permits(surplus) as u32;
        } else if allowed > limit.places {
            self.places.add_permits((allowed - limit.places) as usize);
            limit.places = allowed;
        }
    }

    /// Takes a place back, unless there are more than are allowed now.
    fn give_back(&self, place: OwnedSemaphorePermit) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.places > limit.throttle.allowed() {
            limit.places -= 1;
            place.forget();
        }
    }
}

/// The budget of every host met so far.
#[derive(Debug)]
pub(super) struct Hosts {
    per_host: usize,
    began: Instant,
    total: Arc<HttpCounters>,
    known: Mutex<BTreeMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(super) fn new(per_host: usize) -> Self {
        Self { per_host: per_host.max(1), began: Instant::now(), total: Arc::default(), known: Mutex::default() }
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
        let (began, sent) = (self.began, Instant::now());
        let slot = Slot { total: Arc::clone(&self.total), host, began, sent, place: Some(place) };
        slot.each(HttpCounters::begin);
        Ok(slot)
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(name) {
            return Arc::clone(host);
        }
        let name = if known.len() < MAX_HOSTS { name } else { OTHERS };
        Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(Host::new(name, self.per_host))))
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
    /// Moment 0 of the host's throttle.
    began: Instant,
    sent: Instant,
    place: Option<OwnedSemaphorePermit>,
}

impl Slot {
    fn each(&self, count: impl Fn(&HttpCounters)) {
        count(&self.total);
        count(&self.host.counters);
    }

    pub(super) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.each(|c| _ = c.by_class[class].fetch_add(1, Relaxed));
        let ms = |at: Instant| at.duration_since(self.began).as_millis() as u64;
        self.host.learn(status, ms(self.sent), ms(Instant::now()));
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
        if let Some(place) = self.place.take() {
            self.host.give_back(place);
        }
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

    #[tokio::test]
    async fn a_host_that_refuses_gets_fewer_at_once_and_recovers() {
        let hosts = Hosts::new(8);
        let mut slots = Vec::new();
        for _ in 0..8 {
            slots.push(hosts.slot("a").await.unwrap());
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        slots.iter().for_each(|s| s.answered(503));
        let host = hosts.host("a");
        slots.truncate(4);
        assert_eq!(host.places.available_permits(), 0, "four are allowed, and four are in use");
        slots.clear();
        assert_eq!(host.places.available_permits(), 4);
        for _ in 0..512 {
            hosts.slot("a").await.unwrap().answered(206);
        }
        assert_eq!(host.places.available_permits(), 8);
        assert_eq!(hosts.host("b").places.available_permits(), 8, "other hosts are not meant");
    }
}
