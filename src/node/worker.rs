//! The worker: joins the group and runs the road of its tasks.
//!
//! ```text
//! broker -> intake -> sampler -> scenes -> pixels -> rasteriser -> writer -> settler -> broker
//! ```
//!
//! Contract: takes no task before the output directory, the parcels and the settings have been found
//! usable. Ends when told to (`drain`), when something fatal happens, or with `exit_when_done` when the
//! group has no lag left. Trap: the order of construction is from the end of the road to its beginning,
//! because each stage holds the lane to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use actix::Actor as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::error::NodeError;
use super::{parts, quota};
use crate::actors::blocks::BlockReader;
use crate::actors::cpu::CpuPool;
use crate::actors::finder::Finder;
use crate::actors::health::Health;
use crate::actors::intake::Intake;
use crate::actors::lane::Lane;
use crate::actors::messages::TaskArrived;
use crate::actors::offsets::Offsets;
use crate::actors::pixels::Pixels;
use crate::actors::quotas::Quotas;
use crate::actors::rasteriser::{Encoding, Rasteriser};
use crate::actors::retry::RetryPolicy;
use crate::actors::sampler::Sampler;
use crate::actors::scenes::Scenes;
use crate::actors::settler::{Counts, Settler, StopReason};
use crate::actors::writer::Writer;
use crate::adapters::broker::{Broker, Delivery, GroupHandle, GroupSpec, PartitionLag};
use crate::adapters::dataset::DatasetStore;
use crate::adapters::http::Http;
use crate::adapters::imagery::Imagery;
use crate::domain::band::Band;
use crate::domain::scl::BadClasses;

/// Chips in the share of a window that lies beyond the cell: half a chip, and a tenth of it for the angle
/// between the scene's grid and the meridian, and a pixel's rounding.
fn label_margin_m(config: &Config) -> f64 {
    f64::from(config.chips.size * config.chips.resolution) * 0.5 * 1.15 + 50.0
}

/// What a worker has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Tasks settled with a result that is no failure.
    pub finished: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Tasks given up for others.
    pub abandoned: u64,
    /// Chips.
    pub chips: u64,
}

/// Works until `drain` fires, the work is done, or something fatal happens.
///
/// # Errors
/// Unusable settings or places; [`NodeError::Stopped`] for what was fatal.
pub async fn run(
    config: &Config,
    broker: Arc<dyn Broker>,
    drain: &CancellationToken,
    exit_when_done: bool,
) -> Result<WorkerReport, NodeError> {
    let store = parts::store(config)?;
    let quotas = quota::remembered(config, store.clone()).await?;
    work(config, broker, store, quotas, drain, exit_when_done).await
}

/// The same with a dataset of the caller's choice.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: &Config,
    broker: Arc<dyn Broker>,
    store: Arc<dyn DatasetStore>,
    drain: &CancellationToken,
    exit_when_done: bool,
) -> Result<WorkerReport, NodeError> {
    work(config, broker, store, Quotas::default(), drain, exit_when_done).await
}

async fn work(
    config: &Config,
    broker: Arc<dyn Broker>,
    store: Arc<dyn DatasetStore>,
    quotas: Quotas,
    drain: &CancellationToken,
    exit_when_done: bool,
) -> Result<WorkerReport, NodeError> {
    let worker: Arc<str> = parts::worker_id(config).into();
    let tasks = config.worker.tasks_in_flight;
    let road = Road::prepare(config, worker.clone(), store, quotas.clone())?;
    let mut spec = GroupSpec::new(&config.kafka.group, &config.kafka.tasks_topic, &*worker, tasks);
    if let Some(partitions) = config.focus() {
        spec = spec.focused(partitions);
    }
    broker.create_topics(&parts::topics(config)).await?;
    let down = CancellationToken::new();
    let _down_at_the_end = down.clone().drop_guard();
    if config.sampling.stop_when_filled {
        quota::follow(&config.kafka.control_topic, &*broker, quotas, down).await?;
    }
    let (group, deliveries) = broker.join(spec).await?;
    tracing::info!(worker = &*worker, group = config.kafka.group, "worker is up");
    let (stop, fatal) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts::default());
    let settler = Settler {
        broker: broker.clone(),
        group: group.clone(),
        store: road.store.clone(),
        results_topic: (*config.kafka.results_topic).into(),
        dlq_topic: (*config.kafka.dlq_topic).into(),
        stop,
        counts: counts.clone(),
    };
    let abandon = CancellationToken::new();
    let intake = road.start(config, settler, abandon.clone());
    let mut shift = Shift { group, deliveries, fatal, intake, taken: 0, counts, quiet_since: None };
    let why = shift.work(drain, exit_when_done).await;
    abandon.cancel();
    let left = shift.leave(config.worker.drain_timeout).await;
    // What ends the draining counts as much as what ended the work.
    let why = why.and_then(|()| shift.fatal.try_recv().map_or(Ok(()), Err));
    let counts = &shift.counts;
    let report = WorkerReport {
        finished: counts.finished.load(Relaxed),
        failed: counts.failed.load(Relaxed),
        abandoned: counts.abandoned.load(Relaxed),
        chips: counts.chips.load(Relaxed),
    };
    tracing::info!(?report, "worker is down");
    match why {
        Err(StopReason(reason)) => Err(NodeError::Stopped(reason)),
        Ok(()) if left > 0 => Err(NodeError::Stopped(format!(
            "{left} tasks were given up after worker.drain_timeout_s; others will do them"
        ))),
        Ok(()) if exit_when_done && report.failed > 0 => {
            Err(NodeError::Incomplete(format!("{} tasks failed; `node dlq list` shows why", report.failed)))
        }
        Ok(()) => Ok(report),
    }
}

/// The doors of the road.
struct Road {
    worker: Arc<str>,
    store: Arc<dyn DatasetStore>,
    quotas: Quotas,
    parcels: Arc<dyn crate::adapters::parcels::ParcelSource>,
    catalog: Arc<dyn crate::adapters::catalog::Catalog>,
    http: Arc<Http>,
    cpu: CpuPool,
    cores: usize,
    bands: Vec<Band>,
    seasons: Arc<crate::domain::season::Seasons>,
    encoding: Arc<Encoding>,
}

impl Road {
    fn prepare(
        config: &Config,
        worker: Arc<str>,
        store: Arc<dyn DatasetStore>,
        quotas: Quotas,
    ) -> Result<Self, NodeError> {
        let classes = parts::classes(config)?;
        let parcels = parts::parcels(config, classes.clone())?;
        let cores = config.worker.cores(std::thread::available_parallelism().map_or(1, |n| n.get()));
        let threads = |e: rayon::ThreadPoolBuildError| NodeError::Stopped(format!("worker.cores: {e}"));
        let encoding = Encoding {
            worker: worker.clone(),
            crs: parcels.crs().clone(),
            bands: parts::bands(config)?,
            look: parts::mask_look(config, &classes),
            labels: parts::label_rules(config),
            compression: parts::compression(config),
            names: parts::names(config)?,
        };
        Ok(Self {
            worker,
            store,
            quotas,
            catalog: parts::catalog(config)?,
            http: parts::imagery_http(config)?,
            cpu: CpuPool::new(cores).map_err(threads)?,
            cores,
            bands: encoding.bands.clone(),
            seasons: Arc::new(parts::seasons(config)?),
            encoding: Arc::new(encoding),
            parcels,
        })
    }

    /// Starts the stages, last one first, and gives the lane into the first one.
    fn start(self, config: &Config, settler: Settler, drain: CancellationToken) -> Lane<TaskArrived> {
        let (tasks, chips) = (config.worker.tasks_in_flight, config.worker.chips_in_flight);
        let (stac_retry, pixel_retry) = (RetryPolicy::of(config.stac.retries), RetryPolicy::of(config.imagery.retries));
        let store_retry = RetryPolicy::of(STORE_RETRIES);
        let catalog_health = Arc::new(Health::new("the STAC API", config.worker.max_outage));
        let settler = settler.start().recipient();
        let writer = Writer { worker: self.worker.clone(), store: self.store.clone(), retry: store_retry }.start();
        let conclude = Lane::new("conclude", tasks, writer.clone().recipient());
        let rasteriser = Rasteriser {
            how: self.encoding,
            cpu: self.cpu.clone(),
            writer: Lane::new("writer", chips, writer.recipient()),
            conclude: conclude.clone(),
        };
        let imagery = Arc::new(Imagery::new(self.http, self.cpu.pool(), config.worker.cache_bytes()));
        let asked = imagery.clone();
        let image_health = Health::new("the image host", config.worker.max_outage).asking(move || {
            let imagery = asked.clone();
            Box::pin(async move { imagery.answers().await })
        });
        let image_health = Arc::new(image_health);
        let window_mb = config.worker.window_mb;
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
            health: catalog_health,
            image_health: image_health.clone(),
            cpu: self.cpu.clone(),
        });
        let reader = BlockReader {
            imagery: imagery.clone(),
            memory: Arc::new(Semaphore::new(window_mb as usize)),
            batch_mb: (window_mb / 2).max(1),
            retry: pixel_retry,
            health: image_health,
        };
        let pixels = Pixels {
            reader,
            finder: finder.clone(),
            offsets: Arc::new(Offsets::new(parts::harmonise(config), imagery, self.cpu.clone())),
            bands: self.bands.into(),
            resampling: parts::resampling(config),
            bad: BadClasses::new(config.chips.bad_scl.iter().copied()),
            require_scl: config.chips.require_scl,
            limits: parts::limits(config),
            cpu: self.cpu.clone(),
            rasteriser: Lane::new("rasteriser", self.cores + 1, rasteriser.start().recipient()),
            conclude: conclude.clone(),
        };
        let scenes = Scenes {
            worker: self.worker.clone(),
            finder,
            max_scenes: config.stac.max_scenes,
            pixels: Lane::new("pixels", tasks, pixels.start().recipient()),
            conclude: conclude.clone(),
        };
        let sampler = Sampler {
            worker: self.worker.clone(),
            parcels: self.parcels,
            min_parcels: config.grid.min_parcels,
            margin_m: label_margin_m(config).max(config.sampling.min_distance_m),
            rules: parts::parcel_rules(config),
            quotas: self.quotas.clone(),
            cpu: self.cpu,
            scenes: Lane::new("scenes", tasks, scenes.start().recipient()),
            conclude,
        };
        let intake = Intake {
            worker: self.worker,
            seed: config.run.seed,
            store: self.store,
            max_attempts: config.worker.max_attempts,
            retry: store_retry,
            quotas: self.quotas,
            drain,
            settler,
            sampler: Lane::new("sampler", self.cores + 1, sampler.start().recipient()),
        };
        Lane::new("intake", tasks, intake.start().recipient())
    }
}

/// Further attempts at the store: half a minute in all, enough for a file server's restart.
const STORE_RETRIES: u32 = 6;

/// How long the group must be without lag before a worker without a plan record believes that all is done.
const QUIET: Duration = Duration::from_secs(10);

fn finest(bands: &[Band]) -> Band {
    bands.iter().copied().min_by_key(|b| b.gsd()).unwrap_or(Band::B02)
}

/// One worker's time in the group.
struct Shift {
    group: GroupHandle,
    deliveries: mpsc::Receiver<Delivery>,
    fatal: mpsc::UnboundedReceiver<StopReason>,
    intake: Lane<TaskArrived>,
    taken: u64,
    counts: Arc<Counts>,
    quiet_since: Option<Instant>,
}

impl Shift {
    /// Hands deliveries to the road.
    async fn work(&mut self, drain: &CancellationToken, exit_when_done: bool) -> Result<(), StopReason> {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut slot = None;
        loop {
            tokio::select! {
                biased;
                reason = self.fatal.recv() => return Err(reason.unwrap_or(StopReason("the settler is gone".into()))),
                () = drain.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    if exit_when_done && self.all_done().await {
                        return Ok(());
                    }
                }
                free = self.intake.reserve(), if slot.is_none() => slot = Some(free),
                delivery = self.deliveries.recv(), if slot.is_some() => match (delivery, slot.take()) {
                    (Some(delivery), Some(slot)) => {
                        self.taken += 1;
                        slot.send(TaskArrived { delivery });
                    }
                    _ => {
                        let failed = self.group.status().borrow().failed.clone();
                        let why = failed.map_or("the membership has ended".into(), |e| e.to_string());
                        return Err(StopReason(why));
                    }
                },
            }
        }
    }

    /// Whether the whole group has nothing left to do.
    async fn all_done(&mut self) -> bool {
        if self.open() > 0 || self.group.in_flight() > 0 {
            self.quiet_since = None;
            return false;
        }
        let Ok(lags) = self.group.lag().await else { return false };
        let published: i64 = lags.iter().map(|l| l.high - l.low).sum();
        let behind: u64 = lags.iter().map(PartitionLag::lag).sum();
        if published == 0 || behind > 0 {
            self.quiet_since = None;
            return false;
        }
        // A master may still be publishing; its tasks would have come by then.
        self.quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET
    }

    /// Tasks taken and not settled.
    fn open(&self) -> u64 {
        let c = &self.counts;
        let ended = [&c.finished, &c.failed, &c.abandoned, &c.halted];
        let settled: u64 = ended.iter().map(|n| n.load(Relaxed)).sum();
        (self.taken + c.settling.load(Relaxed)).saturating_sub(settled)
    }

    /// Lets what is in flight end, each task in its own way, and leaves the group. Gives the number of tasks given
    /// up. After something fatal too: a task cut short would leave its staged files behind.
    async fn leave(&mut self, patience: Duration) -> u64 {
        self.group.stop();
        let deadline = Instant::now() + patience;
        while self.open() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.open();
        if left > 0 {
            tracing::warn!(left, "giving up what is still in flight; it will be delivered again");
        }
        self.group.close().await;
        left
    }
}
