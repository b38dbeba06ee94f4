//! The monitor's stage: counts results, tasks and plans, and answers what can be shown.
//!
//! Contract: each task is counted once, whatever is delivered how often; messages that are no results, tasks or plans
//! are counted as such and otherwise ignored.

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::lane::Credited;
use crate::domain::heartbeat;
use crate::domain::plan_record::PlanRecord;
use crate::domain::result::TaskResult;
use crate::domain::tally::Tally;
use crate::domain::task::Task;
use crate::domain::view::View;

/// A message of the results topic.
pub struct ResultArrived {
    /// Its payload.
    pub payload: Bytes,
    /// When it was published, milliseconds since 1970 UTC.
    pub seen_ms: u64,
}

/// A message of the tasks topic.
pub struct TaskSeen {
    /// Its payload.
    pub payload: Bytes,
}

/// A plan of the control topic.
pub struct PlanArrived {
    /// Its payload.
    pub payload: Bytes,
}

/// A message of the status topic.
pub struct BeatArrived {
    /// Its payload.
    pub payload: Bytes,
    /// When it was published, milliseconds since 1970 UTC; 0: nobody knows.
    pub seen_ms: u64,
}

/// What can be shown now?
pub struct AskView {
    /// Now, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// Told the answer.
    pub reply: oneshot::Sender<View>,
}

/// See the head of this file.
pub struct Tallier {
    tally: Tally,
    last: Option<View>,
    unreadable: u64,
}

impl Tallier {
    /// A stage that has counted nothing; `run`: count this run only.
    pub fn new(run: Option<&str>) -> Self {
        Self { tally: Tally::new(run), last: None, unreadable: 0 }
    }

    fn unreadable(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.unreadable += 1;
        if self.unreadable.is_power_of_two() {
            tracing::warn!(count = self.unreadable, "a {what} cannot be read and is not counted: {error}");
        }
    }
}

impl Actor for Tallier {
    type Context = Context<Self>;
}

impl Handler<Credited<ResultArrived>> for Tallier {
    type Result = ();

    fn handle(&mut self, arrived: Credited<ResultArrived>, _: &mut Self::Context) {
        match serde_json::from_slice::<TaskResult>(&arrived.message.payload) {
            Ok(result) => {
                self.tally.apply(&result, arrived.message.seen_ms);
            }
            Err(error) => self.unreadable("result", &error),
        }
    }
}

impl Handler<Credited<TaskSeen>> for Tallier {
    type Result = ();

    fn handle(&mut self, seen: Credited<TaskSeen>, _: &mut Self::Context) {
        match Task::parse(&seen.message.payload) {
            Ok(task) => self.tally.task(&task),
            Err(error) => self.unreadable("task", &error),
        }
    }
}

impl Handler<Credited<PlanArrived>> for Tallier {
    type Result = ();

    fn handle(&mut self, arrived: Credited<PlanArrived>, _: &mut Self::Context) {
        match PlanRecord::parse(&arrived.message.payload) {
            Ok(plan) => self.tally.plan(plan),
            Err(error) => self.unreadable("plan", &error),
        }
    }
}

impl Handler<Credited<BeatArrived>> for Tallier {
    type Result = ();

    fn handle(&mut self, arrived: Credited<BeatArrived>, _: &mut Self::Context) {
        let BeatArrived { payload, seen_ms } = arrived.message;
        if payload.len() > heartbeat::MAX_BYTES {
            return self.unreadable("heartbeat", &format!("{} bytes are too many", payload.len()));
        }
        match serde_json::from_slice(&payload) {
            Ok(beat) => self.tally.hear(beat, seen_ms),
            Err(error) => self.unreadable("heartbeat", &error),
        }
    }
}

impl Handler<Credited<AskView>> for Tallier {
    type Result = ();

    fn handle(&mut self, asked: Credited<AskView>, _: &mut Self::Context) {
        let view = View::of(&self.tally, asked.message.now_ms, self.last.as_ref());
        self.last = Some(view.clone());
        // Nobody listens when the monitor was stopped meanwhile.
        let _ = asked.message.reply.send(view);
    }
}
