//! A simulated worker: its bounds, its cache, and what it knows.
//!
//! Contract: the cache is the worker's own (same crate, same options), and so are the sizes of its lanes; what another
//! task is fetching is waited for, not fetched again. Trap: what is known (headers, searches, offsets) is never
//! forgotten here; a worker forgets after 4096 files.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::credits::Credits;
use super::model::Model;
use super::pipe::{Cores, Pipe};
use crate::adapters::imagery::cache_options;

/// Hashes the same in every process.
type Hasher = BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

/// Weighs blocks by their decoded bytes.
#[derive(Clone)]
pub(super) struct Decoded;

impl Weighter<u64, u64> for Decoded {
    fn weight(&self, _: &u64, bytes: &u64) -> u64 {
        *bytes
    }
}

/// One worker.
pub(super) struct Worker {
    /// Partitions it takes from now, each with its tasks to come, and those after them.
    pub(super) open: VecDeque<VecDeque<u32>>,
    later: VecDeque<VecDeque<u32>>,
    focus: usize,
    pub(super) draw: Credits,
    pub(super) searches: Credits,
    pub(super) requests: Credits,
    pub(super) windows: Credits,
    pub(super) cut: Credits,
    pub(super) write: Credits,
    pub(super) cores: Cores,
    pub(super) link: Pipe,
    pub(super) known: HashSet<u64>,
    /// What is being fetched, with the number of the request.
    pub(super) coming: HashMap<u64, u32>,
    cache: Cache<u64, u64, Decoded, Hasher>,
    /// When it settled its last task.
    pub(super) last: u64,
}

impl Worker {
    /// With these partitions.
    pub(super) fn new(model: &Model, partitions: VecDeque<VecDeque<u32>>) -> Self {
        let (weighter, hasher, life) = (Decoded, Hasher::default(), DefaultLifecycle::default());
        let cache = match cache_options(model.cache_bytes).build() {
            Ok(options) => Cache::with_options(options, weighter, hasher, life),
            Err(_) => Cache::with(16, model.cache_bytes, weighter, hasher, life),
        };
        Self {
            open: VecDeque::new(),
            later: partitions,
            focus: if model.focus == 0 { usize::MAX } else { model.focus },
            draw: Credits::new(model.cores + 1),
            searches: Credits::new(model.searches_in_flight),
            requests: Credits::new(model.requests_per_host),
            windows: Credits::new(model.window_mb as usize),
            cut: Credits::new(model.cores + 1),
            write: Credits::new(model.chips_in_flight),
            cores: Cores::new(model.cores),
            link: Pipe::new(model.rates.link_bytes),
            known: HashSet::new(),
            coming: HashMap::new(),
            cache,
            last: 0,
        }
    }

    /// The next task, from the partitions in focus in turn.
    pub(super) fn next(&mut self) -> Option<u32> {
        loop {
            while self.open.len() < self.focus
                && let Some(partition) = self.later.pop_front()
            {
                self.open.push_back(partition);
            }
            let mut tasks = self.open.pop_front()?;
            if let Some(task) = tasks.pop_front() {
                self.open.push_back(tasks);
                return Some(task);
            }
        }
    }

    /// Whether a block is in the cache.
    pub(super) fn holds(&self, key: u64) -> bool {
        self.cache.get(&key).is_some()
    }

    /// Puts a block into the cache.
    pub(super) fn keep(&self, key: u64, bytes: u64) {
        self.cache.insert(key, bytes);
    }
}
