//! Circular arcs as straight edges.
//!
//! Contract: an arc is cut into equal pieces of at most 4 degrees, OGR's default. The given points of the
//! string stay in the result: first, middle and last point of each arc lie on it exactly.
//! Trap: an arc whose first and last points coincide is a full circle around the middle of first and second.

use std::f64::consts::TAU;

/// Most that one piece of an arc turns, radians.
const STEP: f64 = TAU / 90.0;

/// Turns a circular string (3, 5, 7, … points; every second one is where an arc passes through) into straight
/// edges.
pub(super) fn linearise(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut out: Vec<[f64; 2]> = points.first().copied().into_iter().collect();
    for arc in points.windows(3).step_by(2) {
        push_arc([arc[0], arc[1], arc[2]], &mut out);
    }
    out
}

/// Adds everything after the arc's first point.
fn push_arc([a, b, c]: [[f64; 2]; 3], out: &mut Vec<[f64; 2]>) {
    match centre(a, b, c) {
        Some(centre) => {
            let [from, via, to] = [a, b, c].map(|p| (p[1] - centre[1]).atan2(p[0] - centre[0]));
            let turn = |start: f64, end: f64| (end - start).rem_euclid(TAU);
            let anticlockwise = a == c || turn(from, via) <= turn(from, to);
            for (p, q, start, end) in [(a, b, from, via), (b, c, via, to)] {
                let angle = if anticlockwise { turn(start, end) } else { -turn(end, start) };
                push_half([p, q], centre, start, angle, out);
            }
        }
        None => out.extend([b, c]),
    }
}

/// Adds the points between `p` and `q`, then `q`.
fn push_half([p, q]: [[f64; 2]; 2], centre: [f64; 2], start: f64, angle: f64, out: &mut Vec<[f64; 2]>) {
    let radius = (p[0] - centre[0]).hypot(p[1] - centre[1]);
    let pieces = (angle.abs() / STEP).ceil().max(1.0);
    for i in 1..pieces as u32 {
        let (sin, cos) = (start + angle * f64::from(i) / pieces).sin_cos();
        out.push([centre[0] + radius * cos, centre[1] + radius * sin]);
    }
    out.push(q);
}

/// Centre of the circle through three points; `None` when they lie on a line.
fn centre(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> Option<[f64; 2]> {
    let (bx, by) = (b[0] - a[0], b[1] - a[1]);
    if a == c {
        return (a != b).then_some([a[0] + bx / 2.0, a[1] + by / 2.0]);
    }
    let (cx, cy) = (c[0] - a[0], c[1] - a[1]);
    let twice_area = 2.0 * (bx * cy - by * cx);
    let (b2, c2) = (bx * bx + by * by, cx * cx + cy * cy);
    let centre = [a[0] + (cy * b2 - by * c2) / twice_area, a[1] + (bx * c2 - cx * b2) / twice_area];
    // Points nearly on a line have a centre so far away that the arc is a straight edge.
    let flat = twice_area.abs() <= 1e-12 * b2.max(c2);
    (!flat && centre[0].is_finite() && centre[1].is_finite()).then_some(centre)
}
