//! Reads Kafka topics from their beginning, outside any group: what a monitor or a restarted master needs.
//!
//! Contract: every message that is kept, ascending within a partition; `CaughtUp` once, when what was there at the
//! start has been given; then the live tail until the receiver is dropped. A topic that does not exist counts as
//! empty, and is read from its beginning once it appears, as are partitions added later.
//! Trap: the thread waits while the channel is full, so what the library fetches ahead is capped in its configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::kafka_config::{KafkaConfig, Role, refused};
use super::kafka_link::{KafkaContext, Link};
use super::kafka_member::headers;
use super::{BrokerError, ReadEvent, ReadRecord, TopicPartition};
use crate::domain::failure::Severity;

/// Events the receiver may be behind by.
const READ_AHEAD: usize = 256;
const TURN: Duration = Duration::from_millis(100);
/// Time between two looks for new topics and partitions; shorter while the first has not succeeded.
const REFRESH: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
const ASK: Duration = Duration::from_secs(2);

/// Starts a reader's thread.
///
/// # Errors
/// Unusable properties.
pub(super) fn start(config: &KafkaConfig, topics: &[&str]) -> Result<mpsc::Receiver<ReadEvent>, BrokerError> {
    let link = Link::new(&config.bootstrap_servers, config.connect_timeout);
    let context = KafkaContext::new(link.clone(), None);
    let consumer = config.client(Role::Reader).create_with_context(context).map_err(|e| refused(&e))?;
    let (to, events) = mpsc::channel(READ_AHEAD);
    let topics = topics.iter().map(|t| Arc::from(*t)).collect();
    let reader =
        Reader { consumer, link, topics, to, ahead: BTreeMap::new(), known: BTreeMap::new(), caught_up: false };
    let spawned = std::thread::Builder::new().name("kafka-reader".into()).spawn(move || reader.run());
    spawned.map(|_detached| events).map_err(|e| BrokerError::Refused {
        what: "starting the Kafka reader thread".into(),
        why: e.to_string(),
        severity: Severity::Fatal,
    })
}

struct Reader {
    consumer: BaseConsumer<KafkaContext>,
    link: Arc<Link>,
    topics: Vec<Arc<str>>,
    to: mpsc::Sender<ReadEvent>,
    /// Where partitions not yet caught up with ended at the start.
    ahead: BTreeMap<TopicPartition, i64>,
    /// How many partitions of each topic are read.
    known: BTreeMap<Arc<str>, i32>,
    caught_up: bool,
}

impl Reader {
    fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, topics = self.topics.join(","), "reading ends");
            // Nobody may be there to hear it.
            let _unheard = self.to.blocking_send(ReadEvent::Failed(error));
        }
    }

    fn serve(&mut self) -> Result<(), BrokerError> {
        let mut looked: Option<Instant> = None;
        let mut started = false;
        while !self.to.is_closed() {
            let pause = if started && !self.link.is_doubtful() { REFRESH } else { RETRY };
            if looked.is_none_or(|at| at.elapsed() >= pause) {
                match self.refresh(!started) {
                    Ok(()) => {
                        started = true;
                        self.link.up();
                    }
                    Err(error) => self.link.down(&error.to_string()),
                }
                looked = Some(Instant::now());
            }
            if started && !self.caught_up && self.ahead.is_empty() {
                self.caught_up = true;
                if self.to.blocking_send(ReadEvent::CaughtUp).is_err() {
                    return Ok(());
                }
            }
            self.turn()?;
            self.link.verdict()?;
        }
        Ok(())
    }

    /// Takes up topics and partitions that are not read yet, from their beginning.
    fn refresh(&mut self, first: bool) -> KafkaResult<()> {
        for topic in self.topics.clone() {
            let metadata = self.consumer.fetch_metadata(Some(&topic), ASK)?;
            let n = metadata.topics().iter().find(|t| t.name() == &*topic).map_or(0, |t| t.partitions().len()) as i32;
            let from = self.known.get(&topic).copied().unwrap_or(0);
            if n == 0 && from > 0 {
                // Deleted. When it comes back it is another topic, with its own beginning.
                let gone = partitions(&topic, 0..from, Offset::Invalid)?;
                self.consumer.incremental_unassign(&gone)?;
                self.known.remove(&topic);
                self.ahead.retain(|tp, _| tp.0 != topic);
            } else if n > from {
                if first {
                    self.look_ahead(&topic, from..n)?;
                }
                self.consumer.incremental_assign(&partitions(&topic, from..n, Offset::Beginning)?)?;
                self.known.insert(topic, n);
            }
        }
        Ok(())
    }

    fn look_ahead(&mut self, topic: &Arc<str>, range: std::ops::Range<i32>) -> KafkaResult<()> {
        for partition in range {
            let (low, high) = self.consumer.fetch_watermarks(topic, partition, ASK)?;
            if high > low {
                self.ahead.insert((topic.clone(), partition), high);
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), BrokerError> {
        let event = self.consumer.poll(TURN).map(|event| event.map(|m| self.record(&m)));
        match event {
            Some(Ok(record)) => {
                self.link.up();
                let tp = (record.topic.clone(), record.partition);
                if self.ahead.get(&tp).is_some_and(|end| record.offset + 1 >= *end) {
                    self.ahead.remove(&tp);
                }
                // The receiver is gone: the loop will see that.
                let _gone = self.to.blocking_send(ReadEvent::Record(record));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.link.up();
                self.at_end(partition);
            }
            // The link knows of all other errors, and the library goes on by itself.
            Some(Err(error)) => {
                if let Some(code @ (Code::TopicAuthorizationFailed | Code::Fatal)) = error.rdkafka_error_code() {
                    return Err(self.link.code("reading", &self.topics.join(","), code));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// A partition is at its end, so it is caught up with, even when its last offsets hold no message. The library does
    /// not say of which topic: with several, the position decides.
    fn at_end(&mut self, partition: i32) {
        let one = self.topics.len() == 1;
        let positions = self.consumer.position();
        self.ahead.retain(|(topic, p), end| {
            let at = positions.as_ref().ok().and_then(|all| all.find_partition(topic, *p)?.offset().to_raw());
            *p != partition || !(one || at.is_some_and(|at| at >= *end))
        });
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> ReadRecord {
        let topic = self.topics.iter().find(|t| ***t == *message.topic()).cloned();
        ReadRecord {
            topic: topic.unwrap_or_else(|| Arc::from(message.topic())),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
            headers: headers(message),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        }
    }
}

fn partitions(topic: &str, range: std::ops::Range<i32>, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in range {
        list.add_partition_offset(topic, partition, offset)?;
    }
    Ok(list)
}
