//! The Hilbert curve: an order of cells in which neighbours in the list are neighbours on the ground.
//!
//! Contract: [`key`] maps the square of 2^16 x 2^16 points one to one onto `0..2^32`; consecutive keys are
//! adjacent points. [`Frame`] fits any extent of cells into that square.
//! Trap: an extent wider than 65536 cells is coarsened, so two cells may share a key; sort by
//! `(key, cell)`, never by the key alone.

use super::grid::Cell;

/// Bits per axis.
pub const ORDER: u32 = 16;

/// Distance along the Hilbert curve of order [`ORDER`] to the point `(x, y)`.
///
/// The usual bit-by-bit construction: from the largest quadrant down, each step adds the quadrant's rank and
/// turns the rest of the curve into that quadrant's own orientation.
pub fn key(x: u16, y: u16) -> u64 {
    let (mut x, mut y) = (u32::from(x), u32::from(y));
    let mut distance = 0u64;
    for bit in (0..ORDER).rev() {
        let (rx, ry) = ((x >> bit) & 1, (y >> bit) & 1);
        distance += u64::from((3 * rx) ^ ry) << (2 * bit);
        if ry == 0 {
            if rx == 1 {
                let mask = (1u32 << ORDER) - 1;
                x = mask - x;
                y = mask - y;
            }
            std::mem::swap(&mut x, &mut y);
        }
    }
    distance
}

/// An extent of cells laid into the curve's square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    west: i32,
    south: i32,
    shift: u32,
}

impl Frame {
    /// The smallest frame that holds all `cells`; an empty iterator gives a frame at the origin.
    pub fn around(cells: impl IntoIterator<Item = Cell>) -> Self {
        let mut span: Option<[i32; 4]> = None;
        for Cell { ix, iy } in cells {
            let [w, s, e, n] = span.unwrap_or([ix, iy, ix, iy]);
            span = Some([w.min(ix), s.min(iy), e.max(ix), n.max(iy)]);
        }
        let [west, south, east, north] = span.unwrap_or_default();
        let widest = east.abs_diff(west).max(north.abs_diff(south));
        let shift = (32 - widest.leading_zeros()).saturating_sub(ORDER);
        Self { west, south, shift }
    }

    /// Place of a cell along the curve; cells outside the frame are moved to its border.
    pub fn key(&self, cell: Cell) -> u64 {
        let axis = |v: i32, low: i32| {
            let offset = i64::from(v) - i64::from(low);
            u16::try_from(offset.max(0) >> self.shift).unwrap_or(u16::MAX)
        };
        key(axis(cell.ix, self.west), axis(cell.iy, self.south))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_corner_of_256_by_256_is_walked_in_steps_of_one() {
        let mut points: Vec<(u64, i32, i32)> =
            (0..256u16).flat_map(|x| (0..256u16).map(move |y| (key(x, y), i32::from(x), i32::from(y)))).collect();
        points.sort_unstable();
        for (i, (k, _, _)) in points.iter().enumerate() {
            assert_eq!(*k, i as u64);
        }
        for pair in points.windows(2) {
            let step = (pair[0].1 - pair[1].1).abs() + (pair[0].2 - pair[1].2).abs();
            assert_eq!(step, 1, "{pair:?}");
        }
    }

    #[test]
    fn the_whole_square_ends_at_its_last_key() {
        assert_eq!(key(0, 0), 0);
        assert_eq!(key(u16::MAX, 0), (1 << 32) - 1);
    }

    proptest! {
        #[test]
        fn different_points_have_different_keys(a: (u16, u16), b: (u16, u16)) {
            prop_assert_eq!(a == b, key(a.0, a.1) == key(b.0, b.1));
        }

        #[test]
        fn any_extent_fits(cells in prop::collection::vec((-180_000..180_000i32, -90_000..90_000i32), 1..50)) {
            let cells: Vec<Cell> = cells.into_iter().map(|(ix, iy)| Cell { ix, iy }).collect();
            let frame = Frame::around(cells.iter().copied());
            for c in &cells {
                prop_assert!(frame.key(*c) < 1 << 32);
            }
        }
    }
}
