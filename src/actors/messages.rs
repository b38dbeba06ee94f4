//! What travels between the stages of a worker, in the order of the road.
//!
//! Contract: a message owns all it needs; each is bounded by its lane, so the sizes below times the lanes'
//! bounds are the node's memory: [`WriteChip`] holds one chip's encoded files (0.9 MiB at 10 x 256 x 256). What
//! [`Rasterise`] holds are blocks that the pixels stage holds too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::ticket::{Outcome, Ticket};
use super::uncut::Uncut;
use crate::adapters::broker::Delivery;
use crate::adapters::spare::Lent;
use crate::domain::candidate::Candidate;
use crate::domain::choice::Choice;
use crate::domain::classes::ClassId;
use crate::domain::failure::Failure;
use crate::domain::label_index::LabelIndex;
use crate::domain::manifest::{ChipRecord, Rejection};
use crate::domain::parcel::Parcel;
use crate::domain::provenance::Provenance;
use crate::domain::result::{Status, TaskResult};
use crate::domain::task::{Task, TaskKey};

/// A message has come from the broker. To the intake.
pub struct TaskArrived {
    /// It.
    pub delivery: Delivery,
}

/// A task under way: what all stages know about it.
#[derive(Debug)]
pub struct Job {
    /// The task.
    pub task: Task,
    /// Its key.
    pub key: TaskKey,
    /// Seed that decides about it.
    pub seed: u64,
    /// The obligation to settle it.
    pub ticket: Ticket,
    /// Fires when its partition is lost or the node gives up draining.
    pub cancel: CancellationToken,
    /// When it arrived.
    pub started: Instant,
    /// Name of this worker.
    pub worker: Arc<str>,
    /// Parcels that were drawn and may be no centres, or are not wanted any more because their class has enough chips.
    pub left_out: Vec<Rejection>,
}

/// Draw the parcels of a cell. To the sampler.
pub struct SampleParcels {
    /// The task.
    pub job: Job,
}

/// A parcel that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Number of its chip within the task, from 0.
    pub chip: u32,
    /// Parcel id.
    pub parcel: i64,
    /// Its class.
    pub class: ClassId,
    /// Representative point, parcels' CRS.
    pub point: [f64; 2],
    /// The same, degrees.
    pub lonlat: [f64; 2],
}

/// Find scenes for the drawn parcels. To the scenes stage.
pub struct FindScenes {
    /// The task.
    pub job: Job,
    /// Parcels that become chips, ascending by id.
    pub drawn: Vec<Drawn>,
    /// All labelled parcels of the cell and around it.
    pub parcels: Arc<Vec<Parcel>>,
}

/// A chip to be made.
#[derive(Debug, Clone)]
pub struct ChipPlan {
    /// The parcel in its centre.
    pub drawn: Drawn,
    /// The season it is wanted from, by its place among the run's seasons.
    pub season: usize,
    /// Steps of the search that were made for it.
    pub steps: usize,
    /// The scenes found so far.
    pub choice: Choice,
    /// Why the last candidate was refused: a reason and its detail.
    pub refused: Option<(&'static str, String)>,
}

impl ChipPlan {
    /// A chip that may be looked for in `scenes` scenes, none of which is known yet.
    pub fn new(drawn: Drawn, season: usize, scenes: usize) -> Self {
        Self { drawn, season, steps: 0, choice: Choice::new(scenes), refused: None }
    }

    /// The candidate that was wanted is no use.
    pub fn refuse(&mut self, reason: &'static str, detail: impl Into<String>) {
        self.choice.refused();
        self.refused = Some((reason, detail.into()));
    }
}

/// Read the windows of a task's chips. To the pixels stage.
pub struct ReadWindows {
    /// The task and what has become of its chips.
    pub fan: Arc<Fan>,
    /// The chips.
    pub chips: Vec<ChipPlan>,
}

/// Cut the window of a chip, burn its mask and encode both files. To the rasteriser.
pub struct Rasterise {
    /// The task.
    pub fan: Arc<Fan>,
    /// The parcel in the centre.
    pub drawn: Drawn,
    /// Where the pixels come from.
    pub from: Candidate,
    /// Its pixels.
    pub window: Uncut,
    /// What was found out so far.
    pub provenance: Provenance,
}

/// Write a chip. To the writer.
pub struct WriteChip {
    /// The task.
    pub fan: Arc<Fan>,
    /// What the manifest will say.
    pub record: ChipRecord,
    /// Number of the chip.
    pub chip: u32,
    /// Encoded image.
    pub image: Lent<u8>,
    /// Encoded mask.
    pub mask: Vec<u8>,
}

/// Everything of a task is decided: commit it and settle. To the writer.
pub struct Conclude {
    /// What came of it.
    pub done: Done,
}

/// What became of one chip.
#[derive(Debug)]
pub enum ChipOutcome {
    /// Staged.
    Written(Box<ChipRecord>),
    /// No chip of this parcel; the task goes on.
    Rejected(Rejection),
    /// The task cannot be finished now.
    Broken(Failure),
    /// Not wanted any more.
    Abandoned,
}

impl ChipOutcome {
    /// Season of the chip, where it is known: tells the chips of one parcel apart.
    fn season(&self) -> &str {
        match self {
            Self::Written(record) => &record.season,
            Self::Rejected(rejection) => &rejection.season,
            Self::Broken(_) | Self::Abandoned => "",
        }
    }
}

/// A task whose chips are on their way: collects what becomes of them.
///
/// Each chip carries one `Arc` of it; whoever gives back the last one ([`Fan::give_back`]) gets the task
/// again. A chip that vanishes without an outcome (its stage panicked) makes the task `Lost`.
#[derive(Debug)]
pub struct Fan {
    job: Job,
    expected: usize,
    outcomes: Mutex<Vec<(u32, ChipOutcome)>>,
    parcels: Arc<Vec<Parcel>>,
    labels: Mutex<HashMap<u32, SharedLabels>>,
}

/// Labels of one CRS, made by the first chip that needs them.
type SharedLabels = Arc<OnceLock<Result<Arc<LabelIndex>, Failure>>>;

/// A task with the outcome of every chip.
#[derive(Debug)]
pub struct Done {
    /// The task.
    pub job: Job,
    /// Outcome by number of the chip, ascending, and by season.
    pub outcomes: Vec<(u32, ChipOutcome)>,
    /// Status to report when there was nothing to do; `None`: by the outcomes.
    pub skipped: Option<Status>,
}

impl Fan {
    /// A task with `expected` chips.
    pub fn new(job: Job, expected: usize, parcels: Arc<Vec<Parcel>>) -> Self {
        Self { job, expected, outcomes: Mutex::new(Vec::with_capacity(expected)), parcels, labels: Mutex::default() }
    }

    /// The task.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The labels in the CRS `epsg`, made once by `make` from the parcels.
    ///
    /// # Errors
    /// What `make` said, to everybody who asks.
    pub fn labels(
        &self,
        epsg: u32,
        make: impl FnOnce(&[Parcel]) -> Result<LabelIndex, Failure>,
    ) -> Result<Arc<LabelIndex>, Failure> {
        let cell = self.labels.lock().unwrap_or_else(PoisonError::into_inner).entry(epsg).or_default().clone();
        cell.get_or_init(|| make(&self.parcels).map(Arc::new)).clone()
    }

    /// Notes what became of a chip.
    pub fn note(&self, chip: u32, outcome: ChipOutcome) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((chip, outcome));
    }

    /// Gives one share back; the last one gets the whole task, unless a chip vanished.
    pub fn give_back(fan: Arc<Self>) -> Option<Done> {
        let fan = Arc::into_inner(fan)?;
        let mut outcomes = fan.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        if outcomes.len() != fan.expected {
            // The job is dropped here, and its ticket settles as lost.
            tracing::error!(task = %fan.job.key, "{} of {} chips vanished", fan.expected - outcomes.len(), fan.expected);
            return None;
        }
        outcomes.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.season().cmp(y.season())));
        Some(Done { job: fan.job, outcomes, skipped: None })
    }
}

impl Job {
    /// What the events of a stage carry: which task, which worker, which stage.
    pub fn span(&self, stage: &'static str) -> Span {
        tracing::error_span!(parent: None, "task", task_id = self.task.task_id, worker = %self.worker, stage)
    }

    /// Settles a task of which nothing is wanted any more: it has a result and no manifest, so that it can be
    /// done after all when targets are raised.
    pub fn unwanted(self, worker: &str) {
        let mut result = TaskResult::empty(&self.task, worker, Status::SkippedQuota);
        result.elapsed_ms = self.started.elapsed().as_millis() as u64;
        self.ticket.settle(Outcome::Unwanted(Box::new(result)));
    }

    /// Settles with a failure of a stage before there were chips.
    pub fn fail(self, worker: &str, failure: Failure, status: Status) {
        let outcome = match failure.severity {
            crate::domain::failure::Severity::Fatal => Outcome::Fatal(failure),
            _ => {
                let mut result = TaskResult::empty(&self.task, worker, status);
                result.error = Some(failure.to_string());
                result.elapsed_ms = self.started.elapsed().as_millis() as u64;
                Outcome::Failed(Box::new(result))
            }
        };
        self.ticket.settle(outcome);
    }
}
