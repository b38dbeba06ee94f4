//! One door for each outer world: a small trait, its real implementation and a scripted twin.

pub mod broker;
pub mod catalog;
pub mod crs;
pub mod dataset;
pub mod deflate;
pub mod failpoint;
pub mod finished;
pub mod geotiff;
pub mod http;
pub mod imagery;
pub mod parcels;
mod repeats;
pub mod shapes;
pub mod spare;
mod zstandard;
