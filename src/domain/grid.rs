//! The grid of cells that tasks are made of: squares of `step` degrees lon/lat (WGS 84).
//!
//! Contract: every point with lon in `[-180, 180)` and lat in `[-90, 90)` lies in exactly one cell. Cells are
//! half-open: west and south edges belong to them, east and north edges to the neighbour. Edge `i` is the
//! number `i as f64 * step`, computed in that one way everywhere, so master and workers agree bit for bit.
//! Trap: `floor(lon / step)` alone is off by one for points on an edge (0.15 / 0.05 is 2.9999…): [`Grid::cell_of`]
//! corrects it against the edges themselves.

/// A cell: column counted eastwards from lon 0, row counted northwards from lat 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// Column.
    pub ix: i32,
    /// Row.
    pub iy: i32,
}

/// Smallest edge of a cell, degrees (about 110 m).
pub const MIN_STEP: f64 = 0.001;
/// Largest edge of a cell, degrees; also the most a task may cover.
pub const MAX_STEP: f64 = 5.0;

/// The step is not one a grid can have.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("grid.step is {0} degrees, allowed is {MIN_STEP} to {MAX_STEP}")]
pub struct BadStep(f64);

/// A grid of cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    step: f64,
}

impl Grid {
    /// A grid with cells of `step` degrees.
    ///
    /// # Errors
    /// When `step` is not a number between [`MIN_STEP`] and [`MAX_STEP`].
    pub fn new(step: f64) -> Result<Self, BadStep> {
        if (MIN_STEP..=MAX_STEP).contains(&step) { Ok(Self { step }) } else { Err(BadStep(step)) }
    }

    /// Edge of a cell, degrees.
    pub fn step(&self) -> f64 {
        self.step
    }

    /// The cell of a point (degrees); `None` when the point is not on the map at all.
    pub fn cell_of(&self, lon: f64, lat: f64) -> Option<Cell> {
        let on_map = (-180.0..180.0).contains(&lon) && (-90.0..90.0).contains(&lat);
        on_map.then(|| Cell { ix: self.index(lon), iy: self.index(lat) })
    }

    /// Lower corner first: `[west, south, east, north]`, degrees, clamped to the map.
    pub fn bbox(&self, cell: Cell) -> [f64; 4] {
        let x = |i| self.edge(i).clamp(-180.0, 180.0);
        let y = |i| self.edge(i).clamp(-90.0, 90.0);
        [x(cell.ix), y(cell.iy), x(cell.ix + 1), y(cell.iy + 1)]
    }

    fn edge(&self, i: i32) -> f64 {
        f64::from(i) * self.step
    }

    fn index(&self, degrees: f64) -> i32 {
        let mut i = (degrees / self.step).floor() as i32;
        while self.edge(i) > degrees {
            i -= 1;
        }
        while self.edge(i + 1) <= degrees {
            i += 1;
        }
        i
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_belong_to_the_cell_east_and_north_of_them() {
        let grid = Grid::new(0.05).unwrap();
        for i in -3600..3600 {
            let lon = f64::from(i) * 0.05;
            assert_eq!(grid.cell_of(lon, 0.0).unwrap().ix, i, "{lon}");
            assert_eq!(grid.cell_of(lon.next_down().max(-180.0), 0.0).unwrap().ix, (i - 1).max(-3600));
        }
    }

    #[test]
    fn points_off_the_map_have_no_cell() {
        let grid = Grid::new(0.05).unwrap();
        for (lon, lat) in [(180.0, 0.0), (-180.1, 0.0), (0.0, 90.0), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(grid.cell_of(lon, lat), None);
        }
    }

    #[test]
    fn steps_that_make_no_grid_are_refused() {
        for step in [0.0, -0.05, f64::NAN, f64::INFINITY, 6.0, 1e-9] {
            assert!(Grid::new(step).is_err(), "{step}");
        }
    }

    proptest! {
        #[test]
        fn every_point_is_in_its_cell_and_in_no_neighbour(
            step in MIN_STEP..MAX_STEP, lon in -180.0..180.0f64, lat in -90.0..90.0f64,
        ) {
            let grid = Grid::new(step).unwrap();
            let cell = grid.cell_of(lon, lat).unwrap();
            for dx in -1..=1 {
                for dy in -1..=1 {
                    let [w, s, e, n] = grid.bbox(Cell { ix: cell.ix + dx, iy: cell.iy + dy });
                    let inside = w <= lon && lon < e && s <= lat && lat < n;
                    prop_assert_eq!(inside, dx == 0 && dy == 0);
                }
            }
        }
    }
}
