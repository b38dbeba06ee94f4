//! Which parcel each pixel of a scene belongs to.
//!
//! Contract: a pixel belongs to the parcel that holds its centre; even-odd over all rings, so holes stay open.
//! Units: pixels of the scene's 10 m grid, row by row from the north-west corner.
//! Trap: this paints the demo's pictures; masks are made by the pipeline itself and tested against other programs.

use super::DemoError;
use super::outline::Point;
use super::region::Region;
use crate::domain::scene::PixelGrid;
use gdal::spatial_ref::{AxisMappingStrategy, CoordTransform, SpatialRef};

/// Land outside all farms.
pub(super) const WILD: u32 = 0;
/// Tracks and margins between fields.
pub(super) const TRACK: u32 = 1;
/// Label of the first parcel of the region.
pub(super) const FIRST_PARCEL: u32 = 2;

/// The label raster of one scene grid.
pub(super) struct Labels {
    pub(super) width: usize,
    pub(super) cells: Vec<u32>,
}

impl Labels {
    /// Draws blocks and parcels on a grid of the CRS with this EPSG code.
    pub(super) fn draw(region: &Region, epsg: u32, grid: &PixelGrid) -> Result<Self, DemoError> {
        let pixels = ToPixels { transform: transform(4258, epsg)?, grid };
        let (width, height) = (grid.width as usize, grid.height as usize);
        let mut labels = Self { width, cells: vec![WILD; width * height] };
        for block in &region.blocks {
            labels.fill(&[pixels.ring(block)?], TRACK);
        }
        for (index, parcel) in region.parcels.iter().enumerate() {
            for polygon in &parcel.polygons {
                let rings: Vec<_> = polygon.rings.iter().map(|r| pixels.ring(r)).collect::<Result<_, _>>()?;
                labels.fill(&rings, FIRST_PARCEL + index as u32);
            }
        }
        Ok(labels)
    }

    fn fill(&mut self, rings: &[Vec<Point>], label: u32) {
        let height = self.cells.len() / self.width;
        let ys = || rings.iter().flatten().map(|p| p[1]);
        let top = ys().fold(f64::INFINITY, f64::min).floor().max(0.0) as usize;
        let bottom = (ys().fold(f64::NEG_INFINITY, f64::max).ceil().max(0.0) as usize).min(height);
        let mut crossings = Vec::new();
        for row in top..bottom {
            crossings.clear();
            rings.iter().for_each(|ring| cross(ring, row as f64 + 0.5, &mut crossings));
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.as_chunks::<2>().0 {
                // The centre of column c is c + 0.5.
                let column = |x: f64| ((x - 0.5).ceil().max(0.0) as usize).min(self.width);
                let (from, to) = (column(pair[0]), column(pair[1]));
                self.cells[row * self.width + from..row * self.width + to.max(from)].fill(label);
            }
        }
    }
}

/// Where an open ring crosses a horizontal line.
fn cross(ring: &[Point], y: f64, found: &mut Vec<f64>) {
    for i in 0..ring.len() {
        let (a, b) = (ring[i], ring[(i + 1) % ring.len()]);
        if (a[1] <= y) != (b[1] <= y) {
            found.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
        }
    }
}

/// A transform between two EPSG codes with longitude, or easting, first on both sides.
pub(super) fn transform(from: u32, to: u32) -> Result<CoordTransform, DemoError> {
    let srs = |code| {
        SpatialRef::from_epsg(code).map(|mut srs| {
            srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
            srs
        })
    };
    let made = srs(from).and_then(|from| CoordTransform::new(&from, &srs(to)?));
    made.map_err(|e| DemoError::gdal(format!("transform EPSG:{from} to EPSG:{to}"), e))
}

/// Transforms points in place.
pub(super) fn project(transform: &CoordTransform, points: &[Point]) -> Result<Vec<Point>, DemoError> {
    let mut xs: Vec<f64> = points.iter().map(|p| p[0]).collect();
    let mut ys: Vec<f64> = points.iter().map(|p| p[1]).collect();
    transform.transform_coords(&mut xs, &mut ys, &mut []).map_err(|e| DemoError::gdal("projecting outlines", e))?;
    Ok(xs.into_iter().zip(ys).map(|(x, y)| [x, y]).collect())
}

struct ToPixels<'a> {
    transform: CoordTransform,
    grid: &'a PixelGrid,
}

impl ToPixels<'_> {
    fn ring(&self, ring: &[Point]) -> Result<Vec<Point>, DemoError> {
        let PixelGrid { x0, y0, res, .. } = *self.grid;
        Ok(project(&self.transform, ring)?.into_iter().map(|[x, y]| [(x - x0) / res, (y0 - y) / res]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_decide_and_holes_stay_open() {
        let mut labels = Labels { width: 10, cells: vec![0; 100] };
        let square = |a: f64, b: f64| vec![[a, a], [b, a], [b, b], [a, b]];
        labels.fill(&[square(1.4, 8.6), square(3.0, 5.0)], 7);
        assert_eq!(labels.cells.iter().filter(|&&c| c == 7).count(), 64 - 4);
        assert_eq!((labels.cells[11], labels.cells[88], labels.cells[33]), (7, 7, 0));
        labels.fill(&[square(-5.0, 50.0)], 9);
        assert!(labels.cells.iter().all(|&c| c == 9));
    }
}
