//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.

pub mod band;
pub mod chip_name;
pub mod class_table;
pub mod classes;
pub mod failure;
pub mod footprint;
pub mod grid;
pub mod hilbert;
pub mod label_index;
pub mod labels;
pub mod ledger;
pub mod manifest;
pub mod parcel;
pub mod partition;
pub mod plan;
pub mod planner;
pub mod polygon;
pub mod result;
pub mod sampling;
pub mod scene;
pub mod scene_query;
pub mod season;
pub mod task;
pub mod window;
