//! The master's last stage: the plan's tasks onto the task topic, in order.
//!
//! Contract: each task goes to the partition the plan gave it, in the plan's order within the partition;
//! tasks the topic holds already are left out, so a master that crashed midway completes its plan. Many
//! tasks are on their way at once, [`IN_FLIGHT`] at most; every one is acknowledged before the reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use actix::{Actor, Context, Handler};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::lane::Credited;
use super::planner::PublishPlan;
use crate::adapters::broker::{Broker, BrokerError, Record};
use crate::domain::plan::PlannedTask;

/// Tasks sent and not acknowledged.
pub const IN_FLIGHT: usize = 512;

/// What the publisher needs.
#[derive(Clone)]
pub struct Publisher {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Topic of tasks.
    pub topic: Arc<str>,
    /// Tasks acknowledged so far, for the progress bar.
    pub published: Arc<AtomicU64>,
}

impl Actor for Publisher {
    type Context = Context<Self>;
}

impl Handler<Credited<PublishPlan>> for Publisher {
    type Result = ();

    fn handle(&mut self, asked: Credited<PublishPlan>, _: &mut Self::Context) {
        let this = self.clone();
        actix::spawn(async move {
            let PublishPlan { plan, already, reply } = asked.message;
            let missing: Vec<&PlannedTask> = plan.tasks.iter().filter(|t| !already.contains(&t.task.task_id)).collect();
            let sent = this.publish(&missing).await.map(|()| missing.len() as u64);
            // Nobody listens when the master was stopped meanwhile.
            let _ = reply.send(sent);
        });
    }
}

impl Publisher {
    async fn publish(&self, tasks: &[&PlannedTask]) -> Result<(), BrokerError> {
        stream::iter(tasks)
            .map(|planned| async move {
                let payload = serde_json::to_vec(&planned.task).unwrap_or_default();
                let key = format!("task_{}", planned.task.task_id);
                let record = Record::keyed(&*self.topic, key, payload).to_partition(planned.partition);
                self.broker.publish(record).await?;
                self.published.fetch_add(1, Relaxed);
                Ok(())
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
    }
}
