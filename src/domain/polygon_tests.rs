//! Tests of [`super::Polygon`].
use super::*;
use proptest::prelude::*;

fn square(x: f64, y: f64, side: f64) -> Vec<[f64; 2]> {
    vec![[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
}

fn reversed(mut ring: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    ring.reverse();
    ring
}

#[test]
fn area_and_centroid_count_holes_out_whatever_the_orientation() {
    for (outer, inner) in [
        (square(0.0, 0.0, 10.0), square(6.0, 6.0, 2.0)),
        (reversed(square(0.0, 0.0, 10.0)), square(6.0, 6.0, 2.0)),
        (square(0.0, 0.0, 10.0), reversed(square(6.0, 6.0, 2.0))),
    ] {
        let mut p = Polygon::from_ring(outer);
        p.push_ring(inner, true);
        assert!((p.area() - 96.0).abs() < 1e-12);
        let c = p.centroid().unwrap();
        let expected = (500.0 - 4.0 * 7.0) / 96.0;
        assert!((c[0] - expected).abs() < 1e-12 && (c[1] - expected).abs() < 1e-12, "{c:?}");
        assert_eq!(p.envelope(), Some([0.0, 0.0, 10.0, 10.0]));
        assert!(!p.contains([7.0, 7.0]) && p.contains([5.0, 5.0]) && !p.contains([11.0, 5.0]));
    }
}

#[test]
fn a_crescent_is_represented_by_the_middle_of_its_widest_span() {
    // A square bracket open to the right: its centroid lies in the opening.
    let c = [[0.0, 0.0], [9.0, 0.0], [9.0, 1.0], [1.0, 1.0], [1.0, 8.0], [9.0, 8.0], [9.0, 9.0], [0.0, 9.0]];
    let p = Polygon::from_ring(c);
    assert!(!p.contains(p.centroid().unwrap()));
    assert_eq!(p.representative_point(), Some([0.5, 4.5]));
}

#[test]
fn parts_above_and_below_fall_back_to_mid_height_and_then_to_the_largest_part() {
    let mut p = Polygon::from_ring(square(0.0, 0.0, 1.0));
    p.push_ring(square(0.0, 9.0, 1.0), false);
    assert_eq!(p.representative_point(), Some([0.5, 0.5]), "neither centroid nor mid-height meets a part");
    let mut p = Polygon::from_ring(square(0.0, 0.0, 4.0));
    p.push_ring(square(10.0, 0.0, 4.0), false);
    assert_eq!(p.representative_point(), Some([2.0, 2.0]), "the western of two equal spans");
}

#[test]
fn shapes_without_interior_have_no_representative_point() {
    assert_eq!(Polygon::default().representative_point(), None);
    assert_eq!(Polygon::from_ring([[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]]).representative_point(), None);
    assert_eq!(Polygon::from_ring([[1.0, 1.0]; 4]).representative_point(), None);
    assert_eq!(Polygon::from_ring([[0.0, 3.0], [5.0, 3.0], [9.0, 3.0], [0.0, 3.0]]).representative_point(), None);
}

#[test]
fn a_bow_tie_without_net_area_still_has_a_point_inside() {
    let p = Polygon::from_ring([[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0]]);
    assert_eq!(p.area(), 0.0);
    let point = p.representative_point().unwrap();
    assert!(p.contains(point), "{point:?}");
}

#[test]
fn large_coordinates_keep_their_digits() {
    let p = Polygon::from_ring(square(4_000_000.0, 6_000_000.0, 0.1));
    assert!((p.area() - 0.01).abs() < 1e-9);
    let c = p.centroid().unwrap();
    assert!((c[0] - 4_000_000.05).abs() < 1e-8 && (c[1] - 6_000_000.05).abs() < 1e-8);
}

#[test]
fn rings_without_points_are_ignored_and_clearing_keeps_nothing() {
    let mut p = Polygon::default();
    p.push_ring([], false);
    assert!(p.is_empty() && p.envelope().is_none());
    p.push_ring(square(0.0, 0.0, 1.0), false);
    p.push_ring([], true);
    assert_eq!(p.rings().count(), 1);
    p.clear();
    assert_eq!(p, Polygon::default());
}

/// Simple polygons: points around a centre at growing angles.
fn star() -> impl Strategy<Value = Polygon> {
    (prop::collection::vec(0.1..100.0f64, 3..40), -1e6..1e6f64, -1e6..1e6f64).prop_map(|(radii, x, y)| {
        let n = radii.len() as f64;
        Polygon::from_ring(radii.into_iter().enumerate().map(move |(i, r)| {
            let (sin, cos) = (std::f64::consts::TAU * i as f64 / n).sin_cos();
            [x + r * cos, y + r * sin]
        }))
    })
}

proptest! {
    #[test]
    fn the_representative_point_is_inside(p in star()) {
        let point = p.representative_point().unwrap();
        prop_assert!(p.contains(point));
        let [w, s, e, n] = p.envelope().unwrap();
        prop_assert!(w <= point[0] && point[0] <= e && s <= point[1] && point[1] <= n);
    }

    #[test]
    fn closing_a_ring_explicitly_changes_nothing(p in star()) {
        let ring = p.points().to_vec();
        let closed = Polygon::from_ring(ring.iter().copied().chain([ring[0]]));
        prop_assert_eq!(p.area(), closed.area());
        prop_assert_eq!(p.representative_point(), closed.representative_point());
    }

    #[test]
    fn no_ring_of_finite_points_makes_it_panic(ring in prop::collection::vec((-1e9..1e9f64, -1e9..1e9f64), 0..12)) {
        let p = Polygon::from_ring(ring.into_iter().map(|(x, y)| [x, y]));
        if let Some([x, y]) = p.representative_point() {
            prop_assert!(x.is_finite() && y.is_finite());
        }
    }
}
