//! The master: scans the parcels once, plans, and publishes the plan's tasks.
//!
//! Contract: the same configuration and parcels give the same plan and the same run id. A master that is
//! started again after a crash finds the tasks it has published already and adds the missing ones. The
//! plan record on the control topic says how far it is; it becomes `published` only after the last task
//! was acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::Actor as _;
use indicatif::{ProgressBar, ProgressStyle};
use metrics::gauge;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::config::{CellOrder, Config, SEASON_BY_CLASS, SamplingMode};
use super::error::NodeError;
use super::parts;
use crate::actors::lane::Lane;
use crate::actors::planner::{BATCH, ParcelsScanned, Planning, PublishPlan, ScanEnded};
use crate::actors::publisher::Publisher;
use crate::adapters::broker::{Broker, ReadEvent, Record};
use crate::adapters::parcels::{ParcelError, ParcelSource, ScanProgress};
use crate::domain::class_table::ClassTable;
use crate::domain::classes::ClassId;
use crate::domain::plan::{self, Order, Plan, PlanSettings, Sampling};
use crate::domain::plan_record::{ClassPlan, PLAN_SCHEMA, PlanRecord, PlanState};
use crate::domain::planner::Planner;
use crate::domain::sampling;
use crate::domain::task::{Task, fnv1a};

/// Time between two lines of a log that stands in for a progress bar.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Batches of parcels on their way from the scan to the planner.
const BATCHES: usize = 4;

/// Whether a master draws its progress bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bars {
    /// On a terminal; elsewhere the log says how far it is.
    Shown,
    /// Somebody else has the terminal: the log says it.
    Hidden,
}

/// Plans and publishes.
///
/// # Errors
/// Unusable parcels or plan; a broker that refuses; a signal.
pub async fn run(
    config: &Config,
    broker: Arc<dyn Broker>,
    bars: Bars,
    drain: &CancellationToken,
) -> Result<Plan, NodeError> {
    let classes = parts::classes(config)?;
    let source = parts::parcels(config, classes.clone())?;
    let plan = Arc::new(plan(config, source, &classes, bars, drain).await?);
    for (topic, outcome) in broker.create_topics(&parts::topics(config)).await? {
        tracing::debug!(topic, ?outcome, "topic");
    }
    publish(config, broker, &plan, &classes, bars, drain).await?;
    Ok(Arc::unwrap_or_clone(plan))
}

/// Plans only.
///
/// # Errors
/// Unusable parcels or plan; a signal.
pub async fn plan(
    config: &Config,
    source: Arc<dyn ParcelSource>,
    classes: &ClassTable,
    bars: Bars,
    drain: &CancellationToken,
) -> Result<Plan, NodeError> {
    let mut settings = settings(config, &*source, classes)?;
    if let Some(all) = before_chances(config, &settings) {
        let totals = count(source.clone(), all, bars, drain).await?.summary.classes;
        set_chances(config, &mut settings, &totals);
        tracing::info!(sampling = ?settings.sampling, "probabilities out of the parcels' numbers");
    }
    count(source, settings, bars, drain).await
}

/// Where probabilities follow from the parcels' numbers: what counts every parcel of the cells that become tasks, before
/// anything is drawn.
pub(super) fn before_chances(config: &Config, settings: &PlanSettings) -> Option<PlanSettings> {
    let auto = config.sampling.mode == SamplingMode::Auto;
    auto.then(|| PlanSettings { sampling: Sampling::Basic, ..settings.clone() })
}

/// Puts the probabilities in that follow from these numbers.
pub(super) fn set_chances(config: &Config, settings: &mut PlanSettings, totals: &BTreeMap<ClassId, plan::ClassPlan>) {
    let (rate, each) = (config.sampling.conversion_rate, settings.seasons.chips_per_parcel() as u64);
    let wanted = |class: &ClassId| config.sampling.quota.get(class).unwrap_or(&config.sampling.max_target);
    let chance = |(class, plan): (&ClassId, &plan::ClassPlan)| {
        (*class, sampling::probability(*wanted(class), plan.planned, rate, each))
    };
    if let Sampling::Balanced { probabilities, .. } = &mut settings.sampling {
        *probabilities = totals.iter().map(chance).collect();
    }
}

/// One pass over the parcels, laid out.
async fn count(
    source: Arc<dyn ParcelSource>,
    settings: PlanSettings,
    bars: Bars,
    drain: &CancellationToken,
) -> Result<Plan, NodeError> {
    let planner = Planner::new(settings)?;
    let stage = Planning::new(planner).start();
    let lane: Lane<ParcelsScanned> = Lane::new("planner", BATCHES, stage.clone().recipient());
    let end: Lane<ScanEnded> = Lane::new("planner", 1, stage.recipient());
    let bar = bar("reading parcels", bars);
    let (shown, stop, reactor) = (bar.clone(), drain.clone(), tokio::runtime::Handle::current());
    let scan = move || scan(&*source, &lane, &shown, &stop, &reactor);
    let rows = match tokio::task::spawn_blocking(scan).await {
        Ok(rows) => rows,
        Err(_) => return Err(NodeError::Stopped("reading the parcels panicked".into())),
    };
    bar.finish_and_clear();
    tracing::info!(rows = rows?, "parcels read");
    let (reply, answer) = oneshot::channel();
    end.send(ScanEnded { reply }).await;
    answer.await.map_err(|_| NodeError::Stopped("planning panicked".into()))?.map_err(NodeError::from)
}

fn scan(
    source: &dyn ParcelSource,
    lane: &Lane<ParcelsScanned>,
    bar: &ProgressBar,
    stop: &CancellationToken,
    reactor: &tokio::runtime::Handle,
) -> Result<u64, ParcelError> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut said = Instant::now();
    let send = |rows: Vec<_>| reactor.block_on(lane.send(ParcelsScanned { rows }));
    let rows = source.scan(
        &mut |row| {
            batch.push(row.clone());
            if batch.len() == BATCH {
                send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            }
        },
        &mut |ScanProgress { rows, total_estimate }| {
            bar.set_length(total_estimate.max(rows));
            bar.set_position(rows);
            // Where there is no terminal the bar is invisible, and the log says how far it is.
            if bar.is_hidden() && said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!(rows, of = total_estimate.max(rows), "reading parcels");
            }
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    send(batch);
    Ok(rows)
}

/// What decides the plan, out of the configuration.
pub(super) fn settings(
    config: &Config,
    source: &dyn ParcelSource,
    classes: &ClassTable,
) -> Result<PlanSettings, NodeError> {
    let sampling = match config.sampling.mode {
        SamplingMode::Basic => Sampling::Basic,
        SamplingMode::Balanced | SamplingMode::Auto => Sampling::Balanced {
            probabilities: config.sampling.probabilities.clone(),
            conversion_rate: config.sampling.conversion_rate,
            max_target: config.sampling.max_target,
            quotas: config.sampling.quota.clone(),
        },
    };
    // What no setting asks for does not decide anything.
    let by_class = (config.stac.season == SEASON_BY_CLASS).then_some(&config.stac.by_class);
    // Everything else that decides what the dataset holds; where it is kept and how fast it is made do not.
    let decisive = serde_json::json!({
        "layer": source.fingerprint(),
        "classes": fnv1a(format!("{classes:?}").as_bytes()),
        "stac": [
            serde_json::json!(config.stac.collections),
            serde_json::json!(config.stac.max_cloud),
            serde_json::json!(config.stac.season),
            serde_json::json!(config.stac.seasons),
            serde_json::json!(config.stac.widen),
            serde_json::json!(config.stac.max_scenes),
            serde_json::json!(by_class),
        ],
        "chips": config.chips,
        "labels": config.labels,
        "centres": [config.sampling.min_area_m2, config.sampling.min_distance_m],
    });
    Ok(PlanSettings {
        seed: config.run.seed,
        step: config.grid.step,
        min_parcels: config.grid.min_parcels,
        sampling,
        classes: classes.classes().iter().map(|(class, info)| (*class, info.name.clone())).collect(),
        seasons: parts::seasons(config)?,
        order: match config.grid.order {
            CellOrder::Space => Order::Space,
            CellOrder::Rarest => Order::Rarest,
        },
        partitions: config.kafka.partitions,
        run_id: config.run.id().map(str::to_owned),
        context: decisive.to_string(),
    })
}

async fn publish(
    config: &Config,
    broker: Arc<dyn Broker>,
    plan: &Arc<Plan>,
    classes: &ClassTable,
    bars: Bars,
    drain: &CancellationToken,
) -> Result<(), NodeError> {
    let run = &plan.summary.run_id;
    announce(config, &*broker, plan, classes, PlanState::Publishing).await?;
    let already = published(config, &*broker, run).await?;
    if !already.is_empty() {
        tracing::info!(run, "{} of {} tasks were published before", already.len(), plan.summary.tasks);
    }
    let bar = bar("publishing tasks", bars);
    bar.set_length(plan.summary.tasks - already.len() as u64);
    let published = Arc::new(AtomicU64::new(0));
    let (planned, before) = (plan.summary.tasks as f64, already.len() as u64);
    gauge!("satellite_plan_tasks", "state" => "planned").set(planned);
    let acknowledged = gauge!("satellite_plan_tasks", "state" => "acknowledged");
    let stage =
        Publisher { broker: broker.clone(), topic: (*config.kafka.tasks_topic).into(), published: published.clone() };
    let lane: Lane<PublishPlan> = Lane::new("publisher", 1, stage.start().recipient());
    let mut said = Instant::now();
    let (reply, mut answer) = oneshot::channel();
    lane.send(PublishPlan { plan: plan.clone(), already, reply }).await;
    let sent = loop {
        tokio::select! {
            sent = &mut answer => break sent.map_err(|_| NodeError::Stopped("publishing panicked".into()))??,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                bar.set_position(published.load(Relaxed));
                acknowledged.set((before + published.load(Relaxed)) as f64);
                if bar.is_hidden() && said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    tracing::info!(now = published.load(Relaxed), of = plan.summary.tasks, "publishing tasks");
                }
            }
            () = drain.cancelled() => return Err(NodeError::Stopped(
                format!("stopped after {} of {} tasks; start the master again to publish the rest",
                    published.load(Relaxed), plan.summary.tasks),
            )),
        }
    };
    bar.finish_and_clear();
    acknowledged.set(planned);
    announce(config, &*broker, plan, classes, PlanState::Published).await?;
    tracing::info!(run, tasks = plan.summary.tasks, now = sent, "plan published");
    Ok(())
}

/// Says on the control topic how far the plan is.
async fn announce(
    config: &Config,
    broker: &dyn Broker,
    plan: &Plan,
    classes: &ClassTable,
    state: PlanState,
) -> Result<(), NodeError> {
    let summary = &plan.summary;
    let colour = |class| classes.classes().get(class).map_or([0; 3], |info| info.colour);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let record = PlanRecord {
        schema: PLAN_SCHEMA,
        run_id: summary.run_id.clone(),
        state,
        tasks: summary.tasks,
        parcels: plan.tasks.iter().map(|t| t.task.polygon_count).sum(),
        classes: summary
            .classes
            .iter()
            .map(|(class, c)| {
                let [r, g, b] = colour(class);
                let colour = format!("#{r:02x}{g:02x}{b:02x}");
                let (name, parcels) = (c.name.clone(), c.planned);
                (*class, ClassPlan { name, colour, parcels, expected: c.expected, target: c.target })
            })
            .collect(),
        seed: summary.seed,
        created_ms: now,
    };
    let payload = record.to_json().map_err(|e| NodeError::Stopped(e.to_string()))?;
    broker.publish(Record::keyed(&config.kafka.control_topic, record.key(), payload)).await?;
    Ok(())
}

/// Numbers of this run's tasks that the topic holds already.
async fn published(config: &Config, broker: &dyn Broker, run: &str) -> Result<HashSet<u64>, NodeError> {
    let mut found = HashSet::new();
    let mut events = broker.read(&[&config.kafka.tasks_topic]).await?;
    while let Some(event) = events.recv().await {
        match event {
            ReadEvent::Record(record) => {
                if let Ok(task) = Task::parse(&record.payload)
                    && task.run_id.as_deref() == Some(run)
                {
                    found.insert(task.task_id);
                }
            }
            ReadEvent::CaughtUp => break,
            ReadEvent::Failed(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// A progress bar on a terminal; nothing elsewhere (the log says what matters).
fn bar(what: &'static str, bars: Bars) -> ProgressBar {
    let bar = match bars {
        Bars::Shown => ProgressBar::new(0),
        Bars::Hidden => ProgressBar::hidden(),
    };
    let bar = bar.with_message(what);
    let style = ProgressStyle::with_template("{msg:18} {wide_bar} {human_pos}/{human_len}  {per_sec}  {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
