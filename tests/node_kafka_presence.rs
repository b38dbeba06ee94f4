//! Workers on a real Kafka that idle, leave, and die, as the monitor sees them; and whether they say they can work.
//!
//! Contract: a killed worker is lost after three of its intervals, one that was told to go has gone, and the last state
//! survives the monitor. Trap: the monitor shows what the heartbeats say, so it is up to an interval behind.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/http.rs"]
mod http;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::Cluster;
use http::{get, metrics_at, samples, sum};
use node::Node;
use serde_json::Value;

/// Presence by worker, out of the last line a monitor printed.
fn presence(monitor: &Node) -> BTreeMap<String, String> {
    let printed = monitor.printed();
    let last = printed.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let workers = last.as_ref().and_then(|view| view["presence"].as_array()).cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    workers.iter().map(|w| (text(&w["worker_id"]), text(&w["presence"]))).collect()
}

fn is(monitor: &Node, wanted: [(&str, &str); 3]) -> bool {
    let seen = presence(monitor);
    wanted.iter().all(|(worker, what)| seen.get(*worker).is_some_and(|seen| seen == what))
}

#[test]
fn kafka_idle_gone_and_lost_workers_are_told_apart() {
    let mut cluster = Cluster::new("presence");
    cluster.world.set("worker.heartbeat_s", "0.5").set("metrics.listen", "\"127.0.0.1:0\"");
    cluster.world.set("output.require_marker", "true");
    std::fs::create_dir(cluster.output()).unwrap();
    let marker = cluster.output().join(".satellite-output");
    std::fs::write(&marker, "").unwrap();

    let watch: [&str; 4] = ["--role", "monitor", "--log", "json"];
    let mut monitor = cluster.start(&watch);
    let [mut a, b, mut c] = ["a", "b", "c"].map(|id| cluster.start(&["--role", "worker", "--worker-id", id]));
    monitor.until("three workers idle", |m| is(m, [("a", "idle"), ("b", "idle"), ("c", "idle")]));
    cluster.server.configure(satellite_pipeline::demo::server::Knobs { latency_ms: 100, mbit: 0 });
    cluster.run(&["--role", "master"], 0);
    monitor.until("somebody works", |m| presence(m).values().any(|what| what == "working"));
    monitor
        .until("the run is complete", |m| m.printed().lines().last().is_some_and(|l| l.contains("\"complete\":true")));
    monitor.until("three workers idle again", |m| is(m, [("a", "idle"), ("b", "idle"), ("c", "idle")]));

    // What the metrics of two monitored roles say.
    let shown = samples(&get(&metrics_at(&mut monitor), "/metrics").1);
    assert_eq!(sum(&shown, "satellite_run_workers", &["activity=\"idle\""]), 3.0);
    assert_eq!(sum(&shown, "satellite_run_tasks", &["status=\"planned\""]), 17.0);
    assert_eq!(get(&metrics_at(&mut monitor), "/readyz"), (200, "broker: ok\n".into()));

    let since = Instant::now();
    a.until("it has beaten", |_| true);
    a.kill();
    b.signal("TERM");
    b.ends(0);
    monitor.until("one is lost, one gone", |m| is(m, [("a", "lost"), ("b", "gone"), ("c", "idle")]));
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    let later = cluster.start(&watch);
    let mut again = later;
    again.until("another monitor sees the same", |m| is(m, [("a", "lost"), ("b", "gone"), ("c", "idle")]));

    // The share goes away under an idle worker, and comes back.
    let at = metrics_at(&mut c);
    assert_eq!(get(&at, "/readyz"), (200, "broker: ok\noutput: ok\n".into()));
    std::fs::remove_file(&marker).unwrap();
    c.until("it says that it cannot work", |_| {
        let (status, said) = get(&at, "/readyz");
        status == 503 && said.contains("output: output.dir ") && said.contains("holds no file `.satellite-output`")
    });
    assert_eq!(get(&at, "/healthz").0, 200, "it lives all the same");
    std::fs::write(&marker, "").unwrap();
    c.until("it can work again", |_| get(&at, "/readyz").0 == 200);
}
