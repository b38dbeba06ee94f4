//! The way from degrees to metres within one square of a graticule, as a polynomial.
//!
//! Units: degrees in, those of the projected CRS out. Contract: a patch is made of PROJ's answers at 25 places and held
//! against 36 others; where it is not within [`TOLERANCE`] there is none, as where a datum grid's cells meet. A map
//! projection is so smooth that over a third of a degree a polynomial of the fourth degree in each direction leaves nothing
//! but PROJ's own rounding (3e-9 m in UTM from 36 to 70 degrees north), at a twentieth of its time.
//! The squares lie fast, so a shape comes out the same whoever asks, in whatever order. Trap: no use for points that must
//! agree with those that [`super::Transform::points`] has moved.

use crate::domain::polygon::Envelope;

/// Edge of a square, degrees.
const STEP: f64 = 0.2;
/// How far a patch reaches from the middle of its square, degrees: a field over the square's edge is still in it.
const REACH: f64 = 0.15;
/// Largest difference from PROJ, metres.
const TOLERANCE: f64 = 1e-7;
/// Places along each axis.
const N: usize = 5;
/// Places along each axis that a patch is held against.
const CHECKED: usize = 6;

/// A square of the graticule: numbers of its column and row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Square([i32; 2]);

impl Square {
    /// The square around the middle of a box in degrees, when the box does not leave its patch.
    pub(super) fn around([w, s, e, n]: Envelope) -> Option<Self> {
        let square = Self([(w + e) / 2.0, (s + n) / 2.0].map(|middle| (middle / STEP).floor() as i32));
        let [x, y] = square.middle();
        let inside = w >= x - REACH && e <= x + REACH && s >= y - REACH && n <= y + REACH;
        inside.then_some(square)
    }

    fn middle(self) -> [f64; 2] {
        self.0.map(|number| (f64::from(number) + 0.5) * STEP)
    }
}

/// The polynomial.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patch {
    middle: [f64; 2],
    /// Where the middle comes to lie; the polynomial is about what is left.
    origin: [f64; 2],
    /// Terms by power of the distance from the middle, first in x, then in y, in units of [`REACH`].
    terms: [[[f64; 2]; N]; N],
}

impl Patch {
    /// The patch of a square, with `ask` for PROJ, which moves points in place or says that one of them has no place.
    pub(super) fn fit(square: Square, ask: impl FnOnce(&mut [[f64; 2]]) -> bool) -> Option<Self> {
        let [x, y] = square.middle();
        let place = |u: f64, v: f64| [x + u * REACH, y + v * REACH];
        let nodes = nodes();
        let even = |i: usize| 2.0 * i as f64 / (CHECKED - 1) as f64 - 1.0;
        let asked = nodes.iter().flat_map(|u| nodes.iter().map(|v| place(*u, *v)));
        let mut checked: Vec<[f64; 2]> =
            (0..CHECKED * CHECKED).map(|i| place(even(i / CHECKED), even(i % CHECKED))).collect();
        let mut told: Vec<[f64; 2]> = asked.chain(checked.iter().copied()).collect();
        if !ask(&mut told) {
            return None;
        }
        let (at_nodes, wanted) = told.split_at(N * N);
        let origin = at_nodes[N * N / 2];
        let mut terms = [[[0.0; 2]; N]; N];
        for axis in 0..2 {
            let column =
                |i: usize| monomials(&nodes, std::array::from_fn(|j| at_nodes[i * N + j][axis] - origin[axis]));
            let columns: [[f64; N]; N] = std::array::from_fn(column);
            for j in 0..N {
                let row = monomials(&nodes, std::array::from_fn(|i| columns[i][j]));
                row.into_iter().zip(&mut terms).for_each(|(term, column)| column[j][axis] = term);
            }
        }
        let patch = Self { middle: [x, y], origin, terms };
        patch.apply(&mut checked);
        let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE;
        checked.iter().zip(wanted).all(|(a, b)| near(a[0], b[0]) && near(a[1], b[1])).then_some(patch)
    }

    /// Moves points of the patch in place.
    pub(super) fn apply(&self, points: &mut [[f64; 2]]) {
        for point in points {
            let [u, v] = [0, 1].map(|axis| (point[axis] - self.middle[axis]) / REACH);
            let next = |sum: [f64; 2], by: f64, term: [f64; 2]| [sum[0] * by + term[0], sum[1] * by + term[1]];
            let column = |terms: &[[f64; 2]; N]| terms.iter().rev().fold([0.0; 2], |sum, term| next(sum, v, *term));
            let sum = self.terms.iter().rev().fold([0.0; 2], |sum, terms| next(sum, u, column(terms)));
            *point = [self.origin[0] + sum[0], self.origin[1] + sum[1]];
        }
    }
}

/// Chebyshev's nodes on [-1, 1]: between them a polynomial strays least.
fn nodes() -> [f64; N] {
    std::array::from_fn(|i| (std::f64::consts::PI * (i as f64 + 0.5) / N as f64).cos())
}

/// The terms, by power, of the polynomial through `values` at `nodes`: Newton's divided differences, multiplied out.
fn monomials(nodes: &[f64; N], values: [f64; N]) -> [f64; N] {
    let mut differences = values;
    for order in 1..N {
        for i in (order..N).rev() {
            differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - order]);
        }
    }
    let mut terms = [0.0; N];
    for (node, difference) in nodes.iter().zip(differences).rev() {
        for power in (1..N).rev() {
            terms[power] = terms[power - 1] - node * terms[power];
        }
        terms[0] = difference - node * terms[0];
    }
    terms
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn square() -> Square {
        Square::around([-3.61, 41.0, -3.6, 41.01]).unwrap()
    }

    #[test]
    fn a_polynomial_of_its_own_degree_is_found() {
        let image = |[x, y]: [f64; 2]| {
            let (u, v) = (x + 3.5, y - 41.1);
            [5e5 + 8e4 * u - 3e3 * u * v * v + 700.0 * u.powi(4) * v.powi(3), 4e6 + 1e5 * v + 2e3 * u * u]
        };
        let ask = |points: &mut [[f64; 2]]| {
            points.iter_mut().for_each(|p| *p = image(*p));
            true
        };
        let patch = Patch::fit(square(), ask).unwrap();
        for i in 0..100 {
            let place = [-3.85 + 0.003 * f64::from(i), 40.95 + 0.003 * f64::from(i * 37 % 100)];
            let mut point = [place];
            patch.apply(&mut point);
            let wanted = image(place);
            assert!((point[0][0] - wanted[0]).abs() < 1e-8 && (point[0][1] - wanted[1]).abs() < 1e-8, "{place:?}");
        }
    }

    #[test]
    fn what_is_not_smooth_or_nowhere_has_no_patch() {
        let kinked = |points: &mut [[f64; 2]]| {
            points.iter_mut().for_each(|p| *p = [1e5 * p[0] + 1e-3 * (p[0] + 3.68).abs(), p[1]]);
            true
        };
        assert_eq!(Patch::fit(square(), kinked), None);
        assert_eq!(Patch::fit(square(), |_| false), None);
        let nowhere = |points: &mut [[f64; 2]]| {
            points.fill([f64::NAN; 2]);
            true
        };
        assert_eq!(Patch::fit(square(), nowhere), None);
    }

    #[test]
    fn squares_are_those_of_the_middle_and_wide_shapes_have_none() {
        assert_eq!(square(), Square([-19, 205]));
        assert_eq!(Square::around([-3.86, 41.0, -3.6, 41.0]), None);
        assert_eq!(Square::around([-0.01, -0.01, 0.005, 0.005]), Some(Square([-1, -1])));
        assert_eq!(Square::around([f64::NAN; 4]), None);
        assert_eq!(Square::around([1e300; 4]), None);
    }
}
