//! The member's side of a group: what is asked for, and the handle that settles, stops and leaves.
//!
//! Contract: `settle` is cheap and never blocks; a settlement of a partition that was lost meanwhile is ignored.
//! Order of a clean end: [`GroupHandle::stop`], finish and settle what is in flight, [`GroupHandle::close`].
//! Trap: dropping the last clone of the handle leaves the group too, without waiting for the final commit.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::membership::Membership;
use super::{Broker, BrokerError, DeliveryId, PartitionLag, TopicPartition};
use crate::domain::task::MAX_TASK_BYTES;

/// How to join a group.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Most deliveries that may be unsettled at once, at least 1. When so many are, partitions are paused.
    pub max_in_flight: usize,
    /// Name of this member; becomes its client id.
    pub member_id: String,
    /// `Some(k)`: only the k lowest-numbered assigned partitions that are not at their end are read at a time, because
    /// a partition is a contiguous territory. `None`: all are.
    pub focus: Option<usize>,
    /// Larger payloads are delivered empty, with their size, bytes.
    pub payload_cap: usize,
}

impl GroupSpec {
    /// One topic, no focus, and the cap of a task message.
    pub fn new(
        group: impl Into<String>,
        topic: impl Into<String>,
        member_id: impl Into<String>,
        max_in_flight: usize,
    ) -> Self {
        Self {
            group: group.into(),
            topics: vec![topic.into()],
            max_in_flight: max_in_flight.max(1),
            member_id: member_id.into(),
            focus: None,
            payload_cap: MAX_TASK_BYTES,
        }
    }

    /// The same with a focus on `k` partitions at a time (at least 1).
    #[must_use]
    pub fn focused(mut self, k: usize) -> Self {
        self.focus = Some(k.max(1));
        self
    }
}

/// How a membership stands.
#[derive(Debug, Clone, Default)]
pub struct GroupStatus {
    /// The member's partitions, ascending.
    pub assigned: Vec<TopicPartition>,
    /// Since when no broker answers; `None`: one does.
    pub down_since: Option<SystemTime>,
    /// Why the membership ended by itself; `None`: it did not.
    pub failed: Option<BrokerError>,
    /// The member has left the group (closed or failed); nothing will change any more.
    pub left: bool,
}

/// A member of a group. Clones are the same member.
#[derive(Clone)]
pub struct GroupHandle {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Arc<dyn Broker>,
    membership: Arc<Membership>,
    group: String,
    topics: Vec<String>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.membership.leave();
    }
}

impl std::fmt::Debug for GroupHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupHandle")
            .field("group", &self.inner.group)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl GroupHandle {
    pub(super) fn new(broker: Arc<dyn Broker>, membership: Arc<Membership>, spec: &GroupSpec) -> Self {
        let inner = Inner { broker, membership, group: spec.group.clone(), topics: spec.topics.clone() };
        Self { inner: Arc::new(inner) }
    }

    /// The task is done for good: its offset may be committed. False when the delivery is not current (already
    /// settled, or its partition was lost); that is no error.
    pub fn settle(&self, id: &DeliveryId) -> bool {
        self.inner.membership.settle(id)
    }

    /// Whether this delivery is unsettled and its partition still ours.
    pub fn is_current(&self, id: &DeliveryId) -> bool {
        self.inner.membership.is_current(id)
    }

    /// Unsettled deliveries of the partitions that are ours.
    pub fn in_flight(&self) -> usize {
        self.inner.membership.in_flight()
    }

    /// No new deliveries from here on. The member stays in its group, so what is in flight can still be settled.
    pub fn stop(&self) {
        self.inner.membership.stop();
    }

    /// Commits what is settled, leaves the group, and returns when that is done. Unsettled deliveries go to others.
    pub async fn close(&self) {
        self.inner.membership.leave();
        let mut status = self.status();
        // An error means the engine is gone, and the membership with it.
        let _gone = status.wait_for(|s| s.left).await;
    }

    /// Watches the membership: assignment, outage, end.
    pub fn status(&self) -> watch::Receiver<GroupStatus> {
        self.inner.membership.status()
    }

    /// How far the whole group is in the topics of this membership.
    ///
    /// # Errors
    /// As [`Broker::group_lag`].
    pub async fn lag(&self) -> Result<Vec<PartitionLag>, BrokerError> {
        let topics: Vec<&str> = self.inner.topics.iter().map(String::as_str).collect();
        self.inner.broker.group_lag(&self.inner.group, &topics).await
    }
}
