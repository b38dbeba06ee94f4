//! Brokers that stop, crash and come back in the middle of a run, and an output that turns read-only.
//!
//! Contract: the run completes by itself, and gives what an undisturbed one gives: the same bytes, one counted result for
//! each task. What the user sees of an outage is a line at its beginning, one every ten seconds, and one at its end.
//! `OUTAGE_S` (default 15) is how long the brokers are gone. Needs `KAFKA_BOOTSTRAP` as the sign that Kafka may be run;
//! brokers that are stopped are the test's own. Trap: an outage begins while tasks are in flight, or proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/node.rs"]
mod node;

use std::sync::OnceLock;
use std::time::Duration;

use brokers::Brokers;
use cluster::Cluster;
use mount::Tmpfs;
use node::{Ended, Node, Pairs, World};
use satellite_pipeline::demo::server::Knobs;

/// The dataset nobody disturbed.
fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.dataset()
    })
}

fn outage() -> Duration {
    Duration::from_secs(std::env::var("OUTAGE_S").ok().map_or(15, |s| s.parse().expect("OUTAGE_S is a number")))
}

/// Nodes at work on brokers of their own.
struct Run {
    brokers: Brokers,
    cluster: Cluster,
    monitor: Node,
    workers: Vec<Node>,
}

impl Run {
    /// Three workers that have begun, on so many brokers.
    fn midway(nodes: u8) -> Self {
        kafka::required_bootstrap();
        undisturbed();
        let brokers = Brokers::start(nodes);
        let mut cluster = Cluster::on("outage", World::new(), &brokers.bootstrap, &[]);
        cluster.world.set("kafka.replication", nodes.to_string());
        cluster.server.configure(Knobs { latency_ms: 300, mbit: 0 });
        cluster.run(&["--role", "master"], 0);
        let monitor = cluster.start(&["--role", "monitor", "--exit-when-done"]);
        let mut workers: Vec<Node> = ["a", "b", "c"].iter().map(|id| cluster.worker(id)).collect();
        workers[0].until("the second task is finished", |_| cluster.manifests() >= 2);
        assert!(cluster.manifests() < 12, "too late for a fault midway");
        Self { brokers, cluster, monitor, workers }
    }

    /// All end well, and nothing is missing, double or different.
    fn ends_well(self, what: &str) -> Vec<Ended> {
        let ended: Vec<Ended> = self.workers.into_iter().map(|w| w.ends(0)).collect();
        self.monitor.ends(0);
        let results = self.cluster.assert_complete(undisturbed());
        println!("{what}: {results} results of 17 tasks");
        ended
    }
}

/// What a node said about its brokers.
fn about_brokers(log: &str) -> Vec<&str> {
    log.lines().filter(|l| l.contains("Kafka") || l.contains("librdkafka")).collect()
}

#[test]
fn kafka_stopped_midway_and_started_again() {
    let run = Run::midway(1);
    run.brokers.run(&["stop"]);
    std::thread::sleep(outage());
    run.brokers.run(&["start"]);
    for ended in run.ends_well("stopped midway") {
        let lines = about_brokers(&ended.err);
        println!("{}", lines.join("\n"));
        ended.says(&["no Kafka broker answers: still trying", "a Kafka broker answers again"]);
        let most = 8 + 2 * outage().as_secs() as usize / 10;
        assert!(lines.len() <= most, "an outage is said now and then, not {} times", lines.len());
    }
}

#[test]
fn kafka_killed_midway_and_started_at_once() {
    let run = Run::midway(1);
    run.brokers.kill(1);
    run.brokers.run(&["start"]);
    run.ends_well("killed and started at once");
}

#[test]
fn kafka_one_broker_of_three_killed_midway() {
    let run = Run::midway(3);
    // The one that leads the group takes the most with it; which one that is nobody knows: the first to be asked.
    run.brokers.kill(1);
    let described = run.cluster.run(&["topics", "describe"], 0).out;
    println!("{described}");
    for ended in run.ends_well("one of three killed") {
        println!("{}", about_brokers(&ended.err).join("\n"));
    }
}

#[test]
fn kafka_an_output_that_turns_read_only_midway_loses_nothing() {
    let cluster = Cluster::new("readonly");
    undisturbed();
    cluster.server.configure(Knobs { latency_ms: 200, mbit: 0 });
    cluster.run(&["--role", "master"], 0);
    let output = Tmpfs::mount(cluster.output(), "size=512m");
    let mut worker = cluster.worker("w");
    worker.until("the second task is finished", |_| cluster.manifests() >= 2);
    output.make_read_only();
    worker.ends(1).says(&["Read-only file system", "make output.dir writable for the user that runs the node"]);
    let finished = cluster.manifests();
    assert!(finished < 17, "too late for a fault midway");
    assert!(cluster.lag() >= 17 - finished as u64, "a task that is not finished was counted as done");
    assert!(cluster.read("dlq").is_empty(), "the directory is not the tasks' fault");
    // Not yet writable: says so, and takes nothing.
    cluster.worker("w").ends(1).says(&["Read-only file system"]);

    output.change("rw");
    cluster.worker("w").ends(0);
    let results = cluster.assert_complete(undisturbed());
    println!("read-only with {finished} tasks finished: {results} results of 17 tasks");
}
