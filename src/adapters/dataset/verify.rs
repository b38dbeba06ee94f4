//! Is a dataset directory what its manifests say, no more and no less?
//!
//! Contract: reads everything, changes nothing; [`repair`] mends what can be mended without inventing
//! anything: half-published tasks are completed, leftovers of dead attempts are removed, files nobody
//! committed and chips that are damaged go to `.quarantine/` together with the manifest of their task.
//! Trap: run it while no worker writes; a staging place in use looks like a leftover.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::DiskStore;
use crate::domain::manifest::{ChipRecord, FileRecord, Manifest};
use crate::domain::task::TaskKey;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A file of `images/` or `masks/` that no manifest names.
    Orphan(PathBuf),
    /// A file that a manifest names and that is not there.
    Missing(TaskKey, PathBuf),
    /// A file whose length or hash is not the manifest's.
    Damaged(TaskKey, PathBuf, String),
    /// A name, or a parcel in the same season, that two manifests have.
    Duplicate(TaskKey, String),
    /// A committed task whose files have not all got their final names yet.
    HalfPublished(TaskKey),
    /// A staging place of an attempt that never committed.
    Leftover(PathBuf),
    /// A manifest that cannot be read.
    BadManifest(PathBuf, String),
    /// A file made from the chips (`node dataset finish`) that is not what its record says.
    Product(PathBuf, String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orphan(p) => write!(f, "orphan: {} belongs to no task", p.display()),
            Self::Missing(k, p) => write!(f, "missing: {} of task {k}", p.display()),
            Self::Damaged(k, p, why) => write!(f, "damaged: {} of task {k}: {why}", p.display()),
            Self::Duplicate(k, what) => write!(f, "duplicate: {what} again in task {k}"),
            Self::HalfPublished(k) => write!(f, "half published: task {k}"),
            Self::Leftover(p) => write!(f, "leftover: {} was never committed", p.display()),
            Self::BadManifest(p, why) => write!(f, "manifest: {}: {why}", p.display()),
            Self::Product(p, why) => {
                write!(f, "product: {} {why}: make it again by `node dataset finish`", p.display())
            }
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Manifests read.
    pub tasks: u64,
    /// Chips they name.
    pub chips: u64,
    /// Chips of each class.
    pub per_class: BTreeMap<u8, u64>,
    /// Bytes of the files checked.
    pub bytes: u64,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

/// Checks the whole directory; every file is read and hashed unless `quick`, which compares lengths.
///
/// # Errors
/// Only when the directory itself cannot be read; what is wrong inside is a [`Finding`].
pub fn verify(store: &DiskStore, quick: bool) -> Result<Report, StoreError> {
    let mut census = Census::default();
    let mut committed: HashMap<PathBuf, TaskKey> = HashMap::new();
    for path in manifest_files(store)? {
        let manifest = match store.read_manifest(&path) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => continue,
            Err(error) => {
                census.report.findings.push(Finding::BadManifest(path, error.to_string()));
                continue;
            }
        };
        let key = manifest.key.clone();
        census.report.tasks += 1;
        committed.insert(store.staging().join(&key.run).join(key.task.to_string()), key.clone());
        for chip in &manifest.chips {
            census.chip(&key, chip);
            for (dir, record) in [(store.images(), &chip.image), (store.masks(), &chip.mask)] {
                let path = dir.join(format!("{}.tif", chip.name));
                let found = check_file(&key, &path, record, quick);
                census.file(&key, path, record, found);
            }
        }
    }
    for dir in [store.images(), store.masks()] {
        census.orphans(list(&dir)?);
    }
    find_leftovers(store, &committed, &mut census.report)?;
    Ok(census.report)
}

/// What manifests say, added up; wherever the dataset is kept.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) report: Report,
    named: HashSet<PathBuf>,
    parcels: HashSet<(String, i64, String)>,
}

impl Census {
    /// Counts a chip of a task.
    pub(super) fn chip(&mut self, key: &TaskKey, chip: &ChipRecord) {
        self.report.chips += 1;
        *self.report.per_class.entry(chip.class.get()).or_default() += 1;
        if !self.parcels.insert((key.run.clone(), chip.parcel, chip.season.clone())) {
            self.report.findings.push(Finding::Duplicate(key.clone(), format!("parcel {}", chip.parcel)));
        }
    }

    /// Counts one of its two files, with what was found of it.
    pub(super) fn file(&mut self, key: &TaskKey, path: PathBuf, record: &FileRecord, found: Option<Finding>) {
        self.report.findings.extend(found);
        self.report.bytes += record.bytes;
        let name = path.display().to_string();
        if !self.named.insert(path) {
            self.report.findings.push(Finding::Duplicate(key.clone(), name));
        }
    }

    /// Files that are there and that nothing has named.
    pub(super) fn orphans(&mut self, there: impl IntoIterator<Item = PathBuf>) {
        let nobody_s = there.into_iter().filter(|path| !self.named.contains(path));
        self.report.findings.extend(nobody_s.map(Finding::Orphan));
    }
}

/// What is said of a file whose bytes are not the recorded ones.
pub(in crate::adapters::dataset) fn not_the_manifest_s(record: &FileRecord) -> String {
    format!("its {} is not the manifest's", record.checksum.name())
}

fn check_file(key: &TaskKey, path: &Path, record: &FileRecord, quick: bool) -> Option<Finding> {
    let damaged = |why: String| Some(Finding::Damaged(key.clone(), path.to_owned(), why));
    let length = match fs::metadata(path) {
        Ok(m) => m.len(),
        Err(_) => return Some(Finding::Missing(key.clone(), path.to_owned())),
    };
    if length != record.bytes {
        return damaged(format!("{length} bytes, not {}", record.bytes));
    }
    if quick {
        return None;
    }
    match fs::read(path) {
        Err(error) => damaged(error.to_string()),
        Ok(bytes) if record.describes(&bytes) => None,
        Ok(_) => damaged(not_the_manifest_s(record)),
    }
}

fn find_leftovers(
    store: &DiskStore,
    committed: &HashMap<PathBuf, TaskKey>,
    report: &mut Report,
) -> Result<(), StoreError> {
    for run in list(&store.staging())? {
        if !run.is_dir() {
            report.findings.push(Finding::Leftover(run));
            continue;
        }
        for task in list(&run)? {
            report.findings.push(match committed.get(&task) {
                Some(key) => Finding::HalfPublished(key.clone()),
                None => Finding::Leftover(task),
            });
        }
    }
    Ok(())
}

pub(super) fn manifest_files(store: &DiskStore) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for run in list(&store.manifests())? {
        if run.is_dir() {
            files.extend(list(&run)?);
        }
    }
    Ok(files)
}

/// Entries of a directory, sorted; none when it does not exist.
fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io = |source| StoreError::Io { action: "listing", path: dir.display().to_string(), source };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    paths.sort();
    Ok(paths)
}

/// Mends what `report` found. Returns the tasks that must be processed again, because a file of theirs
/// was lost. Two whole tasks that hold the same parcel are left as they are: which one is wanted is not
/// for a program to say.
///
/// # Errors
/// The first I/O failure; what was mended before it stays mended.
pub fn repair(store: &DiskStore, report: &Report) -> Result<Vec<TaskKey>, StoreError> {
    let mut redo: Vec<TaskKey> = Vec::new();
    let mut shared: HashSet<&str> = HashSet::new();
    for finding in &report.findings {
        let damaged = match finding {
            Finding::HalfPublished(key) => match super::DatasetStore::finished(store, key) {
                Ok(_) => None,
                // The staged files are lost as well.
                Err(StoreError::Damaged { .. } | StoreError::NameTaken(_)) => Some(key),
                Err(other) => return Err(other),
            },
            Finding::Leftover(path) => {
                remove(path)?;
                None
            }
            Finding::Orphan(path) | Finding::BadManifest(path, _) | Finding::Product(path, _) => {
                quarantine(store, path)?;
                None
            }
            Finding::Missing(key, _) | Finding::Damaged(key, ..) => Some(key),
            Finding::Duplicate(key, what) => {
                shared.insert(what);
                Some(key)
            }
        };
        if let Some(key) = damaged
            && !redo.contains(key)
        {
            redo.push(key.clone());
        }
    }
    // A task whose files were only waiting for their names is whole now.
    let mut lost = Vec::new();
    for key in redo {
        let path = store.manifest_path(&key);
        let Some(manifest) = store.read_manifest(&path)? else { continue };
        if !is_whole(store, &manifest) {
            set_aside(store, &manifest, &shared)?;
            quarantine(store, &path)?;
            lost.push(key);
        }
    }
    Ok(lost)
}

/// Moves the files of a task that is not whole to the quarantine, but for those another task names too.
fn set_aside(store: &DiskStore, manifest: &Manifest, shared: &HashSet<&str>) -> Result<(), StoreError> {
    for chip in &manifest.chips {
        for dir in [store.images(), store.masks()] {
            let file = dir.join(format!("{}.tif", chip.name));
            if !shared.contains(&*file.display().to_string()) {
                quarantine(store, &file)?;
            }
        }
    }
    let staging = store.task_staging(&manifest.key);
    if staging.exists() { remove(&staging) } else { Ok(()) }
}

fn is_whole(store: &DiskStore, manifest: &Manifest) -> bool {
    manifest.chips.iter().all(|chip| {
        let file = format!("{}.tif", chip.name);
        check_file(&manifest.key, &store.images().join(&file), &chip.image, false).is_none()
            && check_file(&manifest.key, &store.masks().join(&file), &chip.mask, false).is_none()
    })
}

fn remove(path: &Path) -> Result<(), StoreError> {
    let done = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.map_err(|source| StoreError::Io { action: "removing", path: path.display().to_string(), source })
}

/// Moves a file to `.quarantine/`, under the path it had.
fn quarantine(store: &DiskStore, path: &Path) -> Result<(), StoreError> {
    let inside = path.strip_prefix(store.root()).unwrap_or(path);
    let to = store.root().join(".quarantine").join(inside);
    let io = |source| StoreError::Io { action: "moving", path: path.display().to_string(), source };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    match fs::rename(path, &to) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io),
    }
}
