//! A parcel's pixels as runs of a scene's grid, found once for all chips in which the parcel shows.
//!
//! Units: metres in the scene's CRS, and whole pixels of a [`Lattice`]. Contract: the runs are those of
//! [`super::labels::burn`], computed within the parcel's own box instead of a chip's, so a pixel has the same label in every
//! chip that holds it; the two differ where rounding decides, that is where an edge meets a centre to the last bit.
//! Trap: a shape that is larger than 65,535 pixels either way has none.

use super::labels::{Scratch, covered, paint};
use super::polygon::{Envelope, Polygon};
use super::scene::PixelGrid;

/// The pixels that windows of one scene, and mostly all scenes of a UTM zone, are parts of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lattice {
    res: f64,
    /// Where a pixel begins, in `[0, res)`, along x and downwards from y.
    offset: [f64; 2],
}

/// A window on its lattice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placement {
    pub(super) lattice: Lattice,
    /// Column and row of its upper left pixel; rows count southwards.
    corner: [i64; 2],
    /// Columns and rows.
    size: [i32; 2],
}

impl Placement {
    /// The window of a grid.
    pub(super) fn of(grid: &PixelGrid) -> Self {
        let place = |v: f64| {
            let offset = v.rem_euclid(grid.res);
            (offset, ((v - offset) / grid.res).round() as i64)
        };
        let ((x, col), (y, row)) = (place(grid.x0), place(-grid.y0));
        let lattice = Lattice { res: grid.res, offset: [x, y] };
        Self { lattice, corner: [col, row], size: [grid.width, grid.height].map(|n| n as i32) }
    }
}

/// The runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Runs {
    lattice: Lattice,
    corner: [i64; 2],
    /// Row, first column, and the one after the last, from the corner on; ascending by row but for horizontal edges.
    runs: Vec<[u16; 3]>,
}

impl Runs {
    /// The runs of a shape; `None` when it is too large.
    pub(super) fn of(shape: &Polygon, [w, s, e, n]: Envelope, lattice: Lattice, scratch: &mut Scratch) -> Option<Self> {
        let Lattice { res, offset: [x, y] } = lattice;
        let corner = [((w - x) / res).floor(), ((-n - y) / res).floor()];
        let [x0, y0] = [x + corner[0] * res, -(y + corner[1] * res)];
        let [width, height] = [(e - x0) / res, (y0 - s) / res].map(|size| size.ceil().max(1.0));
        if !(width <= f64::from(u16::MAX) && height <= f64::from(u16::MAX)) {
            return None;
        }
        let grid = PixelGrid { x0, y0, res, width: width as u32, height: height as u32 };
        let mut runs = Vec::with_capacity(grid.height as usize);
        // All below 65,536.
        covered(&grid, shape, scratch, |row, first, end| runs.push([row as u16, first as u16, end as u16]));
        Some(Self { lattice, corner: corner.map(|v| v as i64), runs })
    }

    /// Paints those in the window, whose mask has (rows, cols), and says how many pixels they are; `None` on another lattice.
    pub(super) fn paint(&self, mask: &mut [u8], window: &Placement, value: u8) -> Option<u32> {
        if self.lattice != window.lattice {
            return None;
        }
        let [across, down] = [0, 1].map(|axis| self.corner[axis] - window.corner[axis]);
        // One farther away than that is out of every window.
        let near = |distance: i64| i32::try_from(distance).ok().filter(|d| d.abs() < 1 << 24);
        let Some((across, down)) = near(across).zip(near(down)) else { return Some(0) };
        let [width, height] = window.size;
        let mut painted = 0;
        for run in &self.runs {
            let [row, first, end] = run.map(i32::from);
            let (row, first, end) = (row + down, (first + across).max(0), (end + across).min(width));
            if (0..height).contains(&row) && first < end {
                let line = row as usize * width as usize;
                paint(&mut mask[line + first as usize..line + end as usize], value);
                painted += (end - first) as u32;
            }
        }
        Some(painted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::labels::burn;
    use super::*;

    fn window(col: i32, row: i32, size: u32, res: f64, offset: f64) -> PixelGrid {
        let x0 = 399_960.0 + offset + f64::from(col) * res;
        PixelGrid { x0, y0: 4_500_000.0 - offset - f64::from(row) * res, res, width: size, height: size }
    }

    #[test]
    fn a_window_of_another_lattice_is_not_painted() {
        let shape = Polygon::from_ring([[400_000.0, 4.4999e6], [400_100.0, 4.4999e6], [400_050.0, 4.4998e6]]);
        let place = |res, offset| Placement::of(&window(0, 0, 64, res, offset));
        let runs =
            Runs::of(&shape, shape.envelope().unwrap(), place(10.0, 0.0).lattice, &mut Scratch::default()).unwrap();
        let mut mask = vec![0; 64 * 64];
        assert_eq!(runs.paint(&mut mask, &place(20.0, 0.0), 1), None);
        assert_eq!(runs.paint(&mut mask, &place(10.0, 5.0), 1), None);
        assert!(mask.iter().all(|v| *v == 0));
        assert_eq!(runs.paint(&mut mask, &place(10.0, 0.0), 1), Some(50));
        assert_eq!(runs.paint(&mut mask, &place(10.0, 10.0), 1), Some(50), "one pixel on is the same lattice");
    }

    #[test]
    fn a_shape_too_large_has_no_runs() {
        let shape = Polygon::from_ring([[0.0, 0.0], [700_000.0, 0.0], [0.0, 10.0]]);
        let lattice = Placement::of(&window(0, 0, 64, 10.0, 0.0)).lattice;
        assert_eq!(Runs::of(&shape, shape.envelope().unwrap(), lattice, &mut Scratch::default()), None);
    }

    proptest! {
        /// Rings of all sorts, holes and parts among them, in windows that hold, cut, or miss them.
        #[test]
        fn runs_paint_what_burning_burns(
            rings in prop::collection::vec(
                prop::collection::vec((400_100.0..400_500.0f64, 4_499_500.0..4_499_900.0f64), 3..12), 1..4),
            corners in prop::collection::vec((-30i32..70, -10i32..70, 1u32..80), 1..6),
            (res, offset) in prop::sample::select(vec![(10.0, 0.0), (10.0, 5.0), (20.0, 3.3), (10.0, 0.123)]),
        ) {
            let mut shape = Polygon::default();
            rings.iter().for_each(|ring| shape.push_ring(ring.iter().map(|p| [p.0, p.1]), false));
            let mut scratch = Scratch::default();
            let first = Placement::of(&window(0, 0, 1, res, offset));
            let runs = Runs::of(&shape, shape.envelope().unwrap(), first.lattice, &mut scratch).unwrap();
            for (col, row, size) in corners {
                let grid = window(col, row, size, res, offset);
                let (mut burnt, mut painted) = (vec![0; (size * size) as usize], vec![0; (size * size) as usize]);
                let any = burn(&mut burnt, &grid, &shape, 5, &mut scratch);
                // Offsets that are no whole binary fraction may round to another lattice.
                if let Some(some) = runs.paint(&mut painted, &Placement::of(&grid), 5) {
                    prop_assert_eq!(some, any);
                    prop_assert_eq!(painted, burnt);
                } else {
                    prop_assert!(offset.fract() != 0.0);
                }
            }
        }
    }
}
