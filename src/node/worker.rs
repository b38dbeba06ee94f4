//! The worker: joins the group and runs the road of its tasks.
//!
//! ```text
//! broker -> intake -> sampler -> scenes -> pixels -> rasteriser -> writer -> settler -> broker
//! ```
//!
//! Contract: takes no task before the output directory, the parcels and the settings have been found
//! usable. Ends when told to (`drain`), when something fatal happens, or with `exit_when_done` when the
//! group has no lag left.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::error::NodeError;
use super::instruments::Instruments;
use super::probes::Probes;
use super::pulse::Pulse;
use super::road::Road;
use super::{parts, quota};
use crate::actors::lane::Lane;
use crate::actors::messages::TaskArrived;
use crate::actors::quotas::Quotas;
use crate::actors::settler::{Counts, Settler, StopReason};
use crate::adapters::broker::{Broker, Delivery, GroupHandle, GroupSpec, PartitionLag};
use crate::adapters::dataset::DatasetStore;

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
    probes: &Probes,
) -> Result<WorkerReport, NodeError> {
    let store = parts::store(config)?;
    let quotas = quota::remembered(config, store.clone()).await?;
    work(config, broker, store, quotas, drain, exit_when_done, probes).await
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
    work(config, broker, store, Quotas::default(), drain, exit_when_done, &Probes::default()).await
}

async fn work(
    config: &Config,
    broker: Arc<dyn Broker>,
    store: Arc<dyn DatasetStore>,
    quotas: Quotas,
    drain: &CancellationToken,
    exit_when_done: bool,
    probes: &Probes,
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
    let _down_in_any_case = down.clone().drop_guard();
    if config.sampling.stop_when_filled {
        quota::follow(&config.kafka.control_topic, &*broker, quotas, down.clone()).await?;
    }
    let (group, deliveries) = broker.join(spec).await?;
    tracing::info!(worker = &*worker, group = config.kafka.group, "worker is up");
    let (stop, fatal) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts::default());
    let settler = Settler {
        worker: worker.clone(),
        broker: broker.clone(),
        group: group.clone(),
        store: road.store.clone(),
        results_topic: (*config.kafka.results_topic).into(),
        dlq_topic: (*config.kafka.dlq_topic).into(),
        stop,
        counts: counts.clone(),
    };
    let abandon = CancellationToken::new();
    let store = road.store.clone();
    let (intake, instruments) = road.start(config, settler, abandon.clone());
    tell(probes, &instruments, &group, store.clone());
    let interval = config.worker.heartbeat;
    let pulse =
        Pulse { worker, instruments, group: group.clone(), counts: counts.clone(), drain: drain.clone(), interval };
    let (topic, over) = (config.kafka.status_topic.clone(), down.clone());
    let beating = (!interval.is_zero()).then(|| tokio::spawn(pulse.beat(broker.clone(), topic, over)));
    let mut shift = Shift { group, deliveries, fatal, intake, taken: 0, counts, quiet_since: None };
    let why = shift.work(drain, exit_when_done).await;
    abandon.cancel();
    let left = shift.leave(config.worker.drain_timeout).await;
    down.cancel();
    if let Some(beating) = beating {
        // A panic there has been logged, and costs a last word.
        let _ = beating.await;
    }
    // Others may have been killed while they started; nobody may come after this one.
    let _ = tokio::task::spawn_blocking(move || store.tidy()).await;
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

/// Lets others see how the worker is.
fn tell(probes: &Probes, instruments: &Instruments, group: &GroupHandle, store: Arc<dyn DatasetStore>) {
    let (read, member, status) = (instruments.clone(), group.clone(), group.status());
    probes.watch(move || {
        read.record();
        metrics::gauge!("satellite_partitions").set(member.status().borrow().assigned.len() as f64);
    });
    probes.ask("broker", move || {
        let status = status.borrow();
        let failed = status.failed.as_ref().map(ToString::to_string);
        let answer = match failed {
            Some(failed) => Err(failed),
            None if status.down_since.is_some() => Err("no broker answers".into()),
            None if status.left => Err("the worker has left its group".into()),
            None => Ok(()),
        };
        std::future::ready(answer)
    });
    probes.ask("output", move || {
        let store = store.clone();
        async move {
            match tokio::task::spawn_blocking(move || store.check()).await {
                Ok(checked) => checked.map_err(|e| e.to_string()),
                Err(_) => Err("looking at output.dir panicked".into()),
            }
        }
    });
}

/// How long the group must be without lag before a worker without a plan record believes that all is done.
const QUIET: Duration = Duration::from_secs(10);

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
