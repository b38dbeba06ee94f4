//! Which chips train, validate and test: by blocks of land, with a buffer between.
//!
//! Contract: the answer depends on the set of chips and the settings, not on the order of the chips. A chip's block
//! draws its split by hash. Then test chips stay, a validation chip in conflict with a test chip goes to the buffer, and
//! so does a training chip in conflict with a test chip or with a validation chip that stayed: what is scarce is kept,
//! what is plentiful gives way. Two chips are in conflict when they share a pixel, lie closer than the buffer, or show
//! the same parcel ([`SharedParcels`]).
//! Memory: below 200 bytes per chip, and 16 per parcel that a validation or test chip shows.
//! Trap: a later chip can move an earlier training chip into the buffer, never into another split.

use std::collections::HashMap;

use rstar::primitives::GeomWithData;
use rstar::{PointDistance, RTree};
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::quad::Quad;

/// Overlaps up to this deep are rounding between zones, not pixels, metres.
pub const TOUCH_M: f64 = 0.05;

/// Where a chip belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Fits the model.
    Train,
    /// Chooses among models.
    Val,
    /// Judges the chosen one.
    Test,
    /// Too near to a chip of another split: used by none.
    Buffer,
}

impl Split {
    /// The three that are used.
    pub const USED: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// Name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::Buffer => "buffer",
        }
    }
}

/// What decides the split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitSettings {
    /// Seed of the draw.
    pub seed: u64,
    /// Edge of a block, km.
    pub block_km: f64,
    /// Share of blocks for validation, 0 to 1.
    pub val_share: f64,
    /// Share of blocks for testing, 0 to 1; the rest trains.
    pub test_share: f64,
    /// Least distance between chips of different splits, metres.
    pub buffer_m: f64,
}

impl SplitSettings {
    /// What the block draws.
    pub fn draw(&self, block: Block) -> Split {
        let at = block.hash01(self.seed);
        match at {
            _ if at < self.test_share => Split::Test,
            _ if at < self.test_share + self.val_share => Split::Val,
            _ => Split::Train,
        }
    }

    /// Whether chips with this gap (see [`Quad::gap`]) may not be in different splits.
    pub fn too_near(&self, gap: f64) -> bool {
        gap < if self.buffer_m > 0.0 { self.buffer_m } else { -TOUCH_M }
    }
}

type Tree = RTree<GeomWithData<[f64; 3], u32>>;

/// Middles of the chips of one split; the data are positions in `quads`.
pub(super) fn tree(quads: &[Quad], splits: &[Split], of: Split) -> Tree {
    let of = quads.iter().zip(splits).zip(0u32..).filter(|((_, split), _)| **split == of);
    RTree::bulk_load(of.map(|((quad, _), at)| GeomWithData::new(quad.centre(), at)).collect())
}

/// Sends the chips that are too near to chips of a scarcer split to the buffer. `drawn` is what the blocks drew.
pub fn separate(quads: &[Quad], drawn: &[Split], settings: &SplitSettings) -> Vec<Split> {
    let mut splits = drawn.to_vec();
    let widest = quads.iter().map(Quad::radius).fold(0.0, f64::max);
    let reach = |quad: &Quad| (quad.radius() + widest + settings.buffer_m).powi(2);
    let near = |tree: &Tree, quad: &Quad| {
        let mut around = tree.locate_within_distance(quad.centre(), reach(quad));
        around.any(|other| settings.too_near(quad.gap(&quads[other.data as usize])))
    };
    let tests = tree(quads, drawn, Split::Test);
    for (quad, split) in quads.iter().zip(&mut splits) {
        if matches!(split, Split::Val | Split::Train) && near(&tests, quad) {
            *split = Split::Buffer;
        }
    }
    let vals = tree(quads, &splits, Split::Val);
    for (quad, split) in quads.iter().zip(&mut splits) {
        if *split == Split::Train && near(&vals, quad) {
            *split = Split::Buffer;
        }
    }
    splits
}

/// Parcels that validation and test chips show, and who else shows them.
#[derive(Debug, Default)]
pub struct SharedParcels {
    seen: HashMap<i64, u8>,
}

const VAL: u8 = 1;
const TEST: u8 = 2;
const KEPT: u8 = 4;

impl SharedParcels {
    /// Remembers the parcels of a chip by what its block drew.
    pub fn see(&mut self, drawn: Split, parcels: &[i64]) {
        let bit = match drawn {
            Split::Val => VAL,
            Split::Test => TEST,
            Split::Train | Split::Buffer => return,
        };
        for parcel in parcels {
            *self.seen.entry(*parcel).or_default() |= bit;
        }
    }

    /// The split of a chip that has come through [`separate`], now that all chips were seen.
    pub fn resolve(&self, split: Split, parcels: &[i64]) -> Split {
        let scarcer = match split {
            Split::Train => VAL | TEST,
            Split::Val => TEST,
            Split::Test | Split::Buffer => return split,
        };
        let shared = parcels.iter().any(|p| self.seen.get(p).is_some_and(|bits| bits & scarcer != 0));
        if shared { Split::Buffer } else { split }
    }

    /// Notes where a parcel finally shows; for [`Self::shared`].
    pub fn settle(&mut self, split: Split, parcels: &[i64]) {
        let bit = match split {
            Split::Train => KEPT,
            Split::Val => KEPT << 1,
            Split::Test => KEPT << 2,
            Split::Buffer => return,
        };
        // A parcel that no validation or test chip drew cannot be in two splits.
        for parcel in parcels {
            if let Some(bits) = self.seen.get_mut(parcel) {
                *bits |= bit;
            }
        }
    }

    /// Parcels that show in chips of two splits, counted from what was settled.
    pub fn shared(&self) -> u64 {
        self.seen.values().filter(|bits| (**bits / KEPT).count_ones() > 1).count() as u64
    }

    /// Parcels remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// The nearest two chips of two splits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nearest {
    /// Gap in metres (see [`Quad::gap`]); negative when they overlap.
    pub metres: f64,
    /// Positions of the two.
    pub chips: [usize; 2],
}

/// The nearest chips of splits `a` and `b`; `None` when one of them has none. Found anew from the outlines, not from
/// how the split was made.
pub fn nearest(quads: &[Quad], splits: &[Split], a: Split, b: Split) -> Option<Nearest> {
    let count = |of| splits.iter().filter(|s| **s == of).count();
    let (few, many) = if count(a) <= count(b) { (a, b) } else { (b, a) };
    let tree = tree(quads, splits, few);
    let widest = quads.iter().map(Quad::radius).fold(0.0, f64::max);
    let mut best: Option<Nearest> = None;
    for (at, quad) in quads.iter().enumerate().filter(|(at, _)| splits[*at] == many) {
        for other in tree.nearest_neighbor_iter(quad.centre()) {
            let chord = other.distance_2(&quad.centre()).sqrt();
            if best.is_some_and(|b| chord - quad.radius() - widest > b.metres) {
                break;
            }
            let metres = quad.gap(&quads[other.data as usize]);
            if best.is_none_or(|b| metres < b.metres) {
                let (here, there) = (at, other.data as usize);
                best = Some(Nearest { metres, chips: [here.min(there), here.max(there)] });
            }
        }
    }
    best
}

/// Pairs of chips of two different splits that overlap.
pub fn overlapping(quads: &[Quad], splits: &[Split]) -> u64 {
    let widest = quads.iter().map(Quad::radius).fold(0.0, f64::max);
    let mut pairs = 0;
    for scarce in [Split::Val, Split::Test] {
        let tree = tree(quads, splits, scarce);
        // Each pair once: training against both, validation against testing.
        let others = quads.iter().zip(splits).filter(|(_, s)| **s < scarce);
        for (quad, _) in others {
            let near = tree.locate_within_distance(quad.centre(), (quad.radius() + widest).powi(2));
            pairs += near.filter(|other| quad.gap(&quads[other.data as usize]) < -TOUCH_M).count() as u64;
        }
    }
    pairs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "split_tests.rs"]
mod tests;
