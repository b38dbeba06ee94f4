//! What travels through a broker: records in, deliveries out, and the topics they live in.
//!
//! Units: offsets count messages of one partition from 0; timestamps are milliseconds since 1970 UTC.
//! Contract: payloads are `Bytes`, so handing one on does not copy it.
//! Trap: an oversize delivery has an empty payload: look at [`Delivery::oversize`] before parsing it.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// Headers of a record, in order; a name may appear more than once.
pub type Headers = Vec<(String, Bytes)>;

/// A topic and one of its partitions.
pub type TopicPartition = (Arc<str>, i32);

/// A message to publish.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Topic; it must exist.
    pub topic: String,
    /// Partition; `None`: chosen by the key, or in turn when there is none.
    pub partition: Option<i32>,
    /// Key: same key, same partition, and what a compacted topic keeps the last of.
    pub key: Option<Bytes>,
    /// The message itself.
    pub payload: Bytes,
    /// Headers.
    pub headers: Headers,
}

impl Record {
    /// A record with a key, placed by it.
    pub fn keyed(topic: impl Into<String>, key: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), key: Some(key.into()), payload: payload.into(), ..Self::default() }
    }

    /// The same record, bound to a partition.
    #[must_use]
    pub fn to_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The same record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Bytes it takes in a log: key, payload and headers.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.len() + headers
    }
}

/// Where an acknowledged record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Partition.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// Names one delivery of one message to one member: what is settled.
///
/// The epoch makes it opaque on purpose: the same message delivered again, after its partition was lost and came back,
/// has another id, so a late settlement of the first delivery is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Which assignment of the partition to this member it belongs to.
    pub(crate) epoch: u64,
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// A message, delivered to a member of a group, to be settled exactly once.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to settle.
    pub id: DeliveryId,
    /// Key.
    pub key: Option<Bytes>,
    /// The message; empty when it is oversize.
    pub payload: Bytes,
    /// The size of a message larger than [`GroupSpec::payload_cap`](super::GroupSpec::payload_cap), bytes.
    pub oversize: Option<usize>,
    /// Headers; empty when the message is oversize.
    pub headers: Headers,
    /// When it was published, milliseconds since 1970 UTC; 0 when the broker does not say.
    pub timestamp_ms: i64,
    /// Cancelled when the partition is lost: somebody else does this task now. It may be by the time the delivery is
    /// received: then there is nothing to do for it.
    pub cancel: CancellationToken,
}

/// A message seen by a reader, which belongs to no group and settles nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRecord {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// The message.
    pub payload: Bytes,
    /// Headers.
    pub headers: Headers,
    /// When it was published, milliseconds since 1970 UTC; 0 when the broker does not say.
    pub timestamp_ms: i64,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadEvent {
    /// The next message of some partition; ascending offsets within one.
    Record(ReadRecord),
    /// Everything that was there when reading began has been given. Comes once; the live tail follows.
    CaughtUp,
    /// Reading has ended for good; nothing follows.
    Failed(super::BrokerError),
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Copies of each partition; -1: the broker's default.
    pub replication: i32,
    /// Keep the last message of each key for ever, instead of every message for some time.
    pub compacted: bool,
    /// Add the missing partitions to a topic that has fewer. Keys then move: never while a plan is being published.
    pub grow: bool,
}

impl TopicSpec {
    /// A plain topic with the broker's default replication, never grown.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions, replication: -1, compacted: false, grow: false }
    }

    /// The same, compacted.
    #[must_use]
    pub fn compacted(mut self) -> Self {
        self.compacted = true;
        self
    }

    /// The same, grown when it has fewer partitions.
    #[must_use]
    pub fn growing(mut self) -> Self {
        self.grow = true;
        self
    }
}

/// What creating a topic came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It was not there.
    Created,
    /// It was there and stays as it is.
    Existed {
        /// Its partitions; may differ from what was asked for.
        partitions: i32,
    },
    /// It was there with fewer partitions and has now what was asked for.
    Grown {
        /// Partitions before.
        from: i32,
    },
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name.
    pub name: String,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Number, from 0.
    pub partition: i32,
    /// Offset of the oldest message that is kept.
    pub low: i64,
    /// Offset the next message will get.
    pub high: i64,
    /// Node id of the broker that leads it; `None`: nobody does now.
    pub leader: Option<i32>,
    /// Copies.
    pub replicas: usize,
    /// Copies that are up to date.
    pub in_sync: usize,
}

/// How far a group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset of the next message to read; `None`: the group has committed nothing here.
    pub committed: Option<i64>,
    /// Offset of the oldest message that is kept.
    pub low: i64,
    /// Offset the next message will get.
    pub high: i64,
}

impl PartitionLag {
    /// Messages the group has not settled yet. (A log with holes counts the holes: then it is an upper bound.)
    pub fn lag(&self) -> u64 {
        let at = self.committed.unwrap_or(self.low).max(self.low);
        u64::try_from(self.high - at).unwrap_or(0)
    }
}

/// A member of a group, as the broker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Id given by the broker.
    pub member: String,
    /// Client id: carries the worker's id.
    pub client: String,
    /// Host it connects from.
    pub host: String,
    /// Its partitions, ascending.
    pub assignment: Vec<(String, i32)>,
}
