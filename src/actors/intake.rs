//! First stage: from a broker's message to a task, or to the dead-letter topic.
//!
//! Contract: a message that is no task is poison and never reaches a later stage; a task whose manifest
//! exists already is settled from it at once, after completing its publication if need be; a task whose
//! classes all have enough chips ends here without a staging place; a task whose
//! earlier attempts all died without a word (each left its staging place) is given up after
//! `worker.max_attempts`, so that one that kills its workers does not kill them all.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::lane::{Credited, Lane};
use super::messages::{Job, SampleParcels, TaskArrived};
use super::quotas::Quotas;
use super::retry::{GiveUp, RetryPolicy};
use super::ticket::{Outcome, Settled, Ticket};
use super::writer::{persist, store_failure};
use crate::adapters::dataset::{Attempt, DatasetStore};
use crate::adapters::failpoint::reach;
use crate::domain::failure::Failure;
use crate::domain::manifest::Manifest;
use crate::domain::quota::leaves_nothing;
use crate::domain::result::Status;
use crate::domain::task::{MAX_TASK_BYTES, Task, TaskError};

/// What the intake needs.
#[derive(Clone)]
pub struct Intake {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// Seed of tasks that carry none.
    pub seed: u64,
    /// The dataset, to find finished tasks.
    pub store: Arc<dyn DatasetStore>,
    /// Attempts that may die before the task is given up.
    pub max_attempts: u32,
    /// Retries of the store.
    pub retry: RetryPolicy,
    /// Fires when the node drains: tasks not begun are given up.
    pub drain: CancellationToken,
    /// Which classes have enough chips.
    pub quotas: Quotas,
    /// Who settles.
    pub settler: actix::Recipient<Settled>,
    /// Next stage.
    pub sampler: Lane<SampleParcels>,
}

impl Actor for Intake {
    type Context = Context<Self>;
}

impl Handler<Credited<TaskArrived>> for Intake {
    type Result = ();

    fn handle(&mut self, arrived: Credited<TaskArrived>, _: &mut Self::Context) {
        let this = self.clone();
        // What the message is about is not known yet.
        arrived.work(Span::none(), |message| this.take(message));
    }
}

/// What is found of a task when it arrives.
enum Begun {
    /// It was finished before.
    Before(Box<Manifest>),
    /// All its classes have enough chips.
    Unwanted,
    /// It begins now.
    Now(Attempt),
}

impl Intake {
    async fn take(self, arrived: TaskArrived) {
        let (cancel, oversize) = (arrived.delivery.cancel.clone(), arrived.delivery.oversize);
        let ticket = Ticket::new(arrived.delivery, self.settler.clone());
        if self.drain.is_cancelled() || cancel.is_cancelled() {
            return ticket.settle(Outcome::Abandoned);
        }
        reach("intake.before");
        let parsed = match oversize {
            Some(bytes) if bytes > MAX_TASK_BYTES => Err(TaskError::TooLarge(bytes)),
            _ => Task::parse(&ticket.delivery().payload),
        };
        let task = match parsed {
            Ok(task) => task,
            Err(error) => return ticket.settle(Outcome::Poison(error.to_string())),
        };
        let key = task.key();
        let seed = task.seed.unwrap_or(self.seed);
        let (worker, started, left_out) = (self.worker.clone(), Instant::now(), Vec::new());
        let job = Job { key, seed, worker, ticket, cancel, started, left_out, task };
        let span = job.span("intake");
        self.start(job).instrument(span).await;
    }

    async fn start(self, mut job: Job) {
        match persist(self.retry, &job.cancel, || self.begin(&job)).await {
            Ok(Begun::Now(attempt)) if attempt.earlier >= self.max_attempts => {
                let (store, key, earlier) = (self.store.clone(), job.key.clone(), attempt.earlier);
                // A panic there leaves leftovers, which `verify` finds.
                let _ = tokio::task::spawn_blocking(move || store.clear(&key)).await;
                let why =
                    format!("given up: {earlier} attempts died without a word, as if this task killed its worker");
                job.fail(&self.worker, Failure::permanent("intake", why), Status::Failed);
            }
            Ok(Begun::Now(attempt)) => {
                if attempt.earlier > 0 {
                    tracing::info!(earlier = attempt.earlier, "earlier attempts at this task ended without a word");
                }
                tracing::debug!(attempt = attempt.id, message = %job.ticket.delivery().id, "begun");
                job.ticket.stage(attempt);
                reach("intake.after");
                self.sampler.send(SampleParcels { job }).await;
            }
            Ok(Begun::Before(manifest)) => {
                tracing::debug!("finished before, by {}", manifest.result.worker_id);
                job.ticket.settle(Outcome::Finished(Box::new(manifest.result)));
            }
            Ok(Begun::Unwanted) => job.unwanted(&self.worker),
            Err(GiveUp::Cancelled) => job.ticket.settle(Outcome::Abandoned),
            Err(GiveUp::Failed(failure)) => job.fail(&self.worker, failure, Status::Failed),
        }
    }

    /// The task's manifest if it is finished, else a staging place; binds the directory to the task's run.
    async fn begin(&self, job: &Job) -> Result<Begun, Failure> {
        let (store, key) = (self.store.clone(), job.key.clone());
        let run = job.task.run_id.clone().unwrap_or_else(|| "external".to_owned());
        let unwanted = leaves_nothing(&job.task, &self.quotas.filled(&job.task));
        let span = Span::current();
        let look = move || {
            let _in = span.entered();
            store.bind(&run)?;
            match store.finished(&key)? {
                Some(manifest) => Ok(Begun::Before(Box::new(manifest))),
                None if unwanted => Ok(Begun::Unwanted),
                None => store.begin(&key).map(Begun::Now),
            }
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(found) => found.map_err(|e| store_failure("intake", &e)),
            Err(_) => Err(Failure::fatal("intake", "looking for the task's manifest panicked")),
        }
    }
}
