//! A worker whose output stalls: it holds what its lanes allow, stops fetching, and stays below the figure of
//! `config/default.toml`.
//!
//! Contract: the default configuration, one scene of 82 x 82 km with full-size blocks (more than the cache and the windows
//! together), a dataset that accepts some chips and then blocks. The worker runs in a child process (this test again, told
//! so by its environment), so that its memory is its own. Units: KiB of `/proc/PID/status`, MiB elsewhere.
//! Trap: memory of a dev build is that of a release; its speed is not, so nothing here depends on time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "parcels_support/mod.rs"]
mod parcels;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gdal::DriverManager;
use gdal::raster::{Buffer, RasterCreationOptions};
use gdal::spatial_ref::SpatialRef;
use parcels::{Layer, add_layer, create, row, square};
use satellite_pipeline::adapters::broker::{Broker, EmbeddedBroker};
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::dataset::{Attempt, Committed, DatasetStore, StoreError};
use satellite_pipeline::demo::server::DemoServer;
use satellite_pipeline::domain::manifest::Manifest;
use satellite_pipeline::domain::task::TaskKey;
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::{master, worker};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// As the program has it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Tells the child where everything is.
const CHILD: &str = "NODE_MEMORY_CHILD";
/// Chips that are written before the output stalls: enough to fill the cache.
const WRITTEN: usize = 250;
/// What the last section of `config/default.toml` comes to with two cores, MiB.
const FIGURE_MB: u64 = 1024;
/// Pixels along the scene's edge at 10 m.
const EDGE: usize = 8192;
/// Its upper left corner in EPSG:32631, metres.
const CORNER: [f64; 2] = [459_040.0, 5_023_900.0];

/// A dataset that blocks for good in tasks that begin after some chips were written. Those begun before may end, so that
/// others take their place: what is in flight at last are whole tasks, with more chips than may wait.
struct Stalling {
    disk: DiskStore,
    written: AtomicUsize,
    late: Mutex<HashSet<String>>,
    blocked: AtomicUsize,
    report: PathBuf,
}

impl DatasetStore for Stalling {
    fn check(&self) -> Result<(), StoreError> {
        self.disk.check()
    }
    fn bind(&self, run: &str) -> Result<(), StoreError> {
        self.disk.bind(run)
    }
    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        self.disk.finished(key)
    }
    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        let attempt = self.disk.begin(key)?;
        if self.written.load(SeqCst) >= WRITTEN {
            self.late.lock().unwrap().insert(attempt.id.clone());
        }
        Ok(attempt)
    }
    fn stage(&self, a: &Attempt, name: &str, i: &[u8], m: &[u8]) -> Result<(), StoreError> {
        if !self.late.lock().unwrap().contains(&a.id) {
            self.written.fetch_add(1, SeqCst);
            return self.disk.stage(a, name, i, m);
        }
        let now = self.blocked.fetch_add(1, SeqCst) + 1;
        fs::write(&self.report, now.to_string()).unwrap();
        loop {
            std::thread::park();
        }
    }
    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        self.disk.commit(attempt, manifest)
    }
    fn abandon(&self, attempt: &Attempt) {
        self.disk.abandon(attempt);
    }
    fn tidy(&self) {
        self.disk.tidy();
    }
    fn clear(&self, key: &TaskKey) {
        self.disk.clear(key);
    }
    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        self.disk.manifests(each)
    }
}

/// What the child does: master and worker on the embedded broker, until it is killed.
fn child(dir: &Path) {
    let settings = fs::read_to_string(dir.join("sets")).unwrap();
    let sets: Vec<String> = settings.lines().map(str::to_owned).collect();
    let config = Config::load(&[], std::iter::empty(), &sets).unwrap();
    let output = dir.join("output");
    fs::create_dir_all(&output).unwrap();
    let store = Arc::new(Stalling {
        disk: DiskStore::new(output, false, false),
        written: AtomicUsize::new(0),
        late: Mutex::default(),
        blocked: AtomicUsize::new(0),
        report: dir.join("blocked"),
    });
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    actix::System::with_tokio_rt(runtime).block_on(async {
        let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::default());
        let drain = CancellationToken::new();
        master::run(&config, broker.clone(), master::Bars::Hidden, &drain).await.unwrap();
        File::create(dir.join("base")).unwrap().write_all(status("self", "VmRSS").to_string().as_bytes()).unwrap();
        worker::run_with(&config, broker, store, &drain, false).await.unwrap();
    });
}

/// A line of `/proc/PID/status`, KiB.
fn status(pid: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap_or_else(|| panic!("{field} in {text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The scene: one real file of each resolution, and links to it for the other bands.
fn scene(root: &Path) {
    fs::create_dir_all(root).unwrap();
    let turn = File::create(root.join("lock")).unwrap();
    turn.lock().unwrap();
    if root.join("item.json").exists() {
        return;
    }
    let mut assets = serde_json::Map::new();
    for (edge, res, bands) in [
        (EDGE, 10.0, &[("blue", "B02"), ("green", "B03"), ("red", "B04"), ("nir", "B08")][..]),
        (
            EDGE / 2,
            20.0,
            &[
                ("rededge1", "B05"),
                ("rededge2", "B06"),
                ("rededge3", "B07"),
                ("nir08", "B8A"),
                ("swir16", "B11"),
                ("swir22", "B12"),
            ],
        ),
    ] {
        let transform = [res, 0.0, CORNER[0], 0.0, -res, CORNER[1]];
        let first = root.join(format!("{}.tif", bands[0].1));
        raster(&first, edge, res);
        for (key, band) in bands {
            let file = root.join(format!("{band}.tif"));
            if file != first {
                let _ = fs::remove_file(&file);
                fs::hard_link(&first, &file).unwrap();
            }
            let asset =
                json!({"href": format!("./{band}.tif"), "proj:shape": [edge, edge], "proj:transform": transform});
            assets.insert((*key).to_owned(), asset);
        }
    }
    let [west, south, east, north] = [2.4, 44.5, 3.6, 45.5];
    let ring = json!([[[west, south], [east, south], [east, north], [west, north], [west, south]]]);
    let item = json!({
        "type": "Feature", "stac_version": "1.0.0", "id": "S2A_31TDK_20230725_0_L2A", "collection": "sentinel-2-l2a",
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": ring}, "links": [],
        "properties": {
            "datetime": "2023-07-25T10:46:29Z", "eo:cloud_cover": 1.0, "proj:epsg": 32631,
            "s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": true,
        },
        "assets": assets,
    });
    fs::write(root.join("item.json"), item.to_string()).unwrap();
}

/// Terrain with some noise, in blocks of 1024, as real scenes have it.
fn raster(path: &Path, edge: usize, res: f64) {
    let mut noise = 1u32;
    let values = (0..edge * edge).map(|i| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (1000 + (i / edge % 512) + (i % edge % 256)) as u16 + (noise >> 26) as u16
    });
    let memory = DriverManager::get_driver_by_name("MEM").unwrap();
    let mut set = memory.create_with_band_type::<u16, _>("", edge, edge, 1).unwrap();
    set.set_geo_transform(&[CORNER[0], res, 0.0, CORNER[1], 0.0, -res]).unwrap();
    set.set_spatial_ref(&SpatialRef::from_epsg(32631).unwrap()).unwrap();
    set.rasterband(1).unwrap().write((0, 0), (edge, edge), &mut Buffer::new((edge, edge), values.collect())).unwrap();
    let options = ["TILED=YES", "BLOCKXSIZE=1024", "BLOCKYSIZE=1024", "COMPRESS=DEFLATE", "ZLEVEL=1", "PREDICTOR=2"];
    let gtiff = DriverManager::get_driver_by_name("GTiff").unwrap();
    set.create_copy(&gtiff, path, &RasterCreationOptions::from_iter(options)).unwrap().close().unwrap();
}

#[test]
fn a_stalled_output_stops_the_fetching_and_memory_stays_below_its_figure() {
    if let Ok(dir) = std::env::var(CHILD) {
        return child(Path::new(&dir));
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory-scene");
    scene(&root);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(DemoServer::start(&root, ([127, 0, 0, 1], 0).into())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let gpkg = dir.path().join("parcels.gpkg");
    let places = (0..600).map(|i| (2.55 + 0.03 * f64::from(i % 30), 44.72 + 0.025 * f64::from(i / 30)));
    let rows: Vec<_> = (1..).zip(places).map(|(id, (x, y))| row(id, &square(x, y, 0.01), "3301010100")).collect();
    add_layer(&create(&gpkg), &Layer::default(), &rows);
    let sets = [
        format!("parcels.path={:?}", gpkg.display().to_string()),
        format!("stac.url={:?}", server.url()),
        format!("output.dir={:?}", dir.path().join("output").display().to_string()),
        // Large cells, so that a task needs many blocks.
        "grid.step=0.2".into(),
        "sampling.mode=basic".into(),
        "worker.cores=2".into(),
        // The scene has no classification of its pixels.
        "chips.require_scl=false".into(),
    ];
    fs::write(dir.path().join("sets"), sets.join("\n")).unwrap();

    let log = File::create(dir.path().join("log")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_stalled_output_stops_the_fetching_and_memory_stays_below_its_figure"]);
    command.env(CHILD, dir.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut node = command.spawn().unwrap();
    let said = || fs::read_to_string(dir.path().join("log")).unwrap();
    let blocked =
        || fs::read_to_string(dir.path().join("blocked")).ok().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);

    let (since, mut quiet, mut fetched) = (Instant::now(), Instant::now(), server.stats().total().requests);
    while blocked() < 16 || quiet.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.stats().total().requests;
        if now != fetched {
            (quiet, fetched) = (Instant::now(), now);
        }
        assert!(node.try_wait().unwrap().is_none(), "the worker ended\n{}", said());
        assert!(since.elapsed() < Duration::from_secs(240), "{} chips wait\n{}", blocked(), said());
    }
    let pid = node.id().to_string();
    let (peak, stalled) = (status(&pid, "VmHWM") / 1024, status(&pid, "VmRSS") / 1024);
    let base: u64 = fs::read_to_string(dir.path().join("base")).unwrap().parse().unwrap();
    let bytes = server.stats().total().bytes >> 20;
    node.kill().unwrap();
    node.wait().unwrap();
    eprintln!("base {} MiB, peak {peak} MiB, stalled {stalled} MiB, fetched {bytes} MiB", base / 1024);
    assert_eq!(blocked(), 16, "no more chips wait than worker.chips_in_flight");
    assert!(peak < FIGURE_MB, "the peak of {peak} MiB is above the {FIGURE_MB} MiB of config/default.toml");
    let derived = include_str!("../config/default.toml").lines().find_map(|l| l.strip_prefix("#   sum")).unwrap();
    assert_eq!(derived.trim(), FIGURE_MB.to_string(), "the figure of config/default.toml");
    assert!(peak > 448, "a peak of {peak} MiB never filled the cache, so nothing was shown");
}
