//! Every kind of TIFF a scene may come in, written by GDAL, read by our reader, compared with GDAL.
//!
//! GDAL writes the files and is the reference; the reader shares no code with it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;

use gdal::cpl::CslStringList;
use gdal::raster::Buffer;
use gdal::{Dataset, DriverManager};
use satellite_pipeline::adapters::imagery::cut::{Cut, Resampling};
use satellite_pipeline::adapters::imagery::source::MemorySource;
use satellite_pipeline::adapters::imagery::{Imagery, ImageryError};
use satellite_pipeline::domain::failure::Severity;
use satellite_pipeline::domain::scene::PixelGrid;

const WIDTH: usize = 700;
const HEIGHT: usize = 450;

/// Terrain-like values: smooth with noise, so that predictors and codecs have something to do.
fn pixel(i: usize) -> u16 {
    let (row, col) = (i / WIDTH, i % WIDTH);
    let noise = (i as u32).wrapping_mul(2_654_435_761) >> 28;
    (1000 + row * 3 + col * 2 + noise as usize) as u16
}

fn write(path: &Path, driver: &str, options: &str, dtype: &str) {
    let options: CslStringList = options.split_whitespace().collect::<Vec<_>>().join("\n").lines().collect();
    let mem = DriverManager::get_driver_by_name("MEM").unwrap();
    let set = |set: &mut Dataset| {
        set.set_geo_transform(&[300_000.0, 10.0, 0.0, 4_500_000.0, 0.0, -10.0]).unwrap();
        set.set_spatial_ref(&gdal::spatial_ref::SpatialRef::from_epsg(32630).unwrap()).unwrap();
    };
    let source = match dtype {
        "u8" => {
            let mut source = mem.create_with_band_type::<u8, _>("", WIDTH, HEIGHT, 1).unwrap();
            set(&mut source);
            let mut data = Buffer::new((WIDTH, HEIGHT), (0..WIDTH * HEIGHT).map(|i| pixel(i) as u8).collect());
            source.rasterband(1).unwrap().write((0, 0), (WIDTH, HEIGHT), &mut data).unwrap();
            source
        }
        "f32" => {
            let mut source = mem.create_with_band_type::<f32, _>("", WIDTH, HEIGHT, 1).unwrap();
            set(&mut source);
            source
        }
        "2 bands" => {
            let mut source = mem.create_with_band_type::<u16, _>("", WIDTH, HEIGHT, 2).unwrap();
            set(&mut source);
            source
        }
        _ => {
            let mut source = mem.create_with_band_type::<u16, _>("", WIDTH, HEIGHT, 1).unwrap();
            set(&mut source);
            let mut data = Buffer::new((WIDTH, HEIGHT), (0..WIDTH * HEIGHT).map(pixel).collect());
            source.rasterband(1).unwrap().write((0, 0), (WIDTH, HEIGHT), &mut data).unwrap();
            source
        }
    };
    let driver = DriverManager::get_driver_by_name(driver).unwrap();
    let mut copy = source.create_copy(&driver, path, &options).unwrap();
    copy.flush_cache().unwrap();
}

fn reader(bytes: Vec<u8>) -> Imagery {
    let cpu = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    Imagery::new(Arc::new(MemorySource::default().with("x.tif", bytes)), cpu, 64 << 20)
}

async fn read(imagery: &Imagery, chip: &PixelGrid, how: Resampling) -> Result<Vec<u16>, ImageryError> {
    let cog = imagery.open("x.tif").await?;
    assert_eq!(cog.epsg, Some(32630));
    let cut = Cut::new(&cog.grid.unwrap(), chip, how).unwrap();
    let mut blocks = std::collections::HashMap::new();
    for (index, block) in imagery.blocks(&cog, &cut.blocks(&cog).collect::<Vec<_>>()).await {
        blocks.insert(index, block?);
    }
    let mut out = vec![0; (chip.width * chip.height) as usize];
    cut.copy(&cog, &blocks, &mut out).unwrap();
    Ok(out)
}

fn chip(col: u32, row: u32, size: u32) -> PixelGrid {
    let (x0, y0) = (300_000.0 + f64::from(col) * 10.0, 4_500_000.0 - f64::from(row) * 10.0);
    PixelGrid { x0, y0, res: 10.0, width: size, height: size }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_layout_reads_as_gdal_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut kinds = 0;
    for codec in ["NONE", "DEFLATE", "LZW", "ZSTD"] {
        for predictor in [1, 2] {
            for layout in [
                "TILED=YES BLOCKXSIZE=256 BLOCKYSIZE=256",
                "TILED=YES BLOCKXSIZE=128 BLOCKYSIZE=512 BIGTIFF=YES",
                "BLOCKYSIZE=7",
                "BLOCKYSIZE=450 ENDIANNESS=BIG",
                "TILED=YES BLOCKXSIZE=256 BLOCKYSIZE=256 ENDIANNESS=BIG BIGTIFF=YES",
            ] {
                for dtype in ["u16", "u8"] {
                    if codec == "NONE" && predictor == 2 {
                        continue;
                    }
                    let path = dir.path().join("x.tif");
                    write(&path, "GTiff", &format!("COMPRESS={codec} PREDICTOR={predictor} {layout}"), dtype);
                    let reference = Dataset::open(&path).unwrap();
                    let imagery = reader(std::fs::read(&path).unwrap());
                    for (col, row, size) in [(0, 0, 256), (131, 77, 256), (444, 194, 256), (699, 449, 1)] {
                        let got = read(&imagery, &chip(col, row, size), Resampling::Nearest).await.unwrap();
                        let n = size as usize;
                        let band = reference.rasterband(1).unwrap();
                        let want = band.read_as::<u16>((col as isize, row as isize), (n, n), (n, n), None).unwrap();
                        assert_eq!(got, want.data(), "{codec} predictor {predictor} {layout} {dtype} at {col} {row}");
                    }
                    kinds += 1;
                }
            }
        }
    }
    assert_eq!(kinds, 7 * 5 * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cog_with_overviews_costs_one_header_read_and_only_its_needed_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    write(&path, "COG", "COMPRESS=DEFLATE PREDICTOR=YES BLOCKSIZE=128 OVERVIEWS=AUTO", "u16");
    let imagery = reader(std::fs::read(&path).unwrap());
    for _ in 0..3 {
        read(&imagery, &chip(100, 100, 64), Resampling::Nearest).await.unwrap();
    }
    let stats = imagery.stats();
    let load = |c: &std::sync::atomic::AtomicU64| c.load(std::sync::atomic::Ordering::Relaxed);
    // Columns and rows 100..164 in blocks of 128: two blocks across, two down.
    assert_eq!((load(&stats.headers), load(&stats.decoded), load(&stats.hits)), (1, 4, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_block_wanted_by_many_is_decoded_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    write(&path, "GTiff", "COMPRESS=DEFLATE TILED=YES BLOCKXSIZE=256 BLOCKYSIZE=256", "u16");
    let imagery = Arc::new(reader(std::fs::read(&path).unwrap()));
    let all: Vec<_> = (0..32)
        .map(|i| {
            let imagery = imagery.clone();
            tokio::spawn(async move { read(&imagery, &chip(i, i, 300), Resampling::Nearest).await.unwrap() })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    let decoded = imagery.stats().decoded.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(decoded, 4, "columns and rows 0..331 lie in four blocks of 256");
}

#[tokio::test]
async fn other_kinds_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    for (options, dtype, word) in [
        ("COMPRESS=DEFLATE", "f32", "32 bits"),
        ("COMPRESS=DEFLATE INTERLEAVE=PIXEL", "2 bands", "samples per pixel"),
        ("COMPRESS=LERC", "u16", "compression"),
        ("COMPRESS=LZMA", "u16", "compression"),
    ] {
        write(&path, "GTiff", options, dtype);
        let error = reader(std::fs::read(&path).unwrap()).open("x.tif").await.unwrap_err();
        assert_eq!(error.severity(), Severity::Permanent, "{error}");
        assert!(error.to_string().contains(word), "{error} should name {word}");
        assert!(error.to_string().contains("x.tif"), "{error} should name the file");
    }
    for bytes in [&b""[..], b"II", b"<!DOCTYPE html><html>", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\0"] {
        let error = reader(bytes.to_vec()).open("x.tif").await.unwrap_err();
        assert_eq!(error.severity(), Severity::Permanent, "{error}");
    }
}

#[tokio::test]
async fn damage_ends_as_an_error_of_that_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    for codec in ["DEFLATE", "LZW", "ZSTD"] {
        write(&path, "GTiff", &format!("COMPRESS={codec} TILED=YES BLOCKXSIZE=256 BLOCKYSIZE=256"), "u16");
        let whole = std::fs::read(&path).unwrap();
        let range = reader(whole.clone()).open("x.tif").await.unwrap().blocks[0].clone();
        let mut damaged = whole.clone();
        let middle = (range.start + range.end) as usize / 2;
        damaged[middle..range.end as usize].fill(0);
        let imagery = reader(damaged);
        let error = read(&imagery, &chip(0, 0, 64), Resampling::Nearest).await.unwrap_err();
        assert!(matches!(error, ImageryError::Block { index: 0, .. }), "{codec}: {error}");
        let good = read(&imagery, &chip(256, 256, 100), Resampling::Nearest).await;
        assert!(good.is_ok(), "the other blocks are not touched");
        // A file cut off in the middle of its blocks.
        let cut = reader(whole[..whole.len() - 1000].to_vec());
        let mut failed = 0;
        for (col, row) in [(0, 0), (256, 0), (500, 0), (0, 256), (256, 256), (500, 256)] {
            failed += usize::from(read(&cut, &chip(col, row, 100), Resampling::Nearest).await.is_err());
        }
        assert!(failed >= 1);
    }
}

/// A little-endian TIFF's first `length` bytes: the header and one directory of (tag, type, count, value).
fn directory(entries: [(u16, u16, u32, u32); 9], length: usize) -> Vec<u8> {
    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    tiff.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        tiff.extend(tag.to_le_bytes());
        tiff.extend(kind.to_le_bytes());
        tiff.extend(count.to_le_bytes());
        tiff.extend(value.to_le_bytes());
    }
    tiff.resize(length, 0);
    tiff
}

/// Bytes of a directory that claims 1,000,000 x 1,000,000 pixels in blocks of 16: refused before any
/// table of that size is allocated.
#[tokio::test]
async fn a_monstrous_header_is_refused() {
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 4, 1, 1_000_000),
        (257, 4, 1, 1_000_000),
        (258, 3, 1, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (322, 4, 1, 16),
        (323, 4, 1, 16),
        (324, 4, 3_906_250_000, 200),
        (325, 4, 3_906_250_000, 200),
    ];
    let tiff = directory(entries, 4096);
    let error = reader(tiff).open("x.tif").await.unwrap_err();
    assert_eq!(error.severity(), Severity::Permanent, "{error}");
}

/// A block of 16 x 16 pixels whose 64 KiB inflate to 64 MiB: nothing beyond the block's 512 bytes is inflated.
#[tokio::test]
async fn a_zip_bomb_of_a_block_is_a_corrupt_block() {
    let mut inflated = vec![0u8; 64 << 20];
    inflated[0] = 1;
    let mut deflater = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut bomb = vec![0; deflater.zlib_compress_bound(inflated.len())];
    let n = deflater.zlib_compress(&inflated, &mut bomb).unwrap();
    bomb.truncate(n);
    let bomb_of = |claimed: u32| {
        let entries = [
            (256, 4, 1, 16),
            (257, 4, 1, 16),
            (258, 3, 1, 16),
            (259, 3, 1, 8),
            (262, 3, 1, 1),
            (322, 4, 1, 16),
            (323, 4, 1, 16),
            (324, 4, 1, 512),
            (325, 4, 1, claimed),
        ];
        [directory(entries, 512), bomb.clone()].concat()
    };
    // As large as it says it is: more than 512 bytes can need, refused with the header.
    let refused = reader(bomb_of(n as u32)).open("x.tif").await.unwrap_err();
    assert!(n > 4096 && refused.to_string().contains("more than the"), "{n}: {refused}");
    // And one that says it is small: the stream does not end where the block does.
    let imagery = reader(bomb_of(600));
    let cog = imagery.open("x.tif").await.unwrap();
    let error = imagery.blocks(&cog, &[0]).await.remove(&0).unwrap().unwrap_err();
    assert!(matches!(error, ImageryError::Block { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bilinear_equals_gdal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    write(&path, "GTiff", "COMPRESS=DEFLATE TILED=YES BLOCKXSIZE=256 BLOCKYSIZE=256", "u16");
    let imagery = reader(std::fs::read(&path).unwrap());
    // The file has 10 m pixels; chips of 5 m stand to it as 10 m chips to a 20 m band.
    let fine = PixelGrid { x0: 301_000.0, y0: 4_499_000.0, res: 5.0, width: 128, height: 128 };
    let got = read(&imagery, &fine, Resampling::Bilinear).await.unwrap();
    let reference = Dataset::open(&path).unwrap();
    let band = reference.rasterband(1).unwrap();
    let want =
        band.read_as::<u16>((100, 100), (64, 64), (128, 128), Some(gdal::raster::ResampleAlg::Bilinear)).unwrap();
    let differences = got.iter().zip(want.data()).filter(|(a, b)| a != b).count();
    assert_eq!(differences, 0);
}
