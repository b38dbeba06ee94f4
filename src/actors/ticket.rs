//! The obligation to settle one delivered task.
//!
//! Contract: every ticket settles exactly once: by [`Ticket::settle`], or as [`Outcome::Lost`] when it
//! is dropped, which is what a panic or a stopped actor comes to. Settling never blocks: it is a message
//! to the settler, and there are never more of those than tickets. Trap: a ticket inside an `Arc` is
//! dropped with the last clone, on whatever thread that happens.

use std::sync::Arc;

use actix::{Message, Recipient};

use crate::adapters::broker::Delivery;
use crate::adapters::dataset::Attempt;
use crate::domain::failure::Failure;
use crate::domain::result::TaskResult;

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The task has its result: publish it, then the offset is done.
    Finished(Box<TaskResult>),
    /// Every class of the task has enough chips: publish the result, then the offset is done. Nothing is committed.
    Unwanted(Box<TaskResult>),
    /// The task failed for good: dead letter and result, then the offset is done.
    Failed(Box<TaskResult>),
    /// The message is no task: dead letter, then the offset is done.
    Poison(String),
    /// Given up on purpose (partition lost, node drains): somebody else will do it.
    Abandoned,
    /// The node cannot work; the offset stays.
    Fatal(Failure),
    /// Nobody settled it: an actor died. The offset stays.
    Lost,
}

/// What the settler is told.
#[derive(Debug)]
pub struct Settled {
    /// The delivery, with the raw message for the dead-letter topic.
    pub delivery: Arc<Delivery>,
    /// How it ended.
    pub outcome: Outcome,
    /// The staging place of this try, if it had one.
    pub attempt: Option<Attempt>,
}

impl Message for Settled {
    type Result = ();
}

/// See the head of this file.
pub struct Ticket {
    delivery: Arc<Delivery>,
    settler: Recipient<Settled>,
    attempt: Option<Attempt>,
    open: bool,
}

impl Ticket {
    /// A ticket for a delivery.
    pub fn new(delivery: Delivery, settler: Recipient<Settled>) -> Self {
        Self { delivery: Arc::new(delivery), settler, attempt: None, open: true }
    }

    /// The delivery.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Notes the staging place of this try: whoever settles the ticket decides what becomes of it.
    pub fn stage(&mut self, attempt: Attempt) {
        self.attempt = Some(attempt);
    }

    /// The staging place of this try.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// Settles.
    pub fn settle(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    #[expect(clippy::disallowed_methods, reason = "bounded by the tickets alive, and must not wait")]
    fn tell(&mut self, outcome: Outcome) {
        self.open = false;
        let (delivery, attempt) = (self.delivery.clone(), self.attempt.take());
        self.settler.do_send(Settled { delivery, outcome, attempt });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.tell(Outcome::Lost);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("delivery", &self.delivery.id).field("open", &self.open).finish()
    }
}
