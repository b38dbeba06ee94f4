//! An offline stand-in for the outer world: a made-up region of parcels, Sentinel-2-like scenes of it, and a server
//! that answers as Earth Search and the object store behind it do.
//!
//! Contract: everything generated follows from a seed alone; nothing here needs a network beyond loopback.
//! Trap: this room may use `domain`, and `node` may use this room; the worker's road never passes through it.

mod cog;
pub mod contact_sheet;
mod crops;
mod dark;
mod error;
mod item;
mod labels;
mod noise;
mod outline;
mod paint;
mod prepare;
pub mod region;
pub mod scenes;
pub mod server;
mod sky;
mod spectra;

pub use crops::{CLASS_STYLES, ClassStyle};
pub use error::DemoError;
pub use prepare::{DemoInputs, prepare};
pub use region::{Region, Size};
