//! Manifests of made-up chips: what a store needs to be tried without scenes and parcels.
//!
//! Contract: file contents are short texts that name their chip, so that a mix-up shows.
#![allow(unreachable_pub, dead_code)]

use satellite_pipeline::adapters::dataset::{Attempt, Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::manifest::{ChipRecord, FileRecord, Manifest, SCHEMA};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::task::{Task, TaskKey};

/// The run all tests belong to.
pub const RUN: &str = "run1";

/// Key of a task of [`RUN`].
pub fn key(task: u64) -> TaskKey {
    TaskKey { run: RUN.into(), task }
}

/// Name of a chip, as the default template gives it.
pub fn name(worker: &str, task: u64, chip: u64) -> String {
    format!("worker{worker}_task{task}_class5_chip{chip}")
}

/// Image and mask of a chip.
pub fn bytes(name: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("image of {name} ").repeat(500).into_bytes(), format!("mask of {name}").into_bytes())
}

/// The record of a chip; its parcel is its task's number times 1000 plus its own.
pub fn record(name: &str, parcel: i64) -> ChipRecord {
    let (image, mask) = bytes(name);
    ChipRecord {
        name: name.into(),
        class: 5.try_into().unwrap(),
        parcel,
        item: "S2A_30TXL_20230704_0_L2A".into(),
        collection: "sentinel-2-l2a".into(),
        datetime: "2023-07-04T11:06:21Z".into(),
        cloud_cover: 1.5,
        season: "summer".into(),
        epsg: 32630,
        grid: PixelGrid { x0: 600_000.0, y0: 4_500_000.0, res: 10.0, width: 256, height: 256 },
        pixels: vec![(0, 65_000), (5, 536)],
        provenance: satellite_pipeline::domain::provenance::Provenance::default(),
        image: FileRecord::of(Algorithm::Xxh128, &image),
        mask: FileRecord::of(Algorithm::Xxh128, &mask),
    }
}

/// The manifest of an attempt with these chips.
pub fn manifest(attempt: &Attempt, worker: &str, chips: Vec<ChipRecord>) -> Manifest {
    let wire =
        serde_json::json!({ "task_id": attempt.key.task, "bbox": [0.0, 40.0, 0.05, 40.05], "run_id": attempt.key.run });
    let task = Task::parse(wire.to_string().as_bytes()).unwrap();
    let mut result = TaskResult::empty(&task, worker, Status::Success);
    result.chips_saved = chips.len() as u64;
    Manifest {
        schema: SCHEMA,
        key: attempt.key.clone(),
        attempt: attempt.id.clone(),
        result,
        chips,
        rejected: Vec::new(),
    }
}

/// Stages `count` chips of a worker for a task and says what to commit.
pub fn stage(store: &dyn DatasetStore, task: u64, worker: &str, count: u64) -> Result<(Attempt, Manifest), StoreError> {
    let attempt = store.begin(&key(task))?;
    let mut chips = Vec::new();
    for chip in 0..count {
        let name = name(worker, task, chip);
        let (image, mask) = bytes(&name);
        store.stage(&attempt, &name, &image, &mask)?;
        chips.push(record(&name, (task * 1000 + chip) as i64));
    }
    let manifest = manifest(&attempt, worker, chips);
    Ok((attempt, manifest))
}

/// The whole way of one task.
pub fn finish(store: &dyn DatasetStore, task: u64, worker: &str, count: u64) -> Result<Committed, StoreError> {
    let (attempt, manifest) = stage(store, task, worker, count)?;
    store.commit(&attempt, &manifest)
}
