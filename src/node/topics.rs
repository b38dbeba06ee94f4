//! `node topics`: makes, shows and deletes the topics of the configuration.
//!
//! Contract: only the topics it is given are touched. Deleting asks first, on a terminal, unless told `--yes`; without
//! a terminal it refuses. Trap: `reset` throws away every task, result and offset of these topics.

use std::io::{self, BufRead, IsTerminal, Write};

use super::table::Table;
use crate::adapters::broker::{Broker, BrokerError, TopicInfo, TopicOutcome, TopicSpec};
use crate::domain::failure::Severity;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicsCommand {
    /// Make what is missing.
    Create,
    /// One line for each topic.
    List,
    /// One line for each partition.
    Describe,
    /// Delete them.
    Delete,
    /// Delete them and make them anew.
    Reset,
}

/// Why a command did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The output could not be written, or the answer not read.
    #[error("writing the table: {0}")]
    Io(#[from] io::Error),
    /// Nobody there to ask.
    #[error("deleting needs a confirmation and standard input is not a terminal: add --yes")]
    NobodyToAsk,
    /// The answer was not yes.
    #[error("nothing was deleted")]
    Declined,
}

impl TopicsError {
    /// What the node does about it: it is a command, so all of it ends here.
    pub fn severity(&self) -> Severity {
        Severity::Fatal
    }
}

/// Who confirms a deletion.
pub enum Consent<'a> {
    /// `--yes` was given.
    Given,
    /// A person at a terminal, who answers on this.
    Ask(&'a mut (dyn BufRead + Send)),
    /// Neither.
    Nobody,
}

impl<'a> Consent<'a> {
    /// Consent as the command line has it: `--yes`, or a person when standard input is a terminal.
    pub fn from_terminal(yes: bool, stdin: &'a mut (dyn BufRead + Send)) -> Self {
        match (yes, io::stdin().is_terminal()) {
            (true, _) => Self::Given,
            (false, true) => Self::Ask(stdin),
            (false, false) => Self::Nobody,
        }
    }

    fn confirm(self, specs: &[TopicSpec], out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
        self.confirm_that(&format!("delete {} with everything in them?", names(specs).join(", ")), out)
    }

    /// Asks a question that yes answers.
    ///
    /// # Errors
    /// [`TopicsError::NobodyToAsk`], [`TopicsError::Declined`].
    pub fn confirm_that(self, question: &str, out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
        match self {
            Self::Given => Ok(()),
            Self::Nobody => Err(TopicsError::NobodyToAsk),
            Self::Ask(stdin) => {
                write!(out, "{question} [y/N] ")?;
                out.flush()?;
                let mut answer = String::new();
                stdin.read_line(&mut answer)?;
                let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
                if yes { Ok(()) } else { Err(TopicsError::Declined) }
            }
        }
    }
}

/// Runs a command on the topics of `specs`.
///
/// # Errors
/// [`TopicsError`]; what was done before it stays done.
pub async fn run(
    broker: &dyn Broker,
    command: TopicsCommand,
    specs: &[TopicSpec],
    consent: Consent<'_>,
    out: &mut (dyn Write + Send),
) -> Result<(), TopicsError> {
    match command {
        TopicsCommand::Create => create(broker, specs, out).await,
        TopicsCommand::List => list(broker, specs, out).await,
        TopicsCommand::Describe => describe(broker, specs, out).await,
        TopicsCommand::Delete => {
            consent.confirm(specs, out)?;
            delete(broker, specs, out).await
        }
        TopicsCommand::Reset => {
            consent.confirm(specs, out)?;
            delete(broker, specs, out).await?;
            create(broker, specs, out).await
        }
    }
}

fn names(specs: &[TopicSpec]) -> Vec<&str> {
    specs.iter().map(|s| s.name.as_str()).collect()
}

async fn create(broker: &dyn Broker, specs: &[TopicSpec], out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
    let made = broker.create_topics(specs).await?;
    let mut table = Table::new(&["TOPIC", "OUTCOME"]);
    for (spec, (name, outcome)) in specs.iter().zip(made) {
        let wanted = spec.partitions;
        let said = match outcome {
            TopicOutcome::Created => format!("created with {wanted} partitions"),
            TopicOutcome::Grown { from } => format!("grown from {from} to {wanted} partitions"),
            TopicOutcome::Existed { partitions } if partitions == wanted => format!("exists with {wanted} partitions"),
            TopicOutcome::Existed { partitions } => format!("exists with {partitions} partitions, not {wanted}"),
        };
        table.row([name, said]);
    }
    Ok(table.write(out)?)
}

async fn delete(broker: &dyn Broker, specs: &[TopicSpec], out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
    let gone = broker.delete_topics(&names(specs)).await?;
    let mut table = Table::new(&["TOPIC", "OUTCOME"]);
    for (name, was_there) in gone {
        table.row([name, if was_there { "deleted".into() } else { "was not there".into() }]);
    }
    Ok(table.write(out)?)
}

async fn list(broker: &dyn Broker, specs: &[TopicSpec], out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
    let found = broker.describe_topics(&names(specs)).await?;
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "CONFIGURED", "MESSAGES"]);
    for spec in specs {
        let configured = spec.partitions.to_string();
        match found.iter().find(|t| t.name == spec.name) {
            Some(t) => table.row([t.name.clone(), t.partitions.len().to_string(), configured, total(t).to_string()]),
            None => table.row([spec.name.clone(), "-".into(), configured, "-".into()]),
        }
    }
    table.write(out)?;
    let missing = specs.iter().filter(|s| found.iter().all(|t| t.name != s.name)).count();
    if missing > 0 {
        writeln!(out, "{missing} missing: `node topics create` makes them")?;
    }
    Ok(())
}

fn total(topic: &TopicInfo) -> i64 {
    topic.partitions.iter().map(|p| p.high - p.low).sum()
}

async fn describe(broker: &dyn Broker, specs: &[TopicSpec], out: &mut (dyn Write + Send)) -> Result<(), TopicsError> {
    let found = broker.describe_topics(&names(specs)).await?;
    let mut table = Table::new(&["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN_SYNC", "LOW", "HIGH", "MESSAGES"]);
    for topic in &found {
        for p in &topic.partitions {
            let leader = p.leader.map_or_else(|| "-".to_owned(), |l| l.to_string());
            let (replicas, in_sync) = (p.replicas.to_string(), p.in_sync.to_string());
            let (low, high, messages) = (p.low.to_string(), p.high.to_string(), (p.high - p.low).to_string());
            table.row([topic.name.clone(), p.partition.to_string(), leader, replicas, in_sync, low, high, messages]);
        }
    }
    table.write(out)?;
    for spec in specs.iter().filter(|s| found.iter().all(|t| t.name != s.name)) {
        writeln!(out, "{} does not exist: `node topics create` makes it", spec.name)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::adapters::broker::{EmbeddedBroker, Record};

    fn specs() -> [TopicSpec; 2] {
        [TopicSpec::new("tasks", 2), TopicSpec::new("results", 1)]
    }

    async fn output(broker: &dyn Broker, command: TopicsCommand, consent: Consent<'_>) -> Result<String, TopicsError> {
        let mut out = Vec::new();
        run(broker, command, &specs(), consent, &mut out).await.map(|()| String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn shows_what_it_does() {
        let broker = EmbeddedBroker::default();
        let said = output(&broker, TopicsCommand::List, Consent::Nobody).await.unwrap();
        assert!(said.ends_with("2 missing: `node topics create` makes them\n"), "{said}");
        let said = output(&broker, TopicsCommand::Create, Consent::Nobody).await.unwrap();
        assert_eq!(said, "TOPIC    OUTCOME\ntasks    created with 2 partitions\nresults  created with 1 partitions\n");
        broker.publish(Record::keyed("tasks", "k", "v").to_partition(1)).await.unwrap();
        let said = output(&broker, TopicsCommand::List, Consent::Nobody).await.unwrap();
        assert_eq!(
            said,
            "TOPIC    PARTITIONS  CONFIGURED  MESSAGES\ntasks             2           2         1\n\
             results           1           1         0\n"
        );
        let said = output(&broker, TopicsCommand::Describe, Consent::Nobody).await.unwrap();
        assert_eq!(
            said.lines().nth(2),
            Some("tasks            1       0         1        1    0     1         1"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn asks_before_it_deletes() {
        let broker = EmbeddedBroker::default();
        output(&broker, TopicsCommand::Create, Consent::Nobody).await.unwrap();
        broker.publish(Record::keyed("tasks", "k", "v")).await.unwrap();
        let refused = output(&broker, TopicsCommand::Reset, Consent::Nobody).await.unwrap_err();
        assert!(matches!(refused, TopicsError::NobodyToAsk));
        let declined = output(&broker, TopicsCommand::Reset, Consent::Ask(&mut &b"\n"[..])).await.unwrap_err();
        assert!(matches!(declined, TopicsError::Declined));
        assert_eq!(total(&broker.describe_topics(&["tasks"]).await.unwrap()[0]), 1, "nothing happened");
        let said = output(&broker, TopicsCommand::Reset, Consent::Ask(&mut &b"yes\n"[..])).await.unwrap();
        assert!(said.starts_with("delete tasks, results with everything in them? [y/N] TOPIC"), "{said}");
        assert_eq!(total(&broker.describe_topics(&["tasks"]).await.unwrap()[0]), 0);
        output(&broker, TopicsCommand::Delete, Consent::Given).await.unwrap();
        assert!(broker.list_topics().await.unwrap().is_empty());
        let said = output(&broker, TopicsCommand::Delete, Consent::Given).await.unwrap();
        assert!(said.contains("was not there"), "{said}");
    }
}
