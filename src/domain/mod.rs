//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.
pub mod band;
pub mod classes;
pub mod failure;
pub mod footprint;
pub mod result;
pub mod scene;
pub mod scene_query;
pub mod season;
pub mod task;
