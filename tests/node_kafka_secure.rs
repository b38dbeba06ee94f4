//! Kafka with TLS and SASL, by configuration alone, against a real broker that speaks nothing else.
//!
//! Contract: with the five keys of docs/deployment.md's section on TLS every role and command works; with a wrong one
//! each ends with exit code 1 at once, says which keys to look at, and commits nothing; and nothing that a node ever prints, at any
//! level, holds the password. Certificates are made by `openssl` for each test. Needs `KAFKA_BOOTSTRAP` only as the sign
//! that Kafka may be run; the broker is one of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use brokers::Brokers;
use cluster::Cluster;
use node::World;
use satellite_pipeline::adapters::broker::Broker as _;
use satellite_pipeline::demo::server::{Fault, FaultKind};

const USER: &str = "pipeline";
const PASSWORD: &str = "correct-h0rse_battery.staple";

/// The broker's side: one listener, with TLS and SCRAM; the broker itself logs in as everybody does.
const SERVER: &str = r#"
listeners=SASL_SSL://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@
advertised.listeners=SASL_SSL://127.0.0.1:@PORT@
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
    username="USER" password="PASSWORD";
ssl.keystore.type=PEM
ssl.keystore.location=@DIR@/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=@DIR@/ca.pem
"#;

/// A certificate authority `NAME.pem` with its key.
fn authority(dir: &Path, name: &str) {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    let ours = ["-keyout", &key, "-out", &certificate, "-subj", "/CN=authority of a test"];
    openssl(dir, &[&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"][..], &ours].concat());
}

/// `broker.pem`: key and certificate of 127.0.0.1, signed by `ca.pem`.
fn broker_certificate(dir: &Path) {
    let (subject, san) = (["-subj", "/CN=broker"], ["-addext", "subjectAltName=IP:127.0.0.1"]);
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "broker.key", "-out", "broker.crt"];
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(dir, &[&request[..], &subject, &san, &leaf, &signed].concat());
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    std::fs::write(dir.join("broker.pem"), read("broker.key") + &read("broker.crt")).unwrap();
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(dir).output();
    let done = done.expect("this test needs the command `openssl`");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A broker that speaks TLS to those who log in, and a world that may.
fn secured() -> (Brokers, Cluster, String) {
    kafka::required_bootstrap();
    let brokers = Brokers::prepare().with_user(&format!("{USER}:{PASSWORD}"));
    authority(brokers.dir(), "ca");
    authority(brokers.dir(), "other");
    broker_certificate(brokers.dir());
    let brokers = brokers.begin(1, &SERVER.replace("USER", USER).replace("PASSWORD", PASSWORD));
    let ca = brokers.dir().join("ca.pem").display().to_string();
    let cluster = Cluster::on("secure", World::new(), &brokers.bootstrap, &properties(&ca, PASSWORD));
    (brokers, cluster, ca)
}

/// What docs/deployment.md tells to set.
fn properties<'a>(ca: &'a str, password: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", USER),
        ("sasl.password", password),
        ("ssl.ca.location", ca),
    ]
}

#[test]
fn kafka_with_tls_and_scram_serves_every_role_and_command_and_no_password_is_printed() {
    let (_brokers, mut cluster, ca) = secured();
    let alone = World::new();
    alone.run_all();
    assert!(cluster.run(&["topics", "create"], 0).out.contains("created with 15 partitions"));
    cluster.run(&["--role", "master"], 0);

    // A worker that cannot get any image puts its tasks aside; those are looked at and published again.
    cluster.server.fault(Fault { path: "*.tif".into(), kind: FaultKind::Status(404, None), times: 0 });
    let worker = ["--role", "worker", "--worker-id", "w", "--exit-when-done"];
    cluster.start_with(&worker, &[("RUST_LOG", "debug")]).ends(1);
    assert_eq!(cluster.run(&["dlq", "list"], 0).out.matches("unreadable").count(), 15);
    cluster.server.reset();
    assert_eq!(cluster.run(&["dlq", "replay"], 0).out.trim(), "15 tasks published again");

    // The password may come from the environment, and the client library may be asked to tell everything.
    let words = [&properties(&ca, "overridden")[..], &[("debug", "all")]].concat();
    cluster.set_properties(&words);
    let env = [("RUST_LOG", "trace"), ("NODE__KAFKA__PROPERTIES__SASL_PASSWORD", PASSWORD)];
    cluster.start_with(&worker, &env).ends(0).says(&["librdkafka"]);
    cluster.start_with(&["--role", "monitor", "--exit-when-done"], &env).ends(0);
    assert!(cluster.start_with(&["group"], &env).ends(0).out.contains("lag 0"));
    assert!(cluster.start_with(&["topics", "describe"], &env).ends(0).out.contains("tasks"));
    for show in [&["config"][..], &["config", "--explain"]] {
        let shown = cluster.start_with(show, &env).ends(0).out;
        assert!(shown.contains("\"sasl.username\" = \"pipeline\""), "{shown}");
        assert!(shown.contains("\"sasl.password\" is set"), "{shown}");
    }
    cluster.verify();
    node::assert_same(&cluster.dataset(), &alone.dataset());

    // A value of the wrong kind is quoted in errors; a secret one is not.
    let set = format!("kafka.properties={{\"sasl.password\"=[\"{PASSWORD}\"]}}");
    cluster.run(&["config", "--set", &set], 2).says(&["sasl.password"]);
    let said = cluster.said();
    assert!(said.len() > 100_000, "the nodes were to be talkative: {} bytes", said.len());
    for secret in [PASSWORD, "overridden"] {
        let at = said.find(secret);
        assert_eq!(at, None, "the password is printed: {}", at.map_or("", |at| &said[at.saturating_sub(200)..at]));
    }
}

#[test]
fn kafka_refuses_a_wrong_login_and_is_refused_with_a_wrong_certificate() {
    let (brokers, mut cluster, ca) = secured();
    cluster.run(&["--role", "master"], 0);
    let other = brokers.dir().join("other.pem").display().to_string();
    let login = "node: the broker refused access (";
    let trust = "node: the broker's certificate is not trusted (";
    let cases = [(ca.as_str(), "wr0ng-password", login, "sasl."), (&other, PASSWORD, trust, "ssl.ca.location")];
    for (ca, password, says, keys) in cases {
        cluster.set_properties(&properties(ca, password));
        let since = Instant::now();
        let commands: [&[&str]; 6] = [
            &["--role", "worker", "--exit-when-done"],
            &["--role", "monitor", "--exit-when-done"],
            &["--role", "master"],
            &["topics", "list"],
            &["group"],
            &["dlq", "list"],
        ];
        for node in commands.map(|command| cluster.start(command)) {
            let ended = node.ends(1);
            ended.says(&[says, "kafka.properties", keys]);
            println!("{}", ended.err.trim());
            assert!(ended.err.lines().count() < 6, "said once, not at every attempt:\n{}", ended.err);
        }
        assert!(since.elapsed() < Duration::from_secs(30), "no reason to wait: {:?}", since.elapsed());
    }

    // Plain text to a TLS port, and a file that is not there.
    cluster.world.set("kafka.connect_timeout_s", "3");
    cluster.set_properties(&[]);
    let ended = cluster.start_with(&["group"], &[("RUST_LOG", "debug")]).ends(1);
    ended.says(&["node: no Kafka broker at", "security.protocol in kafka.properties"]);
    cluster.set_properties(&properties("/no/such/ca.pem", PASSWORD));
    cluster.run(&["group"], 2).says(&["node: kafka.properties.ssl.ca.location: /no/such/ca.pem: No such file"]);

    let (group, topic) = (cluster.name.clone(), cluster.topic("tasks"));
    let lags = cluster.runtime.block_on(cluster.broker.group_lag(&group, &[&topic])).unwrap();
    assert!(!lags.is_empty() && lags.iter().all(|l| l.committed.is_none()), "{lags:?}");
    assert_eq!(cluster.manifests(), 0);
    let said = cluster.said();
    assert!(!said.contains(PASSWORD) && !said.contains("wr0ng-password"), "the password is printed");

    // Nothing of it has harmed the run.
    cluster.set_properties(&properties(&ca, PASSWORD));
    cluster.worker("w").ends(0);
    cluster.verify();
    assert_eq!((cluster.manifests(), cluster.lag()), (17, 0));
}
