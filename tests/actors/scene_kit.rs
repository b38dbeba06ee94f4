//! Small scenes around a point near the border of UTM zones 30 and 31: items in memory, COGs written by GDAL.
//!
//! Contract: a scene is 600 x 600 pixels of 10 m, blocks of 256, DN [`dn`] of row and column, so every pixel is known; band
//! B11 has half as many. Units: metres, DN. Trap: hrefs are `mem:ITEM/BAND`, and nothing but [`files`] knows them.

use std::collections::BTreeMap;

use chrono::{TimeZone, Utc};
use gdal::DriverManager;
use gdal::raster::{Buffer, RasterCreationOptions};
use gdal::spatial_ref::SpatialRef;
use satellite_pipeline::adapters::crs::{Crs, Transform};
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::parcel::Parcel;
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::scene::{Asset, PixelGrid, Scene};

use super::stage::class;

/// Pixels along an edge at 10 m.
pub(crate) const EDGE: u32 = 600;
/// Bands of the scenes.
pub(crate) const BANDS: [Band; 2] = [Band::B02, Band::B11];
/// The middle of the parcels, degrees.
pub(crate) const CENTRE: [f64; 2] = [0.0, 41.62];
/// The task's cell around it.
pub(crate) const CELL: [f64; 4] = [-0.025, 41.60, 0.025, 41.65];

/// Zone 30 reaches a little beyond its border, as real tiles do.
pub(crate) fn utm(epsg: u32, lonlat: [f64; 2]) -> [f64; 2] {
    Transform::new(&Crs::lonlat(), &Crs::epsg(epsg).unwrap()).unwrap().point(lonlat).unwrap()
}

/// The grid of a scene with `middle` in its middle.
pub(crate) fn grid(epsg: u32, middle: [f64; 2]) -> PixelGrid {
    let [x, y] = utm(epsg, middle);
    let half = f64::from(EDGE) * 5.0;
    let snap = |v: f64| (v / 20.0).round() * 20.0;
    PixelGrid { x0: snap(x - half), y0: snap(y + half), res: 10.0, width: EDGE, height: EDGE }
}

/// A scene of a day of 2023 (1 to 365).
pub(crate) fn scene(id: &str, epsg: u32, middle: [f64; 2], day: u32, cloud_cover: f64) -> Scene {
    let ten = grid(epsg, middle);
    let assets = BANDS.map(|band| {
        let grid = if band == Band::B02 { ten } else { halved(&ten) };
        (band, Asset { href: format!("mem:{id}/{}", band.name()), grid: Some(grid) })
    });
    let [lon, lat] = middle;
    Scene {
        id: id.into(),
        collection: "sentinel-2-l2a".into(),
        datetime: Utc.with_ymd_and_hms(2023, 1, 1, 10, 56, 29).unwrap() + chrono::Days::new(u64::from(day) - 1),
        cloud_cover,
        epsg,
        product_uri: Some(format!("{id}.SAFE")),
        sequence: None,
        updated: None,
        baseline: Some("05.09".into()),
        boa_offset_applied: Some(true),
        bbox: [lon - 0.04, lat - 0.03, lon + 0.04, lat + 0.03],
        footprint: None,
        assets: BTreeMap::from(assets),
    }
}

fn halved(grid: &PixelGrid) -> PixelGrid {
    PixelGrid { res: 20.0, width: grid.width / 2, height: grid.height / 2, ..*grid }
}

/// The DN of a pixel.
pub(crate) fn dn(row: u32, col: u32) -> u16 {
    (1 + (row * 7 + col * 3) % 5000) as u16
}

/// Both files of a scene, by href; `value` gives the DN of a pixel of B02, and B11 is plain.
pub(crate) fn files(scene: &Scene, value: impl Fn(u32, u32) -> u16) -> Vec<(String, Vec<u8>)> {
    let file = |band: Band| {
        let asset = &scene.assets[&band];
        let grid = asset.grid.unwrap();
        let pixels = (0..grid.height).flat_map(|row| (0..grid.width).map(move |col| (row, col)));
        let values = pixels.map(|(row, col)| if band == Band::B02 { value(row, col) } else { 900 }).collect();
        (asset.href.clone(), cog(&grid, scene.epsg, values))
    };
    BANDS.map(file).into()
}

fn cog(grid: &PixelGrid, epsg: u32, values: Vec<u16>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    let size = (grid.width as usize, grid.height as usize);
    let memory = DriverManager::get_driver_by_name("MEM").unwrap();
    let mut set = memory.create_with_band_type::<u16, _>("", size.0, size.1, 1).unwrap();
    set.set_geo_transform(&[grid.x0, grid.res, 0.0, grid.y0, 0.0, -grid.res]).unwrap();
    set.set_spatial_ref(&SpatialRef::from_epsg(epsg).unwrap()).unwrap();
    set.rasterband(1).unwrap().write((0, 0), size, &mut Buffer::new(size, values)).unwrap();
    let options = RasterCreationOptions::from_iter([
        "TILED=YES",
        "BLOCKXSIZE=256",
        "BLOCKYSIZE=256",
        "COMPRESS=DEFLATE",
        "PREDICTOR=2",
    ]);
    let gtiff = DriverManager::get_driver_by_name("GTiff").unwrap();
    set.create_copy(&gtiff, &path, &options).unwrap().close().unwrap();
    std::fs::read(path).unwrap()
}

/// A square field of wheat around a point, `side` metres along the edge, in degrees.
pub(crate) fn parcel(id: i64, [lon, lat]: [f64; 2], side: f64) -> Parcel {
    let (dx, dy) = (side / 2.0 / 83_000.0, side / 2.0 / 111_000.0);
    let ring =
        [[lon - dx, lat - dy], [lon + dx, lat - dy], [lon + dx, lat + dy], [lon - dx, lat + dy], [lon - dx, lat - dy]];
    Parcel { id, class: Some(class(5)), shape: Polygon::from_ring(ring), point: [lon, lat], lonlat: [lon, lat] }
}
