//! Field outlines: convex pieces of blocks, split, drawn in, and bent.
//!
//! Contract: pieces of one block never touch once drawn in by more than nothing, and bending keeps it so, because
//! [`bend`] moves the plane, not the field. Units: metres in the region's local plane (x east, y north).
//! Trap: [`split`] and [`draw_in`] need convex counter-clockwise rings without a repeated last point; [`bend`] returns
//! an open ring too.

use super::noise::{Rng, smooth};

/// A point of the local plane.
pub(super) type Point = [f64; 2];
/// An open ring, counter-clockwise if it is an outer one.
pub(super) type Ring = Vec<Point>;

/// Signed area, positive when counter-clockwise.
pub(super) fn area(ring: &[Point]) -> f64 {
    edges(ring).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>() / 2.0
}

/// Area centroid.
pub(super) fn centroid(ring: &[Point]) -> Point {
    // Relative to a corner: far from the origin the products would lose digits.
    let [ox, oy] = ring[0];
    let (mut x, mut y, mut twice) = (0.0, 0.0, 0.0);
    for (a, b) in edges(ring) {
        let (ax, ay, bx, by) = (a[0] - ox, a[1] - oy, b[0] - ox, b[1] - oy);
        let cross = ax * by - bx * ay;
        x += (ax + bx) * cross;
        y += (ay + by) * cross;
        twice += cross;
    }
    [ox + x / (3.0 * twice), oy + y / (3.0 * twice)]
}

fn edges(ring: &[Point]) -> impl Iterator<Item = (Point, Point)> {
    (0..ring.len()).map(|i| (ring[i], ring[(i + 1) % ring.len()]))
}

/// The part of a convex ring where `normal . p >= offset`.
fn clip(ring: &[Point], normal: Point, offset: f64) -> Ring {
    let side = |p: Point| normal[0] * p[0] + normal[1] * p[1] - offset;
    let mut kept = Ring::with_capacity(ring.len() + 1);
    for (a, b) in edges(ring) {
        let (sa, sb) = (side(a), side(b));
        if sa >= 0.0 {
            kept.push(a);
        }
        if (sa < 0.0) != (sb < 0.0) {
            let t = sa / (sa - sb);
            kept.push([a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t]);
        }
    }
    kept
}

/// Cuts a block across its long axis until no piece is larger than about `target` square metres.
pub(super) fn split(block: Ring, target: f64, rng: &mut Rng) -> Vec<Ring> {
    let mut done = Vec::new();
    let mut left = vec![block];
    while let Some(piece) = left.pop() {
        if area(&piece) <= target * rng.range(0.7, 1.15) || piece.len() < 3 {
            done.push(piece);
            continue;
        }
        let c = centroid(&piece);
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for [x, y] in &piece {
            let (dx, dy) = (x - c[0], y - c[1]);
            xx += dx * dx;
            yy += dy * dy;
            xy += dx * dy;
        }
        let long_axis = 0.5 * (2.0 * xy).atan2(xx - yy) + rng.range(-0.18, 0.18);
        let normal = [long_axis.cos(), long_axis.sin()];
        let along = |p: &Point| normal[0] * p[0] + normal[1] * p[1];
        let low = piece.iter().map(along).fold(f64::INFINITY, f64::min);
        let high = piece.iter().map(along).fold(f64::NEG_INFINITY, f64::max);
        let at = low + (high - low) * rng.range(0.36, 0.64);
        left.push(clip(&piece, normal, at));
        left.push(clip(&piece, [-normal[0], -normal[1]], -at));
    }
    done
}

/// A convex ring with every edge moved inwards by `margin` metres; empty if nothing is left.
pub(super) fn draw_in(ring: &[Point], margin: f64) -> Ring {
    let mut inner = ring.to_vec();
    for (a, b) in edges(ring) {
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = dx.hypot(dy);
        if length < 1e-6 {
            continue;
        }
        let inward = [-dy / length, dx / length];
        inner = clip(&inner, inward, inward[0] * a[0] + inward[1] * a[1] + margin);
        if inner.len() < 3 {
            return Ring::new();
        }
    }
    inner
}

/// A pond or farmstead about a point: `radius` metres, clockwise as holes are.
pub(super) fn pond(at: Point, radius: f64, rng: &mut Rng) -> Ring {
    let corners = 9;
    let turn = rng.range(0.0, std::f64::consts::TAU);
    let corner = |i: i32, r: f64| {
        let angle = turn - std::f64::consts::TAU * f64::from(i) / f64::from(corners);
        [at[0] + r * angle.cos(), at[1] + r * angle.sin()]
    };
    (0..corners).map(|i| corner(i, radius * rng.range(0.7, 1.0))).collect()
}

/// Puts a vertex at least every 30 m and bends the plane under the ring: straight edges become field edges.
pub(super) fn bend(ring: &[Point], seed: u64) -> Ring {
    let mut bent = Ring::new();
    for (a, b) in edges(ring) {
        let steps = ((b[0] - a[0]).hypot(b[1] - a[1]) / 30.0).ceil().max(1.0);
        for step in 0..steps as u32 {
            let t = f64::from(step) / steps;
            bent.push(moved([a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t], seed));
        }
    }
    bent
}

/// Where bending takes a point. The slopes stay well below 1, so no two points meet.
fn moved([x, y]: Point, seed: u64) -> Point {
    let push = |seed: u64| {
        28.0 * f64::from(smooth(seed, x / 320.0, y / 320.0)) + 2.2 * f64::from(smooth(seed ^ 1, x / 45.0, y / 45.0))
    };
    [x + push(seed ^ 0x51), y + push(seed ^ 0xa3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Ring {
        vec![[0.0, 0.0], [900.0, 50.0], [880.0, 950.0], [-20.0, 900.0]]
    }

    #[test]
    fn pieces_fill_the_block() {
        let pieces = split(block(), 30_000.0, &mut Rng::new(1));
        let sum: f64 = pieces.iter().map(|p| area(p)).sum();
        assert!((sum - area(&block())).abs() < 1e-3 && pieces.len() > 10);
        assert!(pieces.iter().all(|p| area(p) > 0.0 && area(p) < 34_501.0));
    }

    #[test]
    fn drawing_in_moves_every_edge() {
        let square = vec![[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]];
        assert!((area(&draw_in(&square, 1.0)) - 64.0).abs() < 1e-9);
        assert!(draw_in(&square, 6.0).is_empty());
        assert_eq!(centroid(&square), [5.0, 5.0]);
    }

    #[test]
    fn bending_keeps_the_sense_and_most_of_the_area() {
        let bent = bend(&block(), 5);
        assert!(bent.len() > 100);
        assert!((area(&bent) / area(&block()) - 1.0).abs() < 0.2);
        assert!(area(&pond([0.0, 0.0], 20.0, &mut Rng::new(1))) < 0.0);
    }
}
