//! Field parcels and Sentinel-2 scenes in, a class-balanced training set of image chips out.
//!
//! The flow of one run:
//!
//! ```text
//! master   adapters::parcels --scan--> domain::planner --> domain::plan --> adapters::broker
//! worker   adapters::broker --> actors::intake      is it a task, is it finished already?
//!                           --> actors::sampler     which parcels of the cell become chips
//!                           --> actors::scenes      which scenes can give them
//!                           --> actors::pixels      their windows, block by block
//!                           --> actors::rasteriser  their masks, and both files encoded
//!                           --> actors::writer      staged, then committed as a whole task
//!                           --> actors::settler     result, then offset
//! monitor  adapters::broker --> domain::tally --> domain::view --> node::{tui, web, monitor_view}
//! ```
//!
//! Arrows run one way: `bin -> node -> actors -> adapters -> domain`; `tests/tidy.rs` proves it.

pub mod actors;
pub mod adapters;
pub mod demo;
pub mod domain;
pub mod node;
