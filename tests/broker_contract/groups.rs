//! Several members: sharing, taking over, territories, and what is told about a group.

use std::collections::BTreeSet;
use std::time::Instant;

use satellite_pipeline::adapters::broker::{GroupSpec, TopicSpec};
use tokio::time::timeout;

use super::bed::{Bed, PATIENCE, QUIET, assigned, next, nothing, place, until};
use super::support::unique;

pub(crate) async fn two_share_and_one_takes_over(bed: Bed) {
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

pub(crate) async fn a_settlement_after_revocation_is_ignored(bed: Bed) {
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

pub(crate) async fn dropping_the_handle_leaves_the_group(bed: Bed) {
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

pub(crate) async fn a_focus_reads_one_territory_after_the_other(bed: Bed) {
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

pub(crate) async fn lag_and_members_are_told(bed: Bed) {
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

pub(crate) async fn a_member_waits_for_its_topic(bed: Bed) {
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
