//! A whole file at a glance: its smallest overview.
//!
//! Contract: one small read for the header, and usually one for the pixels (a 10 m band of a tile has an overview of
//! 686 x 686 pixels, about 0.5 MB). A file whose smallest level is larger than [`MOST_BYTES`] is sampled in three of its
//! blocks. Nothing goes through the block cache, whose keys know only the full level.
//! Units: pixels of the level that was read. Trap: overviews of bands are averages, those of classes nearest neighbours.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::block::Samples;
use super::header::{Cog, Level};
use super::{Imagery, ImageryError, fetch_and_decode, ranges};
use crate::domain::harmonise::Sample;

/// Largest level that is read whole, decoded bytes.
pub const MOST_BYTES: usize = 4 << 20;

/// Pixels of the smallest level.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// Rows of the level.
    pub rows: u32,
    /// Columns of the level.
    pub cols: u32,
    /// What was read of it: row, column, value.
    pub pixels: Vec<(u32, u32, u16)>,
}

impl Overview {
    /// The pixels with their places as shares of height and width, x first.
    pub fn samples(&self) -> Vec<Sample> {
        let share = |at: u32, count: u32| (f64::from(at) + 0.5) / f64::from(count);
        self.pixels.iter().map(|(row, col, value)| (share(*col, self.cols), share(*row, self.rows), *value)).collect()
    }

    /// The level as rows and columns, 0 where nothing was read; `None` for one that was only sampled.
    pub fn raster(&self) -> Option<Vec<u16>> {
        let size = self.rows as usize * self.cols as usize;
        (self.pixels.len() == size).then(|| {
            let mut raster = vec![0; size];
            for (row, col, value) in &self.pixels {
                raster[*row as usize * self.cols as usize + *col as usize] = *value;
            }
            raster
        })
    }
}

impl Imagery {
    /// The smallest level of the file at `href`.
    ///
    /// # Errors
    /// As [`Imagery::open`]; the first block that cannot be had or decoded.
    pub async fn overview(&self, href: &str) -> Result<Overview, ImageryError> {
        let cog = Arc::new(Cog::open_level(&*self.source, href, Level::Smallest).await?);
        let count = cog.blocks.len() as u32;
        let bytes: usize = (0..count).map(|b| cog.decoded_bytes(b)).sum();
        let wanted: Vec<u32> =
            if bytes <= MOST_BYTES { (0..count).collect() } else { vec![count / 4, count / 2, count * 3 / 4] };
        let ranges = wanted.iter().filter_map(|b| Some((*b, cog.blocks.get(*b as usize)?.clone()))).collect();
        let read =
            |request| fetch_and_decode(self.source.clone(), self.cpu.clone(), self.stats.clone(), cog.clone(), request);
        let answers = join_all(ranges::coalesce(ranges).into_iter().map(read)).await;
        let mut blocks: HashMap<u32, Arc<Samples>> = HashMap::new();
        for (index, result) in answers.into_iter().flatten() {
            blocks.insert(index, result?);
        }
        let mut pixels = Vec::new();
        for index in wanted {
            if let Some(block) = blocks.get(&index) {
                copy(&cog, index, block, &mut pixels);
            }
        }
        Ok(Overview { rows: cog.height, cols: cog.width, pixels })
    }
}

/// The pixels of one block that lie in the image; blocks at its right and lower edge are padded.
fn copy(cog: &Cog, index: u32, block: &Samples, out: &mut Vec<(u32, u32, u16)>) {
    let (top, left) = (index / cog.across() * cog.block_height, index % cog.across() * cog.block_width);
    let rows = cog.rows_of(index).min(cog.height.saturating_sub(top));
    let cols = cog.block_width.min(cog.width.saturating_sub(left));
    for row in 0..rows {
        let start = row as usize * cog.block_width as usize;
        for col in 0..cols {
            let at = start + col as usize;
            let value = match block {
                Samples::U8(v) => v.get(at).map(|v| u16::from(*v)),
                Samples::U16(v) => v.get(at).copied(),
            };
            out.extend(value.map(|v| (top + row, left + col, v)));
        }
    }
}
