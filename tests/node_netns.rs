//! Three workers on three hosts; the network of one is cut for longer than its session, and comes back.
//!
//! Contract: hosts are network namespaces on a bridge of this machine, with addresses of 198.18.0.0/15 (RFC 2544, never
//! routed); broker and scenes listen on the bridge's own. The other two take over what the lost one held, the lost one
//! comes back to an orderly end, and the dataset is the undisturbed one. All links go when the test ends.
//! Trap: needs root (`ip netns`), and fails with `ip`'s own words without it; `KAFKA_BOOTSTRAP` is the sign that Kafka
//! may be run. A cut link loses packets in silence: no connection breaks, so only time-outs tell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use brokers::Brokers;
use cluster::Cluster;
use node::{Node, World, region};
use satellite_pipeline::demo::server::Knobs;

/// Longer than the session of six seconds, and than a request's patience.
const CUT: Duration = Duration::from_secs(15);

/// A bridge with hosts on it.
struct Lan {
    bridge: String,
    subnet: [u8; 3],
    hosts: usize,
}

impl Lan {
    fn new(hosts: usize) -> Self {
        let id = std::process::id() % 50_000;
        let lan = Self { bridge: format!("sp{id}"), subnet: [198, 18, (id % 250) as u8], hosts };
        let bridge = &lan.bridge;
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {}/24 dev {bridge}", lan.address(0)));
        ip(&format!("link set {bridge} up"));
        for host in 1..=hosts {
            let (name, port) = (lan.name(host), lan.port(host));
            ip(&format!("netns add {name}"));
            ip(&format!("link add {port} type veth peer name eth0 netns {name}"));
            ip(&format!("link set {port} master {bridge} up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", lan.address(host)));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        lan
    }

    /// Address of a host; 0 is the bridge, where broker and scenes are.
    fn address(&self, host: usize) -> IpAddr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 1 + host as u8).into()
    }

    fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.bridge)
    }

    /// This machine's end of a host's cable.
    fn port(&self, host: usize) -> String {
        format!("{}p{host}", self.bridge)
    }

    fn worker(&self, cluster: &Cluster, host: usize) -> Node {
        let (id, name) = (format!("host{host}"), self.name(host));
        let args = ["--role", "worker", "--worker-id", &id, "--exit-when-done"];
        cluster.start_under(&["ip", "netns", "exec", &name], &args, &[])
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            let _ = Command::new("ip").args(["netns", "del", &self.name(host)]).status();
            // A namespace lives as long as a process in it; the cable goes now.
            let _ = Command::new("ip").args(["link", "del", &self.port(host)]).output();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).status();
    }
}

fn ip(command: &str) {
    let done =
        Command::new("ip").args(command.split(' ')).output().expect("this test needs the command `ip` (iproute2)");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "`ip {command}` said: {said}run this test as root");
}

/// On loopback for the test itself, and on the bridge for its hosts.
fn listeners(port: u16, address: IpAddr) -> String {
    format!(
        "listeners=PLAINTEXT://127.0.0.1:@PORT@,LAN://{address}:{port},CONTROLLER://127.0.0.1:@CONTROLLER_PORT@\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,LAN://{address}:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LAN:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
    )
}

#[test]
fn kafka_a_worker_whose_network_is_cut_is_replaced_and_comes_back() {
    kafka::required_bootstrap();
    let undisturbed = World::new();
    undisturbed.run_all();

    // Declared first, dropped last: the hosts' processes end before their network.
    let lan = Lan::new(3);
    let brokers = Brokers::prepare();
    let port = brokers.spare_port();
    let brokers = brokers.begin(1, &listeners(port, lan.address(0)));
    let world = World::serving_at(&region().scenes_root, lan.address(0));
    let mut cluster = Cluster::on("cut", world, &brokers.bootstrap, &[]);
    cluster.world.set("kafka.bootstrap_servers", format!("\"{}:{port}\"", lan.address(0)));
    cluster.server.configure(Knobs { latency_ms: 400, mbit: 0 });
    cluster.run(&["--role", "master"], 0);
    let monitor = cluster.start(&["--role", "monitor", "--exit-when-done"]);
    let mut lost = lan.worker(&cluster, 1);
    lost.until("its first task is finished", |_| cluster.manifests() >= 1);
    let others: Vec<Node> = (2..=3).map(|host| lan.worker(&cluster, host)).collect();
    let group = || cluster.run(&["group"], 0).out;
    lost.until("all three are members", |_| group().contains(": 3 members"));
    let before = cluster.manifests();
    assert!(before < 14, "too late for a cut midway: {before} tasks are finished");

    ip(&format!("link set {} down", lan.port(1)));
    let cut = Instant::now();
    lost.until("the group has gone on without it", |_| group().contains(": 2 members"));
    println!("out of the group after {:?}, {before} of 17 tasks finished at the cut", cut.elapsed());
    std::thread::sleep(CUT.saturating_sub(cut.elapsed()));
    assert!(lost.is_running(), "it waits for its network");
    ip(&format!("link set {} up", lan.port(1)));

    for other in others {
        other.ends(0);
    }
    let ended = lost.ends(0);
    monitor.ends(0);
    println!("{}", ended.err);
    let results = cluster.assert_complete(&undisturbed.dataset());
    println!("network cut: {results} results of 17 tasks, {:?} after the cut", cut.elapsed());
    assert!(ended.err.lines().count() < 80, "an outage is said now and then");
}
