//! The sections of the configuration as types.
//!
//! Contract: built only by [`super::Config`]'s constructors, after every value was checked against
//! [`super::rules`]; so whoever holds a section need not check again. Meaning, unit and default of each
//! key stand in `config/default.toml`. Trap: a `Duration` field is the key of its name plus `_s`, in
//! seconds; an empty text means "none" or "derived", and the accessors say so as `Option`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Properties;
use super::shape::{class_map, seconds};
use crate::domain::classes::ClassId;

/// `[run]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Seed of everything random.
    pub seed: u64,
    /// Name of the run; empty: derived. See [`Run::id`].
    pub id: String,
}

impl Run {
    /// The configured name of the run; `None`: the master derives one from the plan.
    pub fn id(&self) -> Option<&str> {
        given(&self.id)
    }
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `embedded`, or `host:port,…`.
    pub bootstrap_servers: String,
    /// Topic of the tasks.
    pub tasks_topic: String,
    /// Topic of the results.
    pub results_topic: String,
    /// Topic of messages that cannot be done.
    pub dlq_topic: String,
    /// Compacted topic of plans and counts.
    pub control_topic: String,
    /// Compacted topic of the workers' heartbeats.
    pub status_topic: String,
    /// Consumer group of the workers.
    pub group: String,
    /// Partitions of the tasks topic when it is created.
    pub partitions: i32,
    /// Copies of each partition; -1: the broker's own default.
    pub replication: i32,
    /// How long to keep trying to reach the brokers.
    #[serde(rename = "connect_timeout_s", with = "seconds")]
    pub connect_timeout: Duration,
    /// Partitions taken from at a time; 0: all. See [`super::Config::focus`].
    pub focus_partitions: usize,
    /// librdkafka properties.
    pub properties: Properties,
}

/// What `kafka.bootstrap_servers` says when there is no broker.
pub const EMBEDDED: &str = "embedded";

impl Kafka {
    /// Whether the tasks travel inside this process.
    pub fn is_embedded(&self) -> bool {
        self.bootstrap_servers == EMBEDDED
    }
}

/// `[parcels]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parcels {
    /// GeoPackage; empty: none, see [`super::Config::require`].
    pub path: PathBuf,
    /// Layer name; empty: the only polygon layer with features. See [`Parcels::layer`].
    pub layer: String,
    /// Column of the HCAT code; empty: there is none.
    pub code_column: String,
    /// Column of the crop's name; empty: there is none.
    pub name_column: String,
    /// Classes file; empty: the built-in one. See [`Parcels::classes`].
    pub classes: PathBuf,
    /// Whether nobody writes the file meanwhile.
    pub assume_immutable: bool,
}

impl Parcels {
    /// The configured layer; `None`: to be found.
    pub fn layer(&self) -> Option<&str> {
        given(&self.layer)
    }

    /// The column of the HCAT code.
    pub fn code_column(&self) -> Option<&str> {
        given(&self.code_column)
    }

    /// The column of the crop's name.
    pub fn name_column(&self) -> Option<&str> {
        given(&self.name_column)
    }

    /// The configured classes file; `None`: the built-in one.
    pub fn classes(&self) -> Option<&Path> {
        (!self.classes.as_os_str().is_empty()).then_some(self.classes.as_path())
    }
}

/// `[grid]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Edge of a cell, degrees.
    pub step: f64,
    /// Fewest parcels a cell must hold.
    pub min_parcels: u64,
    /// Which cells come first.
    pub order: CellOrder,
}

/// Which cells come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellOrder {
    /// Neighbours after each other, in territories.
    Space,
    /// Those that bring the targets nearest first.
    Rarest,
}

/// How parcels are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingMode {
    /// By the probability of their class, up to a target.
    Balanced,
    /// All of them.
    Basic,
    /// By probabilities that lead to the targets, out of the parcels' numbers.
    Auto,
}

/// `[sampling]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// How parcels are chosen.
    pub mode: SamplingMode,
    /// Share of drawn parcels expected to become chips, above 0 to 1.
    pub conversion_rate: f64,
    /// Largest target of a class, chips.
    pub max_target: u64,
    /// Smallest area of a centre, square metres.
    pub min_area_m2: f64,
    /// Smallest distance between centres, metres.
    pub min_distance_m: f64,
    /// Whether a class that has its target is sampled no more.
    pub stop_when_filled: bool,
    /// Largest target of single classes, chips.
    #[serde(with = "class_map")]
    pub quota: BTreeMap<ClassId, u64>,
    /// Probability per class; the planner wants every class of the classes file named.
    #[serde(with = "class_map")]
    pub probabilities: BTreeMap<ClassId, f64>,
}

/// `[imagery]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imagery {
    /// Requests at the same time to one host.
    pub requests_per_host: usize,
    /// Longest time to connect.
    #[serde(rename = "connect_timeout_s", with = "seconds")]
    pub connect_timeout: Duration,
    /// Longest silence while reading.
    #[serde(rename = "read_timeout_s", with = "seconds")]
    pub read_timeout: Duration,
    /// Further attempts after a transient failure.
    pub retries: u32,
    /// Whether items may point to private addresses.
    pub allow_private_hosts: bool,
    /// Whether items may point to local files.
    pub allow_file_hrefs: bool,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Name of the worker; empty: derived. See [`Worker::id`].
    pub id: String,
    /// Threads for heavy work; 0: all cores. See [`Worker::cores`].
    pub cores: usize,
    /// Tasks taken and not settled.
    pub tasks_in_flight: usize,
    /// Chips between first pixel and written file.
    pub chips_in_flight: usize,
    /// Decoded blocks kept, MiB. See [`Worker::cache_bytes`].
    pub cache_mb: u64,
    /// Decoded blocks held by windows being cut, MiB.
    pub window_mb: u32,
    /// Attempts at a task that may die with their worker before it is given up.
    pub max_attempts: u32,
    /// Longest outage of the STAC API or the image host that is waited out.
    #[serde(rename = "max_outage_s", with = "seconds")]
    pub max_outage: Duration,
    /// Time between two heartbeats; zero: none.
    #[serde(rename = "heartbeat_s", with = "seconds")]
    pub heartbeat: Duration,
    /// How long tasks in flight may take to end after a signal.
    #[serde(rename = "drain_timeout_s", with = "seconds")]
    pub drain_timeout: Duration,
}

impl Worker {
    /// The configured name, or `host-pid` made safe for file names.
    pub fn id(&self, host: &str, pid: u32) -> String {
        if let Some(id) = given(&self.id) {
            return id.to_owned();
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let host: String = host.trim().chars().map(plain).take(40).collect();
        if host.is_empty() { format!("node-{pid}") } else { format!("{host}-{pid}") }
    }

    /// Threads for heavy work, `available` being the machine's cores.
    pub fn cores(&self, available: usize) -> usize {
        if self.cores == 0 { available.max(1) } else { self.cores }
    }

    /// Bytes of decoded blocks kept.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_mb << 20
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Form of the log.
    pub format: LogFormat,
    /// What is logged, in tracing's filter language.
    pub filter: String,
}

pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
