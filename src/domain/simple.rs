//! Shapes that are plainly simple: one ring that nowhere touches itself.
//!
//! Contract: [`is_plainly_simple`] never says yes to a ring that crosses, touches or folds back on itself; it says no to
//! whatever it cannot tell: holes, parts, repeated points, long rings, edges too near each other for its arithmetic. Such a
//! shape is valid by the rules of the OGC's simple features, and most parcels are such; a topology library is for the rest.
//! The bound of rounding is that of J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric
//! Predicates" (1997), the first of orient2d, rounded up. Trap: "no" means "ask somebody else", not "invalid".

use super::polygon::Polygon;

/// Longest ring that is looked at: each edge is held against each other one.
const MOST_POINTS: usize = 64;

/// A determinant larger than this share of its two products has the sign it seems to have: (3 + 16 e) e with
/// e = 2^-53 is 3.4e-16.
const CERTAIN: f64 = 1e-15;

type Point = [f64; 2];

/// Whether a shape is certainly one ring that does not touch itself.
pub fn is_plainly_simple(shape: &Polygon) -> bool {
    let mut rings = shape.rings();
    let (Some((ring, false)), None) = (rings.next(), rings.next()) else { return false };
    let ring = match ring {
        [first, inner @ .., last] if first == last => &ring[..=inner.len()],
        ring => ring,
    };
    let n = ring.len();
    if !(3..=MOST_POINTS).contains(&n) || ring.iter().flatten().any(|v| !v.is_finite()) {
        return false;
    }
    let edge = |i: usize| (ring[i], ring[if i + 1 == n { 0 } else { i + 1 }]);
    let mut boxes = [[0.0; 4]; MOST_POINTS];
    for (i, place) in boxes[..n].iter_mut().enumerate() {
        let (a, b) = edge(i);
        *place = [a[0].min(b[0]), a[1].min(b[1]), a[0].max(b[0]), a[1].max(b[1])];
        let (_, next) = edge(if i + 1 == n { 0 } else { i + 1 });
        if !goes_on(a, b, next) {
            return false;
        }
    }
    for i in 0..n {
        let [w, s, e, north] = boxes[i];
        // The neighbours on both sides share a point with it.
        let others = i + 2..if i == 0 { n - 1 } else { n };
        for j in others {
            let [ow, os, oe, on] = boxes[j];
            let beside = (e < ow) | (oe < w) | (north < os) | (on < s);
            if !beside && !are_apart(edge(i), edge(j)) {
                return false;
            }
        }
    }
    true
}

/// Whether the way from `a` over `b` to `c` turns, or goes on, but certainly does not come back.
fn goes_on(a: Point, b: Point, c: Point) -> bool {
    if side(a, b, c).is_some() {
        return true;
    }
    let ([ax, ay], [cx, cy]) = ([b[0] - a[0], b[1] - a[1]], [c[0] - b[0], c[1] - b[1]]);
    let (x, y) = (ax * cx, ay * cy);
    x + y > CERTAIN * (x.abs() + y.abs())
}

/// Whether one of two edges lies certainly on one side of the other one's line.
fn are_apart((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let same = |one: Option<bool>, other: Option<bool>| one.is_some() && one == other;
    same(side(a, b, c), side(a, b, d)) || same(side(c, d, a), side(c, d, b))
}

/// Whether `c` lies to the left of the way from `a` to `b`; `None` where rounding might decide.
fn side(a: Point, b: Point, c: Point) -> Option<bool> {
    let (left, right) = ((a[0] - c[0]) * (b[1] - c[1]), (a[1] - c[1]) * (b[0] - c[0]));
    let turn = left - right;
    (turn.abs() > CERTAIN * (left.abs() + right.abs())).then_some(turn > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(ring: &[Point]) -> bool {
        is_plainly_simple(&Polygon::from_ring(ring.iter().copied()))
    }

    #[test]
    fn fields_are_and_what_touches_itself_is_not() {
        assert!(plainly(&[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]));
        assert!(plainly(&[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]]), "closed");
        assert!(plainly(&[[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [4.0, 4.0]]), "a point on a straight edge");
        assert!(plainly(&[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [2.0, 1.0], [0.0, 4.0]]), "a dent");
        for (why, ring) in [
            ("a bow tie", &[[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0]][..]),
            ("a spike", &[[0.0, 0.0], [4.0, 0.0], [9.0, 0.0], [4.0, 0.0], [4.0, 4.0]]),
            ("a dent as deep as the field", &[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [2.0, 0.0], [0.0, 4.0]]),
            ("a corner that is met again", &[[0.0, 0.0], [2.0, 2.0], [4.0, 0.0], [4.0, 4.0], [2.0, 2.0], [0.0, 4.0]]),
            ("a repeated point", &[[0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [4.0, 4.0]]),
            ("a line", &[[0.0, 0.0], [4.0, 0.0], [8.0, 0.0]]),
            ("a point nowhere", &[[0.0, 0.0], [f64::NAN, 0.0], [8.0, 1.0]]),
            ("two points", &[[0.0, 0.0], [4.0, 4.0]]),
        ] {
            assert!(!plainly(ring), "{why}");
        }
        let mut holed = Polygon::from_ring([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]]);
        assert!(is_plainly_simple(&holed));
        holed.push_ring([[2.0, 2.0], [3.0, 2.0], [3.0, 3.0]], true);
        assert!(!is_plainly_simple(&holed) && !is_plainly_simple(&Polygon::default()));
    }
}
