//! The settler: the result first, then the offset; what is fatal or lost settles nothing and stops the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use actix::{Actor, Recipient};
use async_trait::async_trait;
use satellite_pipeline::actors::settler::{Counts, Settler, StopReason};
use satellite_pipeline::actors::ticket::{Outcome, Settled, Ticket};
use satellite_pipeline::adapters::broker::{
    Broker, BrokerError, Delivery, GroupHandle, GroupMember, GroupSpec, PartitionLag, Position, ReadEvent, Record,
    TopicInfo, TopicOutcome, TopicSpec,
};
use satellite_pipeline::adapters::dataset::DatasetStore;
use satellite_pipeline::adapters::dataset::memory::MemoryStore;
use satellite_pipeline::domain::failure::{Failure, Severity};
use satellite_pipeline::domain::result::{Status, TaskResult};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};

use super::stage::{Stage, on_stage, task};

const CELL: [f64; 4] = [0.0, 40.0, 0.05, 40.05];

/// The embedded broker with a post office that can be closed.
struct Closing {
    broker: Arc<dyn Broker>,
    closed: AtomicBool,
    /// Publishing waits for this permit.
    slow: tokio::sync::Semaphore,
}

#[async_trait]
impl Broker for Closing {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<(String, TopicOutcome)>, BrokerError> {
        self.broker.create_topics(specs).await
    }
    async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicInfo>, BrokerError> {
        self.broker.describe_topics(names).await
    }
    async fn delete_topics(&self, names: &[&str]) -> Result<Vec<(String, bool)>, BrokerError> {
        self.broker.delete_topics(names).await
    }
    async fn list_topics(&self) -> Result<Vec<String>, BrokerError> {
        self.broker.list_topics().await
    }
    async fn publish(&self, record: Record) -> Result<Position, BrokerError> {
        self.slow.acquire().await.unwrap().forget();
        if self.closed.load(SeqCst) {
            let (what, why) = ("publishing".into(), "the disk of the broker is full".into());
            return Err(BrokerError::Refused { what, why, severity: Severity::Fatal });
        }
        self.broker.publish(record).await
    }
    async fn flush(&self, timeout: Duration) -> Result<(), BrokerError> {
        self.broker.flush(timeout).await
    }
    async fn join(&self, spec: GroupSpec) -> Result<(GroupHandle, Receiver<Delivery>), BrokerError> {
        self.broker.join(spec).await
    }
    async fn read(&self, topics: &[&str]) -> Result<Receiver<ReadEvent>, BrokerError> {
        self.broker.read(topics).await
    }
    async fn group_lag(&self, group: &str, topics: &[&str]) -> Result<Vec<PartitionLag>, BrokerError> {
        self.broker.group_lag(group, topics).await
    }
    async fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, BrokerError> {
        self.broker.group_members(group).await
    }
}

struct Bed {
    stage: Stage,
    broker: Arc<Closing>,
    store: Arc<MemoryStore>,
    settler: Recipient<Settled>,
    stop: UnboundedReceiver<StopReason>,
    counts: Arc<Counts>,
}

impl Bed {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let slow = tokio::sync::Semaphore::new(100);
        let broker = Arc::new(Closing { broker: stage.broker.clone(), closed: AtomicBool::new(false), slow });
        let (tell, stop) = unbounded_channel();
        let (counts, store) = (Arc::new(Counts::default()), Arc::new(MemoryStore::default()));
        let settler = Settler {
            worker: "w".into(),
            broker: broker.clone(),
            store: store.clone(),
            group: stage.group.clone(),
            results_topic: "results".into(),
            dlq_topic: "dlq".into(),
            stop: tell,
            counts: counts.clone(),
        };
        Self { stage, broker, store, settler: settler.start().recipient(), stop, counts }
    }

    /// Settles one delivered task.
    async fn settle(&mut self, payload: &str, outcome: Outcome) {
        let delivery = self.stage.delivery(payload).await;
        Ticket::new(delivery, self.settler.clone()).settle(outcome);
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..400 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain until {what}");
    }

    async fn committed(&self, offset: Option<i64>) {
        self.until("the offset is committed", async || self.stage.committed().await == offset).await;
    }
}

fn result(status: Status) -> Box<TaskResult> {
    let mut result = TaskResult::empty(&task(1, CELL), "w", status);
    result.chips_saved = 2;
    result.error = status.is_failure().then(|| "pixels: 404".to_owned());
    Box::new(result)
}

#[test]
fn the_offset_follows_the_acknowledged_result() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        bed.broker.slow.forget_permits(100);
        bed.settle("first", Outcome::Finished(result(Status::Success))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(bed.stage.committed().await, None, "not before the broker has the result");
        bed.broker.slow.add_permits(100);
        bed.committed(Some(1)).await;
        let told: TaskResult = serde_json::from_slice(&bed.stage.published("results").await[0].payload).unwrap();
        assert_eq!(told, *result(Status::Success));
        assert_eq!((bed.counts.finished.load(SeqCst), bed.counts.chips.load(SeqCst)), (1, 2));
    });
}

#[test]
fn a_result_that_cannot_be_published_leaves_the_offset_and_stops_the_node() {
    on_stage(async || {
        for outcome in [
            Outcome::Finished(result(Status::Success)),
            Outcome::Failed(result(Status::FailedDownload)),
            Outcome::Poison("nonsense".into()),
        ] {
            let mut bed = Bed::new().await;
            bed.broker.closed.store(true, SeqCst);
            bed.settle("first", outcome).await;
            let StopReason(why) = bed.stop.recv().await.unwrap();
            assert!(why.starts_with("the result of tasks[0]@0 could not be published: "), "{why}");
            assert!(why.contains("the disk of the broker is full"), "{why}");
            assert_eq!(bed.stage.committed().await, None);
            assert_eq!(bed.stage.group.in_flight(), 1);
        }
    });
}

#[test]
fn failures_and_poison_are_put_aside_with_their_place() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        bed.settle("the raw task", Outcome::Failed(result(Status::FailedDownload))).await;
        bed.settle("junk", Outcome::Poison("task message is not a task".into())).await;
        bed.committed(Some(2)).await;
        let letters = bed.stage.published("dlq").await;
        let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let said: Vec<(String, String)> = letters
            .iter()
            .map(|l| (text(&l.payload), l.headers.iter().map(|(n, v)| format!("{n}={} ", text(v))).collect()))
            .collect();
        let want =
            |reason: &str, offset| format!("dlq.reason={reason} dlq.topic=tasks dlq.partition=0 dlq.offset={offset} ");
        assert!(said.contains(&("the raw task".into(), want("pixels: 404", 0))), "{said:?}");
        assert!(said.contains(&("junk".into(), want("task message is not a task", 1))), "{said:?}");
        assert_eq!(bed.stage.published("results").await.len(), 1, "poison has no result: it names no task");
        assert_eq!(bed.counts.failed.load(SeqCst), 2);
    });
}

#[test]
fn what_is_fatal_or_lost_settles_nothing_and_stops_the_node() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        bed.settle("a", Outcome::Fatal(Failure::fatal("writer", "disk full"))).await;
        assert_eq!(bed.stop.recv().await, Some(StopReason("writer: disk full".into())));
        // A ticket that nobody settles, as when an actor dies with it.
        drop(Ticket::new(bed.stage.delivery("b").await, bed.settler.clone()));
        let StopReason(why) = bed.stop.recv().await.unwrap();
        assert_eq!(why, "task tasks[0]@1 was lost inside the node (see the log)");
        bed.settle("c", Outcome::Abandoned).await;
        bed.until("the third one is counted", async || bed.counts.abandoned.load(SeqCst) == 1).await;
        assert_eq!((bed.counts.halted.load(SeqCst), bed.stage.committed().await), (2, None));
        // Later tasks go on, but no offset passes the first unsettled one.
        bed.settle("d", Outcome::Finished(result(Status::Success))).await;
        bed.until("the result is out", async || bed.stage.published("results").await.len() == 1).await;
        assert_eq!(bed.stage.committed().await, None);
    });
}

#[test]
fn an_attempt_given_up_in_order_leaves_no_staging_place_and_a_lost_one_does() {
    on_stage(async || {
        for (outcome, left) in [
            (Outcome::Abandoned, 0),
            (Outcome::Fatal(Failure::fatal("writer", "disk full")), 0),
            (Outcome::Failed(result(Status::FailedDownload)), 0),
            (Outcome::Lost, 1),
        ] {
            let mut bed = Bed::new().await;
            let mut ticket = Ticket::new(bed.stage.delivery("a").await, bed.settler.clone());
            ticket.stage(bed.store.begin(&task(1, CELL).key()).unwrap());
            ticket.settle(outcome);
            bed.until("it is settled", async || {
                let counts = [&bed.counts.abandoned, &bed.counts.halted, &bed.counts.failed];
                counts.iter().map(|n| n.load(SeqCst)).sum::<u64>() == 1
            })
            .await;
            assert_eq!(bed.store.staged(), left, "what a worker died of is counted by what it left");
        }
    });
}
