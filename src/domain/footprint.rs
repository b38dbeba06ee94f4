//! Where a scene has pixels: the polygons of its item's geometry.
//!
//! Units: degrees (lon, lat). Contract: holes are not kept (scenes have none), so the answers err towards "may have
//! pixels there". Bounded: at most [`MAX_POINTS`] points; a geometry with more is not kept at all.
//! Trap: GeoJSON cuts polygons at the antimeridian, so no ring crosses it.

/// Points a footprint may have; real ones have 5 to some dozens. Keeps a remembered scene below 10 kB.
pub const MAX_POINTS: usize = 500;

/// Outer rings in degrees.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    rings: Vec<Vec<[f64; 2]>>,
}

impl Footprint {
    /// From outer rings (closed or not); `None` if a ring has fewer than three points, or a number is not finite, or
    /// there are no rings or too many points.
    pub fn new(rings: Vec<Vec<[f64; 2]>>) -> Option<Self> {
        let points: usize = rings.iter().map(Vec::len).sum();
        let sound = rings.iter().all(|r| r.len() >= 3 && r.iter().flatten().all(|v| v.is_finite()));
        (sound && !rings.is_empty() && points <= MAX_POINTS).then_some(Self { rings })
    }

    /// Whether a point is inside (even-odd rule).
    pub fn holds(&self, lon: f64, lat: f64) -> bool {
        self.rings.iter().any(|ring| edges(ring).filter(|(a, b)| crosses_ray(*a, *b, lon, lat)).count() % 2 == 1)
    }

    /// Whether it shares a point with the closed box `[west, south, east, north]`: an edge meets the box, or one of
    /// the two lies inside the other.
    pub fn touches(&self, bbox: [f64; 4]) -> bool {
        let [w, s, ..] = bbox;
        self.rings.iter().any(|ring| edges(ring).any(|(a, b)| segment_meets_box(a, b, bbox))) || self.holds(w, s)
    }
}

/// Edges of a ring, the closing one included.
fn edges(ring: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
    ring.iter().copied().zip(ring.iter().copied().cycle().skip(1))
}

/// Whether the edge crosses the ray that leaves the point eastwards.
fn crosses_ray(a: [f64; 2], b: [f64; 2], x: f64, y: f64) -> bool {
    (a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]
}

/// Liang-Barsky clipping: whether any of the segment is left inside the box.
fn segment_meets_box(a: [f64; 2], b: [f64; 2], [w, s, e, n]: [f64; 4]) -> bool {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let (mut from, mut to) = (0.0_f64, 1.0_f64);
    for (p, q) in [(-dx, a[0] - w), (dx, e - a[0]), (-dy, a[1] - s), (dy, n - a[1])] {
        if p == 0.0 {
            if q < 0.0 {
                return false;
            }
        } else if p < 0.0 {
            from = from.max(q / p);
        } else {
            to = to.min(q / p);
        }
    }
    from <= to
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// A triangle, as an orbit's edge leaves of a tile.
    fn triangle() -> Footprint {
        Footprint::new(vec![vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]).unwrap()
    }

    #[test]
    fn a_cell_beyond_the_slanted_edge_is_not_touched() {
        assert!(!triangle().touches([0.8, 0.8, 0.9, 0.9]));
        assert!(triangle().touches([0.45, 0.45, 0.55, 0.55]), "the edge runs through it");
        assert!(triangle().touches([0.1, 0.1, 0.2, 0.2]), "wholly inside");
        assert!(triangle().touches([-1.0, -1.0, 2.0, 2.0]), "wholly around");
        assert!(!triangle().touches([1.1, 0.0, 1.2, 0.1]));
    }

    #[test]
    fn points() {
        assert!(triangle().holds(0.2, 0.2));
        assert!(!triangle().holds(0.8, 0.8));
        let two = Footprint::new(vec![
            vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
            vec![[5.0, 0.0], [6.0, 0.0], [6.0, 1.0], [5.0, 1.0]],
        ]);
        assert!(two.as_ref().unwrap().holds(5.5, 0.5));
        assert!(!two.unwrap().holds(3.0, 0.5));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Footprint::new(vec![]), None);
        assert_eq!(Footprint::new(vec![vec![[0.0, 0.0], [1.0, 0.0]]]), None);
        assert_eq!(Footprint::new(vec![vec![[0.0, f64::NAN], [1.0, 0.0], [1.0, 1.0]]]), None);
        assert_eq!(Footprint::new(vec![vec![[0.0, 0.0]; MAX_POINTS + 1]]), None);
    }
}
