//! The rasteriser: every labelled parcel in the mask, nothing without a mask, both files named and described.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::Actor;
use gdal::Metadata as _;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{ChipOutcome, Conclude, Drawn, Fan, Rasterise, WriteChip};
use satellite_pipeline::actors::rasteriser::{Encoding, LabelRules, Prepared, Rasteriser};
use satellite_pipeline::actors::uncut::{Uncut, Verdict};
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::geotiff::{Compression, MaskLook};
use satellite_pipeline::adapters::imagery::block::Samples;
use satellite_pipeline::adapters::imagery::cut::{Cut, Resampling};
use satellite_pipeline::adapters::imagery::header::{Codec, Cog, Sample};
use satellite_pipeline::adapters::spare::Spares;
use satellite_pipeline::domain::candidate::{Candidate, Widened};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::chip_name::NameTemplate;
use satellite_pipeline::domain::harmonise::Offset;
use satellite_pipeline::domain::parcel::Parcel;
use satellite_pipeline::domain::pixels::{Limits, Refused};
use satellite_pipeline::domain::provenance::Provenance;
use satellite_pipeline::domain::scene::Scene;
use satellite_pipeline::domain::window::Window;
use tokio::sync::oneshot;

use super::scene_kit::{BANDS, CELL, CENTRE, EDGE, grid, parcel, scene};
use super::stage::{Out, Stage, class, lane, on_stage, rejections, task};

const SIZE: u32 = 64;

struct Bed {
    stage: Stage,
    lane: Lane<Rasterise>,
    writer: Out<Credited<WriteChip>>,
    conclude: Out<Credited<Conclude>>,
    scene: Arc<Scene>,
}

const PLAIN: LabelRules = LabelRules { erode_m: 0.0, unlabelled: 0, min_share: 0.0 };

impl Bed {
    async fn new() -> Self {
        Self::with(PLAIN).await
    }

    async fn with(labels: LabelRules) -> Self {
        let (writer, to_writer) = lane(4);
        let (conclude, concluded) = lane(4);
        let encoding = Encoding {
            worker: "w".into(),
            crs: Crs::lonlat(),
            bands: BANDS.into(),
            labels,
            look: MaskLook { palette: [[0; 3]; 256], names: Vec::new(), nodata: 0 },
            checksum: Algorithm::Xxh128,
            compression: Compression::Deflate(1),
            names: NameTemplate::parse("{worker}_{run}_{task}_{class}_{chip}_{parcel}").unwrap(),
            images: Spares::new(2, usize::MAX),
            prepared: Prepared::new(1 << 20),
        };
        let rasteriser = Rasteriser { how: Arc::new(encoding), cpu: CpuPool::new(1).unwrap(), writer, conclude };
        let lane = Lane::new("rasteriser", 4, rasteriser.start().recipient());
        let scene = Arc::new(scene("item", 32631, CENTRE, 200, 3.0));
        Self { stage: Stage::new().await, lane, writer: to_writer, conclude: concluded, scene }
    }

    fn chip(&self, fan: &Arc<Fan>, chip: u32) -> Rasterise {
        self.window(fan, chip, 700).0
    }

    /// A chip of which every DN is `dn`, and what the pixels stage hears of it.
    fn window(&self, fan: &Arc<Fan>, chip: u32, dn: u16) -> (Rasterise, oneshot::Receiver<Verdict>) {
        let middle = EDGE / 2 - SIZE / 2;
        let whole = grid(self.scene.epsg, CENTRE);
        let place = Window { row: middle, col: middle, size: SIZE }.grid(&whole);
        let from = Candidate::new(self.scene.clone(), &whole, place, "summer".into(), Widened::No);
        let drawn = Drawn { chip, parcel: 1, class: class(5), point: CENTRE, lonlat: CENTRE };
        let (verdict, heard) = oneshot::channel();
        // Each band is a file of one block, which is the window.
        let cog = Cog {
            href: String::new(),
            width: SIZE,
            height: SIZE,
            sample: Sample::U16,
            codec: Codec::None,
            differences: false,
            big_endian: false,
            block_width: SIZE,
            block_height: SIZE,
            strips: false,
            blocks: std::iter::once(0..0).collect(),
            grid: Some(place),
            epsg: Some(self.scene.epsg),
        };
        let size = (SIZE * SIZE) as usize;
        let block = HashMap::from([(0, Arc::new(Samples::U16(vec![dn; size])))]);
        let cut = Arc::new(Cut::new(&place, &place, Resampling::Nearest).unwrap());
        let window = Uncut {
            files: vec![(Arc::new(cog), place); BANDS.len()],
            blocks: Arc::new(vec![block; BANDS.len()]),
            cuts: BANDS.map(|_| cut.clone()).to_vec(),
            size,
            offset: Offset { subtract: 0, rule: "flag" },
            limits: Limits { bad: 0.05, nodata: 0.0, suspect: 0.0 },
            verdict,
        };
        let provenance = Provenance { bad_fraction: Some(0.02), offset_rule: "flag".into(), ..Provenance::default() };
        (Rasterise { fan: fan.clone(), drawn, from, window, provenance }, heard)
    }

    async fn fan(&mut self, chips: usize, parcels: Vec<Parcel>) -> Arc<Fan> {
        Arc::new(Fan::new(self.stage.job(task(9, CELL)).await, chips, Arc::new(parcels)))
    }
}

#[test]
fn a_mask_holds_every_labelled_parcel_not_only_the_drawn_one() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        let mut other = parcel(2, [0.002, 41.62], 60.0);
        other.class = Some(class(7));
        let mut nameless = parcel(3, [-0.002, 41.62], 60.0);
        nameless.class = None;
        let fan = bed.fan(1, vec![parcel(1, CENTRE, 100.0), other, nameless]).await;
        let chip = bed.chip(&fan, 0);
        drop(fan);
        bed.lane.send(chip).await;
        let written = bed.writer.next().await.message;
        let record = &written.record;
        assert_eq!(record.name, "w_run1_9_5_0_1");
        let counts: BTreeMap<u8, u32> = record.pixels.iter().copied().collect();
        assert_eq!(counts.values().sum::<u32>(), SIZE * SIZE);
        // 100 m and 60 m squares, turned by the meridian's convergence: their areas in pixels, but for the rims.
        assert!((95..=105).contains(&counts[&5]) && (33..=39).contains(&counts[&7]), "{counts:?}");
        assert_eq!(counts.len(), 3);
        assert_eq!((record.item.as_str(), record.season.as_str(), record.epsg), ("item", "summer", 32631));
        assert_eq!(record.datetime, "2023-07-19T10:56:29Z");
        for file in [&written.image, &written.mask] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.tif");
            std::fs::write(&path, file).unwrap();
            let read = gdal::Dataset::open(&path).unwrap();
            assert_eq!((read.raster_size(), read.geo_transform().unwrap()[0]), ((64, 64), record.grid.x0));
            let tag = |name| read.metadata_item(name, "").unwrap();
            assert_eq!((tag("ITEM"), tag("RUN"), tag("PARCEL")), ("item".into(), "run1".into(), "1".into()));
            assert_eq!(
                (tag("BAD_FRACTION"), tag("OFFSET_RULE"), tag("SEASON")),
                ("0.02".into(), "flag".into(), "summer".into())
            );
        }
    });
}

#[test]
fn a_chip_without_a_labelled_pixel_is_rejected() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        // Smaller than a pixel and on a pixel's corner.
        let fan = bed.fan(1, vec![parcel(1, [CENTRE[0] + 0.02, CENTRE[1]], 50.0)]).await;
        let chip = bed.chip(&fan, 0);
        drop(fan);
        bed.lane.send(chip).await;
        let concluded = bed.conclude.next().await;
        let done = &concluded.message.done;
        assert_eq!((rejections(done)[0].parcel, rejections(done)[0].reason.as_str()), (1, "empty_mask"));
        bed.writer.nothing().await;
    });
}

/// Shapes are kept from task to task: by zone, and nothing of one scene's chip shows in another's.
#[test]
fn a_parcel_prepared_for_one_zone_is_prepared_again_for_another() {
    on_stage(async || {
        let mut masks = Vec::new();
        let mut kept = Bed::new().await;
        for epsg in [32631, 32630, 32631] {
            let mut fresh = Bed::new().await;
            for bed in [&mut kept, &mut fresh] {
                bed.scene = Arc::new(scene("item", epsg, CENTRE, 200, 3.0));
                let fan = bed.fan(1, vec![parcel(1, CENTRE, 230.0), parcel(2, [0.003, 41.62], 160.0)]).await;
                let chip = bed.chip(&fan, 0);
                drop(fan);
                bed.lane.send(chip).await;
                masks.push(bed.writer.next().await.message.mask);
            }
        }
        assert!(masks.as_chunks::<2>().0.iter().all(|[kept, fresh]| kept == fresh));
        assert!(masks[0] == masks[4] && masks[0] != masks[2]);
    });
}

/// Nodata and suspect DNs within their limits: the bands are judged together, and all of them harmonised.
#[test]
fn a_window_with_some_pixels_to_judge_is_a_chip_of_all_its_bands() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        let fan = bed.fan(1, vec![parcel(1, CENTRE, 100.0)]).await;
        let (mut chip, heard) = bed.window(&fan, 0, 1700);
        drop(fan);
        let size = (SIZE * SIZE) as usize;
        // 128 pixels are nodata, in one band or the other; 64 others are suspect.
        let first = |i| if i < 100 { 0 } else { 1700 };
        let second = |i| match i {
            50..128 => 0,
            1000..1064 => 60_000,
            _ => 1700,
        };
        let block = |pixels: Vec<u16>| HashMap::from([(0, Arc::new(Samples::U16(pixels)))]);
        let blocks = vec![block((0..size).map(first).collect()), block((0..size).map(second).collect())];
        assert_eq!(blocks.len(), BANDS.len());
        chip.window.blocks = Arc::new(blocks);
        chip.window.offset = Offset { subtract: 1000, rule: "pixels" };
        chip.window.limits = Limits { bad: 0.05, nodata: 0.05, suspect: 0.05 };
        bed.lane.send(chip).await;
        let written = bed.writer.next().await.message;
        assert_eq!(heard.await, Ok(Verdict::Taken));
        let known = &written.record.provenance;
        assert_eq!((known.nodata_fraction, known.suspect_fraction), (128.0 / 4096.0, 64.0 / 4096.0));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tif");
        std::fs::write(&path, &written.image).unwrap();
        let read = gdal::Dataset::open(&path).unwrap();
        assert_eq!(read.metadata_item("NODATA_FRACTION", "").unwrap(), "0.03125");
        let edge = SIZE as usize;
        let pixels =
            |band| read.rasterband(band).unwrap().read_as::<u16>((0, 0), (edge, edge), (edge, edge), None).unwrap();
        let (first, second) = (pixels(1), pixels(2));
        assert_eq!([99, 100, 1000].map(|at| first.data()[at]), [0, 700, 700]);
        assert_eq!([49, 50, 127, 128, 1063, 1064].map(|at| second.data()[at]), [700, 0, 0, 700, 59_000, 700]);
    });
}

/// The pixels stage may offer the chip another scene, and is then the last to have a share of the task.
#[test]
fn a_window_that_is_no_use_goes_back_and_leaves_no_share() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        let fan = bed.fan(1, vec![parcel(1, CENTRE, 100.0)]).await;
        let (mut cut_off, missing) = bed.window(&fan, 0, 700);
        cut_off.window.blocks = Arc::new(vec![HashMap::new(); BANDS.len()]);
        let (empty, nodata) = bed.window(&fan, 0, 0);
        let (wild, suspect) = bed.window(&fan, 0, 30_000);
        let mut shares = Arc::strong_count(&fan);
        for (chip, heard, wanted) in [
            (cut_off, missing, Verdict::Unreadable),
            (empty, nodata, Verdict::Refused(Refused::Nodata(1.0))),
            (wild, suspect, Verdict::Refused(Refused::Suspect(1.0))),
        ] {
            bed.lane.send(chip).await;
            assert_eq!(heard.await, Ok(wanted));
            shares -= 1;
            assert_eq!(Arc::strong_count(&fan), shares, "{wanted:?}");
        }
        bed.writer.nothing().await;
        bed.conclude.nothing().await;
    });
}

#[test]
fn a_cancelled_task_costs_no_work() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        let fan = bed.fan(2, vec![parcel(1, CENTRE, 100.0)]).await;
        fan.job().cancel.cancel();
        let chips = [bed.window(&fan, 0, 700), bed.window(&fan, 1, 0)];
        drop(fan);
        for (chip, heard) in chips {
            bed.lane.send(chip).await;
            assert_eq!(heard.await, Ok(Verdict::Taken), "its outcome is noted");
        }
        let done = bed.conclude.next().await.message.done;
        assert!(done.outcomes.iter().all(|(_, o)| matches!(o, ChipOutcome::Abandoned)) && done.outcomes.len() == 2);
        bed.writer.nothing().await;
    });
}

/// Pixels of each value in the mask of a chip around a field of 100 m.
async fn counts(labels: LabelRules) -> Result<BTreeMap<u8, u32>, String> {
    let mut bed = Bed::with(labels).await;
    let fan = bed.fan(1, vec![parcel(1, CENTRE, 100.0), parcel(2, [0.9, 41.62], 100.0)]).await;
    let chip = bed.chip(&fan, 0);
    drop(fan);
    bed.lane.send(chip).await;
    tokio::select! {
        written = bed.writer.next() => {
            let record = written.message.record;
            assert_eq!(record.provenance.parcels, [1], "the other one is far away");
            Ok(record.pixels.into_iter().collect())
        }
        concluded = bed.conclude.next() => Err(rejections(&concluded.message.done)[0].reason.clone()),
    }
}

#[test]
fn labels_are_drawn_in_and_what_has_none_is_called_as_configured() {
    on_stage(async || {
        let whole = counts(PLAIN).await.unwrap();
        assert!((95..=105).contains(&whole[&5]) && whole[&0] == SIZE * SIZE - whole[&5]);
        // Two rows less on every side.
        let eroded = counts(LabelRules { erode_m: 20.0, unlabelled: 255, ..PLAIN }).await.unwrap();
        assert!((32..=40).contains(&eroded[&5]) && eroded[&255] == SIZE * SIZE - eroded[&5], "{eroded:?}");
        assert_eq!(counts(LabelRules { erode_m: 60.0, ..PLAIN }).await, Err("empty_mask".into()));
        let share = f64::from(whole[&5]) / f64::from(SIZE * SIZE);
        assert!(counts(LabelRules { min_share: share, ..PLAIN }).await.is_ok());
        assert_eq!(counts(LabelRules { min_share: share + 1e-9, ..PLAIN }).await, Err("few_labels".into()));
    });
}
