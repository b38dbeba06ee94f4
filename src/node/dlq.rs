//! `node dlq`: the tasks that failed for good, for people to look at, to try again, or to forget.
//!
//! Contract: a dead letter is named by the place its task had (`topic/partition/offset`, in its headers); it
//! is open until a later record of the dead-letter topic closes it, so the topic itself is the only state.
//! Replaying publishes the task again first and closes the letter after that: a crash between the two makes
//! the task come twice, which its manifest makes harmless, and never lets it be forgotten.
//! Memory: the list holds names and reasons, never payloads; replaying reads the topic a second time.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;

use super::cli;
use super::error::NodeError;
use super::table::Table;
use super::topics::Consent;
use crate::adapters::broker::{Broker, Headers, ReadEvent, ReadRecord, Record};
use crate::domain::task::{Task, TaskKey};

/// Header that closes a letter: `replayed` or `dropped`.
const CLOSED: &str = "dlq.closed";

/// Most open letters that are handled at once.
const MAX_LETTERS: usize = 1_000_000;

/// An open dead letter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Letter {
    /// `topic/partition/offset` of the task.
    pub id: String,
    /// The task's number, when the message is a task.
    pub task: Option<u64>,
    /// The run its outcome would be kept under.
    pub run: Option<String>,
    /// Why it failed.
    pub reason: String,
    /// When, milliseconds since 1970 UTC.
    pub failed_ms: i64,
    /// Size of the message, bytes; what was larger than a task may be was not kept.
    pub bytes: usize,
}

impl Letter {
    /// What the finished dataset keeps of it: which task failed, and why.
    pub fn failure(self) -> Option<(TaskKey, String)> {
        Some((TaskKey { run: self.run?, task: self.task? }, self.reason))
    }
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().rev().find(|(key, _)| key == name)?;
    std::str::from_utf8(value).ok()
}

/// Name of the letter in a record; `None` for a record that nobody here wrote.
fn id(record: &ReadRecord) -> Option<String> {
    let part = |name| header(&record.headers, name);
    Some(format!("{}/{}/{}", part("dlq.topic")?, part("dlq.partition")?, part("dlq.offset")?))
}

/// The open letters, oldest first.
///
/// # Errors
/// The broker; more than a million letters.
pub async fn open_letters(broker: &dyn Broker, topic: &str) -> Result<Vec<Letter>, NodeError> {
    let mut letters: BTreeMap<String, Letter> = BTreeMap::new();
    for_each(broker, topic, |record| {
        let Some(id) = id(&record) else { return Ok(()) };
        if header(&record.headers, CLOSED).is_some() {
            letters.remove(&id);
            return Ok(());
        }
        let oversize = header(&record.headers, "dlq.oversize").and_then(|n| n.parse().ok());
        let key = Task::parse(&record.payload).ok().map(|task| task.key());
        let letter = Letter {
            id: id.clone(),
            task: key.as_ref().map(|key| key.task),
            run: key.map(|key| key.run),
            reason: header(&record.headers, "dlq.reason").unwrap_or("not said").to_owned(),
            failed_ms: record.timestamp_ms,
            bytes: oversize.unwrap_or(record.payload.len()),
        };
        letters.insert(id, letter);
        if letters.len() > MAX_LETTERS {
            return Err(NodeError::Stopped(format!("{topic} holds more than {MAX_LETTERS} dead letters")));
        }
        Ok(())
    })
    .await?;
    let mut letters: Vec<Letter> = letters.into_values().collect();
    letters.sort_by(|a, b| (a.failed_ms, &a.id).cmp(&(b.failed_ms, &b.id)));
    Ok(letters)
}

async fn for_each(
    broker: &dyn Broker,
    topic: &str,
    mut see: impl FnMut(ReadRecord) -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    let mut events = broker.read(&[topic]).await?;
    while let Some(event) = events.recv().await {
        match event {
            ReadEvent::Record(record) => see(record)?,
            ReadEvent::CaughtUp => return Ok(()),
            ReadEvent::Failed(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Runs one command.
///
/// # Errors
/// The broker, a refusal to confirm, or letters that are not there.
pub async fn run(
    asked: &cli::Dlq,
    broker: &dyn Broker,
    dlq_topic: &str,
    consent: Consent<'_>,
    out: &mut (dyn Write + Send),
) -> Result<(), NodeError> {
    let letters = open_letters(broker, dlq_topic).await?;
    let chosen: Vec<&Letter> = letters.iter().filter(|l| chosen(asked, l)).collect();
    let io = |e| NodeError::system("writing the list")(e);
    match asked.action {
        cli::DlqAction::List if asked.json => {
            for letter in &chosen {
                writeln!(out, "{}", serde_json::to_string(letter).unwrap_or_default()).map_err(io)?;
            }
            Ok(())
        }
        cli::DlqAction::List => list(&chosen, out).map_err(io),
        _ if chosen.is_empty() => writeln!(out, "no dead letter to {}", asked.action.verb()).map_err(io),
        cli::DlqAction::Drop => {
            consent.confirm_that(&format!("drop {} dead letters for ever?", chosen.len()), out)?;
            for letter in &chosen {
                close(broker, dlq_topic, &letter.id, "dropped").await?;
            }
            writeln!(out, "{} dead letters dropped", chosen.len()).map_err(io)
        }
        cli::DlqAction::Replay => {
            let wanted: Vec<&str> = chosen.iter().map(|l| l.id.as_str()).collect();
            let (again, kept) = replay(broker, dlq_topic, &wanted).await?;
            writeln!(out, "{again} tasks published again").map_err(io)?;
            if kept > 0 {
                let why = "their message was larger than a task may be and was not kept; `node dlq drop` forgets them";
                writeln!(out, "{kept} dead letters cannot be replayed: {why}").map_err(io)?;
            }
            Ok(())
        }
    }
}

fn chosen(asked: &cli::Dlq, letter: &Letter) -> bool {
    asked.task.is_empty() || letter.task.is_some_and(|t| asked.task.contains(&t))
}

fn list(letters: &[&Letter], out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    if letters.is_empty() {
        return writeln!(out, "no dead letters");
    }
    let mut table = Table::new(&["LETTER", "TASK", "FAILED", "BYTES", "REASON"]);
    for letter in letters {
        let when = chrono::DateTime::from_timestamp_millis(letter.failed_ms);
        table.row([
            letter.id.clone(),
            letter.task.map_or("-".into(), |t| t.to_string()),
            when.map_or("-".into(), |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
            letter.bytes.to_string(),
            letter.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        ]);
    }
    table.write(out)
}

/// Publishes the tasks of these letters again and closes the letters. Gives how many were, and how many
/// could not be.
async fn replay(broker: &dyn Broker, dlq_topic: &str, wanted: &[&str]) -> Result<(usize, usize), NodeError> {
    let wanted: std::collections::HashSet<&str> = wanted.iter().copied().collect();
    let (mut again, mut kept) = (0, 0);
    let mut events = broker.read(&[dlq_topic]).await?;
    while let Some(event) = events.recv().await {
        let record = match event {
            ReadEvent::Record(record) => record,
            ReadEvent::CaughtUp => break,
            ReadEvent::Failed(error) => return Err(error.into()),
        };
        let Some(id) = id(&record).filter(|id| wanted.contains(id.as_str())) else { continue };
        if header(&record.headers, CLOSED).is_some() {
            continue;
        }
        if record.payload.is_empty() {
            kept += 1;
            continue;
        }
        let topic = header(&record.headers, "dlq.topic").unwrap_or_default().to_owned();
        let partition = header(&record.headers, "dlq.partition").and_then(|p| p.parse().ok());
        let headers: Headers = record.headers.iter().filter(|(k, _)| !k.starts_with("dlq.")).cloned().collect();
        let (key, payload) = (record.key, record.payload);
        broker.publish(Record { topic, partition, key, payload, headers }).await?;
        close(broker, dlq_topic, &id, "replayed").await?;
        again += 1;
    }
    Ok((again, kept))
}

async fn close(broker: &dyn Broker, dlq_topic: &str, id: &str, how: &str) -> Result<(), NodeError> {
    let mut record = Record::keyed(dlq_topic, id.to_owned(), Bytes::new());
    for (name, value) in ["dlq.topic", "dlq.partition", "dlq.offset"]
        .into_iter()
        .zip(id.rsplitn(3, '/').collect::<Vec<_>>().into_iter().rev())
    {
        record = record.with_header(name, value.to_owned());
    }
    broker.publish(record.with_header(CLOSED, how.to_owned())).await?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use crate::adapters::broker::{EmbeddedBroker, EmbeddedLimits, TopicSpec};

    use super::*;

    async fn broker_with_letters() -> EmbeddedBroker {
        let broker = EmbeddedBroker::new(EmbeddedLimits::default());
        broker.create_topics(&[TopicSpec::new("t", 3), TopicSpec::new("d", 1)]).await.unwrap();
        for (offset, payload) in [(7, r#"{"task_id": 4, "bbox": [0, 0, 1, 1]}"#), (8, "garbage"), (9, "")] {
            let letter = Record::keyed("d", format!("task_{offset}"), payload)
                .with_header("own", "kept")
                .with_header("dlq.reason", "because")
                .with_header("dlq.topic", "t")
                .with_header("dlq.partition", "2")
                .with_header("dlq.offset", offset.to_string());
            broker.publish(letter).await.unwrap();
        }
        broker
    }

    fn asked(action: cli::DlqAction, task: &[u64]) -> cli::Dlq {
        cli::Dlq { action, task: task.to_vec(), yes: true, json: false }
    }

    async fn said(broker: &EmbeddedBroker, asked: cli::Dlq) -> String {
        let mut out = Vec::new();
        run(&asked, broker, "d", Consent::Given, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn letters_are_listed_until_they_are_closed() {
        let broker = broker_with_letters().await;
        let all = said(&broker, asked(cli::DlqAction::List, &[])).await;
        assert!(all.contains("t/2/7") && all.contains("t/2/8") && all.contains("because"), "{all}");
        assert_eq!(said(&broker, asked(cli::DlqAction::Drop, &[4])).await, "1 dead letters dropped\n");
        let left = open_letters(&broker, "d").await.unwrap();
        assert_eq!(left.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["t/2/8", "t/2/9"]);
    }

    #[tokio::test]
    async fn replaying_publishes_the_same_message_to_the_same_partition_once() {
        let broker = broker_with_letters().await;
        let said_first = said(&broker, asked(cli::DlqAction::Replay, &[])).await;
        assert!(said_first.starts_with("2 tasks published again\n1 dead letters cannot"), "{said_first}");
        assert_eq!(open_letters(&broker, "d").await.unwrap().len(), 1, "the one without a message stays");
        let mut events = broker.read(&["t"]).await.unwrap();
        let mut seen = Vec::new();
        while let Some(ReadEvent::Record(record)) = events.recv().await {
            assert_eq!(record.headers, [("own".to_owned(), Bytes::from("kept"))]);
            seen.push((record.partition, record.payload));
        }
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|(partition, _)| *partition == 2));
    }
}
