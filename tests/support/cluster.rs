//! Nodes that meet on a real Kafka: a world with topics and a group of its own.
//!
//! Contract: [`Cluster::new`] needs `KAFKA_BOOTSTRAP`, and fails with the remedy without it; [`Cluster::on`] takes any
//! other Kafka. Used with `support/kafka.rs` and
//! `support/node.rs`. Trap: a dead member keeps its partitions for `session.timeout.ms`, here six seconds.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use satellite_pipeline::adapters::broker::{Broker as _, KafkaBroker, ReadEvent, ReadRecord};
use serde_json::Value;

use super::kafka;
use super::node::{Node, Pairs, World, assert_same};

/// A world whose nodes meet on Kafka.
pub struct Cluster {
    pub world: World,
    pub broker: KafkaBroker,
    /// What the names of its topics and of its group begin with.
    pub name: String,
    bootstrap: String,
}

impl std::ops::Deref for Cluster {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl Cluster {
    /// On the Kafka that serves all tests, with names that begin with `what`.
    pub fn new(what: &str) -> Self {
        Self::on(what, World::new(), &kafka::required_bootstrap(), &[])
    }

    /// On a Kafka of the caller's choice, with properties for its nodes and for the test itself.
    pub fn on(what: &str, mut world: World, bootstrap: &str, properties: &[(&str, &str)]) -> Self {
        let name = kafka::unique(what);
        world.set("kafka.bootstrap_servers", format!("{bootstrap:?}"));
        for (key, suffix) in [
            ("tasks_topic", "tasks"),
            ("results_topic", "results"),
            ("dlq_topic", "dlq"),
            ("control_topic", "control"),
            ("status_topic", "status"),
        ] {
            world.set(&format!("kafka.{key}"), format!("\"{name}-{suffix}\""));
        }
        world.set("kafka.group", format!("\"{name}\""));
        let broker = world.runtime.block_on(KafkaBroker::connect(kafka::config(bootstrap, properties))).unwrap();
        let mut cluster = Self { world, broker, name, bootstrap: bootstrap.into() };
        cluster.set_properties(properties);
        cluster
    }

    /// What its nodes say to Kafka from now on.
    pub fn set_properties(&mut self, properties: &[(&str, &str)]) {
        let all = properties.iter().map(|(key, value)| format!("{key:?} = {value:?}"));
        let all: Vec<String> = ["\"session.timeout.ms\" = \"6000\"".to_owned()].into_iter().chain(all).collect();
        self.world.set("kafka.properties", format!("{{ {} }}", all.join(", ")));
    }

    /// The name of one of its topics: `tasks`, `results`, `dlq`, `control`, `status`.
    pub fn topic(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Starts a worker that ends when the work is done.
    pub fn worker(&self, id: &str) -> Node {
        self.start(&["--role", "worker", "--worker-id", id, "--exit-when-done"])
    }

    /// Everything a topic holds.
    pub fn read(&self, suffix: &str) -> Vec<ReadRecord> {
        self.runtime.block_on(async {
            let topic = self.topic(suffix);
            let mut events = self.broker.read(&[&topic]).await.unwrap();
            let mut all = Vec::new();
            while let Some(event) = events.recv().await {
                match event {
                    ReadEvent::Record(record) => all.push(record),
                    ReadEvent::CaughtUp => break,
                    ReadEvent::Failed(error) => panic!("{error}"),
                }
            }
            all
        })
    }

    /// Number of each task the topic holds.
    pub fn task_ids(&self) -> BTreeMap<u64, usize> {
        let mut ids = BTreeMap::new();
        for record in self.read("tasks") {
            let task: Value = serde_json::from_slice(&record.payload).unwrap();
            *ids.entry(task["task_id"].as_u64().unwrap()).or_default() += 1;
        }
        ids
    }

    /// Publishes a message without a key, as any program might.
    pub fn produce(&self, partition: i32, payload: &[u8]) {
        use rdkafka::producer::{FutureProducer, FutureRecord};
        let mut config = rdkafka::ClientConfig::new();
        let producer: FutureProducer = config.set("bootstrap.servers", &self.bootstrap).create().unwrap();
        let topic = self.topic("tasks");
        let record = FutureRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(payload);
        self.runtime.block_on(producer.send(record, Duration::from_secs(30))).unwrap();
    }

    /// What `node group` says the group is behind by.
    pub fn lag(&self) -> u64 {
        let said = self.run(&["group"], 0).out;
        let first = said.lines().next().unwrap();
        first.rsplit_once("lag ").unwrap().1.parse().unwrap()
    }

    /// The run is complete and whole: nothing wrong with the dataset, no byte differs from `undisturbed`, every planned
    /// task has one result (said twice only with the same words), no dead letter, no lag. The answer is the number of
    /// results in the topic.
    #[track_caller]
    pub fn assert_complete(&self, undisturbed: &Pairs) -> usize {
        self.verify();
        assert_same(&self.dataset(), undisturbed);
        let planned = self.task_ids();
        assert!(planned.values().all(|n| *n == 1), "{planned:?}");
        let results = self.read("results");
        let mut said: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for record in &results {
            let result: Value = serde_json::from_slice(&record.payload).unwrap();
            let what = format!("{} {}", result["status"], result["chips_per_class"]);
            said.entry(result["task_id"].as_u64().unwrap()).or_default().insert(what);
        }
        assert!(said.keys().eq(planned.keys()), "tasks {:?}, results {:?}", planned.keys(), said.keys());
        assert!(said.values().all(|s| s.len() == 1), "{said:?}");
        assert!(self.read("dlq").is_empty());
        assert_eq!(self.lag(), 0);
        results.len()
    }
}
