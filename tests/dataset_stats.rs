//! Statistics and splits of made-up chips: kept up to date equals made from scratch; parcels keep splits apart.
//!
//! Contract: chips are real GeoTIFFs of 16 x 16 pixels in a real store; expectations are worked out here from the pixels.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/chips.rs"]
mod chips;

use std::collections::BTreeMap;
use std::path::Path;

use satellite_pipeline::adapters::dataset::DatasetStore as _;
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::finished::manifests::Manifests;
use satellite_pipeline::adapters::finished::pixels::{Bands, Effort, update};
use satellite_pipeline::adapters::finished::publish::Publication;
use satellite_pipeline::adapters::finished::record::{Finished, Origin, RECORD};
use satellite_pipeline::adapters::finished::survey::Survey;
use satellite_pipeline::adapters::geotiff::{Compression, Place, encode_image, planes};
use satellite_pipeline::domain::band_stats::Histogram;
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::manifest::FileRecord;
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::split::{Split, SplitSettings};

const SIZE: u32 = 16;
const SETTINGS: SplitSettings =
    SplitSettings { seed: 1, block_km: 2.0, val_share: 0.25, test_share: 0.25, buffer_m: 200.0 };

/// Pixels of both bands of a chip; some are nodata.
fn pixels(task: u64, chip: u64) -> Vec<u16> {
    let n = u64::from(SIZE * SIZE * 2);
    (0..n).map(|i| ((i * 7919 + task * 104_729 + chip * 1_299_709) % 9973) as u16 / 2).collect()
}

/// Commits a task of `count` chips along a line of 25 km, each showing its own parcel and those of `shared`.
fn commit(root: &Path, task: u64, count: u64, shared: &BTreeMap<u64, i64>) {
    let store = DiskStore::new(root, false, false);
    let attempt = store.begin(&chips::key(task)).unwrap();
    let records = (0..count).map(|chip| {
        let name = chips::name("w", task, chip);
        let mut record = chips::record(&name, (task * 1000 + chip) as i64);
        let x0 = 600_000.0 + ((task * 37 + chip * 11) % 250) as f64 * 100.0;
        record.grid = PixelGrid { x0, y0: 4_500_000.0 + task as f64 * 250.0, res: 10.0, width: SIZE, height: SIZE };
        record.pixels = vec![(0, 200), (5, 56)];
        record.provenance.parcels = vec![record.parcel];
        record.provenance.parcels.extend(shared.get(&chip));
        let place = Place { grid: &record.grid, epsg: record.epsg };
        let mut image = Vec::new();
        encode_image(place, &["B02", "B03"], &[], planes(&pixels(task, chip)), Compression::Zstd(1), &mut image)
            .unwrap();
        store.stage(&attempt, &name, &image, b"mask").unwrap();
        (record.image, record.mask) =
            (FileRecord::of(Algorithm::Xxh128, &image), FileRecord::of(Algorithm::Xxh128, b"mask"));
        record
    });
    let manifest = chips::manifest(&attempt, "w", records.collect());
    store.commit(&attempt, &manifest).unwrap();
}

fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn survey(root: &Path) -> (Manifests, Survey) {
    let manifests = Manifests::list(root).unwrap();
    let store = DiskStore::new(root, false, false);
    let survey = Survey::make(&manifests, &store, SETTINGS, &pool()).unwrap();
    (manifests, survey)
}

/// Statistics as `node dataset stats` makes and keeps them.
fn stats(root: &Path) -> (Bands, Effort) {
    let (manifests, survey) = survey(root);
    let mut to = Publication::begin(root).unwrap();
    let made = update(&manifests, &survey, &pool(), &mut to).unwrap();
    to.publish(Origin { manifests: survey.fingerprint, settings: String::new() }).unwrap();
    made
}

/// The same by looking at every training chip's pixels.
fn expected(root: &Path) -> Vec<Histogram> {
    let (manifests, survey) = survey(root);
    let mut bands = vec![Histogram::default(), Histogram::default()];
    for at in 0..manifests.len() {
        let task = manifests.key(at).task;
        for (chip, _) in survey.splits_of(at).iter().enumerate().filter(|(_, s)| **s == Split::Train) {
            let pixels = pixels(task, chip as u64);
            let (first, second) = pixels.split_at(pixels.len() / 2);
            bands[0].add(first);
            bands[1].add(second);
        }
    }
    bands
}

fn histograms(bands: &Bands) -> Vec<Histogram> {
    bands.bands.iter().map(|(_, h)| h.clone()).collect()
}

#[test]
fn kept_statistics_equal_those_from_scratch_while_chips_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    commit(root, 1, 40, &BTreeMap::new());
    let (bands, effort) = stats(root);
    assert_eq!(bands.bands.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["B02", "B03"]);
    assert_eq!(histograms(&bands), expected(root));
    assert!(effort.added > 10 && effort.removed == 0, "{effort:?}");
    assert_eq!(stats(root).1, Effort::default(), "nothing has changed, nothing is read");

    // More chips: new training chips come, and some old ones are too near to new test chips.
    let mut removed = 0;
    for task in 2..12 {
        commit(root, task, 40, &BTreeMap::new());
        let (bands, effort) = stats(root);
        assert_eq!(histograms(&bands), expected(root), "after task {task}");
        assert!(effort.added <= 40, "{effort:?}");
        removed += effort.removed;
    }
    assert!(removed > 0, "no chip ever left the training split: the test shows too little");

    // A task that is made again with another attempt is another task: everything is read again.
    let manifest = root.join(".manifests/run1/task_3.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let attempt = serde_json::from_str::<serde_json::Value>(&text).unwrap()["attempt"].as_str().unwrap().to_owned();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, text.replace(&attempt, &"f".repeat(32))).unwrap();
    let (bands, effort) = stats(root);
    assert_eq!(histograms(&bands), expected(root));
    assert!(effort.added > 100, "{effort:?}");
}

#[test]
fn a_parcel_shows_in_one_split_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    commit(root, 1, 60, &BTreeMap::new());
    let (_, plain) = survey(root);
    let place = |of: Split| plain.splits.iter().position(|s| *s == of).unwrap() as u64;
    let (train, test) = (place(Split::Train), place(Split::Test));
    assert_eq!((plain.certificate.shared_parcels, plain.certificate.parcels_known), (0, "all"));

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    commit(root, 1, 60, &BTreeMap::from([(train, 77), (test, 77)]));
    let (_, shared) = survey(root);
    assert_eq!(shared.splits[train as usize], Split::Buffer);
    assert_eq!(shared.splits[test as usize], Split::Test);
    assert_eq!(shared.certificate.shared_parcels, 0);
    let others = |s: &Survey| {
        s.splits.iter().enumerate().filter(|(at, _)| *at != train as usize).map(|(_, s)| *s).collect::<Vec<_>>()
    };
    assert_eq!(others(&shared), others(&plain), "nobody else is moved");
}

#[test]
fn nearest_chips_of_two_splits_keep_the_buffer_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for task in 1..6 {
        commit(dir.path(), task, 50, &BTreeMap::new());
    }
    let (manifests, survey) = survey(dir.path());
    let proof = &survey.certificate;
    assert_eq!(proof.distances.len(), 3, "{proof:?}");
    assert_eq!(proof.pairs_sharing_pixels, 0);
    let all: Vec<_> = (0..manifests.len()).flat_map(|at| manifests.read(at).unwrap().chips).collect();
    let chip = |name: &str| all.iter().position(|c| c.name == name).unwrap();
    for nearest in &proof.distances {
        assert!(nearest.metres >= SETTINGS.buffer_m, "{nearest:?}");
        // One zone, so the plane of its grid says the same within its scale.
        let [a, b] = [0, 1].map(|i| chip(&nearest.chips[i]));
        assert_eq!([a, b].map(|at| survey.splits[at].as_str()), nearest.splits);
        let gap = |i: usize| {
            let side = f64::from(SIZE) * 10.0;
            let (p, q) = (all[a].grid, all[b].grid);
            let apart = if i == 0 { (p.x0 - q.x0).abs() } else { (p.y0 - q.y0).abs() };
            (apart - side).max(0.0)
        };
        let plane = gap(0).hypot(gap(1));
        assert!((plane / nearest.metres - 1.0).abs() < 0.001, "{plane} on the grid, {nearest:?}");
    }
}

#[test]
fn a_crash_between_two_renames_leaves_no_record_and_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let origin = Origin { manifests: "m".into(), settings: "s".into() };
    let publish = |text: &[u8]| {
        let mut to = Publication::begin(root).unwrap();
        to.put("a.txt", text).unwrap();
        to.put("b.txt", text).unwrap();
        to
    };
    publish(b"old").publish(origin.clone()).unwrap();
    assert_eq!(Finished::read(root).unwrap().unwrap().check(root, false).unwrap(), []);
    // A directory in the way of the second file: the first has its new name, the record is gone.
    std::fs::remove_file(root.join("b.txt")).unwrap();
    std::fs::create_dir_all(root.join("b.txt/x")).unwrap();
    assert!(publish(b"new").publish(origin.clone()).is_err());
    assert_eq!(std::fs::read(root.join("a.txt")).unwrap(), b"new");
    assert!(!root.join(RECORD).exists());
    std::fs::remove_dir_all(root.join("b.txt")).unwrap();
    publish(b"new").publish(origin).unwrap();
    assert_eq!(Finished::read(root).unwrap().unwrap().check(root, false).unwrap(), []);
    assert_eq!(std::fs::read(root.join("b.txt")).unwrap(), b"new");
}
