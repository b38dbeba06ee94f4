//! One member of a Kafka group: a thread that polls, delivers, commits settled offsets, and leaves.
//!
//! Contract: the thread never waits for a task. Each partition has a queue of its own in the library; messages stay
//! there until there is room, while the queue of events is polled whatever happens, so the broker never evicts the
//! member for being slow. What is fetched ahead is one small fetch for each partition held.
//! Commits name their offsets: once a second while any moves, when a partition is lost, and at the end.
//! Trap: the library's own automatic commit keeps silent when an offset is below the last one committed, as it is after
//! a topic was deleted and made again; so it is off.
//! Trap: a commit that the group refuses, as it does during a rebalance, is only logged by the library: it calls nobody
//! back. So commit points are said again after every rebalance, and every few seconds in any case.
//! Trap: dropping a consumer blocks until it has left its group. That happens here, on this thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use tokio::sync::mpsc;

use super::kafka_config::{KafkaConfig, Role, refused};
use super::kafka_flow::Flow;
use super::kafka_link::{EVERY, KafkaContext, Link, offsets};
use super::membership::Membership;
use super::{BrokerError, Delivery, GroupSpec, Headers, TopicPartition};
use crate::domain::failure::Severity;

/// Longest wait for an event, a message or a settlement before looking around.
const TURN: Duration = Duration::from_millis(100);
/// Most events served between two looks at everything else.
const EVENTS: usize = 64;
/// Time between two commits.
const COMMIT: Duration = Duration::from_secs(1);
/// Time after which the commit points are said again although none moved.
const COMMIT_ANEW: Duration = Duration::from_secs(5);
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
    let mut consumer: BaseConsumer<KafkaContext> = client.create_with_context(context).map_err(|e| refused(&e))?;
    let wake = membership.clone();
    consumer.set_nonempty_callback(move || wake.poke());
    let topics: Vec<&str> = spec.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|e| link.error("subscribing", &spec.topics.join(","), &e))?;
    let name = format!("kafka-{}", spec.member_id);
    let engine = Engine {
        queues: BTreeMap::new(),
        early: VecDeque::new(),
        consumer: Arc::new(consumer),
        membership: membership.clone(),
        spec,
        to: Some(to),
        flow: Flow::default(),
        link,
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
    /// The queue of each partition held. (Above the consumer: they must be dropped before it.)
    queues: BTreeMap<TopicPartition, PartitionQueue<KafkaContext>>,
    /// Messages that came before their partition had its queue; at most one fetch.
    early: VecDeque<(TopicPartition, Received)>,
    consumer: Arc<BaseConsumer<KafkaContext>>,
    membership: Arc<Membership>,
    spec: GroupSpec,
    /// None once the member takes nothing more.
    to: Option<mpsc::Sender<Delivery>>,
    flow: Flow,
    link: Arc<Link>,
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
        outcome
    }

    fn serve(&mut self) -> Result<(), BrokerError> {
        while !self.membership.is_leaving() {
            if self.membership.is_stopped() {
                self.to = None;
            }
            self.commit_settled();
            self.serve_events()?;
            self.follow_assignment();
            if self.take()? == 0 {
                self.membership.wait(TURN);
            }
            self.look_after_the_link()?;
        }
        Ok(())
    }

    /// Rebalances, errors, and messages that came before their partition had its queue.
    fn serve_events(&mut self) -> Result<(), BrokerError> {
        for _ in 0..EVENTS {
            let event = self.consumer.poll(Duration::ZERO).map(|event| event.map(|m| self.receive(&m)));
            match event {
                Some(Ok(message)) => self.early.push_back(message),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.judge(&error)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Gives every partition that came to us its queue.
    fn follow_assignment(&mut self) {
        for tp in self.consumer.context().take_moved() {
            self.queues.remove(&tp);
            self.flow.forget(&tp);
            self.early.retain(|(of, _)| *of != tp);
        }
        for tp in self.membership.assigned() {
            if !self.queues.contains_key(&tp)
                && let Some(mut queue) = self.consumer.split_partition_queue(&tp.0, tp.1)
            {
                let wake = self.membership.clone();
                queue.set_nonempty_callback(move || wake.poke());
                self.queues.insert(tp, queue);
            }
        }
    }

    /// Delivers while there is room and something to deliver. The answer is how many were.
    fn take(&mut self) -> Result<usize, BrokerError> {
        let mut taken = 0;
        while let Some(to) = &self.to
            && self.membership.room().min(to.capacity()) > 0
        {
            let Some((tp, received)) = self.next()? else { break };
            self.link.up();
            self.deliver(&tp, received);
            taken += 1;
        }
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(TopicPartition, Received)>, BrokerError> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        let held: Vec<TopicPartition> = self.queues.keys().cloned().collect();
        // Each pass that gives nothing ends at least one partition or is the last.
        for _ in 0..=held.len() {
            let mut ended = false;
            for tp in self.flow.order(&held, self.spec.focus) {
                let Some(queue) = self.queues.get(tp) else { continue };
                match queue.poll(Duration::ZERO).map(|event| event.map(|m| self.receive(&m))) {
                    Some(Ok((_, received))) => return Ok(Some((tp.clone(), received))),
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        self.link.up();
                        self.flow.ended(tp);
                        ended = true;
                    }
                    Some(Err(error)) => self.judge(&error)?,
                    None => {}
                }
            }
            if !ended {
                break;
            }
        }
        Ok(None)
    }

    /// Copies a message out of the library, unless it is too large for that.
    fn receive(&self, message: &BorrowedMessage<'_>) -> (TopicPartition, Received) {
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
        ((Arc::from(message.topic()), message.partition()), received)
    }

    fn deliver(&mut self, tp: &TopicPartition, received: Received) {
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
        if self.link.is_doubtful() && self.probed.elapsed() >= PROBE {
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
        let due = if self.unsaved { COMMIT } else { COMMIT_ANEW };
        if self.committed.elapsed() < due || self.link.is_down() {
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
