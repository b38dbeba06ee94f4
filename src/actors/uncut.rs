//! A chip's window that is ready to be cut: every block it needs is held in memory.
//!
//! Contract: travels from the pixels stage to the rasteriser, which cuts where it encodes, so that a chip's pixels are
//! used while they are warm and need no queue. The pixels stage waits for the [`Verdict`], because a chip that is refused
//! goes to its next scene. Trap: whoever answers lets go of the chip's share of the task first unless it keeps the chip;
//! else the pixels stage may not be the last to give its share back, and the chip would count as vanished.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::blocks::Files;
use crate::adapters::imagery::block::Samples;
use crate::adapters::imagery::cut::Cut;
use crate::domain::harmonise::Offset;
use crate::domain::pixels::{Limits, Refused, Shares, is_plain, judge};

/// What becomes of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The rasteriser has the chip.
    Taken,
    /// The scene is no use for it.
    Refused(Refused),
    /// A block is missing.
    Unreadable,
}

/// The window.
pub struct Uncut {
    /// The bands' files, in order.
    pub files: Files,
    /// Their blocks, by file and number.
    pub blocks: Arc<Vec<HashMap<u32, Arc<Samples>>>>,
    /// Where the window lies in each file.
    pub cuts: Vec<Arc<Cut>>,
    /// Pixels per band.
    pub size: usize,
    /// What is subtracted from every DN.
    pub offset: Offset,
    /// What the chip may hold of what nobody wants.
    pub limits: Limits,
    /// Who waits for the verdict.
    pub verdict: oneshot::Sender<Verdict>,
}

impl Uncut {
    /// Cuts one band into `plane`, (rows, cols), DN, and harmonises it, if there is nothing to judge in it: it says false
    /// when there is, and then `plane` is of no use.
    ///
    /// # Errors
    /// When a block is missing.
    pub fn plain(&self, band: usize, plane: &mut [u16]) -> Result<bool, Verdict> {
        self.copy(band, plane)?;
        let plain = is_plain(plane);
        if plain {
            self.offset.subtract_from(plane);
        }
        Ok(plain)
    }

    /// Cuts the window into `pixels`, in place of what that holds: (bands, rows, cols), DN, judged and harmonised.
    ///
    /// # Errors
    /// Why there is no chip in it; what `pixels` holds is then of no use.
    pub fn cut(&self, pixels: &mut Vec<u16>) -> Result<Shares, Verdict> {
        // Every pixel is written, or the chip is not made.
        pixels.resize(self.size * self.cuts.len(), 0);
        for (band, plane) in pixels.chunks_exact_mut(self.size).enumerate() {
            self.copy(band, plane)?;
        }
        judge(pixels, self.size, self.offset, &self.limits).map_err(Verdict::Refused)
    }

    fn copy(&self, band: usize, plane: &mut [u16]) -> Result<(), Verdict> {
        let parts = self.files.get(band).zip(self.blocks.get(band)).zip(self.cuts.get(band));
        let copied = parts.and_then(|(((cog, _), blocks), cut)| cut.copy(cog, blocks, plane));
        copied.ok_or(Verdict::Unreadable)
    }

    /// Tells the pixels stage, and lets go of the blocks.
    pub fn answer(self, verdict: Verdict) {
        // Nobody listens when the task was cancelled.
        let _ = self.verdict.send(verdict);
    }
}
