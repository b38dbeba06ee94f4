//! What can go wrong with a layer of parcels.
//!
//! Contract: every message names the file or the thing, and what to do. Trap: an I/O error of SQLite on a
//! network file system is often a stale handle and goes away; a corrupt page does not.

use std::path::PathBuf;

use super::{MAX_CELL_PARCELS, MAX_CELL_POINTS};
use crate::adapters::crs::CrsError;
use crate::domain::failure::Severity;

/// Why parcels cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    /// The path leads nowhere, or to something that is not a file.
    #[error(
        "parcels.path {path}: {reason}; check that the file exists and that this machine has mounted its directory"
    )]
    Missing {
        /// The path.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Not SQLite, or SQLite without GeoPackage tables.
    #[error("{path} is not a GeoPackage: {reason}; convert it, for instance with `ogr2ogr out.gpkg {path}`")]
    NotGeoPackage {
        /// The path.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The file was promised not to change but has a write-ahead log.
    #[error(
        "{path} has a write-ahead log with unmerged changes, which parcels.assume_immutable would ignore: merge it \
         (`sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'`) or turn assume_immutable off"
    )]
    WriteAheadLog {
        /// The path.
        path: PathBuf,
    },
    /// The configured layer is not in the file.
    #[error("{path} has no layer `{layer}`; its layers are: {layers}; set parcels.layer to one of them")]
    NoSuchLayer {
        /// The path.
        path: PathBuf,
        /// What was asked for.
        layer: String,
        /// What there is.
        layers: String,
    },
    /// No layer of polygons with rows in it.
    #[error("{path} has no layer of polygons with features; its layers are: {layers}")]
    NoPolygonLayer {
        /// The path.
        path: PathBuf,
        /// What there is.
        layers: String,
    },
    /// More than one candidate.
    #[error("{path} has several layers of polygons: {layers}; set parcels.layer to one of them")]
    AmbiguousLayer {
        /// The path.
        path: PathBuf,
        /// What there is.
        layers: String,
    },
    /// The layer cannot be used as parcels.
    #[error("layer `{layer}` of {path} cannot be used: {reason}")]
    UnusableLayer {
        /// The path.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// Why, and the remedy.
        reason: String,
    },
    /// Neither column.
    #[error(
        "layer `{layer}` of {path} has neither column {wanted}; its columns are: {columns}; set parcels.code_column or \
         parcels.name_column"
    )]
    NoClassColumn {
        /// The path.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// The configured names.
        wanted: String,
        /// What there is.
        columns: String,
    },
    /// The layer's CRS.
    #[error("layer `{layer}` of {path}: {source}")]
    LayerCrs {
        /// The path.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// Why.
        source: Box<CrsError>,
    },
    /// A coordinate.
    #[error(transparent)]
    Crs(#[from] CrsError),
    /// SQLite.
    #[error("reading {path}: {source}")]
    Sqlite {
        /// The path.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A cell with more parcels than may be in memory.
    #[error(
        "more than {MAX_CELL_PARCELS} parcels or {MAX_CELL_POINTS} points around [{}, {}, {}, {}]: use a smaller \
         grid.step", .bbox[0], .bbox[1], .bbox[2], .bbox[3]
    )]
    CellTooLarge {
        /// The cell, degrees.
        bbox: [f64; 4],
    },
    /// The reading thread died.
    #[error("the thread that reads {path} ended unexpectedly")]
    ReaderLost {
        /// The path.
        path: PathBuf,
    },
    /// The caller broke off.
    #[error("the scan was broken off")]
    Cancelled,
}

impl ParcelError {
    /// Unusable files and layers stop the node; a busy or stale file is tried again; the rest concerns the task.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Sqlite { source, .. } => sqlite_severity(source),
            Self::Crs(e) => e.severity(),
            Self::CellTooLarge { .. } => Severity::Permanent,
            Self::Missing { .. }
            | Self::NotGeoPackage { .. }
            | Self::WriteAheadLog { .. }
            | Self::NoSuchLayer { .. }
            | Self::NoPolygonLayer { .. }
            | Self::AmbiguousLayer { .. }
            | Self::UnusableLayer { .. }
            | Self::NoClassColumn { .. }
            | Self::LayerCrs { .. }
            | Self::ReaderLost { .. }
            | Self::Cancelled => Severity::Fatal,
        }
    }
}

fn sqlite_severity(error: &rusqlite::Error) -> Severity {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::SystemIoFailure | Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
            Severity::Transient
        }
        Some(Code::DatabaseCorrupt) => Severity::Permanent,
        _ => Severity::Fatal,
    }
}
