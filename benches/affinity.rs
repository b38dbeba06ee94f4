//! How often a block is fetched over a whole run, by the number of workers: one line of JSON.
//!
//! ```text
//! affinity SCENE_DIR|seamless|tiles WORKERS,WORKERS... section.key=value...
//! ```
//!
//! Where blocks lie is read from a scene's headers, or made up over the fixture's wide region: `seamless` is one scene
//! of 655 km, which no satellite takes; `tiles` are Sentinel-2's, 109.8 km of every 100 km, each season's with a cloud
//! cover of its own, and a chip is cut from the least cloudy one that holds its window, as a worker would.
//!
//! Contract: the plan, the draw, the windows and the seasons are the real ones, and so is the cache (crate, options,
//! bound of `worker.cache_mb`); consumers are simulated. The partitions are dealt out in contiguous runs, and each
//! worker does its tasks in order, one partition at a time. Nothing is fetched or decoded. `limit` is what the same
//! workers would fetch with a cache without bound: blocks at the borders of their territories, once for each.
//! `clairvoyant` is what they would fetch with a cache of the same bound that knows the future and throws out what is
//! needed last (Belady, *IBM Systems Journal* 5, 1966): the least that any rule can come to in this order if blocks were
//! of one size, which those at a tile's edge are not.
//! Trap: every season has scenes of every tile; where the drawn season has none there is less to share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
use satellite_pipeline::domain::sampling::{hash01, is_drawn};
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::season::Seasons;
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

/// A block: scene, band and number.
type Key = (u32, usize, u32);

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

/// A tile: where it lies, and its bands.
struct Tile {
    number: u32,
    grid: PixelGrid,
    cogs: Vec<Cog>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [scene, workers, sets @ ..] = &args[..] else {
        eprintln!("affinity: nothing to do without a scene and WORKERS; scripts/bench gives them");
        return;
    };
    let config = Config::load(&[], [], sets).unwrap_or_else(|e| panic!("{e}"));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (tiles, work) = actix::System::with_tokio_rt(runtime).block_on(work(&config, scene));
    let distinct: HashSet<Key> = work.iter().flat_map(|w| &w.blocks).copied().collect();
    let ratio = |fetches: u64| fetches as f64 / distinct.len() as f64;
    let (mut fetched, mut limits, mut least) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for n in workers.split(',') {
        let count = n.parse().unwrap();
        fetched.insert(n, ratio(simulate(&config, &tiles, &work, count)));
        limits.insert(n, ratio(limit(&config, &work, count)));
        least.insert(n, ratio(clairvoyant(&config, &tiles, &work, count)));
    }
    let seasons = parts::seasons(&config).unwrap().all().len();
    println!(
        "{}",
        json!({
            "chips": 0, "tasks": work.len(), "blocks": distinct.len(), "fetches_per_block": fetched, "limit": limits,
            "clairvoyant": least, "seasons": if config.stac.season().is_some() { 1 } else { seasons },
            "cache_mb": config.worker.cache_mb,
        })
    );
}

/// Every task of the plan with the blocks its chips need.
async fn work(config: &Config, scene: &str) -> (Vec<Tile>, Vec<Work>) {
    let tiles = match scene {
        "seamless" => vec![made_up(0, 179_960.0, 4_600_020.0, 655_360.0)],
        // The squares of the 100 km grid under the fixture's region.
        "tiles" => (0..7 * 8)
            .map(|i| {
                let (x0, y0) = (f64::from(i % 7 + 1) * 1e5 - 40.0, f64::from(46 - i / 7) * 1e5 + 20.0);
                made_up(i as u32, x0, y0, 109_800.0)
            })
            .collect(),
        dir => {
            let mut cogs = Vec::new();
            for band in BANDS {
                let href = Path::new(dir).join(format!("{band}.tif")).display().to_string();
                cogs.push(Cog::open(&Head, &href).await.unwrap());
            }
            vec![Tile { number: 0, grid: cogs[0].grid.unwrap(), cogs }]
        }
    };
    let classes = parts::classes(config).unwrap();
    let source = parts::parcels(config, classes.clone()).unwrap();
    let plan =
        master::plan(config, source.clone(), &classes, master::Bars::Hidden, &CancellationToken::new()).await.unwrap();
    let to_scene = Transform::new(source.crs(), &Crs::epsg(32630).unwrap()).unwrap();
    let seasons = parts::seasons(config).unwrap();
    let blocks = |planned: &PlannedTask| Work {
        partition: planned.partition,
        blocks: task_blocks(config, &*source, &to_scene, &tiles, &seasons, planned),
    };
    let work = plan.tasks.iter().map(blocks).filter(|w| !w.blocks.is_empty()).collect();
    (tiles, work)
}

/// Bands of a square of `side` metres; their blocks have no bytes.
fn made_up(number: u32, x0: f64, y0: f64, side: f64) -> Tile {
    let band = |i: usize| {
        let res = if i < 4 { 10.0 } else { 20.0 };
        let pixels = (side / res) as u32;
        Cog {
            href: String::new(),
            width: pixels,
            height: pixels,
            sample: Sample::U16,
            codec: Codec::Deflate,
            differences: true,
            big_endian: false,
            block_width: 1024,
            block_height: 1024,
            strips: false,
            blocks: Vec::new(),
            grid: Some(PixelGrid { x0, y0, res, width: pixels, height: pixels }),
            epsg: Some(32630),
        }
    };
    let cogs: Vec<Cog> = (0..BANDS.len()).map(band).collect();
    Tile { number, grid: cogs[0].grid.unwrap(), cogs }
}

fn task_blocks(
    config: &Config,
    source: &dyn ParcelSource,
    to_scene: &Transform,
    tiles: &[Tile],
    seasons: &Seasons,
    planned: &PlannedTask,
) -> BTreeSet<Key> {
    let task = &planned.task;
    let season = seasons.draw_index(config.run.seed, task.task_id) as u32;
    let scene = |tile: &Tile| season * tiles.len() as u32 + tile.number;
    let mut blocks = BTreeSet::new();
    for parcel in source.cell(task.bbox, 0.0).unwrap() {
        let chance = parcel.class.and_then(|c| task.sampling_probs.get(&c));
        let holds = task.holds(parcel.lonlat[0], parcel.lonlat[1]);
        if !(holds && chance.is_some_and(|p| is_drawn(config.run.seed, parcel.id, *p))) {
            continue;
        }
        let [x, y] = to_scene.point(parcel.point).unwrap();
        let placed = tiles.iter().filter_map(|t| Some((t, Window::centred(&t.grid, x, y, config.chips.size)?)));
        let cloud = |tile: &Tile| hash01(7, i64::from(scene(tile)));
        let Some((tile, window)) = placed.min_by(|a, b| cloud(a.0).total_cmp(&cloud(b.0))) else { continue };
        for (band, cog) in tile.cogs.iter().enumerate() {
            let cut = Cut::new(&cog.grid.unwrap(), &window.grid(&tile.grid), Resampling::Nearest).unwrap();
            blocks.extend(cut.blocks(cog).map(|b| (scene(tile), band, b)));
        }
    }
    blocks
}

/// Tasks of each worker, in the order it does them.
fn shares<'a>(config: &Config, work: &'a [Work], workers: i32) -> Vec<Vec<&'a Work>> {
    let all = config.kafka.partitions;
    let of = |w: i32| work.iter().filter(move |t| (w * all / workers..(w + 1) * all / workers).contains(&t.partition));
    (0..workers).map(|w| of(w).collect()).collect()
}

/// Blocks fetched by all workers together.
fn simulate(config: &Config, tiles: &[Tile], work: &[Work], workers: i32) -> u64 {
    let mut fetches = 0;
    for share in shares(config, work, workers) {
        // As adapters::imagery builds it.
        let options = cache_options(config.worker.cache_bytes()).build().unwrap();
        let cache: Cache<Key, u64, Decoded> =
            Cache::with_options(options, Decoded, DefaultHashBuilder::default(), DefaultLifecycle::default());
        for key in share.iter().flat_map(|task| &task.blocks) {
            if cache.get(key).is_none() {
                fetches += 1;
                cache.insert(*key, bytes(tiles, key));
            }
        }
    }
    fetches
}

/// What a block takes in the cache.
fn bytes(tiles: &[Tile], key: &Key) -> u64 {
    tiles[key.0 as usize % tiles.len()].cogs[key.1].decoded_bytes(key.2) as u64
}

/// The same if each cache threw out what is needed last.
fn clairvoyant(config: &Config, tiles: &[Tile], work: &[Work], workers: i32) -> u64 {
    let mut fetches = 0;
    for share in shares(config, work, workers) {
        let uses: Vec<&Key> = share.iter().flat_map(|task| &task.blocks).collect();
        // When the block of each use is used again.
        let (mut next, mut later) = (vec![usize::MAX; uses.len()], HashMap::new());
        for (at, key) in uses.iter().enumerate().rev() {
            next[at] = later.insert(*key, at).unwrap_or(usize::MAX);
        }
        // Blocks in the cache by when they are used again: one at a time, but for those that never are.
        let (mut cached, mut room) = (BTreeMap::new(), config.worker.cache_bytes());
        for (at, key) in uses.iter().enumerate() {
            match cached.remove(&at) {
                Some(bytes) => room += bytes,
                None => fetches += 1,
            }
            if next[at] == usize::MAX {
                continue;
            }
            cached.insert(next[at], bytes(tiles, key));
            let mut left = room as i64 - bytes(tiles, key) as i64;
            while left < 0 {
                left += cached.pop_last().expect("the cache holds what fills it").1 as i64;
            }
            room = left as u64;
        }
    }
    fetches
}

/// The same if nothing ever had to leave a cache.
fn limit(config: &Config, work: &[Work], workers: i32) -> u64 {
    let distinct = |share: Vec<&Work>| share.iter().flat_map(|t| &t.blocks).collect::<HashSet<_>>().len() as u64;
    shares(config, work, workers).into_iter().map(distinct).sum()
}
