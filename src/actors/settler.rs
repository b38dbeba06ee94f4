//! The end of every task: result and dead letter to the broker, then the offset.
//!
//! Contract: the result is acknowledged by the broker before the delivery is settled, so a crash between
//! the two publishes the same result again and loses none. `Fatal` and `Lost` settle nothing and stop the
//! node. Trap: publishing waits as long as the broker is away; that is the back-pressure wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use metrics::{counter, histogram};
use tracing::{Instrument as _, Span};

use super::ticket::{Outcome, Settled};
use crate::adapters::broker::{Broker, BrokerError, Delivery, GroupHandle, Record};
use crate::adapters::dataset::DatasetStore;
use crate::adapters::failpoint::reach;
use crate::domain::result::TaskResult;

/// Why the node must stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReason(pub String);

/// What the settler needs.
#[derive(Clone)]
pub struct Settler {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The membership whose deliveries are settled.
    pub group: GroupHandle,
    /// The dataset, to clear the staging places of attempts that came to nothing.
    pub store: Arc<dyn DatasetStore>,
    /// Topic of results.
    pub results_topic: Arc<str>,
    /// Topic of dead letters.
    pub dlq_topic: Arc<str>,
    /// Told when the node must stop.
    pub stop: tokio::sync::mpsc::UnboundedSender<StopReason>,
    /// Counters.
    pub counts: Arc<Counts>,
}

/// How tasks ended on this node.
#[derive(Debug, Default)]
pub struct Counts {
    /// With a result that is no failure.
    pub finished: AtomicU64,
    /// With a failure, or as poison.
    pub failed: AtomicU64,
    /// Given up for others to do.
    pub abandoned: AtomicU64,
    /// Ended by what stops the node (fatal, lost); their offsets stay.
    pub halted: AtomicU64,
    /// Chips in the results of this node.
    pub chips: AtomicU64,
    /// Settled messages whose publication is under way.
    pub settling: AtomicU64,
}

impl Actor for Settler {
    type Context = Context<Self>;
}

impl Handler<Settled> for Settler {
    type Result = ();

    fn handle(&mut self, settled: Settled, _: &mut Self::Context) {
        let (this, span) = (self.clone(), self.span(&settled.outcome));
        this.counts.settling.fetch_add(1, Relaxed);
        let work = async move {
            this.settle(settled).await;
            this.counts.settling.fetch_sub(1, Relaxed);
        };
        actix::spawn(work.instrument(span));
    }
}

impl Settler {
    /// What the events of this stage carry; a message that is no task has no number.
    fn span(&self, outcome: &Outcome) -> Span {
        let task_id = match outcome {
            Outcome::Finished(result) | Outcome::Unwanted(result) | Outcome::Failed(result) => Some(result.task_id),
            _ => None,
        };
        tracing::error_span!(parent: None, "task", task_id, worker = %self.worker, stage = "settler")
    }

    async fn settle(&self, settled: Settled) {
        let Settled { delivery, outcome, attempt } = settled;
        // A finished task's staging place is gone; a lost one's stays, so that the next attempt knows of it.
        if let Some(attempt) = attempt
            && !matches!(outcome, Outcome::Finished(_) | Outcome::Lost)
        {
            let store = self.store.clone();
            // A panic there leaves a leftover, which `verify` finds.
            let _ = tokio::task::spawn_blocking(move || store.abandon(&attempt)).await;
        }
        reach("settle.before");
        let done = match outcome {
            Outcome::Finished(result) | Outcome::Unwanted(result) => {
                self.counts.finished.fetch_add(1, Relaxed);
                self.counts.chips.fetch_add(result.chips_saved, Relaxed);
                tell(&result);
                self.publish(&result).await
            }
            Outcome::Failed(result) => {
                self.counts.failed.fetch_add(1, Relaxed);
                tell(&result);
                let reason = result.error.clone().unwrap_or_default();
                match self.bury(&delivery, &reason).await {
                    Ok(()) => self.publish(&result).await,
                    failed => failed,
                }
            }
            Outcome::Poison(reason) => {
                counter!("satellite_tasks_total", "status" => "poison").increment(1);
                self.counts.failed.fetch_add(1, Relaxed);
                tracing::warn!(message = %delivery.id, "not a task, moved to {}: {reason}", self.dlq_topic);
                self.bury(&delivery, &reason).await
            }
            Outcome::Abandoned => {
                counter!("satellite_tasks_total", "status" => "abandoned").increment(1);
                self.counts.abandoned.fetch_add(1, Relaxed);
                return;
            }
            Outcome::Fatal(failure) => {
                self.counts.halted.fetch_add(1, Relaxed);
                return self.halt(failure.to_string());
            }
            Outcome::Lost => {
                self.counts.halted.fetch_add(1, Relaxed);
                return self.halt(format!("task {} was lost inside the node (see the log)", delivery.id));
            }
        };
        match done {
            Ok(()) => {
                reach("settle.published");
                self.group.settle(&delivery.id);
            }
            // The result may or may not have been taken: leaving the offset makes somebody say it again.
            Err(error) => self.halt(format!("the result of {} could not be published: {error}", delivery.id)),
        }
    }

    fn halt(&self, why: String) {
        tracing::error!("stopping: {why}");
        // Err: the node is stopping already.
        let _ = self.stop.send(StopReason(why));
    }

    async fn publish(&self, result: &TaskResult) -> Result<(), BrokerError> {
        let payload = serde_json::to_vec(result).unwrap_or_default();
        let record = Record::keyed(&*self.results_topic, format!("task_{}", result.task_id), payload);
        self.broker.publish(record).await.map(|_| ())
    }

    /// The raw message to the dead-letter topic, with the reason in its headers.
    async fn bury(&self, delivery: &Delivery, reason: &str) -> Result<(), BrokerError> {
        let mut record = Record {
            topic: self.dlq_topic.to_string(),
            key: delivery.key.clone(),
            payload: delivery.payload.clone(),
            headers: delivery.headers.clone(),
            partition: None,
        };
        let position = [
            ("dlq.reason", reason.to_owned()),
            ("dlq.topic", delivery.id.topic.to_string()),
            ("dlq.partition", delivery.id.partition.to_string()),
            ("dlq.offset", delivery.id.offset.to_string()),
        ];
        for (name, value) in position {
            record = record.with_header(name, Bytes::from(value));
        }
        if let Some(bytes) = delivery.oversize {
            record = record.with_header("dlq.oversize", Bytes::from(bytes.to_string()));
        }
        self.broker.publish(record).await.map(|_| ())
    }
}

/// Into the log, and into the counters.
fn tell(result: &TaskResult) {
    let (status, chips) = (result.status.as_str(), result.chips_saved);
    match &result.error {
        Some(error) => tracing::warn!(status, "{error}"),
        None => tracing::info!(status, chips, elapsed_ms = result.elapsed_ms, "task done"),
    }
    counter!("satellite_tasks_total", "status" => status).increment(1);
    histogram!("satellite_task_seconds", "status" => status).record(result.elapsed_ms as f64 / 1000.0);
    for (class, n) in &result.chips_per_class {
        counter!("satellite_chips_total", "class" => class.to_string()).increment(*n);
    }
    for (reason, n) in &result.chips_rejected {
        counter!("satellite_chips_rejected_total", "reason" => reason.clone()).increment(*n);
    }
}
