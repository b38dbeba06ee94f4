//! The broker that is a Kafka cluster (or Redpanda).
//!
//! Contract: publishing is idempotent and acknowledged by every in-sync copy; retries are the client library's alone.
//! Blocking calls of the library run off the reactor. Each member and each reader has its own client and thread.
//! Trap: the clients start talking when they are made; [`KafkaBroker::connect`] waits until the cluster answered once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use tokio::sync::mpsc;

use super::kafka_admin::{self as admin, Asker, off_reactor};
use super::kafka_config::{KafkaConfig, Role, refused};
use super::kafka_link::{KafkaContext, Link};
use super::membership::Membership;
use super::{
    Broker, BrokerError, Delivery, GroupHandle, GroupMember, GroupSpec, PartitionLag, Position, ReadEvent, Record,
    TopicInfo, TopicOutcome, TopicSpec, kafka_member, kafka_reader,
};

/// A Kafka cluster. Clones share its clients.
#[derive(Clone)]
pub struct KafkaBroker {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    producer: FutureProducer<KafkaContext>,
    producing: Arc<Link>,
    admin: AdminClient<KafkaContext>,
    asker: Asker,
    /// One client for each group that was asked about.
    inspectors: Mutex<HashMap<String, Arc<BaseConsumer<KafkaContext>>>>,
}

impl Drop for Shared {
    /// Closing a consumer blocks for a moment, and the last handle may be dropped on a reactor.
    fn drop(&mut self) {
        let inspectors = std::mem::take(self.inspectors.get_mut().unwrap_or_else(PoisonError::into_inner));
        // When no thread can be had they are dropped here.
        let _spawned = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(inspectors));
    }
}

impl KafkaBroker {
    /// Connects, and keeps trying for the configured time while nobody answers.
    ///
    /// # Errors
    /// A property that is reserved or unknown; [`BrokerError::Unreachable`]; [`BrokerError::Denied`].
    pub async fn connect(config: KafkaConfig) -> Result<Self, BrokerError> {
        config.check()?;
        let link = |()| Link::new(&config.bootstrap_servers, config.connect_timeout);
        let (producing, asking) = (link(()), link(()));
        let context = |link: &Arc<Link>| KafkaContext::new(link.clone(), None);
        let producer = config.client(Role::Producer).create_with_context(context(&producing));
        let producer = producer.map_err(|e| refused(&e))?;
        let admin = config.client(Role::Admin).create_with_context(context(&asking)).map_err(|e| refused(&e))?;
        let client = config.client(Role::Admin).create_with_context(context(&asking)).map_err(|e| refused(&e))?;
        let asker = Asker { client: Arc::new(client), link: asking, timeout: config.connect_timeout };
        let waiting = asker.clone();
        off_reactor(move || waiting.await_cluster()).await?;
        let inspectors = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { config, producer, producing, admin, asker, inspectors }) })
    }

    fn inspector(&self, group: &str) -> Result<Arc<BaseConsumer<KafkaContext>>, BrokerError> {
        let shared = &self.shared;
        let mut inspectors = shared.inspectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = inspectors.get(group) {
            return Ok(client.clone());
        }
        let context = KafkaContext::new(shared.asker.link.clone(), None);
        let client = shared.config.client(Role::Inspector(group)).create_with_context(context);
        let client: Arc<BaseConsumer<KafkaContext>> = Arc::new(client.map_err(|e| refused(&e))?);
        inspectors.insert(group.to_owned(), client.clone());
        Ok(client)
    }

    async fn send(&self, record: &Record) -> Result<Position, KafkaError> {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }));
        let mut out = FutureRecord::<[u8], [u8]>::to(&record.topic).payload(&record.payload).headers(headers);
        out.key = record.key.as_deref();
        out.partition = record.partition;
        let sent = self.shared.producer.send(out, Timeout::Never).await;
        let at = sent.map_err(|(error, _message)| error)?;
        self.shared.producing.up();
        Ok(Position { partition: at.partition, offset: at.offset })
    }

    async fn look_again(&self, topic: &str) {
        let (producer, topic, timeout) = (self.shared.producer.clone(), topic.to_owned(), self.shared.asker.timeout);
        let asked = off_reactor(move || Ok(producer.client().fetch_metadata(Some(&topic), timeout).is_ok())).await;
        tracing::debug!(?asked, "asked for a topic's partitions anew");
    }

    fn not_published(&self, record: &Record, error: &KafkaError) -> BrokerError {
        match (error.rdkafka_error_code(), record.partition) {
            (Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize), _) => {
                let limit = self.shared.config.properties.get("message.max.bytes");
                let limit = limit.and_then(|l| l.parse().ok()).unwrap_or(1_000_000);
                BrokerError::TooLarge { topic: record.topic.clone(), bytes: record.size(), limit }
            }
            (Some(Code::UnknownPartition), Some(partition)) => {
                BrokerError::UnknownPartition { topic: record.topic.clone(), partition }
            }
            (Some(Code::UnknownPartition), None) => BrokerError::UnknownTopic { topic: record.topic.clone() },
            _ => self.shared.producing.error(&format!("publishing to `{}`", record.topic), &record.topic, error),
        }
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>, BrokerError> {
        let outcomes = admin::create(&self.shared.admin, &self.shared.asker, specs).await?;
        let goals = specs.iter().zip(&outcomes).map(|(spec, (name, outcome))| match outcome {
            TopicOutcome::Existed { partitions } => (name.clone(), *partitions),
            TopicOutcome::Created | TopicOutcome::Grown { .. } => (name.clone(), spec.partitions),
        });
        let goals: Vec<(String, i32)> = goals.filter(|(_, goal)| *goal > 0).collect();
        let asker = self.shared.asker.clone();
        off_reactor(move || asker.await_topics(&goals)).await?;
        Ok(outcomes)
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicInfo>, BrokerError> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let asker = self.shared.asker.clone();
        off_reactor(move || names.iter().filter_map(|n| asker.describe_one(n, true).transpose()).collect()).await
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, bool)>, BrokerError> {
        let gone = admin::delete(&self.shared.admin, &self.shared.asker, names).await?;
        let goals: Vec<(String, i32)> = gone.iter().map(|(name, _)| (name.clone(), 0)).collect();
        let asker = self.shared.asker.clone();
        off_reactor(move || asker.await_topics(&goals)).await?;
        let was_there = |name: &&str| gone.iter().any(|(n, there)| n == name && *there);
        Ok(names.iter().map(|name| ((*name).to_owned(), was_there(name))).collect())
    }

    async fn list_topics(&self) -> Result<Vec<String>, BrokerError> {
        let asker = self.shared.asker.clone();
        off_reactor(move || asker.list()).await
    }

    async fn publish(&self, record: Record) -> Result<Position, BrokerError> {
        let mut sent = self.send(&record).await;
        if matches!(&sent, Err(e) if e.rdkafka_error_code() == Some(Code::UnknownPartition)) {
            // The producer remembers how many partitions there were; the topic may have grown since.
            self.look_again(&record.topic).await;
            sent = self.send(&record).await;
        }
        sent.map_err(|error| self.not_published(&record, &error))
    }

    async fn flush(&self, timeout: Duration) -> Result<(), BrokerError> {
        let producer = self.shared.producer.clone();
        let late = BrokerError::Timeout { what: "publishing what is queued".into(), seconds: timeout.as_secs() };
        off_reactor(move || producer.flush(timeout).map_err(|_| late)).await
    }

    async fn join(&self, spec: GroupSpec) -> Result<(GroupHandle, mpsc::Receiver<Delivery>), BrokerError> {
        let membership = Membership::new(spec.max_in_flight);
        let (to, deliveries) = mpsc::channel(spec.max_in_flight.max(1));
        let handle = GroupHandle::new(Arc::new(self.clone()), membership.clone(), &spec);
        kafka_member::start(&self.shared.config, spec, membership, to)?;
        Ok((handle, deliveries))
    }

    async fn read(&self, topics: &[&str]) -> Result<mpsc::Receiver<ReadEvent>, BrokerError> {
        kafka_reader::start(&self.shared.config, topics)
    }

    async fn group_lag(&self, group: &str, topics: &[&str]) -> Result<Vec<PartitionLag>, BrokerError> {
        let client = self.inspector(group)?;
        let topics: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
        let asker = self.shared.asker.clone();
        off_reactor(move || asker.lag(&client, &topics)).await
    }

    async fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError> {
        let (asker, group) = (self.shared.asker.clone(), group.to_owned());
        off_reactor(move || asker.members(&group)).await
    }
}
