//! One door for each outer world: a small trait, its real implementation and a scripted twin.
pub mod dataset;
pub mod geotiff;
pub mod imagery;
//! Doors to the outer worlds: each a small interface, its real implementation, and a scripted twin.
pub mod catalog;
pub mod http;
