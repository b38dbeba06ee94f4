//! The in-process log: topics, partitions, entries, and how far each group and reader is.
//!
//! Plain data behind one lock; nothing here waits or runs. Units: offsets count messages, sizes are bytes.
//! Contract: a partition never holds more than [`EmbeddedLimits`] allows; when it is full, what every group and every
//! reader of the topic has passed is given up, oldest first, and nothing else ever is.
//! Trap: a topic that nobody has read yet cannot give anything up, so publishing to it waits once it is full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::membership::Membership;
use super::{Headers, Record, TopicPartition};
use crate::domain::task::fnv1a;

/// Bounds of the in-process broker, for each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedLimits {
    /// Most messages a partition keeps.
    pub messages: usize,
    /// Most bytes of keys, payloads and headers a partition keeps.
    pub bytes: usize,
    /// Largest record, bytes; the default is Kafka's own.
    pub record_bytes: usize,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self { messages: 50_000, bytes: 16 << 20, record_bytes: 1 << 20 }
    }
}

/// A message at rest.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Option<Bytes>,
    pub(super) payload: Bytes,
    pub(super) headers: Headers,
    pub(super) timestamp_ms: i64,
    size: usize,
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    low: i64,
    bytes: usize,
    entries: VecDeque<Entry>,
    /// Publishers wait in line here, so that the order of a partition is the order of the calls.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
}

impl Partition {
    pub(super) fn low(&self) -> i64 {
        self.low
    }

    pub(super) fn high(&self) -> i64 {
        self.low + self.entries.len() as i64
    }

    /// The entry at this offset; below `low` nothing is left.
    pub(super) fn get(&self, offset: i64) -> Option<&Entry> {
        self.entries.get(usize::try_from(offset - self.low).ok()?)
    }

    fn fits(&self, size: usize, limits: &EmbeddedLimits) -> bool {
        self.entries.len() < limits.messages && self.bytes + size <= limits.bytes
    }

    fn give_up_below(&mut self, floor: i64) {
        while self.low < floor
            && let Some(entry) = self.entries.pop_front()
        {
            self.low += 1;
            self.bytes -= entry.size;
        }
    }

    fn push(&mut self, record: Record, timestamp_ms: i64) -> i64 {
        let size = record.size();
        self.bytes += size;
        let Record { key, payload, headers, .. } = record;
        self.entries.push_back(Entry { key, payload, headers, timestamp_ms, size });
        self.high() - 1
    }
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) partitions: Vec<Partition>,
    turn: usize,
}

/// One member of a group.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) topics: Vec<String>,
    pub(super) membership: Arc<Membership>,
    /// Next offset to deliver, of each partition held.
    pub(super) positions: BTreeMap<TopicPartition, i64>,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) committed: BTreeMap<TopicPartition, i64>,
    pub(super) members: BTreeMap<u64, Member>,
}

/// Everything the in-process broker knows.
#[derive(Default)]
pub(super) struct Log {
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    /// Next offset each reader will be given.
    pub(super) readers: BTreeMap<u64, BTreeMap<TopicPartition, i64>>,
    ids: u64,
}

impl Log {
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn partition(&self, tp: &TopicPartition) -> Option<&Partition> {
        self.topics.get(&tp.0)?.partitions.get(usize::try_from(tp.1).ok()?)
    }

    /// Picks the partition of a record as Kafka clients do: as told, else by the key's hash, else in turn. (The hash is
    /// our own, so a key's partition differs from Kafka's.)
    pub(super) fn place(&mut self, record: &Record) -> Option<TopicPartition> {
        let name = self.topics.get_key_value(record.topic.as_str())?.0.clone();
        let topic = self.topics.get_mut(&name)?;
        let n = topic.partitions.len();
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => (fnv1a(key) % n as u64) as i32,
            (None, None) => {
                topic.turn = (topic.turn + 1) % n;
                topic.turn as i32
            }
        };
        (0..n as i32).contains(&partition).then_some((name, partition))
    }

    /// Appends when there is room, if need be after giving up what everybody has read. `Err` gives the record back;
    /// `None` inside: the partition is gone.
    pub(super) fn append(
        &mut self,
        tp: &TopicPartition,
        record: Record,
        now_ms: i64,
        limits: &EmbeddedLimits,
    ) -> Result<Option<i64>, Record> {
        let size = record.size();
        let floor = match self.partition(tp) {
            None => return Ok(None),
            Some(p) if p.fits(size, limits) => None,
            Some(_) => Some(self.read_by_all(tp)),
        };
        let Some(partition) = self.topics.get_mut(&tp.0).and_then(|t| t.partitions.get_mut(tp.1 as usize)) else {
            return Ok(None);
        };
        if let Some(floor) = floor {
            partition.give_up_below(floor);
            if !partition.fits(size, limits) {
                return Err(record);
            }
        }
        Ok(Some(partition.push(record, now_ms)))
    }

    /// The offset below which every group and every reader of this topic is done; 0 when it has neither.
    fn read_by_all(&self, tp: &TopicPartition) -> i64 {
        let low = self.partition(tp).map_or(0, Partition::low);
        let groups = self.groups.values().filter_map(|g| {
            let reads = g.members.values().any(|m| m.topics.iter().any(|t| **t == *tp.0));
            g.committed.get(tp).copied().or(reads.then_some(low))
        });
        let readers = self.readers.values().filter_map(|positions| positions.get(tp).copied());
        groups.chain(readers).min().unwrap_or(0)
    }

    /// Collects what the members of every group have settled. True when any commit moved.
    pub(super) fn collect_commits(&mut self) -> bool {
        let mut moved = false;
        for group in self.groups.values_mut() {
            for member in group.members.values() {
                for (tp, mark) in member.membership.take_commits() {
                    group.committed.insert(tp, mark);
                    moved = true;
                }
            }
        }
        moved
    }
}
