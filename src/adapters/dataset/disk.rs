//! The dataset on a file system that several machines may share (NFS v3/v4).
//!
//! ```text
//! DIR/images/NAME.tif  DIR/masks/NAME.tif        the dataset
//! DIR/.manifests/RUN/task_N.json                 one per finished task; its link is the commit point
//! DIR/.staging/RUN/N/ATTEMPT/NAME.{image,mask}.tif, manifest.json
//! DIR/dataset.json                               the run the directory belongs to
//! ```
//!
//! Contract: files are written and synced in the staging place; `link(2)` of the manifest commits
//! (atomic, never replaces, also on NFS); then each file is linked to its final name and the staging
//! place is removed. A crash between any two of these steps is completed by the next
//! [`DatasetStore::finished`] of that task. Nothing depends on pids, clocks, locks or mtimes.
//! Trap: over NFS a link whose reply was lost reports `EEXIST` on its own retry; so after any error the
//! manifest that is there is read, and the attempt named in it decides.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::fs::{FileSystem, SystemFs};
use super::verify::manifest_files;
use super::{Attempt, Committed, DatasetStore, StoreError, safe_key, unique};
use crate::adapters::failpoint::reach;
use crate::domain::chip_name::is_safe_stem;
use crate::domain::manifest::{FileRecord, MAX_BYTES, Manifest};
use crate::domain::task::TaskKey;

/// File that says "this is the share, not an empty mount point".
pub const MARKER: &str = ".satellite-output";

/// Name of the file that binds a directory to a run.
pub const RUN_FILE: &str = "dataset.json";

/// Levels below the root at which directories are never removed: `.staging`, `.staging/RUN` and their like.
const LASTING_LEVELS: usize = 2;

/// How often a step is tried again when other nodes keep removing what it needs.
const BEGIN_TRIES: u32 = 100;

/// A dataset directory.
#[derive(Debug)]
pub struct DiskStore {
    pub(super) root: PathBuf,
    require_marker: bool,
    names_the_run: bool,
    bound: Mutex<HashSet<String>>,
    /// Directories whose own names are known to be safe: those that are made once and never removed.
    lasting: Mutex<HashSet<PathBuf>>,
    pub(super) fs: Arc<dyn FileSystem>,
}

/// Adds what was done to what to an I/O error.
pub(super) fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Io { action, path: path.display().to_string(), source })
}

impl DiskStore {
    /// A store in `root`, which must exist. `names_the_run`: whether file names hold the run, so that
    /// several runs may share the directory.
    pub fn new(root: impl Into<PathBuf>, require_marker: bool, names_the_run: bool) -> Self {
        Self::over(Arc::new(SystemFs), root, require_marker, names_the_run)
    }

    /// The same over another file system.
    pub fn over(fs: Arc<dyn FileSystem>, root: impl Into<PathBuf>, require_marker: bool, names_the_run: bool) -> Self {
        Self {
            root: root.into(),
            require_marker,
            names_the_run,
            bound: Mutex::default(),
            lasting: Mutex::default(),
            fs,
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn masks(&self) -> PathBuf {
        self.root.join("masks")
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join(".manifests")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.root.join(".staging")
    }

    pub(super) fn manifest_path(&self, key: &TaskKey) -> PathBuf {
        self.manifests().join(&key.run).join(format!("task_{}.json", key.task))
    }

    pub(super) fn task_staging(&self, key: &TaskKey) -> PathBuf {
        self.staging().join(&key.run).join(key.task.to_string())
    }

    fn attempt_dir(&self, attempt: &Attempt) -> PathBuf {
        self.task_staging(&attempt.key).join(&attempt.id)
    }

    /// Reads a manifest; `None` when there is none.
    /// One that is not the record of the task its path names is damaged.
    pub(super) fn read_manifest(&self, path: &Path) -> Result<Option<Manifest>, StoreError> {
        let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
        match self.fs.stat(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(m) if m.bytes > MAX_BYTES => return Err(damaged(format!("{} bytes are too many", m.bytes))),
            other => at("reading", path, other)?,
        };
        let raw = at("reading", path, self.fs.read(path))?;
        let manifest = Manifest::parse(&raw).map_err(|e| damaged(e.to_string()))?;
        if self.manifest_path(&manifest.key) != path {
            return Err(damaged(format!("it is the record of task {}", manifest.key)));
        }
        Ok(Some(manifest))
    }

    /// Whether there is anything of this name.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.fs.stat(path).is_ok()
    }

    /// Makes a directory below the root with all that lead to it.
    pub(super) fn make_dirs(&self, path: &Path) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let mut made = Ok(());
            for dir in self.levels(path) {
                made = match self.fs.create_dir(dir) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                };
                if made.is_err() {
                    break;
                }
            }
            match made {
                // An attempt that ends right now may take a level away.
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < BEGIN_TRIES => tries += 1,
                made => return at("creating", path, made),
            }
        }
    }

    /// The directories from just below the root down to `path`.
    fn levels<'a>(&self, path: &'a Path) -> Vec<&'a Path> {
        let mut levels: Vec<&Path> = path.ancestors().take_while(|p| *p != self.root).collect();
        levels.reverse();
        levels
    }

    pub(super) fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        at("syncing", path, self.fs.sync_dir(path))
    }

    /// Makes the names on the way from the root to the content of `path` safe. Names of directories that last
    /// (`images`, `.manifests/RUN`, …; not a task's staging place) are made safe once.
    fn sync_way(&self, path: &Path) -> Result<(), StoreError> {
        let levels = self.levels(path);
        let known = |dir: &Path| self.lasting.lock().is_ok_and(|known| known.contains(dir));
        let mut above = self.root.as_path();
        for (depth, dir) in levels.iter().copied().enumerate() {
            let lasts = depth < LASTING_LEVELS;
            if !(lasts && known(dir)) {
                self.sync_dir(above)?;
            }
            if lasts && let Ok(mut known) = self.lasting.lock() {
                known.insert(dir.to_owned());
            }
            above = dir;
        }
        self.sync_dir(above)
    }

    pub(super) fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        at("writing", path, self.fs.write_synced(path, bytes))
    }

    /// Links the committed files to their final names and removes the staging place.
    /// Idempotent, and safe to run by several nodes at once.
    pub(super) fn publish(&self, manifest: &Manifest) -> Result<(), StoreError> {
        // What is reported as finished must still be so after a power cut, whoever linked it.
        self.sync_way(&self.manifests().join(&manifest.key.run))?;
        let staging = self.task_staging(&manifest.key);
        let dir = staging.join(&manifest.attempt);
        if !manifest.chips.is_empty() {
            self.make_dirs(&self.images())?;
            self.make_dirs(&self.masks())?;
        }
        for chip in &manifest.chips {
            let image = (dir.join(format!("{}.image.tif", chip.name)), self.images(), &chip.image);
            let mask = (dir.join(format!("{}.mask.tif", chip.name)), self.masks(), &chip.mask);
            for (from, place, record) in [image, mask] {
                self.publish_file(&from, &place.join(format!("{}.tif", chip.name)), record)?;
                reach("commit.half");
            }
        }
        if !manifest.chips.is_empty() {
            // Also when somebody else has linked them: he may not have come as far as this.
            self.sync_way(&self.images())?;
            self.sync_way(&self.masks())?;
        }
        match self.fs.remove_dir_all(&staging) {
            Err(e) if e.kind() != io::ErrorKind::NotFound && e.kind() != io::ErrorKind::DirectoryNotEmpty => {
                at("removing", &staging, Err(e))
            }
            // Not empty: another attempt is writing into it just now; that one will find the manifest.
            _ => Ok(()),
        }
    }

    /// Gives a staged file its final name.
    fn publish_file(&self, from: &Path, to: &Path, record: &FileRecord) -> Result<(), StoreError> {
        let error = match self.fs.hard_link(from, to) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Someone was here before: an earlier try, a crash, another node. What counts is what is there.
        match self.fs.stat(to) {
            Ok(there) if there.bytes == record.bytes && self.same_file(from, to, record)? => Ok(()),
            Ok(_) => Err(StoreError::NameTaken(to.display().to_string())),
            Err(e) if e.kind() != io::ErrorKind::NotFound => at("reading", to, Err(e)),
            Err(_) if error.kind() == io::ErrorKind::NotFound && !self.exists(from) => Err(StoreError::Damaged {
                path: to.display().to_string(),
                why: "its task is finished, but the file is gone: `node verify DIR --repair` frees the task for \
                      another run"
                    .into(),
            }),
            Err(_) => at("linking", to, Err(error)),
        }
    }

    /// Whether `to` is the file that `from` was, by identity when both are there, else by content.
    fn same_file(&self, from: &Path, to: &Path, record: &FileRecord) -> Result<bool, StoreError> {
        if let (Ok(a), Ok(b)) = (self.fs.stat(from), self.fs.stat(to))
            && a.identity == b.identity
        {
            return Ok(true);
        }
        Ok(record.describes(&at("reading", to, self.fs.read(to))?))
    }

    /// Refuses names that are another chip's, before anything is committed. A crash cannot leave such names:
    /// final names are given only after the commit.
    fn names_are_free(&self, dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        for chip in &manifest.chips {
            let image = (self.images(), "image", &chip.image);
            let mask = (self.masks(), "mask", &chip.mask);
            for (place, kind, record) in [image, mask] {
                let to = place.join(format!("{}.tif", chip.name));
                if self.exists(&to) && !self.same_file(&dir.join(format!("{}.{kind}.tif", chip.name)), &to, record)? {
                    return Err(StoreError::NameTaken(to.display().to_string()));
                }
            }
        }
        Ok(())
    }

    /// A vanished staging place means that another attempt finished the task.
    fn swept(&self, error: StoreError, attempt: &Attempt, dir: &Path) -> StoreError {
        match &error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound && !self.exists(dir) => {
                StoreError::Swept(attempt.id.clone())
            }
            _ => error,
        }
    }

    /// Whether every file of a committed manifest has its final name; cheap enough for every start.
    fn is_published(&self, manifest: &Manifest) -> bool {
        !self.exists(&self.task_staging(&manifest.key))
            && manifest.chips.iter().all(|chip| {
                let file = format!("{}.tif", chip.name);
                self.exists(&self.images().join(&file)) && self.exists(&self.masks().join(&file))
            })
    }
}

impl DatasetStore for DiskStore {
    fn check(&self) -> Result<(), StoreError> {
        let root = self.root.display().to_string();
        match self.fs.stat(&self.root) {
            Ok(m) if m.is_dir => {}
            Ok(_) => return Err(StoreError::Missing(format!("{root} (it is a file)"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(root)),
            Err(e) => return at("reading", &self.root, Err(e)),
        }
        if self.require_marker && !self.exists(&self.root.join(MARKER)) {
            return Err(StoreError::NotMounted(root));
        }
        self.make_dirs(&self.staging())?;
        // Again when a node that has just come up swept the probe.
        for _ in 0..BEGIN_TRIES {
            if self.probe()? {
                return Ok(());
            }
        }
        at("linking", &self.staging(), Err(io::Error::other("somebody keeps removing the probe")))
    }

    fn bind(&self, run: &str) -> Result<(), StoreError> {
        if self.bound.lock().is_ok_and(|b| b.contains(run)) {
            return Ok(());
        }
        if !self.names_the_run {
            self.bind_directory(run)?;
        }
        if let Ok(mut bound) = self.bound.lock() {
            bound.insert(run.to_owned());
        }
        self.sweep();
        Ok(())
    }

    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        safe_key(key)?;
        let Some(manifest) = self.read_manifest(&self.manifest_path(key))? else { return Ok(None) };
        if !self.is_published(&manifest) {
            self.publish(&manifest)?;
        }
        Ok(Some(manifest))
    }

    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        safe_key(key)?;
        let mut attempt = Attempt { key: key.clone(), id: unique()?, earlier: 0 };
        let dir = self.attempt_dir(&attempt);
        self.make_dirs(&dir)?;
        // None: an attempt that has just finished the task is sweeping; this one will find the manifest.
        let staged = self.fs.names(&self.task_staging(key)).unwrap_or_default();
        attempt.earlier = staged.iter().filter(|name| **name != attempt.id).count() as u32;
        Ok(attempt)
    }

    fn stage(&self, attempt: &Attempt, name: &str, image: &[u8], mask: &[u8]) -> Result<(), StoreError> {
        if !is_safe_stem(name) {
            return Err(StoreError::UnsafeName(name.to_owned()));
        }
        let dir = self.attempt_dir(attempt);
        let write = |kind: &str, bytes: &[u8]| {
            let path = dir.join(format!("{name}.{kind}.tif"));
            self.write_synced(&path, bytes).map_err(|e| self.swept(e, attempt, &dir))
        };
        write("image", image)?;
        write("mask", mask)
    }

    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        let (dir, path) = (self.attempt_dir(attempt), self.manifest_path(&attempt.key));
        let parent = self.manifests().join(&attempt.key.run);
        self.make_dirs(&parent)?;
        let taken = self.names_are_free(&dir, manifest);
        if taken.is_err() && self.read_manifest(&path)?.is_none() {
            return taken.map(|()| Committed::Ours);
        }
        let draft = dir.join("manifest.json");
        let body = serde_json::to_vec(manifest)
            .map_err(|e| StoreError::Damaged { path: draft.display().to_string(), why: e.to_string() })?;
        let staged = self
            .write_synced(&draft, &body)
            .and_then(|()| self.sync_way(&dir))
            .and_then(|()| at("linking", &path, self.fs.hard_link(&draft, &path)));
        match self.read_manifest(&path)? {
            Some(there) if there.attempt == attempt.id => {
                reach("commit.linked");
                self.publish(&there)?;
                Ok(Committed::Ours)
            }
            Some(there) => {
                self.abandon(attempt);
                self.publish(&there)?;
                Ok(Committed::Theirs(Box::new(there)))
            }
            None => Err(staged
                .err()
                .map_or_else(|| StoreError::Swept(attempt.id.clone()), |e| self.swept(e, attempt, &dir))),
        }
    }

    fn clear(&self, key: &TaskKey) {
        let dir = self.task_staging(key);
        if let Err(error) = self.fs.remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %dir.display(), %error, "staging places could not be removed");
        }
    }

    fn abandon(&self, attempt: &Attempt) {
        let dir = self.attempt_dir(attempt);
        // Committed, and then something failed: what is staged is all there is of the task's chips.
        let manifest = self.read_manifest(&self.manifest_path(&attempt.key));
        if manifest.is_ok_and(|there| there.is_some_and(|there| there.attempt == attempt.id)) {
            return;
        }
        if let Err(error) = self.fs.remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %dir.display(), %error, "staging place could not be removed");
        }
        // Only when no other attempt of the task is staged.
        let _ = self.fs.remove_dir(&self.task_staging(&attempt.key));
    }

    fn tidy(&self) {
        self.sweep();
    }

    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        for path in manifest_files(self)? {
            if std::fs::metadata(&path).is_ok_and(|m| m.len() <= MAX_BYTES) {
                each(&std::fs::read(&path).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// A file that is not there need not be removed.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
