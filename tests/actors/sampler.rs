//! The sampler: the original's skips, and a draw that depends on seed and id alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use actix::Actor;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{Conclude, Drawn, FindScenes, SampleParcels};
use satellite_pipeline::actors::quotas::Quotas;
use satellite_pipeline::actors::sampler::{ParcelRules, Sampler};
use satellite_pipeline::actors::ticket::Outcome;
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::parcels::{
    LayerInfo, MemoryParcels, MemoryRow, ParcelError, ParcelSource, ScanProgress,
};
use satellite_pipeline::domain::class_table::ClassTable;
use satellite_pipeline::domain::parcel::{Parcel, ScannedParcel};
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::result::Status;
use satellite_pipeline::domain::sampling::is_drawn;
use satellite_pipeline::domain::thinning::metres;

use super::stage::{Out, Stage, class, lane, on_stage, task};

const CELL: [f64; 4] = [0.0, 40.0, 0.05, 40.05];
const WHEAT: &str = "3301010100";

fn classes() -> Arc<ClassTable> {
    let text = include_str!("../../config/classes/eurocrops.csv");
    Arc::new(ClassTable::parse(text, "config/classes/eurocrops.csv").unwrap())
}

fn field(id: i64, lon: f64, lat: f64, code: &str) -> MemoryRow {
    let d = 0.0004;
    let ring = [[lon - d, lat - d], [lon + d, lat - d], [lon + d, lat + d], [lon - d, lat + d], [lon - d, lat - d]];
    MemoryRow { id, code: Some(code.into()), name: None, shape: Some(Polygon::from_ring(ring)) }
}

/// Forty wheat fields inside the cell, one west of it.
fn fields() -> Vec<MemoryRow> {
    let inside = (1..=40).map(|i| field(i, 0.001 * i as f64, 40.001 * 1.0 + 0.001 * i as f64, WHEAT));
    inside.chain([field(100, -0.001, 40.02, WHEAT)]).collect()
}

struct Bed {
    lane: Lane<SampleParcels>,
    scenes: Out<Credited<FindScenes>>,
    conclude: Out<Credited<Conclude>>,
}

const PLAIN: ParcelRules = ParcelRules { repair: true, min_area_m2: 0.0, min_distance_m: 0.0 };

fn bed(parcels: impl ParcelSource + 'static) -> Bed {
    ruled(parcels, PLAIN)
}

fn ruled(parcels: impl ParcelSource + 'static, rules: ParcelRules) -> Bed {
    bed_of(parcels, rules, &Quotas::default())
}

fn bed_with(parcels: impl ParcelSource + 'static, quotas: &Quotas) -> Bed {
    bed_of(parcels, PLAIN, quotas)
}

fn bed_of(parcels: impl ParcelSource + 'static, rules: ParcelRules, quotas: &Quotas) -> Bed {
    let (scenes, to_scenes) = lane(4);
    let (conclude, concluded) = lane(4);
    let sampler = Sampler {
        worker: "w".into(),
        parcels: Arc::new(parcels),
        min_parcels: 3,
        margin_m: 1_500.0,
        rules,
        valid: Arc::default(),
        quotas: quotas.clone(),
        cpu: CpuPool::new(1).unwrap(),
        scenes,
        conclude,
    };
    Bed { lane: Lane::new("sampler", 4, sampler.start().recipient()), scenes: to_scenes, conclude: concluded }
}

fn memory(rows: Vec<MemoryRow>) -> MemoryParcels {
    MemoryParcels::new(Crs::lonlat(), rows, classes()).unwrap()
}

#[test]
fn the_draw_depends_on_seed_and_id_alone() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let mut first: Option<Vec<Drawn>> = None;
        for turn in 0..3 {
            let mut rows = fields();
            rows.rotate_left(turn * 13);
            let mut bed = bed(memory(rows));
            let mut task = task(1 + turn as u64, CELL);
            task.sampling_probs = [(class(5), 0.5)].into();
            bed.lane.send(SampleParcels { job: stage.job(task).await }).await;
            let sent = bed.scenes.next().await.message;
            let ids: Vec<i64> = sent.drawn.iter().map(|d| d.parcel).collect();
            assert_eq!(ids, (1..=40).filter(|id| is_drawn(42, *id, 0.5)).collect::<Vec<_>>());
            assert!(sent.drawn.iter().map(|d| d.chip).eq(0..ids.len() as u32), "chips are numbered in order of id");
            assert_eq!(sent.parcels.len(), 41, "the field next door is needed for the masks, not for a chip");
            assert!(first.get_or_insert_with(|| sent.drawn.clone()) == &sent.drawn);
        }
    });
}

#[test]
fn cells_with_nothing_to_do_end_here() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let few = fields().into_iter().take(2).collect::<Vec<_>>();
        let other: Vec<MemoryRow> = (1..9).map(|i| field(i, 0.004 * i as f64, 40.02, "9999999999")).collect();
        for (rows, probability, status) in [
            (few, None, Status::SkippedFewPolygons),
            (other, None, Status::SkippedNoTargetClasses),
            (fields(), Some((class(1), 1.0)), Status::SkippedNoTargetClasses),
            (fields(), Some((class(5), 0.0)), Status::SkippedSampling),
        ] {
            let mut bed = bed(memory(rows));
            let mut task = task(1, CELL);
            task.sampling_probs = probability.into_iter().collect();
            bed.lane.send(SampleParcels { job: stage.job(task).await }).await;
            let done = bed.conclude.next().await.message.done;
            assert_eq!((done.skipped, done.outcomes.len()), (Some(status), 0));
            bed.scenes.nothing().await;
        }
    });
}

#[test]
fn a_class_with_enough_chips_is_left_out_and_the_others_keep_their_numbers() {
    const PEAS: &str = "3301020300";
    on_stage(async || {
        let mut stage = Stage::new().await;
        let rows = || {
            let peas = (41..=46).map(|i| field(i, 0.001 * i as f64 - 0.0005, 40.002, PEAS));
            memory(fields().into_iter().chain(peas).collect())
        };
        let quotas = Quotas::default();
        let wanted = || {
            let mut task = task(1, CELL);
            task.sampling_probs = [(class(5), 0.5), (class(6), 1.0)].into();
            task.target_samples = [(class(5), 30), (class(6), 7)].into();
            task
        };
        let mut sample = async |quotas: &Quotas| {
            let mut bed = bed_with(rows(), quotas);
            bed.lane.send(SampleParcels { job: stage.job(wanted()).await }).await;
            let FindScenes { job, drawn, .. } = bed.scenes.next().await.message;
            let left_out = job.left_out.clone();
            drop(job);
            assert_eq!(stage.outcome().await, Outcome::Lost, "the test has dropped it");
            (left_out, drawn)
        };
        let (none, all) = sample(&quotas).await;
        assert!(none.is_empty() && all.iter().any(|d| d.class == class(5)) && all.iter().any(|d| d.class == class(6)));
        quotas.note("run1", &[(class(5), 30), (class(6), 6)].into());
        let (left_out, drawn) = sample(&quotas).await;
        assert_eq!(drawn, all.iter().filter(|d| d.class == class(6)).cloned().collect::<Vec<_>>());
        assert!(drawn[0].chip > 0, "the numbers are those of the whole draw");
        let ids: Vec<i64> = left_out.iter().map(|r| r.parcel).collect();
        assert_eq!(ids, all.iter().filter(|d| d.class == class(5)).map(|d| d.parcel).collect::<Vec<_>>());
        assert!(left_out.iter().all(|r| r.reason == "quota" && r.class == class(5)));

        quotas.note("run1", &[(class(6), 7)].into());
        let mut bed = bed_with(rows(), &quotas);
        bed.lane.send(SampleParcels { job: stage.job(wanted()).await }).await;
        let Outcome::Unwanted(result) = stage.outcome().await else { panic!("nothing is wanted") };
        assert_eq!((result.status, result.chips_saved, result.error), (Status::SkippedQuota, 0, None));
        bed.scenes.nothing().await;
        bed.conclude.nothing().await;
    });
}

/// Parcels that cannot be had.
struct Broken {
    layer: MemoryParcels,
    how: fn() -> Result<Vec<Parcel>, ParcelError>,
}

impl ParcelSource for Broken {
    fn layer(&self) -> &LayerInfo {
        self.layer.layer()
    }
    fn scan(
        &self,
        sink: &mut dyn FnMut(&ScannedParcel),
        progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
    ) -> Result<u64, ParcelError> {
        self.layer.scan(sink, progress)
    }
    fn cell(&self, _: [f64; 4], _: f64) -> Result<Vec<Parcel>, ParcelError> {
        (self.how)()
    }
}

#[test]
fn parcels_that_cannot_be_had_fail_the_task_or_the_node() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let mut run = async |how| {
            let bed = bed(Broken { layer: memory(fields()), how });
            let job = stage.job(task(1, CELL)).await;
            bed.lane.send(SampleParcels { job }).await;
            stage.outcome().await
        };
        match run(|| Err(ParcelError::CellTooLarge { bbox: CELL })).await {
            Outcome::Failed(result) => {
                assert_eq!(result.status, Status::Failed);
                assert!(result.error.unwrap().contains("use a smaller grid.step"));
            }
            other => panic!("{other:?}"),
        }
        let gone = run(|| Err(ParcelError::ReaderLost { path: "x.gpkg".into() })).await;
        assert!(matches!(gone, Outcome::Fatal(_)), "{gone:?}");
        // What panics takes its task along, and the ticket tells.
        assert_eq!(run(|| panic!("on purpose")).await, Outcome::Lost);
    });
}

#[test]
fn a_cancelled_task_is_left_to_others() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let bed = bed(memory(fields()));
        let job = stage.job(task(1, CELL)).await;
        job.cancel.cancel();
        bed.lane.send(SampleParcels { job }).await;
        assert_eq!(stage.outcome().await, Outcome::Abandoned);
    });
}

/// What a cell gives under some rules.
async fn given(stage: &mut Stage, rows: Vec<MemoryRow>, rules: ParcelRules, cell: [f64; 4]) -> FindScenes {
    let mut bed = ruled(memory(rows), rules);
    bed.lane.send(SampleParcels { job: stage.job(task(1, cell)).await }).await;
    bed.scenes.next().await.message
}

#[test]
fn an_invalid_shape_is_mended_or_its_parcel_left_out() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let crossed = [[0.01, 40.01], [0.012, 40.012], [0.012, 40.01], [0.01, 40.011]];
        let mut rows = fields();
        rows.push(MemoryRow { shape: Some(Polygon::from_ring(crossed)), ..field(41, 0.0, 0.0, WHEAT) });
        let raw = rows[41].shape.clone().unwrap();
        let mended = given(&mut stage, rows.clone(), PLAIN, CELL).await;
        let shape = &mended.parcels.iter().find(|p| p.id == 41).unwrap().shape;
        assert!(mended.job.left_out.is_empty() && mended.drawn.iter().any(|d| d.parcel == 41));
        assert!(**shape != raw && shape.rings().count() == 2, "{shape:?}");

        let strict = given(&mut stage, rows, ParcelRules { repair: false, ..PLAIN }, CELL).await;
        assert!(strict.parcels.iter().all(|p| p.id != 41) && strict.drawn.len() == 40);
        let why = &strict.job.left_out[0];
        assert_eq!((why.parcel, why.reason.as_str()), (41, "invalid_geometry"));
    });
}

#[test]
fn small_parcels_and_close_ones_are_no_centres_but_keep_their_numbers() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let mut rows = fields();
        // 68 x 89 metres, but for one that has a quarter of it.
        rows[4].shape =
            Some(Polygon::from_ring([[0.005, 40.006], [0.0054, 40.006], [0.0054, 40.0064], [0.005, 40.0064]]));
        let fit = given(&mut stage, rows.clone(), ParcelRules { min_area_m2: 3000.0, ..PLAIN }, CELL).await;
        let why = &fit.job.left_out[0];
        assert_eq!((why.parcel, why.reason.as_str(), fit.job.left_out.len()), (5, "too_small", 1));
        assert!(fit.drawn.iter().all(|d| i64::from(d.chip) + 1 == d.parcel));
        assert_eq!(fit.parcels.len(), 41, "it stays a label");

        let far = ParcelRules { min_distance_m: 300.0, ..PLAIN };
        let halves = [[0.0, 40.0, 0.02, 40.05], [0.02, 40.0, 0.05, 40.05]];
        let (west, east) =
            (given(&mut stage, rows.clone(), far, halves[0]).await, given(&mut stage, rows, far, halves[1]).await);
        let both: Vec<&Drawn> = west.drawn.iter().chain(&east.drawn).collect();
        assert_eq!(both.len() + west.job.left_out.len() + east.job.left_out.len(), 40);
        assert!(both.len() > 4 && west.job.left_out.iter().all(|why| why.reason == "too_close"));
        for (i, a) in both.iter().enumerate() {
            assert!(both[i + 1..].iter().all(|b| metres(a.lonlat, b.lonlat) >= 300.0), "across the cells' border too");
        }
    });
}
