//! Where the bytes of a COG come from.
//!
//! Contract: a range is delivered whole and exact or not at all; nothing beyond it is read.
//! Errors are [`Failure`]s with their severity already decided; no retries here.

use std::collections::HashMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::adapters::http::{Http, HttpError};
use crate::domain::failure::Failure;

/// A store of files that can be read in ranges.
#[async_trait]
pub trait RangeSource: Send + Sync {
    /// Exactly the bytes `range` of the file at `href`.
    ///
    /// # Errors
    /// `Permanent` when there is no such file or it is shorter, `Transient` when it may work later.
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure>;

    /// The bytes `range`, or fewer when the file ends before `range.end`.
    ///
    /// # Errors
    /// As [`RangeSource::range`].
    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure>;
}

#[async_trait]
impl RangeSource for Http {
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.get_range(href, range).await.map_err(|e| http_failure(&e))
    }

    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.get_range_upto(href, range).await.map_err(|e| http_failure(&e))
    }
}

fn http_failure(error: &HttpError) -> Failure {
    let (severity, retry_after_s) = (error.severity(), error.retry_after_s());
    Failure { severity, stage: "pixels", reason: error.to_string(), retry_after_s }
}

/// Files in memory: the twin used where no server is wanted.
#[derive(Debug, Default)]
pub struct MemorySource {
    files: HashMap<String, Bytes>,
}

impl MemorySource {
    /// Adds a file.
    #[must_use]
    pub fn with(mut self, href: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.files.insert(href.into(), bytes.into());
        self
    }

    fn file(&self, href: &str) -> Result<&Bytes, Failure> {
        self.files.get(href).ok_or_else(|| Failure::permanent("pixels", format!("{href}: no such file")))
    }
}

#[async_trait]
impl RangeSource for MemorySource {
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let wanted = range.end - range.start;
        let bytes = self.range_upto(href, range).await?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(Failure::permanent("pixels", format!("{href}: {} of {wanted} bytes: the file ends early", bytes.len())))
        }
    }

    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let file = self.file(href)?;
        let end = range.end.min(file.len() as u64) as usize;
        let start = (range.start as usize).min(end);
        Ok(file.slice(start..end))
    }
}
