//! Where chips are kept: whole tasks, or nothing of them.
//!
//! Contract of every store:
//! - a task's files become part of the dataset by ONE atomic, no-replace step ([`DatasetStore::commit`]);
//!   whoever comes second is told what the first one wrote and changes nothing;
//! - [`DatasetStore::finished`] completes whatever a crash left half published, so asking is mending;
//! - names that come from outside are checked before they become paths.
//!
//! All calls block on I/O: callers run them off the reactor. Trap: a store may sit on NFS, where a
//! lost reply makes a successful link look failed; stores look at what is there, not at the error.

pub mod count;
pub mod disk;
pub mod fs;
pub mod gallery;
pub mod memory;
pub mod s3;
mod threshold;
pub mod verify;

use crate::domain::checksum::hex;
use crate::domain::failure::Severity;
use crate::domain::manifest::Manifest;
use crate::domain::task::{TaskKey, is_safe_run_id};

/// One try at a task: its own staging place, unique over machines and restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The task.
    pub key: TaskKey,
    /// Unique name.
    pub id: String,
    /// Other attempts at the task that were staged when this one began: they died, or are still alive
    /// somewhere. Attempts that were given up in an orderly way do not count.
    pub earlier: u32,
}

/// Who committed a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// This attempt did.
    Ours,
    /// Another attempt was first; this is its record.
    Theirs(Box<Manifest>),
}

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{action} {path}: {source}{}", remedy(action, source))]
    Io {
        /// What was being done: `writing`, `linking`, …
        action: &'static str,
        /// To what.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `output.dir` is not there.
    #[error("output.dir {0} does not exist: create it, mount it, or set output.dir")]
    Missing(String),
    /// `output.require_marker` is set and the marker is not there.
    #[error("output.dir {0} holds no file `{marker}`: is the share mounted? (`touch {0}/{marker}` on the file server marks it)", marker = disk::MARKER)]
    NotMounted(String),
    /// The directory belongs to another run.
    #[error(
        "output.dir {dir} holds the dataset of run `{holds}`, not of `{wants}`: use an empty directory, or put {{run}} into output.name_template"
    )]
    OtherRun {
        /// The directory.
        dir: String,
        /// Run it belongs to.
        holds: String,
        /// Run that wants it.
        wants: String,
    },
    /// The object store refused, or did not answer.
    #[error("{action} {url}: {why}{remedy}")]
    Object {
        /// What was being done: `writing`, `listing`, …
        action: &'static str,
        /// To what: `s3://BUCKET/KEY`.
        url: String,
        /// What the store or the network said.
        why: String,
        /// What to do, or nothing.
        remedy: &'static str,
        /// Whether it may pass.
        severity: Severity,
    },
    /// `output.require_marker` is set, and the bucket does not have it under the prefix.
    #[error(
        "output.dir {0} holds no object `{marker}`: is it the right bucket and prefix? (`aws s3 cp /dev/null {0}/{marker}` marks it)",
        marker = disk::MARKER
    )]
    Unmarked(String),
    /// A store in which the second writer of a name silently wins.
    #[error(
        "output.dir {0}: the store ignores `If-None-Match: *`, so workers could overwrite each other's chips: use a store with conditional writes"
    )]
    Unconditional(String),
    /// Settings of an object store that cannot be used.
    #[error("output.dir {place}: {why}")]
    Unusable {
        /// `s3://BUCKET/PREFIX`.
        place: String,
        /// What is wrong, with the remedy.
        why: String,
    },
    /// Two different chips want one name.
    #[error("file {0} exists already and is another chip's: output.name_template gives two chips one name")]
    NameTaken(String),
    /// A name that cannot be a file name.
    #[error("{0:?} is not a safe file name")]
    UnsafeName(String),
    /// A record in the store cannot be read.
    #[error("{path}: {why}")]
    Damaged {
        /// The record.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The staging place vanished: another attempt at the task has finished and swept it.
    #[error("the staging place of attempt {0} is gone")]
    Swept(String),
}

fn remedy(action: &str, error: &std::io::Error) -> &'static str {
    match error.kind() {
        // What Linux answers where there are no hard links (FAT, some CIFS shares).
        std::io::ErrorKind::PermissionDenied if action == "linking" => {
            ": the file system of output.dir must have hard links"
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ": free space or enlarge the quota, then start the node again"
        }
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
            ": make output.dir writable for the user that runs the node"
        }
        std::io::ErrorKind::Unsupported => ": the file system of output.dir must have hard links",
        _ => "",
    }
}

impl StoreError {
    /// What to do about it. A store that cannot write concerns the node, not the task.
    pub fn severity(&self) -> Severity {
        use std::io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } => match source.kind() {
                Kind::StaleNetworkFileHandle
                | Kind::Interrupted
                | Kind::TimedOut
                | Kind::WouldBlock
                | Kind::ResourceBusy
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable => Severity::Transient,
                // EIO: what a network file system answers while its server is away.
                _ if source.raw_os_error() == Some(5) => Severity::Transient,
                _ => Severity::Fatal,
            },
            Self::Object { severity, .. } => *severity,
            Self::Missing(_)
            | Self::NotMounted(_)
            | Self::OtherRun { .. }
            | Self::Unmarked(_)
            | Self::Unconditional(_)
            | Self::Unusable { .. } => Severity::Fatal,
            Self::NameTaken(_) | Self::UnsafeName(_) | Self::Damaged { .. } | Self::Swept(_) => Severity::Permanent,
        }
    }
}

/// A place for datasets.
pub trait DatasetStore: Send + Sync {
    /// Checks that the place is there and writable.
    ///
    /// # Errors
    /// Any [`StoreError`]; all are fatal here.
    fn check(&self) -> Result<(), StoreError>;

    /// Binds the place to run `run`, once; a second run is refused unless names tell runs apart.
    ///
    /// # Errors
    /// [`StoreError::OtherRun`], or an I/O failure.
    fn bind(&self, run: &str) -> Result<(), StoreError>;

    /// The record of a finished task, after completing its publication if a crash interrupted it.
    ///
    /// # Errors
    /// I/O failures, [`StoreError::Damaged`].
    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError>;

    /// Opens a staging place.
    ///
    /// # Errors
    /// I/O failures.
    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError>;

    /// Puts one chip's two files into the staging place.
    ///
    /// # Errors
    /// I/O failures, [`StoreError::UnsafeName`], [`StoreError::Swept`].
    fn stage(&self, attempt: &Attempt, name: &str, image: &[u8], mask: &[u8]) -> Result<(), StoreError>;

    /// Makes the staged files of `manifest` part of the dataset, unless another attempt already did.
    /// In every `Ok` case the task is finished and published when this returns.
    ///
    /// # Errors
    /// I/O failures: whether the commit happened is then found by [`DatasetStore::finished`].
    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError>;

    /// Throws away all staging places of a task that will not be tried any more.
    fn clear(&self, key: &TaskKey);

    /// Throws the staging place away, unless the attempt is committed; failures are not worth more than a log line.
    fn abandon(&self, attempt: &Attempt);

    /// Removes what nodes that were killed have left and no redelivery will: probes, and attempts at finished tasks. Called by nodes that come and that go;
    /// harmless beside others; failures are not worth more than a log line.
    fn tidy(&self);

    /// Shows the bytes of every manifest, one after the other.
    ///
    /// # Errors
    /// A store that cannot be listed. Manifests that cannot be read are left out: their tasks will say so themselves.
    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError>;
}

/// A run id comes from a message and becomes a directory.
fn safe_key(key: &TaskKey) -> Result<(), StoreError> {
    if is_safe_run_id(&key.run) { Ok(()) } else { Err(StoreError::UnsafeName(key.run.clone())) }
}

/// 128 random bits: unique over machines, restarts and pids.
fn unique() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Io {
        action: "reading",
        path: "the system's random numbers".into(),
        source: std::io::Error::other(e.to_string()),
    })?;
    Ok(hex(&bytes))
}
