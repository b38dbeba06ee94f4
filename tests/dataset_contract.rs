//! What every dataset store promises, tried on the one on disk, on the one in memory, and on the one in a bucket.
//!
//! Contract: each promise is one function over [`Stage`]; the table at the end runs all of them on all three. Those in
//! `s3_bucket` need a server (`eval "$(scripts/s3 start)"`) and fail with that remedy without it.
//! Crashes, damage and what only a file system can do are in `dataset_crash.rs`; deaths between the requests to a bucket
//! in `dataset_bucket.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/chips.rs"]
mod chips;
#[path = "support/s3.rs"]
mod s3_server;

use std::collections::BTreeMap;
use std::sync::Barrier;

use chips::{RUN, bytes, finish, key, manifest, name, record, stage};
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::dataset::memory::MemoryStore;
use satellite_pipeline::adapters::dataset::s3::S3Store;
use satellite_pipeline::adapters::dataset::{Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::manifest::{FileRecord, Manifest};
use satellite_pipeline::domain::task::TaskKey;

/// Published pairs by name.
type Pairs = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

/// A store and a way to look at what it holds without asking it.
trait Stage {
    fn store(&self) -> &dyn DatasetStore;
    fn pairs(&self) -> Pairs;
    fn open_attempts(&self) -> usize;
}

struct OnDisk {
    dir: tempfile::TempDir,
    store: DiskStore,
}

impl OnDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::new(dir.path(), false, false);
        Self { dir, store }
    }

    fn files(&self, place: &str) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join(place)) else { return BTreeMap::new() };
        let stem =
            |p: &std::path::Path| p.file_name().unwrap().to_str().unwrap().strip_suffix(".tif").unwrap().to_owned();
        entries.map(|e| e.unwrap().path()).map(|p| (stem(&p), std::fs::read(p).unwrap())).collect()
    }
}

impl Stage for OnDisk {
    fn store(&self) -> &dyn DatasetStore {
        &self.store
    }

    fn pairs(&self) -> Pairs {
        let (images, mut masks) = (self.files("images"), self.files("masks"));
        let pairs = images.into_iter().map(|(n, i)| {
            let mask = masks.remove(&n).unwrap_or_else(|| panic!("{n} has no mask"));
            (n, (i, mask))
        });
        let pairs = pairs.collect();
        assert!(masks.is_empty(), "masks without image: {:?}", masks.keys());
        pairs
    }

    fn open_attempts(&self) -> usize {
        let Ok(tasks) = std::fs::read_dir(self.dir.path().join(".staging").join(RUN)) else { return 0 };
        tasks.map(|t| std::fs::read_dir(t.unwrap().path()).unwrap().count()).sum()
    }
}

struct InMemory(MemoryStore);

impl Stage for InMemory {
    fn store(&self) -> &dyn DatasetStore {
        &self.0
    }

    fn pairs(&self) -> Pairs {
        self.0.names().into_iter().map(|n| (n.clone(), self.0.pair(&n).unwrap())).collect()
    }

    fn open_attempts(&self) -> usize {
        self.0.staged()
    }
}

struct InBucket {
    bucket: s3_server::Bucket,
    store: S3Store,
}

impl InBucket {
    fn new() -> Self {
        let bucket = s3_server::Bucket::new();
        let store = S3Store::new(&bucket.settings()).unwrap();
        Self { bucket, store }
    }
}

impl Stage for InBucket {
    fn store(&self) -> &dyn DatasetStore {
        &self.store
    }

    fn pairs(&self) -> Pairs {
        let (images, mut masks) = (self.bucket.files("images"), self.bucket.files("masks"));
        let stem = |file: String| file.strip_suffix(".tif").unwrap().to_owned();
        let pairs = images.into_iter().map(|(file, image)| {
            let mask = masks.remove(&file).unwrap_or_else(|| panic!("{file} has no mask"));
            (stem(file), (image, mask))
        });
        let pairs = pairs.collect();
        assert!(masks.is_empty(), "masks without image: {:?}", masks.keys());
        pairs
    }

    fn open_attempts(&self) -> usize {
        let staged = self.bucket.files(&format!(".staging/{RUN}"));
        let attempts = staged.keys().map(|key| key.rsplit_once('/').unwrap().0.to_owned());
        attempts.collect::<std::collections::BTreeSet<_>>().len()
    }
}

fn expected(worker: &str, task: u64, count: u64) -> Pairs {
    (0..count).map(|chip| name(worker, task, chip)).map(|n| (n.clone(), bytes(&n))).collect()
}

fn nothing_shows_before_the_commit_and_everything_after(on: &dyn Stage) {
    let store = on.store();
    store.check().unwrap();
    store.bind(RUN).unwrap();
    assert_eq!(store.finished(&key(1)).unwrap(), None);
    let (attempt, manifest) = stage(store, 1, "a", 3).unwrap();
    assert!(on.pairs().is_empty());
    assert_eq!(store.finished(&key(1)).unwrap(), None);
    assert_eq!(store.commit(&attempt, &manifest).unwrap(), Committed::Ours);
    assert_eq!(on.pairs(), expected("a", 1, 3));
    assert_eq!(store.finished(&key(1)).unwrap(), Some(manifest));
    assert_eq!(on.open_attempts(), 0);
    assert_eq!(store.finished(&key(2)).unwrap(), None, "another task");
    assert_eq!(store.finished(&TaskKey { run: "run2".into(), task: 1 }).unwrap(), None, "another run");
}

fn a_task_without_chips_is_finished_like_any_other(on: &dyn Stage) {
    assert_eq!(finish(on.store(), 4, "a", 0).unwrap(), Committed::Ours);
    assert_eq!(on.store().finished(&key(4)).unwrap().unwrap().chips, []);
    assert!(on.pairs().is_empty());
}

fn the_second_attempt_is_told_of_the_first_and_changes_nothing(on: &dyn Stage) {
    let store = on.store();
    let (late, late_manifest) = stage(store, 1, "b", 2).unwrap();
    let (attempt, manifest) = stage(store, 1, "a", 3).unwrap();
    assert_eq!(store.commit(&attempt, &manifest).unwrap(), Committed::Ours);
    assert_eq!(store.commit(&late, &late_manifest).unwrap(), Committed::Theirs(Box::new(manifest.clone())));
    assert_eq!(on.pairs(), expected("a", 1, 3));
    assert_eq!(on.open_attempts(), 0);
    // And one that begins after the end, with the same names.
    assert_eq!(finish(store, 1, "a", 3).unwrap(), Committed::Theirs(Box::new(manifest.clone())));
    assert_eq!(store.finished(&key(1)).unwrap(), Some(manifest));
    assert_eq!((on.pairs(), on.open_attempts()), (expected("a", 1, 3), 0));
}

fn an_abandoned_attempt_leaves_nothing(on: &dyn Stage) {
    let store = on.store();
    let (attempt, _) = stage(store, 1, "a", 3).unwrap();
    let (other, manifest) = stage(store, 1, "b", 1).unwrap();
    store.abandon(&attempt);
    store.abandon(&attempt);
    assert_eq!(on.open_attempts(), 1, "only the abandoned one is gone");
    let (image, mask) = bytes("x");
    assert!(matches!(store.stage(&attempt, "x", &image, &mask), Err(StoreError::Swept(id)) if id == attempt.id));
    assert_eq!(store.commit(&other, &manifest).unwrap(), Committed::Ours);
    assert_eq!((on.pairs(), on.open_attempts()), (expected("b", 1, 1), 0));
}

/// A zombie that wakes up and is killed: nobody will get its task again.
fn tidying_takes_attempts_at_finished_tasks_and_leaves_the_others(on: &dyn Stage) {
    let store = on.store();
    finish(store, 1, "a", 2).unwrap();
    store.begin(&key(1)).unwrap();
    let (open, manifest) = stage(store, 2, "b", 1).unwrap();
    assert_eq!(on.open_attempts(), 2);
    store.tidy();
    assert_eq!(on.open_attempts(), 1);
    assert_eq!(store.commit(&open, &manifest).unwrap(), Committed::Ours);
    assert_eq!((on.pairs().len(), on.open_attempts()), (3, 0));
}

fn an_attempt_that_was_abandoned_cannot_be_committed(on: &dyn Stage) {
    let (attempt, manifest) = stage(on.store(), 1, "a", 1).unwrap();
    on.store().abandon(&attempt);
    assert!(matches!(on.store().commit(&attempt, &manifest), Err(StoreError::Swept(id)) if id == attempt.id));
    assert_eq!(on.store().finished(&key(1)).unwrap(), None);
    assert!(on.pairs().is_empty());
}

fn staging_a_chip_again_replaces_it(on: &dyn Stage) {
    let store = on.store();
    let attempt = store.begin(&key(1)).unwrap();
    let (image, mask) = bytes("c");
    store.stage(&attempt, "c", b"half an im", b"").unwrap();
    store.stage(&attempt, "c", &image, &mask).unwrap();
    store.commit(&attempt, &manifest(&attempt, "a", vec![record("c", 7)])).unwrap();
    assert_eq!(on.pairs(), Pairs::from([("c".to_owned(), (image, mask))]));
}

fn names_that_leave_the_directory_are_refused(on: &dyn Stage) {
    let store = on.store();
    let attempt = store.begin(&key(1)).unwrap();
    for bad in ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", ".hidden", "a\0b", &"x".repeat(300)] {
        let refused = store.stage(&attempt, bad, b"i", b"m");
        assert!(matches!(refused, Err(StoreError::UnsafeName(_))), "{bad:?}: {refused:?}");
    }
    for run in ["..", "../x", "a/b", ""] {
        let outside = TaskKey { run: run.into(), task: 1 };
        assert!(matches!(store.finished(&outside), Err(StoreError::UnsafeName(_))), "{run:?}");
        assert!(matches!(store.begin(&outside), Err(StoreError::UnsafeName(_))), "{run:?}");
    }
}

fn manifests_are_shown_one_by_one(on: &dyn Stage) {
    let store = on.store();
    store.manifests(&mut |_| panic!("nothing is finished")).unwrap();
    (0..40).for_each(|task| assert_eq!(finish(store, task, "a", task % 2).unwrap(), Committed::Ours));
    let mut found = Vec::new();
    store.manifests(&mut |raw| found.push(Manifest::parse(raw).unwrap())).unwrap();
    found.sort_by_key(|m| m.key.task);
    assert_eq!(found.len(), 40);
    for (task, manifest) in found.into_iter().enumerate() {
        assert_eq!(Some(manifest), store.finished(&key(task as u64)).unwrap());
    }
}

fn clearing_a_task_takes_its_attempts_away_and_their_commits_fail(on: &dyn Stage) {
    let store = on.store();
    let (slept, manifest) = stage(store, 1, "a", 2).unwrap();
    store.begin(&key(1)).unwrap();
    let (other, theirs) = stage(store, 2, "a", 1).unwrap();
    assert_eq!(store.begin(&key(1)).unwrap().earlier, 2);
    store.clear(&key(1));
    assert_eq!(on.open_attempts(), 1, "the other task's");
    assert!(matches!(store.commit(&slept, &manifest), Err(StoreError::Swept(id)) if id == slept.id));
    assert_eq!(store.finished(&key(1)).unwrap(), None);
    assert_eq!(store.begin(&key(1)).unwrap().earlier, 0);
    assert_eq!(store.commit(&other, &theirs).unwrap(), Committed::Ours);
    assert_eq!(on.pairs(), expected("a", 2, 1));
}

fn a_second_run_is_refused(on: &dyn Stage) {
    on.store().bind(RUN).unwrap();
    on.store().bind(RUN).unwrap();
    let error = on.store().bind("run2").unwrap_err();
    assert!(matches!(&error, StoreError::OtherRun { holds, wants, .. } if holds == RUN && wants == "run2"), "{error}");
    on.store().bind(RUN).unwrap();
}

fn a_name_of_another_task_is_refused_and_nothing_is_half_done(on: &dyn Stage) {
    let store = on.store();
    finish(store, 1, "a", 2).unwrap();
    let attempt = store.begin(&key(2)).unwrap();
    let (fresh, taken) = ("fresh".to_owned(), name("a", 1, 1));
    for chip in [&fresh, &taken] {
        store.stage(&attempt, chip, b"other image", b"other mask").unwrap();
    }
    let wanted = manifest(&attempt, "a", vec![record(&fresh, 1), record(&taken, 2)]);
    let mut wanted = wanted;
    for chip in &mut wanted.chips {
        chip.image = FileRecord::of(Algorithm::Sha256, b"other image");
        chip.mask = FileRecord::of(Algorithm::Xxh128, b"other mask");
    }
    let refused = store.commit(&attempt, &wanted);
    assert!(matches!(&refused, Err(StoreError::NameTaken(what)) if what.contains(&taken)), "{refused:?}");
    assert_eq!(store.finished(&key(2)).unwrap(), None);
    store.abandon(&attempt);
    assert_eq!((on.pairs(), on.open_attempts()), (expected("a", 1, 2), 0));
}

fn of_many_attempts_at_once_exactly_one_wins(on: &(dyn Stage + Sync)) {
    const THREADS: u64 = 8;
    for task in 0..40 {
        let start = Barrier::new(THREADS as usize);
        let attempt = |worker: u64| {
            start.wait();
            let worker = worker.to_string();
            let done = stage(on.store(), task, &worker, 2).and_then(|(a, m)| on.store().commit(&a, &m).map(|c| (c, m)));
            match done {
                Ok((Committed::Ours, manifest)) => Some(manifest),
                Ok((Committed::Theirs(_), _)) | Err(StoreError::Swept(_)) => None,
                Err(other) => panic!("{other}"),
            }
        };
        let winners: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..THREADS).map(|w| s.spawn(move || attempt(w))).collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "task {task}");
        assert_eq!(on.store().finished(&key(task)).unwrap().as_ref(), winners.first());
        let mine = |n: &String| n.contains(&format!("_task{task}_"));
        let there: Pairs = on.pairs().into_iter().filter(|(n, _)| mine(n)).collect();
        assert_eq!(there, expected(&winners[0].result.worker_id, task, 2));
    }
    // What a late attempt left behind goes with the next look.
    (0..40).for_each(|task| assert!(on.store().finished(&key(task)).unwrap().is_some()));
    assert_eq!(on.open_attempts(), 0);
}

/// Runs every promise on a fresh store of each kind.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod disk {
            $(#[test] fn $promise() { super::$promise(&super::OnDisk::new()); })*
        }
        mod memory {
            $(#[test] fn $promise() { super::$promise(&super::InMemory(Default::default())); })*
        }
        mod s3_bucket {
            $(#[test] fn $promise() { super::$promise(&super::InBucket::new()); })*
        }
    };
}

contract!(
    nothing_shows_before_the_commit_and_everything_after,
    a_task_without_chips_is_finished_like_any_other,
    the_second_attempt_is_told_of_the_first_and_changes_nothing,
    an_abandoned_attempt_leaves_nothing,
    an_attempt_that_was_abandoned_cannot_be_committed,
    tidying_takes_attempts_at_finished_tasks_and_leaves_the_others,
    staging_a_chip_again_replaces_it,
    names_that_leave_the_directory_are_refused,
    a_second_run_is_refused,
    manifests_are_shown_one_by_one,
    clearing_a_task_takes_its_attempts_away_and_their_commits_fail,
    a_name_of_another_task_is_refused_and_nothing_is_half_done,
    of_many_attempts_at_once_exactly_one_wins,
);

/// Nodes that start at the same time sweep each other's probes and drafts; none of them may notice.
#[test]
fn what_nodes_left_that_died_while_starting_is_swept_by_those_that_start() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join(".staging");
    std::fs::create_dir(&staging).unwrap();
    for name in ["dataset.json.00", "probe.00", "probe.link"] {
        std::fs::write(staging.join(name), "half").unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let store = DiskStore::new(dir.path(), false, false);
                    store.check().unwrap();
                    store.bind("run-a").unwrap();
                }
            });
        }
    });
    DiskStore::new(dir.path(), false, false).bind("run-a").unwrap();
    let left: Vec<_> = std::fs::read_dir(&staging).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
