//! Which of the parcels drawn stay when chips' centres must keep a distance.
//!
//! Units: degrees for places, metres for distances. Source: the second thinning of Matern (1960), with the sampling
//! hash in place of random marks: a point stays unless another one nearer than the distance has a smaller mark.
//! Contract: what stays depends on the places and marks within the distance alone, so every cell can decide about its own
//! parcels when it knows those around it, and neighbours agree. No two that stay are nearer than the distance.
//! Trap: fewer stay than could: one that goes for a neighbour's sake goes even when that neighbour goes for another's.

use std::collections::HashMap;

use super::sampling::hash01;

/// Metres per degree along a meridian (mean over the ellipsoid).
const METRES_PER_DEGREE: f64 = 111_195.0;

/// A parcel that was drawn: its id and place `[lon, lat]`.
pub type Point = (i64, [f64; 2]);

/// Metres between two places, on a sphere, good to 1 % up to some tens of kilometres.
pub fn metres(a: [f64; 2], b: [f64; 2]) -> f64 {
    let scale = ((a[1] + b[1]) / 2.0).to_radians().cos();
    let turn = (a[0] - b[0] + 540.0).rem_euclid(360.0) - 180.0;
    (turn * scale).hypot(a[1] - b[1]) * METRES_PER_DEGREE
}

/// For each point, the id of one that it has to make way for.
pub fn makes_way(points: &[Point], seed: u64, distance: f64) -> HashMap<i64, i64> {
    let mut by_lat: Vec<Point> = points.to_vec();
    by_lat.sort_by(|a, b| a.1[1].total_cmp(&b.1[1]).then(a.0.cmp(&b.0)));
    let reach = distance / METRES_PER_DEGREE * 1.01;
    let mark = |id: i64| (hash01(seed, id), id);
    let mut lost = HashMap::new();
    for (i, (id, place)) in by_lat.iter().enumerate() {
        let later = by_lat[i + 1..].iter().take_while(|(_, other)| other[1] - place[1] <= reach);
        for (other, _) in later.filter(|(_, there)| metres(*place, *there) < distance) {
            let (loser, winner) = if mark(*id) < mark(*other) { (*other, *id) } else { (*id, *other) };
            // Of several the one with the smallest mark is named, whatever the order.
            let named = lost.entry(loser).or_insert(winner);
            if mark(winner) < mark(*named) {
                *named = winner;
            }
        }
    }
    lost
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_degree_is_as_long_as_on_the_ground() {
        assert!((metres([0.0, 41.0], [0.0, 42.0]) - 111_195.0).abs() < 1.0);
        assert!((metres([10.0, 60.0], [11.0, 60.0]) - 55_597.0).abs() < 60.0);
        assert!(metres([179.999, 0.0], [-179.999, 0.0]) < 230.0);
    }

    proptest! {
        #[test]
        fn those_who_stay_keep_their_distance_and_each_cell_can_decide_alone(
            places in prop::collection::vec((0.0..0.2f64, 41.0..41.1f64), 1..120),
            seed: u64,
        ) {
            let points: Vec<Point> = places.iter().zip(0..).map(|((x, y), id)| (id, [*x, *y])).collect();
            let lost = makes_way(&points, seed, 2000.0);
            let stay: Vec<&Point> = points.iter().filter(|(id, _)| !lost.contains_key(id)).collect();
            prop_assert!(!stay.is_empty());
            for (i, a) in stay.iter().enumerate() {
                prop_assert!(stay[i + 1..].iter().all(|b| metres(a.1, b.1) >= 2000.0));
            }
            for (loser, winner) in &lost {
                let at = |id: &i64| points[usize::try_from(*id).unwrap()].1;
                prop_assert!(metres(at(loser), at(winner)) < 2000.0);
            }
            // The western half, decided with what lies within the distance of it.
            let near: Vec<Point> = points.iter().filter(|p| p.1[0] < 0.1 + 0.03).copied().collect();
            let alone = makes_way(&near, seed, 2000.0);
            for (id, _) in points.iter().filter(|p| p.1[0] < 0.1) {
                prop_assert_eq!(lost.get(id), alone.get(id));
            }
        }
    }
}
