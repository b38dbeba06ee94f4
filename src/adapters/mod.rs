//! adapters
pub mod crs;
pub mod parcels;
