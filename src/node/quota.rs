//! The loop that ends a run by itself: the monitor says on the control topic how many chips each class has, the
//! workers stop sampling those that have enough.
//!
//! Contract: nothing waits for the loop. Without a monitor, or while the control topic cannot be read, workers
//! take every parcel drawn. A worker reads the topic from its beginning and takes no task before it has read
//! what was there, or [`PATIENCE`] is over. The monitor says nothing before it has read all results, so one that
//! is started again says what the last one said. Trap: the records are counted chips, not orders; each task
//! compares them with its own targets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::error::NodeError;
use crate::actors::quotas::Quotas;
use crate::adapters::broker::{Broker, BrokerError, ReadEvent, ReadRecord, Record};
use crate::adapters::dataset::DatasetStore;
use crate::adapters::dataset::count::chips;
use crate::domain::progress::Progress;
use crate::domain::quota::QuotaRecord;

/// How long a worker waits for what the control topic holds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time the monitor's views wait for its word to be acknowledged.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Time between two records that only say how far the counts are.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a worker knows at its start: with the embedded broker, which forgets, the chips the dataset holds.
///
/// # Errors
/// A dataset that cannot be listed.
pub async fn remembered(config: &Config, store: Arc<dyn DatasetStore>) -> Result<Quotas, NodeError> {
    let quotas = Quotas::default();
    if config.sampling.stop_when_filled && config.kafka.is_embedded() {
        let counted = tokio::task::spawn_blocking(move || chips(&*store)).await;
        let counted = counted.map_err(|_| NodeError::Stopped("counting the dataset's chips panicked".into()))??;
        for (run, counts) in &counted {
            quotas.note(run, counts);
        }
    }
    Ok(quotas)
}

/// Follows the control topic until `end`; returns when what is there has been read.
///
/// # Errors
/// A reader that cannot be set up.
pub async fn follow(
    topic: &str,
    broker: &dyn Broker,
    quotas: Quotas,
    end: CancellationToken,
) -> Result<(), BrokerError> {
    let mut events = broker.read(&[topic]).await?;
    let (tell, caught_up) = oneshot::channel();
    let mut tell = Some(tell);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                () = end.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Some(ReadEvent::Record(record)) => heed(&record, &quotas),
                // Nobody listens any more when patience was over.
                Some(ReadEvent::CaughtUp) => drop(tell.take().map(|tell| tell.send(()))),
                Some(ReadEvent::Failed(error)) => {
                    return tracing::warn!("no class will be taken for filled any more: {error}");
                }
                None => return tracing::warn!("no class will be taken for filled any more: reading has ended"),
            }
        }
    });
    if tokio::time::timeout(PATIENCE, caught_up).await.is_err() {
        tracing::warn!(topic, "cannot be read yet; until it can, no class is taken for filled");
    }
    Ok(())
}

fn heed(record: &ReadRecord, quotas: &Quotas) {
    if !record.key.as_deref().is_some_and(QuotaRecord::is_key) || record.payload.is_empty() {
        return;
    }
    match QuotaRecord::parse(&record.payload) {
        Ok(quota) => {
            if quotas.note(&quota.run_id, &quota.counts) {
                let filled: Vec<u8> = quota.filled.iter().map(|class| class.get()).collect();
                tracing::debug!(run = quota.run_id, sequence = quota.sequence, ?filled, "chips counted");
            }
        }
        Err(error) => tracing::warn!("{error}"),
    }
}

/// The monitor's side: says what has changed.
#[derive(Debug, Default)]
pub struct Herald {
    said: Option<(QuotaRecord, Instant)>,
}

impl Herald {
    /// The record to publish now, if there is news: at once when a class is filled or opened, else now and then.
    pub fn news(&mut self, progress: &Progress, now: Instant) -> Option<QuotaRecord> {
        let record = QuotaRecord::of(progress)?;
        let due = match &self.said {
            None => true,
            Some((said, _)) if *said == record => false,
            Some((said, _)) if (&said.run_id, &said.filled) != (&record.run_id, &record.filled) => true,
            Some((_, at)) => progress.complete || now.duration_since(*at) >= SAY_EVERY,
        };
        due.then(|| {
            let before = self.said.as_ref().map(|(said, _)| said).filter(|said| said.run_id == record.run_id);
            for class in record.filled.iter().filter(|class| before.is_none_or(|b| !b.filled.contains(class))) {
                let (chips, target) = (record.counts.get(class), record.targets.get(class));
                tracing::info!(class = class.get(), chips, target, "class has enough chips");
            }
            self.said = Some((record.clone(), now));
            record
        })
    }

    /// Publishes what is new. A broker that is away is told later.
    pub async fn say(&mut self, config: &Config, broker: &dyn Broker, progress: &Progress) {
        let before = self.said.clone();
        let Some(record) = self.news(progress, Instant::now()) else { return };
        let Ok(payload) = record.to_json() else { return };
        let published = broker.publish(Record::keyed(&config.kafka.control_topic, record.key(), payload));
        let failed = match tokio::time::timeout(AT_ONCE, published).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no acknowledgement yet".into(),
        };
        tracing::warn!("the workers do not know yet which classes have enough chips: {failed}");
        self.said = before;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::classes::ClassId;
    use crate::domain::plan_record::{ClassPlan, PLAN_SCHEMA, PlanRecord, PlanState};
    use crate::domain::result::TaskResult;
    use crate::domain::tally::Tally;

    fn tally(target: u64) -> Tally {
        let mut tally = Tally::default();
        let class = ClassPlan {
            name: "olives".into(),
            colour: String::new(),
            parcels: 9,
            expected: 9,
            target: (target > 0).then_some(target),
        };
        tally.plan(PlanRecord {
            schema: PLAN_SCHEMA,
            run_id: "r".into(),
            state: PlanState::Published,
            tasks: 9,
            parcels: 9,
            classes: [(ClassId::try_from(1).unwrap(), class)].into(),
            seed: 0,
            created_ms: 1,
        });
        tally
    }

    fn done(tally: &mut Tally, task: u64, chips: u64) -> Progress {
        let text = format!(
            r#"{{"task_id":{task},"worker_id":"w","bbox":[0,0,1,1],"chips_saved":{chips},
                "chips_per_class":{{"1":{chips}}},"status":"success"}}"#
        );
        let result: TaskResult = serde_json::from_str(&text).unwrap();
        tally.apply(&result, task);
        Progress::of(tally, 100)
    }

    #[test]
    fn news_comes_at_once_when_a_class_is_filled_and_else_now_and_then() {
        let (mut herald, mut tally, start) = (Herald::default(), tally(5), Instant::now());
        let first = herald.news(&Progress::of(&tally, 100), start).unwrap();
        assert_eq!((first.sequence, first.filled.len()), (0, 0), "a new run is announced");
        assert_eq!(herald.news(&done(&mut tally, 1, 2), start), None, "counts can wait");
        let later = herald.news(&done(&mut tally, 1, 2), start + SAY_EVERY).unwrap();
        assert_eq!((later.sequence, later.counts.values().sum::<u64>()), (1, 2));
        let filled = herald.news(&done(&mut tally, 2, 3), start + SAY_EVERY).unwrap();
        assert_eq!((filled.sequence, filled.filled.len()), (2, 1));
        assert_eq!(herald.news(&done(&mut tally, 2, 3), start + 9 * SAY_EVERY), None, "nothing new");
        let again = Herald::default().news(&Progress::of(&tally, 100), start).unwrap();
        assert_eq!(again, filled, "one that is started again says the same");
    }

    #[test]
    fn without_targets_nothing_is_said() {
        let mut tally = tally(0);
        assert_eq!(Herald::default().news(&done(&mut tally, 1, 5), Instant::now()), None);
    }
}
