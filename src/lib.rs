//! Satellite data pipeline.
#![allow(missing_docs)]
pub mod actors;
pub mod adapters;
pub mod demo;
pub mod domain;
pub mod node;
