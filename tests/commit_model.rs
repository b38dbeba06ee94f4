//! The commit protocol against every kind of death: random interleavings of attempts at one task, with
//! members killed at any step and power cuts at any step, on a file system that keeps only what it must.
//!
//! It is the real `DiskStore` that runs; only the file system below it is a model (`support/power_fs.rs`).
//! Invariants: whoever was told that the task is finished was told the same as everybody else, before and
//! after any power cut; and when the dust has settled, the dataset holds exactly the winner's chips, whole,
//! with no orphan, no duplicate and nothing left in the staging place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/power_fs.rs"]
mod power_fs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use power_fs::{Member, Power};
use proptest::prelude::*;
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::dataset::{Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::manifest::{ChipRecord, FileRecord, Manifest, SCHEMA};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::task::{Task, TaskKey};

const CHIPS: usize = 2;

fn task() -> Task {
    serde_json::from_str(r#"{"task_id":7,"bbox":[0,0,0.05,0.05],"run_id":"r"}"#).unwrap()
}

fn key() -> TaskKey {
    task().key()
}

fn store(member: Member) -> DiskStore {
    DiskStore::over(Arc::new(member), "/", false, false)
}

fn image(worker: usize, chip: usize) -> Vec<u8> {
    format!("image {chip} of worker {worker}").into_bytes()
}

/// One attempt at the task, as intake and writer make it. Gives the attempt that won, when it was told.
fn attempt(store: &DiskStore, worker: usize) -> Result<String, StoreError> {
    if let Some(manifest) = store.finished(&key())? {
        return Ok(manifest.attempt);
    }
    let attempt = store.begin(&key())?;
    let mut chips = Vec::new();
    for chip in 0..CHIPS {
        let name = format!("w{worker}_t7_c{chip}");
        let image = image(worker, chip);
        store.stage(&attempt, &name, &image, b"mask")?;
        chips.push(ChipRecord {
            name,
            class: 3.try_into().unwrap(),
            parcel: chip as i64,
            item: String::new(),
            collection: String::new(),
            datetime: String::new(),
            cloud_cover: 0.0,
            season: String::new(),
            epsg: 32630,
            grid: PixelGrid { x0: 0.0, y0: 0.0, res: 10.0, width: 1, height: 1 },
            pixels: Vec::new(),
            provenance: satellite_pipeline::domain::provenance::Provenance::default(),
            image: FileRecord::of(Algorithm::Xxh128, &image),
            mask: FileRecord::of(Algorithm::Xxh128, b"mask"),
        });
    }
    let result = TaskResult::empty(&task(), &worker.to_string(), Status::Success);
    let manifest =
        Manifest { schema: SCHEMA, key: key(), attempt: attempt.id.clone(), result, chips, rejected: Vec::new() };
    match store.commit(&attempt, &manifest)? {
        Committed::Ours => Ok(attempt.id),
        Committed::Theirs(theirs) => Ok(theirs.attempt),
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// One of the living makes this many steps.
    Step(u8, u8),
    /// A new attempt begins (a redelivery, or another worker).
    Start,
    /// One of the living dies.
    Kill(u8),
    /// The power fails; everybody dies.
    Cut,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => (any::<u8>(), 1..9u8).prop_map(|(who, steps)| Event::Step(who, steps)),
        2 => Just(Event::Start),
        2 => any::<u8>().prop_map(Event::Kill),
        1 => Just(Event::Cut),
    ]
}

struct Play {
    power: Power,
    members: Vec<usize>,
    threads: Vec<std::thread::JoinHandle<()>>,
    told: Arc<Mutex<BTreeSet<String>>>,
    trouble: Arc<Mutex<Vec<String>>>,
}

impl Play {
    fn new() -> Self {
        let (members, threads) = (Vec::new(), Vec::new());
        Self { power: Power::new(), members, threads, told: Arc::default(), trouble: Arc::default() }
    }

    fn start(&mut self) {
        let (number, member) = self.power.join();
        let (told, trouble) = (self.told.clone(), self.trouble.clone());
        self.members.push(number);
        self.threads.push(std::thread::spawn(move || {
            let store = store(member);
            match attempt(&store, number) {
                Ok(winner) => {
                    told.lock().unwrap().insert(winner);
                }
                // Dead, or overtaken by a faster attempt that swept the staging place.
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(StoreError::Swept(_)) => {}
                Err(other) => trouble.lock().unwrap().push(format!("{other}")),
            }
        }));
    }

    fn living(&self) -> Vec<usize> {
        self.members.iter().copied().filter(|m| !self.power.has_ended(*m)).collect()
    }

    fn play(&mut self, event: Event) {
        let living = self.living();
        match event {
            Event::Start => self.start(),
            Event::Cut => {
                self.power.cut();
                living.into_iter().for_each(|m| self.power.step(m));
            }
            _ if living.is_empty() => self.start(),
            Event::Step(who, steps) => {
                let member = living[usize::from(who) % living.len()];
                (0..steps).for_each(|_| self.power.step(member));
            }
            Event::Kill(who) => {
                let member = living[usize::from(who) % living.len()];
                self.power.kill(member);
                self.power.step(member);
            }
        }
    }

    /// Kills whoever is left, then lets one undisturbed attempt finish the task, as a redelivery would.
    fn settle(mut self) -> Result<(), TestCaseError> {
        for member in self.living() {
            self.power.kill(member);
            self.power.step(member);
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        prop_assert_eq!(self.trouble.lock().unwrap().clone(), Vec::<String>::new());
        let last = store(self.power.observer());
        let winner = attempt(&last, 999).map_err(|e| TestCaseError::fail(e.to_string()))?;
        self.told.lock().unwrap().insert(winner);
        let told = self.told.lock().unwrap().clone();
        prop_assert_eq!(told.len(), 1, "everybody must be told of the same attempt: {:?}", told);
        let manifest = last.finished(&key()).unwrap().unwrap();
        let mut images = BTreeMap::new();
        let mut masks = BTreeMap::new();
        for (i, chip) in manifest.chips.iter().enumerate() {
            let worker = manifest.result.worker_id.parse().unwrap();
            images.insert(format!("/{}.tif", chip.name), image(worker, i));
            masks.insert(format!("/{}.tif", chip.name), b"mask".to_vec());
        }
        prop_assert_eq!(self.power.files("images"), images);
        prop_assert_eq!(self.power.files("masks"), masks);
        prop_assert_eq!(self.power.files(".staging"), BTreeMap::new());
        prop_assert_eq!(self.power.files(".manifests").len(), 1);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_death_at_any_step_loses_or_doubles_anything(events in prop::collection::vec(event(), 5..60)) {
        let mut play = Play::new();
        play.start();
        play.start();
        events.into_iter().for_each(|event| play.play(event));
        play.settle()?;
    }
}

/// `COMMIT_MODEL_CASES`, default 400.
fn cases() -> u32 {
    std::env::var("COMMIT_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// Every step of an undisturbed attempt is a place to die, by kill and by power cut.
#[test]
fn dying_at_each_single_step_is_survived() {
    let mut survived = 0;
    for power_cut in [false, true] {
        for steps in 0..400u32 {
            let mut play = Play::new();
            play.start();
            for _ in 0..steps {
                play.play(Event::Step(0, 1));
                if play.living().is_empty() {
                    break;
                }
            }
            let all = play.living().is_empty();
            if power_cut {
                play.play(Event::Cut);
            }
            play.settle().unwrap();
            survived += 1;
            if all {
                break;
            }
        }
    }
    println!("{survived} single deaths survived");
    assert!(survived > 60, "only {survived} steps were tried");
}
