//! The master's middle stage: counts what the scan brings, and lays out the tasks when it ends.
//!
//! Contract: parcels come in batches over a bounded lane, so the scan cannot run ahead of the counting;
//! memory grows with the cells, not with the parcels. The plan does not depend on the order of the rows.

use std::collections::HashSet;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::sync::oneshot;

use super::lane::Credited;
use crate::domain::parcel::ScannedParcel;
use crate::domain::plan::{Plan, PlanError};
use crate::domain::planner::Planner;

/// Parcels in one message.
pub const BATCH: usize = 8192;

/// Some rows of the layer.
pub struct ParcelsScanned {
    /// At most [`BATCH`].
    pub rows: Vec<ScannedParcel>,
}

/// The scan has ended: lay out the tasks.
pub struct ScanEnded {
    /// Told the plan.
    pub reply: oneshot::Sender<Result<Plan, PlanError>>,
}

/// See the head of this file.
pub struct Planning {
    planner: Option<Planner>,
}

impl Planning {
    /// A stage that starts with an empty plan.
    pub fn new(planner: Planner) -> Self {
        Self { planner: Some(planner) }
    }
}

impl Actor for Planning {
    type Context = Context<Self>;
}

impl Handler<Credited<ParcelsScanned>> for Planning {
    type Result = ();

    fn handle(&mut self, batch: Credited<ParcelsScanned>, _: &mut Self::Context) {
        if let Some(planner) = &mut self.planner {
            batch.message.rows.iter().for_each(|row| planner.add(row));
        }
    }
}

impl Handler<Credited<ScanEnded>> for Planning {
    type Result = ();

    fn handle(&mut self, end: Credited<ScanEnded>, _: &mut Self::Context) {
        if let Some(planner) = self.planner.take() {
            // Nobody listens when the master was stopped meanwhile.
            let _ = end.message.reply.send(planner.finish());
        }
    }
}

/// Publish a plan's tasks. To the publisher.
pub struct PublishPlan {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Tasks of this run that the topic holds already.
    pub already: HashSet<u64>,
    /// Told how many were published now.
    pub reply: oneshot::Sender<Result<u64, crate::adapters::broker::BrokerError>>,
}
