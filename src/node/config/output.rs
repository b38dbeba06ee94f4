//! `[output]`: where and how chips are written.
//!
//! Contract: as the other sections: built only after every value was checked. Meaning, units and defaults stand in
//! `config/default.toml`. Trap: `dir` may be a bucket, which no call of the file system knows: ask [`Output::bucket`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sections::given;
use crate::adapters::dataset::s3::S3Place;
use crate::domain::checksum::Algorithm;

/// Compression of the written files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// Deflate (zlib).
    Deflate,
    /// None.
    None,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Directory of the dataset, or `s3://BUCKET/PREFIX`. See [`Output::bucket`].
    pub dir: PathBuf,
    /// URL of the S3-compatible service; empty: what the environment says. See [`Output::s3_endpoint`].
    pub s3_endpoint: String,
    /// Whether that service may be asked without TLS.
    pub s3_allow_http: bool,
    /// Name of a pair, with placeholders, without ending.
    pub name_template: String,
    /// Compression.
    pub compression: Compression,
    /// Level of the compression; not used for [`Compression::None`].
    pub compression_level: i32,
    /// Checksums of the files in the manifests.
    pub checksum: Algorithm,
    /// Whether to refuse a directory that holds no dataset yet.
    pub require_marker: bool,
}

impl Output {
    /// The bucket, if the dataset is kept in one.
    pub fn bucket(&self) -> Option<S3Place> {
        S3Place::parse(self.dir.to_str()?)
    }

    /// The service, if one is named.
    pub fn s3_endpoint(&self) -> Option<&str> {
        given(&self.s3_endpoint)
    }
}
