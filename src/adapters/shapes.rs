//! What GEOS knows about polygons: whether they are valid, a valid one of the same ground, and the ground away from
//! their edges.
//!
//! Contract: polygons in, polygons out; lines and points that a repair leaves over are dropped. Valid is what the OGC
//! simple features call so: rings that do not cross themselves or each other, holes inside their shells. A repair keeps
//! what any of the shells goes round, less what any of the holes does (GEOS's method "structure"). Units: those of the
//! coordinates. Trap: the even-odd rule calls less of a shape inside, where a shell goes round twice or two parts overlap.

use gdal::cpl::CslStringList;
use gdal::vector::{Geometry, OGRwkbGeometryType};

use super::parcels::blob;
use crate::domain::polygon::Polygon;
use crate::domain::simple::is_plainly_simple;

/// Length of a blob's header without an envelope.
const BARE_HEADER: [u8; 8] = [b'G', b'P', 0, 1, 0, 0, 0, 0];

/// Points per quarter of the arcs that an erosion draws.
const ARC_POINTS: u32 = 8;

/// Whether a shape is valid; one that GEOS cannot read is not. It is asked about what is not plain to see.
pub fn is_valid(shape: &Polygon) -> bool {
    is_plainly_simple(shape) || geos_calls_valid(shape)
}

fn geos_calls_valid(shape: &Polygon) -> bool {
    geometry(shape).is_some_and(|g| g.is_valid())
}

/// The same ground as a valid shape; `None` when nothing with an area is left.
pub fn repaired(shape: &Polygon) -> Option<Polygon> {
    let mut options = CslStringList::new();
    options.set_name_value("METHOD", "STRUCTURE").ok()?;
    polygon(&geometry(shape)?.make_valid(&options).ok()?)
}

/// The ground at least `distance` away from the shape's edges; `None` when there is none.
pub fn eroded(shape: &Polygon, distance: f64) -> Option<Polygon> {
    polygon(&geometry(shape)?.buffer(-distance, ARC_POINTS).ok()?)
}

fn geometry(shape: &Polygon) -> Option<Geometry> {
    let mut closed = Polygon::default();
    for (ring, hole) in shape.rings() {
        let open = ring.first() != ring.last();
        closed.push_ring(ring.iter().copied().chain(ring.first().copied().filter(|_| open)), hole);
    }
    let blob = blob::encode(&closed, 0);
    let envelope = if closed.is_empty() { 0 } else { 32 };
    Geometry::from_wkb(blob.get(BARE_HEADER.len() + envelope..)?).ok()
}

/// The polygons of a geometry.
fn polygon(geometry: &Geometry) -> Option<Polygon> {
    let mut found = Polygon::default();
    collect(geometry, &mut found);
    (!found.is_empty() && found.area() > 0.0).then_some(found)
}

fn collect(geometry: &Geometry, into: &mut Polygon) {
    if geometry.geometry_type() == OGRwkbGeometryType::wkbPolygon {
        let Ok(wkb) = geometry.wkb() else { return };
        let (blob, mut part) = ([&BARE_HEADER[..], &wkb].concat(), Polygon::default());
        if blob::parse(&blob, &mut part).is_ok() {
            part.rings().for_each(|(ring, hole)| into.push_ring(ring.iter().copied(), hole));
        }
        return;
    }
    for part in 0..geometry.geometry_count() {
        // Parts of multipolygons and collections; a line or a point has none.
        if !matches!(
            geometry.geometry_type(),
            OGRwkbGeometryType::wkbLineString | OGRwkbGeometryType::wkbMultiLineString
        ) {
            collect(&geometry.get_geometry(part), into);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn square(x: f64, y: f64, side: f64) -> [[f64; 2]; 5] {
        [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    }

    #[test]
    fn a_bow_tie_becomes_two_triangles() {
        let bow_tie = Polygon::from_ring([[0.0, 0.0], [10.0, 10.0], [10.0, 0.0], [0.0, 10.0]]);
        assert!(!is_valid(&bow_tie));
        let repaired = repaired(&bow_tie).unwrap();
        assert!(is_valid(&repaired) && repaired.rings().count() == 2);
        assert!((repaired.area() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_hole_across_its_shell_and_a_spike_are_mended() {
        let mut crossed = Polygon::from_ring(square(0.0, 0.0, 10.0));
        crossed.push_ring(square(8.0, 4.0, 4.0), true);
        assert!(!is_valid(&crossed));
        assert!((repaired(&crossed).unwrap().area() - (100.0 - 8.0)).abs() < 1e-9);
        let mut overlapping = Polygon::from_ring(square(0.0, 0.0, 10.0));
        overlapping.push_ring(square(5.0, 5.0, 10.0), false);
        assert!((repaired(&overlapping).unwrap().area() - 175.0).abs() < 1e-9, "two parts that overlap are one");
        let spike = [[0.0, 0.0], [10.0, 0.0], [10.0, 5.0], [30.0, 5.0], [10.0, 5.0], [10.0, 10.0], [0.0, 10.0]];
        let mended = repaired(&Polygon::from_ring(spike)).unwrap();
        assert!(is_valid(&mended) && (mended.area() - 100.0).abs() < 1e-9);
        assert_eq!(mended.envelope(), Some([0.0, 0.0, 10.0, 10.0]), "the line that sticks out is no ground");
    }

    #[test]
    fn nothing_is_left_of_a_line_and_of_a_strip_that_is_eroded_away() {
        assert_eq!(repaired(&Polygon::from_ring([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]])), None);
        assert_eq!(repaired(&Polygon::default()), None);
        let field = Polygon::from_ring(square(0.0, 0.0, 100.0));
        assert!((eroded(&field, 10.0).unwrap().area() - 6400.0).abs() < 1e-6);
        assert_eq!(eroded(&field, 50.5), None);
    }

    /// How often a ring goes round a point (Sunday's winding number).
    fn winding(points: &[(f64, f64)], [x, y]: [f64; 2]) -> i32 {
        let next = points.iter().cycle().skip(1);
        let turn = |((ax, ay), (bx, by)): (&(f64, f64), &(f64, f64))| {
            let left = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
            i32::from(*ay <= y && *by > y && left > 0.0) - i32::from(*ay > y && *by <= y && left < 0.0)
        };
        points.iter().zip(next).map(turn).sum()
    }

    proptest! {
        /// On a coarse lattice, so that many rings touch themselves, and with a little noise, so that many nearly do.
        #[test]
        fn what_is_plainly_simple_geos_calls_valid(
            points in prop::collection::vec((0..6i8, 0..6i8, -1..2i8), 3..9),
            noise in prop::sample::select(vec![0.0, 1e-3, 1e-9, 1e-15]),
            at in prop::sample::select(vec![0.0, 5e6]),
        ) {
            let place = |(x, y, n): &(i8, i8, i8)| [at + f64::from(*x) + f64::from(*n) * noise, f64::from(*y)];
            let shape = Polygon::from_ring(points.iter().map(place));
            prop_assert!(!is_plainly_simple(&shape) || geos_calls_valid(&shape));
        }

        /// Corners at rising angles around a place in the middle make a ring that does not touch itself.
        #[test]
        fn a_star_is_plainly_simple(reaches in prop::collection::vec(1.0..10.0f64, 5..60)) {
            let turn = std::f64::consts::TAU / reaches.len() as f64;
            let corner = |(i, reach): (usize, &f64)| {
                let angle = i as f64 * turn;
                [500_000.0 + reach * angle.cos(), 4_600_000.0 + reach * angle.sin()]
            };
            let star = Polygon::from_ring(reaches.iter().enumerate().map(corner));
            prop_assert!(is_plainly_simple(&star) && geos_calls_valid(&star));
        }

        /// Rings in general position, where no edge lies on another one.
        #[test]
        fn a_repair_keeps_what_the_ring_goes_round(points in prop::collection::vec((0.0..12.0f64, 0.0..12.0f64), 4..9)) {
            let shape = Polygon::from_ring(points.iter().map(|(x, y)| [*x, *y]));
            let repaired = repaired(&shape).unwrap_or_default();
            for i in 0..150 {
                let at = [f64::from(i % 15) * 0.83 + 0.0117, f64::from(i / 15) * 1.19 + 0.0273];
                prop_assert_eq!(winding(&points, at) != 0, repaired.contains(at), "{:?}", at);
            }
        }
    }
}
