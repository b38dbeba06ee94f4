//! Master, workers and monitor as processes on a real Kafka.
//!
//! Contract: every test needs `KAFKA_BOOTSTRAP` and fails with the remedy without it; each has topics and a group of its
//! own. However many workers there are, and whatever happens to them, the dataset is the one a single process makes.
//! Trap: a worker believes that all is done after ten quiet seconds, so every complete run takes longer than that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::sync::OnceLock;

use cluster::Cluster;
use node::{Node, Pairs, World, assert_same};
use satellite_pipeline::adapters::broker::{Broker as _, ReadRecord, Record};
use satellite_pipeline::demo::server::Knobs;
use serde_json::Value;

/// The dataset that one process makes without any broker.
fn alone() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.dataset()
    })
}

#[test]
fn kafka_three_workers_make_what_one_makes() {
    let cluster = Cluster::new("three");
    let monitor = cluster.start(&["--role", "monitor", "--exit-when-done", "--log", "json"]);
    let master = cluster.run(&["--role", "master"], 0);
    assert!(master.out.contains("partitions 15"), "{}", master.out);
    let mut workers: Vec<Node> = ["a", "b", "c"].iter().map(|id| cluster.worker(id)).collect();
    let shown = || cluster.run(&["group"], 0).out;
    // A third of the partitions each, once the group has settled.
    workers[0].until("all three have partitions", |_| {
        let (group, topic) = (shown(), cluster.topic("tasks"));
        let share = |id: &str| group.lines().any(|l| l.starts_with(id) && l.contains(" 5 ") && l.contains(&topic));
        group.contains(": 3 members") && ["a", "b", "c"].into_iter().all(share)
    });
    for worker in workers {
        worker.ends(0);
    }
    let watched = monitor.ends(0);
    let last: Value = serde_json::from_str(watched.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["complete"], &last["tasks_done"]), (&true.into(), &17.into()));
    assert_eq!(last["chips"].as_u64().unwrap(), (alone().len() / 2) as u64);
    cluster.verify();
    assert_same(&cluster.dataset(), alone());
    assert_eq!(cluster.lag(), 0);

    // One that is started later reads the same from the topics.
    let again = cluster.run(&["--role", "monitor", "--exit-when-done", "--log", "json"], 0);
    let again: Value = serde_json::from_str(again.out.lines().last().unwrap()).unwrap();
    for field in ["run_id", "tasks_done", "statuses", "chips", "workers"] {
        assert_eq!(again[field], last[field], "{field}");
    }
    // Rates are of the moment.
    let counted = |view: &Value| {
        let mut classes = view["classes"].as_array().unwrap().clone();
        classes.iter_mut().for_each(|class| drop(class.as_object_mut().unwrap().remove("chips_per_s")));
        classes
    };
    assert_eq!(counted(&again), counted(&last));
    let listed = cluster.run(&["topics", "list"], 0).out;
    assert!(listed.lines().any(|l| l.contains(&cluster.topic("tasks")) && l.contains("15")), "{listed}");
    let described = cluster.run(&["topics", "describe"], 0).out;
    assert!(described.lines().filter(|l| l.contains(&cluster.topic("tasks"))).count() >= 15, "{described}");
    cluster.run(&["topics", "delete"], 2).says(&["standard input is not a terminal: add --yes"]);
    let gone = cluster.run(&["topics", "delete", "--yes"], 0).out;
    assert_eq!(gone.matches(" deleted").count(), 5, "{gone}");
}

#[test]
fn kafka_one_worker_alone_and_a_second_run_that_has_nothing_to_do() {
    let cluster = Cluster::new("one");
    cluster.run(&["--role", "master"], 0);
    cluster.worker("only").ends(0);
    cluster.verify();
    assert_same(&cluster.dataset(), alone());
    cluster.run(&["--role", "master"], 0).says(&["17 of 17 tasks were published before"]);
    assert!(cluster.task_ids().values().all(|n| *n == 1));

    // Everything forgotten but the dataset: the tasks come again and are settled from their manifests.
    cluster.run(&["topics", "reset", "--yes"], 0);
    cluster.run(&["--role", "master"], 0);
    cluster.server.reset();
    cluster.worker("only").ends(0);
    assert_eq!(cluster.server.stats().total().requests, 0);
    let results = cluster.read("results");
    assert_eq!(results.len(), 17);
    for record in results {
        let result: Value = serde_json::from_slice(&record.payload).unwrap();
        let original = [
            "task_id",
            "worker_id",
            "bbox",
            "chips_saved",
            "chips_per_class",
            "status",
            "target_samples",
            "sampling_probs",
        ];
        assert!(original.iter().all(|field| !result[field].is_null()), "{result}");
    }
    assert_same(&cluster.dataset(), alone());
}

#[test]
fn kafka_a_killed_master_is_completed_by_the_next_one() {
    let cluster = Cluster::new("master");
    for moment in ["INFO", "parcels read", "plan published"] {
        let mut master = cluster.start(&["--role", "master", "--log", "text"]);
        master.until(moment, |n| n.log().contains(moment));
        master.kill();
    }
    cluster.run(&["--role", "master"], 0);
    let all = cluster.read("tasks");
    assert_eq!(cluster.task_ids(), (1..=17).map(|id| (id, 1)).collect());

    // A master that died after every third task.
    let half = Cluster::new("half");
    half.run(&["topics", "create"], 0);
    for record in all.iter().step_by(3) {
        let copy = Record::keyed(half.topic("tasks"), record.key.clone().unwrap(), record.payload.clone());
        half.runtime.block_on(half.broker.publish(copy.to_partition(record.partition))).unwrap();
    }
    half.run(&["--role", "master"], 0).says(&["6 of 17 tasks were published before"]);
    let place = |r: &ReadRecord| (r.partition, r.key.clone(), r.payload.clone());
    let sorted = |records: &[ReadRecord]| records.iter().map(place).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(half.read("tasks").len(), 17);
    assert_eq!(sorted(&half.read("tasks")), sorted(&all), "the same tasks in the same partitions");
}

#[test]
fn kafka_workers_come_and_go() {
    let cluster = Cluster::new("comego");
    cluster.server.configure(Knobs { latency_ms: 150, mbit: 0 });
    cluster.run(&["--role", "master"], 0);
    let mut first = cluster.worker("first");
    first.until("the first task is finished", |_| cluster.manifests() >= 1);
    let mut second = cluster.worker("second");
    first.until("a third task is finished", |_| cluster.manifests() >= 3);
    first.kill();
    second.until("the second one works", |n| n.log().contains("task done"));
    second.signal("TERM");
    second.ends(0).says(&["SIGTERM: finishing what is in flight", "worker is down"]);
    assert!(cluster.manifests() < 17, "the second worker was to leave midway");
    let third = cluster.worker("third");
    cluster.start(&["--role", "monitor", "--exit-when-done"]).ends(0);
    third.ends(0);
    cluster.verify();
    assert_same(&cluster.dataset(), alone());
    assert_eq!(cluster.lag(), 0);
}
