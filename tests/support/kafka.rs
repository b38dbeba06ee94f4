//! A real Kafka for the tests that need one.
//!
//! Contract: a test that needs Kafka fails, with the remedy, when there is none: nothing passes by being skipped.
//! Trap: one cluster serves all tests at once, so every test makes topics and groups of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use satellite_pipeline::adapters::broker::KafkaConfig;

/// Bootstrap address of the cluster that the environment names.
pub(crate) fn required_bootstrap() -> String {
    std::env::var("KAFKA_BOOTSTRAP").unwrap_or_else(|_| {
        panic!(
            "this test needs a real Kafka: run `scripts/test`, or `export KAFKA_BOOTSTRAP=$(scripts/kafka start)` and \
             try again; `cargo test -- --skip kafka` leaves these tests out"
        )
    })
}

/// A configuration for that cluster.
pub(crate) fn config(bootstrap: &str, properties: &[(&str, &str)]) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: bootstrap.to_owned(),
        client_id: "contract".into(),
        properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        connect_timeout: Duration::from_secs(60),
    }
}

/// A name no other test uses, now or in another run on the same cluster.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{what}-{since:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
