//! The question that neighbouring tasks have in common.
//!
//! Contract: a query's box is widened to whole blocks of some degrees, so that all cells of a block ask the same thing
//! and one search serves them; what is too much is sorted out afterwards. Units: blocks of `step` degrees, counted from
//! (0, 0). Trap: a cell's edge is `i * step` in floating point and may lie a hair beyond the block's edge; a shrink of
//! 1e-9 degrees (0.1 mm) keeps such a cell in one block.

use crate::domain::season::Interval;

const HAIR: f64 = 1e-9;

/// Identifies one search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Neighbourhood {
    blocks: [i32; 4],
    pub(super) interval: Interval,
    cloud_bits: Option<u64>,
    pub(super) collections: Vec<String>,
}

impl Neighbourhood {
    /// The blocks of `step` degrees that a box lies in.
    pub(super) fn of(
        bbox: [f64; 4],
        step: f64,
        interval: Interval,
        max_cloud: Option<f64>,
        collections: &[String],
    ) -> Self {
        let [w, s, e, n] = bbox;
        let low = |v: f64| ((v + HAIR) / step).floor() as i32;
        let high = |v: f64, low: i32| (((v - HAIR) / step).ceil() as i32).max(low + 1);
        let (west, south) = (low(w), low(s));
        let blocks = [west, south, high(e, west), high(n, south)];
        let mut collections = collections.to_vec();
        collections.sort();
        Self { blocks, interval, cloud_bits: max_cloud.map(f64::to_bits), collections }
    }

    /// Its box, `[west, south, east, north]` in degrees.
    pub(super) fn bbox(&self, step: f64) -> [f64; 4] {
        let [w, s, e, n] = self.blocks.map(|b| f64::from(b) * step);
        [w.max(-180.0), s.max(-90.0), e.min(180.0), n.min(90.0)]
    }

    /// Cloud bound of the search, percent.
    pub(super) fn max_cloud(&self) -> Option<f64> {
        self.cloud_bits.map(f64::from_bits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::season::Season;

    fn of(bbox: [f64; 4]) -> Neighbourhood {
        let may = Season::new("may", "2023-05-01", "2023-05-31").unwrap().interval;
        Neighbourhood::of(bbox, 0.5, may, Some(20.0), &["b".into(), "a".into()])
    }

    #[test]
    fn all_cells_of_a_block_share_a_search() {
        let keys: std::collections::HashSet<_> = (-10..0)
            .flat_map(|x| (800..810).map(move |y| (f64::from(x), f64::from(y))))
            .map(|(x, y)| of([x * 0.05, y * 0.05, (x + 1.0) * 0.05, (y + 1.0) * 0.05]))
            .collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys.iter().next().unwrap().bbox(0.5), [-0.5, 40.0, 0.0, 40.5]);
    }

    #[test]
    fn the_world_has_an_edge() {
        assert_eq!(of([179.9, 89.9, 180.0, 90.0]).bbox(0.5), [179.5, 89.5, 180.0, 90.0]);
        assert_eq!(of([-180.0, -90.0, -179.9, -89.9]).bbox(0.7), [-180.0, -90.0, -0.7 * 359.0, -0.7 * 179.0]);
    }

    proptest! {
        #[test]
        fn the_search_holds_the_query(w in -179.0..178.0f64, s in -89.0..88.0f64, dx in 1e-6..1.0f64, dy in 1e-6..1.0f64) {
            let [bw, bs, be, bn] = of([w, s, w + dx, s + dy]).bbox(0.5);
            prop_assert!(bw <= w + 2.0 * HAIR && bs <= s + 2.0 * HAIR);
            prop_assert!(be >= w + dx - 2.0 * HAIR && bn >= s + dy - 2.0 * HAIR);
            prop_assert!(be - bw <= dx + 1.0 + 1e-6);
        }
    }
}
