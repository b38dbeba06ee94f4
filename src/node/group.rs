//! `node group`: who works in the worker group, on which partitions, and how far each partition is.
//!
//! Contract: reads only. Units: offsets and lag count messages. Trap: committed offsets trail what is settled by up to
//! a second, and a partition nobody has committed in shows `-`, its lag then counted from its oldest message.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::table::Table;
use crate::adapters::broker::{Broker, BrokerError, GroupMember, PartitionLag};
use crate::domain::failure::Severity;

/// Why the group could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The output could not be written.
    #[error("writing the table: {0}")]
    Io(#[from] io::Error),
}

impl GroupError {
    /// What the node does about it: it is a command, so all of it ends here.
    pub fn severity(&self) -> Severity {
        Severity::Fatal
    }
}

/// Shows a group and its standing in these topics.
///
/// # Errors
/// [`GroupError`].
pub async fn show(
    broker: &dyn Broker,
    group: &str,
    topics: &[&str],
    out: &mut (dyn Write + Send),
) -> Result<(), GroupError> {
    let members = broker.group_members(group).await?;
    let lags = broker.group_lag(group, topics).await?;
    let behind: u64 = lags.iter().map(PartitionLag::lag).sum();
    writeln!(out, "group {group}: {} members, lag {behind}", members.len())?;
    if !members.is_empty() {
        writeln!(out)?;
        members_table(&members).write(out)?;
    }
    if lags.is_empty() {
        writeln!(out, "no topic of {}: `node topics create` makes them", topics.join(", "))?;
        return Ok(());
    }
    writeln!(out)?;
    Ok(lag_table(&members, &lags).write(out)?)
}

fn members_table(members: &[GroupMember]) -> Table {
    let mut table = Table::new(&["MEMBER", "HOST", "COUNT", "PARTITIONS"]);
    for m in members {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &m.assignment {
            by_topic.entry(topic).or_default().push(*partition);
        }
        let held: Vec<String> = by_topic.iter().map(|(topic, ps)| format!("{topic} {}", ranges(ps))).collect();
        let held = if held.is_empty() { "none".into() } else { held.join("; ") };
        table.row([m.client.clone(), m.host.clone(), m.assignment.len().to_string(), held]);
    }
    table
}

fn lag_table(members: &[GroupMember], lags: &[PartitionLag]) -> Table {
    let mut holders: BTreeMap<(&str, i32), &str> = BTreeMap::new();
    for m in members {
        holders.extend(m.assignment.iter().map(|(topic, p)| ((topic.as_str(), *p), m.client.as_str())));
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "LOW", "HIGH", "LAG", "MEMBER"]);
    for l in lags {
        let committed = l.committed.map_or_else(|| "-".to_owned(), |c| c.to_string());
        let holder = holders.get(&(l.topic.as_str(), l.partition)).copied().unwrap_or("nobody");
        let (low, high, lag) = (l.low.to_string(), l.high.to_string(), l.lag().to_string());
        table.row([l.topic.clone(), l.partition.to_string(), committed, low, high, lag, holder.to_owned()]);
    }
    table
}

/// Ascending numbers as `0-4,7`.
fn ranges(numbers: &[i32]) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == *n => *end = *n,
            _ => runs.push((*n, *n)),
        }
    }
    let shown = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::adapters::broker::{EmbeddedBroker, GroupSpec, Record, TopicSpec};

    #[test]
    fn runs_of_numbers_are_shortened() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[tokio::test]
    async fn shows_members_and_lag() {
        let broker = EmbeddedBroker::default();
        let shown = async || {
            let mut out = Vec::new();
            show(&broker, "g", &["tasks"], &mut out).await.unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown().await, "group g: 0 members, lag 0\nno topic of tasks: `node topics create` makes them\n");
        broker.create_topics(&[TopicSpec::new("tasks", 2)]).await.unwrap();
        for _ in 0..3 {
            broker.publish(Record::keyed("tasks", "k", "v").to_partition(1)).await.unwrap();
        }
        let (member, mut deliveries) = broker.join(GroupSpec::new("g", "tasks", "w1", 4)).await.unwrap();
        let first = deliveries.recv().await.unwrap();
        assert!(member.settle(&first.id));
        assert_eq!(
            shown().await,
            "group g: 1 members, lag 2\n\n\
             MEMBER  HOST        COUNT  PARTITIONS\n\
             w1      in process      2  tasks 0-1\n\n\
             TOPIC  PARTITION  COMMITTED  LOW  HIGH  LAG  MEMBER\n\
             tasks          0          -    0     0    0  w1\n\
             tasks          1          1    0     3    2  w1\n"
        );
    }
}
