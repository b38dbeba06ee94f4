//! What a simulated run is made of: the configuration's bounds, and the times and rates of the command line.
//!
//! Units: nanoseconds, bytes, and per second for rates; a rate of 0 is no bound.

use super::super::cli_simulate::Simulate;
use super::super::config::Config;
use super::super::error::NodeError;
use super::super::parts;
use super::pipe::SECOND;
use crate::domain::band::Band;
use crate::domain::harmonise::Mode;
use crate::domain::sampling::hash01;
use crate::domain::season::Seasons;

/// Cores of a simulated machine where the configuration says "all there are".
const CORES: usize = 2;
/// What is read of a file to open it, bytes.
pub(super) const HEADER: u64 = 16 << 10;

/// Everything but the tasks and the number of workers.
pub(super) struct Model {
    pub(super) seed: u64,
    pub(super) seasons: Seasons,
    pub(super) neighbourhood: f64,
    pub(super) partitions: u32,
    /// Partitions a worker takes tasks from at a time; 0: all.
    pub(super) focus: usize,
    pub(super) cores: usize,
    pub(super) tasks_in_flight: usize,
    pub(super) chips_in_flight: usize,
    pub(super) requests_per_host: usize,
    pub(super) searches_in_flight: usize,
    pub(super) cache_bytes: u64,
    pub(super) window_mb: u32,
    /// Metres of a pixel of each file; the classification's is the last one.
    pub(super) files: Vec<f64>,
    /// Whether the classification is looked at.
    pub(super) looks: bool,
    /// Share of scenes whose offset is looked for.
    pub(super) unsettled: f64,
    /// Half a chip, metres.
    pub(super) reach_m: f64,
    pub(super) block_px: u32,
    pub(super) ratio: f64,
    pub(super) yields: f64,
    pub(super) cloudy: f64,
    pub(super) searches: u8,
    pub(super) chip_bytes: f64,
    pub(super) store_ops: f64,
    pub(super) times: Times,
    pub(super) rates: Rates,
}

/// Service times, nanoseconds.
pub(super) struct Times {
    pub(super) image: u64,
    pub(super) stac: u64,
    pub(super) draw: u64,
    /// For a MiB.
    pub(super) decode: u64,
    pub(super) cut: u64,
    pub(super) encode: u64,
    pub(super) write: u64,
    pub(super) commit: u64,
}

/// What is shared, per second.
pub(super) struct Rates {
    pub(super) image_requests: f64,
    pub(super) image_bytes: f64,
    pub(super) link_bytes: f64,
    pub(super) stac: f64,
    pub(super) store_bytes: f64,
    pub(super) store_ops: f64,
    pub(super) broker: f64,
}

impl Model {
    /// Out of both.
    ///
    /// # Errors
    /// Seasons or bands that the configuration has wrong.
    pub(super) fn of(config: &Config, asked: &Simulate) -> Result<Self, NodeError> {
        let ns = |ms: f64| (ms * SECOND / 1000.0) as u64;
        let bytes = |mbit: f64| mbit * 1e6 / 8.0;
        let seasons = parts::seasons(config)?;
        let bands = parts::bands(config)?;
        let gsd = |band: &Band| f64::from(band.gsd());
        let mut files: Vec<f64> = bands.iter().map(gsd).collect();
        files.push(gsd(&Band::Scl));
        Ok(Self {
            seed: config.run.seed,
            seasons,
            neighbourhood: config.stac.neighbourhood,
            partitions: u32::try_from(config.kafka.partitions).unwrap_or(1).max(1),
            focus: config.focus().unwrap_or(0),
            cores: config.worker.cores(CORES),
            tasks_in_flight: config.worker.tasks_in_flight,
            chips_in_flight: config.worker.chips_in_flight,
            requests_per_host: config.imagery.requests_per_host,
            searches_in_flight: config.stac.requests_in_flight,
            cache_bytes: config.worker.cache_bytes(),
            window_mb: config.worker.window_mb,
            files,
            looks: parts::limits(config).asks_classes(),
            unsettled: if parts::harmonise(config) == Mode::Auto { asked.unsettled } else { 0.0 },
            reach_m: f64::from(config.chips.size * config.chips.resolution) / 2.0,
            block_px: asked.block,
            ratio: asked.ratio,
            yields: asked.yields,
            cloudy: asked.cloudy,
            searches: asked.searches,
            chip_bytes: asked.chip_kb * 1000.0,
            store_ops: asked.store_ops,
            times: Times {
                image: ns(asked.latency),
                stac: ns(asked.stac_latency),
                draw: ns(asked.draw_ms),
                decode: ns(asked.decode_ms),
                cut: ns(asked.cut_ms),
                encode: ns(asked.encode_ms),
                write: ns(asked.write_ms),
                commit: ns(asked.commit_ms),
            },
            rates: Rates {
                image_requests: asked.image_rate,
                image_bytes: bytes(asked.image_mbit),
                link_bytes: bytes(asked.link_mbit),
                stac: asked.stac_rate,
                store_bytes: bytes(asked.store_mbit),
                store_ops: asked.store_rate,
                broker: asked.broker_rate,
            },
        })
    }

    /// Whether a scene's offset is looked for.
    pub(super) fn asks_offset(&self, scene: u64) -> bool {
        hash01(self.seed ^ 0x0ff5, scene as i64) < self.unsettled
    }

    /// Place of the classification in [`Model::files`].
    pub(super) fn scl(&self) -> usize {
        self.files.len() - 1
    }

    /// Decoded bytes of a block.
    pub(super) fn decoded(&self, file: usize) -> u64 {
        let pixels = u64::from(self.block_px) * u64::from(self.block_px);
        if file == self.scl() { pixels } else { 2 * pixels }
    }

    /// Bytes of a block as it is fetched; a classification packs ten times better.
    pub(super) fn packed(&self, file: usize) -> u64 {
        let ratio = if file == self.scl() { self.ratio / 7.0 } else { self.ratio };
        (self.decoded(file) as f64 * ratio) as u64
    }

    /// Core time to decode a block.
    pub(super) fn decode_ns(&self, file: usize) -> u64 {
        (self.decoded(file) as f64 / f64::from(1 << 20) * self.times.decode as f64) as u64
    }
}
