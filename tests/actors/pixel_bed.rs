//! The pixels stage between probes: a catalog in memory for further searches, and files behind a server with moods.
//!
//! Contract: a chip's plan looks as if its first search had brought the scenes given. Trap: chips are 64 pixels wide here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use actix::Actor;
use async_trait::async_trait;
use bytes::Bytes;
use satellite_pipeline::actors::blocks::BlockReader;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::finder::Finder;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{ChipOutcome, ChipPlan, Conclude, Done, Drawn, Fan, Rasterise, ReadWindows};
use satellite_pipeline::actors::offsets::Offsets;
use satellite_pipeline::actors::pixels::Pixels;
use satellite_pipeline::actors::uncut::Verdict;
use satellite_pipeline::adapters::catalog::ScriptedCatalog;
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::cut::Resampling;
use satellite_pipeline::adapters::imagery::source::{MemorySource, RangeSource};
use satellite_pipeline::domain::candidate::{Candidate, Widened};
use satellite_pipeline::domain::failure::Failure;
use satellite_pipeline::domain::harmonise::Mode;
use satellite_pipeline::domain::pixels::Limits;
use satellite_pipeline::domain::provenance::Provenance;
use satellite_pipeline::domain::scene::Scene;
use satellite_pipeline::domain::scl::BadClasses;
use satellite_pipeline::domain::season::{Season, Seasons};
use satellite_pipeline::domain::window::Window;
use tokio::sync::Semaphore;

use super::scene_kit::{BANDS, CELL, CENTRE, scene};
use super::stage::{Out, QUICK, Stage, class, health, hosts, lane, task};

pub(crate) const SIZE: u32 = 64;

/// Files in memory behind a server with moods.
pub(crate) struct Moody {
    files: MemorySource,
    /// Reads below this href…
    href: &'static str,
    /// …fail so often.
    failures: AtomicU32,
    /// Reads by href.
    pub(crate) reads: Mutex<BTreeMap<String, u32>>,
}

impl Moody {
    fn mood(&self, href: &str) -> Result<(), Failure> {
        *self.reads.lock().unwrap().entry(href.to_owned()).or_default() += 1;
        let bad = href.starts_with(self.href) && self.failures.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        if bad { Err(Failure::transient("pixels", format!("{href}: 503"))) } else { Ok(()) }
    }
}

#[async_trait]
impl RangeSource for Moody {
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.mood(href)?;
        self.files.range(href, range).await
    }
    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.mood(href)?;
        self.files.range_upto(href, range).await
    }
}

/// A chip as the rasteriser has it once it is cut.
pub(crate) struct CutChip {
    pub(crate) fan: Arc<Fan>,
    pub(crate) drawn: Drawn,
    pub(crate) from: Candidate,
    pub(crate) pixels: Vec<u16>,
    pub(crate) provenance: Provenance,
}

/// Plays the rasteriser as far as the pixels stage hears of it: cuts every window, answers, and hands on the good ones.
fn cutting(mut windows: Out<Credited<Rasterise>>) -> Out<CutChip> {
    let (to, out) = Out::new();
    actix::spawn(async move {
        while let Some(Credited { message, .. }) = windows.any().await {
            let Rasterise { fan, drawn, from, window, mut provenance } = message;
            let mut pixels = Vec::new();
            match window.cut(&mut pixels) {
                Ok(shares) => {
                    window.answer(Verdict::Taken);
                    provenance.nodata_fraction = shares.nodata;
                    let _ = to.send(CutChip { fan, drawn, from, pixels, provenance });
                }
                Err(verdict) => {
                    drop(fan);
                    window.answer(verdict);
                }
            }
        }
    });
    out
}

pub(crate) struct Bed {
    pub(crate) stage: Stage,
    pub(crate) lane: Lane<ReadWindows>,
    pub(crate) rasteriser: Out<CutChip>,
    pub(crate) conclude: Out<Credited<Conclude>>,
    pub(crate) source: Arc<Moody>,
}

impl Bed {
    pub(crate) async fn new(all: Vec<(String, Vec<u8>)>, href: &'static str, failures: u32) -> Self {
        Self::with(all, href, failures, Vec::new()).await
    }

    /// The same with scenes that a further search would find.
    pub(crate) async fn with(
        all: Vec<(String, Vec<u8>)>,
        href: &'static str,
        failures: u32,
        further: Vec<Scene>,
    ) -> Self {
        let files = all.into_iter().fold(MemorySource::default(), |files, (href, bytes)| files.with(href, bytes));
        let source = Arc::new(Moody { files, href, failures: failures.into(), reads: Mutex::default() });
        let cpu = CpuPool::new(2).unwrap();
        let (rasteriser, to_rasteriser) = lane(64);
        let (conclude, concluded) = lane(4);
        let imagery = Arc::new(Imagery::new(source.clone(), cpu.pool(), 16 << 20));
        let catalog = Arc::new(ScriptedCatalog::new(further));
        let seasons = Seasons::new(vec![Season::new("year", "2023-01-01", "2023-12-31").unwrap()]).unwrap();
        let hosts = hosts(&imagery);
        let finder = Finder {
            catalog: catalog.clone(),
            imagery: imagery.clone(),
            crs: Crs::lonlat(),
            seasons: Arc::new(seasons),
            max_cloud: 20.0,
            widest: Widened::Season,
            collections: Arc::default(),
            grid_band: BANDS[0],
            chip_size: SIZE,
            retry: QUICK,
            health: health(),
            image_hosts: hosts.clone(),
            cpu: cpu.clone(),
        };
        let reader = BlockReader {
            imagery: imagery.clone(),
            memory: Arc::new(Semaphore::new(16)),
            batch_mb: 1,
            retry: QUICK,
            hosts,
        };
        let pixels = Pixels {
            reader,
            finder: Arc::new(finder),
            offsets: Arc::new(Offsets::new(Mode::Auto, imagery, cpu.clone())),
            bands: BANDS.into(),
            resampling: Resampling::Nearest,
            bad: BadClasses::new([0, 1, 3, 8, 9, 10, 11]),
            require_scl: true,
            limits: Limits { bad: 0.05, nodata: 0.0, suspect: 0.01 },
            cpu,
            turn: Arc::default(),
            rasteriser,
            conclude,
        };
        let lane = Lane::new("pixels", 4, pixels.start().recipient());
        Self { stage: Stage::new().await, lane, rasteriser: cutting(to_rasteriser), conclude: concluded, source }
    }

    /// One task with a chip at each place, and these scenes as its candidates.
    pub(crate) async fn read(&mut self, scenes: &[Arc<Scene>], places: &[(u32, u32)]) {
        let job = self.stage.job(task(1, CELL)).await;
        self.read_for(job, scenes, places).await;
    }

    pub(crate) async fn read_for(
        &mut self,
        job: satellite_pipeline::actors::messages::Job,
        scenes: &[Arc<Scene>],
        places: &[(u32, u32)],
    ) {
        let chips: Vec<ChipPlan> = places.iter().zip(0..).map(|(place, chip)| plan(chip, *place, scenes)).collect();
        let fan = Arc::new(Fan::new(job, chips.len(), Arc::default()));
        self.lane.send(ReadWindows { fan, chips }).await;
    }

    /// The task, once everything of it is decided.
    pub(crate) async fn done(&mut self) -> Done {
        self.conclude.next().await.message.done
    }

    /// Takes `count` chips off its hands: the item each came from, and the task once the others are decided too.
    pub(crate) async fn finish(&mut self, count: usize) -> (BTreeMap<u32, String>, Done) {
        let (mut from, mut done) = (BTreeMap::new(), None);
        for _ in 0..count {
            let CutChip { fan, drawn, from: candidate, .. } = self.rasteriser.next().await;
            from.insert(drawn.chip, candidate.scene.id.clone());
            fan.note(drawn.chip, ChipOutcome::Abandoned);
            done = done.or(Fan::give_back(fan));
        }
        let done = match done {
            Some(done) => done,
            None => self.done().await,
        };
        (from, done)
    }
}

pub(crate) fn plan(chip: u32, (row, col): (u32, u32), scenes: &[Arc<Scene>]) -> ChipPlan {
    let drawn = Drawn { chip, parcel: i64::from(chip) + 100, class: class(5), point: CENTRE, lonlat: CENTRE };
    let candidate = |scene: &Arc<Scene>| {
        let whole = scene.assets[&BANDS[0]].grid.unwrap();
        let place = Window { row, col, size: SIZE }.grid(&whole);
        Candidate::new(scene.clone(), &whole, place, "year".into(), Widened::No)
    };
    let mut plan = ChipPlan::new(drawn, 0, 9);
    plan.choice.offer(scenes.iter().map(candidate).collect());
    // As if the first search had brought these.
    plan.steps = 1;
    plan
}

pub(crate) fn two() -> [Arc<Scene>; 2] {
    ["first", "second"].map(|id| Arc::new(scene(id, 32631, CENTRE, 200, 3.0)))
}
