//! The pixels stage: the right pixels, the next candidate, and whose fault a bad file is.

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
use satellite_pipeline::adapters::catalog::ScriptedCatalog;
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::cut::Resampling;
use satellite_pipeline::adapters::imagery::source::{MemorySource, RangeSource};
use satellite_pipeline::domain::candidate::{Candidate, Widened};
use satellite_pipeline::domain::failure::{Failure, Severity};
use satellite_pipeline::domain::harmonise::Mode;
use satellite_pipeline::domain::pixels::Limits;
use satellite_pipeline::domain::scene::Scene;
use satellite_pipeline::domain::scl::BadClasses;
use satellite_pipeline::domain::season::{Season, Seasons};
use satellite_pipeline::domain::window::Window;
use tokio::sync::Semaphore;

use super::scene_kit::{BANDS, CELL, CENTRE, EDGE, clouded, dn, files, scene};
use super::stage::{Out, QUICK, Stage, class, health, lane, on_stage, rejections, task};

const SIZE: u32 = 64;

/// Files in memory behind a server with moods.
struct Moody {
    files: MemorySource,
    /// Reads below this href…
    href: &'static str,
    /// …fail so often.
    failures: AtomicU32,
    /// Reads by href.
    reads: Mutex<BTreeMap<String, u32>>,
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

struct Bed {
    stage: Stage,
    lane: Lane<ReadWindows>,
    rasteriser: Out<Credited<Rasterise>>,
    conclude: Out<Credited<Conclude>>,
    source: Arc<Moody>,
}

impl Bed {
    async fn new(all: Vec<(String, Vec<u8>)>, href: &'static str, failures: u32) -> Self {
        Self::with(all, href, failures, Vec::new()).await
    }

    /// The same with scenes that a further search would find.
    async fn with(all: Vec<(String, Vec<u8>)>, href: &'static str, failures: u32, further: Vec<Scene>) -> Self {
        let files = all.into_iter().fold(MemorySource::default(), |files, (href, bytes)| files.with(href, bytes));
        let source = Arc::new(Moody { files, href, failures: failures.into(), reads: Mutex::default() });
        let cpu = CpuPool::new(2).unwrap();
        let (rasteriser, to_rasteriser) = lane(64);
        let (conclude, concluded) = lane(4);
        let imagery = Arc::new(Imagery::new(source.clone(), cpu.pool(), 16 << 20));
        let catalog = Arc::new(ScriptedCatalog::new(further));
        let seasons = Seasons::new(vec![Season::new("year", "2023-01-01", "2023-12-31").unwrap()]).unwrap();
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
            image_health: health(),
            cpu: cpu.clone(),
        };
        let reader = BlockReader {
            imagery: imagery.clone(),
            memory: Arc::new(Semaphore::new(16)),
            batch_mb: 1,
            retry: QUICK,
            health: health(),
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
            assert_eq!((chip.from.grid.x0, chip.from.grid.width), (grid.x0 + f64::from(col) * 10.0, SIZE));
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
        assert!(bed.source.reads.lock().unwrap().is_empty());
    });
}

/// Bare soil, but cloud in the first 100 columns (of 20 m).
fn western_cloud(_: u32, col: u32) -> u8 {
    if col < 100 { 9 } else { 5 }
}

#[test]
fn a_cloudy_scene_costs_one_look_and_not_one_read_of_a_band() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = clouded(&first, dn, western_cloud);
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        // Three chips under the cloud, and one at its edge with 4 of 64 columns of cloud, which is more than 5 %.
        bed.read(&[first.clone(), second.clone()], &[(10, 10), (100, 20), (300, 30), (10, 196)]).await;
        let (from, done) = bed.finish(4).await;
        assert!(from.values().all(|id| id == "second") && rejections(&done).is_empty());
        let reads = bed.source.reads.lock().unwrap().clone();
        let of = |item: &str| reads.iter().filter(|(href, _)| href.starts_with(item)).collect::<Vec<_>>();
        // One read opens the classification, one brings the blocks of all four windows; the bands stay shut.
        assert_eq!(of("mem:first"), [(&"mem:first/SCL".to_owned(), &2)]);
        assert_eq!(of("mem:second").len(), 3);

        // A column less is 4.7 %: the chip is taken, and its record says so.
        bed.read(&[first], &[(10, 197)]).await;
        let chip = bed.rasteriser.next().await.message;
        assert_eq!(chip.provenance.bad_fraction, Some(3.0 / 64.0));
        assert_eq!((chip.provenance.nodata_fraction, chip.provenance.offset_rule.as_str()), (0.0, "flag"));
    });
}

#[test]
fn a_chip_whose_scenes_are_all_cloudy_is_searched_for_again_and_then_rejected() {
    on_stage(async || {
        let here = |id: &str, day, cloud| scene(id, 32631, CENTRE, day, cloud);
        let (bad, late, worse) = (here("bad", 200, 3.0), here("late", 220, 25.0), here("worse", 240, 80.0));
        let mut all = clouded(&bad, dn, |_, _| 8);
        all.extend(clouded(&late, dn, western_cloud));
        all.extend(clouded(&worse, dn, |_, _| 3));
        let further = vec![bad.clone(), late.clone(), worse.clone()];
        let mut bed = Bed::with(all, "", 0, further).await;
        bed.read(&[Arc::new(bad)], &[(268, 268)]).await;
        let chip = bed.rasteriser.next().await.message;
        assert_eq!((chip.from.scene.id.as_str(), chip.provenance.widened.as_str()), ("late", "cloud"));
        drop(chip);
        let mut western = plan(0, (268, 10), &[]);
        western.drawn.lonlat = [CENTRE[0] - 0.029, CENTRE[1]];
        western.drawn.point = western.drawn.lonlat;
        let job = bed.stage.job(task(2, CELL)).await;
        let fan = Arc::new(Fan::new(job, 1, Arc::default()));
        bed.lane.send(ReadWindows { fan, chips: vec![western] }).await;
        let done = bed.done().await;
        let why: Vec<_> = rejections(&done).iter().map(|r| (r.reason.as_str(), r.detail.as_str())).collect();
        assert_eq!(why, [("cloud", "100.0 % of the window is cloud, shadow or snow in worse")]);
    });
}

#[test]
fn of_two_scenes_of_one_overpass_the_clearer_one_gives_the_chip() {
    on_stage(async || {
        let [mut first, mut second] = two().map(|s| Scene::clone(&s));
        let name = |tile| Some(format!("S2A_MSIL2A_20230719T105629_N0509_R094_{tile}_20230719T165201.SAFE"));
        (first.product_uri, second.product_uri) = (name("T31TBG"), name("T30TYM"));
        let mut all = clouded(&first, dn, |_, col| if col < 1 { 10 } else { 4 });
        all.extend(clouded(&second, dn, |row, _| if row > 290 { 10 } else { 4 }));
        let mut bed = Bed::new(all, "", 0).await;
        let both = [Arc::new(first), Arc::new(second)];
        // The first chip loses two columns in the first scene; for the others both scenes are as clear, and as central.
        bed.read(&both, &[(100, 0), (100, 200), (EDGE - SIZE, 200)]).await;
        let (from, _) = bed.finish(3).await;
        assert_eq!(from, [(0, "second".into()), (1, "first".into()), (2, "first".into())].into());
    });
}

#[test]
fn an_offset_that_is_still_there_is_found_in_the_pixels_and_taken_out() {
    on_stage(async || {
        let raw = |id: &str| Scene { boa_offset_applied: Some(false), ..scene(id, 32631, CENTRE, 200, 3.0) };
        let (with, without) = (raw("with"), raw("without"));
        let ground = |row, col| dn(row, col) / 2 + 150;
        let mut all = files(&with, |row, col| ground(row, col) + 1000);
        // Its flag is as false as the other's, but its land is dark; the clouds above it are not asked.
        all.extend(clouded(
            &without,
            |row, col| if row < 200 { 8000 } else { ground(row, col) },
            |row, _| {
                if row < 100 { 9 } else { 4 }
            },
        ));
        let mut bed = Bed::new(all, "", 0).await;
        for (item, subtracted) in [(with, 1000), (without, 0)] {
            bed.read(&[Arc::new(item)], &[(300, 300), (420, 20)]).await;
            for _ in 0..2 {
                let chip = bed.rasteriser.next().await.message;
                let (row, col) = [(300, 300), (420, 20)][chip.drawn.chip as usize];
                assert_eq!((chip.provenance.offset, chip.provenance.offset_rule.as_str()), (subtracted, "pixels"));
                let want = (row..row + SIZE).flat_map(|r| (col..col + SIZE).map(move |c| ground(r, c)));
                let (ten, twenty) = chip.pixels.split_at((SIZE * SIZE) as usize);
                assert!(ten.iter().copied().eq(want));
                // B11 is 900 everywhere: with the offset taken out that is below zero, and not nodata.
                assert!(twenty.iter().all(|v| *v == if subtracted == 0 { 900 } else { 1 }));
            }
        }
        // Evidence costs an overview of the blue band and one of the classification, once per scene.
        assert_eq!(bed.source.reads.lock().unwrap()["mem:with/SCL"], 4);
    });
}

#[test]
fn numbers_that_cannot_be_reflectances_send_a_chip_elsewhere() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = files(&first, |row, col| if row < 110 { 65_000 } else { dn(row, col) });
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first.clone(), second], &[(100, 100), (110, 100)]).await;
        assert_eq!(bed.finish(2).await.0, [(0, "second".into()), (1, "first".into())].into());
        bed.read(&[first], &[(100, 100)]).await;
        let done = bed.done().await;
        assert_eq!(rejections(&done)[0].reason, "suspect_dn");
    });
}

#[test]
fn a_scene_without_a_classification_is_passed_over() {
    on_stage(async || {
        let [first, second] = two();
        let mut blind = Scene::clone(&first);
        blind.assets.remove(&satellite_pipeline::domain::band::Band::Scl);
        let mut all = files(&first, dn);
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        let blind = Arc::new(blind);
        bed.read(&[blind.clone(), second], &[(100, 100)]).await;
        assert_eq!(bed.finish(1).await.0, [(0, "second".into())].into());
        bed.read(&[blind], &[(100, 100)]).await;
        let done = bed.done().await;
        assert_eq!(rejections(&done)[0].reason, "no_scl");
    });
}
