//! The labelled parcels around a task, ready to be burnt into any window of one scene.
//!
//! Units: metres in the scene's CRS. Contract: parcels are burnt in ascending order of id, so where
//! parcels overlap the one with the higher id wins, whatever order they were read in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

use super::classes::ClassId;
use super::labels::{Scratch, burn, counts};
use super::polygon::{Envelope, Polygon};
use super::runs::{Placement, Runs};
use super::scene::PixelGrid;

/// A shape that has a place, with its box.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    shape: Polygon,
    bounds: Envelope,
    /// Its pixels on the lattice of the first window it was wanted in, unless there are too many.
    runs: OnceLock<Option<Runs>>,
}

impl Placed {
    /// `None` for a shape with a point that is nowhere, or with none.
    pub fn new(shape: Polygon) -> Option<Self> {
        let bounds = shape.envelope()?;
        shape.points().iter().flatten().all(|v| v.is_finite()).then_some(Self { shape, bounds, runs: OnceLock::new() })
    }

    /// What it takes in memory, its pixels included, bytes; those are a row each 10 m, as most shapes have it.
    pub fn bytes(&self) -> usize {
        let rows = ((self.bounds[3] - self.bounds[1]) / 10.0).clamp(1.0, 65_535.0) as usize + 1;
        size_of::<Self>() + size_of_val(self.shape.points()) + rows * size_of::<[u16; 3]>()
    }

    /// As [`burn`], with what earlier windows found out.
    fn burn(&self, mask: &mut [u8], grid: &PixelGrid, window: &Placement, value: u8, scratch: &mut Scratch) -> u32 {
        let runs = self.runs.get_or_init(|| Runs::of(&self.shape, self.bounds, window.lattice, scratch));
        let painted = runs.as_ref().and_then(|runs| runs.paint(mask, window, value));
        painted.unwrap_or_else(|| burn(mask, grid, &self.shape, value, scratch))
    }
}

/// A labelled shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Parcel id: the order of burning.
    pub id: i64,
    /// Value in the mask.
    pub class: ClassId,
    /// Shape in the scene's CRS.
    pub shape: Arc<Placed>,
}

/// What was burnt into a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Burnt {
    /// Ids of all parcels that were burnt, ascending, also of those over which later ones were burnt.
    pub parcels: Vec<i64>,
    /// Pixels of each value that occurs, ascending.
    pub pixels: Vec<(u8, u32)>,
}

/// Labels by place.
#[derive(Debug)]
pub struct LabelIndex {
    labels: Vec<Label>,
    tree: RTree<GeomWithData<Rectangle<[f64; 2]>, u32>>,
}

impl LabelIndex {
    /// Indexes labels.
    pub fn new(mut labels: Vec<Label>) -> Self {
        labels.sort_by_key(|l| l.id);
        let boxes = labels.iter().zip(0..).map(|(label, at)| {
            let [x0, y0, x1, y1] = label.shape.bounds;
            GeomWithData::new(Rectangle::from_corners([x0, y0], [x1, y1]), at)
        });
        let tree = RTree::bulk_load(boxes.collect());
        Self { labels, tree }
    }

    /// Places of the labels whose boxes meet a window, in order of id.
    fn met(&self, grid: &PixelGrid) -> Vec<u32> {
        let [x0, y0, x1, y1] = grid.bounds();
        let window = AABB::from_corners([x0, y0], [x1, y1]);
        let mut met: Vec<u32> = self.tree.locate_in_envelope_intersecting(window).map(|g| g.data).collect();
        met.sort_unstable();
        met
    }

    /// Burns the mask of a window into `mask`, (rows, cols), in place of what that holds: class of the parcel that holds each
    /// pixel's centre, `unlabelled` where there is none.
    pub fn burn(&self, grid: &PixelGrid, unlabelled: u8, mask: &mut Vec<u8>, scratch: &mut Scratch) -> Burnt {
        mask.clear();
        mask.resize(grid.width as usize * grid.height as usize, unlabelled);
        let (mut parcels, mut painted) = (Vec::new(), BTreeMap::new());
        let window = Placement::of(grid);
        for at in self.met(grid) {
            let label = &self.labels[at as usize];
            let pixels = label.shape.burn(mask, grid, &window, label.class.get(), scratch);
            if pixels > 0 {
                parcels.push(label.id);
                *painted.entry(label.class.get()).or_insert(0) += pixels;
            }
        }
        let bare = counts(mask, [unlabelled]);
        let all = bare.iter().map(|(_, n)| n).sum::<u32>() + painted.values().sum::<u32>();
        let pixels = if all as usize == mask.len() && !painted.contains_key(&unlabelled) {
            // No pixel was painted twice, so what was painted is what is there.
            bare.into_iter().chain(painted).collect::<BTreeMap<u8, u32>>().into_iter().collect()
        } else {
            counts(mask, painted.into_keys().chain([unlabelled]).collect::<BTreeSet<u8>>())
        };
        Burnt { parcels, pixels }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Fields side by side and over each other, one of them perhaps of the value that means nothing.
        #[test]
        fn pixels_are_counted_as_they_are_in_the_mask(
            fields in prop::collection::vec((0u8..16, 0u8..16, 1u8..8, 1u8..8, 1u8..5), 0..6),
            unlabelled in prop::sample::select(vec![0u8, 3, 255]),
        ) {
            let grid = PixelGrid { x0: 0.0, y0: 0.0, res: 10.0, width: 16, height: 16 };
            let labels = (0..).zip(fields).map(|(id, (col, row, width, height, class))| {
                let [w, n, e, s] = [col, row, col + width, row + height].map(|at| f64::from(at) * 10.0);
                let shape = Placed::new(Polygon::from_ring([[w, -n], [e, -n], [e, -s], [w, -s]])).unwrap();
                Label { id, class: class.try_into().unwrap(), shape: Arc::new(shape) }
            });
            let mut mask = Vec::new();
            let burnt = LabelIndex::new(labels.collect()).burn(&grid, unlabelled, &mut mask, &mut Scratch::default());
            let mut wanted = BTreeMap::new();
            mask.iter().for_each(|value| *wanted.entry(*value).or_insert(0) += 1);
            prop_assert_eq!(burnt.pixels, wanted.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_shape_with_a_point_nowhere_is_no_label() {
        let grid = PixelGrid { x0: 0.0, y0: 0.0, res: 10.0, width: 4, height: 4 };
        for nowhere in [f64::NAN, f64::INFINITY] {
            let ring = [[0.0, 0.0], [40.0, 0.0], [nowhere, -20.0], [40.0, -40.0], [0.0, -40.0]];
            assert_eq!(Placed::new(Polygon::from_ring(ring)), None);
        }
        assert_eq!(Placed::new(Polygon::default()), None);
        for unlabelled in [0, 255] {
            let mut mask = vec![7; 99];
            let burnt = LabelIndex::new(Vec::new()).burn(&grid, unlabelled, &mut mask, &mut Scratch::default());
            assert_eq!((mask, burnt.parcels), (vec![unlabelled; 16], vec![]));
            assert_eq!(burnt.pixels, [(unlabelled, 16)]);
        }
    }

    #[test]
    fn the_higher_id_wins_whatever_the_order() {
        let grid = PixelGrid { x0: 0.0, y0: 0.0, res: 10.0, width: 4, height: 1 };
        let label = |id, class: u8, x0: f64, x1: f64| Label {
            id,
            class: class.try_into().unwrap(),
            shape: Arc::new(Placed::new(Polygon::from_ring([[x0, 5.0], [x1, 5.0], [x1, -15.0], [x0, -15.0]])).unwrap()),
        };
        let (a, b, far) = (label(1, 3, 0.0, 30.0), label(2, 5, 20.0, 40.0), label(3, 8, 900.0, 990.0));
        for labels in [vec![a.clone(), b.clone(), far.clone()], vec![far, b, a]] {
            let index = LabelIndex::new(labels);
            let mut mask = Vec::new();
            let burnt = index.burn(&grid, 0, &mut mask, &mut Scratch::default());
            assert_eq!((mask, burnt.parcels), (vec![3, 3, 5, 5], vec![1, 2]));
            assert_eq!(burnt.pixels, [(3, 2), (5, 2)]);
        }
    }
}
