//! Wiring of a node: configuration, command line, one file per role.

pub mod all;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dlq;
pub mod error;
pub mod group;
pub mod master;
pub mod monitor;
pub mod monitor_view;
pub mod parts;
pub mod plan;
pub mod quota;
pub mod shutdown;
pub mod table;
pub mod telemetry;
pub mod topics;
pub mod verify;
pub mod worker;

/// A line on standard output; a closed pipe is no reason to stop.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
