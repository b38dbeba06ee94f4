//! The floor under the worker: a bare loop over a finished dataset's chips.
//!
//! ```text
//! floor DATASET OUT SCENE_DIR zstd:1|deflate:N|none [THREADS]
//! ```
//!
//! Contract: reads each needed block once from the local file, decodes it once, cuts each chip once, encodes image
//! and mask once with the worker's own codecs, and writes both files once, to OUT, without syncing. The image files must
//! come out byte for byte as the dataset's, or it panics. Each of THREADS (1) takes its share of the blocks, and then of the
//! chips; more than one shows what the same work costs when every core is at it. One line of JSON: CPU seconds per step,
//! summed up over the threads (cutting, within encoding, by the clock), bytes and blocks. OUT must not exist. Trap: masks and tags are taken from the dataset, so
//! rasterising is not in the floor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod meter;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use gdal::Metadata as _;
use satellite_pipeline::adapters::geotiff::{Compression, EncodeError, MaskLook, Place, encode_image, encode_mask};
use satellite_pipeline::adapters::imagery::block::{self, Samples};
use satellite_pipeline::adapters::imagery::cut::{Cut, Resampling};
use satellite_pipeline::adapters::imagery::header::Cog;
use satellite_pipeline::adapters::imagery::source::RangeSource;
use satellite_pipeline::domain::failure::Failure;
use satellite_pipeline::domain::manifest::{ChipRecord, Manifest};
use serde_json::json;

const BANDS: [&str; 10] = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"];

/// Tags of an image, in the order of `domain::chip_tags`.
const TAGS: [&str; 16] = [
    "ITEM",
    "COLLECTION",
    "DATETIME",
    "PRODUCT_URI",
    "BASELINE",
    "OFFSET_RULE",
    "OFFSET",
    "SEASON",
    "WIDENED",
    "CLOUD_COVER",
    "BAD_FRACTION",
    "NODATA_FRACTION",
    "PARCEL",
    "CLASS",
    "RUN",
    "SEED",
];

/// Local files as a source of ranges.
struct Files;

#[async_trait]
impl RangeSource for Files {
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        Ok(pread(&File::open(href).unwrap(), &range).into())
    }

    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let file = File::open(href).unwrap();
        let end = range.end.min(file.metadata().unwrap().len());
        Ok(pread(&file, &(range.start..end)).into())
    }
}

fn pread(file: &File, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

/// A chip to be made, with all that is not part of the floor.
struct Job {
    record: ChipRecord,
    cuts: Vec<Cut>,
    tags: Vec<(&'static str, String)>,
    mask: Vec<u8>,
}

#[derive(Default, Clone, Copy)]
struct Steps {
    read: f64,
    decode: f64,
    cut: f64,
    encode: f64,
    write: f64,
}

impl Steps {
    fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.decode += other.decode;
        self.cut += other.cut;
        self.encode += other.encode;
        self.write += other.write;
    }

    fn total(&self) -> f64 {
        self.read + self.decode + self.cut + self.encode + self.write
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [dataset, out, scene, codec, threads @ ..] = &args[..] else {
        eprintln!("floor: nothing to do without DATASET OUT SCENE_DIR CODEC; scripts/bench gives them");
        return;
    };
    let threads = threads.first().map_or(1, |n| n.parse().unwrap());
    let (dataset, out, scene) = (Path::new(dataset), Path::new(out), Path::new(scene));
    let compression = parse(codec);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let href = |band: &str| scene.join(format!("{band}.tif")).display().to_string();
    let cogs: Vec<Cog> = BANDS.iter().map(|b| runtime.block_on(Cog::open(&Files, &href(b))).unwrap()).collect();
    let jobs = jobs(dataset, &cogs);
    let needed: Vec<BTreeSet<u32>> =
        (cogs.iter().enumerate()).map(|(b, cog)| jobs.iter().flat_map(|j| j.cuts[b].blocks(cog)).collect()).collect();
    std::fs::create_dir(out).unwrap();
    let s = make(&cogs, &needed, &jobs, compression, out, threads);
    check(dataset, out, &jobs);
    let ranges = || cogs.iter().zip(&needed).flat_map(|(c, n)| n.iter().map(|i| &c.blocks[*i as usize]));
    println!(
        "{}",
        json!({
            "chips": jobs.len(), "blocks": ranges().count(), "files": cogs.len(),
            "block_bytes": ranges().map(|r| r.end - r.start).sum::<u64>(),
            "block_reads_per_chip": jobs.iter().map(|j| j.cuts.iter().zip(&cogs).map(|(c, g)| c.blocks(g).count()).sum::<usize>()).sum::<usize>(),
            "cpu_s": s.total(), "read_s": s.read, "decode_s": s.decode, "cut_s": s.cut, "encode_s": s.encode,
            "write_s": s.write, "rss_mb": meter::peak_rss_mb(),
        })
    );
}

fn parse(codec: &str) -> Compression {
    match codec.split_once(':') {
        Some(("zstd", level)) => Compression::Zstd(level.parse().unwrap()),
        Some(("deflate", level)) => Compression::Deflate(level.parse().unwrap()),
        _ => Compression::None,
    }
}

/// The dataset's chips, in the order of tasks.
fn jobs(dataset: &Path, cogs: &[Cog]) -> Vec<Job> {
    let files = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut manifests: Vec<Manifest> = files(dataset.join(".manifests"))
        .flat_map(files)
        .map(|path| Manifest::parse(&std::fs::read(path).unwrap()).unwrap())
        .collect();
    manifests.sort_by_key(|m| m.key.task);
    let job = |record: ChipRecord| {
        let cut = |cog: &Cog| Cut::new(&cog.grid.unwrap(), &record.grid, Resampling::Nearest).unwrap();
        let mask = gdal::Dataset::open(dataset.join(format!("masks/{}.tif", record.name))).unwrap();
        let size = (record.grid.width as usize, record.grid.height as usize);
        let mask = mask.rasterband(1).unwrap().read_as::<u8>((0, 0), size, size, None).unwrap().data().to_vec();
        let image = gdal::Dataset::open(dataset.join(format!("images/{}.tif", record.name))).unwrap();
        let tags = TAGS.map(|name| (name, image.metadata_item(name, "").unwrap_or_default())).to_vec();
        Job { cuts: cogs.iter().map(cut).collect(), tags, mask, record }
    };
    manifests.into_iter().flat_map(|m| m.chips).map(job).collect()
}

/// One run over everything.
fn make(
    cogs: &[Cog],
    needed: &[BTreeSet<u32>],
    jobs: &[Job],
    compression: Compression,
    out: &Path,
    threads: usize,
) -> Steps {
    let blocks: Vec<(usize, u32)> =
        needed.iter().enumerate().flat_map(|(band, n)| n.iter().map(move |i| (band, *i))).collect();
    let mut held: Vec<HashMap<u32, Arc<Samples>>> = vec![HashMap::new(); cogs.len()];
    let mut steps = Steps::default();
    for (decoded, took) in share(threads, |thread| decode(cogs, blocks.iter().skip(thread).step_by(threads))) {
        steps.add(&took);
        decoded.into_iter().for_each(|(band, index, samples)| _ = held[band].insert(index, samples));
    }
    // Neighbouring chips share blocks: each thread takes a piece of the order.
    let piece = jobs.len().div_ceil(threads);
    let chips = |thread: usize| jobs.iter().skip(thread * piece).take(piece);
    share(threads, |thread| encode(cogs, &held, chips(thread), compression, out)).iter().for_each(|s| steps.add(s));
    steps
}

/// What `work` comes to on each of the threads.
fn share<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// CPU time of this thread since the lap before.
struct Laps(f64);

impl Laps {
    fn lap(&mut self, sum: &mut f64) {
        let now = meter::thread_cpu();
        *sum += now - std::mem::replace(&mut self.0, now);
    }
}

type Decoded = Vec<(usize, u32, Arc<Samples>)>;

fn decode<'a>(cogs: &[Cog], blocks: impl Iterator<Item = &'a (usize, u32)>) -> (Decoded, Steps) {
    let files: Vec<File> = cogs.iter().map(|cog| File::open(&cog.href).unwrap()).collect();
    let (mut steps, mut laps, mut done) = (Steps::default(), Laps(meter::thread_cpu()), Vec::new());
    for (band, index) in blocks {
        let raw = pread(&files[*band], &cogs[*band].blocks[*index as usize]);
        laps.lap(&mut steps.read);
        done.push((*band, *index, Arc::new(block::decode(&cogs[*band], *index, &raw).unwrap())));
        laps.lap(&mut steps.decode);
    }
    (done, steps)
}

fn encode<'a>(
    cogs: &[Cog],
    held: &[HashMap<u32, Arc<Samples>>],
    jobs: impl Iterator<Item = &'a Job>,
    compression: Compression,
    out: &Path,
) -> Steps {
    let (mut steps, mut laps) = (Steps::default(), Laps(meter::thread_cpu()));
    let (mut image, mut cutting) = (Vec::new(), 0.0);
    for Job { record, cuts, tags, mask } in jobs {
        let place = Place { grid: &record.grid, epsg: record.epsg };
        let metadata: Vec<(&str, &str)> = tags.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // A band is cut when it is its turn to be encoded, so its pixels are warm.
        let plane = |band: usize, plane: &mut [u16]| {
            let begun = Instant::now();
            cuts[band].copy(&cogs[band], &held[band], plane).unwrap();
            cutting += begun.elapsed().as_secs_f64();
            Ok::<_, EncodeError>(())
        };
        encode_image(place, &BANDS, &metadata, plane, compression, &mut image).unwrap();
        let plain = MaskLook { palette: [[0; 3]; 256], names: Vec::new(), nodata: 0 };
        let mask = encode_mask(place, &plain, &[], mask, compression).unwrap();
        laps.lap(&mut steps.encode);
        std::fs::write(out.join(format!("{}.image", record.name)), &image).unwrap();
        std::fs::write(out.join(format!("{}.mask", record.name)), mask).unwrap();
        laps.lap(&mut steps.write);
    }
    (steps.cut, steps.encode) = (cutting, steps.encode - cutting);
    steps
}

fn check(dataset: &Path, out: &Path, jobs: &[Job]) {
    for Job { record, .. } in jobs {
        let ours = std::fs::read(out.join(format!("{}.image", record.name))).unwrap();
        let theirs = std::fs::read(dataset.join(format!("images/{}.tif", record.name))).unwrap();
        assert!(ours == theirs, "{}: the floor's image is not the worker's", record.name);
    }
}
