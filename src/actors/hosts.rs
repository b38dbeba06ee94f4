//! The circuit breakers of the image hosts: one [`Health`] for each, so that a dead host holds up nobody who does not need it.
//!
//! Contract: a host is what an href names, with its port; `file:` hrefs share one. Before a host is called down it is
//! asked for a byte of a file it gave before ([`Imagery::answers`]). A host that never gave one is not an outage while
//! others answer: an item with a wrong href fails its task and does not stop the node. Bounded: [`MAX_HOSTS`] hosts have
//! a breaker of their own, those beyond share one, so that items cannot make us remember without end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::health::Health;
use crate::adapters::http::{MAX_HOSTS, host_of};
use crate::adapters::imagery::Imagery;

const OTHERS: &str = "(others)";

/// The hosts met so far.
pub struct Hosts {
    imagery: Arc<Imagery>,
    patience: Duration,
    known: Mutex<BTreeMap<String, Arc<Health>>>,
}

impl Hosts {
    /// Knows of no host yet; `patience`: the longest outage of one that is waited out.
    pub fn new(imagery: Arc<Imagery>, patience: Duration) -> Self {
        Self { imagery, patience, known: Mutex::default() }
    }

    /// The breaker of the host that `href` names.
    pub fn of(&self, href: &str) -> Arc<Health> {
        let mut known = self.known();
        let host = host_of(href);
        if let Some(health) = known.get(&host) {
            return health.clone();
        }
        let host = if known.len() < MAX_HOSTS { host } else { OTHERS.to_owned() };
        known.entry(host).or_insert_with_key(|host| Arc::new(self.breaker(host))).clone()
    }

    /// Whether the breaker of any of them is open.
    pub fn any_open(&self) -> bool {
        self.known().values().any(|health| health.is_open())
    }

    fn breaker(&self, host: &str) -> Health {
        let (imagery, asked) = (self.imagery.clone(), host.to_owned());
        Health::new(format!("the image host {host}"), self.patience).asking(move || {
            let (imagery, host) = (imagery.clone(), asked.clone());
            Box::pin(async move { imagery.answers(&host).await })
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Health>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
