//! The demo's GeoPackage as OGR reads it back.
//!
//! Contract: same seed, same rows; every parcel but the planted troubles is valid; nothing overlaps.
//! Units: degrees. Trap: the file itself holds the time of writing, so rows are compared, not bytes of the file.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use gdal::Dataset;
use gdal::vector::{Geometry, LayerAccess, OGRwkbGeometryType};
use satellite_pipeline::demo::region::{LAYER, TROUBLES};
use satellite_pipeline::demo::{Region, Size};
use std::collections::HashSet;
use std::path::Path;

type Row = (u64, Vec<Option<String>>, Option<Vec<u8>>);

fn rows(path: &Path) -> Vec<Row> {
    let dataset = Dataset::open(path).unwrap();
    let mut layer = dataset.layer_by_name(LAYER).unwrap();
    let row = |f: gdal::vector::Feature<'_>| {
        let values = (0..4).map(|i| f.field_as_string(i).unwrap()).collect();
        (f.fid().unwrap(), values, f.geometry_by_index(0).ok().map(|g| g.wkb().unwrap()))
    };
    layer.features().map(row).collect()
}

#[test]
fn the_same_seed_gives_the_same_rows_and_another_seed_others() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, seed| {
        let path = dir.path().join(name);
        Region::generate(Size::Small, seed).write_gpkg(&path).unwrap();
        rows(&path)
    };
    let first = write("a.gpkg", 7);
    assert!(first == write("b.gpkg", 7), "the same seed gave other rows");
    assert!(first != write("a.gpkg", 8), "another seed gave the same rows");
}

#[test]
fn rows_are_eurocrops_rows_and_only_the_troubles_are_broken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region.gpkg");
    let region = Region::generate(Size::Small, 42);
    region.write_gpkg(&path).unwrap();

    let dataset = Dataset::open(&path).unwrap();
    let layer = dataset.layer(0).unwrap();
    assert_eq!(layer.spatial_ref().unwrap().auth_code().unwrap(), 4258);
    let names: Vec<_> = layer.defn().fields().map(|f| f.name()).collect();
    assert_eq!(names, ["EC_trans_n", "EC_hcat_n", "EC_hcat_c", "EC_NUTS3"]);
    let index = dataset.execute_sql(
        format!("SELECT count(*) FROM rtree_{LAYER}_geom"),
        None,
        gdal::vector::sql::Dialect::DEFAULT,
    );
    let indexed = index.unwrap().unwrap().features().next().unwrap().field_as_integer64(0).unwrap().unwrap();
    assert_eq!(
        indexed as usize,
        region.parcels.len() + TROUBLES - 2,
        "all but the null and the empty geometry are indexed"
    );

    let rows = rows(&path);
    let (parcels, troubles) = rows.split_at(rows.len() - TROUBLES);
    assert_eq!(parcels.len(), region.parcels.len());
    let mut kinds = HashSet::new();
    for ((fid, values, wkb), parcel) in parcels.iter().zip(&region.parcels) {
        let geometry = Geometry::from_wkb(wkb.as_ref().unwrap()).unwrap();
        assert!(geometry.is_valid() && !geometry.is_empty(), "parcel {fid}");
        assert_eq!(*fid as i64, parcel.id);
        assert!(values[2].as_ref().is_none_or(|code| code.len() == 10));
        kinds.insert(geometry.geometry_type());
    }
    assert_eq!(kinds, HashSet::from([OGRwkbGeometryType::wkbPolygon, OGRwkbGeometryType::wkbMultiPolygon]));
    let geometries: Vec<_> =
        troubles.iter().map(|(_, _, g)| g.as_ref().map(|g| Geometry::from_wkb(g).unwrap())).collect();
    assert!(geometries[0].is_none());
    assert!(geometries[1].as_ref().unwrap().is_empty());
    for invalid in &geometries[2..] {
        assert!(!invalid.as_ref().unwrap().is_valid());
    }
}

#[test]
fn neighbours_do_not_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region.gpkg");
    Region::generate(Size::Small, 3).write_gpkg(&path).unwrap();
    let geometries: Vec<_> = rows(&path).into_iter().filter_map(|(_, _, wkb)| Geometry::from_wkb(&wkb?).ok()).collect();
    let envelopes: Vec<_> = geometries.iter().map(|g| g.envelope()).collect();
    let mut compared = 0;
    // Rows follow the blocks, so close neighbours are close in the table too.
    for (i, a) in geometries.iter().enumerate().take(1500).filter(|(_, g)| g.is_valid()) {
        for j in i + 1..(i + 200).min(geometries.len() - TROUBLES) {
            let (ea, eb) = (&envelopes[i], &envelopes[j]);
            let near = ea.MinX < eb.MaxX && eb.MinX < ea.MaxX && ea.MinY < eb.MaxY && eb.MinY < ea.MaxY;
            compared += usize::from(near);
            let shared = near.then(|| a.intersection(&geometries[j])).flatten();
            assert!(shared.is_none_or(|s| s.is_empty()), "rows {i} and {j} overlap");
        }
    }
    assert!(compared > 3000, "{compared}");
}
