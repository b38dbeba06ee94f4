//! Bytes from outside, bent and broken: nothing panics, nothing allocates beyond its cap.
//!
//! Each target starts from valid inputs and mutates them (bit flips, extreme integers, cuts, repeats,
//! splices of two seeds) with a fixed generator, so a failure is reproduced by its printed execution
//! number. `FUZZ_SECONDS` (default 2) is the time per target; the figures printed with `--nocapture` are
//! executions, time, and the largest allocation of one execution beyond the input itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use satellite_pipeline::adapters::catalog::ItemReader;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::source::MemorySource;
use satellite_pipeline::adapters::parcels::blob;
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::manifest::Manifest;
use satellite_pipeline::domain::plan_record::PlanRecord;
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::result::TaskResult;
use satellite_pipeline::domain::task::Task;

/// Counts what this thread holds, and its peak.
struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // Err: the thread is ending; nobody measures then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.roll() % n as u64) as usize }
    }
}

/// A mutant of one of the seeds.
fn mutate(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len());
        match dice.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = dice.roll() as u8,
            2 => {
                let extreme = [0u64, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 40];
                let value = extreme[dice.below(extreme.len())].to_le_bytes();
                let width = [1, 2, 4, 8][dice.below(4)];
                for (byte, v) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                    *byte = *v;
                }
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + dice.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + dice.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let times = 1 + dice.below(4);
                for _ in 0..times {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            6 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            7 => {
                let words: [&[u8]; 8] =
                    [b"null", b"-1", b"1e999", b"\"\"", b"[[[[", b"18446744073709551616", b"{}", b"\xff\xfe"];
                let word = words[dice.below(words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => bytes.insert(at.min(bytes.len()), dice.roll() as u8),
        }
    }
    bytes
}

/// Runs `target` on mutants for the configured time.
fn fuzz(name: &str, seeds: &[Vec<u8>], cap: i64, mut target: impl FnMut(&[u8])) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    for seed in seeds {
        target(seed);
    }
    let (mut runs, mut worst) = (0u64, 0);
    while Instant::now() < end {
        let mut dice = Dice(runs.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let input = mutate(&mut dice, seeds);
        let before = HELD.get();
        PEAK.set(before);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
        let grown = PEAK.get() - before;
        assert!(outcome.is_ok(), "{name}: execution {runs} panicked on {} bytes", input.len());
        assert!(grown <= cap, "{name}: execution {runs} allocated {grown} bytes for an input of {}", input.len());
        worst = worst.max(grown);
        runs += 1;
    }
    println!("{name}: {runs} executions in {seconds} s, at most {worst} bytes allocated (cap {cap})");
    assert!(runs > 50, "{name}: only {runs} executions in {seconds} s");
}

fn task() -> Vec<u8> {
    br#"{"task_id":17,"bbox":[-3.75,40.1,-3.7,40.15],"grid_step":0.05,"polygon_count":512,
        "class_distribution":{"1":12,"5":300},"sampling_probs":{"1":0.2,"5":0.15},"target_samples":{"1":15000,"5":9000},
        "schema":1,"run_id":"r1","seed":42}"#
        .to_vec()
}

#[test]
fn tasks() {
    let plain = br#"{"task_id":1,"bbox":[0,0,0.05,0.05],"sampling_probs":null,"target_samples":null}"#.to_vec();
    fuzz("task", &[task(), plain], 1 << 20, |bytes| {
        if let Ok(task) = Task::parse(bytes) {
            let key = task.key();
            assert!(!key.run.contains('/') && !key.run.starts_with('.'), "{key}");
        }
    });
}

#[test]
fn results_and_plans_and_manifests() {
    let result = br#"{"task_id":17,"worker_id":"w","bbox":[0,0,1,1],"chips_saved":3,"chips_per_class":{"3":3},"status":"success",
        "target_samples":{"3":9},"sampling_probs":{"3":1},"chips_rejected":{"nodata":1},"run_id":"r"}"#;
    let plan = br##"{"schema":1,"run_id":"r","state":"published","tasks":3,"parcels":99,"classes":{"1":{"name":"olives","colour":"#808000",
        "parcels":9,"expected":3,"target":1}},"seed":1,"created_ms":5}"##;
    let manifest = format!(
        r#"{{"schema":1,"key":{{"run":"r","task":17}},"attempt":"ab","result":{},"chips":[{{"name":"n","class":3,"parcel":5,
        "item":"i","collection":"c","datetime":"d","cloud_cover":1,"season":"s","epsg":32630,"grid":{{"x0":1,"y0":2,"res":10,
        "width":256,"height":256}},"pixels":[[0,9]],"image":{{"bytes":1,"sha256":"a"}},"mask":{{"bytes":1,"sha256":"b"}}}}]}}"#,
        std::str::from_utf8(result).unwrap()
    );
    fuzz("result, plan, manifest", &[result.to_vec(), plan.to_vec(), manifest.into_bytes()], 1 << 20, |bytes| {
        let _ = serde_json::from_slice::<TaskResult>(bytes);
        let _ = PlanRecord::parse(bytes);
        if let Ok(manifest) = Manifest::parse(bytes) {
            assert!(manifest.chips.iter().all(|c| !c.name.contains('/') && !c.name.starts_with('.')));
        }
    });
}

#[test]
fn stac_items() {
    let page: serde_json::Value = serde_json::from_str(include_str!("fixtures/earth_search/page1.json")).unwrap();
    let seeds: Vec<Vec<u8>> =
        page["features"].as_array().unwrap().iter().map(|item| item.to_string().into_bytes()).collect();
    let reader = ItemReader {
        required: Band::ALL.to_vec(),
        relative_href_base: None,
        source: "https://example.com/search".parse().unwrap(),
    };
    fuzz("STAC item", &seeds, 4 << 20, |bytes| {
        if let Ok(value) = serde_json::from_slice(bytes)
            && let Ok(scene) = reader.read(value)
        {
            assert!(scene.assets.values().all(|a| a.href.contains(':')), "hrefs are absolute");
        }
    });
}

/// A TIFF of each codec, small enough to be mutated all over.
fn tiffs(dir: &Path) -> Vec<Vec<u8>> {
    use gdal::DriverManager;
    use gdal::cpl::CslStringList;
    use gdal::raster::Buffer;
    let mem = DriverManager::get_driver_by_name("MEM").unwrap();
    let mut source = mem.create_with_band_type::<u16, _>("", 48, 40, 1).unwrap();
    source.set_geo_transform(&[300_000.0, 10.0, 0.0, 4_500_000.0, 0.0, -10.0]).unwrap();
    let mut data = Buffer::new((48, 40), (0..48 * 40u16).map(|i| 1000 + i % 977).collect());
    source.rasterband(1).unwrap().write((0, 0), (48, 40), &mut data).unwrap();
    let gtiff = DriverManager::get_driver_by_name("GTiff").unwrap();
    source.rasterband(1).unwrap();
    let kinds = [
        "COMPRESS=DEFLATE PREDICTOR=2 TILED=YES BLOCKXSIZE=16 BLOCKYSIZE=16",
        "COMPRESS=ZSTD TILED=YES BLOCKXSIZE=32 BLOCKYSIZE=16 BIGTIFF=YES",
        "COMPRESS=LZW PREDICTOR=2 BLOCKYSIZE=7 ENDIANNESS=BIG",
        "COMPRESS=NONE TILED=YES BLOCKXSIZE=16 BLOCKYSIZE=16",
    ];
    kinds
        .iter()
        .map(|kind| {
            let options: CslStringList = kind.split_whitespace().collect::<Vec<_>>().join("\n").lines().collect();
            let path = dir.join("seed.tif");
            source.create_copy(&gtiff, &path, &options).unwrap().flush_cache().unwrap();
            std::fs::read(&path).unwrap()
        })
        .collect()
}

#[test]
fn cog_headers_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let seeds = tiffs(dir.path());
    let cpu = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // One decoded block may have 32 MiB (counted here when it is freed elsewhere), a directory's values 256 KiB.
    fuzz("COG header and blocks", &seeds, 96 << 20, |bytes| {
        let source = Arc::new(MemorySource::default().with("x", bytes.to_vec()));
        let imagery = Imagery::new(source, cpu.clone(), 1 << 20);
        runtime.block_on(async {
            if let Ok(cog) = imagery.open("x").await {
                let wanted: Vec<u32> = (0..cog.blocks.len().min(3) as u32).collect();
                for (index, block) in imagery.blocks(&cog, &wanted).await {
                    if let Ok(samples) = block {
                        assert_eq!(samples.bytes(), cog.decoded_bytes(index));
                    }
                }
            }
        });
    });
}

#[test]
fn geopackage_blobs() {
    let mut shape = Polygon::from_ring([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]]);
    shape.push_ring([[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]], true);
    let plain = blob::encode(&Polygon::from_ring([[1.0, 1.0], [5.0, 1.0], [3.0, 4.0]]), 4326);
    fuzz("GeoPackage geometry", &[blob::encode(&shape, 3035), plain], 4 << 20, |bytes| {
        let mut out = Polygon::default();
        if blob::parse(bytes, &mut out).is_ok()
            && let Some([x, y]) = out.representative_point()
            && out.points().iter().flatten().all(|v| v.abs() < 1e100)
        {
            let [x0, y0, x1, y1] = out.envelope().unwrap();
            let slack = 1e-9 * [x0, y0, x1, y1].iter().fold(1.0f64, |m, v| m.max(v.abs()));
            let inside = |v: f64, low: f64, high: f64| v >= low - slack && v <= high + slack;
            assert!(inside(x, x0, x1) && inside(y, y0, y1), "{x:e} {y:e} outside of its parcel {out:?}");
        }
        blob::header_envelope(bytes);
    });
}
