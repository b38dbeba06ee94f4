//! What a worker says of itself every few seconds, on the compacted topic `satellite-workers-status`.
//!
//! Contract: the message's key is the worker's id, so the topic keeps the last word of each; counters only
//! grow while a worker lives and begin at 0 with it. Whoever reads it judges by `at_ms` and `interval_ms`
//! whether the worker is still there. Units: milliseconds, bytes. Every field but the id has a default, so
//! versions can differ over a cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Largest heartbeat that is read, bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a worker is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Tasks are in flight.
    #[default]
    Working,
    /// Nothing to do.
    Idle,
    /// A service is down; tasks wait.
    Held,
    /// Told to stop; finishes what is in flight.
    Draining,
    /// Has left in an orderly way: its last word.
    Gone,
}

/// A worker's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Name of the worker, as in results.
    pub worker_id: String,
    /// Name of its machine.
    pub host: String,
    /// Version of the program.
    pub version: String,
    /// When this was said, since 1970 UTC.
    pub at_ms: u64,
    /// When the worker came up, since 1970 UTC.
    pub started_ms: u64,
    /// Time until the next heartbeat.
    pub interval_ms: u64,
    /// What it is at.
    pub activity: Activity,
    /// Tasks settled without failure.
    pub tasks_finished: u64,
    /// Tasks failed.
    pub tasks_failed: u64,
    /// Chips written.
    pub chips: u64,
    /// Messages in each stage's lane, queued and running, by the stage's name.
    pub in_flight: BTreeMap<String, u64>,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks that had to be fetched.
    pub cache_misses: u64,
    /// HTTP requests sent.
    pub requests: u64,
    /// Bytes received over HTTP.
    pub bytes_fetched: u64,
    /// Partitions it has now.
    pub partitions: Vec<i32>,
}
