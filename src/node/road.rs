//! The road of a worker's tasks: its doors, opened and checked, and its stages, started.
//!
//! Contract: [`Road::prepare`] finds out whether settings and places are usable before any task is taken. Trap:
//! the order of construction is from the end of the road to its beginning, because each stage holds the lane to
//! the next.

use std::sync::Arc;

use actix::Actor as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::error::NodeError;
use super::instruments::Instruments;
use super::parts;
use crate::actors::blocks::BlockReader;
use crate::actors::cpu::CpuPool;
use crate::actors::finder::Finder;
use crate::actors::health::Health;
use crate::actors::hosts::Hosts;
use crate::actors::intake::Intake;
use crate::actors::lane::Lane;
use crate::actors::messages::TaskArrived;
use crate::actors::offsets::Offsets;
use crate::actors::pixels::Pixels;
use crate::actors::quotas::Quotas;
use crate::actors::rasteriser::{Encoding, Prepared, Rasteriser};
use crate::actors::retry::RetryPolicy;
use crate::actors::sampler::Sampler;
use crate::actors::scenes::Scenes;
use crate::actors::settler::Settler;
use crate::actors::writer::Writer;
use crate::adapters::dataset::DatasetStore;
use crate::adapters::http::Http;
use crate::adapters::imagery::Imagery;
use crate::adapters::spare::Spares;
use crate::domain::band::Band;
use crate::domain::scl::BadClasses;

/// Chips in the share of a window that lies beyond the cell: half a chip, and a tenth of it for the angle
/// between the scene's grid and the meridian, and a pixel's rounding.
fn label_margin_m(config: &Config) -> f64 {
    f64::from(config.chips.size * config.chips.resolution) * 0.5 * 1.15 + 50.0
}

/// The doors of the road.
pub(super) struct Road {
    worker: Arc<str>,
    pub(super) store: Arc<dyn DatasetStore>,
    quotas: Quotas,
    parcels: Arc<dyn crate::adapters::parcels::ParcelSource>,
    catalog: Arc<dyn crate::adapters::catalog::Catalog>,
    catalog_http: Arc<Http>,
    http: Arc<Http>,
    cpu: CpuPool,
    cores: usize,
    bands: Vec<Band>,
    seasons: Arc<crate::domain::season::Seasons>,
    encoding: Arc<Encoding>,
}

impl Road {
    /// Opens the doors.
    ///
    /// # Errors
    /// Unusable settings or places.
    pub(super) fn prepare(
        config: &Config,
        worker: Arc<str>,
        store: Arc<dyn DatasetStore>,
        quotas: Quotas,
    ) -> Result<Self, NodeError> {
        let classes = parts::classes(config)?;
        let parcels = parts::parcels(config, classes.clone())?;
        let cores = parts::cores(config);
        let threads = |e: rayon::ThreadPoolBuildError| NodeError::Stopped(format!("worker.cores: {e}"));
        let cpu = CpuPool::new(cores).map_err(threads)?;
        // Each reads the system's certificates, which is most of a start: side by side.
        let doors = || rayon::join(|| parts::catalog_http(config), || parts::imagery_http(config));
        let (catalog_http, http) = cpu.pool().install(doors);
        let catalog_http = catalog_http?;
        let encoding = Encoding {
            worker: worker.clone(),
            crs: parcels.crs().clone(),
            bands: parts::bands(config)?,
            look: parts::mask_look(config, &classes),
            labels: parts::label_rules(config),
            compression: parts::compression(config),
            checksum: config.output.checksum,
            names: parts::names(config)?,
            images: Spares::new(SPARE_IMAGES, usize::MAX),
            prepared: Prepared::new(PREPARED_BYTES),
        };
        Ok(Self {
            worker,
            store,
            quotas,
            catalog: parts::catalog(config, catalog_http.clone())?,
            catalog_http,
            http: http?,
            cpu,
            cores,
            bands: encoding.bands.clone(),
            seasons: Arc::new(parts::seasons(config)?),
            encoding: Arc::new(encoding),
            parcels,
        })
    }

    /// Starts the stages, last one first, and gives the lane into the first one, and all there is to read.
    pub(super) fn start(
        self,
        config: &Config,
        settler: Settler,
        drain: CancellationToken,
    ) -> (Lane<TaskArrived>, Instruments) {
        let (tasks, chips) = (config.worker.tasks_in_flight, config.worker.chips_in_flight);
        let (stac_retry, pixel_retry) = (RetryPolicy::of(config.stac.retries), RetryPolicy::of(config.imagery.retries));
        let store_retry = RetryPolicy::of(STORE_RETRIES);
        let catalog_health = Arc::new(Health::new("the STAC API", config.worker.max_outage));
        let settler = settler.start().recipient();
        let writer = Writer { worker: self.worker.clone(), store: self.store.clone(), retry: store_retry }.start();
        let conclude = Lane::new("conclude", tasks, writer.clone().recipient());
        let write = Lane::new("writer", chips, writer.recipient());
        let rasteriser =
            Rasteriser { how: self.encoding, cpu: self.cpu.clone(), writer: write.clone(), conclude: conclude.clone() };
        let imagery = Arc::new(Imagery::new(self.http.clone(), self.cpu.pool(), config.worker.cache_bytes()));
        let image_hosts = Arc::new(Hosts::new(imagery.clone(), config.worker.max_outage));
        let window_mb = config.worker.window_mb;
        let windows = Arc::new(Semaphore::new(window_mb as usize));
        let cut = Lane::new("rasteriser", 2 * self.cores + 2, rasteriser.start().recipient());
        let finder = Arc::new(Finder {
            catalog: self.catalog,
            imagery: imagery.clone(),
            crs: self.parcels.crs().clone(),
            seasons: self.seasons,
            max_cloud: config.stac.max_cloud,
            widest: parts::widest(config),
            collections: config.stac.collections.clone().into(),
            grid_band: finest(&self.bands),
            chip_size: config.chips.size,
            retry: stac_retry,
            health: catalog_health.clone(),
            image_hosts: image_hosts.clone(),
            cpu: self.cpu.clone(),
        });
        let reader = BlockReader {
            imagery: imagery.clone(),
            memory: windows.clone(),
            batch_mb: (window_mb / 2).max(1),
            retry: pixel_retry,
            hosts: image_hosts.clone(),
        };
        let pixels = Pixels {
            reader,
            finder: finder.clone(),
            offsets: Arc::new(Offsets::new(parts::harmonise(config), imagery.clone(), self.cpu.clone())),
            bands: self.bands.into(),
            resampling: parts::resampling(config),
            bad: BadClasses::new(config.chips.bad_scl.iter().copied()),
            require_scl: config.chips.require_scl,
            limits: parts::limits(config),
            cpu: self.cpu.clone(),
            turn: Arc::default(),
            rasteriser: cut.clone(),
            conclude: conclude.clone(),
        };
        let read = Lane::new("pixels", tasks, pixels.start().recipient());
        let scenes = Scenes {
            worker: self.worker.clone(),
            finder,
            max_scenes: config.stac.max_scenes,
            pixels: read.clone(),
            conclude: conclude.clone(),
        };
        let find = Lane::new("scenes", tasks, scenes.start().recipient());
        let sampler = Sampler {
            worker: self.worker.clone(),
            parcels: self.parcels,
            min_parcels: config.grid.min_parcels,
            margin_m: label_margin_m(config).max(config.sampling.min_distance_m),
            rules: parts::parcel_rules(config),
            valid: Arc::default(),
            quotas: self.quotas.clone(),
            cpu: self.cpu,
            scenes: find.clone(),
            conclude: conclude.clone(),
        };
        let draw = Lane::new("sampler", self.cores + 1, sampler.start().recipient());
        let intake = Intake {
            worker: self.worker,
            seed: config.run.seed,
            store: self.store,
            max_attempts: config.worker.max_attempts,
            retry: store_retry,
            quotas: self.quotas,
            drain,
            settler,
            sampler: draw.clone(),
        };
        let take = Lane::new("intake", tasks, intake.start().recipient());
        let road =
            [take.gauge(), draw.gauge(), find.gauge(), read.gauge(), cut.gauge(), write.gauge(), conclude.gauge()];
        let instruments = Instruments {
            lanes: road.into(),
            catalog: self.catalog_http,
            images: self.http,
            imagery,
            catalog_health,
            image_hosts,
            windows: (windows, window_mb),
        };
        (take, instruments)
    }
}

/// Further attempts at the store: half a minute in all, enough for a file server's restart.
const STORE_RETRIES: u32 = 6;

/// Shapes of parcels that are kept for neighbouring tasks, bytes.
const PREPARED_BYTES: u64 = 8 << 20;

/// Buffers for encoded images that wait to be used again.
const SPARE_IMAGES: usize = 8;

fn finest(bands: &[Band]) -> Band {
    bands.iter().copied().min_by_key(|b| b.gsd()).unwrap_or(Band::B02)
}
