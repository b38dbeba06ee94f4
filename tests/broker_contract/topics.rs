//! Topics: reading them from the beginning, making, growing, describing and deleting them.

use std::collections::BTreeMap;

use satellite_pipeline::adapters::broker::{GroupSpec, ReadEvent, ReadRecord, TopicOutcome, TopicSpec};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::bed::{Bed, PATIENCE, next, place, until};
use super::support::unique;

pub(crate) async fn record(from: &mut Receiver<ReadEvent>) -> ReadRecord {
    match timeout(PATIENCE, from.recv()).await.expect("a record should have come") {
        Some(ReadEvent::Record(record)) => record,
        other => panic!("a record should have come, not {other:?}"),
    }
}

pub(crate) async fn caught_up(from: &mut Receiver<ReadEvent>) {
    assert_eq!(timeout(PATIENCE, from.recv()).await.unwrap(), Some(ReadEvent::CaughtUp));
}

pub(crate) async fn a_reader_gets_all_from_the_beginning_then_the_tail(bed: Bed) {
    let (one, two, empty, missing) = (bed.topic(3).await, bed.topic(1).await, bed.topic(2).await, unique("missing"));
    for partition in 0..3 {
        bed.fill(&one, partition, 200).await;
    }
    bed.fill(&two, 0, 7).await;
    let mut reader = bed.broker.read(&[&one, &two, &empty, &missing]).await.unwrap();
    let mut seen: BTreeMap<(String, i32), i64> = BTreeMap::new();
    for _ in 0..607 {
        let r = record(&mut reader).await;
        let at = seen.entry((r.topic.to_string(), r.partition)).or_insert(0);
        assert_eq!(r.offset, *at, "ascending and without a gap");
        assert_eq!(r.payload, format!("{}/{}", r.partition, r.offset));
        *at += 1;
    }
    caught_up(&mut reader).await;
    bed.fill(&empty, 1, 1).await;
    let r = record(&mut reader).await;
    assert_eq!((&*r.topic, r.partition, r.offset), (&*empty, 1, 0));
    bed.broker.create_topics(&[TopicSpec::new(&missing, 1)]).await.unwrap();
    bed.fill(&missing, 0, 2).await;
    for offset in 0..2 {
        let r = record(&mut reader).await;
        assert_eq!((&*r.topic, r.offset), (&*missing, offset), "a topic that appears is read from its beginning");
    }
    let mut nobody = bed.broker.read(&[&unique("missing")]).await.unwrap();
    caught_up(&mut nobody).await;
    let mut other = bed.broker.read(&[&two]).await.unwrap();
    for offset in 0..7 {
        assert_eq!(record(&mut other).await.offset, offset, "each reader begins at the beginning");
    }
    caught_up(&mut other).await;
}

pub(crate) async fn topics_are_made_grown_described_and_deleted(bed: Bed) {
    let (a, b) = (unique("topics-a"), unique("topics-b"));
    let made = bed.broker.create_topics(&[TopicSpec::new(&a, 2), TopicSpec::new(&b, 1).compacted()]).await.unwrap();
    assert_eq!(made, [(a.clone(), TopicOutcome::Created), (b.clone(), TopicOutcome::Created)]);
    let again = bed.broker.create_topics(&[TopicSpec::new(&a, 5), TopicSpec::new(&b, 1).growing()]).await.unwrap();
    let (two, one) = (TopicOutcome::Existed { partitions: 2 }, TopicOutcome::Existed { partitions: 1 });
    assert_eq!(again, [(a.clone(), two), (b.clone(), one)]);
    let grown = bed.broker.create_topics(&[TopicSpec::new(&a, 5).growing()]).await.unwrap();
    assert_eq!(grown, [(a.clone(), TopicOutcome::Grown { from: 2 })]);
    bed.fill(&a, 4, 3).await;
    let told = bed.broker.describe_topics(&["not-there", &a, &b]).await.unwrap();
    let shape: Vec<(&str, usize)> = told.iter().map(|t| (t.name.as_str(), t.partitions.len())).collect();
    assert_eq!(shape, [(&*a, 5), (&*b, 1)]);
    let p = told[0].partitions[4];
    assert_eq!((p.partition, p.low, p.high, p.leader.is_some()), (4, 0, 3, true));
    let names = bed.broker.list_topics().await.unwrap();
    assert!(names.contains(&a) && names.contains(&b) && names.is_sorted());
    let gone = bed.broker.delete_topics(&[&a, "not-there", &b]).await.unwrap();
    assert_eq!(gone, [(a.clone(), true), ("not-there".into(), false), (b.clone(), true)]);
    assert!(!bed.broker.list_topics().await.unwrap().contains(&a));
    assert!(bed.broker.create_topics(&[TopicSpec::new("", 1)]).await.is_err());
    assert!(bed.broker.create_topics(&[TopicSpec::new(unique("t"), 0)]).await.is_err());
}

pub(crate) async fn a_topic_made_anew_under_a_member_is_read_anew(bed: Bed) {
    let (topic, group) = (bed.topic(1).await, unique("g"));
    bed.fill(&topic, 0, 5).await;
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 10)).await.unwrap();
    for _ in 0..5 {
        let d = next(&mut deliveries).await;
        assert!(member.settle(&d.id));
    }
    until("committed", || async { bed.lag(&group, &topic).await == 0 }).await;
    bed.broker.delete_topics(&[&topic]).await.unwrap();
    bed.broker.create_topics(&[TopicSpec::new(&topic, 1)]).await.unwrap();
    bed.fill(&topic, 0, 3).await;
    for offset in 0..3 {
        let d = next(&mut deliveries).await;
        assert_eq!(place(&d), (0, offset));
        assert!(member.settle(&d.id));
    }
    until("committed", || async { bed.committed(&group, &topic).await == [Some(3)] }).await;
    member.close().await;
}
