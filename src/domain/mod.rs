//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.
pub mod class_table;
pub mod classes;
pub mod failure;
pub mod grid;
pub mod hilbert;
pub mod parcel;
pub mod partition;
pub mod plan;
pub mod planner;
pub mod polygon;
pub mod result;
pub mod sampling;
pub mod scene;
pub mod task;
