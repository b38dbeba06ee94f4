//! Tests of the geometry blob.
use super::*;
use proptest::prelude::*;

fn read(blob: &[u8]) -> Result<Polygon, BlobError> {
    let mut out = Polygon::default();
    parse(blob, &mut out).map(|()| out)
}

fn gpkg(wkb: &[u8]) -> Vec<u8> {
    [b"GP\0\x01\0\0\0\0".as_slice(), wkb].concat()
}

/// By way of GDAL's own WKT parser and WKB writer.
fn from_wkt(wkt: &str) -> Result<Polygon, BlobError> {
    read(&gpkg(&gdal::vector::Geometry::from_wkt(wkt).unwrap().iso_wkb().unwrap()))
}

#[test]
fn polygons_of_every_dimension_and_nesting_are_read() {
    let plain = from_wkt("POLYGON ((0 0,10 0,10 10,0 10,0 0),(1 1,2 1,2 2,1 2,1 1))").unwrap();
    assert_eq!(plain.rings().map(|(r, hole)| (r.len(), hole)).collect::<Vec<_>>(), [(5, false), (5, true)]);
    assert_eq!(plain.area(), 99.0);
    for wkt in [
        "POLYGON Z ((0 0 7,10 0 7,10 10 7,0 10 7,0 0 7),(1 1 7,2 1 7,2 2 7,1 2 7,1 1 7))",
        "POLYGON M ((0 0 7,10 0 7,10 10 7,0 10 7,0 0 7),(1 1 7,2 1 7,2 2 7,1 2 7,1 1 7))",
        "MULTIPOLYGON ZM (((0 0 7 8,10 0 7 8,10 10 7 8,0 10 7 8,0 0 7 8),(1 1 7 8,2 1 7 8,2 2 7 8,1 2 7 8,1 1 7 8)))",
        "GEOMETRYCOLLECTION (MULTIPOLYGON (((0 0,10 0,10 10,0 10,0 0),(1 1,2 1,2 2,1 2,1 1))))",
        "CURVEPOLYGON ((0 0,10 0,10 10,0 10,0 0),(1 1,2 1,2 2,1 2,1 1))",
    ] {
        assert_eq!(from_wkt(wkt).unwrap(), plain, "{wkt}");
    }
    for wkt in ["POLYGON EMPTY", "MULTIPOLYGON EMPTY", "GEOMETRYCOLLECTION EMPTY", "CURVEPOLYGON EMPTY"] {
        assert!(from_wkt(wkt).unwrap().is_empty(), "{wkt}");
    }
}

#[test]
fn area_and_centroid_agree_with_gdal() {
    for wkt in [
        "POLYGON ((546449.4 94630.7,546557.6 94650.1,546520.2 94790.3,546440.1 94800.9,546449.4 94630.7))",
        "MULTIPOLYGON (((0 0,7 1,6 5,2 9,0 0),(2 2,3 2,3 3,2 2)),((20 20,25 20,25 31,20 20)))",
        "POLYGON ((0 0,9 0,9 1,1 1,1 8,9 8,9 9,0 9,0 0))",
    ] {
        let (ours, theirs) = (from_wkt(wkt).unwrap(), gdal::vector::Geometry::from_wkt(wkt).unwrap());
        assert!((ours.area() - theirs.area()).abs() < 1e-6 * theirs.area(), "{wkt}");
        let [x, y] = ours.representative_point().unwrap();
        let mut point = gdal::vector::Geometry::empty(gdal::vector::OGRwkbGeometryType::wkbPoint).unwrap();
        point.add_point_2d((x, y));
        assert!(theirs.contains(&point), "{wkt}: ({x}, {y})");
    }
}

#[test]
fn curves_have_the_area_that_gdal_gives_them() {
    for wkt in [
        "CURVEPOLYGON (CIRCULARSTRING (0 0,4 0,4 4,0 4,0 0))",
        "CURVEPOLYGON (CIRCULARSTRING (0 0,5 0,0 0))",
        "CURVEPOLYGON (COMPOUNDCURVE (CIRCULARSTRING (0 0,1 1,2 0),(2 0,2 -5,0 -5,0 0)))",
        "CURVEPOLYGON (COMPOUNDCURVE (CIRCULARSTRING (2 0,1 1,0 0),(0 0,0 -5,2 -5,2 0)),CIRCULARSTRING (1 -2,1.5 -2,1 -2))",
        "MULTISURFACE (CURVEPOLYGON (CIRCULARSTRING (0 0,1 1,2 0,1 -1,0 0)),((10 10,12 10,12 12,10 12,10 10)))",
    ] {
        let (ours, theirs) = (from_wkt(wkt).unwrap(), gdal::vector::Geometry::from_wkt(wkt).unwrap());
        // Pieces of 4 degrees lose at most 0.1 % of a circle.
        let ratio = ours.area() / theirs.area();
        assert!((0.9985..1.0015).contains(&ratio), "{wkt}: {} against {}", ours.area(), theirs.area());
    }
}

#[test]
fn big_endian_is_read_too() {
    let mut wkb = vec![0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 4];
    for v in [0.0f64, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0] {
        wkb.extend(v.to_be_bytes());
    }
    assert_eq!(read(&gpkg(&wkb)).unwrap().area(), 0.5);
    let mut big = b"GP\0\x02\0\0\0\0".to_vec();
    [1.0f64, 2.0, 3.0, 4.0].iter().for_each(|v| big.extend(v.to_be_bytes()));
    assert_eq!(header_envelope(&big), Some([1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn what_is_no_polygon_is_named() {
    let reject = |blob: &[u8]| read(blob).unwrap_err();
    assert_eq!(from_wkt("POINT (1 2)"), Err(BlobError::NotAPolygon(1)));
    assert_eq!(from_wkt("GEOMETRYCOLLECTION (POINT (1 2))"), Err(BlobError::NotAPolygon(1)));
    assert_eq!(from_wkt("LINESTRING (1 2,3 4)").unwrap_err().reject(), Reject::NotAPolygon);
    assert_eq!(reject(b""), BlobError::NoHeader);
    assert_eq!(reject(b"PG\0\x01\0\0\0\0"), BlobError::NoHeader);
    assert_eq!(reject(b"GP\0\x01\0\0\0\0"), BlobError::Truncated);
    assert_eq!(reject(b"GP\0\x0f\0\0\0\0"), BlobError::EnvelopeKind(7));
    assert_eq!(reject(b"GP\0\x21\0\0\0\0"), BlobError::Extended);
    assert_eq!(reject(&gpkg(&[2])), BlobError::ByteOrder(2));
    assert_eq!(reject(&gpkg(&[1, 3, 0, 0, 0x20, 0, 0, 0, 0])), BlobError::Ewkb(0x2000_0003));
    assert_eq!(reject(&gpkg(&[1, 3, 0, 0, 0x80])), BlobError::Ewkb(0x8000_0003));
    let huge_count = [1, 3, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(reject(&gpkg(&huge_count)), BlobError::Truncated);
    let nested: Vec<u8> = (0..20).flat_map(|_| [1, 7, 0, 0, 0, 1, 0, 0, 0]).collect();
    assert_eq!(reject(&gpkg(&[nested, vec![0; 64]].concat())), BlobError::Nested);
    let nan = Polygon::from_ring([[0.0, 0.0], [f64::NAN, 1.0], [1.0, 1.0]]);
    assert_eq!(reject(&encode(&nan, 0)), BlobError::NotFinite);
    assert_eq!(reject(&encode(&Polygon::from_ring([[0.0, 0.0], [1.0, 1.0]]), 0)), BlobError::ShortRing(2));
    let even_arc = gpkg(&[[1, 10, 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 2, 0, 0, 0].as_slice(), &[0; 32]].concat());
    assert_eq!(reject(&even_arc).reject(), Reject::UnsupportedCurve);
    assert_eq!(read(b"GP\0\x11\0\0\0\0"), Ok(Polygon::default()), "the empty flag is enough");
}

fn polygon() -> impl Strategy<Value = Polygon> {
    let point = (-1e7..1e7f64, -1e7..1e7f64).prop_map(|(x, y)| [x, y]);
    let ring = prop::collection::vec(point, 3..12);
    prop::collection::vec((ring, any::<bool>()), 0..5).prop_map(|rings| {
        let mut polygon = Polygon::default();
        for (i, (ring, hole)) in rings.into_iter().enumerate() {
            polygon.push_ring(ring, hole && i > 0);
        }
        polygon
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(p in polygon(), srs: i32) {
        let blob = encode(&p, srs);
        prop_assert_eq!(header_envelope(&blob), p.envelope());
        prop_assert_eq!(read(&blob), Ok(p));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (read(&bytes), header_envelope(&bytes), geometry_type(&bytes), read(&gpkg(&bytes)));
    }

    #[test]
    fn damaged_polygons_never_panic(p in polygon(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut blob = encode(&p, 4326);
        let i = at.index(blob.len());
        blob[i] = byte;
        blob.truncate(cut.index(blob.len()) + 1);
        if let Ok(p) = read(&blob) {
            let _ = (p.representative_point(), p.area());
        }
    }

    #[test]
    fn arbitrary_curves_never_panic(kind in 6..13u8, inner in 2..11u8, bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let head = [1, kind, 0, 0, 0, 1, 0, 0, 0, 1, inner, 0, 0, 0];
        let _ = read(&gpkg(&[head.as_slice(), &[3, 0, 0, 0], &bytes].concat()));
    }
}
