//! `.finished.json`: which files were made from which manifests.
//!
//! Contract: written last, so a record that is there vouches for every file it names: length and SHA-256.
//! [`Finished::check`] compares; `origin` says from which manifests and with which settings they were made, so a dataset
//! that has grown since is told from one that is damaged.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FinishError;
use super::manifests::Manifests;
use crate::adapters::dataset::verify::Finding;
use crate::domain::checksum::hex;

/// Name of the file.
pub const RECORD: &str = ".finished.json";

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// Most bytes a record may have.
const MAX_BYTES: u64 = 1 << 20;

/// A file that is vouched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// Name below the dataset's directory.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// What files were made from; equal origins give equal files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// [`super::survey::Survey::fingerprint`].
    pub manifests: String,
    /// Hash of the settings that decide what the files say.
    pub settings: String,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// What the files were made from.
    pub origin: Origin,
    /// The files, by name.
    pub files: Vec<Vouched>,
}

impl Finished {
    /// The record of a directory; `None` when it was never finished, or is being finished just now.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn read(root: &Path) -> Result<Option<Self>, FinishError> {
        let path = root.join(RECORD);
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(m) if m.len() > MAX_BYTES => {
                let why = format!("has {} bytes, too many for a record", m.len());
                return Err(FinishError::Stale { path: path.display().to_string(), why });
            }
            other => other.map_err(FinishError::io("reading", &path))?,
        };
        let raw = std::fs::read(&path).map_err(FinishError::io("reading", &path))?;
        let json = |source| FinishError::Json { path: path.display().to_string(), source };
        let record: Self = serde_json::from_slice(&raw).map_err(json)?;
        let plain = |f: &Vouched| !f.name.contains(['/', '\\']) && f.name != ".." && !f.name.is_empty();
        if record.schema > SCHEMA || !record.files.iter().all(plain) {
            let why = "is not a record this node knows".to_owned();
            return Err(FinishError::Stale { path: path.display().to_string(), why });
        }
        Ok(Some(record))
    }

    /// Files that are not what they were: name and what is wrong. `quick` compares lengths only.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn check(&self, root: &Path, quick: bool) -> Result<Vec<(String, String)>, FinishError> {
        let mut wrong = Vec::new();
        for file in &self.files {
            let path = root.join(&file.name);
            match std::fs::metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => wrong.push((file.name.clone(), "is gone".into())),
                Err(e) => return Err(FinishError::io("reading", &path)(e)),
                Ok(m) if m.len() != file.bytes => {
                    wrong.push((file.name.clone(), format!("has {} bytes, not {}", m.len(), file.bytes)));
                }
                Ok(_) if quick => {}
                Ok(_) if sha256(&path)? != file.sha256 => {
                    wrong.push((file.name.clone(), "has another SHA-256 than recorded".into()));
                }
                Ok(_) => {}
            }
        }
        Ok(wrong)
    }
}

/// What a look at a directory's products gave.
#[derive(Debug, Default)]
pub struct Inspected {
    /// Number of products.
    pub files: usize,
    /// Those that are not what they were made as, the record first.
    pub findings: Vec<Finding>,
    /// Whether tasks have come or gone since.
    pub outdated: bool,
}

/// Looks at everything a record vouches for; a directory that was never finished has nothing to look at.
///
/// # Errors
/// Only what keeps it from looking.
pub fn inspect(root: &Path, quick: bool) -> Result<Inspected, FinishError> {
    let record = match Finished::read(root) {
        Ok(None) => return Ok(Inspected::default()),
        Ok(Some(record)) => record,
        Err(FinishError::Json { .. } | FinishError::Stale { .. }) => {
            let findings = vec![Finding::Product(root.join(RECORD), "cannot be read".into())];
            return Ok(Inspected { findings, ..Inspected::default() });
        }
        Err(other) => return Err(other),
    };
    let mut findings: Vec<_> =
        record.check(root, quick)?.into_iter().map(|(name, why)| Finding::Product(root.join(name), why)).collect();
    if !findings.is_empty() {
        // What is left vouches for files that are not there any more.
        findings.insert(0, Finding::Product(root.join(RECORD), "vouches for files that are not so".into()));
    }
    let outdated = match Manifests::list(root) {
        Ok(manifests) => manifests.fingerprint().is_ok_and(|now| now != record.origin.manifests),
        Err(_) => true,
    };
    Ok(Inspected { files: record.files.len(), findings, outdated })
}

/// SHA-256 of a file of any size.
///
/// # Errors
/// As the system says.
pub fn sha256(path: &Path) -> Result<String, FinishError> {
    use sha2::Digest as _;
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).map_err(FinishError::io("reading", path))?;
    let (mut hash, mut buffer) = (sha2::Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(FinishError::io("reading", path))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}
