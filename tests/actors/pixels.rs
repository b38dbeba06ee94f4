//! The pixels stage: the right pixels, the next candidate, and whose fault a bad file is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use actix::Actor;
use async_trait::async_trait;
use bytes::Bytes;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{
    Candidate, ChipOutcome, ChipPlan, Conclude, Done, Drawn, Fan, Rasterise, ReadWindows,
};
use satellite_pipeline::actors::pixels::Pixels;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::cut::Resampling;
use satellite_pipeline::adapters::imagery::source::{MemorySource, RangeSource};
use satellite_pipeline::domain::failure::{Failure, Severity};
use satellite_pipeline::domain::scene::Scene;
use satellite_pipeline::domain::window::Window;
use tokio::sync::Semaphore;

use super::scene_kit::{BANDS, CELL, CENTRE, dn, files, scene};
use super::stage::{Out, QUICK, Stage, class, health, lane, on_stage, rejections, task};

const SIZE: u32 = 64;

/// Files in memory behind a server with moods.
struct Moody {
    files: MemorySource,
    /// Reads below this href…
    href: &'static str,
    /// …fail so often.
    failures: AtomicU32,
    reads: AtomicU32,
}

impl Moody {
    fn mood(&self, href: &str) -> Result<(), Failure> {
        self.reads.fetch_add(1, SeqCst);
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

struct Bed {
    stage: Stage,
    lane: Lane<ReadWindows>,
    rasteriser: Out<Credited<Rasterise>>,
    conclude: Out<Credited<Conclude>>,
    source: Arc<Moody>,
}

impl Bed {
    async fn new(all: Vec<(String, Vec<u8>)>, href: &'static str, failures: u32) -> Self {
        let files = all.into_iter().fold(MemorySource::default(), |files, (href, bytes)| files.with(href, bytes));
        let source = Arc::new(Moody { files, href, failures: failures.into(), reads: AtomicU32::new(0) });
        let cpu = CpuPool::new(2).unwrap();
        let (rasteriser, to_rasteriser) = lane(64);
        let (conclude, concluded) = lane(4);
        let pixels = Pixels {
            imagery: Arc::new(Imagery::new(source.clone(), cpu.pool(), 16 << 20)),
            bands: BANDS.into(),
            resampling: Resampling::Nearest,
            max_nodata: 0.0,
            memory: Arc::new(Semaphore::new(16)),
            batch_mb: 1,
            retry: QUICK,
            health: health(),
            cpu,
            rasteriser,
            conclude,
        };
        let lane = Lane::new("pixels", 4, pixels.start().recipient());
        Self { stage: Stage::new().await, lane, rasteriser: to_rasteriser, conclude: concluded, source }
    }

    /// One task with a chip at each place, and these scenes as its candidates.
    async fn read(&mut self, scenes: &[Arc<Scene>], places: &[(u32, u32)]) {
        let job = self.stage.job(task(1, CELL)).await;
        self.read_for(job, scenes, places).await;
    }

    async fn read_for(
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
    async fn done(&mut self) -> Done {
        self.conclude.next().await.message.done
    }

    /// Takes `count` chips off its hands: the item each came from, and the task once the others are decided too.
    async fn finish(&mut self, count: usize) -> (BTreeMap<u32, String>, Done) {
        let (mut from, mut done) = (BTreeMap::new(), None);
        for _ in 0..count {
            let Rasterise { fan, drawn, from: candidate, .. } = self.rasteriser.next().await.message;
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

fn plan(chip: u32, (row, col): (u32, u32), scenes: &[Arc<Scene>]) -> ChipPlan {
    let drawn = Drawn { chip, parcel: i64::from(chip) + 100, class: class(5), point: CENTRE, lonlat: CENTRE };
    let window = Window { row, col, size: SIZE };
    let candidates = scenes.iter().map(|s| Candidate { scene: s.clone(), window, season: "summer".into() }).collect();
    ChipPlan { drawn, candidates }
}

fn two() -> [Arc<Scene>; 2] {
    ["first", "second"].map(|id| Arc::new(scene(id, 32631, CENTRE, 200, 3.0)))
}

#[test]
fn every_window_holds_its_pixels_in_the_order_of_the_bands() {
    on_stage(async || {
        let [first, _] = two();
        let mut bed = Bed::new(files(&first, dn), "", 0).await;
        let places = [(0, 0), (250, 250), (536, 536), (100, 333)];
        bed.read(std::slice::from_ref(&first), &places).await;
        for _ in places {
            let chip = bed.rasteriser.next().await.message;
            let (row, col) = places[chip.drawn.chip as usize];
            let (ten, twenty) = chip.pixels.split_at((SIZE * SIZE) as usize);
            let want = (row..row + SIZE).flat_map(|r| (col..col + SIZE).map(move |c| dn(r, c)));
            assert!(ten.iter().copied().eq(want), "chip at {row}, {col}");
            assert!(twenty.len() == ten.len() && twenty.iter().all(|v| *v == 900));
            let grid = first.assets[&BANDS[0]].grid.unwrap();
            assert_eq!((chip.grid.x0, chip.grid.width), (grid.x0 + f64::from(col) * 10.0, SIZE));
        }
    });
}

#[test]
fn nodata_sends_a_chip_to_its_next_candidate_and_then_out() {
    on_stage(async || {
        let [first, second] = two();
        // The first scene ends at row 300, the second one at column 400.
        let mut all = files(&first, |row, col| if row < 300 { dn(row, col) } else { 0 });
        all.extend(files(&second, |row, col| if col < 400 { dn(row, col) + 1 } else { 0 }));
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first, second], &[(100, 100), (310, 100), (290, 100), (500, 500)]).await;
        let (from, done) = bed.finish(3).await;
        assert_eq!(from, [(0, "first".into()), (1, "second".into()), (2, "second".into())].into());
        let rejected = rejections(&done);
        assert_eq!((rejected.len(), rejected[0].parcel, rejected[0].reason.as_str()), (1, 103, "nodata"));
        assert_eq!(rejected[0].detail, "100.0 % of the window is nodata in second");
    });
}

#[test]
fn a_corrupt_block_costs_only_the_chips_that_need_it() {
    on_stage(async || {
        let [first, _] = two();
        let mut all = files(&first, dn);
        let plain = MemorySource::default().with("x", all[0].1.clone());
        let cpu = CpuPool::new(1).unwrap();
        let cog = Imagery::new(Arc::new(plain), cpu.pool(), 1 << 20).open("x").await.unwrap();
        // Block 4 is the middle one of 3 x 3.
        let at = cog.blocks[4].clone();
        all[0].1[at.start as usize..at.end as usize].fill(0xff);
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first], &[(10, 10), (300, 300), (240, 240), (530, 10)]).await;
        let (good, done) = bed.finish(2).await;
        assert!(good.into_keys().eq([0, 3]));
        let rejected = rejections(&done);
        let why: Vec<_> = rejected.iter().map(|r| (r.parcel, r.reason.as_str())).collect();
        assert_eq!(why, [(101, "unreadable"), (102, "unreadable")]);
        assert!(rejected.iter().all(|r| r.detail.contains("mem:first/B02: block 4")), "{rejected:?}");
    });
}

#[test]
fn a_file_that_is_gone_or_no_tiff_sends_its_chips_elsewhere() {
    on_stage(async || {
        let [first, second] = two();
        type Spoil = fn(&mut Vec<(String, Vec<u8>)>);
        let spoilt: [Spoil; 3] =
            [|all| drop(all.remove(0)), |all| all[0].1 = b"<html>no TIFF".to_vec(), |all| all[0].1.truncate(40)];
        for spoil in spoilt {
            let mut all = files(&first, dn);
            spoil(&mut all);
            all.extend(files(&second, dn));
            let mut bed = Bed::new(all, "", 0).await;
            bed.read(&[first.clone(), second.clone()], &[(10, 10)]).await;
            assert_eq!(bed.rasteriser.next().await.message.from.scene.id, "second");
            bed.read(std::slice::from_ref(&first), &[(10, 10)]).await;
            let done = bed.done().await;
            assert_eq!(rejections(&done)[0].reason, "unreadable");
        }
    });
}

#[test]
fn what_may_pass_is_tried_again_and_then_ends_the_task() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = files(&first, dn);
        all.extend(files(&second, dn));
        for (failures, href) in [(1, "mem:first/B02"), (2, "mem:first/B11"), (2, "mem:first")] {
            let mut bed = Bed::new(all.clone(), href, failures).await;
            bed.read(std::slice::from_ref(&first), &[(10, 10)]).await;
            assert_eq!(bed.rasteriser.next().await.message.from.scene.id, "first", "{failures} failures of {href}");
        }
        // Another scene would do, but then the dataset would depend on a server's mood. One file that stays away fails
        // the task; a host that answers nobody stops the node.
        for (href, severity) in [("mem:first/B02", Severity::Transient), ("mem:", Severity::Fatal)] {
            let mut bed = Bed::new(all.clone(), href, u32::MAX).await;
            bed.read(&[first.clone(), second.clone()], &[(10, 10), (300, 300)]).await;
            let done = bed.done().await;
            for (_, outcome) in &done.outcomes {
                match outcome {
                    ChipOutcome::Broken(f) => assert_eq!((f.severity, f.stage), (severity, "pixels"), "{f}"),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(done.outcomes.len(), 2);
            bed.rasteriser.nothing().await;
        }
    });
}

#[test]
fn a_cancelled_task_ends_without_further_requests() {
    on_stage(async || {
        let [first, _] = two();
        let mut bed = Bed::new(files(&first, dn), "mem:", u32::MAX).await;
        let job = bed.stage.job(task(1, CELL)).await;
        job.cancel.cancel();
        bed.read_for(job, &[first], &[(10, 10), (300, 300)]).await;
        let done = bed.done().await;
        assert!(done.outcomes.iter().all(|(_, o)| matches!(o, ChipOutcome::Abandoned)), "{:?}", done.outcomes);
        assert_eq!(bed.source.reads.load(SeqCst), 0);
    });
}
