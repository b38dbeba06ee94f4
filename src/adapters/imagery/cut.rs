//! Cutting a chip window out of the decoded blocks of one band.
//!
//! Contract: the window is given on the chip's grid (10 m); a band of any other resolution on the same
//! axes is resampled for that window only. `Nearest` takes the source pixel that holds the centre of
//! the chip pixel; `Bilinear` weighs the four neighbouring source pixels as GDAL's RasterIO does, with
//! nodata (0) left out of the weights and edges clamped, rounded half up.
//! Trap: an odd 10 m origin starts in the middle of a 20 m pixel.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::block::Samples;
use super::header::Cog;
use crate::domain::scene::PixelGrid;
use crate::domain::window::source_index;

/// How a coarser band is brought to the chip's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// Nearest neighbour: repeats source pixels.
    Nearest,
    /// Bilinear between pixel centres.
    Bilinear,
}

/// Rows and columns of a band that a window needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    rows: Axis,
    cols: Axis,
}

/// One axis: for each chip pixel, the first source pixel, and with bilinear the second and its weight.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    first: Vec<u32>,
    second: Vec<(u32, f64)>,
    /// Whether every source pixel comes twice, but for one at either end, as when a 20 m band meets a 10 m grid.
    doubled: bool,
    /// First and last source pixel used.
    span: (u32, u32),
}

impl Axis {
    fn new(offset: f64, chip: &PixelGrid, size: u32, source_res: f64, count: u32, how: Resampling) -> Option<Self> {
        let nearest = source_index(offset, chip.res, size, source_res, count)?;
        if how == Resampling::Nearest || source_res <= chip.res {
            return Some(Self::of(doubled(&nearest), nearest, Vec::new()));
        }
        let clamp = |at: f64| at.clamp(0.0, f64::from(count - 1)) as u32;
        let pairs = (0..size).map(|i| {
            let centre = (offset + (f64::from(i) + 0.5) * chip.res) / source_res - 0.5;
            let low = centre.floor();
            (clamp(low), (clamp(low + 1.0), centre - low))
        });
        let (first, second) = pairs.unzip();
        Some(Self::of(false, first, second))
    }

    fn of(doubled: bool, first: Vec<u32>, second: Vec<(u32, f64)>) -> Self {
        let all = first.iter().copied().chain(second.iter().map(|s| s.0));
        let span = all.fold((u32::MAX, 0), |(low, high), v| (low.min(v), high.max(v)));
        Self { first, second, doubled, span }
    }
}

/// Whether `cols` is `a, a, a+1, a+1, …`, where the first and the last may stand alone.
fn doubled(cols: &[u32]) -> bool {
    let odd = u32::from(cols.len() > 1 && cols[0] != cols[1]);
    cols.len() > 2 && cols.iter().zip(0..).all(|(col, i)| *col == cols[0] + (i + odd) / 2)
}

impl Cut {
    /// The cut of `chip` out of a band on `band`; `None` when the window leaves the band.
    pub fn new(band: &PixelGrid, chip: &PixelGrid, how: Resampling) -> Option<Self> {
        let cols = Axis::new(chip.x0 - band.x0, chip, chip.width, band.res, band.width, how)?;
        let rows = Axis::new(band.y0 - chip.y0, chip, chip.height, band.res, band.height, how)?;
        Some(Self { rows, cols })
    }

    /// Numbers of the blocks of `cog` that hold the needed pixels, ascending.
    pub fn blocks(&self, cog: &Cog) -> impl Iterator<Item = u32> + use<> {
        let ((top, bottom), (left, right)) = (self.rows.span, self.cols.span);
        let columns = left / cog.block_width..=right / cog.block_width;
        let across = cog.across();
        (top / cog.block_height..=bottom / cog.block_height)
            .flat_map(move |down| columns.clone().map(move |column| down * across + column))
    }

    /// Writes the window, row-major, into `out` (`rows * cols` samples); `None` when a block is missing
    /// from `blocks`.
    pub fn copy(&self, cog: &Cog, blocks: &HashMap<u32, Arc<Samples>>, out: &mut [u16]) -> Option<()> {
        let rows = self.rows.span;
        if self.cols.second.is_empty() {
            self.copy_nearest(&Reader::new(cog, blocks, rows, &self.cols.first)?, out)
        } else {
            let (left, right) = self.cols.span;
            let span: Vec<u32> = (left..=right).collect();
            self.copy_bilinear(&Reader::new(cog, blocks, rows, &span)?, left, out)
        }
    }

    fn copy_nearest(&self, reader: &Reader<'_>, out: &mut [u16]) -> Option<()> {
        let width = self.cols.first.len();
        let mut before = None;
        for (i, &row) in self.rows.first.iter().enumerate() {
            let at = i * width;
            if before == Some(row) {
                out.copy_within(at - width..at, at);
            } else {
                reader.row(row, self.cols.doubled, &mut out[at..at + width])?;
            }
            before = Some(row);
        }
        Some(())
    }

    /// `reader` reads all columns from `left` on.
    fn copy_bilinear(&self, reader: &Reader<'_>, left: u32, out: &mut [u16]) -> Option<()> {
        let (mut upper, mut lower) = (vec![0u16; reader.cols.len()], vec![0u16; reader.cols.len()]);
        let width = self.cols.first.len();
        let mut held = None;
        for (i, (&top, &(bottom, down))) in self.rows.first.iter().zip(&self.rows.second).enumerate() {
            if held != Some((top, bottom)) {
                reader.row(top, false, &mut upper)?;
                reader.row(bottom, false, &mut lower)?;
                held = Some((top, bottom));
            }
            let line = &mut out[i * width..(i + 1) * width];
            for (pixel, (&a, &(b, across))) in line.iter_mut().zip(self.cols.first.iter().zip(&self.cols.second)) {
                let (a, b) = ((a - left) as usize, (b - left) as usize);
                let corners = [
                    (upper[a], (1.0 - down) * (1.0 - across)),
                    (upper[b], (1.0 - down) * across),
                    (lower[a], down * (1.0 - across)),
                    (lower[b], down * across),
                ];
                *pixel = weigh(corners);
            }
        }
        Some(())
    }
}

/// Weighted mean of the valid corners, upper two first, rounded half up; 0 when the nearest ones are all nodata. As GDAL
/// does: first along each row, where the valid corner speaks for the other one, then between the rows.
fn weigh(corners: [(u16, f64); 4]) -> u16 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for row in corners.chunks_exact(2) {
        let valid = row.iter().filter(|(v, _)| *v != 0);
        let (s, w) = valid.fold((0.0, 0.0), |(s, w), (v, k)| (s + f64::from(*v) * k, w + k));
        if w > 0.0 {
            let whole = row[0].1 + row[1].1;
            // Undivided where nothing is missing, so that halves stay halves.
            sum += if w == whole { s } else { s / w * whole };
            weight += whole;
        }
    }
    if weight > 0.0 { (sum / weight + 0.5).floor() as u16 } else { 0 }
}

/// Some columns of a band, out of the blocks that hold them.
struct Reader<'a> {
    block_width: usize,
    block_height: u32,
    /// Columns, ascending.
    cols: &'a [u32],
    /// Columns of one block each, from the left: which ones, and the block's own first column.
    runs: Vec<(Range<usize>, u32)>,
    /// The blocks of each run, row of blocks by row of blocks from `top` on.
    tiles: Vec<&'a Samples>,
    top: u32,
}

impl<'a> Reader<'a> {
    /// A reader of the rows from `top` to `bottom`; `None` when a block is missing.
    fn new(
        cog: &Cog,
        blocks: &'a HashMap<u32, Arc<Samples>>,
        (top, bottom): (u32, u32),
        cols: &'a [u32],
    ) -> Option<Self> {
        let (bw, bh) = (cog.block_width, cog.block_height);
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < cols.len() {
            let across = cols[at] / bw;
            let end = at + cols[at..].partition_point(|c| c / bw == across);
            runs.push((at..end, across * bw));
            at = end;
        }
        let (top, bottom) = (top / bh, bottom / bh);
        let numbers = (top..=bottom).flat_map(|down| runs.iter().map(move |run| down * cog.across() + run.1 / bw));
        let tiles = numbers.map(|number| blocks.get(&number).map(|b| &**b)).collect::<Option<_>>()?;
        Some(Self { block_width: bw as usize, block_height: bh, cols, runs, tiles, top })
    }

    /// The columns of source row `row`; `doubled`: what [`doubled`] says of them.
    fn row(&self, row: u32, doubled: bool, out: &mut [u16]) -> Option<()> {
        let start = (row % self.block_height) as usize * self.block_width;
        let line = start..start + self.block_width;
        let tiles = &self.tiles[(row / self.block_height - self.top) as usize * self.runs.len()..];
        for ((run, first), tile) in self.runs.iter().zip(tiles) {
            let (cols, out) = (&self.cols[run.clone()], &mut out[run.clone()]);
            match tile {
                Samples::U16(v) => copy_run(v.get(line.clone())?, *first, cols, doubled, out),
                Samples::U8(v) => {
                    let line = v.get(line.clone())?;
                    for (o, c) in out.iter_mut().zip(cols) {
                        *o = u16::from(line[(c - first) as usize]);
                    }
                }
            }
        }
        Some(())
    }
}

/// Copies `cols` of a block's row: straight when they are neighbours, pair by pair when each comes twice.
fn copy_run(line: &[u16], first: u32, cols: &[u32], doubled: bool, out: &mut [u16]) {
    let (start, last) = ((cols[0] - first) as usize, (cols[cols.len() - 1] - first) as usize);
    if last - start + 1 == cols.len() {
        out.copy_from_slice(&line[start..=last]);
    } else if doubled {
        let alone = usize::from(cols[0] != cols[1]);
        out[..alone].fill(line[start]);
        let (pairs, rest) = out[alone..].as_chunks_mut::<2>();
        pairs.iter_mut().zip(&line[start + alone..]).for_each(|(pair, v)| *pair = [*v; 2]);
        rest.fill(line[last]);
    } else {
        for (o, c) in out.iter_mut().zip(cols) {
            *o = line[(c - first) as usize];
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::header::{Codec, Sample};
    use super::*;

    /// A band of 8 x 6 pixels in blocks of 4 x 4 whose pixel (row, col) is `100 * row + col + 1`.
    fn band(res: f64) -> (Cog, PixelGrid, HashMap<u32, Arc<Samples>>) {
        let grid = PixelGrid { x0: 0.0, y0: 0.0, res, width: 8, height: 6 };
        let cog = Cog {
            href: String::new(),
            width: 8,
            height: 6,
            sample: Sample::U16,
            codec: Codec::None,
            differences: false,
            big_endian: false,
            block_width: 4,
            block_height: 4,
            strips: false,
            blocks: vec![0..0; 4],
            grid: Some(grid),
            epsg: None,
        };
        let block = |b: u32| {
            let pixel = |i: u32| (100 * ((b / 2) * 4 + i / 4) + (b % 2) * 4 + i % 4 + 1) as u16;
            Arc::new(Samples::U16((0..16).map(pixel).collect()))
        };
        (cog, grid, (0..4).map(|b| (b, block(b))).collect())
    }

    fn cut(res: f64, chip: PixelGrid, how: Resampling) -> Vec<u16> {
        let (cog, grid, blocks) = band(res);
        let cut = Cut::new(&grid, &chip, how).unwrap();
        let needed: Vec<u32> = cut.blocks(&cog).collect();
        let blocks = blocks.into_iter().filter(|(b, _)| needed.contains(b)).collect();
        let mut out = vec![0; (chip.width * chip.height) as usize];
        cut.copy(&cog, &blocks, &mut out).unwrap();
        out
    }

    #[test]
    fn same_resolution_over_four_blocks() {
        let chip = PixelGrid { x0: 30.0, y0: -30.0, res: 10.0, width: 2, height: 2 };
        assert_eq!(cut(10.0, chip, Resampling::Nearest), [304, 305, 404, 405]);
    }

    #[test]
    fn twice_coarser_from_an_odd_origin() {
        let chip = PixelGrid { x0: 70.0, y0: -10.0, res: 10.0, width: 3, height: 3 };
        assert_eq!(cut(20.0, chip, Resampling::Nearest), [4, 5, 5, 104, 105, 105, 104, 105, 105]);
    }

    #[test]
    fn pairs_and_their_halves_at_the_ends_are_recognised() {
        for yes in [&[3, 3, 4, 4][..], &[3, 4, 4, 5], &[3, 3, 4], &[3, 4, 4]] {
            assert!(doubled(yes), "{yes:?}");
        }
        for no in [&[3, 4, 5][..], &[3, 3, 3, 4], &[3, 3, 4, 5], &[3, 3, 5, 5], &[3, 3], &[3], &[]] {
            assert!(!doubled(no), "{no:?}");
        }
    }

    #[test]
    fn every_origin_and_width_gives_the_pixels_under_the_centres() {
        // Runs of one pixel, pairs cut in two by the edge between the blocks, odd and even ends.
        for x0 in 0..14u32 {
            for width in 1..=(16 - x0).min(9) {
                let chip = PixelGrid { x0: f64::from(x0) * 10.0, y0: -10.0, res: 10.0, width, height: 2 };
                let line = |row: u32| (x0..x0 + width).map(move |x| (100 * row + x / 2 + 1) as u16);
                let wanted: Vec<u16> = line(0).chain(line(1)).collect();
                assert_eq!(cut(20.0, chip, Resampling::Nearest), wanted, "{x0} {width}");
            }
        }
    }

    #[test]
    fn bilinear_is_a_quarter_and_three_quarters() {
        let chip = PixelGrid { x0: 20.0, y0: -20.0, res: 10.0, width: 2, height: 2 };
        // Source values 1..: (row 0, col 0) = 1; centres at 0.75 and 1.25 source pixels from the origin.
        let at = |r: f64, c: f64| (100.0 * r + c + 1.0 + 0.5_f64).floor() as u16;
        assert_eq!(
            cut(20.0, chip, Resampling::Bilinear),
            [at(0.75, 0.75), at(0.75, 1.25), at(1.25, 0.75), at(1.25, 1.25)]
        );
    }

    #[test]
    fn bilinear_leaves_nodata_out() {
        assert_eq!(weigh([(0, 0.5625), (100, 0.1875), (0, 0.1875), (200, 0.0625)]), 125);
        assert_eq!(weigh([(0, 0.5625), (0, 0.1875), (0, 0.1875), (0, 0.0625)]), 0);
        // As read with rasterio: 0.75 x (0.75 x 1385 + 0.25 x 1356) + 0.25 x 1443.
        assert_eq!(weigh([(1385, 0.5625), (1356, 0.1875), (1443, 0.1875), (0, 0.0625)]), 1394);
    }

    #[test]
    fn a_window_beyond_the_band_has_no_cut() {
        let (_, grid, _) = band(10.0);
        let chip = PixelGrid { x0: 70.0, y0: 0.0, res: 10.0, width: 2, height: 2 };
        assert!(Cut::new(&grid, &chip, Resampling::Nearest).is_none());
    }
}
