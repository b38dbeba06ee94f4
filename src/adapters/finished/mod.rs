//! What trainers get on top of the chips: index, split, statistics, catalog, shards; all of it made from the manifests.
//!
//! ```text
//! DIR/index.parquet  rejections.parquet          one row per chip; one row per parcel
//! DIR/train.txt  val.txt  test.txt               stems of the chips of each split, one a line
//! DIR/dataset-split.json                         how it was split, and the certificate
//! DIR/dataset-parcels.json  classes.csv  stats.json
//! DIR/stac/collection.json, RUN/task_N/          STAC, one catalog per task, one item per chip
//! DIR/.finished.json                             what was made from what: names, lengths, hashes
//! ```
//!
//! Contract: the same manifests, settings and chips give the same bytes; chips are in order of run, task and number.
//! Files appear whole: they are written and synced in a staging place and renamed; `.finished.json` is taken away
//! before the first rename and put back after the last. A crash leaves the old files, or files that no record vouches
//! for; doing it again mends both. Memory does not grow with the size of the images; what grows with the number of
//! chips is said where it is kept.
//! Trap: manifests that come later are not in it: [`record`] tells what it was made from.

pub mod classes;
pub mod columns;
pub mod index;
pub mod manifests;
pub mod outcomes;
pub mod pixels;
pub mod publish;
pub mod record;
pub mod rejections;
pub mod stac;
pub mod survey;
pub mod webdataset;

use crate::adapters::crs::CrsError;
use crate::adapters::dataset::StoreError;
use crate::domain::failure::Severity;

/// Why a dataset cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The directory, or a manifest in it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The file system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A chip whose CRS PROJ does not know, or whose place is nowhere.
    #[error("chip {chip}: {source}")]
    Place {
        /// Its name.
        chip: String,
        /// Why.
        source: CrsError,
    },
    /// A chip's image that cannot be read.
    #[error("{path}: {why}; `node verify DIR` says what else is wrong")]
    Image {
        /// The file.
        path: String,
        /// GDAL's words, or what does not fit.
        why: String,
    },
    /// A table that cannot be written; only a full disk or a fault of the program.
    #[error("writing {path}: {why}")]
    Table {
        /// The file.
        path: String,
        /// The writer's words.
        why: String,
    },
    /// No chip at all.
    #[error("{0} holds no finished task: is it the dataset's directory, and has a worker written to it?")]
    Empty(String),
    /// A file that [`record`] vouches for is not what it says.
    #[error("{path} {why}: run `node dataset finish` again")]
    Stale {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Text that should be JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl FinishError {
    /// What to do about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Store(error) => error.severity(),
            _ => Severity::Permanent,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}
