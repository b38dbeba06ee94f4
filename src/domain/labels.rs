//! Parcels into mask pixels, by the centre-of-pixel rule.
//!
//! Contract: a pixel belongs to a polygon when its centre does, even-odd over all rings of the
//! polygon (holes and parts of a multipolygon alike), edges as GDAL's `GDALRasterize` treats them
//! (`alg/llrasterize.cpp`, `GDALdllImageFilledPolygon`): a centre on a left or upper edge is inside,
//! horizontal edges that pass through centres are filled. Later polygons overwrite earlier ones.
//! Coordinates are metres in the CRS of the window's grid; the mask is (rows, cols), row-major, u8.
//! Trap: spans are computed per scanline in pixel coordinates exactly as GDAL does, so that
//! differences stay below the rounding of one multiplication.

use super::count::count_u8;
use super::polygon::Polygon;
use super::scene::PixelGrid;

/// Burns `value` where `shape` (in metres of the grid's CRS) covers the centres of `mask`'s pixels, and says how many it
/// painted; one that is painted twice counts twice.
///
/// `mask` has `grid.height * grid.width` bytes. `scratch` is kept between calls to save allocations.
pub fn burn(mask: &mut [u8], grid: &PixelGrid, shape: &Polygon, value: u8, scratch: &mut Scratch) -> u32 {
    let width = grid.width as usize;
    debug_assert_eq!(mask.len(), width * grid.height as usize);
    let mut burnt = 0;
    covered(grid, shape, scratch, |row, first, end| {
        paint(&mut mask[row * width + first..row * width + end], value);
        burnt += (end - first) as u32;
    });
    burnt
}

/// Calls `each` with the row, the first column, and the one after the last, of every run of pixels whose centres `shape` (in
/// metres of the grid's CRS) covers; none is empty.
pub(super) fn covered(
    grid: &PixelGrid,
    shape: &Polygon,
    scratch: &mut Scratch,
    mut each: impl FnMut(usize, usize, usize),
) {
    let (width, height) = (grid.width as usize, grid.height as usize);
    scratch.begin(height);
    let mut fill = |row, x1, x2| {
        let (first, end) = (column(x1, width), column(x2, width));
        if first < end {
            each(row, first, end);
        }
    };
    let pixel = |[x, y]: [f64; 2]| [(x - grid.x0) / grid.res, (grid.y0 - y) / grid.res];
    // One number tells whether both are numbers; sums as large as that are no places either.
    let is_place = |[x, y]: [f64; 2]| (x + y).is_finite();
    for (ring, _) in shape.rings() {
        let Some(last) = ring.last() else { continue };
        let mut before = pixel(*last);
        for point in ring {
            let here = pixel(*point);
            let ([x1, y1], [x2, y2]) = (std::mem::replace(&mut before, here), here);
            if !(is_place([x1, y1]) && is_place([x2, y2])) {
                continue;
            }
            // Oriented upwards, so that each centre line is crossed in [y1, y2).
            let (x1, y1, x2, y2) = if y1 < y2 {
                (x1, y1, x2, y2)
            } else if y1 > y2 {
                (x2, y2, x1, y1)
            } else {
                // A horizontal edge through the centres of a row: filled on its own when it runs leftwards, left to its
                // neighbours when it runs rightwards.
                let row = y1 - 0.5;
                if x1 > x2 && row >= 0.0 && row < height as f64 && row.fract() == 0.0 {
                    fill(row as usize, x2, x1);
                }
                continue;
            };
            // The rows whose centres lie in [y1, y2): y - 0.5 is exact for every y from 0.5 on, and below it there is no row.
            let (start, end) = (ceil(y1 - 0.5), ceil(y2 - 0.5).min(height as i32));
            scratch.cross(start, end, |y| (y - y1) * (x2 - x1) / (y2 - y1) + x1);
        }
    }
    scratch.end(fill);
}

/// The first of `width` columns whose centre is not left of `x`.
#[inline]
fn column(x: f64, width: usize) -> usize {
    // For what is not negative, a conversion is the floor; in 32 bits it is one instruction.
    ((x + 0.5).max(0.0) as i32 as usize).min(width)
}

/// Sets all bytes. Fields are some ten pixels wide, where a call of `memset` costs more than the bytes: two stores that
/// may overlap do for those.
#[inline]
pub(super) fn paint(span: &mut [u8], value: u8) {
    match span.len() {
        16..=32 => ends::<16>(span, value),
        8..=15 => ends::<8>(span, value),
        4..=7 => ends::<4>(span, value),
        _ => span.fill(value),
    }
}

#[inline]
fn ends<const N: usize>(span: &mut [u8], value: u8) {
    if let Some(first) = span.first_chunk_mut() {
        *first = [value; N];
    }
    if let Some(last) = span.last_chunk_mut() {
        *last = [value; N];
    }
}

/// The least whole number that is not below `v`, none below 0 and none beyond a thousand million. The processor that all
/// x86-64 have in common has no instruction for it, and a call for each edge is noticed.
fn ceil(v: f64) -> i32 {
    let v = v.clamp(0.0, 1e9);
    let below = v as i32;
    below + i32::from(f64::from(below) < v)
}

/// Buffers of [`burn`].
#[derive(Debug, Default)]
pub struct Scratch {
    /// Where edges meet the centres of each row: how many, and the first two. Most rows have no more.
    rows: Vec<(u32, [f64; 2])>,
    /// The others, with their rows.
    more: Vec<(usize, f64)>,
    /// All of one row that has more than two.
    all: Vec<f64>,
    /// Rows that have any.
    first: usize,
    end: usize,
}

impl Scratch {
    /// Makes room for a grid of `height` rows, none of which is crossed yet.
    fn begin(&mut self, height: usize) {
        self.rows.resize(height.max(self.rows.len()), (0, [0.0; 2]));
        (self.first, self.end) = (height, 0);
    }

    #[inline]
    fn cross(&mut self, start: i32, end: i32, x: impl Fn(f64) -> f64) {
        if start >= end {
            return;
        }
        let mut y = f64::from(start) + 0.5;
        let (start, end) = (start as usize, end as usize);
        self.first = self.first.min(start);
        self.end = self.end.max(end);
        for (row, (count, xs)) in (start..).zip(&mut self.rows[start..end]) {
            match xs.get_mut(*count as usize) {
                Some(place) => *place = x(y),
                None => self.more.push((row, x(y))),
            }
            *count += 1;
            y += 1.0;
        }
    }

    /// Calls `each` with every row and the ends of every span in it, and forgets them.
    fn end(&mut self, mut each: impl FnMut(usize, f64, f64)) {
        self.more.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(x.total_cmp(y)));
        let mut more = self.more.iter().peekable();
        for (row, crossed) in (self.first..self.end).zip(&mut self.rows[self.first.min(self.end)..]) {
            let (count, [a, b]) = std::mem::take(crossed);
            match count {
                0 | 1 => {}
                2 => each(row, a.min(b), a.max(b)),
                _ => {
                    self.all.clear();
                    self.all.extend([a, b]);
                    while let Some((_, x)) = more.next_if(|(at, _)| *at == row) {
                        self.all.push(*x);
                    }
                    self.all.sort_unstable_by(f64::total_cmp);
                    self.all.chunks_exact(2).for_each(|pair| each(row, pair[0], pair[1]));
                }
            }
        }
        self.more.clear();
    }
}

/// Pixels of each of `values` in a mask, without those that do not occur.
pub fn counts(mask: &[u8], values: impl IntoIterator<Item = u8>) -> Vec<(u8, u32)> {
    let count = |value| (value, count_u8(mask, value));
    values.into_iter().map(count).filter(|(_, n)| *n > 0).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRID: PixelGrid = PixelGrid { x0: 1000.0, y0: 2000.0, res: 10.0, width: 32, height: 32 };

    fn mask_of(xy: &[f64], starts: &[usize]) -> Vec<u8> {
        let mut mask = vec![0; 32 * 32];
        let mut shape = Polygon::default();
        for ring in starts.windows(2) {
            shape.push_ring(xy[2 * ring[0]..2 * ring[1]].as_chunks::<2>().0.iter().copied(), false);
        }
        let burnt = burn(&mut mask, &GRID, &shape, 7, &mut Scratch::default());
        assert_eq!(burnt > 0, mask.contains(&7));
        assert!(burnt as usize >= mask.iter().filter(|v| **v == 7).count());
        mask
    }

    /// A ring around pixels `c0..c1` x `r0..r1`, grown by `d` metres.
    fn square(c0: f64, r0: f64, c1: f64, r1: f64, d: f64) -> Vec<f64> {
        let (w, e) = (1000.0 + c0 * 10.0 - d, 1000.0 + c1 * 10.0 + d);
        let (n, s) = (2000.0 - r0 * 10.0 + d, 2000.0 - r1 * 10.0 - d);
        vec![w, n, e, n, e, s, w, s, w, n]
    }

    #[test]
    fn a_square_fills_the_pixels_whose_centres_it_holds() {
        let mask = mask_of(&square(4.0, 6.0, 8.0, 9.0, 4.9), &[0, 5]);
        assert_eq!(mask.iter().filter(|v| **v == 7).count(), 4 * 3);
        assert_eq!(mask[6 * 32 + 4], 7);
        assert_eq!(mask[6 * 32 + 3], 0);
        let wider = mask_of(&square(4.0, 6.0, 8.0, 9.0, 5.1), &[0, 5]);
        assert_eq!(wider.iter().filter(|v| **v == 7).count(), 6 * 5);
    }

    #[test]
    fn a_hole_stays_empty_and_a_second_part_is_filled() {
        let mut xy = square(2.0, 2.0, 20.0, 20.0, 0.0);
        xy.extend(square(5.0, 5.0, 10.0, 10.0, 0.0));
        xy.extend(square(25.0, 25.0, 27.0, 27.0, 0.0));
        let mask = mask_of(&xy, &[0, 5, 10, 15]);
        assert_eq!(mask.iter().filter(|v| **v == 7).count(), 18 * 18 - 25 + 4);
    }

    #[test]
    fn what_lies_outside_leaves_the_mask_alone() {
        assert!(mask_of(&square(40.0, 2.0, 50.0, 5.0, 0.0), &[0, 5]).iter().all(|v| *v == 0));
        assert!(mask_of(&square(2.0, -9.0, 5.0, -3.0, 0.0), &[0, 5]).iter().all(|v| *v == 0));
        let cover = mask_of(&square(-100.0, -100.0, 100.0, 100.0, 0.0), &[0, 5]);
        assert!(cover.iter().all(|v| *v == 7));
    }

    #[test]
    fn values_are_counted_alike_or_not() {
        let mask: Vec<u8> = (0..100u8).map(|i| if i < 50 { 3 } else { i / 5 }).collect();
        assert_eq!(counts(&mask, [0, 3, 10, 19]), [(3, 50), (10, 5), (19, 5)]);
    }

    /// Edges through centres, just below and just above them; the lower one runs leftwards.
    #[test]
    fn centres_on_an_edge_are_inside() {
        for (d, top, bottom) in [(0.0f64, 5, 8), (1e-9, 6, 8), (-1e-9, 5, 7)] {
            let y = |row: f64| 2000.0 - (row + 0.5) * 10.0 - d;
            let xy = [1100.0, y(5.0), 1200.0, y(5.0), 1200.0, y(8.0), 1100.0, y(8.0)];
            let mask = mask_of(&xy, &[0, 4]);
            let rows: Vec<usize> = (0..32).filter(|row| mask[row * 32 + 15] == 7).collect();
            assert_eq!((rows.first(), rows.last()), (Some(&top), Some(&bottom)), "{d}");
        }
    }

    #[test]
    fn broken_rings_do_nothing() {
        assert!(mask_of(&[], &[0]).iter().all(|v| *v == 0));
        assert!(mask_of(&[1100.0, 1900.0, 1120.0, 1900.0], &[0, 2]).iter().all(|v| *v == 0));
        mask_of(&[f64::NAN, 1900.0, 1120.0, f64::INFINITY, 1150.0, 1800.0], &[0, 3]);
    }

    proptest! {
        /// The rows of an edge, held against the definition, with ends on centres and next to them.
        #[test]
        fn rows_of_an_edge_are_those_whose_centres_it_passes(
            ends in prop::array::uniform2((-40i32..600, -3i32..4, -1.0..1.0f64)),
        ) {
            let [y1, y2] = ends.map(|(halves, ulps, off)| {
                let on = f64::from(halves) / 2.0;
                let beside = (0..ulps.abs()).fold(on, |y, _| if ulps < 0 { y.next_down() } else { y.next_up() });
                if ulps == 3 { on + off } else { beside }
            });
            let by_definition: Vec<i32> = (0..300).filter(|row| (y1..y2).contains(&(f64::from(*row) + 0.5))).collect();
            prop_assert_eq!((ceil(y1 - 0.5)..ceil(y2 - 0.5).min(300)).collect::<Vec<_>>(), by_definition);
        }

        /// Even-odd by ray casting at each pixel centre, written independently of the scanline.
        #[test]
        fn equals_point_in_polygon(points in prop::collection::vec((990.0..1330.0f64, 1670.0..2010.0f64), 3..12)) {
            let xy: Vec<f64> = points.iter().flat_map(|p| [p.0, p.1]).collect();
            let mask = mask_of(&xy, &[0, points.len()]);
            for row in 0..32 {
                for col in 0..32 {
                    let (x, y) = (1005.0 + f64::from(col) * 10.0, 1995.0 - f64::from(row) * 10.0);
                    let mut inside = false;
                    let mut close = false;
                    for i in 0..points.len() {
                        let (a, b) = (points[i], points[(i + 1) % points.len()]);
                        if (a.1 > y) != (b.1 > y) {
                            let at = (y - a.1) * (b.0 - a.0) / (b.1 - a.1) + a.0;
                            inside ^= at < x;
                            close |= (at - x).abs() < 1e-6;
                        }
                        close |= (a.1 - y).abs() < 1e-6;
                    }
                    if !close {
                        prop_assert_eq!(mask[row as usize * 32 + col as usize] == 7, inside, "pixel {} {}", row, col);
                    }
                }
            }
        }
    }
}
