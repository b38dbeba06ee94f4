//! GeoPackages as they are found in the world: odd names, missing pieces, broken rows; and files that are none.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod parcels_support;

use std::path::{Path, PathBuf};

use gdal::vector::{Geometry, LayerAccess, OGRFieldType};
use parcels_support::*;
use satellite_pipeline::adapters::parcels::{
    GeoPackage, LayerChoice, MAX_CELL_PARCELS, OpenOptions, ParcelError, ParcelSource, blob,
};
use satellite_pipeline::domain::class_table::Lookup;
use satellite_pipeline::domain::failure::Severity;
use satellite_pipeline::domain::parcel::Reject;

fn open(path: &Path, layer: Option<&str>) -> Result<GeoPackage, ParcelError> {
    GeoPackage::open(path, options(layer), classes())
}

/// The error's text, after checking that it stops the node and names the file.
fn refused(path: &Path, layer: Option<&str>) -> String {
    let error = open(path, layer).unwrap_err();
    assert_eq!(error.severity(), Severity::Fatal, "{error}");
    let text = error.to_string();
    assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
    text
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("parcels.gpkg");
    (dir, path)
}

fn some_rows() -> Vec<Row> {
    (1..=5).map(|i| row(i, &square(-3.0 + 0.01 * i as f64, 40.0, 0.005), "3301010400")).collect()
}

#[test]
fn files_that_are_no_geopackage_are_refused() {
    let (dir, path) = temp();
    assert!(refused(&path, None).contains("check that the file exists"));
    assert!(refused(dir.path(), None).contains("not a file"));
    std::fs::write(&path, "<html>not found</html>".repeat(100)).unwrap();
    assert!(refused(&path, None).contains("not an SQLite file"));
    std::fs::write(&path, "").unwrap();
    assert!(refused(&path, None).contains("is not a GeoPackage"));
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(refused(&path, None).contains("gpkg_contents"));
}

#[test]
fn the_only_polygon_layer_with_rows_is_taken() {
    let (_dir, path) = temp();
    let db = create(&path);
    add_layer(&db, &Layer { table: "empty first", ..Layer::default() }, &[]);
    let point = Row { id: 1, blob: Some(b"GP\0\x01\0\0\0\0\x01\x01\0\0\0".to_vec()), code: None, name: None };
    add_layer(&db, &Layer { table: "points", kind: "POINT", ..Layer::default() }, &[point]);
    db.execute_batch(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);
         INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('notes', 'attributes', 'notes');",
    )
    .unwrap();
    assert!(refused(&path, None).contains("no layer of polygons with features; its layers are: `empty first`"));
    let odd = Layer {
        table: "ES 2023.v1 (all) \"x\"",
        id: "id_0",
        geometry: "wkb_geometry",
        kind: "GEOMETRY",
        ..Layer::default()
    };
    add_layer(&db, &odd, &some_rows());
    let source = open(&path, None).unwrap();
    assert_eq!(source.layer().name, odd.table);
    assert_eq!((source.layer().id_column.as_str(), source.layer().geometry_column.as_str()), ("id_0", "wkb_geometry"));
    assert!(source.has_rtree());
    assert_eq!(scan_all(&source).unwrap().len(), 5);
    assert_eq!(source.cell([-3.1, 39.9, -2.9, 40.1], 0.0).unwrap().len(), 5);
    assert!(refused(&path, Some("points")).contains("not polygons"));
    let wrong = refused(&path, Some("es_2023"));
    assert!(wrong.contains("no layer `es_2023`") && wrong.contains("`points` (POINT, about 1 rows)"), "{wrong}");

    add_layer(&db, &Layer { table: "second", ..Layer::default() }, &some_rows());
    let both = refused(&path, None);
    assert!(both.contains("several layers") && both.contains("`second`") && !both.contains("`points`"), "{both}");
    assert_eq!(open(&path, Some("SECOND")).unwrap().layer().name, "second");
}

#[test]
fn layers_that_cannot_be_parcels_say_why() {
    let (_dir, path) = temp();
    let db = create(&path);
    for srs in [0, -1] {
        add_layer(&db, &Layer { table: &format!("srs {srs}"), srs, ..Layer::default() }, &some_rows());
        assert!(refused(&path, Some(&format!("srs {srs}"))).contains("does not name a defined CRS"));
    }
    add_layer(&db, &Layer { table: "bare", code: None, name: false, ..Layer::default() }, &some_rows());
    let text = refused(&path, Some("bare"));
    assert!(text.contains("neither column `EC_hcat_c` nor `EC_hcat_n`") && text.contains("fid, geom, area"), "{text}");
    db.execute_batch(
        "CREATE VIEW looking AS SELECT * FROM bare;
         INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('looking', 'features', 'l'), ('gone', 'features', 'g');
         INSERT INTO gpkg_geometry_columns VALUES ('looking', 'geom', 'POLYGON', 4326, 0, 0), ('gone', 'geom', 'POLYGON', 4326, 0, 0);",
    )
    .unwrap();
    assert!(refused(&path, Some("looking")).contains("it is a view"));
    assert!(refused(&path, Some("gone")).contains("its table is missing"));
}

#[test]
fn one_class_column_is_enough_and_codes_come_in_any_type() {
    let (_dir, path) = temp();
    let db = create(&path);
    for (table, code, name) in
        [("text", Some("TEXT"), false), ("int", Some("INTEGER"), false), ("real", Some("REAL"), true)]
    {
        add_layer(&db, &Layer { table, code, name, ..Layer::default() }, &some_rows());
        let rows = scan_all(&open(&path, Some(table)).unwrap()).unwrap();
        assert!(rows.iter().all(|r| r.class == Lookup::Class(5.try_into().unwrap())), "{table}: {rows:?}");
    }
    let named: Vec<Row> = some_rows().into_iter().map(|r| Row { name: Some("Vetches".into()), ..r }).collect();
    add_layer(&db, &Layer { table: "names", code: None, ..Layer::default() }, &named);
    let source = open(&path, Some("names")).unwrap();
    assert_eq!((&source.layer().code_column, source.layer().name_column.as_deref()), (&None, Some("EC_hcat_n")));
    assert!(scan_all(&source).unwrap().iter().all(|r| r.class == Lookup::Class(6.try_into().unwrap())));
    let choice = LayerChoice { layer: Some("names".into()), code_column: None, name_column: Some("ec_HCAT_n".into()) };
    let options = OpenOptions { choice, assume_immutable: false };
    assert_eq!(GeoPackage::open(&path, options, classes()).unwrap().layer().name_column.as_deref(), Some("EC_hcat_n"));
}

#[test]
fn broken_rows_are_counted_by_reason_and_the_rest_is_read() {
    let (_dir, path) = temp();
    let db = create(&path);
    let wkb =
        |wkt: &str| [b"GP\0\x01\0\0\0\0".as_slice(), &Geometry::from_wkt(wkt).unwrap().iso_wkb().unwrap()].concat();
    let good = blob::encode(&square(-3.0, 40.0, 0.01), 4326);
    let cases: Vec<(Option<Vec<u8>>, Option<Reject>)> = vec![
        (None, Some(Reject::NullGeometry)),
        (Some(good.clone()), None),
        (Some(wkb("POLYGON EMPTY")), Some(Reject::EmptyGeometry)),
        (Some(wkb("POINT (1 2)")), Some(Reject::NotAPolygon)),
        (Some(good[..good.len() - 9].to_vec()), Some(Reject::InvalidGeometry)),
        (Some(b"rubbish".to_vec()), Some(Reject::InvalidGeometry)),
        (Some(vec![]), Some(Reject::InvalidGeometry)),
        (Some(wkb("CURVEPOLYGON (CIRCULARSTRING (-3 40,-2.99 40,-3 40))")), None),
        (Some(wkb("POLYGON ((0 0,1 1,2 2,0 0))")), Some(Reject::NoArea)),
        (Some(blob::encode(&square(0.0, 1e7, 1.0), 4326)), Some(Reject::OffTheMap)),
        (Some(wkb("POLYGON Z ((-3 40 5,-2.9 40 5,-2.9 40.1 5,-3 40 5))")), None),
    ];
    let rows: Vec<Row> = cases
        .iter()
        .zip(1..)
        .map(|((blob, _), id)| Row { id, blob: blob.clone(), code: Some("3301010400".into()), name: None })
        .collect();
    add_layer(&db, &Layer { kind: "GEOMETRY", srs: 25830, rtree: Rtree::None, ..Layer::default() }, &rows);
    db.execute_batch("INSERT INTO parcels (geom) VALUES ('text, not a blob'), (42)").unwrap();
    // The same table read as degrees: 1e7 degrees north is nowhere.
    db.execute_batch("UPDATE gpkg_geometry_columns SET srs_id = 4258").unwrap();
    db.execute_batch("INSERT INTO gpkg_spatial_ref_sys VALUES ('ETRS89', 4258, 'EPSG', 4258, 'undefined', NULL)")
        .unwrap();
    let source = open(&path, None).unwrap();
    let scanned = scan_all(&source).unwrap();
    for ((_, expected), row) in cases.iter().zip(&scanned) {
        assert_eq!(row.place.err(), *expected, "row {}", row.id);
    }
    assert_eq!(scanned[cases.len()].place, Err(Reject::InvalidGeometry));
    assert_eq!(scanned[cases.len() + 1].place, Err(Reject::InvalidGeometry));
    let ids: Vec<i64> = source.cell([-3.1, 39.9, -2.8, 40.2], 0.0).unwrap().iter().map(|p| p.id).collect();
    assert_eq!(ids, [2, 8, 11]);
}

#[test]
fn a_layer_without_primary_key_uses_row_ids() {
    let (_dir, path) = temp();
    let db = create(&path);
    add_layer(&db, &Layer::default(), &[]);
    db.execute_batch("DROP TABLE parcels; CREATE TABLE parcels (geom BLOB, \"EC_hcat_c\" TEXT)").unwrap();
    let insert = "INSERT INTO parcels (rowid, geom, EC_hcat_c) VALUES (?1, ?2, '3301010400')";
    for r in some_rows() {
        db.execute(insert, (r.id * 10, r.blob)).unwrap();
    }
    let source = open(&path, None).unwrap();
    assert_eq!(source.layer().id_column, "rowid");
    let ids: Vec<i64> = scan_all(&source).unwrap().iter().map(|p| p.id).collect();
    assert_eq!(ids, [10, 20, 30, 40, 50]);
    assert_eq!(source.cell([-3.1, 39.9, -2.9, 40.1], 0.0).unwrap().len(), 5);
}

#[test]
fn a_promise_of_immutability_is_checked_against_the_log() {
    let (_dir, path) = temp();
    let db = create(&path);
    add_layer(&db, &Layer::default(), &some_rows());
    db.execute_batch("PRAGMA journal_mode = WAL; UPDATE parcels SET area = 1").unwrap();
    let options = OpenOptions { assume_immutable: true, ..options(None) };
    let error = GeoPackage::open(&path, options.clone(), classes()).unwrap_err();
    assert!(matches!(error, ParcelError::WriteAheadLog { .. }), "{error}");
    assert_eq!(scan_all(&open(&path, None).unwrap()).unwrap().len(), 5);
    drop(db);
    assert_eq!(scan_all(&GeoPackage::open(&path, options, classes()).unwrap()).unwrap().len(), 5);
}

#[test]
fn a_damaged_page_is_an_error_and_no_panic() {
    let (_dir, path) = temp();
    {
        let rows: Vec<Row> = (1..=3000).map(|i| row(i, &square(-3.0, 40.0, 0.001), "3301010400")).collect();
        let db = create(&path);
        add_layer(&db, &Layer { rtree: Rtree::None, ..Layer::default() }, &rows);
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let error = open(&path, None).and_then(|source| scan_all(&source)).unwrap_err();
    assert!(error.to_string().contains("parcels.gpkg"), "{error}");
    assert_ne!(error.severity(), Severity::Transient);
}

#[test]
fn a_cell_with_more_parcels_than_fit_is_an_error_of_the_task() {
    let (_dir, path) = temp();
    let db = create(&path);
    let shape = [row(1, &square(-3.0, 40.0, 0.001), "3301010400")];
    for (table, rtree) in [("indexed", Rtree::Filled), ("plain", Rtree::None)] {
        add_layer(&db, &Layer { table, rtree, ..Layer::default() }, &shape);
        db.execute_batch(&format!(
            "INSERT INTO {table} (geom) WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_CELL_PARCELS})
             SELECT geom FROM n, {table} WHERE fid = 1"
        ))
        .unwrap();
    }
    let entries = "INSERT INTO rtree_indexed_geom SELECT fid, -3.0, -2.999, 40.0, 40.001 FROM indexed WHERE fid > ?1";
    db.execute(entries, [1]).unwrap();
    for table in ["indexed", "plain"] {
        let bbox = [-3.05, 40.0, -3.0, 40.05];
        assert_eq!(open(&path, Some(table)).unwrap().cell(bbox, 0.0).unwrap().len(), MAX_CELL_PARCELS);
        db.execute_batch(&format!("INSERT INTO {table} (geom) SELECT geom FROM {table} WHERE fid = 1")).unwrap();
        if table == "indexed" {
            db.execute(entries, [MAX_CELL_PARCELS as i64]).unwrap();
        }
        let error = open(&path, Some(table)).unwrap().cell(bbox, 0.0).unwrap_err();
        assert!(matches!(error, ParcelError::CellTooLarge { .. }), "{error}");
        assert_eq!(error.severity(), Severity::Permanent);
    }
}

#[test]
fn a_file_written_by_gdal_reads_like_gdal_reads_it() {
    let (_dir, path) = temp();
    let wkts: Vec<String> = (0..200)
        .map(|i| {
            let (x, y) = (450_000.0 + 137.0 * f64::from(i % 20), 4_400_000.0 + 211.0 * f64::from(i / 20));
            format!(
                "MULTIPOLYGON ((({x} {y},{} {},{} {},{x} {},{x} {y})),(({} {y},{} {y},{} {},{} {y})))",
                x + 90.0,
                y + 5.0,
                x + 70.0,
                y + 120.0,
                y + 100.0,
                x + 100.0,
                x + 130.0,
                x + 110.0,
                y + 60.0,
                x + 100.0
            )
        })
        .collect();
    {
        let mut ds = gdal::DriverManager::get_driver_by_name("GPKG").unwrap().create_vector_only(&path).unwrap();
        let srs = gdal::spatial_ref::SpatialRef::from_epsg(25830).unwrap();
        let layer = ds
            .create_layer(gdal::vector::LayerOptions {
                name: "Recintos 2023 (v1.0)",
                srs: Some(&srs),
                ty: gdal::vector::OGRwkbGeometryType::wkbMultiPolygon,
                options: None,
            })
            .unwrap();
        layer.create_defn_fields(&[("EC_hcat_c", OGRFieldType::OFTInteger64)]).unwrap();
        let field = layer.defn().field_index("EC_hcat_c").unwrap();
        for wkt in &wkts {
            let mut feature = gdal::vector::Feature::new(layer.defn()).unwrap();
            feature.set_geometry(Geometry::from_wkt(wkt).unwrap()).unwrap();
            feature.set_field_integer64(field, 3_303_050_000).unwrap();
            feature.create(&layer).unwrap();
        }
    }
    let source = open(&path, None).unwrap();
    assert!(source.has_rtree());
    assert_eq!((source.layer().name.as_str(), source.layer().row_estimate), ("Recintos 2023 (v1.0)", 200));
    let scanned = scan_all(&source).unwrap();
    let around = source.cell([-4.0, 39.5, -3.0, 40.0], 0.0).unwrap();
    assert_eq!((scanned.len(), around.len()), (200, 200));
    for (parcel, wkt) in around.iter().zip(&wkts) {
        let theirs = Geometry::from_wkt(wkt).unwrap();
        assert!((parcel.shape.area() - theirs.area()).abs() < 1e-6);
        let mut point = Geometry::empty(gdal::vector::OGRwkbGeometryType::wkbPoint).unwrap();
        point.add_point_2d((parcel.point[0], parcel.point[1]));
        assert!(theirs.contains(&point));
        assert_eq!(parcel.class, Some(1.try_into().unwrap()));
    }
}
