//! Wiring of a node: configuration, command line, one file per role.

pub mod all;
pub mod app;
pub mod cli;
mod cli_broker;
mod cli_dataset;
mod cli_simulate;
pub mod config;
pub mod dataset;
mod dataset_report;
pub mod demo;
pub mod dlq;
pub mod error;
pub mod group;
pub mod instruments;
pub mod log_tap;
pub mod master;
pub mod metrics_http;
pub mod monitor;
pub mod monitor_view;
pub mod parts;
pub mod plan;
pub mod probes;
pub mod pulse;
pub mod quota;
pub mod report;
mod report_page;
mod road;
pub mod run_gauges;
pub mod shutdown;
pub mod simulate;
pub mod table;
pub mod telemetry;
pub mod topics;
pub mod tui;
pub mod verify;
pub mod web;
pub mod worker;

/// A line on standard output; a closed pipe is no reason to stop.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
