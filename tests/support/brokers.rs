//! Brokers of a test's own: to stop, kill, cut off, or give TLS to.
//!
//! Contract: Apache Kafka by `scripts/kafka` on free ports, in a directory of its own; stopped by its process ids and
//! removed when dropped. Trap: a start takes some seconds of a core for each node.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

/// One to three nodes.
pub struct Brokers {
    dir: TempDir,
    port: u16,
    scram: String,
    pub bootstrap: String,
}

impl Brokers {
    /// A directory and ports; nothing runs yet.
    pub fn prepare() -> Self {
        let dir = TempDir::with_prefix("brokers-").unwrap();
        Self { dir, port: free_ports(), scram: String::new(), bootstrap: String::new() }
    }

    /// So many nodes.
    pub fn start(nodes: u8) -> Self {
        Self::prepare().begin(nodes, "")
    }

    /// Makes a SCRAM-SHA-512 user, `name:password`, at the first start.
    pub fn with_user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.scram);
        self
    }

    /// Starts so many nodes, with further server properties.
    pub fn begin(mut self, nodes: u8, extra: &str) -> Self {
        let file = self.dir().join("extra.properties");
        std::fs::write(&file, extra).unwrap();
        let (port, nodes, file) = (self.port.to_string(), nodes.to_string(), file.display().to_string());
        self.bootstrap = self.run(&["start", "--port", &port, "--nodes", &nodes, "--extra", &file]);
        self
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A port of this cluster's range that no listener of `scripts/kafka` has.
    pub fn spare_port(&self) -> u16 {
        self.port + 5
    }

    /// `stop`, `start`, `restart`: as it was started.
    pub fn run(&self, arguments: &[&str]) -> String {
        let out = self.script(arguments);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).lines().last().unwrap_or_default().to_owned()
    }

    /// Kills one node, as a loss of power does. `run(&["start"])` brings it back.
    pub fn kill(&self, node: u8) {
        let pid = std::fs::read_to_string(self.dir().join(format!("node-{node}/pid"))).unwrap();
        assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
        // Dead, or gone: only then its sockets are closed too.
        let stat = format!("/proc/{}/stat", pid.trim());
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ")) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka"));
        command.env("KAFKA_ENGINE", "java").env("KAFKA_SCRAM", &self.scram);
        command.args(arguments).arg("--dir").arg(self.dir()).output().unwrap()
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let out = self.script(&["clean"]);
        if !out.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

/// Twenty ports that are free: brokers from the first, controllers from the eleventh. Below those that the system gives to
/// connections, and others at each call.
fn free_ports() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = (std::process::id() % 100) as u16 * 20;
    let mut ports = (0..100u16).map(|_| 30_000 + (start + CALLS.fetch_add(1, Ordering::Relaxed) * 20) % 2_000);
    ports.find(|port| (*port..port + 20).all(free)).expect("twenty free ports")
}
