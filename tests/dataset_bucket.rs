//! The commit protocol on objects against deaths, lost answers and every interleaving of two attempts.
//!
//! Contract: it is the real `S3Store` that runs, over `object_store`'s own store in memory, whose requests are counted,
//! stopped, applied without an answer, or failed for good (`support/gated_store.rs`). Invariants: nothing is in `images/`
//! or `masks/` without a manifest; all who were told that the task is finished were told of the same attempt; and after
//! one more look at the task the dataset holds exactly the winner's chips, whole, with nothing left in the staging place.
//! What a real server makes of the same calls is in `dataset_contract.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/chips.rs"]
mod chips;
#[path = "support/gated_store.rs"]
mod gated_store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chips::{RUN, bytes, key, name, stage};
use gated_store::{Fault, Gated, contents, put, remove};
use object_store::memory::InMemory;
use satellite_pipeline::adapters::dataset::s3::{S3Place, S3Store};
use satellite_pipeline::adapters::dataset::verify::Finding;
use satellite_pipeline::adapters::dataset::{Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::failure::Severity;

const CHIPS: u64 = 2;
/// More requests than an attempt makes.
const MANY: usize = 200;

fn store(requests: Gated) -> S3Store {
    S3Store::over(Arc::new(requests), &S3Place::parse("s3://model/some/place").unwrap(), false, false).unwrap()
}

fn plain(bucket: &Arc<InMemory>) -> S3Store {
    store(Gated::open(bucket.clone()))
}

/// One attempt at task 1, as intake, writer and settler make it; transient failures of the commit are tried again. Gives
/// the attempt that won, when it was told.
fn attempt(store: &S3Store, worker: &str) -> Result<String, StoreError> {
    if let Some(manifest) = store.finished(&key(1))? {
        return Ok(manifest.attempt);
    }
    let (attempt, manifest) = stage(store, 1, worker, CHIPS)?;
    let mut tries = 0;
    loop {
        return match store.commit(&attempt, &manifest) {
            Ok(Committed::Ours) => Ok(attempt.id),
            Ok(Committed::Theirs(theirs)) => Ok(theirs.attempt),
            Err(error) if error.severity() == Severity::Transient && tries < 3 => {
                tries += 1;
                continue;
            }
            Err(error) => {
                // A node that lives gives its attempt up; for one that is dead this does nothing.
                store.abandon(&attempt);
                Err(error)
            }
        };
    }
}

/// Everything below one of the dataset's directories.
fn below(bucket: &InMemory, dir: &str) -> BTreeMap<String, Vec<u8>> {
    contents(bucket, &format!("some/place/{dir}/"))
}

/// Nothing shows that is not committed.
fn assert_nothing_early(bucket: &InMemory, what: &str) {
    if below(bucket, ".manifests").is_empty() {
        assert!(below(bucket, "images").is_empty() && below(bucket, "masks").is_empty(), "{what}");
    }
}

/// One more look finds the task finished and whole, by an attempt that all were told of.
fn assert_settled(bucket: &Arc<InMemory>, told: &[String], what: &str) {
    let last = plain(bucket);
    let winner = attempt(&last, "last").unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(told.iter().all(|t| *t == winner), "{what}: told of {told:?}, and {winner} won");
    let manifest = last.finished(&key(1)).unwrap().unwrap();
    let (mut images, mut masks) = (BTreeMap::new(), BTreeMap::new());
    for chip in 0..CHIPS {
        let name = name(&manifest.result.worker_id, 1, chip);
        let (image, mask) = bytes(&name);
        images.insert(format!("{name}.tif"), image);
        masks.insert(format!("{name}.tif"), mask);
    }
    assert_eq!(below(bucket, "images"), images, "{what}");
    assert_eq!(below(bucket, "masks"), masks, "{what}");
    assert_eq!(below(bucket, ".staging").into_keys().collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
    let manifests: Vec<_> = below(bucket, ".manifests").into_keys().collect();
    assert_eq!(manifests, [format!("{RUN}/task_1.json")], "{what}");
}

#[test]
fn dying_at_each_request_is_survived() {
    let mut deaths = 0;
    for fault in [Fault::DiesBefore, Fault::DiesAfter] {
        for request in 0..MANY {
            let what = format!("{fault:?} request {request}");
            let bucket = Arc::new(InMemory::new());
            let dying = Gated::with_fault(bucket.clone(), request, fault);
            let died = dying.has_struck();
            let told = attempt(&store(dying), "dead");
            assert_nothing_early(&bucket, &what);
            let struck = died.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(told.is_err(), struck, "{what}: {told:?}");
            assert_settled(&bucket, &told.into_iter().collect::<Vec<_>>(), &what);
            if !struck {
                break;
            }
            deaths += 1;
        }
    }
    println!("{deaths} deaths survived");
    assert!((40..2 * MANY).contains(&deaths), "{deaths}");
}

#[test]
fn an_answer_lost_at_each_request_of_a_commit_changes_nothing() {
    let mut lost = 0;
    for request in 0..MANY {
        let what = format!("the answer to request {request} of the commit is lost");
        let bucket = Arc::new(InMemory::new());
        let (staged, manifest) = stage(&plain(&bucket), 1, "w", CHIPS).unwrap();
        let losing = Gated::with_fault(bucket.clone(), request, Fault::LosesAnswer);
        let struck = losing.has_struck();
        let store = store(losing);
        let mut done = store.commit(&staged, &manifest);
        if done.as_ref().is_err_and(|e| e.severity() == Severity::Transient) {
            done = store.commit(&staged, &manifest);
        }
        assert_eq!(done.unwrap_or_else(|e| panic!("{what}: {e}")), Committed::Ours, "{what}");
        assert_settled(&bucket, &[staged.id], &what);
        if !struck.load(std::sync::atomic::Ordering::SeqCst) {
            break;
        }
        lost += 1;
    }
    println!("{lost} answers lost");
    assert!((12..MANY).contains(&lost), "{lost}");
}

/// One kind of damage, and what `verify` must say of it, URLs without what they begin with; last, whether a quick look sees
/// it too.
type Damage = (&'static str, fn(&InMemory), Vec<Finding>, bool);

fn url(inside: &str) -> PathBuf {
    format!("s3://model/some/place/{inside}").into()
}

fn damages() -> Vec<Damage> {
    let (image, mask) = (format!("images/{}.tif", name("a", 1, 0)), format!("masks/{}.tif", name("a", 1, 0)));
    let whole = bytes(&name("a", 1, 0)).0.len();
    let misnamed = format!("s3://model/some/place/.manifests/{RUN}/task_7.json");
    vec![
        (
            "an object nobody wrote",
            |b| put(b, "some/place/images/stray.tif", b"x"),
            vec![Finding::Orphan(url("images/stray.tif"))],
            true,
        ),
        (
            "an image that is gone",
            |b| remove(b, &format!("some/place/images/{}.tif", name("a", 1, 0))),
            vec![Finding::Missing(key(1), url(&image))],
            true,
        ),
        (
            "an image of another length",
            |b| put(b, &format!("some/place/images/{}.tif", name("a", 1, 0)), b"short"),
            vec![Finding::Damaged(key(1), url(&image), format!("5 bytes, not {whole}"))],
            true,
        ),
        (
            "a mask with other bytes",
            |b| {
                let name = name("a", 1, 0);
                put(b, &format!("some/place/masks/{name}.tif"), bytes(&name).1.to_ascii_uppercase().as_slice());
            },
            vec![Finding::Damaged(key(1), url(&mask), "its XXH128 is not the manifest's".into())],
            false,
        ),
        (
            "a manifest under another task's name",
            |b| {
                let manifest = contents(b, &format!("some/place/.manifests/{RUN}/task_1")).remove(".json").unwrap();
                put(b, &format!("some/place/.manifests/{RUN}/task_7.json"), &manifest);
            },
            vec![Finding::BadManifest(misnamed.into(), format!("it is the record of task {RUN}/1"))],
            true,
        ),
        (
            "what dead attempts and nodes left",
            |b| {
                put(b, &format!("some/place/.staging/{RUN}/1/dead/open"), b"");
                put(b, &format!("some/place/.staging/{RUN}/8/dead/open"), b"");
                put(b, &format!("some/place/.staging/{RUN}/8/dead/x.pair"), b"");
                put(b, "some/place/.staging/probe.0", b"");
            },
            vec![
                Finding::Leftover(url(".staging/probe.0")),
                Finding::HalfPublished(key(1)),
                Finding::Leftover(url(&format!(".staging/{RUN}/8"))),
            ],
            true,
        ),
    ]
}

#[test]
fn every_kind_of_damage_is_found() {
    for (what, damage, expected, quick) in damages() {
        let bucket = Arc::new(InMemory::new());
        let store = plain(&bucket);
        (1..4).for_each(|task| assert_eq!(chips::finish(&store, task, "a", 1).unwrap(), Committed::Ours));
        let report = store.verify(false).unwrap();
        assert_eq!((report.tasks, report.chips, report.findings), (3, 3, vec![]), "{what}");
        damage(&bucket);
        let found = |quick| store.verify(quick).unwrap().findings;
        assert_eq!(found(false), expected, "{what}");
        assert_eq!(found(true), if quick { expected } else { vec![] }, "{what}, at a quick look");
    }
}

#[test]
fn an_attempt_whose_commit_failed_somewhere_is_given_up_without_loss() {
    let mut failed = 0;
    for request in 0..MANY {
        let what = format!("the commit ends with its request {request}, and the node gives the task up");
        let bucket = Arc::new(InMemory::new());
        let live = plain(&bucket);
        let (staged, manifest) = stage(&live, 1, "w", CHIPS).unwrap();
        let failing = store(Gated::with_fault(bucket.clone(), request, Fault::DiesAfter));
        let done = failing.commit(&staged, &manifest);
        live.abandon(&staged);
        assert_nothing_early(&bucket, &what);
        assert_settled(&bucket, &[], &what);
        if done.is_ok() {
            break;
        }
        failed += 1;
    }
    assert!((12..MANY).contains(&failed), "{failed}");
}

/// Who is where: whether the two were stopped at all, and what they gave.
struct Met<A, B> {
    first: (bool, A),
    second: (bool, B),
}

/// `first` comes as far as its request `at`, `second` as far as its request `until`; then the first goes on to its end,
/// and after it the second.
fn meet<A: Send, B: Send>(
    bucket: &Arc<InMemory>,
    (at, first): (usize, impl FnOnce(&S3Store) -> A + Send),
    (until, second): (usize, impl FnOnce(&S3Store) -> B + Send),
) -> Met<A, B> {
    let (one, gate_one) = Gated::stopping(bucket.clone(), at);
    let (two, gate_two) = Gated::stopping(bucket.clone(), until);
    std::thread::scope(|scope| {
        let first = scope.spawn(move || first(&store(one)));
        let first_stopped = gate_one.wait(|| first.is_finished());
        let second = scope.spawn(move || second(&store(two)));
        let second_stopped = gate_two.wait(|| second.is_finished());
        gate_one.release();
        let first = (first_stopped, first.join().unwrap());
        gate_two.release();
        Met { first, second: (second_stopped, second.join().unwrap()) }
    })
}

/// Walks through all pairs of places at which `play` can stop its two sides.
fn at_all_places(mut play: impl FnMut(usize, usize) -> (bool, bool)) -> usize {
    let mut played = 0;
    for at in 0..MANY {
        let mut first_stopped = true;
        for until in 0..MANY {
            let (first, second) = play(at, until);
            played += 1;
            first_stopped = first;
            if !second {
                break;
            }
        }
        if !first_stopped {
            return played;
        }
    }
    panic!("an attempt makes more than {MANY} requests");
}

/// An attempt ends as the winner's, or swept; nothing else may become of it.
fn told(ended: Result<String, StoreError>, what: &str) -> Option<String> {
    match ended {
        Ok(winner) => Some(winner),
        Err(StoreError::Swept(_)) => None,
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn of_two_attempts_that_stop_anywhere_one_wins_and_both_know_it() {
    let played = at_all_places(|at, until| {
        let what = format!("one stops before request {at}, the other before its request {until}");
        let bucket = Arc::new(InMemory::new());
        let met = meet(&bucket, (at, |s: &S3Store| attempt(s, "one")), (until, |s: &S3Store| attempt(s, "two")));
        let told: Vec<String> = [met.first.1, met.second.1].into_iter().filter_map(|t| told(t, &what)).collect();
        assert!(!told.is_empty(), "{what}: nobody finished the task");
        let staged = below(&bucket, ".staging");
        assert!(staged.is_empty(), "{what}: both have ended, and there is {:?}", staged.keys());
        assert_settled(&bucket, &told, &what);
        (met.first.0, met.second.0)
    });
    println!("{played} meetings");
    assert!(played > 400, "{played}");
}

#[test]
fn a_task_that_is_given_up_while_it_is_committed_is_whole_or_not_there() {
    let played = at_all_places(|at, until| {
        let what = format!("the attempt stops before request {at}, who gives the task up before request {until}");
        let bucket = Arc::new(InMemory::new());
        let met = meet(&bucket, (at, |s: &S3Store| attempt(s, "slow")), (until, |s: &S3Store| s.clear(&key(1))));
        assert_nothing_early(&bucket, &what);
        let told = told(met.first.1, &what);
        assert_settled(&bucket, told.as_slice(), &what);
        (met.first.0, met.second.0)
    });
    println!("{played} meetings");
    assert!(played > 80, "{played}");
}
