//! What can go wrong while the demo's inputs are made or served.
//!
//! Contract: every message names the file, address or step, and what to do about it.
//! Trap: a GDAL error's own text rarely names the file; wrap it with [`DemoError::gdal`].

use crate::domain::failure::Severity;
use std::path::{Path, PathBuf};

/// A failure of the demo room.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file or directory could not be read or written.
    #[error("{}: {source} (check that it exists, is writable, and that the disk is not full)", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The server could not listen.
    #[error("cannot listen on {addr}: {source} (choose another port, or 0 for any free one)")]
    Listen {
        /// The address asked for.
        addr: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// GDAL refused a step.
    #[error("{what}: {source}")]
    Gdal {
        /// The step and the file it was about.
        what: String,
        /// GDAL's reason.
        source: gdal::errors::GdalError,
    },
    /// A file has another content than it must have.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it and the remedy.
        reason: String,
    },
    /// A script for the server could not be understood.
    #[error(
        "unknown fault {0:?}: use status:CODE[:RETRY_AFTER_S], reset, truncate, drip[:MS], wrong_range, html or slow:MS"
    )]
    UnknownFault(String),
}

impl DemoError {
    /// An I/O failure at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A GDAL failure during `what` (name the file in it).
    pub fn gdal(what: impl Into<String>, source: gdal::errors::GdalError) -> Self {
        Self::Gdal { what: what.into(), source }
    }

    /// A file whose content is not what it must be.
    pub fn content(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Content { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// Nothing here goes away by itself: a full disk or a taken port concerns the node, the rest the input.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Io { .. } | Self::Listen { .. } => Severity::Fatal,
            Self::Gdal { .. } | Self::Content { .. } | Self::UnknownFault(_) => Severity::Permanent,
        }
    }
}
