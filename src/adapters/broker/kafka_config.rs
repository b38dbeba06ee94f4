//! Configuration of the Kafka clients: our defaults, what the user may override, and what nobody may.
//!
//! Contract: a property of [`RESERVED`] is refused with the reason, because overriding it would lose or repeat tasks.
//! Everything else the user gives wins over our defaults and is passed to the client library as it is.
//! Units: as librdkafka's (the name says so: `.ms`, `.bytes`, `.kbytes`).

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::{BrokerError, GroupSpec};

/// How to reach a Kafka cluster.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port,host:port`.
    pub bootstrap_servers: String,
    /// Name of this node; a member's own id takes its place in a group.
    pub client_id: String,
    /// Any librdkafka property (TLS, SASL, tuning) but those of [`RESERVED`].
    pub properties: BTreeMap<String, String>,
    /// How long an unreachable cluster is tried before giving up.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for KafkaConfig {
    /// Values of properties stay out of it: some are passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys())
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// Properties that cannot be set, and why.
pub const RESERVED: [(&str, &str); 21] = [
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("group.id", "set kafka.group"),
    ("client.id", "carries the worker's id: set worker.id"),
    ("enable.auto.commit", "settled offsets are committed once a second: leave it out"),
    ("auto.commit.interval.ms", "settled offsets are committed once a second: leave it out"),
    ("enable.auto.offset.store", "an offset counts when its task is settled, not when it is read: leave it out"),
    ("enable.partition.eof", "the order of territories needs it: leave it out"),
    ("auto.offset.reset", "a group without offsets must begin at the first task: leave it out"),
    ("acks", "a result counts when every in-sync copy has it: leave it out"),
    ("request.required.acks", "a result counts when every in-sync copy has it: leave it out"),
    ("enable.idempotence", "the order of a partition depends on it: leave it out"),
    ("retries", "belongs to the idempotent producer: set delivery.timeout.ms instead"),
    ("message.send.max.retries", "belongs to the idempotent producer: set delivery.timeout.ms instead"),
    ("transactional.id", "the pipeline does not use transactions: leave it out"),
    ("delivery.report.only.error", "publishing waits for the acknowledgement: leave it out"),
    ("offset.store.method", "offsets live in the broker: leave it out"),
    ("allow.auto.create.topics", "topics are made by `node topics create`, with their partitions: leave it out"),
    ("log.queue", "belongs to the client library's binding: leave it out"),
    ("statistics.interval.ms", "nobody reads the statistics: leave it out"),
    ("sasl.oauthbearer.config", "only sasl.oauthbearer.method=oidc is supported: leave it out"),
];

/// Properties that name a file or directory of this machine.
const FILES: [&str; 4] = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location"];

/// What a client is for.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    /// Publishes.
    Producer,
    /// Asks about topics and groups.
    Admin,
    /// Asks for one group's committed offsets, without joining it.
    Inspector(&'a str),
    /// Member of a group.
    Member(&'a GroupSpec),
    /// Reads from the beginning, outside any group.
    Reader,
}

impl KafkaConfig {
    /// Refuses properties that would break the contract, and files that are not there: the client library names neither
    /// the property nor the file.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        if let Some((key, why)) = RESERVED.iter().find(|(key, _)| self.properties.contains_key(*key)) {
            return Err(BrokerError::Property { key: (*key).into(), why: (*why).into() });
        }
        for key in FILES {
            // "probe" has the library look for the system's certificates.
            let Some(path) = self.properties.get(key).filter(|path| *path != "probe") else { continue };
            if let Err(error) = std::fs::metadata(path) {
                return Err(BrokerError::Property { key: key.into(), why: format!("{path}: {error}") });
            }
        }
        Ok(())
    }

    /// Configuration of one client.
    pub(super) fn client(&self, role: Role<'_>) -> ClientConfig {
        let mut c = ClientConfig::new();
        c.set_log_level(RDKafkaLogLevel::Warning);
        c.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", &self.client_id);
        // A broker that comes back is found within seconds, and a slow reconnect never outlasts one.
        c.set("reconnect.backoff.ms", "100").set("reconnect.backoff.max.ms", "2000");
        c.set("socket.keepalive.enable", "true");
        match role {
            Role::Producer => self.producer(&mut c),
            Role::Admin => {}
            Role::Inspector(group) => {
                c.set("group.id", group).set("enable.auto.commit", "false");
            }
            Role::Member(spec) => self.member(&mut c, spec),
            Role::Reader => self.reader(&mut c),
        }
        for (key, value) in &self.properties {
            // Static membership is one identity: only the member itself may carry it.
            if key == "group.instance.id" && !matches!(role, Role::Member(_)) {
                continue;
            }
            c.set(key, value);
        }
        c
    }

    fn producer(&self, c: &mut ClientConfig) {
        c.set("enable.idempotence", "true").set("acks", "all");
        // One record a batch: a consumer cannot fetch less than a batch, and should not hoard tasks.
        c.set("batch.num.messages", "1").set("linger.ms", "0");
        // The partitioner of the Java and Python clients, so that a key lands where theirs does.
        c.set("partitioner", "murmur2_random").set("topic.metadata.propagation.max.ms", "5000");
        // A topic that was asked about for the first time in an outage is asked about again soon after it, not in 5 minutes.
        c.set("topic.metadata.refresh.interval.ms", "5000");
        if !self.properties.contains_key("delivery.timeout.ms") {
            c.set("message.timeout.ms", self.connect_timeout.as_millis().max(1000).to_string());
        }
    }

    fn member(&self, c: &mut ClientConfig, spec: &GroupSpec) {
        c.set("client.id", &spec.member_id).set("group.id", &spec.group);
        c.set("enable.auto.offset.store", "false").set("enable.auto.commit", "false");
        c.set("auto.offset.reset", "earliest");
        c.set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
        // Topics and partitions that appear later are seen within seconds.
        c.set("topic.metadata.refresh.interval.ms", "5000");
        // Hold little beyond what was delivered, and fetch more as soon as that is taken.
        // (Partitions at their end and partitions with more share a fetch: its wait is what the latter may wait.)
        c.set("queued.min.messages", "1").set("fetch.wait.max.ms", "50").set("fetch.queue.backoff.ms", "20");
        c.set("fetch.message.max.bytes", "8192").set("fetch.max.bytes", "8192").set("message.max.bytes", "8192");
        let new_protocol = self.properties.get("group.protocol").is_some_and(|p| p.eq_ignore_ascii_case("consumer"));
        if !new_protocol {
            // A crashed member is replaced within the session timeout. (KIP-848 groups: the broker decides all three.)
            c.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "1000");
            c.set("partition.assignment.strategy", "cooperative-sticky");
        }
    }

    fn reader(&self, c: &mut ClientConfig) {
        // The library wants a group id to read at all; nothing is ever committed under it.
        c.set("group.id", format!("{}-reader", self.client_id)).set("enable.auto.commit", "false");
        c.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        c.set("allow.auto.create.topics", "false");
        // The receiver may be slow: what is fetched ahead is bounded, and being slow is no offence.
        c.set("queued.max.messages.kbytes", "4096").set("fetch.message.max.bytes", "1048576");
        c.set("max.poll.interval.ms", "86400000");
    }
}

/// Says what is wrong with a property that the client library refused.
pub(super) fn refused(error: &KafkaError) -> BrokerError {
    match error {
        KafkaError::ClientConfig(_, why, key, value) => BrokerError::Property {
            key: key.clone(),
            why: if key.contains("password") || key.contains("secret") {
                why.clone()
            } else {
                format!("{why} (value `{value}`)")
            },
        },
        other => BrokerError::Property { key: "*".into(), why: other.to_string() },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: "127.0.0.1:1".into(),
            client_id: "w1".into(),
            properties: properties.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            connect_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn what_would_break_the_contract_is_refused_with_the_reason() {
        let error = config(&[("enable.auto.offset.store", "true")]).check().unwrap_err();
        assert!(error.to_string().contains("kafka.properties.enable.auto.offset.store: an offset counts"), "{error}");
        assert!(config(&[("session.timeout.ms", "6000")]).check().is_ok());
    }

    #[test]
    fn the_user_overrides_the_rest() {
        let spec = GroupSpec::new("g", "t", "w7", 4);
        let c = config(&[("session.timeout.ms", "6000"), ("partition.assignment.strategy", "range")]);
        let member = c.client(Role::Member(&spec));
        assert_eq!(member.get("session.timeout.ms"), Some("6000"));
        assert_eq!(member.get("partition.assignment.strategy"), Some("range"));
        assert_eq!(member.get("client.id"), Some("w7"));
        assert_eq!(member.get("group.instance.id"), None);
    }

    #[test]
    fn the_new_group_protocol_gets_no_classic_timeouts() {
        let spec = GroupSpec::new("g", "t", "w7", 4);
        let member = config(&[("group.protocol", "consumer")]).client(Role::Member(&spec));
        assert_eq!(member.get("session.timeout.ms"), None);
        assert_eq!(member.get("partition.assignment.strategy"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", config(&[("sasl.password", "hunter2")]));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
