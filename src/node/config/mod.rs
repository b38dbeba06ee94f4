//! The configuration of a node: layered TOML, checked as a whole, typed per section.
//!
//! Purpose: built-in `config/default.toml` < files in order < environment `NODE__SECTION__KEY` < `--set
//! section.key=value`. Contract: a [`Config`] that exists is complete and possible; anything else is a
//! [`ConfigErrors`] with every problem at once, each naming key, origin and what is allowed. Units stand in
//! `config/default.toml`. Trap: `run.id`, `worker.id` and other derived values are still empty texts here;
//! use the accessors of the sections.

mod cross;
mod error;
mod finishing;
mod imagery_sections;
mod layer;
mod metrics;
mod monitor;
mod output;
mod rules;
mod secret;
mod sections;
mod shape;
mod show;
mod text_rules;
mod toml_value;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};
use serde::{Deserialize, Serialize};

pub use cross::Need;
pub use error::{ConfigError, ConfigErrors};
pub use finishing::{Finish, Split};
pub use imagery_sections::{
    ALL_SEASONS, Chips, Harmonise, Invalid, Labels, RANDOM_SEASON, Resampling, SEASON_BY_CLASS, SEASON_WORDS, Stac,
    Widen,
};
pub use metrics::Metrics;
pub use monitor::{Monitor, Ui};
pub use output::{Compression, Output};
pub use secret::{Address, Properties, Token};
pub use sections::{
    CellOrder, EMBEDDED, Grid, Imagery, Kafka, Log, LogFormat, Parcels, Run, Sampling, SamplingMode, Worker,
};

use layer::{Errors, Layer};

/// `config/default.toml`: every key, its unit, its default.
pub const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");
/// `config/demo.toml`: what the demonstration changes.
pub const DEMO_TOML: &str = include_str!("../../../config/demo.toml");
/// `config/spain.toml`: the production file of the mission.
pub const SPAIN_TOML: &str = include_str!("../../../config/spain.toml");

/// Largest configuration file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The configuration of a node.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What makes one run differ from another.
    pub run: Run,
    /// The broker.
    pub kafka: Kafka,
    /// The parcels.
    pub parcels: Parcels,
    /// The cells.
    pub grid: Grid,
    /// Which parcels become chips.
    pub sampling: Sampling,
    /// Where scenes are looked for.
    pub stac: Stac,
    /// How pixels are fetched.
    pub imagery: Imagery,
    /// What a chip is.
    pub chips: Chips,
    /// What a mask holds.
    pub labels: Labels,
    /// Where and how chips are written.
    pub output: Output,
    /// How much a worker does at once.
    pub worker: Worker,
    /// How chips are sorted into training, validation and test.
    pub split: Split,
    /// What is made of a finished run.
    pub finish: Finish,
    /// How the monitor shows itself.
    pub monitor: Monitor,
    /// Where a node tells of itself.
    pub metrics: Metrics,
    /// What is logged, and how.
    pub log: Log,
    /// Where each value came from, by its full key.
    #[serde(skip)]
    origins: BTreeMap<String, String>,
}

impl Config {
    /// Reads all layers: `files` in order, then the variables of `env` that begin with `NODE__`, then `sets`
    /// (`section.key=value`) in order.
    ///
    /// # Errors
    /// Everything that is wrong in any of them.
    pub fn load(
        files: &[PathBuf],
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigErrors> {
        Self::load_over(&[], files, env, sets)
    }

    /// As [`Config::load`], with built-in files (name and text) between the defaults and `files`.
    ///
    /// # Errors
    /// Everything that is wrong in any of them.
    pub fn load_over(
        built_in: &[(&str, &str)],
        files: &[PathBuf],
        env: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigErrors> {
        let mut errors = Errors::default();
        let mut layers = vec![Layer::from_toml(BUILT_IN, DEFAULT_TOML, &mut errors)];
        layers.extend(built_in.iter().map(|(name, text)| Layer::from_toml(name, text, &mut errors)));
        for path in files {
            match read(path) {
                Ok(text) => layers.push(Layer::from_toml(&path.display().to_string(), &text, &mut errors)),
                Err(error) => errors.add(error),
            }
        }
        layers.push(Layer::from_env(env, &mut errors));
        layers.extend(sets.iter().map(|set| Layer::from_set(set, &mut errors)));
        Self::merge(layers, errors)
    }

    /// Defaults and one TOML text called `name`.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::load_over(&[(name, text)], &[], [], &[])
    }

    /// Partitions a worker takes tasks from at a time; `None`: all that are assigned. Territories have no part in the
    /// order `rarest`, which runs through all partitions.
    pub fn focus(&self) -> Option<usize> {
        (self.kafka.focus_partitions > 0 && self.grid.order == CellOrder::Space).then_some(self.kafka.focus_partitions)
    }

    /// Where the value of `key` (`section.key`, or an entry below it) came from.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or(BUILT_IN, |origin| if origin.starts_with(BUILT_IN) { BUILT_IN } else { origin })
    }

    fn merge(mut layers: Vec<Layer>, mut errors: Errors) -> Result<Self, ConfigErrors> {
        for i in 1..layers.len() {
            let (earlier, this) = layers.split_at_mut(i);
            for table in &this[0].whole {
                earlier.iter_mut().for_each(|layer| layer.forget(table));
            }
        }
        let merged = layers.into_iter().fold(config::Config::builder(), |b, layer| b.add_source(layer)).build();
        let merged = merged.map_err(|e| unmergeable(&e))?;
        let mut origins = BTreeMap::new();
        collect_origins("", &merged.cache, &mut origins);
        let mut config: Self = merged.try_deserialize().map_err(|e| unmergeable(&e))?;
        config.origins = origins;
        // A value that was refused is missing here: what does not go together then is only its echo.
        if errors.0.is_empty() {
            errors.0 = config.conflicts();
        }
        if errors.0.is_empty() { Ok(config) } else { Err(ConfigErrors(errors.0)) }
    }
}

/// Origin of the built-in defaults.
const BUILT_IN: &str = "built-in default";

/// The environment of this process, for [`Config::load`]; what is not UTF-8 is made so.
pub fn process_env() -> Vec<(String, String)> {
    let lossy = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(|(k, v)| (lossy(k), lossy(v))).collect()
}

/// Name of this machine, for [`Worker::id`]; empty when it has none that can be read.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.unwrap_or_default().trim().to_owned()
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.into(), cause };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.into(), limit: MAX_FILE_BYTES });
    }
    Ok(text)
}

fn collect_origins(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect_origins(&path, value, found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value.origin().unwrap_or(BUILT_IN).to_owned());
        }
    }
}

/// The layers were checked one by one, so this says that the checks and the types disagree.
fn unmergeable(error: &config::ConfigError) -> ConfigErrors {
    ConfigError::Syntax { origin: "configuration".into(), why: secret::without_userinfo(&error.to_string()) }.into()
}

impl PartialEq for Config {
    /// Equal values, wherever they came from.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            run,
            kafka,
            parcels,
            grid,
            sampling,
            stac,
            imagery,
            chips,
            labels,
            output,
            worker,
            split,
            finish,
            monitor,
            metrics,
            log,
            origins: _,
        } = self;
        *run == other.run
            && *kafka == other.kafka
            && *parcels == other.parcels
            && *grid == other.grid
            && *sampling == other.sampling
            && *stac == other.stac
            && *imagery == other.imagery
            && *chips == other.chips
            && *labels == other.labels
            && *output == other.output
            && *worker == other.worker
            && *split == other.split
            && *finish == other.finish
            && *monitor == other.monitor
            && *metrics == other.metrics
            && *log == other.log
    }
}

impl std::fmt::Debug for Config {
    /// As [`Config::print`]: without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::new();
        self.print(&mut text).map_err(|_| std::fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}
