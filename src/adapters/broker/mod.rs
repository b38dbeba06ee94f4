//! The task log: one trait, and its two implementations (Kafka; in process).
//!
//! Contract: what is published and acknowledged is delivered at least once to each group; a member holds at most
//! `max_in_flight` unsettled deliveries; a partition's offset is committed only up to its first unsettled delivery.
//! One contract suite (`tests/broker_contract.rs`) holds both implementations to that.
//! Trap: retries live in the client library alone. Nobody above this room retries a broker call.

mod embedded;
mod embedded_group;
mod error;
mod group;
mod kafka;
mod kafka_admin;
mod kafka_config;
mod kafka_flow;
mod kafka_link;
mod kafka_member;
mod kafka_reader;
mod log;
mod membership;
mod record;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use embedded::EmbeddedBroker;
pub use error::BrokerError;
pub use group::{GroupHandle, GroupSpec, GroupStatus};
pub use kafka::KafkaBroker;
pub use kafka_config::{KafkaConfig, RESERVED};
pub use log::EmbeddedLimits;
pub use record::{
    Delivery, DeliveryId, GroupMember, Headers, PartitionInfo, PartitionLag, Position, ReadEvent, ReadRecord, Record,
    TopicInfo, TopicOutcome, TopicPartition, TopicSpec,
};

/// A broker. Both implementations are cheap handles: keep one in an `Arc<dyn Broker>` and share it.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Creates what is missing, and returns once every topic can be written to. Answers in the order of `specs`.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal (authorisation, impossible replication).
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>, BrokerError>;

    /// The topics named that exist, in that order; those that do not are left out.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal.
    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicInfo>, BrokerError>;

    /// Deletes topics with all they hold, and returns once they are gone. The flag says whether the topic was there.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal.
    async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, bool)>, BrokerError>;

    /// Names of all topics but the broker's own, ascending.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal.
    async fn list_topics(&self) -> Result<Vec<String>, BrokerError>;

    /// Publishes a record, and returns once it is acknowledged by every in-sync copy.
    ///
    /// Many calls may be awaited at once; records of one partition keep the order in which the calls were first
    /// polled. Waits when the queue (Kafka) or the partition (in process) is full. Dropping the future does not take
    /// back a record that was queued.
    ///
    /// # Errors
    /// Unknown topic or partition, too large a record, or no acknowledgement within the configured time.
    async fn publish(&self, record: Record) -> Result<Position, BrokerError>;

    /// Waits until everything queued is acknowledged.
    ///
    /// # Errors
    /// [`BrokerError::Timeout`] when it takes longer.
    async fn flush(&self, timeout: Duration) -> Result<(), BrokerError>;

    /// Joins a group. Deliveries come through the receiver until the member is stopped, closed, or fails; the
    /// receiver then ends, and [`GroupHandle::status`] says why.
    ///
    /// # Errors
    /// Unusable configuration. An unreachable broker or a missing topic is no error: the member keeps trying and says
    /// so in its status.
    async fn join(&self, spec: GroupSpec) -> Result<(GroupHandle, mpsc::Receiver<Delivery>), BrokerError>;

    /// Reads topics from their beginning, outside any group, until the receiver is dropped. A topic or partition that
    /// appears later is read too.
    ///
    /// # Errors
    /// Unusable configuration.
    async fn read(&self, topics: &[&str]) -> Result<mpsc::Receiver<ReadEvent>, BrokerError>;

    /// How far a group is in each partition of these topics, ascending by topic and partition. Topics that do not
    /// exist are left out.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal.
    async fn group_lag(&self, group: &str, topics: &[&str]) -> Result<Vec<PartitionLag>, BrokerError>;

    /// The members of a group, ascending by client id; none when there is no such group.
    ///
    /// # Errors
    /// Unreachable broker, or a refusal.
    async fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError>;
}
