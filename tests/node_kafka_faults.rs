//! What the roles make of foreign, broken and undeliverable messages, and of a broker that is not there.
//!
//! Contract: a message that is no task ends in the dead-letter topic with the reason and its old place in the headers, and
//! the group goes on; a node that cannot write leaves the offsets of its tasks where they are. Tests named `kafka_` need
//! `KAFKA_BOOTSTRAP` and fail with the remedy without it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::Cluster;
use mount::Tmpfs;
use node::{World, files_below};
use serde_json::{Value, json};

#[test]
fn kafka_a_task_with_the_original_fields_alone_is_done() {
    let cluster = Cluster::new("original");
    cluster.run(&["topics", "create"], 0);
    let plan: Value = serde_json::from_str(&cluster.run(&["plan", "--json"], 0).out).unwrap();
    assert!(plan["tasks"].as_u64().unwrap() > 0);
    let probabilities: BTreeMap<String, f64> = (1..=8).map(|c| (c.to_string(), 1.0)).collect();
    let task = |id: u64, bbox: [f64; 4], sampling_probs: Value| {
        json!({
            "task_id": id, "bbox": bbox, "grid_step": 0.02, "polygon_count": 40,
            "class_distribution": {"5": 20, "1": 4}, "sampling_probs": sampling_probs, "target_samples": {"5": 7, "1": 1},
        })
    };
    cluster.produce(0, task(1, [-0.02, 41.60, 0.0, 41.62], json!(probabilities)).to_string().as_bytes());
    // Mode `basic` of the original sends null.
    cluster.produce(7, task(2, [0.0, 41.60, 0.02, 41.62], Value::Null).to_string().as_bytes());
    // A cell without a parcel.
    cluster.produce(7, task(3, [10.0, 45.0, 10.02, 45.02], json!(probabilities)).to_string().as_bytes());
    cluster.worker("w").ends(0);
    cluster.verify();
    let results: BTreeMap<u64, Value> = cluster
        .read("results")
        .iter()
        .map(|r| serde_json::from_slice::<Value>(&r.payload).unwrap())
        .map(|r| (r["task_id"].as_u64().unwrap(), r))
        .collect();
    for id in [1, 2] {
        let result = &results[&id];
        assert_eq!((&result["status"], &result["worker_id"]), (&"success".into(), &"w".into()), "{result}");
        assert!(result["chips_saved"].as_u64().unwrap() > 0);
        let per_class = result["chips_per_class"].as_object().unwrap().values().map(|n| n.as_u64().unwrap());
        assert_eq!(per_class.sum::<u64>(), result["chips_saved"].as_u64().unwrap());
    }
    assert_eq!(results[&3]["status"], "skipped_few_polygons");
    let saved: u64 = results.values().map(|r| r["chips_saved"].as_u64().unwrap()).sum();
    assert_eq!(saved, (cluster.dataset().len() / 2) as u64);
    assert!(cluster.read("dlq").is_empty());
}

#[test]
fn kafka_messages_that_are_no_tasks_are_put_aside_and_the_group_goes_on() {
    let cluster = Cluster::new("broken");
    cluster.run(&["--role", "master"], 0);
    let bbox = [-0.02, 41.60, 0.0, 41.62];
    let broken: [(&[u8], &str); 7] = [
        (b"{not json", "task message is not a task: "),
        (b"", "task message is not a task: "),
        (br#"{"task_id": 1}"#, "missing field `bbox`"),
        (
            br#"{"task_id": 1, "bbox": [3, 2, 1, 0]}"#,
            "task field `bbox`: [3, 2, 1, 0] is not [west, south, east, north]",
        ),
        (&json!({"task_id": 1, "bbox": bbox, "schema": 99}).to_string().into_bytes().leak()[..], "upgrade the node"),
        (&json!({"task_id": 1, "bbox": bbox, "run_id": "../../etc"}).to_string().into_bytes().leak()[..], "run_id"),
        (&vec![b'x'; 100_000].leak()[..], "task message of 100000 bytes is larger than the 65536 allowed"),
    ];
    for (payload, _) in &broken {
        cluster.produce(3, payload);
    }
    // A worker that had to put something aside says so with its exit code.
    cluster.worker("w").ends(1);
    let letters = cluster.read("dlq");
    assert_eq!(letters.len(), broken.len());
    for ((payload, reason), letter) in broken.iter().zip(&letters) {
        let header = |name: &str| {
            let found = letter.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, v)| String::from_utf8(v.to_vec()).unwrap())
        };
        let said = header("dlq.reason").unwrap();
        assert!(said.contains(reason), "{said}, not {reason}");
        assert_eq!((header("dlq.topic"), header("dlq.partition")), (Some(cluster.topic("tasks")), Some("3".into())));
        assert!(header("dlq.offset").unwrap().parse::<i64>().is_ok());
        match payload.len() {
            100_000 => assert_eq!((header("dlq.oversize").unwrap().as_str(), letter.payload.len()), ("100000", 0)),
            _ => assert_eq!(letter.payload, *payload, "the message is kept as it was"),
        }
    }
    assert_eq!(cluster.manifests(), 17, "all tasks around them were done");
    assert_eq!(cluster.lag(), 0);
    cluster.verify();
}

#[test]
fn kafka_a_full_disk_leaves_the_offsets_where_they_are() {
    let cluster = Cluster::new("full");
    cluster.run(&["--role", "master"], 0);
    let output = Tmpfs::mount(cluster.output(), "size=8m");
    let since = Instant::now();
    let worker = cluster.worker("w").ends(1);
    worker.says(&["node: writer: ", "No space left on device", "free space or enlarge the quota"]);
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    let (finished, results) = (cluster.manifests() as u64, cluster.read("results").len() as u64);
    assert!(results <= finished && finished < 17, "{results} results of {finished} finished tasks");
    assert!(cluster.lag() >= 17 - finished, "a task that is not finished was counted as done");
    assert!(cluster.read("dlq").is_empty(), "a full disk is not the tasks' fault");

    output.change("size=512m");
    cluster.worker("w").ends(0);
    cluster.verify();
    assert_eq!((cluster.manifests(), cluster.lag()), (17, 0));
    cluster.start(&["--role", "monitor", "--exit-when-done"]).ends(0);
}

#[test]
fn kafka_a_task_that_fails_is_reported_put_aside_and_counted() {
    let cluster = Cluster::new("failing");
    cluster.run(&["--role", "master"], 0);
    // Every asset is gone, for good.
    cluster.server.fault(satellite_pipeline::demo::server::Fault {
        path: "*.tif".into(),
        kind: satellite_pipeline::demo::server::FaultKind::Status(404, None),
        times: 0,
    });
    cluster.worker("w").ends(1);
    let monitor = cluster.run(&["--role", "monitor", "--exit-when-done"], 1);
    monitor.says(&["node: 15 of 17 tasks failed; see above"]);
    assert!(monitor.out.contains("failed_download"), "{}", monitor.out);
    let letters = cluster.read("dlq");
    assert_eq!(letters.len(), 15);
    for letter in letters {
        let task: Value = serde_json::from_slice(&letter.payload).unwrap();
        assert!(task["task_id"].is_u64(), "the raw task is kept");
        let (_, reason) = letter.headers.iter().find(|(n, _)| n == "dlq.reason").unwrap();
        assert!(String::from_utf8_lossy(reason).contains("unreadable"), "{reason:?}");
    }
    assert!(files_below(&cluster.output().join("images")).is_empty());
    assert_eq!(cluster.lag(), 0);
}

#[test]
fn a_broker_that_is_not_there_is_waited_for_and_then_given_up() {
    let mut world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.set("kafka.bootstrap_servers", format!("\"{free}\"")).set("kafka.connect_timeout_s", "3");
    let roles = ["master", "worker", "monitor", "all"];
    let nodes = roles.map(|role| (Instant::now(), world.start(&["--role", role, "--exit-when-done"])));
    for (since, node) in nodes {
        let ended = node.ends(1);
        assert!(since.elapsed() >= Duration::from_secs(3));
        assert_eq!(ended.err.matches("no Kafka broker answers: still trying").count(), 1, "{}", ended.err);
        ended.says(&[
            &format!("node: no Kafka broker at {free} answered for 3 s"),
            "is it running and is kafka.bootstrap_servers right?",
        ]);
    }
    world.run(&["topics", "list"], 1).says(&["no Kafka broker at"]);
    world.run(&["group"], 1).says(&["no Kafka broker at"]);
    world.set("kafka.bootstrap_servers", "\"embedded\"");
    for role in ["master", "worker", "monitor"] {
        world.run(&["--role", role], 2).says(&["kafka.bootstrap_servers"]);
    }
}
