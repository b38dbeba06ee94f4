//! Where parcels come from: a GeoPackage file, or a list in memory for tests.
//!
//! Contract: [`ParcelSource`], the same for both. Units: `bbox` in degrees lon/lat, margins in metres, shapes in
//! the parcels' own CRS.
//! Trap: [`ParcelSource::cell`] gives every parcel that may show in a chip of the cell, so more than those that
//! belong to the cell: ask `Task::holds` with the parcel's `lonlat`.

pub mod blob;
mod curve;
mod error;
mod gather;
mod geopackage;
mod index;
mod labels;
mod layer;
mod memory;
mod place;
mod query;
mod scan;
mod sql;

use std::ops::ControlFlow;

pub use error::ParcelError;
pub use geopackage::{GeoPackage, OpenOptions};
pub use layer::{LayerChoice, LayerInfo};
pub use memory::{MemoryParcels, MemoryRow};

use crate::adapters::crs::Crs;
use crate::domain::parcel::{Parcel, ScannedParcel};

/// Most parcels that one cell may hold; a cell of 0.05 degrees has some hundreds.
pub const MAX_CELL_PARCELS: usize = 250_000;

/// Most points that the parcels of one cell may have together, 16 bytes each.
pub const MAX_CELL_POINTS: usize = 16 << 20;

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanProgress {
    /// Rows read.
    pub rows: u64,
    /// Rows there are, as far as the file tells cheaply; may be too large.
    pub total_estimate: u64,
}

/// A layer of parcels.
pub trait ParcelSource: Send + Sync {
    /// What was opened.
    fn layer(&self) -> &LayerInfo;

    /// The parcels' CRS.
    fn crs(&self) -> &Crs {
        &self.layer().crs
    }

    /// A text that changes when the layer does: name, row count, CRS, time of last change, size.
    fn fingerprint(&self) -> &str {
        &self.layer().fingerprint
    }

    /// Reads the whole table once, in order of id, and hands every row to `sink`; rows that are no parcel carry
    /// the reason. `progress` is called every few thousand rows and may break off. Memory does not grow with
    /// the table. Returns the number of rows.
    ///
    /// # Errors
    /// When the file cannot be read, or [`ParcelError::Cancelled`].
    fn scan(
        &self,
        sink: &mut dyn FnMut(&ScannedParcel),
        progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
    ) -> Result<u64, ParcelError>;

    /// Every parcel whose envelope meets `bbox` (`[west, south, east, north]` degrees) grown by `margin_m` metres
    /// on every side, ascending by id. Rows that are no parcel are left out.
    ///
    /// # Errors
    /// When the file cannot be read, the box cannot be expressed in the parcels' CRS, or more than
    /// [`MAX_CELL_PARCELS`] parcels or [`MAX_CELL_POINTS`] points meet it.
    fn cell(&self, bbox: [f64; 4], margin_m: f64) -> Result<Vec<Parcel>, ParcelError>;
}
