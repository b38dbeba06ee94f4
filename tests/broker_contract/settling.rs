//! One member: what it holds, what it settles, and what comes again.

use std::collections::BTreeSet;
use std::time::Duration;

use satellite_pipeline::adapters::broker::{GroupSpec, Record};
use tokio::time::{sleep, timeout};

use super::bed::{Bed, PATIENCE, QUIET, next, nothing, place, until};
use super::support::unique;

pub(crate) async fn holds_no_more_than_its_bound_and_is_not_evicted_for_that(bed: Bed) {
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

pub(crate) async fn delivers_again_from_the_first_unsettled(bed: Bed) {
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

pub(crate) async fn stopping_ends_deliveries_and_still_settles(bed: Bed) {
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

pub(crate) async fn an_oversize_message_is_named_and_not_copied(bed: Bed) {
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
