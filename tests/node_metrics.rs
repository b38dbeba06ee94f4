//! What a node tells of itself: metrics while it works, and a log in which every event of a task says whose it is.
//!
//! Contract: the numbers are held against those of the server that gave the scenes, and against the dataset. Trap: metrics
//! are read while the node works, so they are compared as bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/http.rs"]
mod http;
#[path = "support/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};

use http::{get, metrics_at, samples, sum};
use node::World;
use satellite_pipeline::demo::server::Knobs;
use serde_json::Value;

#[test]
fn metrics_say_what_has_been_done_and_who_waits() {
    let mut world = World::new();
    world.set("metrics.listen", "\"127.0.0.1:0\"");
    world.server.configure(Knobs { latency_ms: 150, mbit: 0 });
    let mut node = world.start(&["--role", "all", "--exit-when-done"]);
    let at = metrics_at(&mut node);
    assert_eq!(get(&at, "/healthz"), (200, "ok\n".into()));
    node.until("five tasks are finished", |_| world.manifests() >= 5);
    let asked_before = world.server.stats().total().requests as f64;
    let (status, text) = get(&at, "/metrics");
    let finished = world.manifests() as f64;
    let asked_after = world.server.stats().total().requests as f64;
    assert_eq!(status, 200);
    let found = samples(&text);
    let total = |name: &str, labels: &[&str]| sum(&found, name, labels);

    let done = total("satellite_tasks_total", &[]);
    assert!((1.0..=finished).contains(&done), "{done} of {finished}");
    // Tasks go on ending while the page is made.
    assert!((total("satellite_task_seconds_count", &[]) - done).abs() <= 4.0);
    assert!(total("satellite_chips_total", &[]) >= done / 2.0);
    let requests = total("satellite_http_requests_total", &["for=\"images\"", "status=\"2xx\""]);
    assert!(requests >= 1.0 && requests <= asked_after, "{requests}, the server counted {asked_after}");
    let all = total("satellite_http_requests_total", &["status=\"2xx\""]);
    assert!(
        all + 32.0 >= asked_before && all <= asked_after,
        "{asked_before} <= {all} + in flight, {all} <= {asked_after}"
    );
    assert!(total("satellite_http_received_bytes_total", &[]) > 100_000.0);
    assert!(total("satellite_cache_misses_total", &[]) >= 1.0);
    assert_eq!(total("satellite_run_tasks", &["status=\"planned\""]), 17.0);
    assert!(total("satellite_run_chips_target", &["name=\"olives\""]) >= 1.0);
    for lane in ["intake", "sampler", "scenes", "pixels", "rasteriser", "writer"] {
        let label = format!("lane=\"{lane}\"");
        for what in ["wait", "service", "blocked"] {
            assert!(total(&format!("satellite_lane_{what}_seconds_count"), &[&label]) >= 1.0, "{lane} {what}");
        }
        let (size, used) = (total("satellite_lane_size", &[&label]), total("satellite_lane_messages", &[&label]));
        assert!(size >= 1.0 && (0.0..=size).contains(&used), "{lane}: {used} of {size}");
    }
    let buckets =
        found.keys().filter(|k| k.starts_with("satellite_lane_service_seconds_bucket") && k.contains("pixels"));
    assert!(buckets.count() > 10, "times are histograms, which can be summed over workers");
    assert!(total("process_resident_memory_bytes", &[]) > 1e7);
    let helped: BTreeSet<&str> = text.lines().filter_map(|l| l.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let typed: BTreeSet<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(typed.difference(&helped).collect::<Vec<_>>(), Vec::<&&str>::new(), "metrics nobody explains");
    assert_eq!(get(&at, "/readyz"), (200, "broker: ok\noutput: ok\n".into()));
    node.ends(0);
}

#[test]
fn every_event_of_a_task_carries_task_worker_and_stage() {
    let mut world = World::new();
    world.set("worker.id", "\"w7\"");
    let ended = world.start_with(
        &["--role", "all", "--exit-when-done", "--log", "json"],
        &[("NODE__LOG__FILTER", "info,satellite_pipeline=debug")],
    );
    let ended = ended.ends(0);
    let mut stages: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for line in ended.err.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let room = event["target"].as_str().unwrap();
        let stage = room.strip_prefix("satellite_pipeline::actors::");
        let told = ["intake", "sampler", "scenes", "pixels", "rasteriser", "writer", "settler"];
        let Some(stage) = stage.filter(|stage| told.contains(stage)) else { continue };
        let span = &event["span"];
        assert_eq!((&span["worker"], &span["stage"]), (&"w7".into(), &stage.into()), "{line}");
        stages.entry(span["task_id"].as_u64().unwrap_or_else(|| panic!("{line}"))).or_default().insert(stage.into());
    }
    assert_eq!(stages.keys().copied().collect::<Vec<_>>(), (1..=17).collect::<Vec<_>>());
    let whole = stages.values().filter(|s| s.len() == 7).count();
    let plan: Value = serde_json::from_str(&world.run(&["plan", "--json"], 0).out).unwrap();
    assert!(whole >= 10 && plan["tasks"] == 17, "{stages:?}");
}

#[test]
fn without_an_address_nothing_is_served_and_a_wrong_one_is_named() {
    let mut world = World::new();
    let quiet = world.run_all();
    assert!(!quiet.err.contains("metrics at"));
    world.set("metrics.listen", "\"192.0.2.7:9464\"");
    world.run(&["--role", "all"], 2).says(&["metrics.listen: 192.0.2.7:9464: "]);
}
