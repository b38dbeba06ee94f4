//! What only the in-process broker promises: it is bounded, and gives up only what everybody has read.
//!
//! Contract: publishing waits when a partition is full, in order, and goes on when its readers pass.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use satellite_pipeline::adapters::broker::{
    Broker, BrokerError, EmbeddedBroker, EmbeddedLimits, GroupSpec, Position, ReadEvent, Record, TopicSpec,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(200);

async fn small(messages: usize, bytes: usize) -> EmbeddedBroker {
    let broker = EmbeddedBroker::new(EmbeddedLimits { messages, bytes, record_bytes: 1000 });
    broker.create_topics(&[TopicSpec::new("t", 1)]).await.unwrap();
    broker
}

/// Publishes `n` records of ten bytes, one after the other.
fn publish(broker: &EmbeddedBroker, n: i64) -> JoinHandle<Vec<Result<Position, BrokerError>>> {
    let broker = broker.clone();
    tokio::spawn(async move {
        let mut placed = Vec::new();
        for i in 0..n {
            placed.push(broker.publish(Record { key: None, ..Record::keyed("t", "", format!("{i:010}")) }).await);
        }
        placed
    })
}

async fn kept(broker: &EmbeddedBroker) -> (i64, i64) {
    let p = broker.describe_topics(&["t"]).await.unwrap()[0].partitions[0];
    (p.low, p.high)
}

#[tokio::test]
async fn a_full_partition_makes_publishers_wait_for_the_group() {
    for (messages, bytes) in [(5, 1000), (1000, 50)] {
        let broker = small(messages, bytes).await;
        let publishing = publish(&broker, 20);
        sleep(QUIET).await;
        assert_eq!(kept(&broker).await, (0, 5), "nobody reads: it waits");
        let (member, mut deliveries) = broker.join(GroupSpec::new("g", "t", "m", 3)).await.unwrap();
        for i in 0..20 {
            let d = timeout(PATIENCE, deliveries.recv()).await.unwrap().unwrap();
            assert_eq!(d.payload, format!("{i:010}"), "in order");
            let (low, high) = kept(&broker).await;
            assert!(high - low <= 5 && low <= i, "bounded, and nothing unsettled is given up");
            assert!(member.settle(&d.id));
        }
        let placed = timeout(PATIENCE, publishing).await.unwrap().unwrap();
        let offsets: Vec<i64> = placed.into_iter().map(|at| at.unwrap().offset).collect();
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
        member.close().await;
    }
}

#[tokio::test]
async fn a_full_partition_waits_for_the_slowest_reader() {
    let broker = small(5, 1000).await;
    let mut reader = broker.read(&["t"]).await.unwrap();
    let (member, mut deliveries) = broker.join(GroupSpec::new("g", "t", "m", 2)).await.unwrap();
    let publishing = publish(&broker, 20);
    sleep(QUIET).await;
    assert_eq!(kept(&broker).await.0, 0, "the group has settled nothing");
    for _ in 0..3 {
        assert!(timeout(PATIENCE, reader.recv()).await.unwrap().is_some());
    }
    assert!(!publishing.is_finished());
    for _ in 0..20 {
        let d = timeout(PATIENCE, deliveries.recv()).await.unwrap().unwrap();
        assert!(member.settle(&d.id));
    }
    publishing.await.unwrap();
    drop((reader, deliveries, member));
}

#[tokio::test]
async fn many_publishers_of_a_full_partition_keep_their_order() {
    let broker = small(2, 1000).await;
    let publishing: Vec<_> = {
        let records = (0..10).map(|i| Record::keyed("t", "k", format!("{i}")));
        let all = records.map(|r| {
            let broker = broker.clone();
            async move { broker.publish(r).await.unwrap().offset }
        });
        vec![tokio::spawn(futures_util::future::join_all(all))]
    };
    let mut reader = broker.read(&["t"]).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        if let Some(ReadEvent::Record(r)) = timeout(PATIENCE, reader.recv()).await.unwrap() {
            seen.push((r.offset, r.payload));
        }
    }
    let expected: Vec<_> = (0..10).map(|i| (i, format!("{i}").into())).collect();
    assert_eq!(seen, expected);
    for p in publishing {
        assert_eq!(p.await.unwrap(), (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_deleted_topic_lets_its_publishers_go() {
    let broker = small(5, 1000).await;
    let publishing = publish(&broker, 6);
    sleep(QUIET).await;
    broker.delete_topics(&["t"]).await.unwrap();
    let last = timeout(PATIENCE, publishing).await.unwrap().unwrap().pop().unwrap();
    assert_eq!(last, Err(BrokerError::UnknownTopic { topic: "t".into() }));
}

#[tokio::test]
async fn a_record_that_never_fits_is_refused() {
    let broker = small(5, 50).await;
    let error = broker.publish(Record::keyed("t", "k", vec![0; 50])).await.unwrap_err();
    assert_eq!(error, BrokerError::TooLarge { topic: "t".into(), bytes: 51, limit: 50 });
}
