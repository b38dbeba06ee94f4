//! What only a real Kafka can show: outages, crashes, properties, and how much a member fetches ahead.
//!
//! Contract: outages are made on a cluster of its own that `scripts/kafka` starts for the test and clears away; the
//! others use the one that `KAFKA_BOOTSTRAP` names. All fail, with the remedy, when that is not set.
//! Trap: starting a cluster takes some seconds; the tests that stop one run it on a free port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/kafka.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use satellite_pipeline::adapters::broker::{
    Broker, BrokerError, Delivery, GroupHandle, GroupSpec, KafkaBroker, KafkaConfig, ReadEvent, Record, TopicSpec,
};
use satellite_pipeline::domain::failure::Severity;
use support::{config, required_bootstrap, unique};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

async fn next(from: &mut Receiver<Delivery>) -> Delivery {
    timeout(PATIENCE, from.recv()).await.expect("a delivery should have come").expect("the member should be alive")
}

async fn connect(config: KafkaConfig) -> Arc<dyn Broker> {
    Arc::new(KafkaBroker::connect(config).await.unwrap())
}

/// A cluster for one test, gone with it.
struct Cluster {
    dir: tempfile::TempDir,
    bootstrap: String,
}

impl Cluster {
    fn start() -> Self {
        required_bootstrap();
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let bootstrap = script(dir.path(), &["start", "--port", &port.to_string()]);
        Self { dir, bootstrap }
    }

    fn run(&self, command: &str) {
        script(self.dir.path(), &[command]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script(self.dir.path(), &["clean"]);
    }
}

/// A port that is free for a broker, and the one ten above it for its controller. Below those that the system gives to
/// connections, and another one at each call.
fn free_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = (std::process::id() % 500) as u16 * 20;
    let mut ports = (0..500u16).map(|_| 20_000 + (start + CALLS.fetch_add(1, Ordering::Relaxed) * 20) % 10_000);
    ports.find(|port| free(*port) && free(*port + 10)).expect("a free pair of ports")
}

/// Runs `scripts/kafka`; the answer is its last line. The engine is Apache Kafka: it stops and starts in one place.
fn script(dir: &Path, arguments: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let mut command = Command::new(path);
    let out = command.args(arguments).arg("--dir").arg(dir).env("KAFKA_ENGINE", "java").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().last().unwrap_or_default().to_owned()
}

async fn down(member: &GroupHandle, is: bool) {
    let mut status = member.status();
    let seen = timeout(PATIENCE, status.wait_for(|s| s.down_since.is_some() == is)).await;
    assert!(seen.is_ok(), "the outage should show as {is}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_restart_loses_nothing() {
    let cluster = Cluster::start();
    let broker = connect(config(&cluster.bootstrap, &[])).await;
    let (topic, group) = (unique("restart"), unique("g"));
    broker.create_topics(&[TopicSpec::new(&topic, 3)]).await.unwrap();
    let publish = |from: i32, to: i32| {
        let (broker, topic) = (broker.clone(), topic.clone());
        let record = move |i: i32| Record::keyed(&topic, format!("{i}"), format!("{i}")).to_partition(i % 3);
        tokio::spawn(async move { join_all((from..to).map(|i| broker.publish(record(i)))).await })
    };
    for at in publish(0, 60).await.unwrap() {
        at.unwrap();
    }
    let mut reader = broker.read(&[&topic]).await.unwrap();
    let (member, mut deliveries) = broker.join(GroupSpec::new(&group, &topic, "a", 10)).await.unwrap();
    let mut held: Vec<Delivery> = Vec::new();
    let mut seen: Vec<(i32, i64)> = Vec::new();
    for i in 0..20 {
        let d = next(&mut deliveries).await;
        seen.push((d.id.partition, d.id.offset));
        if i < 15 {
            assert!(member.settle(&d.id));
        } else {
            held.push(d);
        }
    }
    // Longer than the time between two commits.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before: Vec<i64> =
        broker.group_lag(&group, &[&topic]).await.unwrap().iter().map(|l| l.committed.unwrap_or(0)).collect();
    assert_eq!(before.iter().sum::<i64>(), 15, "what is settled is committed while all goes well");

    cluster.run("stop");
    down(&member, true).await;
    let pending = publish(60, 90);
    // What was in flight is finished while no broker is there.
    for d in held.drain(..) {
        assert!(member.settle(&d.id), "an outage takes no partition away");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!pending.is_finished(), "not acknowledged, so not answered");
    let back = Instant::now();
    cluster.run("start");
    for at in pending.await.unwrap() {
        at.unwrap();
    }
    println!("publishing goes on {:?} after the broker's start was asked for", back.elapsed());
    down(&member, false).await;
    // The session may have ended meanwhile; then what was not committed comes again, and late settlements do not count.
    let mut distinct: BTreeSet<_> = seen.iter().copied().collect();
    let again = Instant::now();
    loop {
        let lag: u64 = broker.group_lag(&group, &[&topic]).await.unwrap().iter().map(|l| l.lag()).sum();
        if lag == 0 {
            break;
        }
        assert!(again.elapsed() < PATIENCE, "everything is settled in the end, {lag} are not");
        while let Ok(Some(d)) = timeout(Duration::from_millis(200), deliveries.recv()).await {
            assert!(d.id.offset >= before[d.id.partition as usize], "{} was committed", d.id);
            seen.push((d.id.partition, d.id.offset));
            if member.settle(&d.id) {
                distinct.insert((d.id.partition, d.id.offset));
            }
        }
    }
    assert_eq!(distinct.len(), 90, "nothing lost");
    println!("{} deliveries of 90 records", seen.len());
    member.close().await;
    let mut read = BTreeSet::new();
    while read.len() < 90 {
        match timeout(PATIENCE, reader.recv()).await.expect("the reader goes on, too") {
            Some(ReadEvent::Record(r)) => assert!(read.insert((r.partition, r.offset))),
            Some(ReadEvent::CaughtUp) => {}
            other => panic!("the reader should outlive an outage: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_gone_for_good_ends_the_member() {
    let cluster = Cluster::start();
    let patient = KafkaConfig { connect_timeout: Duration::from_secs(4), ..config(&cluster.bootstrap, &[]) };
    let broker = connect(patient).await;
    let topic = unique("gone");
    broker.create_topics(&[TopicSpec::new(&topic, 1)]).await.unwrap();
    broker.publish(Record::keyed(&topic, "k", "v")).await.unwrap();
    let (member, mut deliveries) = broker.join(GroupSpec::new(unique("g"), &topic, "a", 4)).await.unwrap();
    let mut reader = broker.read(&[&topic]).await.unwrap();
    let held = next(&mut deliveries).await;
    cluster.run("stop");
    let stopped = Instant::now();
    let published = broker.publish(Record::keyed(&topic, "k", "v")).await.unwrap_err();
    assert!(matches!(published, BrokerError::Unreachable { .. }), "{published}");
    assert!(timeout(PATIENCE, deliveries.recv()).await.unwrap().is_none(), "deliveries end");
    assert!(stopped.elapsed() > Duration::from_secs(3), "it kept trying");
    member.close().await;
    let failed = member.status().borrow().failed.clone().expect("and it says why");
    assert!(matches!(&failed, BrokerError::Unreachable { seconds: 4, .. }), "{failed}");
    assert_eq!(failed.severity(), Severity::Fatal);
    assert!(held.cancel.is_cancelled());
    loop {
        match timeout(PATIENCE, reader.recv()).await.unwrap() {
            Some(ReadEvent::Failed(error)) => break assert!(matches!(error, BrokerError::Unreachable { .. })),
            Some(_) => {}
            None => panic!("a reader says why it ends"),
        }
    }
    println!("given up after {:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_that_is_not_there_is_given_up_with_its_address() {
    let nobody = KafkaConfig { connect_timeout: Duration::from_secs(2), ..config("127.0.0.1:1", &[]) };
    let started = Instant::now();
    let error = KafkaBroker::connect(nobody).await.err().unwrap();
    assert!(error.to_string().contains("no Kafka broker at 127.0.0.1:1 answered for 2 s"), "{error}");
    assert!((2..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_properties_that_cannot_be_are_named() {
    let bootstrap = required_bootstrap();
    for (key, value, says) in [
        ("enable.auto.commit", "true", "settled offsets are committed once a second"),
        ("no.such.property", "1", "no.such.property"),
        ("session.timeout.ms", "soon", "session.timeout.ms"),
    ] {
        let error = KafkaBroker::connect(config(&bootstrap, &[(key, value)])).await.err().unwrap();
        assert!(matches!(error, BrokerError::Property { .. }) && error.to_string().contains(says), "{error}");
    }
}

/// A member whose process dies says no goodbye: its partitions move when its session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_gives_a_dead_members_partitions_to_another() {
    let bootstrap = required_bootstrap();
    if let Ok(topic) = std::env::var("BROKER_TEST_VICTIM") {
        return victim(&bootstrap, &topic).await;
    }
    let broker = connect(config(&bootstrap, &[])).await;
    let topic = unique("crash");
    broker.create_topics(&[TopicSpec::new(&topic, 2)]).await.unwrap();
    for i in 0..4 {
        broker.publish(Record::keyed(&topic, "k", "v").to_partition(i % 2)).await.unwrap();
    }
    let this = std::env::current_exe().unwrap();
    let mut victim = Command::new(this);
    victim.args(["--exact", "kafka_gives_a_dead_members_partitions_to_another", "--nocapture"]);
    let mut victim = victim.env("BROKER_TEST_VICTIM", &topic).stdout(std::process::Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while broker.group_members(&topic).await.unwrap().first().is_none_or(|m| m.assignment.len() < 2) {
        assert!(started.elapsed() < PATIENCE, "the other process should have joined");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (heir, mut deliveries) = broker.join(GroupSpec::new(&topic, &topic, "heir", 10)).await.unwrap();
    let mut status = heir.status();
    timeout(PATIENCE, status.wait_for(|s| s.assigned.len() == 1)).await.unwrap().unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let died = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let d = next(&mut deliveries).await;
        seen.insert((d.id.partition, d.id.offset));
        assert!(heir.settle(&d.id));
    }
    println!("takeover after a crash: {:?}", died.elapsed());
    assert!(died.elapsed() < Duration::from_secs(20));
    heir.close().await;
}

/// Takes everything and settles nothing, until it is killed.
async fn victim(bootstrap: &str, topic: &str) {
    let broker = connect(config(bootstrap, &[])).await;
    let (_member, mut deliveries) = broker.join(GroupSpec::new(topic, topic, "victim", 10)).await.unwrap();
    while deliveries.recv().await.is_some() {}
}

/// The group protocol in which the broker assigns (KIP-848).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_speaks_the_new_group_protocol_when_asked() {
    let broker = connect(config(&required_bootstrap(), &[("group.protocol", "consumer")])).await;
    let (topic, group) = (unique("kip848"), unique("g"));
    broker.create_topics(&[TopicSpec::new(&topic, 4)]).await.unwrap();
    for i in 0..40 {
        broker.publish(Record::keyed(&topic, "k", "v").to_partition(i % 4)).await.unwrap();
    }
    let (a, mut to_a) = broker.join(GroupSpec::new(&group, &topic, "a", 4).focused(1)).await.unwrap();
    let (b, mut to_b) = broker.join(GroupSpec::new(&group, &topic, "b", 4).focused(1)).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        let (d, by) = tokio::select! {
            d = next(&mut to_a) => (d, &a),
            d = next(&mut to_b) => (d, &b),
        };
        if by.settle(&d.id) {
            seen.insert((d.id.partition, d.id.offset));
        }
    }
    a.close().await;
    b.close().await;
    let lag: u64 = broker.group_lag(&group, &[&topic]).await.unwrap().iter().map(|l| l.lag()).sum();
    assert_eq!(lag, 0);
}

/// Tasks of a few milliseconds must not wait for the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_a_member_with_little_room_busy() {
    let broker = connect(config(&required_bootstrap(), &[])).await;
    let (topic, group) = (unique("rate"), unique("g"));
    broker.create_topics(&[TopicSpec::new(&topic, 5)]).await.unwrap();
    let began = Instant::now();
    let records = (0..2000).map(|i| Record::keyed(&topic, "k", vec![b'x'; 500]).to_partition(i / 400));
    for at in join_all(records.map(|r| broker.publish(r))).await {
        at.unwrap();
    }
    println!("published 2000 records in {:?}", began.elapsed());
    let (member, mut deliveries) = broker.join(GroupSpec::new(&group, &topic, "a", 2).focused(1)).await.unwrap();
    let mut first = None;
    let mut order = Vec::new();
    for _ in 0..2000 {
        let d = next(&mut deliveries).await;
        first.get_or_insert_with(Instant::now);
        order.push((d.id.partition, d.id.offset));
        assert!(member.settle(&d.id));
    }
    let took = first.unwrap().elapsed();
    println!("took 2000 tasks, two at a time, in {took:?}");
    assert!(order.is_sorted(), "territory by territory");
    assert!(took < Duration::from_secs(20), "{took:?}");
    member.close().await;
}

/// `node topics` and `node group`, as a person sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_topics_and_group_are_shown() {
    use satellite_pipeline::node::{group, topics};
    let broker = connect(config(&required_bootstrap(), &[])).await;
    let (name, g) = (unique("shown"), unique("g"));
    let specs = [TopicSpec::new(&name, 3)];
    let mut out = Vec::new();
    let run = async |command, consent, out: &mut Vec<u8>| topics::run(&*broker, command, &specs, consent, out).await;
    run(topics::TopicsCommand::Create, topics::Consent::Nobody, &mut out).await.unwrap();
    for i in 0..6 {
        broker.publish(Record::keyed(&name, "k", "v").to_partition(i % 2)).await.unwrap();
    }
    let (member, mut deliveries) = broker.join(GroupSpec::new(&g, &name, "worker-1", 10)).await.unwrap();
    for _ in 0..6 {
        let d = next(&mut deliveries).await;
        assert!(d.id.partition == 1 || member.settle(&d.id));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    run(topics::TopicsCommand::List, topics::Consent::Nobody, &mut out).await.unwrap();
    run(topics::TopicsCommand::Describe, topics::Consent::Nobody, &mut out).await.unwrap();
    group::show(&*broker, &g, &[&name], &mut out).await.unwrap();
    member.close().await;
    run(topics::TopicsCommand::Reset, topics::Consent::Given, &mut out).await.unwrap();
    let shown = String::from_utf8(out).unwrap().replace(&name, "TASKS").replace(&g, "GROUP");
    println!("{shown}");
    assert!(shown.contains("group GROUP: 1 members, lag 3"), "{shown}");
    assert!(shown.contains("TASKS 0-2"), "{shown}");
    assert_eq!(shown.matches("created with 3 partitions").count(), 2, "{shown}");
    let told = broker.describe_topics(&[&name]).await.unwrap();
    assert!(told[0].partitions.iter().all(|p| p.high == 0), "a reset topic is empty");
}
