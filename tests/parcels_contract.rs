//! One contract for every parcel source: the list in memory and GeoPackages with and without an R-tree, in
//! several CRSs, give the same rows and the same cells.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod parcels_support;

use std::ops::ControlFlow;
use std::sync::Arc;

use parcels_support::*;
use satellite_pipeline::adapters::crs::{Crs, Transform};
use satellite_pipeline::adapters::parcels::{
    GeoPackage, MemoryParcels, MemoryRow, OpenOptions, ParcelError, ParcelSource, blob,
};
use satellite_pipeline::domain::class_table::Lookup;
use satellite_pipeline::domain::grid::Grid;
use satellite_pipeline::domain::parcel::Reject;
use satellite_pipeline::domain::plan::{PlanSettings, Sampling};
use satellite_pipeline::domain::planner::Planner;
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::sampling::hash01;
use satellite_pipeline::domain::season::{Season, Seasons};

const CRSS: [u32; 5] = [4326, 4258, 25830, 3035, 4081];

/// Irregular parcels around 3.1 W 40.1 N, and some rows that are none.
fn rows(crs: &Crs) -> Vec<MemoryRow> {
    let way = Transform::new(&Crs::lonlat(), crs).unwrap();
    let codes = ["3301010400", "3303050000", "3301280000", "3302000000", "77", ""];
    let mut rows: Vec<MemoryRow> = (0..600i64)
        .map(|i| {
            let random = |n: u64| hash01(n, i);
            let (lon, lat) = (-3.2 + 0.2 * random(1), 40.0 + 0.2 * random(2));
            let size = 0.0005 + 0.004 * random(3) * random(4);
            let corners = (0..7).map(|k| {
                let (sin, cos) = (std::f64::consts::TAU * f64::from(k) / 7.0).sin_cos();
                let r = size * (0.3 + 0.7 * random(10 + k as u64));
                [lon + r * cos, lat + r * sin]
            });
            let mut shape = Polygon::from_ring(corners);
            way.points(shape.points_mut()).unwrap();
            let code = codes[(i % 6) as usize];
            let name = (i % 4 == 0).then(|| "barley".to_owned());
            MemoryRow { id: i * 3 + 1, code: Some(code.to_owned()), name, shape: Some(shape) }
        })
        .collect();
    rows.push(MemoryRow { id: 5000, ..MemoryRow::default() });
    rows.push(MemoryRow { id: 5001, shape: Some(Polygon::default()), ..MemoryRow::default() });
    rows.push(MemoryRow {
        id: 5002,
        shape: Some(Polygon::from_ring([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])),
        ..MemoryRow::default()
    });
    rows
}

/// The twin first, then the files.
fn sources(code: u32, dir: &tempfile::TempDir) -> Vec<(String, Box<dyn ParcelSource>)> {
    let crs = Crs::epsg(code).unwrap();
    let rows = rows(&crs);
    let on_disk: Vec<Row> = rows
        .iter()
        .map(|r| Row {
            id: r.id,
            blob: r.shape.as_ref().map(|s| blob::encode(s, code as i32)),
            code: r.code.clone(),
            name: r.name.clone(),
        })
        .collect();
    let memory = MemoryParcels::new(crs, rows, classes()).unwrap();
    let mut sources: Vec<(String, Box<dyn ParcelSource>)> = vec![("memory".into(), Box::new(memory))];
    for rtree in [Rtree::Filled, Rtree::None, Rtree::Empty, Rtree::Stale] {
        let path = dir.path().join(format!("{code} 100% {rtree:?}?#.gpkg"));
        let layer = Layer { srs: code as i32, rtree, ..Layer::default() };
        add_layer(&create(&path), &layer, &on_disk);
        for assume_immutable in [false, true] {
            let options = OpenOptions { assume_immutable, ..options(None) };
            let source = GeoPackage::open(&path, options, classes()).unwrap();
            assert_eq!(source.has_rtree(), rtree == Rtree::Filled, "{rtree:?}");
            sources.push((format!("EPSG:{code} {rtree:?} immutable {assume_immutable}"), Box::new(source)));
        }
    }
    sources
}

#[test]
fn every_source_scans_the_same_rows_in_order_of_id() {
    let dir = tempfile::tempdir().unwrap();
    for code in CRSS {
        let mut sources = sources(code, &dir).into_iter();
        let expected = scan_all(&*sources.next().unwrap().1).unwrap();
        assert!(expected.windows(2).all(|w| w[0].id < w[1].id));
        let last: Vec<_> = expected.iter().rev().take(3).rev().map(|p| p.place).collect();
        assert_eq!(last, [Err(Reject::NullGeometry), Err(Reject::EmptyGeometry), Err(Reject::NoArea)]);
        assert_eq!(expected.iter().filter(|p| p.place.is_ok()).count(), 600);
        assert_eq!(expected[0].class, Lookup::Class(5.try_into().unwrap()));
        let labels: Vec<_> = expected.iter().filter_map(|p| p.label.as_deref()).collect();
        assert!(labels.contains(&"77") && labels.contains(&"(empty)"));
        for (name, source) in sources {
            assert_eq!(scan_all(&*source).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn every_source_finds_the_same_parcels_of_a_cell() {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid::new(0.05).unwrap();
    for code in CRSS {
        let sources = sources(code, &dir);
        for (lon, lat) in [(-3.12, 40.07), (-3.2, 40.0), (-3.01, 40.19), (10.0, 50.0)] {
            for margin in [0.0, 1300.0, 30_000.0] {
                let bbox = grid.bbox(grid.cell_of(lon, lat).unwrap());
                let expected = sources[0].1.cell(bbox, margin).unwrap();
                assert!(expected.windows(2).all(|w| w[0].id < w[1].id));
                for (name, source) in &sources[1..] {
                    assert_eq!(source.cell(bbox, margin).unwrap(), expected, "{name} {bbox:?} {margin}");
                }
            }
        }
    }
}

#[test]
fn a_cell_holds_everything_within_the_margin_and_the_scan_agrees_on_places() {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid::new(0.05).unwrap();
    for code in CRSS {
        for (name, source) in sources(code, &dir) {
            let scanned = scan_all(&*source).unwrap();
            let bbox = grid.bbox(grid.cell_of(-3.12, 40.07).unwrap());
            let [w, s, e, n] = bbox;
            let cell = source.cell(bbox, 1300.0).unwrap();
            // 1300 m are 0.0117 degrees of latitude and 0.0153 of longitude here.
            let near =
                |lon: f64, lat: f64| w - 0.0152 <= lon && lon <= e + 0.0152 && s - 0.0116 <= lat && lat <= n + 0.0116;
            for p in &scanned {
                let Ok([lon, lat]) = p.place else { continue };
                let found = cell.iter().find(|q| q.id == p.id);
                assert!(found.is_some() || !near(lon, lat), "{name}: parcel {} is missing", p.id);
                if let Some(found) = found {
                    assert_eq!(found.lonlat, [lon, lat], "{name}");
                    assert_eq!(found.class, p.class.class());
                    assert_eq!(Some(found.point), found.shape.representative_point());
                }
            }
        }
    }
}

#[test]
fn planner_and_cells_count_the_same_parcels() {
    let dir = tempfile::tempdir().unwrap();
    let source = sources(3035, &dir).remove(1).1;
    let settings = PlanSettings {
        seed: 7,
        step: 0.05,
        min_parcels: 3,
        order: satellite_pipeline::domain::plan::Order::Space,
        sampling: Sampling::Basic,
        classes: classes().classes().iter().map(|(id, info)| (*id, info.name.clone())).collect(),
        seasons: Seasons::new(vec![Season::new("year", "2023-01-01", "2023-12-31").unwrap()]).unwrap(),
        partitions: 3,
        run_id: None,
        context: source.fingerprint().to_owned(),
    };
    let mut planner = Planner::new(settings).unwrap();
    source.scan(&mut |p| planner.add(p), &mut |_| ControlFlow::Continue(())).unwrap();
    let plan = planner.finish().unwrap();
    assert!(plan.tasks.len() >= 16);
    for planned in &plan.tasks {
        let cell = source.cell(planned.task.bbox, 1300.0).unwrap();
        let inside = cell.iter().filter(|p| planned.task.holds(p.lonlat[0], p.lonlat[1]));
        assert_eq!(inside.count() as u64, planned.task.polygon_count);
    }
    let mut out = Vec::new();
    satellite_pipeline::node::plan::print_plan(&plan, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("olives") && text.contains("null_geometry") && text.contains("partitions 3"), "{text}");
    let json = satellite_pipeline::node::plan::as_json(&plan).unwrap();
    assert_eq!(json["classes"]["1"]["name"], "olives");
    assert_eq!(json["rejected"]["null_geometry"], 1);
}

#[test]
fn a_scan_can_be_broken_off_and_the_source_still_works() {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in sources(4326, &dir) {
        let stopped = source.scan(&mut |_| {}, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(ParcelError::Cancelled)), "{name}");
        let mut last = None;
        source
            .scan(&mut |_| {}, &mut |p| {
                last = Some(p);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(last.unwrap().rows, 603, "{name}");
        assert!(last.unwrap().total_estimate >= 603);
    }
}

/// A layer whose ids are where `ids` says, at `path`.
fn square_rows(path: &std::path::Path, ids: &[i64]) -> rusqlite::Connection {
    let shape = Polygon::from_ring([[-3.1, 40.1], [-3.09, 40.1], [-3.09, 40.11], [-3.1, 40.11]]);
    let rows: Vec<Row> = ids.iter().map(|id| row(*id, &shape, "3301010400")).collect();
    let db = create(path);
    add_layer(&db, &Layer { rtree: Rtree::None, ..Layer::default() }, &rows);
    db
}

#[test]
fn rows_come_in_order_of_id_wherever_the_ids_are() {
    let dir = tempfile::tempdir().unwrap();
    let dense = 1..5000i64;
    let kinds: [(&str, Vec<i64>); 5] = [
        ("none", Vec::new()),
        ("one", vec![-7]),
        ("dense", dense.clone().collect()),
        ("gap", dense.clone().chain((1..3000).map(|i| (1 << 40) + 7 * i)).collect()),
        ("ends", [i64::MIN].into_iter().chain(dense).chain([i64::MAX - 1, i64::MAX]).collect()),
    ];
    for (name, ids) in kinds {
        let path = dir.path().join(format!("{name}.gpkg"));
        drop(square_rows(&path, &ids));
        let source = GeoPackage::open(&path, options(Some("parcels")), classes()).unwrap();
        for _ in 0..2 {
            let scanned: Vec<i64> = scan_all(&source).unwrap().iter().map(|p| p.id).collect();
            assert!(scanned == ids, "{name}: {} rows of {}", scanned.len(), ids.len());
        }
    }
}

/// A geometry of more bytes than are read is one rejected row, and an endless text is one of no class.
#[test]
fn a_row_too_large_to_fetch_stops_no_scan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("parcels.gpkg");
    let ids: Vec<i64> = (1..=20_000).collect();
    let db = square_rows(&path, &ids);
    let endless = blob::MAX_BLOB_BYTES + 1;
    for (id, column, value) in [
        (1, "geom", format!("zeroblob({endless})")),
        (9000, "geom", format!("zeroblob({endless})")),
        (9001, "geom", format!("zeroblob({endless})")),
        (9002, "EC_hcat_c", format!("printf('%.{endless}c', 'x')")),
        (20_000, "geom", format!("zeroblob({endless})")),
    ] {
        db.execute(&format!("UPDATE parcels SET {column} = {value} WHERE fid = ?1"), [id]).unwrap();
    }
    let source = GeoPackage::open(&path, options(None), classes()).unwrap();
    for _ in 0..2 {
        let scanned = scan_all(&source).unwrap();
        assert!(scanned.iter().map(|p| p.id).eq(ids.iter().copied()));
        for row in scanned {
            let refused = [1, 9000, 9001, 20_000].contains(&row.id);
            assert_eq!(row.place.err(), refused.then_some(Reject::TooLarge), "row {}", row.id);
            assert_eq!(row.class == Lookup::Unknown, row.id == 9002, "row {}", row.id);
        }
    }
    assert_eq!(source.cell([-3.15, 40.05, -3.05, 40.15], 0.0).unwrap().len(), ids.len() - 4);
}

/// Two readers, one state: nobody can commit while they read, or they read what was there when they began.
#[test]
fn a_scan_sees_one_state_of_a_file_that_others_write() {
    let dir = tempfile::tempdir().unwrap();
    // More than the readers may have read before anybody is told of the first batch.
    let ids: Vec<i64> = (1..=120_000).collect();
    for mode in ["DELETE", "WAL"] {
        let path = dir.path().join(format!("{mode}.gpkg"));
        let writer = square_rows(&path, &ids);
        writer.pragma_update(None, "journal_mode", mode).unwrap();
        writer.pragma_update(None, "busy_timeout", 0).unwrap();
        let source = GeoPackage::open(&path, options(None), classes()).unwrap();
        let (mut written, mut excluded) = (None, 0);
        let rows = source
            .scan(&mut |p| excluded += u32::from(p.class != Lookup::Class(5.try_into().unwrap())), &mut |_| {
                written.get_or_insert_with(|| writer.execute("UPDATE parcels SET EC_hcat_c = '77'", []).is_ok());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((rows, excluded), (120_000, 0), "{mode}");
        assert_eq!(written, Some(mode == "WAL"), "{mode}");
        assert_eq!(writer.execute("UPDATE parcels SET EC_hcat_c = '77'", []).unwrap(), 120_000, "the locks are gone");
    }
}

#[test]
fn many_threads_share_one_source() {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid::new(0.05).unwrap();
    let bbox = grid.bbox(grid.cell_of(-3.12, 40.07).unwrap());
    for (name, source) in sources(25830, &dir) {
        let source: Arc<dyn ParcelSource> = Arc::from(source);
        let expected = source.cell(bbox, 1300.0).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let source = Arc::clone(&source);
                std::thread::spawn(move || source.cell(bbox, 1300.0).unwrap())
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn the_fingerprint_follows_the_content() {
    let crs = Crs::lonlat();
    let of = |rows: Vec<MemoryRow>| MemoryParcels::new(crs.clone(), rows, classes()).unwrap().fingerprint().to_owned();
    assert_eq!(of(rows(&crs)), of(rows(&crs)));
    assert_ne!(of(rows(&crs)), of(rows(&crs)[1..].to_vec()));
}
