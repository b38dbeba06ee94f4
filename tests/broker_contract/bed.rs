//! A broker under test, and how to wait for what must come and for what must not.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use satellite_pipeline::adapters::broker::{
    Broker, Delivery, EmbeddedBroker, GroupHandle, KafkaBroker, Record, TopicOutcome, TopicSpec,
};
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::support::{self, unique};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How long nothing must come, to believe that nothing does.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// A broker under test.
pub(crate) struct Bed {
    pub(crate) broker: Arc<dyn Broker>,
    /// Longer than the broker lets a member go without polling.
    pub(crate) past_poll_limit: Duration,
}

impl Bed {
    pub(crate) async fn embedded() -> Self {
        Self { broker: Arc::new(EmbeddedBroker::default()), past_poll_limit: QUIET }
    }

    pub(crate) async fn kafka() -> Self {
        let limits = [("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")];
        let config = support::config(&support::required_bootstrap(), &limits);
        let broker = KafkaBroker::connect(config).await.unwrap();
        Self { broker: Arc::new(broker), past_poll_limit: Duration::from_secs(9) }
    }

    pub(crate) async fn topic(&self, partitions: i32) -> String {
        let name = unique("contract");
        let made = self.broker.create_topics(&[TopicSpec::new(&name, partitions)]).await.unwrap();
        assert_eq!(made, [(name.clone(), TopicOutcome::Created)]);
        name
    }

    /// Publishes `n` messages `0`, `1`, … to one partition, in order.
    pub(crate) async fn fill(&self, topic: &str, partition: i32, n: usize) {
        let records = (0..n).map(|i| Record::keyed(topic, "k", format!("{partition}/{i}")).to_partition(partition));
        for at in join_all(records.map(|r| self.broker.publish(r))).await {
            at.unwrap();
        }
    }

    pub(crate) async fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        self.broker.group_lag(group, &[topic]).await.unwrap().into_iter().map(|l| l.committed).collect()
    }

    pub(crate) async fn lag(&self, group: &str, topic: &str) -> u64 {
        self.broker.group_lag(group, &[topic]).await.unwrap().iter().map(|l| l.lag()).sum()
    }
}

pub(crate) async fn next(from: &mut Receiver<Delivery>) -> Delivery {
    timeout(PATIENCE, from.recv()).await.expect("a delivery should have come").expect("the member should be alive")
}

pub(crate) async fn nothing(from: &mut Receiver<Delivery>, wait: Duration) {
    if let Ok(Some(extra)) = timeout(wait, from.recv()).await {
        panic!("{} should not have been delivered", extra.id);
    }
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn assigned(member: &GroupHandle, n: usize) {
    let mut status = member.status();
    let waited = timeout(PATIENCE, status.wait_for(|s| s.assigned.len() == n)).await;
    assert!(waited.is_ok(), "should hold {n} partitions, holds {:?}", member.status().borrow().assigned);
}

pub(crate) fn place(d: &Delivery) -> (i32, i64) {
    (d.id.partition, d.id.offset)
}
