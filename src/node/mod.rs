//! Wiring of a node: configuration, command line, one file per role.
pub mod config;
