//! A GET, and Prometheus' text taken apart.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::node::Node;

/// Where a node said its metrics are.
pub fn metrics_at(node: &mut Node) -> String {
    node.until("it says where its metrics are", |n| n.log().contains("metrics at http://"));
    let log = node.log();
    let (_, rest) = log.split_once("metrics at http://").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

/// Status and body.
pub fn get(at: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Value of every sample, by its name with its labels as they stand.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|e| panic!("{e}: {line}")))
    };
    lines.map(sample).collect()
}

/// Sum of the samples called `name` whose labels hold all of these.
pub fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let ours = |key: &str| key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label));
    samples.iter().filter(|(key, _)| ours(key)).map(|(_, value)| value).sum()
}
