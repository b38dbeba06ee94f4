//! Chip windows: squares of pixels on a scene's own 10 m grid.
//!
//! Units: pixels of the scene's finest grid unless a name ends in `_m`; `col`, `row` count from the
//! grid's upper left corner, rightwards and downwards. Contract: a window is a pure function of the
//! centre point and the grid, so every attempt at a task cuts the same pixels.
//! Trap: a 20 m band under an odd window origin starts in the middle of a source pixel; [`source_index`]
//! is the one place that knows.

use serde::{Deserialize, Serialize};

use super::scene::PixelGrid;

/// A square window on a [`PixelGrid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// First row.
    pub row: u32,
    /// First column.
    pub col: u32,
    /// Rows and columns.
    pub size: u32,
}

impl Window {
    /// The window of `size` pixels whose pixel (`size`/2, `size`/2) holds the point `(x, y)`
    /// (metres in the grid's CRS); `None` when it would leave the grid.
    pub fn centred(grid: &PixelGrid, x: f64, y: f64, size: u32) -> Option<Self> {
        let half = i64::from(size / 2);
        let col = ((x - grid.x0) / grid.res).floor();
        let row = ((grid.y0 - y) / grid.res).floor();
        if !(col.abs() < 1e9 && row.abs() < 1e9) {
            return None;
        }
        let (col, row) = (col as i64 - half, row as i64 - half);
        let fits = |first: i64, count: u32| first >= 0 && first + i64::from(size) <= i64::from(count);
        (fits(col, grid.width) && fits(row, grid.height)).then_some(Self { row: row as u32, col: col as u32, size })
    }

    /// The window's own grid: its upper left corner in metres and its size.
    pub fn grid(&self, scene: &PixelGrid) -> PixelGrid {
        PixelGrid {
            x0: scene.x0 + f64::from(self.col) * scene.res,
            y0: scene.y0 - f64::from(self.row) * scene.res,
            res: scene.res,
            width: self.size,
            height: self.size,
        }
    }
}

impl PixelGrid {
    /// `[min x, min y, max x, max y]` in metres.
    pub fn bounds(&self) -> [f64; 4] {
        let (w, h) = (f64::from(self.width) * self.res, f64::from(self.height) * self.res);
        [self.x0, self.y0 - h, self.x0 + w, self.y0]
    }

    /// Affine coefficients in rasterio's order: `[res, 0, x0, 0, -res, y0]`.
    pub fn transform(&self) -> [f64; 6] {
        [self.res, 0.0, self.x0, 0.0, -self.res, self.y0]
    }
}

/// For every pixel of a window along one axis, the pixel of another grid that holds its centre
/// (nearest neighbour): `offset` is the distance from the source grid's first edge to the window's
/// first edge, in metres, positive inwards; `None` when any centre falls outside `0..count`.
pub fn source_index(offset: f64, res: f64, size: u32, source_res: f64, count: u32) -> Option<Vec<u32>> {
    let at = |i: u32| (offset + (f64::from(i) + 0.5) * res) / source_res;
    // What lies between the first and the last is inside when they are.
    let inside = |i: u32| (0.0..f64::from(count)).contains(&at(i));
    let last = size.checked_sub(1);
    // For what is not negative, a conversion is the floor.
    last.is_none_or(|last| inside(0) && inside(last)).then(|| (0..size).map(|i| at(i) as u32).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRID: PixelGrid = PixelGrid { x0: 300_000.0, y0: 4_500_000.0, res: 10.0, width: 10_980, height: 10_980 };

    #[test]
    fn centre_pixel_holds_the_point() {
        let w = Window::centred(&GRID, 301_285.0, 4_498_715.0, 256).unwrap();
        assert_eq!(w, Window { row: 0, col: 0, size: 256 });
        assert!(Window::centred(&GRID, 301_279.9, 4_498_715.0, 256).is_none(), "one pixel too far west");
    }

    #[test]
    fn not_a_number_has_no_window() {
        assert!(Window::centred(&GRID, f64::NAN, 4_498_715.0, 256).is_none());
        assert!(Window::centred(&GRID, f64::INFINITY, 4_498_715.0, 256).is_none());
    }

    #[test]
    fn odd_origin_over_20_m_starts_mid_pixel() {
        // Window from 10 m column 3: centres at 35, 45, 55, 65 m lie in 20 m pixels 1, 2, 2, 3.
        assert_eq!(source_index(30.0, 10.0, 4, 20.0, 100).unwrap(), [1, 2, 2, 3]);
        assert_eq!(source_index(40.0, 10.0, 4, 20.0, 100).unwrap(), [2, 2, 3, 3]);
        assert!(source_index(1970.0, 10.0, 4, 20.0, 100).is_none());
    }

    proptest! {
        #[test]
        fn window_lies_in_the_grid_and_holds_its_centre(x in 290_000.0..420_000.0f64, y in 4_380_000.0..4_510_000.0f64) {
            if let Some(w) = Window::centred(&GRID, x, y, 256) {
                prop_assert!(w.col + w.size <= GRID.width && w.row + w.size <= GRID.height);
                let [x0, y0, x1, y1] = w.grid(&GRID).bounds();
                prop_assert!(x0 <= x && x < x1 && y0 < y && y <= y1);
                let centre = (GRID.x0 + f64::from(w.col + 128) * 10.0, GRID.y0 - f64::from(w.row + 128) * 10.0);
                prop_assert!((x - centre.0) >= 0.0 && (x - centre.0) < 10.0);
                prop_assert!((centre.1 - y) >= 0.0 && (centre.1 - y) < 10.0);
            }
        }
    }
}
