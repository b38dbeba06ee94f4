//! Groups of the in-process broker: who holds which partition, and what is delivered next.
//!
//! Contract: an assignment is even (counts differ by at most one per topic) and sticky (a partition moves only when
//! evenness asks for it); members keep their lowest-numbered partitions, so territories stay together.
//! Trap: a partition that moves is first collected, then revoked, then given to its new holder, all under the log's
//! lock: no settlement slips between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::log::{Group, Log, Member, Partition};
use super::{Delivery, GroupSpec, TopicPartition};

/// Assigns the partitions of every topic anew among the members of a group.
pub(super) fn rebalance(log: &mut Log, group: &str) {
    log.collect_commits();
    let Log { topics, groups, .. } = log;
    let Some(group) = groups.get_mut(group) else { return };
    let mut goal: BTreeMap<TopicPartition, u64> = BTreeMap::new();
    for (name, topic) in topics.iter() {
        let members: Vec<u64> = subscribers(group, name);
        let held = |id: &u64| -> BTreeSet<i32> {
            group.members[id].positions.keys().filter(|tp| tp.0 == *name).map(|tp| tp.1).collect()
        };
        let current: BTreeMap<u64, BTreeSet<i32>> = members.iter().map(|id| (*id, held(id))).collect();
        for (partition, id) in share(&current, topic.partitions.len() as i32) {
            goal.insert((name.clone(), partition), id);
        }
    }
    for (id, member) in &mut group.members {
        member.positions.retain(|tp, _| {
            let keeps = goal.get(tp) == Some(id);
            if !keeps && let Some(mark) = member.membership.revoke(tp) {
                group.committed.insert(tp.clone(), mark);
            }
            keeps
        });
    }
    for (tp, id) in goal {
        let low = topics[&tp.0].partitions[tp.1 as usize].low();
        if let Some(member) = group.members.get_mut(&id)
            && !member.positions.contains_key(&tp)
        {
            member.membership.assign(tp.clone());
            let start = group.committed.get(&tp).copied().unwrap_or(low).max(low);
            member.positions.insert(tp, start);
        }
    }
}

fn subscribers(group: &Group, topic: &str) -> Vec<u64> {
    group.members.iter().filter(|(_, m)| m.topics.iter().any(|t| t == topic)).map(|(id, _)| *id).collect()
}

/// Shares out partitions `0..n`, given what each member holds now.
fn share(current: &BTreeMap<u64, BTreeSet<i32>>, n: i32) -> BTreeMap<i32, u64> {
    let mut shared = BTreeMap::new();
    if current.is_empty() {
        return shared;
    }
    let (base, mut extra) = (n as usize / current.len(), n as usize % current.len());
    // Those who hold most now are first to keep one more than the base.
    let mut by_load: Vec<_> = current.iter().collect();
    by_load.sort_by_key(|(id, held)| (std::cmp::Reverse(held.len()), **id));
    let mut wanting = Vec::new();
    for (id, held) in by_load {
        let quota = base + usize::from(extra > 0);
        extra = extra.saturating_sub(1);
        let kept: Vec<i32> = held.iter().copied().filter(|p| *p < n).take(quota).collect();
        wanting.push((*id, quota - kept.len()));
        shared.extend(kept.into_iter().map(|p| (p, *id)));
    }
    let mut free = (0..n).filter(|p| !shared.contains_key(p)).collect::<Vec<_>>().into_iter();
    for (id, missing) in wanting {
        shared.extend(free.by_ref().take(missing).map(|p| (p, id)));
    }
    shared
}

/// Removes a member and shares out what it held. Its unsettled deliveries will be delivered to others.
pub(super) fn leave(log: &mut Log, group: &str, member: u64) {
    log.collect_commits();
    if let Some(g) = log.groups.get_mut(group) {
        g.members.remove(&member);
    }
    rebalance(log, group);
}

/// Delivers to one member what it has room for. `turn` remembers which partition was served last.
pub(super) fn deliver(
    log: &mut Log,
    spec: &GroupSpec,
    member: u64,
    turn: &mut Option<TopicPartition>,
    to: &mpsc::Sender<Delivery>,
) {
    let Log { topics, groups, .. } = log;
    let Some(member) = groups.get_mut(&spec.group).and_then(|g| g.members.get_mut(&member)) else { return };
    let mut room = member.membership.room().min(to.capacity());
    while room > 0 {
        let Some(tp) = next_partition(member, topics, spec.focus, turn.as_ref()) else { return };
        let partition = &topics[&tp.0].partitions[tp.1 as usize];
        if let Some(delivery) = take(member, &tp, partition, spec.payload_cap)
            && to.try_send(delivery).is_err()
        {
            return;
        }
        *turn = Some(tp);
        room -= 1;
    }
}

/// The next partition in turn among those with something to deliver; with a focus, among the first k of them.
fn next_partition(
    member: &Member,
    topics: &BTreeMap<Arc<str>, super::log::Topic>,
    focus: Option<usize>,
    turn: Option<&TopicPartition>,
) -> Option<TopicPartition> {
    let ready: Vec<&TopicPartition> = member
        .positions
        .iter()
        .filter(|((topic, partition), at)| **at < topics[topic].partitions[*partition as usize].high())
        .map(|(tp, _)| tp)
        .take(focus.unwrap_or(usize::MAX))
        .collect();
    let after = ready.iter().find(|tp| turn.is_some_and(|turn| **tp > turn));
    after.or(ready.first()).map(|tp| (*tp).clone())
}

fn take(member: &mut Member, tp: &TopicPartition, partition: &Partition, cap: usize) -> Option<Delivery> {
    let at = member.positions.get_mut(tp)?;
    let offset = (*at).max(partition.low());
    let entry = partition.get(offset)?;
    *at = offset + 1;
    let (id, cancel) = member.membership.begin(tp, offset)?;
    let oversize = (entry.payload.len() > cap).then_some(entry.payload.len());
    let (payload, headers) = match oversize {
        Some(_) => Default::default(),
        None => (entry.payload.clone(), entry.headers.clone()),
    };
    let (key, timestamp_ms) = (entry.key.clone(), entry.timestamp_ms);
    Some(Delivery { id, key, payload, oversize, headers, timestamp_ms, cancel })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_newcomer_takes_only_its_share() {
        let one = BTreeMap::from([(1, BTreeSet::from([0, 1, 2, 3, 4])), (2, BTreeSet::new())]);
        assert_eq!(share(&one, 5), BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]));
    }

    proptest! {
        #[test]
        fn shares_are_even_and_sticky(owners in prop::collection::vec(0u64..6, 1..40), members in 1u64..6) {
            let mut current: BTreeMap<u64, BTreeSet<i32>> = (0..members).map(|m| (m, BTreeSet::new())).collect();
            for (p, m) in owners.iter().enumerate() {
                if let Some(held) = current.get_mut(m) {
                    held.insert(p as i32);
                }
            }
            let n = owners.len() as i32;
            let shared = share(&current, n);
            prop_assert_eq!(shared.len(), owners.len());
            let count = |m: u64| shared.values().filter(|x| **x == m).count();
            for m in 0..members {
                let (base, quota) = (owners.len() / members as usize, owners.len().div_ceil(members as usize));
                prop_assert!((base..=quota).contains(&count(m)));
                let kept = current[&m].iter().filter(|p| shared[p] == m).count();
                prop_assert!(kept >= current[&m].len().min(base), "keeps at least the base of what it had");
            }
            prop_assert_eq!(&shared, &share(&regroup(&shared, members), n), "an even share stays as it is");
        }
    }

    fn regroup(shared: &BTreeMap<i32, u64>, members: u64) -> BTreeMap<u64, BTreeSet<i32>> {
        let mut by: BTreeMap<u64, BTreeSet<i32>> = (0..members).map(|m| (m, BTreeSet::new())).collect();
        for (p, m) in shared {
            by.get_mut(m).unwrap().insert(*p);
        }
        by
    }
}
