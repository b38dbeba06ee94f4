//! Publishing: order, acknowledgement, and what is refused.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use satellite_pipeline::adapters::broker::{BrokerError, GroupSpec, Record};
use satellite_pipeline::domain::failure::Severity;

use super::bed::{Bed, PATIENCE, next};
use super::support::unique;

pub(crate) async fn publishing_keeps_the_order_of_a_partition(bed: Bed) {
    let topic = bed.topic(3).await;
    let records = (0..300).map(|i| Record::keyed(&topic, "same key", format!("{i}")));
    let placed = join_all(records.map(|r| bed.broker.publish(r))).await;
    let placed: Vec<_> = placed.into_iter().map(Result::unwrap).collect();
    for (i, at) in placed.iter().enumerate() {
        assert_eq!((at.partition, at.offset), (placed[0].partition, i as i64), "one key, one partition, in order");
    }
    bed.broker.flush(PATIENCE).await.unwrap();
    let keyless = (0..30).map(|_| Record { key: None, ..Record::keyed(&topic, "", "x") });
    let placed = join_all(keyless.map(|r| bed.broker.publish(r))).await;
    let used: BTreeSet<i32> = placed.into_iter().map(|at| at.unwrap().partition).collect();
    assert!(used.len() > 1, "records without a key are spread");
}

pub(crate) async fn a_record_arrives_as_it_was(bed: Bed) {
    let topic = bed.topic(1).await;
    let record =
        Record::keyed(&topic, "a key", vec![0u8, 255, 7]).with_header("reason", "why").with_header("empty", "");
    bed.broker.publish(record.clone()).await.unwrap();
    bed.broker.publish(Record { key: None, ..Record::keyed(&topic, "", "") }).await.unwrap();
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(unique("g"), &topic, "m", 4)).await.unwrap();
    let first = next(&mut deliveries).await;
    assert_eq!((&first.key, &first.payload, &first.headers), (&record.key, &record.payload, &record.headers));
    assert!(first.timestamp_ms > 1_600_000_000_000 && first.oversize.is_none());
    let second = next(&mut deliveries).await;
    assert!(second.key.is_none() && second.payload.is_empty() && second.headers.is_empty());
    member.close().await;
}

pub(crate) async fn what_cannot_be_published_is_named(bed: Bed) {
    let topic = bed.topic(2).await;
    let missing = unique("missing");
    let error = bed.broker.publish(Record::keyed(&missing, "k", "v")).await.unwrap_err();
    assert_eq!(error, BrokerError::UnknownTopic { topic: missing });
    let error = bed.broker.publish(Record::keyed(&topic, "k", "v").to_partition(2)).await.unwrap_err();
    assert_eq!(error, BrokerError::UnknownPartition { topic: topic.clone(), partition: 2 });
    let error = bed.broker.publish(Record::keyed(&topic, "k", vec![0; 3 << 20])).await.unwrap_err();
    assert!(matches!(&error, BrokerError::TooLarge { bytes, .. } if *bytes > 3 << 20), "{error}");
    assert_eq!(error.severity(), Severity::Permanent);
}
