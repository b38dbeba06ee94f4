//! What a broker must do, checked on both implementations: in process always, and on a real Kafka.
//!
//! Contract: each property is one function over `dyn Broker`, run twice: as `embedded::NAME` and as `kafka::NAME`.
//! The second needs `KAFKA_BOOTSTRAP` (scripts/test sets it) and fails without it; select with
//! `cargo test --test broker_contract embedded::` or leave out with `-- --skip kafka`.
//! Trap: waits are generous because a Kafka group takes seconds to settle; what is asserted is order and count, not speed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/kafka.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use satellite_pipeline::adapters::broker::{
    Broker, BrokerError, Delivery, EmbeddedBroker, GroupHandle, GroupSpec, KafkaBroker, ReadEvent, ReadRecord, Record,
    TopicOutcome, TopicSpec,
};
use satellite_pipeline::domain::failure::Severity;
use support::unique;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long nothing must come, to believe that nothing does.
const QUIET: Duration = Duration::from_millis(700);

/// A broker under test.
struct Bed {
    broker: Arc<dyn Broker>,
    /// Longer than the broker lets a member go without polling.
    past_poll_limit: Duration,
}

impl Bed {
    async fn embedded() -> Self {
        Self { broker: Arc::new(EmbeddedBroker::default()), past_poll_limit: QUIET }
    }

    async fn kafka() -> Self {
        let limits = [("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")];
        let config = support::config(&support::required_bootstrap(), &limits);
        let broker = KafkaBroker::connect(config).await.unwrap();
        Self { broker: Arc::new(broker), past_poll_limit: Duration::from_secs(9) }
    }

    async fn topic(&self, partitions: i32) -> String {
        let name = unique("contract");
        let made = self.broker.create_topics(&[TopicSpec::new(&name, partitions)]).await.unwrap();
        assert_eq!(made, [(name.clone(), TopicOutcome::Created)]);
        name
    }

    /// Publishes `n` messages `0`, `1`, … to one partition, in order.
    async fn fill(&self, topic: &str, partition: i32, n: usize) {
        let records = (0..n).map(|i| Record::keyed(topic, "k", format!("{partition}/{i}")).to_partition(partition));
        for at in join_all(records.map(|r| self.broker.publish(r))).await {
            at.unwrap();
        }
    }

    async fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        self.broker.group_lag(group, &[topic]).await.unwrap().into_iter().map(|l| l.committed).collect()
    }

    async fn lag(&self, group: &str, topic: &str) -> u64 {
        self.broker.group_lag(group, &[topic]).await.unwrap().iter().map(|l| l.lag()).sum()
    }
}

async fn next(from: &mut Receiver<Delivery>) -> Delivery {
    timeout(PATIENCE, from.recv()).await.expect("a delivery should have come").expect("the member should be alive")
}

async fn nothing(from: &mut Receiver<Delivery>, wait: Duration) {
    if let Ok(Some(extra)) = timeout(wait, from.recv()).await {
        panic!("{} should not have been delivered", extra.id);
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn assigned(member: &GroupHandle, n: usize) {
    let mut status = member.status();
    let waited = timeout(PATIENCE, status.wait_for(|s| s.assigned.len() == n)).await;
    assert!(waited.is_ok(), "should hold {n} partitions, holds {:?}", member.status().borrow().assigned);
}

fn place(d: &Delivery) -> (i32, i64) {
    (d.id.partition, d.id.offset)
}

// ---- publishing ----

async fn publishing_keeps_the_order_of_a_partition(bed: Bed) {
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

async fn a_record_arrives_as_it_was(bed: Bed) {
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

async fn what_cannot_be_published_is_named(bed: Bed) {
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

// ---- taking and settling ----

async fn holds_no_more_than_its_bound_and_is_not_evicted_for_that(bed: Bed) {
    let (topic, group) = (bed.topic(3).await, unique("g"));
    for partition in 0..3 {
        bed.fill(&topic, partition, 10).await;
    }
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "slow", 4)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut deliveries).await);
    }
    nothing(&mut deliveries, bed.past_poll_limit).await;
    assert_eq!(member.in_flight(), 4);
    assert!(held.iter().all(|d| member.is_current(&d.id) && !d.cancel.is_cancelled()), "still its own");
    let mut seen: BTreeSet<(i32, i64)> = held.iter().map(place).collect();
    let first = held.remove(0);
    assert!(member.settle(&first.id));
    assert!(!member.settle(&first.id) && !member.is_current(&first.id), "settles once");
    held.push(next(&mut deliveries).await);
    assert!(seen.insert(place(held.last().unwrap())));
    nothing(&mut deliveries, QUIET).await;
    while seen.len() < 30 {
        let done = held.remove(0);
        assert!(member.settle(&done.id));
        let more = next(&mut deliveries).await;
        assert!(seen.insert(place(&more)), "{} came twice", more.id);
        assert!(member.in_flight() <= 4);
        held.push(more);
    }
    for d in &held {
        assert!(member.settle(&d.id));
    }
    nothing(&mut deliveries, QUIET).await;
    until("everything is committed", || async { bed.lag(&group, &topic).await == 0 }).await;
    member.close().await;
}

async fn delivers_again_from_the_first_unsettled(bed: Bed) {
    let (topic, group) = (bed.topic(1).await, unique("g"));
    bed.fill(&topic, 0, 10).await;
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 6)).await.unwrap();
    let mut held = Vec::new();
    for offset in 0..6 {
        held.push(next(&mut deliveries).await);
        assert_eq!(place(&held[offset as usize]), (0, offset));
    }
    for settled in [1, 2, 4] {
        assert!(member.settle(&held[settled].id));
    }
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.committed(&group, &topic).await, [None], "nothing before the first unsettled one");
    assert!(member.settle(&held[0].id));
    member.close().await;
    assert_eq!(bed.committed(&group, &topic).await, [Some(3)], "closing commits");
    assert!(!member.settle(&held[3].id), "too late");
    assert!(held[3].cancel.is_cancelled());

    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 20)).await.unwrap();
    for offset in 3..10 {
        let again = next(&mut deliveries).await;
        assert_eq!(place(&again), (0, offset));
        assert_eq!(again.payload, format!("0/{offset}"));
        assert!(member.settle(&again.id));
    }
    member.close().await;
    assert_eq!(bed.committed(&group, &topic).await, [Some(10)]);
}

async fn stopping_ends_deliveries_and_still_settles(bed: Bed) {
    let (topic, group) = (bed.topic(1).await, unique("g"));
    bed.fill(&topic, 0, 10).await;
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 2)).await.unwrap();
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    member.stop();
    for d in &held {
        assert!(member.settle(&d.id));
    }
    assert!(timeout(PATIENCE, deliveries.recv()).await.unwrap().is_none(), "nothing more comes, and it says so");
    until("what was in flight is committed", || async { bed.committed(&group, &topic).await == [Some(2)] }).await;
    assert!(!member.status().borrow().left, "still a member");
    member.close().await;
    let status = member.status();
    assert!(status.borrow().left && status.borrow().failed.is_none() && status.borrow().assigned.is_empty());
}

async fn an_oversize_message_is_named_and_not_copied(bed: Bed) {
    let topic = bed.topic(1).await;
    for size in [100, 100_000, 101, 50] {
        bed.broker.publish(Record::keyed(&topic, "k", vec![1; size]).with_header("h", "v")).await.unwrap();
    }
    let spec = GroupSpec { payload_cap: 100, ..GroupSpec::new(unique("g"), &topic, "a", 8) };
    let (member, mut deliveries) = bed.broker.join(spec).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let d = next(&mut deliveries).await;
        assert_eq!(d.key.as_deref(), Some(&b"k"[..]));
        seen.push((d.payload.len(), d.oversize));
        assert!(member.settle(&d.id));
    }
    assert_eq!(seen, [(100, None), (0, Some(100_000)), (0, Some(101)), (50, None)]);
    member.close().await;
}

// ---- groups ----

async fn two_share_and_one_takes_over(bed: Bed) {
    let (topic, group) = (bed.topic(6).await, unique("g"));
    let (a, mut to_a) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 100)).await.unwrap();
    assigned(&a, 6).await;
    let (b, mut to_b) = bed.broker.join(GroupSpec::new(&group, &topic, "b", 100)).await.unwrap();
    assigned(&a, 3).await;
    assigned(&b, 3).await;
    for partition in 0..6 {
        bed.fill(&topic, partition, 5).await;
    }
    let (mut held, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..15 {
        held.push(next(&mut to_a).await);
        let d = next(&mut to_b).await;
        assert!(seen.insert(place(&d)) && b.settle(&d.id));
    }
    nothing(&mut to_b, QUIET).await;
    assert!(held.iter().all(|d| !seen.contains(&place(d))), "each task went to one of them");
    for d in held.iter().filter(|d| d.id.offset == 0) {
        assert!(a.settle(&d.id));
        seen.insert(place(d));
    }
    let members = bed.broker.group_members(&group).await.unwrap();
    let shares: Vec<(&str, usize)> = members.iter().map(|m| (m.client.as_str(), m.assignment.len())).collect();
    assert_eq!(shares, [("a", 3), ("b", 3)]);

    let left = Instant::now();
    a.close().await;
    assert!(held.iter().filter(|d| d.id.offset > 0).all(|d| d.cancel.is_cancelled()));
    let mut first = None;
    for _ in 0..12 {
        let d = next(&mut to_b).await;
        first.get_or_insert_with(|| left.elapsed());
        assert!(d.id.offset > 0, "what was settled is not done again");
        assert!(seen.insert(place(&d)) && b.settle(&d.id));
    }
    println!("takeover after a clean leave: {:?}", first.unwrap());
    nothing(&mut to_b, QUIET).await;
    assert_eq!(seen.len(), 30);
    until("all is committed", || async { bed.lag(&group, &topic).await == 0 }).await;
    b.close().await;
    assert!(bed.broker.group_members(&group).await.unwrap().is_empty());
}

async fn a_settlement_after_revocation_is_ignored(bed: Bed) {
    let (topic, group) = (bed.topic(4).await, unique("g"));
    for partition in 0..4 {
        bed.fill(&topic, partition, 3).await;
    }
    let (a, mut to_a) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 100)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(next(&mut to_a).await);
    }
    let (b, mut to_b) = bed.broker.join(GroupSpec::new(&group, &topic, "b", 100)).await.unwrap();
    assigned(&a, 2).await;
    assigned(&b, 2).await;
    let kept: BTreeSet<i32> = a.status().borrow().assigned.iter().map(|tp| tp.1).collect();
    for d in &held {
        let mine = kept.contains(&d.id.partition);
        assert_eq!((d.cancel.is_cancelled(), a.is_current(&d.id)), (!mine, mine), "{}", d.id);
        assert_eq!(a.settle(&d.id), mine, "{}", d.id);
    }
    let mut again = BTreeSet::new();
    for _ in 0..6 {
        let d = next(&mut to_b).await;
        assert!(!kept.contains(&d.id.partition) && again.insert(place(&d)));
    }
    until("what was settled in time is committed", || async {
        bed.committed(&group, &topic).await.iter().flatten().sum::<i64>() == 6
    })
    .await;
    a.close().await;
    b.close().await;
    let committed = bed.committed(&group, &topic).await;
    for (partition, at) in committed.iter().enumerate() {
        assert_eq!(*at, kept.contains(&(partition as i32)).then_some(3), "partition {partition}");
    }
}

async fn dropping_the_handle_leaves_the_group(bed: Bed) {
    let (topic, group) = (bed.topic(2).await, unique("g"));
    bed.fill(&topic, 0, 1).await;
    let (a, mut to_a) = bed.broker.join(GroupSpec::new(&group, &topic, "a", 10)).await.unwrap();
    let held = next(&mut to_a).await;
    drop((a, to_a));
    timeout(PATIENCE, held.cancel.cancelled()).await.unwrap();
    let (b, mut to_b) = bed.broker.join(GroupSpec::new(&group, &topic, "b", 10)).await.unwrap();
    assert_eq!(place(&next(&mut to_b).await), place(&held));
    b.close().await;
}

async fn a_focus_reads_one_territory_after_the_other(bed: Bed) {
    let (topic, group) = (bed.topic(4).await, unique("g"));
    for partition in 0..4 {
        bed.fill(&topic, partition, 8).await;
    }
    let spec = GroupSpec::new(&group, &topic, "a", 2).focused(1);
    let (member, mut deliveries) = bed.broker.join(spec).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..32 {
        let d = next(&mut deliveries).await;
        assert!(member.settle(&d.id));
        order.push(place(&d));
    }
    let expected: Vec<(i32, i64)> = (0..4).flat_map(|p| (0..8).map(move |o| (p, o))).collect();
    assert_eq!(order, expected);
    // Everything is at its end; whatever comes next is seen, wherever it appears.
    for partition in [2, 0, 3] {
        bed.fill(&topic, partition, 1).await;
        let d = next(&mut deliveries).await;
        assert_eq!(place(&d).0, partition);
        assert!(member.settle(&d.id));
    }
    for partition in 0..4 {
        bed.fill(&topic, partition, 5).await;
    }
    for _ in 0..20 {
        let d = next(&mut deliveries).await;
        assert!(member.settle(&d.id));
    }
    until("no partition starved", || async { bed.lag(&group, &topic).await == 0 }).await;
    member.close().await;
}

async fn lag_and_members_are_told(bed: Bed) {
    let (topic, group) = (bed.topic(2).await, unique("g"));
    assert!(bed.broker.group_members(&group).await.unwrap().is_empty());
    bed.fill(&topic, 0, 4).await;
    bed.fill(&topic, 1, 6).await;
    assert_eq!(bed.lag(&group, &topic).await, 10);
    assert_eq!(bed.committed(&group, &topic).await, [None, None]);
    assert!(bed.broker.group_lag(&group, &["not-there"]).await.unwrap().is_empty());
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(&group, &topic, "w-7", 10)).await.unwrap();
    for _ in 0..10 {
        let d = next(&mut deliveries).await;
        if d.id.partition == 0 {
            assert!(member.settle(&d.id));
        }
    }
    until("four are committed", || async { bed.lag(&group, &topic).await == 6 }).await;
    let lag = member.lag().await.unwrap();
    assert_eq!((lag[0].committed, lag[0].high, lag[0].lag()), (Some(4), 4, 0));
    assert_eq!((lag[1].committed, lag[1].high, lag[1].lag()), (None, 6, 6));
    let members = bed.broker.group_members(&group).await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].client, "w-7");
    assert_eq!(members[0].assignment, [(topic.clone(), 0), (topic.clone(), 1)]);
    member.close().await;
}

async fn a_member_waits_for_its_topic(bed: Bed) {
    let topic = unique("later");
    let (member, mut deliveries) = bed.broker.join(GroupSpec::new(unique("g"), &topic, "early", 4)).await.unwrap();
    nothing(&mut deliveries, QUIET).await;
    bed.broker.create_topics(&[TopicSpec::new(&topic, 1)]).await.unwrap();
    bed.fill(&topic, 0, 1).await;
    let d = next(&mut deliveries).await;
    assert!(member.settle(&d.id));
    bed.broker.create_topics(&[TopicSpec::new(&topic, 2).growing()]).await.unwrap();
    bed.fill(&topic, 1, 1).await;
    assert_eq!(place(&next(&mut deliveries).await), (1, 0), "a partition that was added is read");
    member.close().await;
}

// ---- reading ----

async fn record(from: &mut Receiver<ReadEvent>) -> ReadRecord {
    match timeout(PATIENCE, from.recv()).await.expect("a record should have come") {
        Some(ReadEvent::Record(record)) => record,
        other => panic!("a record should have come, not {other:?}"),
    }
}

async fn caught_up(from: &mut Receiver<ReadEvent>) {
    assert_eq!(timeout(PATIENCE, from.recv()).await.unwrap(), Some(ReadEvent::CaughtUp));
}

async fn a_reader_gets_all_from_the_beginning_then_the_tail(bed: Bed) {
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

// ---- topics ----

async fn topics_are_made_grown_described_and_deleted(bed: Bed) {
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

async fn a_topic_made_anew_under_a_member_is_read_anew(bed: Bed) {
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

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Bed::embedded().await).await;
            })*
        }
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Bed::kafka().await).await;
            })*
        }
    };
}

contract!(
    publishing_keeps_the_order_of_a_partition,
    a_record_arrives_as_it_was,
    what_cannot_be_published_is_named,
    holds_no_more_than_its_bound_and_is_not_evicted_for_that,
    delivers_again_from_the_first_unsettled,
    stopping_ends_deliveries_and_still_settles,
    an_oversize_message_is_named_and_not_copied,
    two_share_and_one_takes_over,
    a_settlement_after_revocation_is_ignored,
    dropping_the_handle_leaves_the_group,
    a_focus_reads_one_territory_after_the_other,
    lag_and_members_are_told,
    a_member_waits_for_its_topic,
    a_reader_gets_all_from_the_beginning_then_the_tail,
    topics_are_made_grown_described_and_deleted,
    a_topic_made_anew_under_a_member_is_read_anew,
);
