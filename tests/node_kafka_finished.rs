//! A run that has failed tasks, on a real Kafka: what the finished dataset and the report know of them.
//!
//! Contract: tasks that failed leave nothing in the dataset; only the topics have them. With `--dead-letters`, and with a
//! broker in the configuration of `node report`, every parcel and task of theirs is accounted for with its reason, and
//! letters of another run with the same numbers are not. Needs `KAFKA_BOOTSTRAP` and fails with the remedy without it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::collections::BTreeSet;
use std::fs;

use cluster::Cluster;
use satellite_pipeline::demo::server::{Fault, FaultKind};
use satellite_pipeline::domain::manifest::Manifest;
use serde_json::Value;

/// No image of these paths is there, for good.
fn gone(cluster: &Cluster, path: &str) {
    cluster.server.fault(Fault { path: path.into(), kind: FaultKind::Status(404, None), times: 0 });
}

/// Parcels by state over all classes, as `dataset-parcels.json` has them.
fn parcels(cluster: &Cluster, state: &str) -> u64 {
    let account: Value =
        serde_json::from_slice(&fs::read(cluster.output().join("dataset-parcels.json")).unwrap()).unwrap();
    assert_eq!((&account["reconciled"], &account["parcels"]), (&true.into(), &"all".into()), "{account}");
    let classes = account["classes"].as_object().unwrap().values();
    classes.map(|class| class["states"][state].as_u64().unwrap_or(0)).sum()
}

#[test]
fn kafka_failed_tasks_are_known_to_the_finished_dataset_and_the_report() {
    let mut cluster = Cluster::new("finished");
    cluster.world.set("chips.size", "32").set("run.id", "\"first\"");
    cluster.run(&["--role", "master"], 0);
    gone(&cluster, "*/31/T/BG/*");
    cluster.worker("w").ends(1);
    let manifests = node::files_below(&cluster.output().join(".manifests"));
    let done: BTreeSet<u64> =
        manifests.iter().map(|p| Manifest::parse(&fs::read(p).unwrap()).unwrap().key.task).collect();
    let failed: BTreeSet<u64> = cluster.task_ids().into_keys().filter(|task| !done.contains(task)).collect();
    assert_eq!(cluster.read("dlq").len(), failed.len());
    assert!(failed.len() >= 2 && done.len() >= 2, "{failed:?} failed, {done:?} done");

    let dir = cluster.output().display().to_string();
    let finish = |more: &[&str]| cluster.run(&[&["dataset", "split", &dir], more].concat(), 0).out;
    finish(&[]);
    let (waiting, chips) = (parcels(&cluster, "not_done"), parcels(&cluster, "chip"));
    assert_eq!(parcels(&cluster, "failed"), 0, "nobody was asked");
    let said = finish(&["--dead-letters"]);
    assert!(said.contains("failed") && said.contains("all, and they add up to the plan"), "{said}");
    assert!(waiting > 0 && chips > 0);
    assert_eq!((parcels(&cluster, "failed"), parcels(&cluster, "not_done")), (waiting, 0));
    assert_eq!(parcels(&cluster, "chip"), chips);

    let report = |name: &str, more: &[&str]| {
        let out = cluster.at(name);
        cluster.run(&[&["report", &dir, "--out", &out.display().to_string()], more].concat(), 0);
        fs::read_to_string(out).unwrap()
    };
    let html = report("with.html", &[]);
    assert!(html.contains(&format!("<b>{}</b> of {}", cluster.task_ids().len(), cluster.task_ids().len())), "tasks");
    for task in &failed {
        assert!(html.contains(&format!("<b>task {task}</b>")), "task {task} has failed");
    }
    assert_eq!(html.matches("failed_download").count(), failed.len());
    assert!(html.contains("unreadable"), "and why");
    let without = report("without.html", &["--set", "kafka.bootstrap_servers=embedded"]);
    assert!(without.contains("Failed tasks leave nothing in a dataset") && !without.contains("failed_download"));

    // Another run in the same topics fails altogether: its letters have the same numbers.
    gone(&cluster, "*.tif");
    let other = cluster.at("other").display().to_string();
    let other = ["--set", "run.id=other", "--set", &format!("output.dir={other}")];
    cluster.run(&[&["--role", "master"], &other[..]].concat(), 0);
    cluster.run(&[&["--role", "worker", "--exit-when-done"], &other[..]].concat(), 1);
    assert!(cluster.read("dlq").len() > 2 * failed.len());
    finish(&["--dead-letters"]);
    assert_eq!((parcels(&cluster, "failed"), parcels(&cluster, "chip")), (waiting, chips), "not this run's letters");
    assert_eq!(report("again.html", &[]), html, "nor this run's tasks and results");
}
