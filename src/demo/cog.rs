//! Writes one band as a cloud-optimised GeoTIFF, in the two layouts Earth Search serves.
//!
//! Contract: tiled, DEFLATE, predictor 2 (8-bit: none), nodata 0, overviews by halves.
//! Units: metres; blocks in pixels. Trap: GDAL marks both layouts with its COG ghost area; the older real files of
//! collection `sentinel-2-l2a` have none, so a reader must not count on it.

use super::DemoError;
use crate::domain::scene::PixelGrid;
use gdal::errors::Result;
use gdal::raster::{Buffer, GdalType, RasterCreationOptions};
use gdal::spatial_ref::SpatialRef;
use gdal::{Dataset, DriverManager};
use std::path::Path;

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks of 1024 and overviews 2 to 16, however small, as collection `sentinel-2-l2a` has them.
    Classic,
    /// GDAL's COG driver with blocks of this edge, as collection `sentinel-2-c1-l2a` has them.
    Cog(u32),
}

/// Writes a raster of `grid.width * grid.height` values.
pub(super) fn write<T: GdalType + Copy>(
    path: &Path,
    layout: Layout,
    epsg: u32,
    grid: &PixelGrid,
    values: Vec<T>,
) -> std::result::Result<(), DemoError> {
    let written = in_memory(epsg, grid, values).and_then(|dataset| match layout {
        Layout::Classic => classic(dataset, path, std::mem::size_of::<T>()),
        Layout::Cog(block) => cog(&dataset, path, block, std::mem::size_of::<T>()),
    });
    written.map_err(|e| DemoError::gdal(format!("writing {}", path.display()), e))
}

fn in_memory<T: GdalType + Copy>(epsg: u32, grid: &PixelGrid, values: Vec<T>) -> Result<Dataset> {
    let size = (grid.width as usize, grid.height as usize);
    let mut dataset = DriverManager::get_driver_by_name("MEM")?.create_with_band_type::<T, _>("", size.0, size.1, 1)?;
    dataset.set_geo_transform(&[grid.x0, grid.res, 0.0, grid.y0, 0.0, -grid.res])?;
    dataset.set_spatial_ref(&SpatialRef::from_epsg(epsg)?)?;
    let mut band = dataset.rasterband(1)?;
    band.set_no_data_value(Some(0.0))?;
    band.write((0, 0), size, &mut Buffer::new(size, values))?;
    Ok(dataset)
}

/// Byte rasters hold classes: no predictor, and no averages in overviews.
fn settings(bytes: usize) -> (&'static str, &'static str) {
    if bytes == 1 { ("1", "NEAREST") } else { ("2", "AVERAGE") }
}

/// Overviews are made in memory and copied: so the headers of all levels stand before the pixels.
fn classic(mut dataset: Dataset, path: &Path, bytes: usize) -> Result<()> {
    let (predictor, resampling) = settings(bytes);
    let (width, height) = dataset.raster_size();
    let halves: Vec<i32> = [2, 4, 8, 16].into_iter().filter(|&n| width.min(height) / n as usize >= 16).collect();
    dataset.build_overviews(resampling, &halves, &[])?;
    let options = [
        "TILED=YES",
        "BLOCKXSIZE=1024",
        "BLOCKYSIZE=1024",
        "COMPRESS=DEFLATE",
        "ZLEVEL=1",
        &format!("PREDICTOR={predictor}"),
        "COPY_SRC_OVERVIEWS=YES",
        "BIGTIFF=IF_SAFER",
    ];
    let options = RasterCreationOptions::from_iter(options);
    dataset.create_copy(&DriverManager::get_driver_by_name("GTiff")?, path, &options)?.close()
}

fn cog(dataset: &Dataset, path: &Path, block: u32, bytes: usize) -> Result<()> {
    let (predictor, resampling) = settings(bytes);
    let options = [
        &format!("BLOCKSIZE={block}"),
        "COMPRESS=DEFLATE",
        "LEVEL=1",
        &format!("PREDICTOR={}", if predictor == "2" { "YES" } else { "NO" }),
        &format!("OVERVIEW_RESAMPLING={resampling}"),
    ];
    let options = RasterCreationOptions::from_iter(options);
    dataset.create_copy(&DriverManager::get_driver_by_name("COG")?, path, &options)?.close()
}
