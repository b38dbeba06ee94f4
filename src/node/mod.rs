//! Wiring of a node: configuration, command line, one file per role.

pub mod cli;
pub mod config;
pub mod monitor_view;
pub mod plan;
pub mod telemetry;
//! node
pub mod group;
pub mod table;
pub mod topics;
