//! What one piece of work costs at each stage of the worker, apart from the others.
//!
//! Contract: input is made here, noise that compresses like the 10 m bands of real scenes (about 1.5:1), from fixed
//! seeds; one thread. Units: time per piece, named in each benchmark. `cargo bench --bench stages [FILTER]`.
//! Trap: `block_undo_predictor` includes a copy of the block, because decoding never works in place.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use divan::{Bencher, black_box};
use gdal::DriverManager;
use gdal::raster::{Buffer, RasterCreationOptions};
use gdal::spatial_ref::SpatialRef;
use satellite_pipeline::adapters::dataset::DatasetStore as _;
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::geotiff::{Compression, MaskLook, Place, encode_image, encode_mask, planes};
use satellite_pipeline::adapters::imagery::block::{self, Samples};
use satellite_pipeline::adapters::imagery::cut::{Cut, Resampling};
use satellite_pipeline::adapters::imagery::header::{Codec, Cog};
use satellite_pipeline::adapters::imagery::source::MemorySource;
use satellite_pipeline::adapters::parcels::{GeoPackage, LayerChoice, OpenOptions, ParcelSource as _};
use satellite_pipeline::adapters::shapes;
use satellite_pipeline::demo::{Region, Size};
use satellite_pipeline::domain::checksum::Algorithm;
use satellite_pipeline::domain::class_table::ClassTable;
use satellite_pipeline::domain::label_index::{Label, LabelIndex, Placed};
use satellite_pipeline::domain::labels::Scratch;
use satellite_pipeline::domain::manifest::{FileRecord, Manifest, SCHEMA};
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::sampling::splitmix64;
use satellite_pipeline::domain::scene::PixelGrid;
use satellite_pipeline::domain::scl::BadClasses;
use satellite_pipeline::domain::task::{Task, TaskKey};
use satellite_pipeline::node::parts::CLASSES_CSV;

const BANDS: [&str; 10] = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"];
const SIDE: usize = 2048;
const X0: f64 = 399_960.0;
const Y0: f64 = 4_600_020.0;

fn main() {
    divan::main();
}

/// Land-like values: fields of one level each, with noise of some 62 DN.
fn land(side: usize, seed: u64) -> Vec<u16> {
    let normal = |n: u64| {
        let bits = splitmix64(n);
        let sum: u64 = (0..4).map(|k| (bits >> (16 * k)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 1.73
    };
    let pixel = |i: usize| {
        let field = splitmix64(seed ^ ((i / side / 20) << 20 | (i % side / 20)) as u64);
        (1_000.0 + (field % 2_000) as f64 + 62.0 * normal(seed.wrapping_mul(31).wrapping_add(i as u64))) as u16
    };
    (0..side * side).map(pixel).collect()
}

/// A COG as GDAL writes it, with its bytes.
struct Band {
    cog: Cog,
    bytes: Bytes,
}

fn header(bytes: &Bytes) -> Cog {
    let source = MemorySource::default().with("band", bytes.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Cog::open(&source, "band")).unwrap()
}

fn band(res: f64) -> Band {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("band.tif");
    let side = (SIDE as f64 * 10.0 / res) as usize;
    let memory = DriverManager::get_driver_by_name("MEM").unwrap();
    let mut raster = memory.create_with_band_type::<u16, _>("", side, side, 1).unwrap();
    raster.set_geo_transform(&[X0, res, 0.0, Y0, 0.0, -res]).unwrap();
    raster.set_spatial_ref(&SpatialRef::from_epsg(32630).unwrap()).unwrap();
    let mut pixels = Buffer::new((side, side), land(side, 7));
    raster.rasterband(1).unwrap().write((0, 0), (side, side), &mut pixels).unwrap();
    let options = ["BLOCKSIZE=1024", "COMPRESS=DEFLATE", "PREDICTOR=STANDARD"];
    let options = RasterCreationOptions::from_iter(options);
    raster.create_copy(&DriverManager::get_driver_by_name("COG").unwrap(), &path, &options).unwrap();
    let bytes = Bytes::from(std::fs::read(&path).unwrap());
    Band { cog: header(&bytes), bytes }
}

impl Band {
    fn raw(&self, index: u32) -> Bytes {
        let range = &self.cog.blocks[index as usize];
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn decoded(&self) -> HashMap<u32, Arc<Samples>> {
        let all = 0..self.cog.blocks.len() as u32;
        all.map(|i| (i, Arc::new(block::decode(&self.cog, i, &self.raw(i)).unwrap()))).collect()
    }
}

#[divan::bench]
fn header_parse(bencher: Bencher) {
    let bytes = band(10.0).bytes;
    let source = MemorySource::default().with("band", bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    bencher.bench_local(|| runtime.block_on(Cog::open(&source, "band")).unwrap());
}

/// A block of 1024 x 1024 as it comes: inflate and predictor.
#[divan::bench]
fn block_decode(bencher: Bencher) {
    let band = band(10.0);
    let raw = band.raw(0);
    bencher.bench_local(|| block::decode(&band.cog, 0, &raw).unwrap());
}

#[divan::bench]
fn block_inflate(bencher: Bencher) {
    let mut band = band(10.0);
    band.cog.differences = false;
    let raw = band.raw(0);
    bencher.bench_local(|| block::decode(&band.cog, 0, &raw).unwrap());
}

#[divan::bench]
fn block_undo_predictor(bencher: Bencher) {
    let mut band = band(10.0);
    band.cog.differences = false;
    let raw = match block::decode(&band.cog, 0, &band.raw(0)).unwrap() {
        Samples::U16(v) => bytemuck::cast_slice::<u16, u8>(&v).to_vec(),
        Samples::U8(v) => v,
    };
    (band.cog.differences, band.cog.codec) = (true, Codec::None);
    bencher.bench_local(|| block::decode(&band.cog, 0, &raw).unwrap());
}

/// A window of 256 x 256 over four blocks.
fn cut(bencher: Bencher, res: f64, how: Resampling) {
    let band = band(res);
    let blocks = band.decoded();
    let edge = 10_240.0 - 1_270.0;
    let chip = PixelGrid { x0: X0 + edge, y0: Y0 - edge, res: 10.0, width: 256, height: 256 };
    let cut = Cut::new(&band.cog.grid.unwrap(), &chip, how).unwrap();
    let mut out = vec![0; 256 * 256];
    bencher.bench_local(|| cut.copy(&band.cog, &blocks, black_box(&mut out)).unwrap());
}

#[divan::bench]
fn cut_10m(bencher: Bencher) {
    cut(bencher, 10.0, Resampling::Nearest);
}

#[divan::bench]
fn cut_20m_nearest(bencher: Bencher) {
    cut(bencher, 20.0, Resampling::Nearest);
}

#[divan::bench]
fn cut_20m_bilinear(bencher: Bencher) {
    cut(bencher, 20.0, Resampling::Bilinear);
}

/// 64 parcels of some 9 ha and 40 corners, all in the window; another number gives other ones.
fn labels(number: u64) -> LabelIndex {
    let ring = |at: u64| {
        let (x, y) = (X0 + 160.0 + (at % 8) as f64 * 320.0, Y0 - 160.0 - (at / 8) as f64 * 320.0);
        let corner = move |k: u64| {
            let angle = k as f64 / 40.0 * std::f64::consts::TAU;
            let reach = 150.0 + (splitmix64((number * 64 + at) * 64 + k) % 20) as f64;
            [x + reach * angle.cos(), y + reach * angle.sin()]
        };
        Polygon::from_ring((0..40).map(corner))
    };
    let label = |at: u64| Label {
        id: at as i64,
        class: (1 + (at % 8) as u8).try_into().unwrap(),
        shape: Arc::new(Placed::new(ring(at)).unwrap()),
    };
    LabelIndex::new((0..64).map(label).collect())
}

const CHIP: PixelGrid = PixelGrid { x0: X0, y0: Y0, res: 10.0, width: 256, height: 256 };

#[divan::bench]
fn rasterise_64_parcels(bencher: Bencher) {
    // Never the same twice in a row: a processor learns the branches of shapes that it has just seen.
    let chips: Vec<LabelIndex> = (0..100).map(labels).collect();
    let (mut chips, mut mask, mut scratch) = (chips.iter().cycle(), Vec::new(), Scratch::default());
    bencher.bench_local(|| chips.next().map(|labels| labels.burn(&CHIP, 0, &mut mask, &mut scratch)));
}

/// A parcel of 20 corners: plain to see, or with a hole, which GEOS is asked about.
#[divan::bench(args = ["plain", "with a hole"])]
fn parcel_is_valid(bencher: Bencher, kind: &str) {
    let ring = |reach: f64| {
        (0..20)
            .map(move |k| f64::from(k) / 20.0 * std::f64::consts::TAU)
            .map(move |a| [reach * a.cos(), reach * a.sin()])
    };
    let mut shape = Polygon::from_ring(ring(200.0));
    if kind != "plain" {
        shape.push_ring(ring(20.0), true);
    }
    bencher.bench_local(|| assert!(shapes::is_valid(&shape)));
}

/// Of an encoded image.
#[divan::bench(args = [Algorithm::Xxh128, Algorithm::Sha256])]
fn checksum(bencher: Bencher, algorithm: Algorithm) {
    let place = Place { grid: &CHIP, epsg: 32630 };
    let mut image = Vec::new();
    encode_image(place, &BANDS, &[], planes(&chip()), Compression::Zstd(1), &mut image).unwrap();
    bencher.bench_local(|| FileRecord::of(algorithm, &image));
}

/// Classes of a chip on a 20 m classification.
#[divan::bench]
fn look_at_classes(bencher: Bencher) {
    let bad = BadClasses::new([0, 1, 3, 8, 9, 10, 11]);
    let class = |i: usize| 4 + (splitmix64((i / 512 * 128 + i % 256 / 2) as u64 / 25) % 3) as u16;
    let classes: Vec<u16> = (0..256 * 256).map(class).collect();
    bencher.bench_local(|| bad.look(&classes, 256));
}

const CODECS: [(&str, Compression); 5] = [
    ("zstd 1", Compression::Zstd(1)),
    ("zstd 3", Compression::Zstd(3)),
    ("deflate 1", Compression::Deflate(1)),
    ("deflate 6", Compression::Deflate(6)),
    ("none", Compression::None),
];

/// Four bands of 10 m, then six of 20 m on their grid.
fn chip() -> Vec<u16> {
    let fine = (0..4).flat_map(|band| land(256, 100 + band));
    let coarse = (4..10).flat_map(|band| {
        let half = land(128, 100 + band);
        (0..256 * 256).map(move |i| half[i / 512 * 128 + i % 256 / 2])
    });
    fine.chain(coarse).collect()
}

/// A chip of ten bands.
#[divan::bench(args = CODECS.map(|c| c.0))]
fn encode_image_10_bands(bencher: Bencher, codec: &str) {
    let (pixels, codec) = (chip(), CODECS.iter().find(|c| c.0 == codec).unwrap().1);
    let place = Place { grid: &CHIP, epsg: 32630 };
    let mut out = Vec::new();
    bencher.bench_local(|| encode_image(place, &BANDS, &[], planes(&pixels), codec, &mut out).unwrap());
}

#[divan::bench]
fn encode_mask_zstd_1(bencher: Bencher) {
    let mut mask = Vec::new();
    labels(0).burn(&CHIP, 0, &mut mask, &mut Scratch::default());
    let place = Place { grid: &CHIP, epsg: 32630 };
    let plain = MaskLook { palette: [[9; 3]; 256], names: Vec::new(), nodata: 0 };
    bencher.bench_local(|| encode_mask(place, &plain, &[], &mask, Compression::Zstd(1)).unwrap());
}

/// The parcels of one cell of 0.05 degrees with their margin, in a layer of some 3,000.
#[divan::bench]
fn geopackage_cell(bencher: Bencher) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("parcels.gpkg");
    let region = Region::generate(Size::Small, 42);
    region.write_gpkg(&path).unwrap();
    let classes = Arc::new(ClassTable::parse(CLASSES_CSV, "built-in").unwrap());
    let column = |name: &str| Some(name.to_owned());
    let choice = LayerChoice { layer: None, code_column: column("EC_hcat_c"), name_column: column("EC_hcat_n") };
    let options = OpenOptions { choice, assume_immutable: true };
    let parcels = GeoPackage::open(&path, options, classes).unwrap();
    let [w, s, e, n] = region.bounds;
    let (lon, lat) = ((w + e) / 2.0, (s + n) / 2.0);
    let cell = [lon - 0.025, lat - 0.025, lon + 0.025, lat + 0.025];
    bencher.bench_local(|| parcels.cell(cell, 1_600.0).unwrap());
}

/// One task of eight chips: staged, synced, committed, published. The disk decides.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn stage_and_commit_8_chips(bencher: Bencher) {
    // Beside the target directory: /tmp may be memory.
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
    let store = DiskStore::new(dir.path(), false, false);
    store.check().unwrap();
    let place = Place { grid: &CHIP, epsg: 32630 };
    let mut image = Vec::new();
    encode_image(place, &BANDS, &[], planes(&chip()), Compression::Zstd(1), &mut image).unwrap();
    let mask = vec![0; 2_000];
    let mut task = 0;
    bencher.bench_local(|| {
        task += 1;
        let key = TaskKey { run: "bench".into(), task };
        let attempt = store.begin(&key).unwrap();
        let asked: Task =
            serde_json::from_value(serde_json::json!({"task_id": task, "bbox": [0.0, 0.0, 0.05, 0.05]})).unwrap();
        for chip in 0..8 {
            store.stage(&attempt, &format!("t{task}c{chip}"), &image, &mask).unwrap();
        }
        let result = TaskResult::empty(&asked, "bench", Status::Success);
        let manifest =
            Manifest { schema: SCHEMA, key, attempt: attempt.id.clone(), result, chips: vec![], rejected: vec![] };
        store.commit(&attempt, &manifest).unwrap()
    });
}
