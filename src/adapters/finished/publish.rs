//! Files that appear whole and all together.
//!
//! Contract: files are written below `DIR/.staging/finish-ID/`, hashed and synced as they are closed;
//! [`Publication::publish`] takes the old `.finished.json` away, renames every file into its place, and writes the new
//! record last. Each rename is atomic; the directory is synced before and after. What a crash leaves in the staging
//! place is a leftover that `node verify --repair` removes.
//! Trap: readers that open two files while they are being renamed may see one old and one new.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::FinishError;
use super::pixels::STATE;
use super::record::{Finished, Origin, RECORD, Vouched};
use crate::domain::checksum::hex;

/// Files on their way into a directory.
#[derive(Debug)]
pub struct Publication {
    root: PathBuf,
    staging: PathBuf,
    files: Vec<Vouched>,
}

/// One file being written.
#[derive(Debug)]
pub struct Draft {
    name: String,
    path: PathBuf,
    file: BufWriter<File>,
    hash: sha2::Sha256,
    bytes: u64,
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Publication {
    /// Opens a staging place of its own.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(root: &Path) -> Result<Self, FinishError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|e| FinishError::Io {
            action: "reading",
            path: "the system's random numbers".into(),
            source: io::Error::other(e.to_string()),
        })?;
        let staging = root.join(".staging").join(format!("finish-{}", hex(&id)));
        fs::create_dir_all(&staging).map_err(FinishError::io("creating", &staging))?;
        Ok(Self { root: root.to_owned(), staging, files: Vec::new() })
    }

    /// Begins a file that will be called `name`, a plain file name.
    ///
    /// # Errors
    /// As the system says.
    pub fn draft(&self, name: &str) -> Result<Draft, FinishError> {
        let path = self.staging.join(name);
        let file = File::create(&path).map_err(FinishError::io("writing", &path))?;
        Ok(Draft { name: name.to_owned(), path, file: BufWriter::new(file), hash: sha2::Sha256::new(), bytes: 0 })
    }

    /// Ends a file.
    ///
    /// # Errors
    /// As the system says.
    pub fn close(&mut self, draft: Draft) -> Result<(), FinishError> {
        let Draft { name, path, file, hash, bytes } = draft;
        let synced = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|f| f.sync_all());
        synced.map_err(FinishError::io("writing", &path))?;
        self.files.push(Vouched { name, bytes, sha256: hex(&hash.finalize()) });
        Ok(())
    }

    /// A whole file at once.
    ///
    /// # Errors
    /// As the system says.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), FinishError> {
        let mut draft = self.draft(name)?;
        draft.write_all(bytes).map_err(FinishError::io("writing", &draft.path))?;
        self.close(draft)
    }

    /// A value as JSON with a line for every field, ending with a newline.
    ///
    /// # Errors
    /// As the system says.
    pub fn put_json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<(), FinishError> {
        let json = |source| FinishError::Json { path: name.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(value).map_err(json)?;
        text.push(b'\n');
        self.put(name, &text)
    }

    /// Gives all files their names. Files that an earlier record vouches for, and that were not made anew, stay when they
    /// are of the same origin (the kept histograms always), and are removed when they are not.
    ///
    /// # Errors
    /// As the system says.
    pub fn publish(self, origin: Origin) -> Result<Finished, FinishError> {
        let Self { root, staging, mut files } = self;
        let sync = |dir: &Path| File::open(dir).and_then(|d| d.sync_all()).map_err(FinishError::io("syncing", dir));
        let earlier = Finished::read(&root)?;
        let record = root.join(RECORD);
        match fs::remove_file(&record) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FinishError::io("removing", &record)(e)),
            _ => sync(&root)?,
        }
        for file in &files {
            let to = root.join(&file.name);
            fs::rename(staging.join(&file.name), &to).map_err(FinishError::io("renaming", &to))?;
        }
        let same = earlier.as_ref().is_some_and(|e| e.origin == origin);
        for file in earlier.map(|e| e.files).unwrap_or_default() {
            if files.iter().any(|f| f.name == file.name) {
                continue;
            }
            if same || file.name == STATE {
                files.push(file);
                continue;
            }
            let path = root.join(&file.name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FinishError::io("removing", &path)(e)),
                _ => {}
            }
        }
        sync(&root)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let finished = Finished { schema: super::record::SCHEMA, origin, files };
        let draft = staging.join(RECORD);
        let mut text = serde_json::to_vec_pretty(&finished)
            .map_err(|source| FinishError::Json { path: RECORD.to_owned(), source })?;
        text.push(b'\n');
        let written = File::create(&draft).and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_all()));
        written.map_err(FinishError::io("writing", &draft))?;
        fs::rename(&draft, &record).map_err(FinishError::io("renaming", &record))?;
        sync(&root)?;
        // Empty now; one that is not is a leftover that `node verify` names.
        let _ = fs::remove_dir(&staging);
        Ok(finished)
    }

    /// Gives up: nothing of it appears.
    pub fn abandon(self) {
        let _ = fs::remove_dir_all(&self.staging);
    }
}
