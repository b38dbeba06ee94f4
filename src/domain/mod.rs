//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.

pub mod band;
pub mod chip_name;
pub mod classes;
pub mod failure;
pub mod footprint;
pub mod labels;
pub mod ledger;
pub mod manifest;
pub mod result;
pub mod scene;
pub mod scene_query;
pub mod season;
pub mod task;
pub mod window;
