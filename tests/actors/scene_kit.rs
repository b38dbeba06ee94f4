//! Small scenes around a point near the border of UTM zones 30 and 31: items in memory, COGs written by GDAL.
//!
//! Contract: a scene is 600 x 600 pixels of 10 m, blocks of 256, DN [`dn`] of row and column, so every pixel is known; band
//! B11 has half as many. Units: metres, DN. Trap: hrefs are `mem:ITEM/BAND`, and nothing but [`files`] and [`clouded`] knows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{TimeZone, Utc};
use gdal::DriverManager;
use gdal::raster::{Buffer, GdalType, RasterCreationOptions};
use gdal::spatial_ref::SpatialRef;
use satellite_pipeline::adapters::crs::{Crs, Transform};
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::parcel::Parcel;
use satellite_pipeline::domain::polygon::Polygon;
use satellite_pipeline::domain::scene::{Asset, PixelGrid, Scene};

use super::stage::class;

/// Pixels along an edge at 10 m.
pub(crate) const EDGE: u32 = 600;
/// Bands of the chips; the scenes have a classification besides, of 20 m.
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
    let assets = [Band::B02, Band::B11, Band::Scl].map(|band| {
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

/// The files of a scene, by href, B02 first; `value` gives the DN of a pixel of B02, B11 is plain, and everything is
/// bare soil.
pub(crate) fn files(scene: &Scene, value: impl Fn(u32, u32) -> u16) -> Vec<(String, Vec<u8>)> {
    clouded(scene, value, |_, _| 5)
}

/// The same under a sky: `class` gives the classification of a pixel of 20 m.
pub(crate) fn clouded(
    scene: &Scene,
    value: impl Fn(u32, u32) -> u16,
    class: impl Fn(u32, u32) -> u8,
) -> Vec<(String, Vec<u8>)> {
    let file = |band: Band| {
        let asset = &scene.assets[&band];
        let grid = asset.grid.unwrap();
        let pixels = || (0..grid.height).flat_map(|row| (0..grid.width).map(move |col| (row, col)));
        let bytes = match band {
            Band::Scl => cog(&grid, scene.epsg, pixels().map(|(row, col)| class(row, col)).collect(), "PREDICTOR=1"),
            Band::B02 => cog(&grid, scene.epsg, pixels().map(|(row, col)| value(row, col)).collect(), "PREDICTOR=2"),
            _ => cog(&grid, scene.epsg, pixels().map(|_| 900_u16).collect(), "PREDICTOR=2"),
        };
        (asset.href.clone(), bytes)
    };
    [Band::B02, Band::B11, Band::Scl].map(file).into()
}

fn cog<T: GdalType + Copy>(grid: &PixelGrid, epsg: u32, values: Vec<T>, predictor: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tif");
    let size = (grid.width as usize, grid.height as usize);
    let memory = DriverManager::get_driver_by_name("MEM").unwrap();
    let mut set = memory.create_with_band_type::<T, _>("", size.0, size.1, 1).unwrap();
    set.set_geo_transform(&[grid.x0, grid.res, 0.0, grid.y0, 0.0, -grid.res]).unwrap();
    set.set_spatial_ref(&SpatialRef::from_epsg(epsg).unwrap()).unwrap();
    set.rasterband(1).unwrap().write((0, 0), size, &mut Buffer::new(size, values)).unwrap();
    let options = RasterCreationOptions::from_iter([
        "TILED=YES",
        "BLOCKXSIZE=256",
        "BLOCKYSIZE=256",
        "COMPRESS=DEFLATE",
        predictor,
        "COPY_SRC_OVERVIEWS=YES",
    ]);
    set.build_overviews("NEAREST", &[2, 4], &[]).unwrap();
    let gtiff = DriverManager::get_driver_by_name("GTiff").unwrap();
    set.create_copy(&gtiff, &path, &options).unwrap().close().unwrap();
    std::fs::read(path).unwrap()
}

/// A square field of wheat around a point, `side` metres along the edge, in degrees.
pub(crate) fn parcel(id: i64, [lon, lat]: [f64; 2], side: f64) -> Parcel {
    let (dx, dy) = (side / 2.0 / 83_000.0, side / 2.0 / 111_000.0);
    let ring =
        [[lon - dx, lat - dy], [lon + dx, lat - dy], [lon + dx, lat + dy], [lon - dx, lat + dy], [lon - dx, lat - dy]];
    Parcel {
        id,
        class: Some(class(5)),
        shape: Arc::new(Polygon::from_ring(ring)),
        point: [lon, lat],
        lonlat: [lon, lat],
    }
}
