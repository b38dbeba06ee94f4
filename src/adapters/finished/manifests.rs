//! The manifests of a dataset, one after the other, read by all threads and handed on in order.
//!
//! Contract: [`Manifests::list`] fixes the set and the order (run, then number of the task); every pass over it sees the
//! same manifests in the same order, whatever workers commit meanwhile. The first pass asks the store for each task, so
//! that what a crash left half published is published.
//! Memory: 24 bytes per task, and the manifests of one batch, about `BATCH_BYTES` of JSON.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::Digest as _;

use super::FinishError;
use crate::adapters::dataset::disk::DiskStore;
use crate::adapters::dataset::{DatasetStore as _, StoreError};
use crate::domain::checksum::hex;
use crate::domain::manifest::Manifest;
use crate::domain::task::{TaskKey, is_safe_run_id};

/// JSON read at a time, bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// Manifests read at a time.
const BATCH: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    run: usize,
    task: u64,
    bytes: u64,
}

/// The manifests there were when they were listed.
#[derive(Debug)]
pub struct Manifests {
    root: PathBuf,
    runs: Vec<String>,
    tasks: Vec<Entry>,
}

impl Manifests {
    /// Lists them.
    ///
    /// # Errors
    /// A directory that cannot be read; [`FinishError::Empty`].
    pub fn list(root: &Path) -> Result<Self, FinishError> {
        let top = root.join(".manifests");
        let mut runs: Vec<String> = names(&top)?.into_iter().filter(|run| is_safe_run_id(run)).collect();
        runs.retain(|run| top.join(run).is_dir());
        runs.sort();
        let mut tasks = Vec::new();
        for (run, name) in runs.iter().enumerate() {
            let dir = top.join(name);
            for file in names(&dir)? {
                let number = file.strip_prefix("task_").and_then(|f| f.strip_suffix(".json"));
                let Some(task) = number.and_then(|n| n.parse().ok()) else { continue };
                let path = dir.join(&file);
                let bytes = std::fs::metadata(&path).map_err(FinishError::io("reading", &path))?.len();
                tasks.push(Entry { run, task, bytes });
            }
        }
        if tasks.is_empty() {
            return Err(FinishError::Empty(root.display().to_string()));
        }
        tasks.sort_unstable();
        Ok(Self { root: root.to_owned(), runs, tasks })
    }

    /// The dataset's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Never true: a list without a task is an error.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The runs, ascending.
    pub fn runs(&self) -> &[String] {
        &self.runs
    }

    /// The task at a place of the list.
    pub fn key(&self, at: usize) -> TaskKey {
        let entry = self.tasks[at];
        TaskKey { run: self.runs[entry.run].clone(), task: entry.task }
    }

    /// Reads one manifest.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub fn read(&self, at: usize) -> Result<Manifest, FinishError> {
        let key = self.key(at);
        let path = self.root.join(".manifests").join(&key.run).join(format!("task_{}.json", key.task));
        let raw = std::fs::read(&path).map_err(FinishError::io("reading", &path))?;
        let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
        let manifest = Manifest::parse(&raw).map_err(|e| damaged(e.to_string()))?;
        if manifest.key != key {
            return Err(damaged(format!("it is the record of task {}", manifest.key)).into());
        }
        Ok(manifest)
    }

    /// SHA-256 over tasks and attempts: equal for the same manifests. A manifest never changes, so its attempt names it.
    ///
    /// # Errors
    /// Manifests that cannot be read.
    pub fn fingerprint(&self) -> Result<String, FinishError> {
        let mut hash = Fingerprint::default();
        (0..self.len()).try_for_each(|at| self.read(at).map(|manifest| hash.add(&manifest)))?;
        Ok(hash.end())
    }

    /// Completes what is half published, and reads one manifest.
    ///
    /// # Errors
    /// As the store.
    pub fn read_published(&self, store: &DiskStore, at: usize) -> Result<Manifest, FinishError> {
        let key = self.key(at);
        let gone = || StoreError::Damaged { path: key.to_string(), why: "its manifest has just vanished".into() };
        Ok(store.finished(&key)?.ok_or_else(gone)?)
    }

    /// Hands every manifest to `sink`, in order; `read` runs on the pool's threads and may turn it into what is wanted.
    ///
    /// # Errors
    /// The first error of either.
    pub fn each<T: Send>(
        &self,
        pool: &rayon::ThreadPool,
        read: impl Fn(usize) -> Result<T, FinishError> + Sync,
        mut sink: impl FnMut(usize, T) -> Result<(), FinishError>,
    ) -> Result<(), FinishError> {
        let mut from = 0;
        while from < self.tasks.len() {
            let (mut to, mut bytes) = (from, 0);
            while to < self.tasks.len() && to - from < BATCH && (to == from || bytes < BATCH_BYTES) {
                bytes += self.tasks[to].bytes;
                to += 1;
            }
            let batch: Vec<_> = pool.install(|| (from..to).into_par_iter().map(|at| (at, read(at))).collect());
            for (at, one) in batch {
                sink(at, one?)?;
            }
            from = to;
        }
        Ok(())
    }
}

/// See [`Manifests::fingerprint`].
#[derive(Debug, Default)]
pub struct Fingerprint(sha2::Sha256);

impl Fingerprint {
    /// One manifest more, in the order of the list.
    pub fn add(&mut self, manifest: &Manifest) {
        self.0.update(format!("{} {}\n", manifest.key, manifest.attempt));
    }

    /// Lower-case hex.
    pub fn end(self) -> String {
        hex(&self.0.finalize())
    }
}

fn names(dir: &Path) -> Result<Vec<String>, FinishError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(FinishError::io("listing", dir))?,
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<std::io::Result<Vec<_>>>().map_err(FinishError::io("listing", dir))
}
