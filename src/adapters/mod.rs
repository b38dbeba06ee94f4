//! One door for each outer world: a small trait, its real implementation and a scripted twin.

pub mod catalog;
pub mod dataset;
pub mod geotiff;
pub mod http;
pub mod imagery;
//! One door per outer world, each a small trait with its real implementation.
pub mod broker;
