//! The broker inside one process: bounded, in memory, gone with the process.
//!
//! Contract: the same as Kafka's, as far as one process can see it; the contract suite runs on both. There is no file:
//! the durable state of a run on it is the dataset's own manifests.
//! Units: see [`EmbeddedLimits`]. Trap: publishing waits when a partition is full, so a topic must have a reader.
//! Trap: a member's pump runs on the runtime that called `join`, and ends with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::log::{EmbeddedLimits, Log, Member, Partition};
use super::membership::Membership;
use super::{
    Broker, BrokerError, Delivery, GroupHandle, GroupMember, GroupSpec, PartitionInfo, PartitionLag, Position,
    ReadEvent, ReadRecord, Record, TopicInfo, TopicOutcome, TopicPartition, TopicSpec, embedded_group as groups,
};

/// Events a reader may be behind by, before reading waits for it.
const READ_AHEAD: usize = 256;

/// A broker in this process. Clones are the same broker.
#[derive(Clone)]
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// Counts changes of the log that somebody may wait for.
    version: watch::Sender<u64>,
    limits: EmbeddedLimits,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.version.send_modify(|v| *v += 1);
    }
}

impl Default for EmbeddedBroker {
    fn default() -> Self {
        Self::new(EmbeddedLimits::default())
    }
}

impl EmbeddedBroker {
    /// An empty broker.
    pub fn new(limits: EmbeddedLimits) -> Self {
        let shared = Shared { log: Mutex::default(), version: watch::Sender::new(0), limits };
        Self { shared: Arc::new(shared) }
    }

    /// Changes topics, then gives every group its partitions anew.
    fn with_topics<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.shared.lock();
        let answer = change(&mut log);
        for group in log.groups.keys().cloned().collect::<Vec<_>>() {
            groups::rebalance(&mut log, &group);
        }
        drop(log);
        self.shared.bump();
        answer
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>, BrokerError> {
        if let Some(spec) = specs.iter().find(|s| s.name.is_empty() || s.partitions < 1) {
            return Err(BrokerError::Refused {
                what: format!("creating topic `{}` with {} partitions", spec.name, spec.partitions),
                why: "a topic has a name and at least one partition".into(),
                severity: crate::domain::failure::Severity::Fatal,
            });
        }
        Ok(self.with_topics(|log| specs.iter().map(|spec| (spec.name.clone(), create(log, spec))).collect()))
    }

    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicInfo>, BrokerError> {
        let log = self.shared.lock();
        let describe = |name: &&str| {
            let partitions = log.topics.get(*name)?.partitions.iter().enumerate();
            let partitions = partitions.map(|(i, p)| PartitionInfo {
                partition: i as i32,
                low: p.low(),
                high: p.high(),
                leader: Some(0),
                replicas: 1,
                in_sync: 1,
            });
            Some(TopicInfo { name: (*name).to_owned(), partitions: partitions.collect() })
        };
        Ok(names.iter().filter_map(describe).collect())
    }

    async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, bool)>, BrokerError> {
        Ok(self.with_topics(|log| names.iter().map(|name| ((*name).to_owned(), delete(log, name))).collect()))
    }

    async fn list_topics(&self) -> Result<Vec<String>, BrokerError> {
        Ok(self.shared.lock().topics.keys().map(|name| name.to_string()).collect())
    }

    async fn publish(&self, record: Record) -> Result<Position, BrokerError> {
        let size = record.size();
        let limit = self.shared.limits.record_bytes.min(self.shared.limits.bytes);
        if size > limit {
            return Err(BrokerError::TooLarge { topic: record.topic, bytes: size, limit });
        }
        let topic = record.topic.clone();
        let unknown = |partition: Option<i32>, known: bool| match partition {
            Some(partition) if known => BrokerError::UnknownPartition { topic: topic.clone(), partition },
            _ => BrokerError::UnknownTopic { topic: topic.clone() },
        };
        let (tp, gate) = {
            let mut log = self.shared.lock();
            let place = log.place(&record).and_then(|tp| Some((tp.clone(), log.partition(&tp)?.gate.clone())));
            let known = log.topics.contains_key(topic.as_str());
            place.ok_or_else(|| unknown(record.partition, known))?
        };
        let _in_line = gate.lock().await;
        let mut version = self.shared.version.subscribe();
        let mut record = record;
        loop {
            version.borrow_and_update();
            let appended = {
                let mut log = self.shared.lock();
                log.collect_commits();
                log.append(&tp, record, now_ms(), &self.shared.limits)
            };
            match appended {
                Ok(Some(offset)) => {
                    self.shared.bump();
                    return Ok(Position { partition: tp.1, offset });
                }
                Ok(None) => return Err(unknown(None, false)),
                Err(back) => record = back,
            }
            tracing::debug!(topic, partition = tp.1, "partition is full: publishing waits for its readers");
            // The sender lives in `self`, so this cannot fail.
            let _changed = version.changed().await;
        }
    }

    async fn flush(&self, _timeout: Duration) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn join(&self, spec: GroupSpec) -> Result<(GroupHandle, mpsc::Receiver<Delivery>), BrokerError> {
        let membership = Membership::new(spec.max_in_flight);
        let (to, deliveries) = mpsc::channel(spec.max_in_flight.max(1));
        let handle = GroupHandle::new(Arc::new(self.clone()), membership.clone(), &spec);
        let id = {
            let mut log = self.shared.lock();
            let id = log.next_id();
            let member = Member {
                name: spec.member_id.clone(),
                topics: spec.topics.clone(),
                membership: membership.clone(),
                positions: BTreeMap::new(),
            };
            log.groups.entry(spec.group.clone()).or_default().members.insert(id, member);
            groups::rebalance(&mut log, &spec.group);
            id
        };
        self.shared.bump();
        let seat = Seat { shared: self.shared.clone(), group: spec.group.clone(), id, membership };
        tokio::spawn(pump(seat, spec, to));
        Ok((handle, deliveries))
    }

    async fn read(&self, topics: &[&str]) -> Result<mpsc::Receiver<ReadEvent>, BrokerError> {
        let (to, events) = mpsc::channel(READ_AHEAD);
        let id = {
            let mut log = self.shared.lock();
            let id = log.next_id();
            log.readers.insert(id, BTreeMap::new());
            id
        };
        let topics = topics.iter().map(|t| Arc::from(*t)).collect();
        tokio::spawn(read(Reader { shared: self.shared.clone(), id }, topics, to));
        Ok(events)
    }

    async fn group_lag(&self, group: &str, topics: &[&str]) -> Result<Vec<PartitionLag>, BrokerError> {
        let mut log = self.shared.lock();
        if log.collect_commits() {
            self.shared.bump();
        }
        let committed = log.groups.get(group).map(|g| &g.committed);
        let mut lags = Vec::new();
        for (name, topic) in log.topics.iter().filter(|(name, _)| topics.contains(&&***name)) {
            lags.extend(topic.partitions.iter().enumerate().map(|(i, p)| PartitionLag {
                topic: name.to_string(),
                partition: i as i32,
                committed: committed.and_then(|c| c.get(&(name.clone(), i as i32)).copied()),
                low: p.low(),
                high: p.high(),
            }));
        }
        Ok(lags)
    }

    async fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError> {
        let log = self.shared.lock();
        let members = log.groups.get(group).into_iter().flat_map(|g| &g.members);
        let mut members: Vec<GroupMember> = members
            .map(|(id, m)| GroupMember {
                member: format!("{}-{id}", m.name),
                client: m.name.clone(),
                host: "in process".into(),
                assignment: m.positions.keys().map(|(topic, partition)| (topic.to_string(), *partition)).collect(),
            })
            .collect();
        members.sort_by(|a, b| (&a.client, &a.member).cmp(&(&b.client, &b.member)));
        Ok(members)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

fn create(log: &mut Log, spec: &TopicSpec) -> TopicOutcome {
    let n = spec.partitions as usize;
    if let Some(topic) = log.topics.get_mut(spec.name.as_str()) {
        let from = topic.partitions.len() as i32;
        if !spec.grow || topic.partitions.len() >= n {
            return TopicOutcome::Existed { partitions: from };
        }
        topic.partitions.resize_with(n, Partition::default);
        return TopicOutcome::Grown { from };
    }
    log.topics.entry(spec.name.as_str().into()).or_default().partitions.resize_with(n, Partition::default);
    TopicOutcome::Created
}

fn delete(log: &mut Log, name: &str) -> bool {
    log.collect_commits();
    let existed = log.topics.remove(name).is_some();
    for group in log.groups.values_mut() {
        for member in group.members.values_mut() {
            member.positions.retain(|tp, _| {
                let keeps = *tp.0 != *name;
                if !keeps {
                    member.membership.revoke(tp);
                }
                keeps
            });
        }
        group.committed.retain(|tp, _| *tp.0 != *name);
    }
    for positions in log.readers.values_mut() {
        positions.retain(|tp, _| *tp.0 != *name);
    }
    existed
}

/// A member's place in its group, left when the pump ends, however it ends.
struct Seat {
    shared: Arc<Shared>,
    group: String,
    id: u64,
    membership: Arc<Membership>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        groups::leave(&mut self.shared.lock(), &self.group, self.id);
        self.membership.end(None);
        self.shared.bump();
    }
}

/// Delivers to one member until it leaves.
async fn pump(seat: Seat, spec: GroupSpec, to: mpsc::Sender<Delivery>) {
    let mut version = seat.shared.version.subscribe();
    let mut to = Some(to);
    let mut turn = None;
    while !seat.membership.is_leaving() {
        version.borrow_and_update();
        let moved = {
            let mut log = seat.shared.lock();
            let moved = log.collect_commits();
            if seat.membership.is_stopped() {
                to = None;
            }
            if let Some(to) = &to {
                groups::deliver(&mut log, &spec, seat.id, &mut turn, to);
            }
            moved
        };
        if moved {
            // Publishers may be waiting for this. (It wakes us once more; that time nothing moves.)
            seat.shared.bump();
        }
        tokio::select! {
            _ = version.changed() => {}
            () = seat.membership.changed() => {}
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().readers.remove(&self.id);
        self.shared.bump();
    }
}

impl Reader {
    /// What comes next of these topics, in turn; at most a channel's worth.
    fn next(&self, topics: &[Arc<str>]) -> Vec<ReadRecord> {
        let mut log = self.shared.lock();
        let Log { topics: all, readers, .. } = &mut *log;
        let Some(positions) = readers.get_mut(&self.id) else { return Vec::new() };
        let mut batch = Vec::new();
        for name in topics {
            for (i, partition) in all.get(name).into_iter().flat_map(|t| t.partitions.iter().enumerate()) {
                let tp: TopicPartition = (name.clone(), i as i32);
                let at = positions.entry(tp).or_insert(partition.low());
                *at = (*at).max(partition.low());
                while batch.len() < READ_AHEAD
                    && let Some(entry) = partition.get(*at)
                {
                    batch.push(ReadRecord {
                        topic: name.clone(),
                        partition: i as i32,
                        offset: *at,
                        key: entry.key.clone(),
                        payload: entry.payload.clone(),
                        headers: entry.headers.clone(),
                        timestamp_ms: entry.timestamp_ms,
                    });
                    *at += 1;
                }
            }
        }
        batch
    }

    fn ends(&self, topics: &[Arc<str>]) -> BTreeMap<TopicPartition, i64> {
        let log = self.shared.lock();
        let all = topics.iter().filter_map(|name| Some((name, log.topics.get(name)?)));
        all.flat_map(|(name, t)| t.partitions.iter().enumerate().map(|(i, p)| ((name.clone(), i as i32), p.high())))
            .collect()
    }
}

/// Feeds one reader until it is dropped.
async fn read(reader: Reader, topics: Vec<Arc<str>>, to: mpsc::Sender<ReadEvent>) {
    let mut version = reader.shared.version.subscribe();
    let mut ahead = reader.ends(&topics);
    let mut caught_up = false;
    loop {
        version.borrow_and_update();
        let batch = reader.next(&topics);
        let idle = batch.is_empty();
        for record in batch {
            let tp = (record.topic.clone(), record.partition);
            if ahead.get(&tp).is_some_and(|end| record.offset + 1 >= *end) {
                ahead.remove(&tp);
            }
            if to.send(ReadEvent::Record(record)).await.is_err() {
                return;
            }
        }
        // A topic deleted meanwhile leaves its end behind: nothing left to read means caught up, too.
        if !caught_up && (idle || ahead.is_empty()) {
            caught_up = true;
            if to.send(ReadEvent::CaughtUp).await.is_err() {
                return;
            }
        }
        if !idle {
            // Publishers may be waiting for a reader to pass.
            reader.shared.bump();
            continue;
        }
        tokio::select! {
            _ = version.changed() => {}
            () = to.closed() => return,
        }
    }
}
