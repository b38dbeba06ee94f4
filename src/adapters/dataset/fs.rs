//! The file system calls the commit protocol is made of.
//!
//! Contract: each call is one step that either happens or does not; what survives a power cut is what
//! [`FileSystem::write_synced`] wrote and what a directory held when [`FileSystem::sync_dir`] returned. The
//! protocol may rely on nothing else, and a model with exactly these promises tries it
//! (`tests/commit_model.rs`). Trap: a new directory entry, also that of a new directory, is lost in a
//! power cut until the directory above it is synced.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Length.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Device and inode: equal for two names of one file.
    pub identity: (u64, u64),
}

/// See the head of this file.
pub trait FileSystem: Send + Sync + Debug {
    /// Length, kind and identity.
    ///
    /// # Errors
    /// As the system says; `NotFound` when there is nothing of that name.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// The whole file.
    ///
    /// # Errors
    /// As the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Makes or replaces a file, and returns when its bytes are safe (its name is not yet).
    ///
    /// # Errors
    /// As the system says.
    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file one more name, never replacing another file.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system says.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes one directory; its parent must exist.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory.
    ///
    /// # Errors
    /// As the system says.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a directory safe.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// As the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, or as the system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything below it.
    ///
    /// # Errors
    /// As the system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
}

/// The system's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFs;

impl FileSystem for SystemFs {
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        use std::os::unix::fs::MetadataExt as _;
        let m = fs::metadata(path)?;
        Ok(Stat { bytes: m.len(), is_dir: m.is_dir(), identity: (m.dev(), m.ino()) })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}
