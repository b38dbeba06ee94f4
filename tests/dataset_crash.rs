//! Crashes, damage and refusals of the file system, on the dataset store on disk.
//!
//! Contract: a crash is made by doing by hand the steps that were done before it; what [`DatasetStore::finished`],
//! `verify` and `repair` make of it is the promise. The full disk is `/dev/full`, the read-only one a directory
//! without write permission, tried by a user that permissions bind.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/chips.rs"]
mod chips;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chips::{RUN, bytes, finish, key, name, stage};
use satellite_pipeline::adapters::dataset::disk::{DiskStore, MARKER};
use satellite_pipeline::adapters::dataset::verify::{Finding, repair, verify};
use satellite_pipeline::adapters::dataset::{Attempt, Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::failure::Severity;
use satellite_pipeline::domain::manifest::Manifest;

struct Place {
    dir: tempfile::TempDir,
    store: DiskStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::new(dir.path(), false, false);
        Self { dir, store }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    fn image(&self, name: &str) -> PathBuf {
        self.path(&format!("images/{name}.tif"))
    }

    fn mask(&self, name: &str) -> PathBuf {
        self.path(&format!("masks/{name}.tif"))
    }

    fn staged(&self, attempt: &Attempt) -> PathBuf {
        self.path(&format!(".staging/{RUN}/{}/{}", attempt.key.task, attempt.id))
    }

    fn manifest(&self, task: u64) -> PathBuf {
        self.path(&format!(".manifests/{RUN}/task_{task}.json"))
    }

    fn findings(&self) -> Vec<Finding> {
        verify(&self.store, false).unwrap().findings
    }

    /// What a new node does first with a redelivered task, on a store that knows nothing of the crash.
    fn finished_by_another_node(&self, task: u64) -> Option<Manifest> {
        DiskStore::new(self.dir.path(), false, false).finished(&key(task)).unwrap()
    }

    fn assert_whole(&self, worker: &str, task: u64, count: u64) {
        for chip in 0..count {
            let name = name(worker, task, chip);
            let (image, mask) = bytes(&name);
            assert_eq!(fs::read(self.image(&name)).unwrap(), image);
            assert_eq!(fs::read(self.mask(&name)).unwrap(), mask);
        }
        assert_eq!(self.findings(), []);
    }
}

/// How far an attempt came before its node died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DiedAfter {
    Begin,
    HalfAFile,
    Staged,
    Draft,
    Commit,
    FirstImage,
    FirstPair,
    AllPublished,
    HalfSwept,
}

impl DiedAfter {
    const ALL: [Self; 9] = [
        Self::Begin,
        Self::HalfAFile,
        Self::Staged,
        Self::Draft,
        Self::Commit,
        Self::FirstImage,
        Self::FirstPair,
        Self::AllPublished,
        Self::HalfSwept,
    ];
}

/// Does an attempt's steps by hand, up to the crash.
fn crash(place: &Place, task: u64, after: DiedAfter) {
    if after == DiedAfter::Begin {
        place.store.begin(&key(task)).unwrap();
        return;
    }
    let (attempt, manifest) = stage(&place.store, task, "dead", 2).unwrap();
    let staged = place.staged(&attempt);
    if after == DiedAfter::HalfAFile {
        let file = staged.join(format!("{}.image.tif", name("dead", task, 1)));
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100).unwrap();
    }
    if after < DiedAfter::Draft {
        return;
    }
    let draft = staged.join("manifest.json");
    fs::write(&draft, serde_json::to_vec(&manifest).unwrap()).unwrap();
    if after < DiedAfter::Commit {
        return;
    }
    fs::create_dir_all(place.manifest(task).parent().unwrap()).unwrap();
    fs::hard_link(&draft, place.manifest(task)).unwrap();
    let links = match after {
        DiedAfter::Commit => 0,
        DiedAfter::FirstImage => 1,
        DiedAfter::FirstPair => 2,
        _ => 4,
    };
    for made in ["images", "masks"] {
        fs::create_dir_all(place.path(made)).unwrap();
    }
    for link in 0..links {
        let name = name("dead", task, link / 2);
        let (kind, to) = if link % 2 == 0 { ("image", place.image(&name)) } else { ("mask", place.mask(&name)) };
        fs::hard_link(staged.join(format!("{name}.{kind}.tif")), to).unwrap();
    }
    if after == DiedAfter::HalfSwept {
        fs::remove_file(&draft).unwrap();
        fs::remove_file(staged.join(format!("{}.image.tif", name("dead", task, 0)))).unwrap();
    }
}

#[test]
fn a_crash_before_the_commit_shows_nothing_and_the_task_can_be_done_again() {
    for after in DiedAfter::ALL.into_iter().filter(|a| *a < DiedAfter::Commit) {
        let place = Place::new();
        crash(&place, 1, after);
        assert_eq!(place.finished_by_another_node(1), None, "{after:?}");
        assert!(!place.path("images").exists() && !place.path("masks").exists(), "{after:?}");
        assert_eq!(place.findings(), [Finding::Leftover(place.path(&format!(".staging/{RUN}/1")))], "{after:?}");
        // The next attempt also clears what the dead one left.
        assert_eq!(finish(&place.store, 1, "next", 2).unwrap(), Committed::Ours, "{after:?}");
        place.assert_whole("next", 1, 2);
    }
}

#[test]
fn a_crash_after_the_commit_is_completed_by_asking_for_the_task() {
    for after in DiedAfter::ALL.into_iter().filter(|a| *a >= DiedAfter::Commit) {
        let place = Place::new();
        crash(&place, 1, after);
        assert!(place.findings().contains(&Finding::HalfPublished(key(1))), "{after:?}");
        let manifest = place.finished_by_another_node(1).unwrap_or_else(|| panic!("{after:?}"));
        assert_eq!(manifest.result.worker_id, "dead");
        place.assert_whole("dead", 1, 2);
        assert!(!place.path(&format!(".staging/{RUN}/1")).exists(), "{after:?}");
    }
}

#[test]
fn a_crash_after_the_commit_is_completed_by_an_attempt_that_comes_too_late() {
    for after in DiedAfter::ALL.into_iter().filter(|a| *a >= DiedAfter::Commit) {
        let place = Place::new();
        crash(&place, 1, after);
        let Committed::Theirs(theirs) = finish(&place.store, 1, "late", 2).unwrap() else { panic!("{after:?}") };
        assert_eq!(theirs.result.worker_id, "dead");
        assert!(!place.image(&name("late", 1, 0)).exists());
        place.assert_whole("dead", 1, 2);
    }
}

#[test]
fn repair_completes_committed_tasks_and_clears_the_rest() {
    let place = Place::new();
    finish(&place.store, 100, "a", 2).unwrap();
    for (task, after) in DiedAfter::ALL.into_iter().enumerate() {
        crash(&place, task as u64, after);
    }
    let report = verify(&place.store, false).unwrap();
    assert_eq!(repair(&place.store, &report).unwrap(), []);
    assert_eq!(place.findings(), []);
    for (task, after) in DiedAfter::ALL.into_iter().enumerate() {
        let finished = place.store.finished(&key(task as u64)).unwrap();
        assert_eq!(finished.is_some(), after >= DiedAfter::Commit, "{after:?}");
    }
    place.assert_whole("a", 100, 2);
    assert_eq!(verify(&place.store, false).unwrap().chips, 2 + 2 * 5);
}

#[test]
fn an_attempt_whose_place_was_swept_is_told_so() {
    let place = Place::new();
    let (slow, manifest) = stage(&place.store, 1, "slow", 1).unwrap();
    finish(&place.store, 1, "fast", 1).unwrap();
    assert!(!place.staged(&slow).exists(), "the winner sweeps the task's whole staging place");
    let (image, mask) = bytes("more");
    assert!(matches!(place.store.stage(&slow, "more", &image, &mask), Err(StoreError::Swept(_))));
    assert!(matches!(place.store.commit(&slow, &manifest).unwrap(), Committed::Theirs(_)));
    place.assert_whole("fast", 1, 1);
}

#[test]
fn an_attempt_that_is_committed_and_then_fails_keeps_its_files() {
    let place = Place::new();
    let (attempt, manifest) = stage(&place.store, 1, "a", 2).unwrap();
    // The second half of the commit cannot be done: what should be a directory is a file.
    fs::write(place.path("masks"), "").unwrap();
    assert_eq!(place.store.commit(&attempt, &manifest).unwrap_err().severity(), Severity::Fatal);
    place.store.abandon(&attempt);
    fs::remove_file(place.path("masks")).unwrap();
    assert_eq!(place.finished_by_another_node(1), Some(manifest));
    place.assert_whole("a", 1, 2);
}

/// One kind of damage, what `verify` must say, and whether the task is lost.
type Damage = (&'static str, fn(&Place), fn(&Place) -> Vec<Finding>, &'static [u64]);

fn chip(task: u64) -> String {
    name("a", task, 0)
}

const DAMAGES: [Damage; 8] = [
    (
        "a file nobody wrote",
        |p| fs::write(p.path("images/stray.tif"), "x").unwrap(),
        |p| vec![Finding::Orphan(p.path("images/stray.tif"))],
        &[],
    ),
    (
        "a mask without its image",
        |p| fs::remove_file(p.image(&chip(1))).unwrap(),
        |p| vec![Finding::Missing(key(1), p.image(&chip(1)))],
        &[1],
    ),
    (
        "a truncated image",
        |p| fs::OpenOptions::new().write(true).open(p.image(&chip(1))).unwrap().set_len(10).unwrap(),
        |p| {
            let whole = bytes(&chip(1)).0.len();
            vec![Finding::Damaged(key(1), p.image(&chip(1)), format!("10 bytes, not {whole}"))]
        },
        &[1],
    ),
    (
        "a flipped bit",
        |p| {
            let mut raw = fs::read(p.mask(&chip(1))).unwrap();
            raw[3] ^= 1;
            fs::write(p.mask(&chip(1)), raw).unwrap();
        },
        |p| vec![Finding::Damaged(key(1), p.mask(&chip(1)), "its XXH128 is not the manifest's".into())],
        &[1],
    ),
    (
        "a manifest cut short",
        |p| {
            let raw = fs::read(p.manifest(1)).unwrap();
            fs::write(p.manifest(1), &raw[..raw.len() / 2]).unwrap();
        },
        |p| {
            let why = p.store.finished(&key(1)).unwrap_err().to_string();
            let orphans = [p.image(&chip(1)), p.mask(&chip(1))].map(Finding::Orphan);
            [vec![Finding::BadManifest(p.manifest(1), why)], orphans.to_vec()].concat()
        },
        &[],
    ),
    (
        "a manifest under another task's name",
        |p| {
            fs::copy(p.manifest(1), p.manifest(7)).unwrap();
        },
        |p| {
            vec![Finding::BadManifest(
                p.manifest(7),
                format!("{}: it is the record of task run1/1", p.manifest(7).display()),
            )]
        },
        &[],
    ),
    (
        "a probe of a node that died",
        |p| fs::write(p.path(".staging/probe.0"), "probe").unwrap(),
        |p| vec![Finding::Leftover(p.path(".staging/probe.0"))],
        &[],
    ),
    (
        "a committed task whose staged files are lost",
        |p| {
            crash(p, 3, DiedAfter::FirstImage);
            let task = p.path(&format!(".staging/{RUN}/3"));
            let attempt = fs::read_dir(task).unwrap().next().unwrap().unwrap().path();
            fs::read_dir(attempt).unwrap().for_each(|f| fs::remove_file(f.unwrap().path()).unwrap());
        },
        |p| {
            let (first, second) = (name("dead", 3, 0), name("dead", 3, 1));
            let lost = [p.mask(&first), p.image(&second), p.mask(&second)];
            lost.into_iter().map(|f| Finding::Missing(key(3), f)).chain([Finding::HalfPublished(key(3))]).collect()
        },
        &[3],
    ),
];

#[test]
fn every_kind_of_damage_is_found_and_mended() {
    for (what, damage, expected, lost) in DAMAGES {
        let place = Place::new();
        finish(&place.store, 1, "a", 1).unwrap();
        finish(&place.store, 2, "a", 1).unwrap();
        assert_eq!(place.findings(), [], "{what}");
        damage(&place);
        let report = verify(&place.store, false).unwrap();
        assert_eq!(report.findings, expected(&place), "{what}");
        let redo = repair(&place.store, &report).unwrap();
        assert_eq!(redo.iter().map(|k| k.task).collect::<Vec<_>>(), lost, "{what}");
        assert_eq!(place.findings(), [], "{what}, after the repair");
        for task in lost {
            assert_eq!(place.store.finished(&key(*task)).unwrap(), None, "{what}: the task is free again");
            assert_eq!(finish(&place.store, *task, "again", 1).unwrap(), Committed::Ours, "{what}");
        }
        assert_eq!(fs::read(place.image(&chip(2))).unwrap(), bytes(&chip(2)).0, "{what}: others are left alone");
    }
}

#[test]
fn nothing_that_was_set_aside_is_lost() {
    let place = Place::new();
    finish(&place.store, 1, "a", 1).unwrap();
    fs::write(place.mask(&chip(1)), "scribble").unwrap();
    repair(&place.store, &verify(&place.store, false).unwrap()).unwrap();
    let aside = |inside: &str| fs::read(place.path(".quarantine").join(inside)).unwrap();
    assert_eq!(aside(&format!("images/{}.tif", chip(1))), bytes(&chip(1)).0);
    assert_eq!(aside(&format!("masks/{}.tif", chip(1))), b"scribble");
    assert!(!aside(&format!(".manifests/{RUN}/task_1.json")).is_empty());
}

/// Writes task 2's manifest by hand as one that names chips of task 1.
fn claim(place: &Place, change: impl Fn(&mut Manifest)) {
    finish(&place.store, 2, "a", 1).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(place.manifest(2)).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(place.manifest(2), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn a_parcel_in_two_tasks_is_reported_and_left_to_the_user() {
    let place = Place::new();
    finish(&place.store, 1, "a", 1).unwrap();
    claim(&place, |m| m.chips[0].parcel = 1000);
    let report = verify(&place.store, false).unwrap();
    assert_eq!(report.findings, [Finding::Duplicate(key(2), "parcel 1000".into())]);
    assert_eq!(repair(&place.store, &report).unwrap(), []);
    assert_eq!(place.findings(), report.findings);
    assert!(place.image(&chip(1)).exists() && place.image(&chip(2)).exists());
}

#[test]
fn a_file_that_two_tasks_name_stays_with_the_one_it_fits() {
    let place = Place::new();
    finish(&place.store, 1, "a", 1).unwrap();
    claim(&place, |m| m.chips[0].name = chip(1));
    let report = verify(&place.store, false).unwrap();
    let twice = |path: PathBuf| Finding::Duplicate(key(2), path.display().to_string());
    assert!(report.findings.contains(&twice(place.image(&chip(1)))), "{:?}", report.findings);
    assert!(report.findings.contains(&Finding::Orphan(place.image(&chip(2)))));
    assert_eq!(repair(&place.store, &report).unwrap(), [key(2)]);
    assert_eq!(place.findings(), []);
    place.assert_whole("a", 1, 1);
}

#[test]
fn a_quick_look_compares_lengths_only() {
    let place = Place::new();
    finish(&place.store, 1, "a", 1).unwrap();
    let same_length = vec![b'?'; bytes(&chip(1)).0.len()];
    fs::write(place.image(&chip(1)), same_length).unwrap();
    assert_eq!(verify(&place.store, true).unwrap().findings, []);
    assert_eq!(verify(&place.store, false).unwrap().findings.len(), 1);
    fs::write(place.image(&chip(1)), "short").unwrap();
    assert_eq!(verify(&place.store, true).unwrap().findings.len(), 1);
}

#[test]
fn the_report_counts_what_there_is() {
    let place = Place::new();
    finish(&place.store, 1, "a", 3).unwrap();
    finish(&place.store, 2, "b", 0).unwrap();
    let report = verify(&place.store, false).unwrap();
    let bytes: usize = (0..3).map(|c| bytes(&name("a", 1, c))).map(|(i, m)| i.len() + m.len()).sum();
    assert_eq!((report.tasks, report.chips, report.bytes), (2, 3, bytes as u64));
    assert_eq!(report.per_class.into_iter().collect::<Vec<_>>(), [(5, 3)]);
}

#[test]
fn a_finished_task_whose_file_was_deleted_is_damage_of_the_task_not_of_the_node() {
    let place = Place::new();
    finish(&place.store, 1, "a", 1).unwrap();
    fs::remove_file(place.mask(&chip(1))).unwrap();
    let error = place.store.finished(&key(1)).unwrap_err();
    assert_eq!(error.severity(), Severity::Permanent, "{error}");
    assert!(error.to_string().contains("--repair"), "{error}");
}

#[test]
fn a_directory_that_is_not_there_or_not_marked_is_refused() {
    let place = Place::new();
    let check = |path: &Path, marker| DiskStore::new(path, marker, false).check();
    assert!(matches!(check(&place.path("nowhere"), false), Err(StoreError::Missing(_))));
    fs::write(place.path("file"), "").unwrap();
    assert!(matches!(check(&place.path("file"), false), Err(StoreError::Missing(_))));
    let error = check(place.dir.path(), true).unwrap_err();
    assert!(matches!(error, StoreError::NotMounted(_)) && error.severity() == Severity::Fatal);
    assert!(!place.path(".staging").exists(), "nothing is written into a mount point that is empty");
    fs::write(place.path(MARKER), "").unwrap();
    check(place.dir.path(), true).unwrap();
    assert_eq!(place.findings(), [], "the check leaves nothing behind");
}

#[test]
fn runs_share_a_directory_when_names_tell_them_apart() {
    let place = Place::new();
    let store = DiskStore::new(place.dir.path(), false, true);
    store.bind("run1").unwrap();
    store.bind("run2").unwrap();
    assert!(matches!(place.store.bind("run1"), Ok(())));
    let another = DiskStore::new(place.dir.path(), false, false);
    assert!(
        matches!(another.bind("run2"), Err(StoreError::OtherRun { .. })),
        "the directory remembers, not the process"
    );
}

#[test]
fn a_full_disk_stops_the_node_and_leaves_nothing_in_the_dataset() {
    let place = Place::new();
    let attempt = place.store.begin(&key(1)).unwrap();
    let full = |file: &str| symlink("/dev/full", place.staged(&attempt).join(file)).unwrap();
    full("c.mask.tif");
    let (image, mask) = bytes("c");
    let error = place.store.stage(&attempt, "c", &image, &mask).unwrap_err();
    assert_eq!(error.severity(), Severity::Fatal, "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    full("manifest.json");
    let manifest = chips::manifest(&attempt, "a", Vec::new());
    let error = place.store.commit(&attempt, &manifest).unwrap_err();
    assert_eq!(error.severity(), Severity::Fatal, "{error}");
    assert_eq!(place.store.finished(&key(1)).unwrap(), None);
    place.store.abandon(&attempt);
    assert_eq!(place.findings(), []);
}

/// Set in the process that tries the read-only directory as a user whom permissions bind.
const READ_ONLY_DIR: &str = "TEST_READ_ONLY_DIR";

#[test]
fn a_read_only_directory_stops_the_node() {
    if let Some(dir) = std::env::var_os(READ_ONLY_DIR) {
        let store = DiskStore::new(dir, false, false);
        for error in [store.check().unwrap_err(), store.begin(&key(1)).unwrap_err(), store.bind(RUN).unwrap_err()] {
            assert_eq!(error.severity(), Severity::Fatal, "{error}");
            assert!(error.to_string().contains("writable"), "{error}");
        }
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("output");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, because the build directory may be closed to other users.
    let program = place.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = Command::new(&program);
    child.args(["--exact", "a_read_only_directory_stops_the_node"]).env(READ_ONLY_DIR, &dir).current_dir("/");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Root may write everywhere: nobody may not.
        child.gid(65534).uid(65534);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
