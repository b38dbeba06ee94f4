//! One member of a Kafka group: a thread that polls, delivers, commits settled offsets, and leaves.
//!
//! Contract: the thread never waits for a task: when there is no room the partitions are paused and polling goes on,
//! so the broker never evicts the member for being slow. At most one message is taken from the library per turn, and
//! only while there is room for it.
//! Commits name their offsets: once a second while any moves, when a partition is lost, and at the end.
//! Trap: the library's own automatic commit keeps silent when an offset is below the last one committed, as it is after
//! a topic was deleted and made again; so it is off.
//! Trap: dropping a consumer blocks until it has left its group. That happens here, on this thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;

use super::kafka_config::{KafkaConfig, Role, refused};
use super::kafka_flow::Flow;
use super::kafka_link::{EVERY, KafkaContext, Link, offsets};
use super::membership::Membership;
use super::{BrokerError, Delivery, GroupSpec, Headers, TopicPartition};
use crate::domain::failure::Severity;

/// Longest wait for a message or a settlement before looking around.
const TURN: Duration = Duration::from_millis(100);
/// Time between two commits.
const COMMIT: Duration = Duration::from_secs(1);
/// Time between two probes of a cluster that does not answer, and how long one may take.
const PROBE: Duration = Duration::from_millis(500);

/// Starts a member's thread.
///
/// # Errors
/// Unusable properties.
pub(super) fn start(
    config: &KafkaConfig,
    spec: GroupSpec,
    membership: Arc<Membership>,
    to: mpsc::Sender<Delivery>,
) -> Result<(), BrokerError> {
    let link = Link::new(&config.bootstrap_servers, config.connect_timeout);
    let context = KafkaContext::new(link.clone(), Some(membership.clone()));
    let client = config.client(Role::Member(&spec));
    let consumer: BaseConsumer<KafkaContext> = client.create_with_context(context).map_err(|e| refused(&e))?;
    let topics: Vec<&str> = spec.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|e| link.error("subscribing", &spec.topics.join(","), &e))?;
    let name = format!("kafka-{}", spec.member_id);
    let engine = Engine {
        consumer,
        membership: membership.clone(),
        spec,
        to: Some(to),
        flow: Flow::default(),
        link,
        topics: HashMap::new(),
        unsaved: false,
        committed: Instant::now(),
        probed: Instant::now(),
        said: None,
    };
    let ended = Ended(membership);
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        let failed = engine.run().err();
        ended.0.end(failed);
    });
    spawned.map(drop).map_err(|e| BrokerError::Refused {
        what: "starting the Kafka poll thread".into(),
        why: e.to_string(),
        severity: Severity::Fatal,
    })
}

/// Ends the membership even when the thread panics: nobody may wait for a dead one.
struct Ended(Arc<Membership>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

struct Engine {
    consumer: BaseConsumer<KafkaContext>,
    membership: Arc<Membership>,
    spec: GroupSpec,
    /// None once the member takes nothing more.
    to: Option<mpsc::Sender<Delivery>>,
    flow: Flow,
    link: Arc<Link>,
    topics: HashMap<String, Arc<str>>,
    /// A commit point moved since the last commit.
    unsaved: bool,
    committed: Instant,
    probed: Instant,
    said: Option<Instant>,
}

impl Engine {
    fn run(mut self) -> Result<(), BrokerError> {
        let outcome = self.serve();
        self.to = None;
        if let Err(error) = &outcome {
            tracing::error!(%error, group = self.spec.group, "this member leaves its group");
        }
        self.last_commit();
        let Self { consumer, .. } = self;
        drop(consumer);
        outcome
    }

    fn serve(&mut self) -> Result<(), BrokerError> {
        while !self.membership.is_leaving() {
            if self.membership.is_stopped() {
                self.to = None;
            }
            self.commit_settled();
            let room = self.steer()?;
            self.turn(room)?;
            self.look_after_the_link()?;
        }
        Ok(())
    }

    /// Pauses and resumes. The answer is how many deliveries there is room for.
    fn steer(&mut self) -> Result<usize, BrokerError> {
        let room = self.to.as_ref().map_or(0, |to| self.membership.room().min(to.capacity()));
        for tp in self.consumer.context().take_moved() {
            self.flow.forget(&tp);
        }
        let change = self.flow.change(&self.membership.assigned(), self.spec.focus, room);
        let refused = |e: KafkaError| self.link.error("pausing or resuming partitions", "", &e);
        if !change.pause.is_empty() {
            self.consumer.pause(&list(&change.pause)).map_err(refused)?;
        }
        if !change.resume.is_empty() {
            self.consumer.resume(&list(&change.resume)).map_err(refused)?;
        }
        Ok(room)
    }

    /// One message or event, or a short wait for one.
    fn turn(&mut self, room: usize) -> Result<(), BrokerError> {
        // Without room everything is paused: nothing to poll for but rebalances, and a settlement should not wait.
        let patience = if room > 0 { TURN } else { Duration::ZERO };
        let event = self.consumer.poll(patience).map(|event| event.map(|m| self.receive(&m)));
        match event {
            Some(Ok(Some((tp, received)))) => {
                self.link.up();
                self.deliver(&tp, received);
                Ok(())
            }
            Some(Ok(None)) => Ok(()),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.link.up();
                self.at_end(partition);
                Ok(())
            }
            Some(Err(error)) => self.judge(&error),
            None if room == 0 => {
                self.membership.wait(TURN);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Copies a message out of the library, unless it is too large for that or not wanted any more.
    fn receive(&self, message: &BorrowedMessage<'_>) -> Option<(TopicPartition, Received)> {
        // Stopped between steering and here: not begun, so never committed, so delivered to somebody else.
        if self.membership.is_stopped() {
            return None;
        }
        let topic = self.topics.get(message.topic()).cloned().unwrap_or_else(|| Arc::from(message.topic()));
        let size = message.payload_len();
        let oversize = (size > self.spec.payload_cap).then_some(size);
        let received = Received {
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: if oversize.is_none() { copy(message.payload()) } else { Bytes::new() },
            headers: if oversize.is_none() { headers(message) } else { Headers::new() },
            oversize,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        };
        Some(((topic, message.partition()), received))
    }

    fn deliver(&mut self, tp: &TopicPartition, received: Received) {
        if !self.topics.contains_key(&*tp.0) {
            self.topics.insert(tp.0.to_string(), tp.0.clone());
        }
        self.flow.more(tp);
        let Some(to) = &self.to else { return };
        let Some((id, cancel)) = self.membership.begin(tp, received.offset) else { return };
        let Received { key, payload, headers, oversize, timestamp_ms, .. } = received;
        let delivery = Delivery { id, key, payload, oversize, headers, timestamp_ms, cancel };
        // There is room: this thread is the only sender and has looked. So the receiver is gone, and wants no more.
        if to.try_send(delivery).is_err() {
            self.to = None;
        }
    }

    /// Notes the end of a partition. The library does not say of which topic, so with several it is asked.
    fn at_end(&mut self, partition: i32) {
        let assigned = self.membership.assigned();
        let mut candidates: Vec<TopicPartition> =
            assigned.into_iter().filter(|tp| tp.1 == partition && !self.flow.is_paused(tp)).collect();
        if candidates.len() > 1 {
            let Ok(positions) = self.consumer.position() else { return };
            candidates.retain(|(topic, partition)| {
                let at = positions.find_partition(topic, *partition).and_then(|e| e.offset().to_raw());
                let ends = self.consumer.fetch_watermarks(topic, *partition, PROBE);
                ends.is_ok_and(|(low, high)| high == low || at.is_some_and(|at| at >= high))
            });
        }
        for tp in candidates {
            self.flow.ended(tp);
        }
    }

    fn judge(&mut self, error: &KafkaError) -> Result<(), BrokerError> {
        let topics = self.spec.topics.join(",");
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                if self.said.is_none_or(|at| at.elapsed() >= EVERY) {
                    self.said = Some(Instant::now());
                    tracing::warn!(
                        topics,
                        "a topic does not exist yet: waiting for it (`node topics create` makes it)"
                    );
                }
                Ok(())
            }
            Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::Fatal)) => {
                Err(self.link.code("consuming", &topics, code))
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                Err(self.link.error("consuming", &topics, error))
            }
            // The rest reached the link through the client's context already, and the library goes on by itself.
            _ => Ok(()),
        }
    }

    fn look_after_the_link(&mut self) -> Result<(), BrokerError> {
        if self.link.is_down() && self.probed.elapsed() >= PROBE {
            let topic = self.spec.topics.first().map(String::as_str);
            match self.consumer.fetch_metadata(topic, PROBE) {
                Ok(_) => self.link.up(),
                Err(_) => self.link.down(""),
            }
            self.probed = Instant::now();
        }
        self.membership.show_down(self.link.down_since());
        self.link.verdict()
    }

    fn commit_settled(&mut self) {
        let again = self.consumer.context().commit_again.swap(false, Ordering::SeqCst);
        self.unsaved |= again || !self.membership.take_commits().is_empty();
        if !self.unsaved || self.committed.elapsed() < COMMIT || self.link.is_down() {
            return;
        }
        self.committed = Instant::now();
        self.unsaved = false;
        let marks = offsets(self.membership.marks());
        if marks.count() > 0
            && let Err(error) = self.consumer.commit(&marks, CommitMode::Async)
        {
            tracing::debug!(%error, "offsets were not committed: trying again");
            self.unsaved = true;
        }
    }

    fn last_commit(&self) {
        let marks = offsets(self.membership.marks());
        if marks.count() == 0 || self.link.is_down() {
            return;
        }
        if let Err(error) = self.consumer.commit(&marks, CommitMode::Sync) {
            tracing::warn!(%error, "the last offsets were not committed: their tasks come again");
        }
    }
}

/// A message, out of the library's hands.
struct Received {
    offset: i64,
    key: Option<Bytes>,
    payload: Bytes,
    headers: Headers,
    oversize: Option<usize>,
    timestamp_ms: i64,
}

fn copy(bytes: Option<&[u8]>) -> Bytes {
    bytes.map(Bytes::copy_from_slice).unwrap_or_default()
}

/// The headers of a message; a header without a value has an empty one.
pub(super) fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    all.map(|h| (h.key.to_owned(), copy(h.value))).collect()
}

fn list(tps: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(tps.len());
    for (topic, partition) in tps {
        list.add_partition(topic, *partition);
    }
    list
}
