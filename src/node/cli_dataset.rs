//! Options of `node dataset`: parsing and types, no work.
//!
//! Contract: as [`super::cli`].

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of `node dataset`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Dataset {
    /// What to make
    #[arg(value_enum, value_name = "ACTION")]
    pub action: DatasetAction,
    /// The dataset: the directory with images/ and masks/
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Ask the configured Kafka which tasks have failed (finish, split)
    #[arg(long)]
    pub dead_letters: bool,
    /// Form of the export
    #[arg(long, value_enum, default_value = "webdataset")]
    pub format: ExportFormat,
    /// Where the export goes
    #[arg(long, value_name = "DIR", required_if_eq("action", "export"))]
    pub out: Option<PathBuf>,
    /// Largest shard of the export, MB
    #[arg(long, value_name = "MB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub shard_mb: u64,
}

/// What to make of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatasetAction {
    /// Everything below, and STAC
    Finish,
    /// Index, split, classes, and the state of every parcel
    Split,
    /// Statistics of the training chips, for the split there is
    Stats,
    /// Shards for sequential readers, for the split there is
    Export,
}

/// Form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Tar files of samples
    Webdataset,
}
