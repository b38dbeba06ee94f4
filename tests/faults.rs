//! Pull any plug, get the same dataset: whole nodes on a real Kafka, killed at every named point of the
//! road, stopped and woken as zombies, fed by a server in every kind of trouble.
//!
//! Each run ends with `node verify`, one counted result for every planned task, and the comparison, byte by
//! byte, with the dataset of an undisturbed run. `FAULTS_KILLS` (default 34: each point twice) is the number
//! of kills; `scripts/faults` asks for more. Built with the feature `failpoints`; needs `KAFKA_BOOTSTRAP`.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use cluster::Cluster;
use node::{Node, Pairs, World, assert_same};
use satellite_pipeline::adapters::failpoint::POINTS;
use satellite_pipeline::demo::server::{Fault, FaultKind};
use serde_json::Value;

/// The dataset nobody disturbed.
fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.verify();
        world.dataset()
    })
}

/// What a disturbed run is held against.
#[derive(Debug, Default)]
struct Account {
    runs: usize,
    kills: usize,
    tasks: usize,
    chips: usize,
}

impl Account {
    /// Verifies a finished run and adds it up.
    fn close(&mut self, cluster: &Cluster) {
        cluster.verify();
        let dataset = cluster.dataset();
        assert_same(&dataset, undisturbed());
        let planned = cluster.task_ids();
        let mut counted: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for record in cluster.read("results") {
            let result: Value = serde_json::from_slice(&record.payload).unwrap();
            let saved = format!("{} {}", result["status"], result["chips_per_class"]);
            counted.entry(result["task_id"].as_u64().unwrap()).or_default().insert(saved);
        }
        assert_eq!(counted.len(), planned.len(), "every planned task has a result");
        assert!(counted.values().all(|said| said.len() == 1), "a task has one result, however often it is said");
        assert!(cluster.read("dlq").is_empty(), "no task was given up");
        assert_eq!(cluster.lag(), 0);
        self.runs += 1;
        self.tasks += planned.len();
        self.chips += dataset.len() / 2;
    }
}

/// How often a point may be passed before the kill: different tasks and chips are hit in different rounds.
fn failpoints(point: &str, round: usize) -> String {
    // Points that each chip passes come more often than those of a task.
    let per_chip = ["rasteriser", "writer", "commit.half"].iter().any(|p| point.starts_with(p));
    let passes = round * if per_chip { 7 } else { 2 };
    if passes == 0 { format!("{point}=1*return") } else { format!("{point}={passes}*off->1*return") }
}

fn doomed(cluster: &Cluster, id: &str, point: &str, round: usize) -> Node {
    let args = ["--role", "worker", "--worker-id", id, "--exit-when-done"];
    cluster.start_with(&args, &[("FAILPOINTS", &failpoints(point, round))])
}

#[test]
fn kafka_killed_at_every_point_of_the_road() {
    let kills: usize = std::env::var("FAULTS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2 * POINTS.len());
    let mut account = Account::default();
    let mut plan = (0..kills).map(|i| (POINTS[i % POINTS.len()], i / POINTS.len())).peekable();
    while plan.peek().is_some() {
        let mut cluster = Cluster::new("kill");
        // Many workers die here on purpose, often with the same task in hand.
        cluster.world.set("worker.max_attempts", "1000");
        cluster.run(&["--role", "master"], 0);
        // A handful of deaths in each run, one worker after the other; then one that is left alone.
        for (number, (point, round)) in plan.by_ref().take(6).enumerate() {
            let ended = doomed(&cluster, &format!("w{number}"), point, round).end();
            match ended.code {
                None => account.kills += 1,
                // The point was not reached as often: the work was done before.
                Some(0) => {}
                other => panic!("{point}: exit code {other:?}\n{}", ended.err),
            }
        }
        cluster.worker("last").ends(0);
        account.close(&cluster);
    }
    println!("killed at every point: {account:?}, lost 0, duplicated 0, orphaned 0, byte differences 0");
    assert!(account.kills >= kills * 2 / 3, "{account:?}: too few points were reached");
}

#[test]
fn kafka_a_zombie_that_wakes_up_publishes_nothing_again() {
    let mut account = Account::default();
    let mut cluster = Cluster::new("zombie");
    cluster.world.set("worker.tasks_in_flight", "2");
    cluster.run(&["--role", "master"], 0);
    let mut zombie = cluster.worker("zombie");
    zombie.until("it has begun", |n| n.log().contains("task done"));
    zombie.signal("STOP");
    // Longer than the session: its partitions go to the other one, which does the zombie's tasks again.
    let other = cluster.worker("other");
    std::thread::sleep(Duration::from_secs(9));
    zombie.signal("CONT");
    other.ends(0);
    zombie.ends(0);
    account.close(&cluster);
    println!("zombie: {account:?}, lost 0, duplicated 0, orphaned 0, byte differences 0");
}

#[test]
fn kafka_workers_killed_from_outside_at_random_while_others_go_on() {
    let mut account = Account::default();
    for round in 0..3u64 {
        let mut cluster = Cluster::new("random");
        cluster.world.set("worker.max_attempts", "1000");
        cluster.run(&["--role", "master"], 0);
        let survivor = cluster.worker("survivor");
        for i in 0..3 {
            let victim = cluster.worker(&format!("victim{i}"));
            std::thread::sleep(Duration::from_millis(300 + (round * 7 + i * 13) % 10 * 130));
            victim.kill();
            account.kills += 1;
        }
        survivor.ends(0);
        account.close(&cluster);
    }
    println!("killed from outside: {account:?}, lost 0, duplicated 0, orphaned 0, byte differences 0");
}

#[test]
fn kafka_a_server_in_trouble_delays_the_dataset_and_does_not_change_it() {
    let mut account = Account::default();
    let kinds = [
        FaultKind::Status(503, Some(1)),
        FaultKind::Status(429, Some(1)),
        FaultKind::Status(500, None),
        FaultKind::Reset,
        FaultKind::Truncate,
        FaultKind::WrongRange,
        FaultKind::Slow(400),
    ];
    let mut cluster = Cluster::new("trouble");
    cluster.world.set("imagery.retries", "6").set("stac.retries", "6");
    for (i, kind) in kinds.into_iter().enumerate() {
        let path = if matches!(kind, FaultKind::WrongRange | FaultKind::Truncate) { "*.tif" } else { "*" };
        cluster.server.fault(Fault { path: path.into(), kind, times: 3 + i as u32 });
    }
    cluster.run(&["--role", "master"], 0);
    cluster.worker("w").ends(0);
    account.close(&cluster);
    println!("server in trouble: {account:?}, lost 0, duplicated 0, orphaned 0, byte differences 0");
}
