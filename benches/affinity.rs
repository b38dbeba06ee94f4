//! How often a block is fetched over a whole run, by the number of workers: one line of JSON.
//!
//! ```text
//! affinity SCENE_DIR|wide WORKERS,WORKERS... section.key=value...
//! ```
//!
//! `wide` takes, instead of a scene's headers, bands of 655 km without seams under the fixture's wide region.
//!
//! Contract: the plan, the draw, the windows and the headers are the real ones, and so is the cache (crate, options,
//! bound of `worker.cache_mb`); consumers are simulated. The partitions are dealt out in contiguous runs, and each
//! worker does its tasks in order, one partition at a time. Nothing is fetched or decoded.
//! Trap: one scene serves every task, as in a season with one clear date; with a date per task there is less to share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use satellite_pipeline::adapters::crs::{Crs, Transform};
use satellite_pipeline::adapters::imagery::cache_options;
use satellite_pipeline::adapters::imagery::cut::{Cut, Resampling};
use satellite_pipeline::adapters::imagery::header::{Codec, Cog, Sample};
use satellite_pipeline::adapters::imagery::source::{MemorySource, RangeSource};
use satellite_pipeline::adapters::parcels::ParcelSource;
use satellite_pipeline::domain::failure::Failure;
use satellite_pipeline::domain::plan::PlannedTask;
use satellite_pipeline::domain::sampling::is_drawn;
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::window::Window;
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::{master, parts};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const BANDS: [&str; 10] = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"];

/// The beginning of a local file, for its header.
struct Head;

#[async_trait]
impl RangeSource for Head {
    async fn range(&self, href: &str, range: std::ops::Range<u64>) -> Result<Bytes, Failure> {
        self.range_upto(href, range).await
    }

    async fn range_upto(&self, href: &str, range: std::ops::Range<u64>) -> Result<Bytes, Failure> {
        MemorySource::default().with(href, std::fs::read(href).unwrap()).range_upto(href, range).await
    }
}

/// A block: band and number.
type Key = (usize, u32);

#[derive(Clone)]
struct Decoded;

impl Weighter<Key, u64> for Decoded {
    fn weight(&self, _: &Key, bytes: &u64) -> u64 {
        *bytes
    }
}

/// The blocks of one task, with the partition it is in.
struct Work {
    partition: i32,
    blocks: BTreeSet<Key>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [scene, workers, sets @ ..] = &args[..] else {
        eprintln!("affinity: nothing to do without SCENE_DIR and WORKERS; scripts/bench gives them");
        return;
    };
    let config = Config::load(&[], [], sets).unwrap_or_else(|e| panic!("{e}"));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (cogs, work) = actix::System::with_tokio_rt(runtime).block_on(work(&config, Path::new(scene)));
    let distinct: HashSet<Key> = work.iter().flat_map(|w| &w.blocks).copied().collect();
    let fetched = |workers: i32| {
        let fetches = simulate(&config, &cogs, &work, workers);
        (workers.to_string(), json!(fetches as f64 / distinct.len() as f64))
    };
    let per_distinct: serde_json::Map<String, _> = workers.split(',').map(|n| fetched(n.parse().unwrap())).collect();
    println!(
        "{}",
        json!({ "chips": 0, "tasks": work.len(), "blocks": distinct.len(), "fetches_per_block": per_distinct })
    );
}

/// Every task of the plan with the blocks its chips need.
async fn work(config: &Config, scene: &Path) -> (Vec<Cog>, Vec<Work>) {
    let mut cogs = Vec::new();
    for band in BANDS {
        if scene == Path::new("wide") {
            cogs.push(wide(if cogs.len() < 4 { 10.0 } else { 20.0 }));
            continue;
        }
        cogs.push(Cog::open(&Head, &scene.join(format!("{band}.tif")).display().to_string()).await.unwrap());
    }
    let classes = parts::classes(config).unwrap();
    let source = parts::parcels(config, classes.clone()).unwrap();
    let plan =
        master::plan(config, source.clone(), &classes, master::Bars::Hidden, &CancellationToken::new()).await.unwrap();
    let to_scene = Transform::new(source.crs(), &Crs::epsg(cogs[0].epsg.unwrap()).unwrap()).unwrap();
    let blocks = |planned: &PlannedTask| Work {
        partition: planned.partition,
        blocks: task_blocks(config, &*source, &to_scene, &cogs, planned),
    };
    let work = plan.tasks.iter().map(blocks).filter(|w| !w.blocks.is_empty()).collect();
    (cogs, work)
}

/// A band over the whole of the fixture's region; its blocks have no bytes.
fn wide(res: f64) -> Cog {
    let side = (655_360.0 / res) as u32;
    Cog {
        href: String::new(),
        width: side,
        height: side,
        sample: Sample::U16,
        codec: Codec::Deflate,
        differences: true,
        big_endian: false,
        block_width: 1024,
        block_height: 1024,
        strips: false,
        blocks: Vec::new(),
        grid: Some(PixelGrid { x0: 179_960.0, y0: 4_600_020.0, res, width: side, height: side }),
        epsg: Some(32630),
    }
}

fn task_blocks(
    config: &Config,
    source: &dyn ParcelSource,
    to_scene: &Transform,
    cogs: &[Cog],
    planned: &PlannedTask,
) -> BTreeSet<Key> {
    let task = &planned.task;
    let grid = cogs[0].grid.unwrap();
    let mut blocks = BTreeSet::new();
    for parcel in source.cell(task.bbox, 0.0).unwrap() {
        let chance = parcel.class.and_then(|c| task.sampling_probs.get(&c));
        let holds = task.holds(parcel.lonlat[0], parcel.lonlat[1]);
        if !(holds && chance.is_some_and(|p| is_drawn(config.run.seed, parcel.id, *p))) {
            continue;
        }
        let [x, y] = to_scene.point(parcel.point).unwrap();
        let Some(window) = Window::centred(&grid, x, y, config.chips.size) else { continue };
        for (band, cog) in cogs.iter().enumerate() {
            let cut = Cut::new(&cog.grid.unwrap(), &window.grid(&grid), Resampling::Nearest).unwrap();
            blocks.extend(cut.blocks(cog).into_iter().map(|b| (band, b)));
        }
    }
    blocks
}

/// Blocks fetched by all workers together.
fn simulate(config: &Config, cogs: &[Cog], work: &[Work], workers: i32) -> u64 {
    let mut partitions: BTreeMap<i32, Vec<&Work>> = BTreeMap::new();
    for task in work {
        partitions.entry(task.partition).or_default().push(task);
    }
    let share = |worker: i32| {
        let all = config.kafka.partitions;
        (worker * all / workers)..((worker + 1) * all / workers)
    };
    let mut fetches = 0;
    for worker in 0..workers {
        // As adapters::imagery builds it.
        let bytes = config.worker.cache_bytes();
        let options = cache_options(bytes).build().unwrap();
        let cache: Cache<Key, u64, Decoded> =
            Cache::with_options(options, Decoded, DefaultHashBuilder::default(), DefaultLifecycle::default());
        for task in share(worker).filter_map(|p| partitions.get(&p)).flatten() {
            for key in &task.blocks {
                if cache.get(key).is_none() {
                    fetches += 1;
                    cache.insert(*key, cogs[key.0].decoded_bytes(key.1) as u64);
                }
            }
        }
    }
    fetches
}
