//! Topics and groups of a Kafka cluster: made, described, deleted, and how far each group is.
//!
//! Contract: a call that changes topics returns when the change can be seen, so the next call may rely on it. The
//! functions here block (the client library does) except those that are `async`: run them off the reactor.
//! Trap: the library names a missing topic by an error inside a successful answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::kafka_link::{KafkaContext, Link};
use super::{BrokerError, GroupMember, PartitionInfo, PartitionLag, TopicInfo, TopicOutcome, TopicSpec};
use crate::domain::failure::Severity;

/// Time between two looks whether a change can be seen.
const LOOK: Duration = Duration::from_millis(50);

/// A client that asks, and how long it may take.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Arc<BaseConsumer<KafkaContext>>,
    pub(super) link: Arc<Link>,
    pub(super) timeout: Duration,
}

fn options(timeout: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout.min(Duration::from_secs(30))))
}

/// Creates or grows topics. The answer is in the order of the specs; nothing has been waited for.
pub(super) async fn create(
    admin: &AdminClient<KafkaContext>,
    asker: &Asker,
    specs: &[TopicSpec],
) -> Result<Vec<(String, TopicOutcome)>, BrokerError> {
    let new = specs.iter().map(|s| {
        let topic = NewTopic::new(&s.name, s.partitions, TopicReplication::Fixed(s.replication));
        if s.compacted {
            topic.set("cleanup.policy", "compact")
        } else {
            // A run takes days and its results are its history: the broker's default of a week would forget them.
            topic.set("retention.ms", "-1").set("retention.bytes", "-1")
        }
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let what = "creating topics";
    let answers = admin.create_topics(&new, &options(asker.timeout)).await;
    let answers = answers.map_err(|e| asker.link.error(what, "", &e))?;
    let mut outcomes = Vec::with_capacity(specs.len());
    for spec in specs {
        let answer = answers.iter().find(|a| matches!(a, Ok(name) | Err((name, _)) if *name == spec.name));
        let outcome = match answer {
            Some(Ok(_)) => TopicOutcome::Created,
            Some(Err((_, Code::TopicAlreadyExists))) => grow(admin, asker, spec).await?,
            Some(Err((name, code))) => return Err(asker.link.code(&format!("creating topic `{name}`"), name, *code)),
            None => return Err(silent(format!("creating topic `{}`", spec.name))),
        };
        outcomes.push((spec.name.clone(), outcome));
    }
    Ok(outcomes)
}

async fn grow(admin: &AdminClient<KafkaContext>, asker: &Asker, spec: &TopicSpec) -> Result<TopicOutcome, BrokerError> {
    let from = {
        let (asker, name) = (asker.clone(), spec.name.clone());
        off_reactor(move || asker.partitions(&name)).await?.unwrap_or(0)
    };
    if !spec.grow || from >= spec.partitions {
        return Ok(TopicOutcome::Existed { partitions: from });
    }
    let what = format!("growing topic `{}` from {from} to {} partitions", spec.name, spec.partitions);
    let new = NewPartitions::new(&spec.name, spec.partitions as usize);
    let answers = admin.create_partitions(&[new], &options(asker.timeout)).await;
    match answers.map_err(|e| asker.link.error(&what, &spec.name, &e))?.pop() {
        Some(Ok(_)) => Ok(TopicOutcome::Grown { from }),
        Some(Err((name, code))) => Err(asker.link.code(&what, &name, code)),
        None => Err(silent(what)),
    }
}

/// Deletes topics. Nothing has been waited for.
pub(super) async fn delete(
    admin: &AdminClient<KafkaContext>,
    asker: &Asker,
    names: &[&str],
) -> Result<Vec<(String, bool)>, BrokerError> {
    let answers = admin.delete_topics(names, &options(asker.timeout)).await;
    let answers = answers.map_err(|e| asker.link.error("deleting topics", "", &e))?;
    let mut gone = Vec::with_capacity(names.len());
    for answer in answers {
        gone.push(match answer {
            Ok(name) => (name, true),
            Err((name, Code::UnknownTopicOrPartition | Code::UnknownTopic)) => (name, false),
            Err((name, code)) => return Err(asker.link.code(&format!("deleting topic `{name}`"), &name, code)),
        });
    }
    Ok(gone)
}

fn silent(what: String) -> BrokerError {
    BrokerError::Refused { what, why: "the broker did not answer for it".into(), severity: Severity::Fatal }
}

/// Runs a blocking call of the client library where it may block.
pub(super) async fn off_reactor<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let what = "a request to the broker";
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|_died| Err(BrokerError::Closed { what: what.into() }))
}

impl Asker {
    /// Waits until the cluster answers.
    pub(super) fn await_cluster(&self) -> Result<(), BrokerError> {
        loop {
            // Nothing is published or consumed through this client: polling it serves its callbacks.
            let _events = self.client.poll(Duration::ZERO);
            match self.client.fetch_metadata(None, self.timeout.min(Duration::from_secs(1))) {
                Ok(_) => {
                    self.link.up();
                    return Ok(());
                }
                Err(_) => self.link.down(""),
            }
            self.link.verdict()?;
        }
    }

    /// How many partitions a topic has; `None`: it does not exist.
    fn partitions(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        Ok(self.describe_one(topic, false)?.map(|t| t.partitions.len() as i32))
    }

    /// Waits until each topic has so many partitions with a leader, or is gone (0).
    pub(super) fn await_topics(&self, goals: &[(String, i32)]) -> Result<(), BrokerError> {
        let until = Instant::now() + self.timeout;
        for (topic, goal) in goals {
            loop {
                // With their offsets: a leader that is named may not lead yet.
                let ready = match self.describe_one(topic, *goal > 0)? {
                    None => *goal == 0,
                    Some(info) => {
                        let led = info.partitions.iter().filter(|p| p.leader.is_some()).count();
                        *goal > 0 && led >= *goal as usize
                    }
                };
                if ready {
                    break;
                }
                if Instant::now() >= until {
                    let what = format!("the change of topic `{topic}` to {goal} partitions");
                    return Err(BrokerError::Timeout { what, seconds: self.timeout.as_secs() });
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// One topic as it is; its offsets only when asked for (a request for each partition).
    pub(super) fn describe_one(&self, topic: &str, offsets: bool) -> Result<Option<TopicInfo>, BrokerError> {
        let _events = self.client.poll(Duration::ZERO);
        let what = format!("describing topic `{topic}`");
        let metadata = self.ask(&what, topic, |timeout| self.client.fetch_metadata(Some(topic), timeout))?;
        self.link.up();
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
            Some(Code::LeaderNotAvailable) | None => {}
            Some(code) => return Err(self.link.code(&what, topic, code)),
        }
        let mut partitions = Vec::with_capacity(found.partitions().len());
        for p in found.partitions() {
            let (low, high) = if offsets { self.watermarks(topic, p.id())? } else { (0, 0) };
            let leader = (p.leader() >= 0 && !is_leaderless(p.error())).then_some(p.leader());
            let (replicas, in_sync) = (p.replicas().len(), p.isr().len());
            partitions.push(PartitionInfo { partition: p.id(), low, high, leader, replicas, in_sync });
        }
        partitions.sort_by_key(|p| p.partition);
        Ok(Some(TopicInfo { name: topic.to_owned(), partitions }))
    }

    /// Oldest and next offset.
    fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), BrokerError> {
        let what = format!("asking for the offsets of `{topic}` [{partition}]");
        self.ask(&what, topic, |timeout| self.client.fetch_watermarks(topic, partition, timeout))
    }

    /// Asks, and asks again while partitions move to another broker or one is lost: the library gives such answers as
    /// they are. `call` takes the time that is left.
    fn ask<T>(
        &self,
        what: &str,
        topic: &str,
        mut call: impl FnMut(Duration) -> KafkaResult<T>,
    ) -> Result<T, BrokerError> {
        let until = Instant::now() + self.timeout;
        loop {
            match call(until.saturating_duration_since(Instant::now()).max(LOOK)) {
                Ok(answer) => return Ok(answer),
                Err(e) if e.rdkafka_error_code().is_some_and(is_moving) && Instant::now() < until => {
                    self.link.verdict()?;
                    std::thread::sleep(LOOK);
                }
                Err(e) => return Err(self.link.error(what, topic, &e)),
            }
        }
    }

    /// All topics but the cluster's own.
    pub(super) fn list(&self) -> Result<Vec<String>, BrokerError> {
        let metadata = self.ask("listing topics", "", |timeout| self.client.fetch_metadata(None, timeout))?;
        let names = metadata.topics().iter().map(|t| t.name().to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("__")).collect();
        names.sort();
        Ok(names)
    }

    /// How far a group is. `group` is a client that carries the group's id and never joins it.
    pub(super) fn lag(
        &self,
        group: &BaseConsumer<KafkaContext>,
        topics: &[String],
    ) -> Result<Vec<PartitionLag>, BrokerError> {
        let _events = group.poll(Duration::ZERO);
        let mut infos = Vec::new();
        for topic in topics {
            infos.extend(self.describe_one(topic, true)?);
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        let mut list = TopicPartitionList::new();
        for info in &infos {
            list.add_partition_range(&info.name, 0, info.partitions.len() as i32 - 1);
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let what = "asking for committed offsets";
        let committed = self.ask(what, &topics.join(","), |timeout| group.committed_offsets(list.clone(), timeout))?;
        let mut lags = Vec::new();
        for info in infos {
            for p in info.partitions {
                let at = committed.find_partition(&info.name, p.partition).and_then(|e| e.offset().to_raw());
                lags.push(PartitionLag {
                    topic: info.name.clone(),
                    partition: p.partition,
                    // Negative numbers stand for "none".
                    committed: at.filter(|at| *at >= 0),
                    low: p.low,
                    high: p.high,
                });
            }
        }
        Ok(lags)
    }

    /// The members of a group.
    pub(super) fn members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError> {
        let what = format!("describing group `{group}`");
        let list = self.ask(&what, "", |timeout| self.client.fetch_group_list(Some(group), timeout))?;
        let found = list.groups().iter().find(|g| g.name() == group);
        let mut members: Vec<GroupMember> = found.into_iter().flat_map(|g| g.members()).map(member).collect();
        members.sort_by(|a, b| (&a.client, &a.member).cmp(&(&b.client, &b.member)));
        Ok(members)
    }
}

fn is_moving(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::BrokerTransportFailure
            | Code::BrokerDestroy
            | Code::DestroyBroker
    )
}

fn is_leaderless(error: Option<RDKafkaRespErr>) -> bool {
    error.map(Code::from) == Some(Code::LeaderNotAvailable)
}

fn member(m: &GroupMemberInfo) -> GroupMember {
    let mut assignment = m.assignment().and_then(parse_assignment).unwrap_or_default();
    assignment.sort();
    GroupMember {
        member: m.id().to_owned(),
        client: m.client_id().to_owned(),
        host: m.client_host().trim_start_matches('/').to_owned(),
        assignment,
    }
}

/// Reads the consumer protocol's assignment: version i16, then an array of (topic string, array of partition i32), big
/// endian (<https://kafka.apache.org/protocol.html>, ConsumerProtocolAssignment). `None` when it is anything else.
fn parse_assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(n)?;
        *bytes = rest;
        Some(head)
    }
    fn int(bytes: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    let mut rest = bytes;
    let _version = take(&mut rest, 2)?;
    let mut assignment = Vec::new();
    for _ in 0..int(&mut rest)? {
        let length = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let topic = std::str::from_utf8(take(&mut rest, length.into())?).ok()?;
        for _ in 0..int(&mut rest)? {
            assignment.push((topic.to_owned(), int(&mut rest)?));
        }
    }
    Some(assignment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_assignment_and_survives_a_cut_one() {
        let mut raw = vec![0, 1, 0, 0, 0, 1, 0, 2, b't', b'x', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(parse_assignment(&raw).unwrap(), [("tx".to_owned(), 0), ("tx".to_owned(), 7)]);
        for cut in 0..raw.len() {
            assert_eq!(parse_assignment(&raw[..cut]), None);
        }
        raw[10..14].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(parse_assignment(&raw), None);
    }
}
