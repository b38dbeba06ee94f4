//! An offline stand-in for the outer world: a made-up region of parcels, Sentinel-2-like scenes of it, and a server
//! that answers as Earth Search and the object store behind it do.
//!
//! Contract: everything generated follows from a seed alone; nothing here needs a network beyond loopback.
//! Trap: this room may use `domain`, and `node` may use this room; the worker's road never passes through it.

mod crops;
mod error;
mod noise;
mod outline;
pub mod region;
pub mod server;

pub use crops::CLASS_STYLES;
pub use error::DemoError;
pub use region::{Region, Size};
