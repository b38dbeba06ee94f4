//! The rasteriser: every labelled parcel in the mask, nothing without a mask, both files named and described.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Actor;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{Candidate, ChipOutcome, Conclude, Drawn, Fan, Rasterise, WriteChip};
use satellite_pipeline::actors::rasteriser::{Encoding, Rasteriser};
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::geotiff::Compression;
use satellite_pipeline::domain::chip_name::NameTemplate;
use satellite_pipeline::domain::parcel::Parcel;
use satellite_pipeline::domain::scene::Scene;
use satellite_pipeline::domain::window::Window;

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

impl Bed {
    async fn new() -> Self {
        let (writer, to_writer) = lane(4);
        let (conclude, concluded) = lane(4);
        let encoding = Encoding {
            worker: "w".into(),
            crs: Crs::lonlat(),
            bands: BANDS.into(),
            palette: [[0; 3]; 256],
            compression: Compression::Deflate(1),
            names: NameTemplate::parse("{worker}_{run}_{task}_{class}_{chip}_{parcel}").unwrap(),
        };
        let rasteriser = Rasteriser { how: Arc::new(encoding), cpu: CpuPool::new(1).unwrap(), writer, conclude };
        let lane = Lane::new("rasteriser", 4, rasteriser.start().recipient());
        let scene = Arc::new(scene("item", 32631, CENTRE, 200, 3.0));
        Self { stage: Stage::new().await, lane, writer: to_writer, conclude: concluded, scene }
    }

    fn chip(&self, fan: &Arc<Fan>, chip: u32) -> Rasterise {
        let middle = EDGE / 2 - SIZE / 2;
        let window = Window { row: middle, col: middle, size: SIZE };
        let drawn = Drawn { chip, parcel: 1, class: class(5), point: CENTRE, lonlat: CENTRE };
        Rasterise {
            fan: fan.clone(),
            drawn,
            from: Candidate { scene: self.scene.clone(), window, season: "summer".into() },
            grid: window.grid(&grid(32631, CENTRE)),
            pixels: vec![700; (SIZE * SIZE) as usize * BANDS.len()],
        }
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

#[test]
fn a_cancelled_task_costs_no_work() {
    on_stage(async || {
        let mut bed = Bed::new().await;
        let fan = bed.fan(2, vec![parcel(1, CENTRE, 100.0)]).await;
        fan.job().cancel.cancel();
        let chips = [bed.chip(&fan, 0), bed.chip(&fan, 1)];
        drop(fan);
        for chip in chips {
            bed.lane.send(chip).await;
        }
        let done = bed.conclude.next().await.message.done;
        assert!(done.outcomes.iter().all(|(_, o)| matches!(o, ChipOutcome::Abandoned)) && done.outcomes.len() == 2);
        bed.writer.nothing().await;
    });
}
