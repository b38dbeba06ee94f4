//! The record of one finished task: its existence makes the task's chips part of the dataset.
//!
//! Contract: written once per task key, never changed; whoever finds one can finish publishing the
//! files it names and report the same result. Trap: `attempt` and every `name` become paths, so
//! [`Manifest::parse`] refuses anything that could leave the output directory.

use serde::{Deserialize, Serialize};

use super::checksum::{Algorithm, Checksum};
use super::chip_name::is_safe_stem;
use super::classes::ClassId;
use super::provenance::Provenance;
use super::result::TaskResult;
use super::scene::PixelGrid;
use super::task::{TaskKey, is_safe_run_id};

/// Version of the file format. 1 knew SHA-256 alone.
pub const SCHEMA: u32 = 2;

/// Largest manifest that is read, bytes: a task of 20,000 chips stays below it.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// One task's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// The task.
    pub key: TaskKey,
    /// Staging directory that held the files; unique per attempt.
    pub attempt: String,
    /// What was (or is to be) reported.
    pub result: TaskResult,
    /// The chips, in order of their numbers.
    pub chips: Vec<ChipRecord>,
    /// Parcels drawn that gave no chip.
    #[serde(default)]
    pub rejected: Vec<Rejection>,
}

/// One chip: an image and a mask of the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChipRecord {
    /// Stem of both files.
    pub name: String,
    /// Class of the centre parcel.
    pub class: ClassId,
    /// Id of the centre parcel.
    pub parcel: i64,
    /// STAC item the pixels come from.
    pub item: String,
    /// Collection of the item.
    pub collection: String,
    /// Acquisition, RFC 3339 UTC.
    pub datetime: String,
    /// `eo:cloud_cover` of the item, percent.
    pub cloud_cover: f64,
    /// Season the scene was searched in.
    pub season: String,
    /// EPSG code of image and mask.
    pub epsg: u32,
    /// Position and size of the chip, metres.
    pub grid: PixelGrid,
    /// Pixels of each mask value that occurs: `[[0, 60000], [5, 5536]]`.
    pub pixels: Vec<(u8, u32)>,
    /// Where the pixels and labels come from.
    #[serde(default)]
    pub provenance: Provenance,
    /// The image file.
    pub image: FileRecord,
    /// The mask file.
    pub mask: FileRecord,
}

/// A file as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Length.
    pub bytes: u64,
    /// Checksum; its key in JSON is the algorithm's name.
    #[serde(flatten)]
    pub checksum: Checksum,
}

impl FileRecord {
    /// The record of a file that holds `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, checksum: Checksum::of(algorithm, bytes) }
    }

    /// Whether a file that holds `bytes` is the recorded one.
    pub fn describes(&self, bytes: &[u8]) -> bool {
        self.bytes == bytes.len() as u64 && self.checksum == Checksum::of(self.checksum.algorithm(), bytes)
    }
}

/// A parcel that was drawn and gave no chip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its id.
    pub parcel: i64,
    /// Its class.
    pub class: ClassId,
    /// Season in which a scene was looked for; empty in records of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub season: String,
    /// Why: one of a short list of words ([`TaskResult::chips_rejected`] counts by it).
    pub reason: String,
    /// More, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right shape.
    #[error("not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("manifest schema {0} is newer than {SCHEMA}, the newest this node knows: upgrade the node")]
    Schema(u32),
    /// A name that is not a plain file name.
    #[error("manifest holds the unsafe name {0:?}")]
    Unsafe(String),
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(raw: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(raw)?;
        if manifest.schema > SCHEMA {
            return Err(ManifestError::Schema(manifest.schema));
        }
        if !is_safe_run_id(&manifest.key.run) {
            return Err(ManifestError::Unsafe(manifest.key.run));
        }
        let names = manifest.chips.iter().map(|c| &c.name);
        if let Some(bad) = names.chain([&manifest.attempt]).find(|n| !is_safe_stem(n)) {
            return Err(ManifestError::Unsafe(bad.clone()));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_algorithm_and_knows_its_bytes() {
        for (algorithm, key) in [(Algorithm::Xxh128, "xxh128"), (Algorithm::Sha256, "sha256")] {
            let record = FileRecord::of(algorithm, b"chip");
            let json = serde_json::to_value(&record).unwrap();
            assert_eq!(json["bytes"], 4);
            assert!(json[key].is_string(), "{json}");
            assert_eq!(serde_json::from_value::<FileRecord>(json).unwrap(), record);
            assert!(record.describes(b"chip") && !record.describes(b"chop") && !record.describes(b"chips"));
        }
        assert!(serde_json::from_str::<FileRecord>(r#"{"bytes":4}"#).is_err());
        // As manifests of schema 1 have it.
        let old = r#"{"bytes":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;
        assert!(serde_json::from_str::<FileRecord>(old).unwrap().describes(b"abc"));
    }
}
