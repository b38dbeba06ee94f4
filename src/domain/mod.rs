//! Pure rules of the pipeline: no clock, no files, no network, no entropy, no runtime.
pub mod classes;
pub mod failure;
pub mod ledger;
pub mod result;
pub mod scene;
pub mod task;
