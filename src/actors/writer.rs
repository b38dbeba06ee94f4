//! Last stage of the road: files into the staging place, then the whole task into the dataset.
//!
//! Contract: a chip's credit is held until its files are on the disk, so a slow share slows the whole
//! road down; a task is committed when its last chip is decided, whichever stage that happens in, and its
//! ticket is settled only after the commit. A store that cannot write stops the node, not the task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actix::{Actor, Context, Handler};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::lane::Credited;
use super::messages::{ChipOutcome, Conclude, Done, Fan, Job, WriteChip};
use super::retry::{GiveUp, RetryPolicy, retry_whole};
use super::ticket::Outcome;
use crate::adapters::dataset::{Committed, DatasetStore, StoreError};
use crate::adapters::failpoint::reach;
use crate::adapters::spare::Lent;
use crate::domain::failure::{Failure, Severity};
use crate::domain::manifest::{ChipRecord, Manifest, Rejection, SCHEMA};
use crate::domain::result::{Status, TaskResult};

/// What the writer needs.
#[derive(Clone)]
pub struct Writer {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The dataset.
    pub store: Arc<dyn DatasetStore>,
    /// Retries of the store.
    pub retry: RetryPolicy,
}

impl Actor for Writer {
    type Context = Context<Self>;
}

impl Handler<Credited<WriteChip>> for Writer {
    type Result = ();

    fn handle(&mut self, asked: Credited<WriteChip>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.fan.job().span("writer"));
        asked.work(span, |message| this.write(message));
    }
}

impl Handler<Credited<Conclude>> for Writer {
    type Result = ();

    fn handle(&mut self, asked: Credited<Conclude>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.done.job.span("writer"));
        asked.work(span, |message| this.conclude(message.done));
    }
}

impl Writer {
    async fn write(self, asked: WriteChip) {
        let WriteChip { fan, record, chip, image, mask } = asked;
        reach("writer.before");
        let outcome = if fan.job().cancel.is_cancelled() {
            ChipOutcome::Abandoned
        } else {
            match self.stage(&fan, &record.name, Arc::new(image), Arc::new(mask)).await {
                Ok(()) => ChipOutcome::Written(Box::new(record)),
                Err(GiveUp::Cancelled) => ChipOutcome::Abandoned,
                Err(GiveUp::Failed(failure)) => ChipOutcome::Broken(failure),
            }
        };
        reach("writer.after");
        if let ChipOutcome::Written(record) = &outcome {
            tracing::debug!(chip, name = record.name, "staged");
        }
        fan.note(chip, outcome);
        if let Some(done) = Fan::give_back(fan) {
            self.conclude(done).await;
        }
    }

    /// Puts a chip's files into the task's staging place.
    async fn stage(&self, fan: &Fan, name: &str, image: Arc<Lent<u8>>, mask: Arc<Vec<u8>>) -> Result<(), GiveUp> {
        let cancel = &fan.job().cancel;
        let attempt = fan.job().ticket.attempt().ok_or_else(|| GiveUp::Failed(no_attempt()))?;
        let put = || {
            let (attempt, name) = (attempt.clone(), name.to_owned());
            let (image, mask) = (image.clone(), mask.clone());
            self.blocking(move |store| store.stage(&attempt, &name, &image, &mask))
        };
        persist(self.retry, cancel, put).await
    }

    /// Commits what there is, and settles.
    async fn conclude(self, done: Done) {
        let Done { mut job, outcomes, skipped } = done;
        let left_out = std::mem::take(&mut job.left_out);
        let outcome = match Verdict::of(outcomes, skipped) {
            Verdict::Keep(mut summary) => {
                summary.rejected.extend(left_out);
                self.commit(&job, *summary).await
            }
            Verdict::Abandoned => Outcome::Abandoned,
            Verdict::Broken(failure) if failure.severity == Severity::Fatal => Outcome::Fatal(failure),
            Verdict::Broken(failure) => match self.finished_elsewhere(&job).await {
                Some(result) => Outcome::Finished(Box::new(result)),
                None => self.failed(&job, Status::FailedDownload, failure.to_string(), None),
            },
            Verdict::Nothing(status, summary) => {
                let why = summary.why_nothing();
                self.failed(&job, status, why, Some(*summary))
            }
        };
        job.ticket.settle(outcome);
    }

    async fn commit(&self, job: &Job, summary: Summary) -> Outcome {
        let result = self.result(job, &summary);
        let Some(attempt) = job.ticket.attempt().cloned() else { return Outcome::Fatal(no_attempt()) };
        let manifest = Arc::new(Manifest {
            schema: SCHEMA,
            key: job.key.clone(),
            attempt: attempt.id.clone(),
            result: result.clone(),
            chips: summary.chips,
            rejected: summary.rejected,
        });
        reach("commit.before");
        // Not cancelled any more: from here on finishing is quicker than starting again elsewhere, and
        // the commit point fences whoever comes second.
        let commit = || {
            let (attempt, manifest) = (attempt.clone(), manifest.clone());
            self.blocking(move |store| store.commit(&attempt, &manifest))
        };
        match persist(self.retry, &CancellationToken::new(), commit).await {
            Ok(Committed::Ours) => {
                tracing::debug!(chips = result.chips_saved, "committed");
                Outcome::Finished(Box::new(result))
            }
            Ok(Committed::Theirs(theirs)) => {
                tracing::info!("{} finished this task first", theirs.result.worker_id);
                Outcome::Finished(Box::new(theirs.result))
            }
            Err(GiveUp::Cancelled) => Outcome::Abandoned,
            Err(GiveUp::Failed(f)) if f.severity == Severity::Permanent => {
                self.failed(job, Status::Failed, f.to_string(), None)
            }
            Err(GiveUp::Failed(f)) => Outcome::Fatal(f),
        }
    }

    fn result(&self, job: &Job, summary: &Summary) -> TaskResult {
        let mut result = TaskResult::empty(&job.task, &self.worker, summary.status);
        result.chips_saved = summary.chips.len() as u64;
        for chip in &summary.chips {
            *result.chips_per_class.entry(chip.class).or_default() += 1;
        }
        result.chips_rejected = summary.reasons();
        result.sampled = (summary.chips.len() + summary.rejected.len()) as u64;
        result.elapsed_ms = job.started.elapsed().as_millis() as u64;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        result.finished_ms = now.map_or(0, |d| d.as_millis() as u64);
        result
    }

    fn failed(&self, job: &Job, status: Status, error: String, summary: Option<Summary>) -> Outcome {
        let summary = summary.unwrap_or_default();
        let mut result = self.result(job, &summary);
        result.status = status;
        result.error = Some(error);
        Outcome::Failed(Box::new(result))
    }

    /// The result of another attempt that was faster, if there is one; its sweeping makes ours fail.
    async fn finished_elsewhere(&self, job: &Job) -> Option<TaskResult> {
        let key = job.key.clone();
        let found = self.blocking(move |store| store.finished(&key)).await;
        found.ok().flatten().map(|manifest| manifest.result)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn DatasetStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (store, span) = (self.store.clone(), Span::current());
        match tokio::task::spawn_blocking(move || span.in_scope(|| work(&*store))).await {
            Ok(done) => done.map_err(|e| store_failure("writer", &e)),
            Err(_) => Err(Failure::fatal("writer", "writing panicked")),
        }
    }
}

/// Tries the store again while it may come back; one that stays away concerns the node, not the task. A cancelled task waits
/// for what the store is doing: else it would be tidied up first, and written to afterwards.
///
/// # Errors
/// [`GiveUp`]; never with a transient failure.
pub async fn persist<T, W, F>(policy: RetryPolicy, cancel: &CancellationToken, work: W) -> Result<T, GiveUp>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    retry_whole(policy, cancel, work).await.map_err(|give_up| match give_up {
        GiveUp::Failed(f) if f.severity == Severity::Transient => {
            GiveUp::Failed(Failure { severity: Severity::Fatal, ..f })
        }
        other => other,
    })
}

/// The intake gives every task a staging place before it passes it on.
fn no_attempt() -> Failure {
    Failure::fatal("writer", "the task has no staging place")
}

/// What the store's error means to a stage.
pub fn store_failure(stage: &'static str, error: &StoreError) -> Failure {
    Failure { severity: error.severity(), stage, reason: error.to_string(), retry_after_s: None }
}

/// Reasons that speak of the pixels, not of a server or a setting.
const JUDGED: [&str; 4] = ["cloud", "nodata", "suspect_dn", "few_labels"];

/// A task's chips, decided.
#[derive(Debug)]
struct Summary {
    status: Status,
    chips: Vec<ChipRecord>,
    rejected: Vec<Rejection>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { status: Status::Failed, chips: Vec::new(), rejected: Vec::new() }
    }
}

impl Summary {
    fn reasons(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for rejection in &self.rejected {
            *counts.entry(rejection.reason.clone()).or_default() += 1;
        }
        counts
    }

    /// Whether pixels were seen and found wanting: then a task without a chip is done as well as it can be.
    fn judged(&self) -> bool {
        self.rejected.iter().any(|r| JUDGED.contains(&r.reason.as_str()))
    }

    fn why_nothing(&self) -> String {
        let counts: Vec<String> = self.reasons().iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let detail = self.rejected.first().map_or("", |r| r.detail.as_str());
        format!("no chip of {} parcels: {} ({detail})", self.rejected.len(), counts.join(", "))
    }
}

/// What is to be done with a task.
enum Verdict {
    Keep(Box<Summary>),
    Nothing(Status, Box<Summary>),
    Broken(Failure),
    Abandoned,
}

impl Verdict {
    fn of(outcomes: Vec<(u32, ChipOutcome)>, skipped: Option<Status>) -> Self {
        let mut summary = Summary { status: skipped.unwrap_or(Status::Success), ..Summary::default() };
        let (mut broken, mut abandoned) = (None::<Failure>, false);
        for (_, outcome) in outcomes {
            match outcome {
                ChipOutcome::Written(record) => summary.chips.push(*record),
                ChipOutcome::Rejected(rejection) => summary.rejected.push(rejection),
                ChipOutcome::Abandoned => abandoned = true,
                // The gravest failure speaks for the task.
                ChipOutcome::Broken(f) => broken = broken.filter(|b| b.severity >= f.severity).or(Some(f)),
            }
        }
        match broken {
            Some(failure) if failure.severity == Severity::Fatal || !abandoned => Self::Broken(failure),
            _ if abandoned => Self::Abandoned,
            _ if skipped.is_some() || !summary.chips.is_empty() || summary.judged() => Self::Keep(Box::new(summary)),
            _ => {
                let empty = summary.rejected.iter().all(|r| r.reason == "empty_mask");
                let status = if empty { Status::FailedEmptyMask } else { Status::FailedDownload };
                Self::Nothing(status, Box::new(summary))
            }
        }
    }
}
