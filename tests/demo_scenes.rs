//! The demo's scenes as GDAL, crate stac and an HTTP client see them.
//!
//! Contract: files and items agree, both file layouts are what they claim to be, the same seed gives the same pixels.
//! Units: metres, percent, DN. Trap: the tiny size has no orbit edge; its geometry is tested where the sky is made.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use gdal::raster::{Buffer, RasterizeOptions, rasterize};
use gdal::spatial_ref::{AxisMappingStrategy, CoordTransform, SpatialRef};
use gdal::vector::Geometry;
use gdal::{Dataset, DriverManager, Metadata};
use satellite_pipeline::demo::region::Parcel;
use satellite_pipeline::demo::server::DemoServer;
use satellite_pipeline::demo::{CLASS_STYLES, Region, Size, contact_sheet, prepare, scenes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const SEED: u64 = 11;

/// The tiny region's scenes with all troubles, made once for all tests of this file.
static SCENES: LazyLock<PathBuf> = LazyLock::new(|| {
    // A static is never dropped, so a temporary directory would stay behind.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo_scenes");
    let _ = std::fs::remove_dir_all(&dir);
    let region = Region::generate(Size::Tiny, SEED);
    let items = scenes::generate(&region, Size::Tiny, &dir, true, &|_| ()).unwrap();
    assert_eq!(items, 2 * (4 + 3));
    dir
});

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn items() -> BTreeMap<String, (PathBuf, Value)> {
    let read = |path: PathBuf| {
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (json["id"].as_str().unwrap().to_owned(), (path, json))
    };
    files(&SCENES, "json").into_iter().map(read).collect()
}

#[test]
fn items_parse_and_agree_with_their_files() {
    for (id, (path, json)) in items() {
        let item: stac::Item = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(item.id, id);
        assert_eq!(item.collection.as_deref(), Some("sentinel-2-l2a"));
        let epsg = json["properties"]["proj:epsg"].as_i64().unwrap();
        let missing = usize::from(id.contains("20230729"));
        assert_eq!(item.assets.len(), 11 - missing, "{id}");
        for asset in json["assets"].as_object().unwrap().values() {
            let file = path.parent().unwrap().join(asset["href"].as_str().unwrap());
            let dataset = Dataset::open(&file).unwrap();
            let (width, height) = dataset.raster_size();
            assert_eq!(asset["proj:shape"], serde_json::json!([height, width]));
            let [x0, dx, _, y0, _, dy] = dataset.geo_transform().unwrap();
            let said: Vec<f64> =
                asset["proj:transform"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
            assert_eq!(said, [dx, 0.0, x0, 0.0, dy, y0]);
            assert_eq!((x0 % 20.0, y0 % 20.0), (0.0, 0.0));
            assert_eq!(dataset.spatial_ref().unwrap().auth_code().unwrap() as i64, epsg);
        }
    }
}

#[test]
fn cloud_cover_is_what_the_classification_holds() {
    let mut cloudy = 0;
    for (id, (path, json)) in items() {
        let file = path.parent().unwrap().join(json["assets"]["scl"]["href"].as_str().unwrap());
        let scl = Dataset::open(file).unwrap().rasterband(1).unwrap().read_band_as::<u8>().unwrap();
        let count = |wanted: &[u8]| scl.data().iter().filter(|class| wanted.contains(class)).count();
        let seen = scl.len() - count(&[0]);
        let cover = 100.0 * count(&[8, 9, 10]) as f64 / seen as f64;
        let said = json["properties"]["eo:cloud_cover"].as_f64().unwrap();
        assert!((said - cover).abs() < 1e-5, "{id}: {said} {cover}");
        assert!(said < 20.0);
        cloudy += i32::from(said > 5.0);
        assert!(count(&[4]) > 0 && count(&[5]) > 0, "{id} has no vegetation or no bare ground");
    }
    assert!(cloudy > 0);
}

#[test]
fn files_are_tiled_compressed_and_have_overviews() {
    let mut blocks = std::collections::BTreeSet::new();
    for file in files(&SCENES, "tif") {
        let dataset = Dataset::open(&file).unwrap();
        let structure = |key| dataset.metadata_item(key, "IMAGE_STRUCTURE");
        let band = dataset.rasterband(1).unwrap();
        let (block, _) = band.block_size();
        let is_scl = file.ends_with("SCL.tif");
        assert_eq!(structure("COMPRESSION").as_deref(), Some("DEFLATE"));
        assert_eq!(structure("PREDICTOR").as_deref(), (!is_scl).then_some("2"), "{}", file.display());
        assert_eq!(structure("LAYOUT").as_deref(), Some("COG"));
        assert_eq!(band.no_data_value(), Some(0.0));
        let (width, _) = dataset.raster_size();
        let overviews = band.overview_count().unwrap();
        let enough = if block == 1024 { overviews >= 4 } else { overviews >= 1 || width <= block };
        assert!(enough, "{} has {overviews} overviews", file.display());
        assert!(std::fs::read(&file).unwrap().starts_with(b"II*\0"));
        blocks.insert(block);
    }
    assert_eq!(blocks.into_iter().collect::<Vec<_>>(), [512, 1024]);
}

#[test]
fn pixels_differ_by_season_and_the_raw_scene_keeps_its_offset() {
    let ordinary = |dn: u16| (1..=16_000).contains(&dn);
    let mean = |id: &str, asset: &str| {
        let (path, json) = items().remove(id).unwrap();
        let file = path.parent().unwrap().join(json["assets"][asset]["href"].as_str().unwrap());
        let pixels = Dataset::open(file).unwrap().rasterband(1).unwrap().read_band_as::<u16>().unwrap();
        assert!(pixels.data().iter().all(|&dn| ordinary(dn)));
        let dark = pixels.data().iter().filter(|&&dn| dn <= 1000).count();
        let share = dark as f64 / pixels.len() as f64;
        (pixels.data().iter().map(|&dn| f64::from(dn)).sum::<f64>() / pixels.len() as f64, share)
    };
    let (spring, summer) = (mean("S2B_30TYM_20230425_0_L2A", "red"), mean("S2A_30TYM_20230724_0_L2A", "red"));
    assert!(summer.0 > spring.0 + 150.0, "{summer:?} {spring:?}");
    let raw = mean("S2B_30TYM_20230614_0_L2A", "red");
    assert!(spring.1 > 0.3 && raw.0 > spring.0 + 700.0, "{spring:?} {raw:?}");
    assert!(raw.1 > 0.0005 && raw.1 < 0.05, "only deep shade lies below the offset: {raw:?}");
    let flag = |id: &str| items()[id].1["properties"]["earthsearch:boa_offset_applied"].clone();
    assert_eq!((flag("S2B_30TYM_20230614_0_L2A"), flag("S2A_30TYM_20230724_0_L2A")), (false.into(), true.into()));
    assert_eq!(flag("S2B_30TYM_20230425_0_L2A"), false, "and that is not true");
    let uri = |id: &str| items()[id].1["properties"]["s2:product_uri"].clone();
    assert_eq!(uri("S2B_30TYM_20230425_0_L2A"), uri("S2B_30TYM_20230425_1_L2A"));
}

#[test]
fn deep_shade_wrapped_around_where_the_archive_did_not_look() {
    for (id, (path, json)) in items() {
        let pixels = |asset: &str| {
            let file = path.parent().unwrap().join(json["assets"][asset]["href"].as_str().unwrap());
            Dataset::open(file).unwrap().rasterband(1).unwrap().read_band_as::<u16>().unwrap()
        };
        let (swir, classes) = (pixels("swir16"), pixels("scl"));
        let wrapped = swir.data().iter().filter(|&&dn| dn > 65_000).count();
        assert_eq!(wrapped > 0, id.contains("20231012"), "{id}: {wrapped}");
        let both = swir.data().iter().zip(classes.data()).filter(|(dn, class)| **dn > 65_000 && **class == 2).count();
        assert_eq!(wrapped, both, "{id}: all of it is dark to the classification");
        assert!(swir.data().iter().all(|&dn| dn > 0), "{id}: and none of it is nodata");
    }
}

#[test]
fn prepared_inputs_are_the_same_again_and_reused() {
    let dir = tempfile::tempdir().unwrap();
    let made = prepare(dir.path(), Size::Tiny, SEED).unwrap();
    assert_eq!((made.items, made.reused), (8, false));
    assert!(made.parcels > 150, "{}", made.parcels);
    for file in files(&made.scenes_root, "tif") {
        let other = SCENES.join(file.strip_prefix(&made.scenes_root).unwrap());
        let same = std::fs::read(&file).unwrap() == std::fs::read(&other).unwrap();
        assert_eq!(same, !file.to_str().unwrap().contains("20231012"), "{}", file.display());
    }
    let again = prepare(dir.path(), Size::Tiny, SEED).unwrap();
    assert!(again.reused && (again.parcels, again.items) == (made.parcels, made.items));
    std::fs::remove_file(dir.path().join("inputs.json")).unwrap();
    std::fs::write(dir.path().join("scenes/mine.txt"), "kept").unwrap();
    assert!(!prepare(dir.path(), Size::Tiny, SEED).unwrap().reused);
    assert!(dir.path().join("scenes/mine.txt").exists());
}

#[tokio::test]
async fn a_search_leads_to_the_pixels() {
    let server = DemoServer::start(&*SCENES, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let query = "bbox=-0.01,41.61,0.01,41.62&datetime=2023-03-21T00:00:00Z/2023-06-20T23:59:59Z&limit=50";
    let page: Value = reqwest::get(format!("{}/search?{query}", server.url())).await.unwrap().json().await.unwrap();
    // Spring in two zones: the scene, its second item, and the raw scene.
    assert_eq!(page["numberMatched"], 6);
    let item = &page["features"][0];
    let own = url::Url::parse(item["links"][0]["href"].as_str().unwrap()).unwrap();
    let file = own.join(item["assets"]["nir"]["href"].as_str().unwrap()).unwrap();
    let answer = reqwest::Client::new().get(file).header("range", "bytes=0-3").send().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.bytes().await.unwrap().as_ref(), b"II*\0");
}

/// A parcel in EPSG:32630, by way of WKT.
fn in_utm(parcel: &Parcel) -> Geometry {
    let point = |p: &[f64; 2]| format!("{:.9} {:.9}", p[0], p[1]);
    let ring = |r: &Vec<[f64; 2]>| format!("({})", r.iter().chain(r.first()).map(point).collect::<Vec<_>>().join(","));
    let polygon = |rings: &Vec<Vec<[f64; 2]>>| format!("({})", rings.iter().map(ring).collect::<Vec<_>>().join(","));
    let polygons: Vec<_> = parcel.polygons.iter().map(|p| polygon(&p.rings)).collect();
    let [degrees, utm] = [4258, 32630].map(|code| {
        let mut srs = SpatialRef::from_epsg(code).unwrap();
        srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
        srs
    });
    let geometry = Geometry::from_wkt(&format!("MULTIPOLYGON({})", polygons.join(","))).unwrap();
    geometry.transform(&CoordTransform::new(&degrees, &utm).unwrap()).unwrap()
}

/// Cuts a chip with three bands around a parcel, and a mask by GDAL's rasteriser, if its window lies in the scene.
fn cut(scene: &Path, out: &Path, parcels: &[(u8, Geometry)], centre: usize) -> bool {
    let (class, geometry) = &parcels[centre];
    let within = geometry.envelope();
    let red = Dataset::open(scene.join("B04.tif")).unwrap();
    let [x0, _, _, y0, ..] = red.geo_transform().unwrap();
    let column = (((within.MinX + within.MaxX) / 2.0 - x0) / 10.0) as isize - 128;
    let row = ((y0 - (within.MinY + within.MaxY) / 2.0) / 10.0) as isize - 128;
    let (width, height) = red.raster_size();
    if column < 0 || row < 0 || column as usize + 256 > width || row as usize + 256 > height {
        return false;
    }
    let name = format!("worker1_task{centre}_class{class}_chip0.tif");
    let gtiff = DriverManager::get_driver_by_name("GTiff").unwrap();
    let corner = [x0 + column as f64 * 10.0, 10.0, 0.0, y0 - row as f64 * 10.0, 0.0, -10.0];
    let image = gtiff.create_with_band_type::<u16, _>(out.join("images").join(&name), 256, 256, 3).unwrap();
    for (index, band) in ["B02", "B03", "B04"].into_iter().enumerate() {
        let file = Dataset::open(scene.join(format!("{band}.tif"))).unwrap();
        let mut pixels: Buffer<u16> =
            file.rasterband(1).unwrap().read_as((column, row), (256, 256), (256, 256), None).unwrap();
        let mut to = image.rasterband(index + 1).unwrap();
        to.set_description(band).unwrap();
        to.write((0, 0), (256, 256), &mut pixels).unwrap();
    }
    let mut mask = gtiff.create_with_band_type::<u8, _>(out.join("masks").join(&name), 256, 256, 1).unwrap();
    mask.set_geo_transform(&corner).unwrap();
    let (classes, shapes): (Vec<f64>, Vec<Geometry>) =
        parcels.iter().filter(|(class, _)| *class > 0).map(|(class, g)| (f64::from(*class), g.clone())).unzip();
    rasterize(&mut mask, &[1], &shapes, &classes, Some(RasterizeOptions::default())).unwrap();
    true
}

#[test]
fn a_contact_sheet_has_a_row_per_class_and_is_the_same_again() {
    let scene = SCENES.join("sentinel-s2-l2a-cogs/30/T/YM/2023/4/S2B_30TYM_20230425_0_L2A");
    let out = tempfile::tempdir().unwrap();
    for room in ["images", "masks"] {
        std::fs::create_dir(out.path().join(room)).unwrap();
    }
    let png = out.path().join("sheet.png");
    let empty = contact_sheet::write(out.path(), &CLASS_STYLES, 3, &png).unwrap_err();
    assert!(empty.to_string().contains("no chip"), "{empty}");

    let region = Region::generate(Size::Tiny, SEED);
    let parcels: Vec<_> = region.parcels.iter().map(|p| (p.class(), in_utm(p))).collect();
    let chosen: Vec<usize> = (0..parcels.len()).filter(|&i| parcels[i].0 > 0).collect();
    let chips = chosen.into_iter().filter(|&i| cut(&scene, out.path(), &parcels, i)).count();
    assert!(chips > 30, "{chips}");

    let sheet = contact_sheet::write(out.path(), &CLASS_STYLES, 3, &png).unwrap();
    assert_eq!(sheet.chips, chips);
    assert!(sheet.shown.iter().sum::<usize>() > 10 && sheet.shown.iter().all(|&n| n <= 3), "{sheet:?}");
    let first = std::fs::read(&png).unwrap();
    assert!(first.starts_with(b"\x89PNG") && first.len() < 2_000_000);
    assert_eq!(Dataset::open(&png).unwrap().raster_size(), (800, 1308));
    contact_sheet::write(out.path(), &CLASS_STYLES, 3, &png).unwrap();
    assert!(first == std::fs::read(&png).unwrap());
}
