//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.
pub mod classes;
pub mod failure;
pub mod plan_record;
pub mod progress;
pub mod result;
pub mod scene;
pub mod tally;
pub mod task;
