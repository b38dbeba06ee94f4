//! The writer: one commit per task, whoever is first, and a store that cannot write stops the node, not the task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use actix::{Actor, Addr};
use satellite_pipeline::actors::lane::Lane;
use satellite_pipeline::actors::messages::{Conclude, Done, Fan, Job, WriteChip};
use satellite_pipeline::actors::ticket::Outcome;
use satellite_pipeline::actors::writer::Writer;
use satellite_pipeline::adapters::dataset::memory::MemoryStore;
use satellite_pipeline::adapters::dataset::{Attempt, Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::failure::{Failure, Severity};
use satellite_pipeline::domain::manifest::{ChipRecord, FileRecord, Manifest, Rejection, SCHEMA};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::task::TaskKey;

use super::scene_kit::{CELL, CENTRE, grid};
use super::stage::{QUICK, Stage, class, on_stage, task};

/// A store whose writes fail on demand, or wait.
#[derive(Default)]
struct Sick {
    store: MemoryStore,
    /// System error of the next writes, and how many.
    error: i32,
    times: AtomicU32,
    /// Fails commits instead of stagings.
    at_commit: bool,
}

impl Sick {
    fn trouble(&self) -> Result<(), StoreError> {
        match self.times.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(StoreError::Io {
                action: "writing",
                path: "/mnt/x/chip.tif".into(),
                source: std::io::Error::from_raw_os_error(self.error),
            }),
            Err(_) => Ok(()),
        }
    }
}

impl DatasetStore for Sick {
    fn check(&self) -> Result<(), StoreError> {
        self.store.check()
    }
    fn bind(&self, run: &str) -> Result<(), StoreError> {
        self.store.bind(run)
    }
    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        self.store.finished(key)
    }
    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        self.store.begin(key)
    }
    fn stage(&self, a: &Attempt, name: &str, i: &[u8], m: &[u8]) -> Result<(), StoreError> {
        if !self.at_commit {
            self.trouble()?;
        }
        self.store.stage(a, name, i, m)
    }
    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        if self.at_commit {
            self.trouble()?;
        }
        self.store.commit(attempt, manifest)
    }
    fn abandon(&self, attempt: &Attempt) {
        self.store.abandon(attempt);
    }
    fn tidy(&self) {
        self.store.tidy();
    }
    fn clear(&self, key: &TaskKey) {
        self.store.clear(key);
    }
    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        self.store.manifests(each)
    }
}

struct Bed {
    stage: Stage,
    store: Arc<Sick>,
    chips: Lane<WriteChip>,
    conclude: Lane<Conclude>,
}

impl Bed {
    async fn new(store: Sick) -> Self {
        let store = Arc::new(store);
        let writer: Addr<Writer> = Writer { worker: "w".into(), store: store.clone(), retry: QUICK }.start();
        let (chips, conclude) =
            (Lane::new("chips", 8, writer.clone().recipient()), Lane::new("end", 4, writer.recipient()));
        Self { stage: Stage::new().await, store, chips, conclude }
    }

    /// One task of so many chips, all written.
    async fn write(&mut self, chips: u32) -> Outcome {
        let job = self.stage.job(task(3, CELL)).await;
        self.write_for(job, chips).await
    }

    async fn write_for(&mut self, mut job: Job, chips: u32) -> Outcome {
        job.ticket.stage(self.store.begin(&job.key).unwrap());
        let fan = Arc::new(Fan::new(job, chips as usize, Arc::default()));
        let all: Vec<WriteChip> = (0..chips).map(|chip| written(&fan, chip)).collect();
        drop(fan);
        for chip in all {
            self.chips.send(chip).await;
        }
        self.stage.outcome().await
    }

    async fn end(
        &mut self,
        outcomes: Vec<satellite_pipeline::actors::messages::ChipOutcome>,
        skipped: Option<Status>,
    ) -> Outcome {
        let mut job = self.stage.job(task(3, CELL)).await;
        job.ticket.stage(self.store.begin(&job.key).unwrap());
        let outcomes = (0..).zip(outcomes).collect();
        self.conclude.send(Conclude { done: Done { job, outcomes, skipped } }).await;
        self.stage.outcome().await
    }
}

fn written(fan: &Arc<Fan>, chip: u32) -> WriteChip {
    let (image, mask) = (vec![1; 9], vec![2; 4]);
    let record = ChipRecord {
        name: format!("chip{chip}"),
        class: class(5 + (chip % 2) as u8),
        parcel: i64::from(chip),
        item: "item".into(),
        collection: "c".into(),
        datetime: "2023-07-19T10:56:29Z".into(),
        cloud_cover: 3.0,
        season: "summer".into(),
        epsg: 32631,
        grid: grid(32631, CENTRE),
        pixels: vec![(5, 4096)],
        provenance: satellite_pipeline::domain::provenance::Provenance::default(),
        image: FileRecord::of(Algorithm::Xxh128, &image),
        mask: FileRecord::of(Algorithm::Xxh128, &mask),
    };
    WriteChip { fan: fan.clone(), record, chip, image: image.into(), mask }
}

fn rejection(reason: &str) -> satellite_pipeline::actors::messages::ChipOutcome {
    satellite_pipeline::actors::messages::ChipOutcome::Rejected(Rejection {
        parcel: 1,
        class: class(5),
        season: "summer".into(),
        reason: reason.into(),
        detail: "why".into(),
    })
}

#[test]
fn a_task_appears_whole_and_is_settled_after_that() {
    on_stage(async || {
        let mut bed = Bed::new(Sick::default()).await;
        match bed.write(3).await {
            Outcome::Finished(result) => {
                assert_eq!((result.status, result.chips_saved, result.sampled), (Status::Success, 3, 3));
                assert_eq!(result.chips_per_class, BTreeMap::from([(class(5), 2), (class(6), 1)]));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bed.store.store.names(), ["chip0", "chip1", "chip2"]);
        assert_eq!(bed.store.store.pair("chip1"), Some((vec![1; 9], vec![2; 4])));
        assert_eq!(bed.store.store.staged(), 0);
        let manifest = bed.store.finished(&task(3, CELL).key()).unwrap().unwrap();
        assert!(manifest.chips.iter().all(|c| (c.image.bytes, c.mask.bytes) == (9, 4)));
        assert_eq!(bed.chips.in_use(), 0);
    });
}

#[test]
fn who_comes_second_reports_what_the_first_one_did() {
    on_stage(async || {
        let mut bed = Bed::new(Sick::default()).await;
        let first = task(3, CELL);
        let mut theirs = TaskResult::empty(&first, "faster", Status::Success);
        theirs.chips_saved = 7;
        let attempt = bed.store.begin(&first.key()).unwrap();
        let manifest = Manifest {
            schema: SCHEMA,
            key: first.key(),
            attempt: attempt.id.clone(),
            result: theirs.clone(),
            chips: Vec::new(),
            rejected: Vec::new(),
        };
        bed.store.commit(&attempt, &manifest).unwrap();
        assert_eq!(bed.write(2).await, Outcome::Finished(Box::new(theirs)));
        assert!(bed.store.store.names().is_empty());
    });
}

#[test]
fn a_store_that_cannot_write_stops_the_node() {
    on_stage(async || {
        for (error, times, at_commit, passes) in [
            (116, 2, false, true),
            (116, 2, true, true),
            (116, u32::MAX, false, false),
            (28, u32::MAX, false, false),
            (30, 1, true, false),
        ] {
            let sick = Sick { error, times: times.into(), at_commit, ..Sick::default() };
            let mut bed = Bed::new(sick).await;
            match bed.write(1).await {
                Outcome::Finished(_) if passes => {}
                Outcome::Fatal(f) if !passes => {
                    assert_eq!((f.severity, f.stage), (Severity::Fatal, "writer"));
                    assert!(f.reason.contains("/mnt/x/chip.tif"), "{f}");
                }
                other => panic!("system error {error}: {other:?}"),
            }
            assert_eq!(bed.store.store.names().len(), usize::from(passes), "no chip appears by halves");
        }
    });
}

#[test]
fn what_becomes_of_a_task_without_chips() {
    use satellite_pipeline::actors::messages::ChipOutcome::{Abandoned, Broken};
    on_stage(async || {
        let transient = || Broken(Failure::transient("pixels", "503"));
        let fatal = || Broken(Failure::fatal("pixels", "no cpu"));
        let failed = |outcome: Outcome| match outcome {
            Outcome::Failed(result) => (result.status, result.error.unwrap()),
            other => panic!("{other:?}"),
        };
        let bed = async || Bed::new(Sick::default()).await;
        let said = failed(bed().await.end(vec![rejection("unreadable"), rejection("no_scene")], None).await);
        assert_eq!(said.0, Status::FailedDownload);
        assert_eq!(said.1, "no chip of 2 parcels: 1 no_scene, 1 unreadable (why)");
        let said = failed(bed().await.end(vec![rejection("empty_mask"), rejection("empty_mask")], None).await);
        assert_eq!(said.0, Status::FailedEmptyMask);
        let said = failed(bed().await.end(vec![transient(), rejection("nodata")], None).await);
        assert_eq!(said, (Status::FailedDownload, "pixels: 503".into()));
        assert!(matches!(bed().await.end(vec![transient(), fatal(), Abandoned], None).await, Outcome::Fatal(_)));
        assert_eq!(bed().await.end(vec![transient(), Abandoned], None).await, Outcome::Abandoned);
        let mut skipped = bed().await;
        match skipped.end(Vec::new(), Some(Status::SkippedSampling)).await {
            Outcome::Finished(result) => assert_eq!(result.status, Status::SkippedSampling),
            other => panic!("{other:?}"),
        }
        assert!(skipped.store.finished(&task(3, CELL).key()).unwrap().is_some(), "a skip is remembered as well");
        let mut clouded = bed().await;
        match clouded.end(vec![rejection("cloud"), rejection("no_scene")], None).await {
            Outcome::Finished(result) => assert_eq!((result.status, result.chips_saved), (Status::Success, 0)),
            other => panic!("{other:?}"),
        }
        let manifest = clouded.store.finished(&task(3, CELL).key()).unwrap().unwrap();
        assert_eq!(manifest.rejected.len(), 2, "every parcel has its reason");
    });
}

#[test]
fn a_cancelled_task_is_left_to_others() {
    on_stage(async || {
        let mut bed = Bed::new(Sick::default()).await;
        let job = bed.stage.job(task(3, CELL)).await;
        job.cancel.cancel();
        assert_eq!(bed.write_for(job, 2).await, Outcome::Abandoned);
        assert!(bed.store.store.names().is_empty());
    });
}
