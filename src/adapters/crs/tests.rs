//! Tests of [`super::Transform`].
use super::*;

fn crs(code: u32) -> Crs {
    Crs::epsg(code).unwrap()
}

fn near(a: [f64; 2], b: [f64; 2], tolerance: f64) -> bool {
    (a[0] - b[0]).abs() < tolerance && (a[1] - b[1]).abs() < tolerance
}

#[test]
fn axes_are_x_then_y_whatever_the_authority_says() {
    // EPSG:4326 and EPSG:3035 declare latitude and northing first.
    let utm = Transform::new(&Crs::lonlat(), &crs(32630)).unwrap();
    assert!(near(utm.point([-3.0, 0.0]).unwrap(), [500_000.0, 0.0], 1e-6), "central meridian on the equator");
    let laea = Transform::new(&Crs::lonlat(), &crs(3035)).unwrap();
    assert!(near(laea.point([10.0, 52.0]).unwrap(), [4_321_000.0, 3_210_000.0], 1e-3), "the projection's own origin");
}

#[test]
fn there_and_back_is_the_same_place() {
    for code in [32629, 32630, 32633, 3035, 4258, 3794, 25830, 4081] {
        let (there, back) =
            (Transform::new(&Crs::lonlat(), &crs(code)).unwrap(), Transform::new(&crs(code), &Crs::lonlat()).unwrap());
        for point in [[-3.7, 40.4], [-5.5, 37.2], [2.1, 41.4]] {
            let again = back.point(there.point(point).unwrap()).unwrap();
            // A hundred-millionth of a degree is about 1 mm.
            assert!(near(again, point, 1e-8), "EPSG:{code} {point:?} {again:?}");
        }
    }
}

#[test]
fn a_point_moves_the_same_alone_as_in_company() {
    // ED50 has many datum operations by area: a batch from all over Europe must not share one.
    let t = Transform::new(&crs(4230), &Crs::lonlat()).unwrap();
    let mut all = [[-3.7, 40.4], [10.7, 59.9], [-8.0, 37.0], [33.0, 35.1], [5.3, 60.4]];
    let alone: Vec<[f64; 2]> = all.iter().map(|p| t.point(*p).unwrap()).collect();
    t.points(&mut all).unwrap();
    assert_eq!(all.as_slice(), alone);
}

#[test]
fn a_shape_moves_as_its_points_do_and_a_point_nowhere_stays_one_point() {
    let ring: Vec<[f64; 2]> = (0..50).map(|i| [-3.0 + f64::from(i) * 1e-4, 40.0 + f64::from(i % 7) * 1e-4]).collect();
    let squares = ring.iter().map(|[x, y]| [(x + 3.0) * 1e5 + 6e5, (y - 40.0) * 1e5 + 4.5e6]).collect();
    // Degrees into metres, and metres into metres of another datum.
    for (t, ring, tolerance) in [
        (Transform::new(&crs(4258), &crs(32630)).unwrap(), ring.clone(), 1e-7),
        (Transform::new(&crs(25829), &crs(32630)).unwrap(), squares, f64::MIN_POSITIVE),
    ] {
        let (mut alone, mut whole) = (ring.clone(), ring.clone());
        t.points(&mut alone).unwrap();
        t.shape_or_nan(&mut whole).unwrap();
        assert!(whole.iter().zip(&alone).all(|(a, b)| near(*a, *b, tolerance)), "{t:?}");
        for nowhere in [[f64::NAN, 40.0], [-3.0, f64::INFINITY]] {
            let mut holed = ring.clone();
            holed[7] = nowhere;
            t.shape_or_nan(&mut holed).unwrap();
            assert!(holed[7].iter().all(|v| v.is_nan()));
            assert_eq!((&holed[..7], &holed[8..]), (&alone[..7], &alone[8..]));
        }
    }
    let t = Transform::new(&crs(4258), &crs(32630)).unwrap();
    let mut far = ring.clone();
    far[7] = [-3.0, 2000.0];
    t.shape_or_nan(&mut far).unwrap();
    assert!(far[7].iter().all(|v| v.is_nan()) && far[6].iter().all(|v| v.is_finite()));
    let mut same = ring.clone();
    Transform::new(&crs(4258), &crs(4258)).unwrap().shape_or_nan(&mut same).unwrap();
    assert_eq!(same, ring);
}

/// Fields from the Canaries to Lapland, in and beside their zone, small ones and one that no patch holds.
#[test]
fn a_shape_of_degrees_is_where_proj_has_it() {
    let mut far = 0;
    for (geographic, zone, at) in [
        (4326, 32628, [-15.6, 28.0]),
        (4258, 32630, [-3.6, 41.0]),
        (4326, 32630, [-6.4, 43.3]),
        (4326, 32631, [0.0, 39.999]),
        (4326, 32633, [19.9, 48.0]),
        (4326, 32635, [27.1, 69.7]),
        (4326, 32701, [-179.99, -16.6]),
        (4230, 32630, [-3.6, 41.0]),
        (4267, 32618, [-75.0, 40.0]),
    ] {
        let t = Transform::new(&crs(geographic), &crs(zone)).unwrap();
        for size in [1e-5, 0.01, 0.09, 0.9] {
            let turn = |i: i32| f64::from(i) * 0.61;
            let ring: Vec<_> = (0..40).map(|i| [at[0] + size * turn(i).cos(), at[1] + size * turn(i).sin()]).collect();
            let (mut proj, mut patch, mut again) = (ring.clone(), ring.clone(), ring);
            t.with_cached(|c| assert!(Cached::moves(&c.handle, &mut proj))).unwrap();
            t.shape_or_nan(&mut patch).unwrap();
            std::thread::scope(|s| _ = s.spawn(|| t.shape_or_nan(&mut again).unwrap()));
            assert_eq!(patch, again, "whoever asks");
            assert!(patch.iter().zip(&proj).all(|(a, b)| near(*a, *b, 1e-7)), "EPSG:{geographic} to {zone}, {size}");
            far += usize::from(patch != proj);
        }
    }
    assert!(far > 18, "patches were used, which differ in the last bits");
}

#[test]
fn the_same_crs_costs_and_changes_nothing() {
    let t = Transform::new(&crs(32630), &crs(32630)).unwrap();
    assert!(t.is_identity());
    assert_eq!(t.point([1.0, 2.0]).unwrap(), [1.0, 2.0]);
    assert_eq!(t.envelope([0.0, 0.0, 5.0, 5.0]).unwrap(), [0.0, 0.0, 5.0, 5.0]);
    assert!(matches!(t.point([f64::NAN, 2.0]), Err(CrsError::Point { .. })));
}

#[test]
fn points_without_a_place_are_told_or_become_nan() {
    let t = Transform::new(&Crs::lonlat(), &crs(32630)).unwrap();
    let error = t.point([f64::INFINITY, 0.0]).unwrap_err();
    assert_eq!(error.severity(), Severity::Permanent);
    let mut points = [[-3.0, 40.0], [f64::NAN, 40.0], [-3.0, 2000.0]];
    t.points_or_nan(&mut points).unwrap();
    assert!(points[0][0].is_finite() && points[1][0].is_nan() && points[2][0].is_nan());
}

#[test]
fn the_envelope_holds_the_image_of_every_inner_point() {
    let t = Transform::new(&Crs::lonlat(), &crs(3035)).unwrap();
    let area = [-9.0, 36.0, 4.0, 44.0];
    let [w, s, e, n] = t.envelope(area).unwrap();
    for i in 0..=100 {
        for j in 0..=100 {
            let p = t.point([-9.0 + 0.13 * f64::from(i), 36.0 + 0.08 * f64::from(j)]).unwrap();
            assert!(w <= p[0] && p[0] <= e && s <= p[1] && p[1] <= n);
        }
    }
}

#[test]
fn srs_rows_are_read_by_code_then_by_definition() {
    assert_eq!(Crs::from_srs_row(3794, "epsg", 3794, "undefined").unwrap(), crs(3794));
    let wkt = "GEOGCS[\"mine\",DATUM[\"WGS_1984\",SPHEROID[\"WGS 84\",6378137,298.257223563]],PRIMEM[\"Greenwich\",0],\
               UNIT[\"degree\",0.0174532925199433]]";
    assert!(Crs::from_srs_row(100_000, "NONE", 100_000, wkt).unwrap().is_geographic().unwrap());
    assert!(Crs::from_srs_row(99_999, "EPSG", 99_999, wkt).is_ok(), "an unknown code falls back to the definition");
    assert_eq!(Crs::from_srs_row(-1, "NONE", -1, "undefined"), Err(CrsError::Undefined(-1)));
    assert_eq!(Crs::from_srs_row(0, "NONE", 0, "undefined"), Err(CrsError::Undefined(0)));
    assert_eq!(Crs::from_srs_row(7, "", 0, ""), Err(CrsError::Undefined(7)));
    let error = Crs::from_srs_row(99_999, "EPSG", 99_999, "undefined").unwrap_err();
    assert!(error.to_string().contains("EPSG:99999"), "{error}");
    assert_eq!(error.severity(), Severity::Fatal);
    assert!(Crs::from_srs_row(5, "NONE", 5, "PROJCS[rubbish").is_err());
    assert_eq!(crs(32630).metres_per_unit().unwrap(), Some(1.0));
    assert_eq!(Crs::lonlat().metres_per_unit().unwrap(), None);
}

#[test]
fn one_transform_serves_many_threads() {
    let t = Transform::new(&Crs::lonlat(), &crs(32630)).unwrap();
    let here = t.point([-3.7, 40.4]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(t.point([-3.7, 40.4]).unwrap(), here));
        }
    });
}

#[test]
fn more_pairs_than_the_cache_holds_still_work() {
    for code in 32601..=32660 {
        let t = Transform::new(&Crs::lonlat(), &crs(code)).unwrap();
        assert!(t.point([f64::from(code - 32600) * 6.0 - 183.0, 10.0]).is_ok());
    }
}

#[test]
fn an_environment_that_turns_the_network_on_is_refused() {
    for on in ["ON", "yes", "True"] {
        assert_eq!(refuse_network(Some(on.into())), Err(CrsError::Network(on.into())));
    }
    for off in [None, Some("OFF".to_owned()), Some(String::new())] {
        assert_eq!(refuse_network(off), Ok(()));
    }
}
