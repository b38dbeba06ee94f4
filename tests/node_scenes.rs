//! Scenes that are damaged, of another kind, or served badly, seen from outside.
//!
//! Contract: what is wrong with a file costs the chips that need it (they go to the next candidate, or are rejected with the
//! reason), what is wrong with the connection costs time; every task has its result either way, and the dataset is whole.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use node::{Pairs, World, assert_same, files_below, replace, scenes_to_spoil};
use satellite_pipeline::demo::server::{Fault, FaultKind};
use serde_json::Value;

const ALL: [&str; 3] = ["--role", "all", "--exit-when-done"];

fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.dataset()
    })
}

/// All chips and rejections: chips by item, rejections by reason with one of the details.
fn account(world: &World) -> (BTreeMap<String, usize>, BTreeMap<String, (usize, String)>) {
    let (mut items, mut reasons) = (BTreeMap::new(), BTreeMap::<String, (usize, String)>::new());
    for path in files_below(&world.output().join(".manifests")) {
        let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for chip in manifest["chips"].as_array().unwrap() {
            *items.entry(chip["item"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for rejection in manifest["rejected"].as_array().unwrap() {
            let reason = reasons.entry(rejection["reason"].as_str().unwrap().to_owned()).or_default();
            reason.0 += 1;
            reason.1 = rejection["detail"].as_str().unwrap().to_owned();
        }
    }
    (items, reasons)
}

/// A world whose tasks may take any date of the year, best first, with some files spoilt.
fn spoilt(dir: &Path, spoil: impl Fn(&Path)) -> World {
    scenes_to_spoil(dir);
    let files: Vec<PathBuf> = files_below(dir);
    // The least cloudy date of both zones.
    let best = files.iter().filter(|p| p.to_string_lossy().contains("20230425") && p.ends_with("B04.tif"));
    let best: Vec<_> = best.collect();
    assert_eq!(best.len(), 2);
    best.into_iter().for_each(|path| spoil(path));
    let mut world = World::serving(dir);
    world.set("stac.seasons", "{ year = [\"2023-01-01\", \"2023-12-31\"] }");
    world
}

/// The file as GDAL writes it with other options or another type.
fn rewritten(path: &Path, dtype: &str, options: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (there, arguments) = (dir.path().join("x.tif"), format!("-q -ot {dtype} {options}"));
    let done = std::process::Command::new("gdal_translate")
        .args(arguments.split_whitespace())
        .args([path, &there])
        .status()
        .expect("this test needs gdal_translate (Debian: gdal-bin)");
    assert!(done.success());
    std::fs::read(there).unwrap()
}

#[test]
fn a_damaged_file_sends_its_chips_to_the_next_date() {
    type Spoil = fn(&Path);
    let spoilers: [(&str, Spoil); 5] = [
        ("truncated", |p| {
            let bytes = std::fs::read(p).unwrap();
            replace(p, &bytes[..bytes.len() / 3]);
        }),
        ("no TIFF", |p| replace(p, b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>")),
        ("empty", |p| replace(p, b"")),
        ("floats", |p| replace(p, &rewritten(p, "Float32", "-co TILED=YES"))),
        ("gone", |p| std::fs::remove_file(p).unwrap()),
    ];
    for (what, spoil) in spoilers {
        let dir = tempfile::tempdir().unwrap();
        let world = spoilt(dir.path(), spoil);
        world.run_all();
        world.verify();
        let (items, reasons) = account(&world);
        assert!(items.keys().all(|item| !item.contains("20230425")), "{what}: {items:?}");
        // The other dates are cloudier, and a few parcels lie under clouds in all of them.
        let (chips, clouded) = (items.values().sum::<usize>(), reasons.get("cloud").map_or(0, |(n, _)| *n));
        assert!(reasons.keys().all(|reason| reason == "cloud"), "{what}: {reasons:?}");
        assert!(chips + clouded >= undisturbed().len() / 2 && clouded * 10 < chips, "{what}: {items:?} {reasons:?}");
    }
}

#[test]
fn other_layouts_of_the_same_pixels_give_the_same_chips() {
    let reference = tempfile::tempdir().unwrap();
    let reference = spoilt(reference.path(), |_| ());
    reference.run_all();
    assert!(account(&reference).0.keys().any(|item| item.contains("20230425")));
    for options in [
        "-co COMPRESS=LZW -co TILED=YES -co BLOCKXSIZE=128 -co BLOCKYSIZE=128 -co PREDICTOR=2",
        "-co COMPRESS=ZSTD -co TILED=YES -co BIGTIFF=YES",
        "-co COMPRESS=NONE -co ENDIANNESS=BIG",
        "-co COMPRESS=DEFLATE -co BLOCKYSIZE=7",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let world = spoilt(dir.path(), |p| replace(p, &rewritten(p, "UInt16", options)));
        world.run_all();
        assert_same(&world.dataset(), &reference.dataset());
    }
}

#[test]
fn without_another_date_the_chips_are_rejected_and_the_tasks_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = spoilt(dir.path(), |p| {
        let bytes = std::fs::read(p).unwrap();
        replace(p, &bytes[..bytes.len() / 3]);
    });
    // That date alone, and in one of the zones only.
    let zone = files_below(dir.path()).into_iter().find(|p| p.ends_with("B04.tif") && is_best(p, "/31/")).unwrap();
    let whole = std::fs::read(node::region().scenes_root.join(zone.strip_prefix(dir.path()).unwrap())).unwrap();
    replace(&zone, &whole);
    world.set("stac.seasons", "{ april = [\"2023-04-01\", \"2023-04-30\"] }");
    let ended = world.start(&ALL).end();
    world.verify();
    let (items, reasons) = account(&world);
    assert!(items.keys().all(|item| item.contains("31T")) && !items.is_empty(), "{items:?}");
    let failed = ended.err.matches("failed_download").count();
    assert_eq!(ended.code, Some(i32::from(failed > 0)), "{}", ended.err);
    assert_eq!(world.manifests() + failed, 17, "every task is committed or failed");
    assert!(failed > 0 && ended.err.contains("unreadable") && ended.err.contains("B04.tif"), "{}", ended.err);
    assert!(reasons.keys().all(|reason| reason == "unreadable"), "{reasons:?}");
}

fn is_best(path: &Path, zone: &str) -> bool {
    let path = path.to_string_lossy();
    path.contains(zone) && path.contains("20230425")
}

#[test]
fn a_bad_connection_costs_time_and_no_chip() {
    let faults = [
        FaultKind::Status(503, None),
        FaultKind::Status(429, Some(1)),
        FaultKind::Reset,
        FaultKind::Truncate,
        FaultKind::Slow(300),
    ];
    for kind in faults {
        let world = World::new();
        world.server.fault(Fault { path: "*.tif".into(), kind, times: 3 });
        let ended = world.start(&ALL).end();
        assert_eq!(ended.code, Some(0), "{kind:?}: {}", ended.err);
        assert_same(&world.dataset(), undisturbed());
    }
}

#[test]
fn a_server_that_stays_ill_fails_its_tasks_and_the_next_run_makes_them() {
    let world = World::new();
    world.server.fault(Fault { path: "*B03.tif".into(), kind: FaultKind::Status(500, None), times: 0 });
    let ended = world.run(&ALL, 1);
    ended.says(&["15 of 17 tasks failed; see above", "trying again", "B03.tif"]);
    assert!(files_below(&world.output().join("images")).is_empty());
    world.verify();
    world.server.reset();
    world.run_all();
    assert_same(&world.dataset(), undisturbed());
}
