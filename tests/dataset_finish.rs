//! `node dataset` on a whole run of the tiny region: index, split, states, statistics, STAC, shards; made twice, damaged,
//! refused, and made of too little.
//!
//! Contract: the numbers are held against the manifests and the files here; against other implementations (geopandas,
//! numpy, pystac) in `tests/oracle/check_dataset.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, UInt8Type};
use node::{World, files_below};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use satellite_pipeline::domain::manifest::Manifest;
use sha2::{Digest as _, Sha256};

/// Small chips and small blocks, so that the tiny region has all three splits.
fn world() -> World {
    let mut world = World::new();
    world.set("chips.size", "32").set("split.block_km", "0.8").set("split.buffer_m", "50").set("split.seed", "3");
    world
}

fn dataset(world: &World, action: &str, more: &[&str], code: i32) -> node::Ended {
    let dir = world.output().display().to_string();
    world.run(&[&["dataset", action, &dir], more].concat(), code)
}

#[track_caller]
fn shows(ended: &node::Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.out.contains(text), "`{text}` was not printed:\n{}{}", ended.out, ended.err);
    }
}

/// Every file that is made from the chips, with its hash.
fn products(output: &Path) -> BTreeMap<PathBuf, String> {
    let top = fs::read_dir(output).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let all = top.chain(files_below(&output.join("stac")));
    all.map(|p| (p.clone(), format!("{:x?}", Sha256::digest(fs::read(&p).unwrap())))).collect()
}

fn manifests(output: &Path) -> Vec<Manifest> {
    let files = files_below(&output.join(".manifests"));
    let mut all: Vec<_> = files.iter().map(|p| Manifest::parse(&fs::read(p).unwrap()).unwrap()).collect();
    all.sort_by_key(|m| m.key.task);
    all
}

/// Columns of texts, by row.
fn texts(path: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        for row in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter()
                    .map(|c| batch.column_by_name(c).unwrap().as_string::<i32>().value(row).to_owned())
                    .collect(),
            );
        }
    }
    rows
}

fn list(output: &Path, split: &str) -> Vec<String> {
    fs::read_to_string(output.join(format!("{split}.txt"))).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_run_is_finished_again_and_again_with_the_same_bytes() {
    let world = world();
    world.run_all();
    let output = world.output();
    shows(
        &dataset(&world, "finish", &[], 0),
        &["all, and they add up to the plan", "pairs of chips that share pixels 0"],
    );
    let first = products(&output);

    let chips: Vec<String> = manifests(&output).iter().flat_map(|m| &m.chips).map(|c| c.name.clone()).collect();
    let rows = texts(&output.join("index.parquet"), &["name", "split"]);
    assert_eq!(rows.iter().map(|r| r[0].clone()).collect::<Vec<_>>(), chips, "one row per chip, in order");
    for split in ["train", "val", "test"] {
        let of: Vec<String> = rows.iter().filter(|r| r[1] == split).map(|r| r[0].clone()).collect();
        assert_eq!(list(&output, split), of, "{split}");
        assert!(!of.is_empty(), "{split} has no chip");
    }

    world.verify();
    let said = world.run(&["verify", &output.display().to_string()], 0).out;
    assert!(said.contains("10 files of the finished dataset, made from these tasks"), "{said}");

    shows(&dataset(&world, "finish", &[], 0), &["0 images read for it"]);
    assert_eq!(products(&output), first, "made twice, the same bytes");
    for name in first.keys().filter(|p| p.parent() == Some(&output) && !p.ends_with("dataset.json")) {
        fs::remove_file(name).unwrap();
    }
    fs::remove_dir_all(output.join("stac")).unwrap();
    dataset(&world, "finish", &[], 0);
    assert_eq!(products(&output), first, "made from nothing, the same bytes");
}

#[test]
fn every_parcel_has_one_state_and_the_manifests_agree() {
    let world = world();
    world.run_all();
    let output = world.output();
    dataset(&world, "split", &[], 0);
    let file = File::open(output.join("rejections.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let (mut seen, mut chips) = (BTreeSet::new(), BTreeMap::new());
    for batch in reader.map(Result::unwrap) {
        let ids = batch.column_by_name("parcel").unwrap().as_primitive::<Int64Type>().clone();
        let classes = batch.column_by_name("class").unwrap().as_primitive::<UInt8Type>().clone();
        let states = batch.column_by_name("state").unwrap().as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            assert!(seen.insert(ids.value(row)), "parcel {} twice", ids.value(row));
            if states.value(row) == "chip" {
                chips.insert(ids.value(row), classes.value(row));
            }
        }
    }
    let wanted: BTreeMap<i64, u8> =
        manifests(&output).iter().flat_map(|m| &m.chips).map(|c| (c.parcel, c.class.get())).collect();
    assert_eq!(chips, wanted);

    // A task that is taken away is not done; the sums still meet the plan.
    let gone = files_below(&output.join(".manifests")).remove(0);
    let lost = Manifest::parse(&fs::read(&gone).unwrap()).unwrap();
    fs::remove_file(&gone).unwrap();
    shows(&dataset(&world, "split", &[], 0), &["all, and they add up to the plan"]);
    let states = texts(&output.join("rejections.parquet"), &["state"]);
    let not_done = states.iter().filter(|r| r[0] == "not_done").count();
    assert_eq!(not_done, lost.chips.len() + lost.rejected.len());
    assert!(not_done > 0);

    // A record that names a parcel nobody drew is found out.
    let victim = files_below(&output.join(".manifests")).remove(0);
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&victim).unwrap()).unwrap();
    json["rejected"].as_array_mut().unwrap().push(serde_json::json!({ "parcel": 999_999, "class": 1, "reason": "x" }));
    node::replace(&victim, json.to_string().as_bytes());
    let ended = dataset(&world, "split", &[], 1);
    assert!(ended.err.contains("1 parcels of the manifests were not drawn by the plan"), "{}", ended.err);

    // Without the parcels, those that were drawn.
    let ended = dataset(&world, "split", &["--set", "parcels.path="], 0);
    shows(&ended, &["only those drawn"]);
}

#[test]
fn what_does_not_belong_together_is_refused_and_damage_is_found() {
    let world = world();
    world.run_all();
    let output = world.output();
    let empty = world.at("empty");
    fs::create_dir(&empty).unwrap();
    let ended = world.run(&["dataset", "finish", &empty.display().to_string()], 2);
    assert!(ended.err.contains("holds no finished task"), "{}", ended.err);
    let ended = dataset(&world, "stats", &[], 1);
    assert!(ended.err.contains("is not split yet"), "{}", ended.err);
    let ended = dataset(&world, "finish", &["--set", "run.seed=7"], 2);
    assert!(ended.err.contains("give the configuration it was made with"), "{}", ended.err);
    assert!(!output.join("index.parquet").exists(), "nothing is written before everything was looked at");

    dataset(&world, "split", &[], 0);
    dataset(&world, "stats", &[], 0);
    let stats = fs::read(output.join("stats.json")).unwrap();
    let ended = dataset(&world, "stats", &["--set", "split.seed=4"], 1);
    assert!(ended.err.contains("or with other settings"), "{}", ended.err);
    // Statistics of another split do not outlive it.
    dataset(&world, "split", &["--set", "split.seed=4"], 0);
    assert!(!output.join("stats.json").exists());
    dataset(&world, "finish", &[], 0);
    assert_eq!(fs::read(output.join("stats.json")).unwrap(), stats, "from the kept histograms, the same");

    let mut spoilt = stats.clone();
    spoilt[40] ^= 1;
    node::replace(&output.join("stats.json"), &spoilt);
    let dir = output.display().to_string();
    let ended = world.run(&["verify", &dir], 1);
    assert!(ended.out.contains("stats.json has another SHA-256"), "{}", ended.out);
    world.run(&["verify", &dir, "--quick"], 0);
    world.run(&["verify", &dir, "--repair"], 0);
    assert!(!output.join("stats.json").exists() && output.join(".quarantine/stats.json").exists());
    dataset(&world, "finish", &[], 0);
    assert_eq!(fs::read(output.join("stats.json")).unwrap(), stats);

    // An image that is gone is named; the old products stay whole.
    let name = list(&output, "train").remove(0);
    fs::remove_file(output.join(format!("images/{name}.tif"))).unwrap();
    fs::remove_file(output.join(".stats.state")).unwrap();
    let before = products(&output);
    let ended = dataset(&world, "finish", &[], 1);
    assert!(ended.err.contains(&name), "{}", ended.err);
    assert_eq!(products(&output), before);
    assert!(files_below(&output.join(".staging")).is_empty(), "a failure leaves nothing behind");
}

#[test]
fn shards_hold_every_chip_of_their_split_once() {
    let world = world();
    world.run_all();
    let (output, out) = (world.output(), world.at("shards"));
    dataset(&world, "split", &[], 0);
    let to = out.display().to_string();
    let hashes = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(dir).into_iter().map(|p| (p.clone(), Sha256::digest(fs::read(&p).unwrap()).to_vec())).collect()
    };
    dataset(&world, "export", &["--out", &to, "--shard-mb", "1"], 0);
    let first = hashes(&out);
    for split in ["train", "val", "test"] {
        let mut samples: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut order = Vec::new();
        for shard in files_below(&out).iter().filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(split)) {
            assert!(fs::metadata(shard).unwrap().len() <= 1_000_000, "{}", shard.display());
            let mut tar = tar::Archive::new(File::open(shard).unwrap());
            for entry in tar.entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let (key, kind) = path.split_once('.').unwrap();
                if kind != "json" {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                    let place = if kind == "image.tif" { "images" } else { "masks" };
                    assert_eq!(bytes, fs::read(output.join(format!("{place}/{key}.tif"))).unwrap());
                }
                if kind == "image.tif" {
                    order.push(key.to_owned());
                }
                assert!(samples.entry(key.to_owned()).or_default().insert(kind.to_owned()));
            }
        }
        let of = list(&output, split);
        assert!(samples.values().all(|kinds| kinds.len() == 3), "{samples:?}");
        assert_eq!(samples.keys().cloned().collect::<BTreeSet<_>>(), of.iter().cloned().collect());
        if split == "train" {
            assert_ne!(order, of, "shuffled");
        }
    }
    dataset(&world, "export", &["--out", &to, "--shard-mb", "1"], 0);
    assert_eq!(hashes(&out), first, "made twice, the same bytes");
    shows(&dataset(&world, "export", &["--out", &to], 0), &["in 1 shards"]);
    assert_eq!(files_below(&out).len(), 3, "shards of the larger export are gone");
}
