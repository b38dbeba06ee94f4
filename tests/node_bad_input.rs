//! Bad parcels and bad STAC answers, seen from outside: the message and the exit code.
//!
//! Contract: parcels that cannot be used are refused with exit code 2, naming the file and the remedy, before anything is
//! published; rows that cannot be used are counted and left out. A STAC API that is none stops the node (1); one that is
//! tired is waited for; what it never gives fails the tasks, each with a result.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;
#[path = "parcels_support/mod.rs"]
mod parcels;

use std::path::Path;
use std::sync::OnceLock;

use node::{Pairs, World, assert_same, files_below, replace, scenes_to_spoil};
use parcels::{Layer, Row, add_layer, create, row, square};
use satellite_pipeline::demo::server::{Fault, FaultKind};
use serde_json::Value;

const ALL: [&str; 3] = ["--role", "all", "--exit-when-done"];

/// A file of one layer.
fn file_of(path: &Path, layer: &Layer<'_>, rows: &[Row]) {
    add_layer(&create(path), layer, rows);
}

/// Twelve wheat fields in two cells of the tiny region.
fn fields() -> Vec<Row> {
    let place = |i: i64| square(-0.018 + 0.002 * (i % 6) as f64, 41.611 + 0.004 * (i / 6) as f64, 0.0015);
    (0..12).map(|i| row(i + 1, &place(i), "3301010100")).collect()
}

#[test]
fn parcels_that_cannot_be_used_are_refused_with_the_remedy() {
    let mut world = World::new();
    let mut refused = |name: &str, make: &dyn Fn(&Path), words: &[&str]| {
        let path = world.at(name);
        make(&path);
        world.set("parcels.path", format!("{path:?}"));
        for args in [&["plan"][..], &ALL] {
            let ended = world.run(args, 2);
            ended.says(&["node: "]).says(&[name]).says(words);
        }
    };
    refused("missing.gpkg", &|_| {}, &["check that the file exists and that this machine has mounted its directory"]);
    let text = |p: &Path| std::fs::write(p, "these are no parcels, but some words about them").unwrap();
    refused("text.gpkg", &text, &["is not a GeoPackage", "convert it, for instance with `ogr2ogr out.gpkg"]);
    refused("empty.gpkg", &|p| std::fs::write(p, "").unwrap(), &["is not a GeoPackage"]);
    refused("directory.gpkg", &|p| std::fs::create_dir(p).unwrap(), &["parcels.path"]);
    refused("bare.gpkg", &|p| drop(create(p)), &["has no layer of polygons with features"]);
    let undefined = |srs: i32| move |p: &Path| file_of(p, &Layer { srs, ..Layer::default() }, &fields());
    refused("cartesian.gpkg", &undefined(-1), &["CRS"]);
    refused("geographic.gpkg", &undefined(0), &["CRS"]);
    let points = |p: &Path| file_of(p, &Layer { kind: "POINT", ..Layer::default() }, &fields());
    refused("points.gpkg", &points, &["has no layer of polygons with features; its layers are: "]);
    let two = |p: &Path| {
        let db = create(p);
        for table in ["north", "south"] {
            add_layer(&db, &Layer { table, ..Layer::default() }, &fields());
        }
    };
    refused("two.gpkg", &two, &["several layers of polygons", "north", "south", "set parcels.layer to one of them"]);
    let nameless = |p: &Path| file_of(p, &Layer { code: None, name: false, ..Layer::default() }, &fields());
    refused("nameless.gpkg", &nameless, &["has neither column", "set parcels.code_column or"]);
    assert_eq!(world.server.stats().total().requests, 0);
}

#[test]
fn parcels_of_no_class_are_refused_with_what_they_are() {
    let mut world = World::new();
    let mut refused = |name: &str, rows: Vec<Row>, words: &[&str]| {
        let path = world.at(name);
        file_of(&path, &Layer::default(), &rows);
        world.set("parcels.path", format!("{path:?}"));
        world.run(&ALL, 2).says(words);
    };
    let coded = |code: &str| fields().into_iter().map(|r| Row { code: Some(code.into()), ..r }).collect::<Vec<_>>();
    let remedy = "check parcels.code_column, parcels.name_column and parcels.classes";
    refused("unknown.gpkg", coded("9999999999"), &["none of 12 parcels has a class", "9999999999", remedy]);
    let blank = fields().into_iter().map(|r| Row { code: None, ..r }).collect();
    refused("blank.gpkg", blank, &["none of 12 parcels has a class", remedy]);
    let null = fields().into_iter().map(|r| Row { blob: None, ..r }).collect();
    refused("null.gpkg", null, &["none of the 12 rows of the layer is a usable parcel", "null_geometry"]);
    let junk = fields().into_iter().map(|r| Row { blob: Some(b"GP junk".to_vec()), ..r }).collect();
    refused("junk.gpkg", junk, &["none of the 12 rows of the layer is a usable parcel"]);
    let far = fields().into_iter().take(1).collect();
    refused("one.gpkg", far, &["no task: ", "check grid.min_parcels and grid.step"]);
}

#[test]
fn rows_that_cannot_be_used_are_counted_and_left_out() {
    let mut world = World::new();
    let path = world.at("mixed.gpkg");
    let mut rows = fields();
    let curved = {
        let wkt = "CURVEPOLYGON(CIRCULARSTRING(-0.0135 41.6125,-0.0125 41.6135,-0.0115 41.6125,-0.0125 41.6115,-0.0135 41.6125))";
        let wkb = gdal::vector::Geometry::from_wkt(wkt).unwrap().wkb().unwrap();
        [&b"GP\0\x01\xe6\x10\0\0"[..], &wkb].concat()
    };
    let bow_tie = satellite_pipeline::domain::polygon::Polygon::from_ring([
        [-0.0170, 41.6150],
        [-0.0150, 41.6170],
        [-0.0150, 41.6150],
        [-0.0170, 41.6170],
        [-0.0170, 41.6150],
    ]);
    let blob = |id, blob: Option<Vec<u8>>| Row { id, blob, code: Some("3301010100".into()), name: None };
    rows.extend([
        blob(101, None),
        blob(102, Some(b"GP".to_vec())),
        blob(103, Some(b"GP\0\x11\xe6\x10\0\0".to_vec())),
        blob(104, Some(curved)),
        row(105, &bow_tie, "3301010100"),
        row(106, &square(-0.0180, 41.6180, 0.0015), "no such code"),
    ]);
    file_of(&path, &Layer { kind: "GEOMETRY", ..Layer::default() }, &rows);
    world.set("parcels.path", format!("{path:?}"));
    world.set("sampling.mode", "\"basic\"");
    let plan: Value = serde_json::from_str(&world.run(&["plan", "--json"], 0).out).unwrap();
    assert_eq!((&plan["rows"], &plan["unknown"]), (&18.into(), &1.into()), "{plan}");
    let rejected: u64 = plan["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(plan["parcels"].as_u64().unwrap() + rejected, 18, "{plan}");
    assert!(plan["rejected"]["null_geometry"] == 1 && rejected >= 3, "{plan}");
    assert!(plan["unknown_codes"].to_string().contains("no such code"), "{plan}");
    world.run_all();
    world.verify();
    let chips = files_below(&world.output().join("images")).len() as u64;
    assert_eq!(chips, plan["expected"].as_u64().unwrap(), "every usable field has its chip, the round one too");
}

fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.dataset()
    })
}

fn fault(path: &str, kind: FaultKind, times: u32) -> Fault {
    Fault { path: path.into(), kind, times }
}

#[test]
fn an_address_without_a_stac_api_stops_the_node() {
    for kind in [FaultKind::Html, FaultKind::Status(404, None), FaultKind::Status(401, None)] {
        let world = World::new();
        world.server.fault(fault("/search", kind, 0));
        let ended = world.run(&ALL, 1);
        ended.says(&["node: scenes: ", "stac.url", &world.server.url()]);
        assert!(world.manifests() <= 2, "{kind:?}: only the cells where nothing was drawn are done");
        world.server.reset();
        world.run_all();
        assert_same(&world.dataset(), undisturbed());
    }
}

#[test]
fn a_tired_stac_api_is_waited_for() {
    for kind in [FaultKind::Status(429, Some(1)), FaultKind::Status(503, None), FaultKind::Reset, FaultKind::Truncate] {
        let world = World::new();
        world.server.fault(fault("/search", kind, 1));
        world.run_all().says(&["trying again"]);
        assert_same(&world.dataset(), undisturbed());
    }
}

#[test]
fn a_stac_api_that_stays_away_stops_the_node() {
    let mut world = World::new();
    world.set("worker.max_outage_s", "1");
    world.server.fault(fault("/search", FaultKind::Status(503, None), 0));
    let ended = world.run(&ALL, 1);
    ended.says(&["node: scenes: the STAC API has not answered for ", "503"]);
    assert!(world.manifests() <= 2, "only the cells where nothing was drawn are done");
    world.verify();
    world.server.reset();
    world.run_all();
    assert_same(&world.dataset(), undisturbed());
}

#[test]
fn items_without_an_asset_are_left_out() {
    let spoiled = tempfile::tempdir().unwrap();
    scenes_to_spoil(spoiled.path());
    let items: Vec<_> = files_below(spoiled.path()).into_iter().filter(|p| p.extension().unwrap() == "json").collect();
    assert_eq!(items.len(), 8);
    for path in &items[..2] {
        let mut item: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        item["assets"].as_object_mut().unwrap().remove("blue").unwrap();
        replace(path, item.to_string().as_bytes());
    }
    let mut world = World::serving(spoiled.path());
    world.set("stac.seasons", "{ year = [\"2023-01-01\", \"2023-12-31\"] }");
    world.run_all();
    world.verify();
    assert_eq!(world.dataset().len(), undisturbed().len(), "other dates give the same parcels their chips");
}
