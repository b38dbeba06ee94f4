//! A stage for one actor: probes as its neighbours, and deliveries to work on.
//!
//! Contract: a probe keeps the messages it gets, and their credits with them. Trap: [`Stage::job`] takes one delivery of a
//! topic that the stage fills itself, so each job has an offset of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Recipient};
use satellite_pipeline::actors::health::Health;
use satellite_pipeline::actors::hosts::Hosts;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{Done, Job};
use satellite_pipeline::actors::retry::RetryPolicy;
use satellite_pipeline::actors::ticket::{Outcome, Settled, Ticket};
use satellite_pipeline::adapters::broker::{
    Broker, Delivery, EmbeddedBroker, GroupHandle, GroupSpec, Record, TopicSpec,
};
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::domain::classes::ClassId;
use satellite_pipeline::domain::manifest::Rejection;
use satellite_pipeline::domain::task::Task;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Two further attempts, quickly.
pub(crate) const QUICK: RetryPolicy =
    RetryPolicy { retries: 2, first: Duration::from_millis(2), longest: Duration::from_millis(5) };

/// A service that is waited for so long.
pub(crate) fn health() -> Arc<Health> {
    Arc::new(Health::new("the service", Duration::from_millis(100)))
}

/// Image hosts that are waited for as long.
pub(crate) fn hosts(imagery: &Arc<Imagery>) -> Arc<Hosts> {
    Arc::new(Hosts::new(imagery.clone(), Duration::from_millis(100)))
}

/// Runs a test in an actor system.
pub(crate) fn on_stage<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    actix::System::new().block_on(test())
}

/// An actor that hands what it gets to the test.
struct Probe<M>(UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Send + Unpin + 'static> Handler<Credited<M>> for Probe<Credited<M>> {
    type Result = ();
    fn handle(&mut self, message: Credited<M>, _: &mut Self::Context) {
        let _ = self.0.send(message);
    }
}

impl Handler<Settled> for Probe<Settled> {
    type Result = ();
    fn handle(&mut self, settled: Settled, _: &mut Self::Context) {
        let _ = self.0.send(settled);
    }
}

/// What comes out of an actor on one lane.
pub(crate) struct Out<M>(UnboundedReceiver<M>);

impl<M> Out<M> {
    /// What is sent to the first comes out of the second.
    pub(crate) fn new() -> (UnboundedSender<M>, Self) {
        let (to, out) = unbounded_channel();
        (to, Self(out))
    }

    /// The next message, however late; `None` when none can come.
    pub(crate) async fn any(&mut self) -> Option<M> {
        self.0.recv().await
    }

    /// The next message, which must come.
    pub(crate) async fn next(&mut self) -> M {
        timeout(PATIENCE, self.0.recv()).await.expect("a message should have come").expect("the actor should live")
    }

    /// Nothing comes, nor has come.
    pub(crate) async fn nothing(&mut self) {
        assert!(timeout(Duration::from_millis(30), self.0.recv()).await.is_err(), "nothing should have come");
    }
}

/// A lane that leads to the test.
pub(crate) fn lane<M: Send + Unpin + 'static>(size: usize) -> (Lane<M>, Out<Credited<M>>) {
    let (to, out) = unbounded_channel();
    (Lane::new("probe", size, Probe(to).start().recipient()), Out(out))
}

/// The deliveries and the settlements of a test.
pub(crate) struct Stage {
    pub(crate) broker: Arc<EmbeddedBroker>,
    pub(crate) group: GroupHandle,
    pub(crate) settler: Recipient<Settled>,
    pub(crate) settled: Out<Settled>,
    deliveries: Receiver<Delivery>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let broker = Arc::new(EmbeddedBroker::default());
        broker.create_topics(&["tasks", "results", "dlq"].map(|t| TopicSpec::new(t, 1))).await.unwrap();
        let (group, deliveries) = broker.join(GroupSpec::new("g", "tasks", "w", 64)).await.unwrap();
        let (to, out) = unbounded_channel();
        Self { broker, group, settler: Probe(to).start().recipient(), settled: Out(out), deliveries }
    }

    /// A message, delivered.
    pub(crate) async fn delivery(&mut self, payload: impl Into<Vec<u8>>) -> Delivery {
        self.broker.publish(Record::keyed("tasks", "k", payload.into())).await.unwrap();
        timeout(PATIENCE, self.deliveries.recv()).await.unwrap().unwrap()
    }

    /// A task, delivered and taken.
    pub(crate) async fn job(&mut self, task: Task) -> Job {
        let delivery = self.delivery(serde_json::to_vec(&task).unwrap()).await;
        Job {
            key: task.key(),
            seed: task.seed.unwrap_or(42),
            cancel: delivery.cancel.clone(),
            ticket: Ticket::new(delivery, self.settler.clone()),
            started: Instant::now(),
            worker: "w".into(),
            left_out: Vec::new(),
            task,
        }
    }

    /// How the next ticket was settled.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        self.settled.next().await.outcome
    }

    /// Offset the group has committed.
    pub(crate) async fn committed(&self) -> Option<i64> {
        self.broker.group_lag("g", &["tasks"]).await.unwrap()[0].committed
    }

    /// Payloads of a topic.
    pub(crate) async fn published(&self, topic: &str) -> Vec<satellite_pipeline::adapters::broker::ReadRecord> {
        use satellite_pipeline::adapters::broker::ReadEvent;
        let mut events = self.broker.read(&[topic]).await.unwrap();
        let mut all = Vec::new();
        while let Some(ReadEvent::Record(record)) = events.recv().await {
            all.push(record);
        }
        all
    }
}

/// A task over this cell that takes every parcel of every class.
pub(crate) fn task(id: u64, bbox: [f64; 4]) -> Task {
    let json = serde_json::json!({"task_id": id, "bbox": bbox, "run_id": "run1", "seed": 42, "schema": 1});
    Task::parse(json.to_string().as_bytes()).unwrap()
}

pub(crate) fn class(number: u8) -> ClassId {
    ClassId::try_from(number).unwrap()
}

/// The rejections among the outcomes of a task.
pub(crate) fn rejections(done: &Done) -> Vec<&Rejection> {
    use satellite_pipeline::actors::messages::ChipOutcome;
    let all = done.outcomes.iter();
    all.filter_map(|(_, outcome)| if let ChipOutcome::Rejected(why) = outcome { Some(why) } else { None }).collect()
}
