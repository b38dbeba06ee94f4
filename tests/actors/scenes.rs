//! The scenes stage: the original's fallback, candidates for each parcel, and what a catalog's trouble means.

use std::sync::Arc;

use actix::Actor;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::finder::Finder;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{ChipPlan, Conclude, Drawn, FindScenes, ReadWindows};
use satellite_pipeline::actors::scenes::Scenes;
use satellite_pipeline::actors::ticket::Outcome;
use satellite_pipeline::adapters::catalog::{CatalogError, ScriptedCatalog};
use satellite_pipeline::adapters::crs::Crs;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::source::MemorySource;
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::candidate::{Candidate, Widened};
use satellite_pipeline::domain::parcel::Parcel;
use satellite_pipeline::domain::result::Status;
use satellite_pipeline::domain::season::{Season, Seasons};

use super::scene_kit::{CELL, CENTRE, parcel, scene};
use super::stage::{Out, QUICK, Stage, class, health, hosts, lane, on_stage, rejections, task};

struct Bed {
    stage: Stage,
    catalog: Arc<ScriptedCatalog>,
    lane: Lane<FindScenes>,
    pixels: Out<Credited<ReadWindows>>,
    conclude: Out<Credited<Conclude>>,
}

impl Bed {
    async fn new(catalog: ScriptedCatalog) -> Self {
        Self::in_seasons(catalog, |seasons| seasons.always("summer").unwrap()).await
    }

    async fn in_seasons(catalog: ScriptedCatalog, pick: impl Fn(Seasons) -> Seasons) -> Self {
        let (pixels, to_pixels) = lane(4);
        let (conclude, concluded) = lane(4);
        let (catalog, cpu) = (Arc::new(catalog), CpuPool::new(1).unwrap());
        let imagery = Arc::new(Imagery::new(Arc::new(MemorySource::default()), cpu.pool(), 1 << 20));
        let seasons = [("summer", "2023-06-21", "2023-09-22"), ("winter", "2023-01-01", "2023-03-20")];
        let seasons = seasons.map(|(name, first, last)| Season::new(name, first, last).unwrap());
        let finder = Finder {
            catalog: catalog.clone(),
            imagery: imagery.clone(),
            crs: Crs::lonlat(),
            seasons: Arc::new(pick(Seasons::new(seasons.into()).unwrap())),
            max_cloud: 20.0,
            widest: Widened::Season,
            collections: Arc::from(["sentinel-2-l2a".to_owned()]),
            grid_band: Band::B02,
            chip_size: 256,
            retry: QUICK,
            health: health(),
            image_hosts: hosts(&imagery),
            cpu,
        };
        let scenes = Scenes { worker: "w".into(), finder: Arc::new(finder), max_scenes: 9, pixels, conclude };
        let lane = Lane::new("scenes", 4, scenes.start().recipient());
        Self { stage: Stage::new().await, catalog, lane, pixels: to_pixels, conclude: concluded }
    }

    async fn find(&mut self, parcels: Vec<Parcel>) {
        let job = self.stage.job(task(1, CELL)).await;
        self.lane.send(FindScenes { job, drawn: drawn(&parcels), parcels: Arc::new(parcels) }).await;
    }

    /// For each parcel that goes on: its id, and item and season of its candidates in order.
    async fn candidates(&mut self) -> Vec<(i64, Vec<(String, String)>)> {
        let sent = self.pixels.next().await.message;
        sent.chips.iter().map(|p| (p.drawn.parcel, tried(p).iter().map(named).collect())).collect()
    }
}

fn named(c: &Candidate) -> (String, String) {
    (c.scene.id.clone(), c.season.to_string())
}

/// The candidates of a chip in the order in which they would be tried, were all of them refused.
fn tried(plan: &ChipPlan) -> Vec<Candidate> {
    let (mut choice, mut all) = (plan.choice.clone(), Vec::new());
    while let Some(want) = choice.want() {
        all.push(want.candidate().clone());
        choice.refused();
    }
    all
}

fn drawn(parcels: &[Parcel]) -> Vec<Drawn> {
    let draw =
        |(p, chip): (&Parcel, u32)| Drawn { chip, parcel: p.id, class: class(5), point: p.point, lonlat: p.lonlat };
    parcels.iter().zip(0..).map(draw).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn the_fallback_is_walked_as_far_as_needed() {
    on_stage(async || {
        let here = |id, day, cloud| scene(id, 32631, CENTRE, day, cloud);
        let every = [
            here("s1", 200, 15.0),
            here("s2", 210, 5.0),
            here("w1", 30, 1.0),
            here("s3", 215, 25.0),
            here("w2", 40, 90.0),
        ];
        let only = |ids: &[&str]| every.iter().filter(|s| ids.contains(&&*s.id)).cloned().collect::<Vec<_>>();
        for (scenes, want, asked) in [
            (every.to_vec(), pairs(&[("s2", "summer"), ("s1", "summer")]), 1),
            (only(&["w1", "s3", "w2"]), pairs(&[("s3", "summer")]), 2),
            (only(&["w1", "w2"]), pairs(&[("w1", "winter")]), 3),
            (only(&["w2"]), pairs(&[("w2", "winter")]), 4),
        ] {
            let mut bed = Bed::new(ScriptedCatalog::new(scenes)).await;
            bed.find(vec![parcel(1, CENTRE, 100.0)]).await;
            assert_eq!(bed.candidates().await, [(1, want)]);
            let queries = bed.catalog.asked();
            assert_eq!(queries.len(), asked);
            let clouds: Vec<_> = queries.iter().map(|q| q.max_cloud).collect();
            assert_eq!(clouds, [Some(20.0), Some(30.0), Some(30.0), None][..asked]);
            let seasons: Vec<_> = queries.iter().map(|q| q.intervals.len()).collect();
            assert_eq!(seasons, [1, 1, 2, 2][..asked]);
            assert!(queries.iter().all(|q| q.bbox == CELL && q.collections == ["sentinel-2-l2a"]));
        }
    });
}

#[test]
fn each_parcel_has_its_own_candidates_in_the_zone_of_each_scene() {
    on_stage(async || {
        // Two tiles that overlap at the border; each holds the windows of one side.
        let west = scene("west", 32630, [-0.02, 41.62], 200, 3.0);
        let east = scene("east", 32631, [0.02, 41.62], 200, 8.0);
        let mut bed = Bed::new(ScriptedCatalog::new([west, east])).await;
        let at = |id, lon| parcel(id, [lon, 41.62], 100.0);
        bed.find(vec![at(1, -0.018), at(2, 0.0), at(3, 0.018), at(4, 0.3)]).await;
        let sent = bed.pixels.next().await.message;
        let of = |id| sent.chips.iter().find(|p| p.drawn.parcel == id);
        let ids = |id| tried(of(id).unwrap()).iter().map(|c| c.scene.id.clone()).collect::<Vec<_>>();
        let want = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!((ids(1), ids(2), ids(3)), (want(&["west"]), want(&["west", "east"]), want(&["east"])));
        let columns = tried(of(2).unwrap()).into_iter().map(|c| {
            let whole = c.scene.assets[&Band::B02].grid.unwrap();
            (c.grid.x0 - whole.x0) / 10.0
        });
        let columns: Vec<f64> = columns.collect();
        assert!(columns[0] > 300.0 && columns[1] < 100.0, "one parcel, two grids: {columns:?}");
        // The fourth lies in no scene, and the whole fallback was walked for its sake.
        assert!(of(4).is_none());
        assert_eq!(bed.catalog.asked().len(), 4);
    });
}

#[test]
fn without_any_scene_every_parcel_is_rejected() {
    on_stage(async || {
        let mut bed = Bed::new(ScriptedCatalog::default()).await;
        bed.find(vec![parcel(1, CENTRE, 100.0), parcel(2, [0.01, 41.62], 100.0)]).await;
        let concluded = bed.conclude.next().await;
        let done = &concluded.message.done;
        let why: Vec<_> = rejections(done).iter().map(|r| (r.parcel, r.reason.as_str())).collect();
        assert_eq!(why, [(1, "no_scene"), (2, "no_scene")]);
        assert_eq!(done.skipped, None);
        bed.pixels.nothing().await;
    });
}

#[test]
fn a_catalog_in_trouble_is_waited_for_or_fails_the_task_or_the_node() {
    on_stage(async || {
        let tired =
            || CatalogError::NotACatalog { root: "http://x".into(), cause: "a web page".into(), worked_before: true };
        let wrong =
            || CatalogError::NotACatalog { root: "http://x".into(), cause: "a web page".into(), worked_before: false };
        let broken = || CatalogError::NotAPage { endpoint: "http://x/search".into(), why: "no features".into() };
        let catalog = |errors: Vec<CatalogError>| {
            ScriptedCatalog::new([scene("s", 32631, CENTRE, 200, 3.0)]).failing_first(errors)
        };
        let mut bed = Bed::new(catalog(vec![tired(), tired()])).await;
        bed.find(vec![parcel(1, CENTRE, 100.0)]).await;
        assert_eq!(bed.candidates().await, [(1, pairs(&[("s", "summer")]))]);

        // The one that stays tired has answered nobody for longer than the node waits.
        let ever = (0..999).map(|_| tired()).collect();
        for (errors, fatal, calls) in
            [(ever, true, None), (vec![broken()], false, Some(1)), (vec![wrong()], true, Some(1))]
        {
            let mut bed = Bed::new(catalog(errors)).await;
            bed.find(vec![parcel(1, CENTRE, 100.0)]).await;
            match bed.stage.outcome().await {
                Outcome::Fatal(failure) if fatal => assert_eq!(failure.stage, "scenes"),
                Outcome::Failed(result) if !fatal => {
                    assert_eq!(result.status, Status::FailedDownload);
                    assert!(result.error.unwrap().starts_with("scenes: "));
                }
                other => panic!("{other:?}"),
            }
            assert!(calls.is_none_or(|calls| calls == bed.catalog.asked().len()));
            bed.pixels.nothing().await;
        }
    });
}

#[test]
fn a_cancelled_task_is_left_to_others() {
    on_stage(async || {
        let mut bed = Bed::new(ScriptedCatalog::default()).await;
        let job = bed.stage.job(task(1, CELL)).await;
        job.cancel.cancel();
        let parcels = vec![parcel(1, CENTRE, 100.0)];
        bed.lane.send(FindScenes { job, drawn: drawn(&parcels), parcels: Arc::new(parcels) }).await;
        assert_eq!(bed.stage.outcome().await, Outcome::Abandoned);
        assert_eq!(bed.lane.in_use(), 0);
    });
}

#[test]
fn a_series_has_a_chip_of_every_season_in_the_parcel_s_own_zone() {
    on_stage(async || {
        let scenes = [
            scene("w30", 32630, CENTRE, 30, 1.0),
            scene("w31", 32631, CENTRE, 31, 9.0),
            scene("s31", 32631, CENTRE, 200, 3.0),
            scene("s30", 32630, CENTRE, 201, 0.0),
        ];
        let mut bed = Bed::in_seasons(ScriptedCatalog::new(scenes), Seasons::every).await;
        bed.find(vec![parcel(1, [-0.001, 41.62], 100.0), parcel(2, [0.001, 41.62], 100.0)]).await;
        let want: Vec<_> = [(1, "s30", "summer"), (1, "w30", "winter"), (2, "s31", "summer"), (2, "w31", "winter")]
            .map(|(id, scene, season)| (id, pairs(&[(scene, season)])))
            .into();
        assert_eq!(bed.candidates().await, want);
    });
}

#[test]
fn the_season_of_its_class_is_where_a_chip_is_looked_for() {
    on_stage(async || {
        let scenes = [scene("w", 32631, CENTRE, 30, 1.0), scene("s", 32631, CENTRE, 200, 0.0)];
        let pick = |seasons: Seasons| seasons.by_class([(class(5), "winter")]).unwrap();
        let mut bed = Bed::in_seasons(ScriptedCatalog::new(scenes), pick).await;
        bed.find(vec![parcel(1, CENTRE, 100.0)]).await;
        assert_eq!(bed.candidates().await, [(1, pairs(&[("w", "winter")]))]);
    });
}
