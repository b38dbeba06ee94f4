//! Builds GeoPackages as real ones look, statement by statement, for the tests of the parcel source.
//!
//! Trap: the R-tree is filled only when a layer asks for it, and may be filled wrongly on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code, unreachable_pub)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use satellite_pipeline::adapters::parcels::{LayerChoice, OpenOptions, ParcelError, ParcelSource, blob};
use satellite_pipeline::domain::class_table::ClassTable;
use satellite_pipeline::domain::parcel::ScannedParcel;
use satellite_pipeline::domain::polygon::Polygon;

/// What the R-tree of a layer is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rtree {
    None,
    Filled,
    Empty,
    /// Lacks the last quarter of the rows.
    Stale,
}

pub struct Layer<'a> {
    pub table: &'a str,
    pub id: &'a str,
    pub geometry: &'a str,
    pub kind: &'a str,
    pub srs: i32,
    /// Type of the code column, or none.
    pub code: Option<&'a str>,
    pub name: bool,
    pub rtree: Rtree,
}

impl Default for Layer<'_> {
    fn default() -> Self {
        Self {
            table: "parcels",
            id: "fid",
            geometry: "geom",
            kind: "MULTIPOLYGON",
            srs: 4326,
            code: Some("TEXT"),
            name: true,
            rtree: Rtree::Filled,
        }
    }
}

pub struct Row {
    pub id: i64,
    pub blob: Option<Vec<u8>>,
    pub code: Option<String>,
    pub name: Option<String>,
}

pub fn row(id: i64, shape: &Polygon, code: &str) -> Row {
    Row { id, blob: Some(blob::encode(shape, 4326)), code: Some(code.into()), name: None }
}

pub fn create(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA application_id = 1196444487; PRAGMA user_version = 10300;
         CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
           organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
         INSERT INTO gpkg_spatial_ref_sys VALUES
           ('Undefined Cartesian SRS', -1, 'NONE', -1, 'undefined', NULL),
           ('Undefined geographic SRS', 0, 'NONE', 0, 'undefined', NULL);
         CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
           description TEXT DEFAULT '', last_change DATETIME DEFAULT '2026-01-01T00:00:00.000Z', min_x DOUBLE,
           min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER);
         CREATE TABLE gpkg_geometry_columns (table_name TEXT PRIMARY KEY, column_name TEXT NOT NULL,
           geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL);",
    )
    .unwrap();
    db
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn add_layer(db: &Connection, layer: &Layer<'_>, rows: &[Row]) {
    db.execute_batch("SAVEPOINT layer").unwrap();
    let (table, geometry, id) = (quoted(layer.table), quoted(layer.geometry), quoted(layer.id));
    if layer.srs > 0 {
        let wkt = gdal::spatial_ref::SpatialRef::from_epsg(layer.srs as u32).unwrap().to_wkt().unwrap();
        db.execute(
            "INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES (?1, ?2, 'EPSG', ?2, ?3, NULL)",
            (layer.table, layer.srs, wkt),
        )
        .unwrap();
    }
    let code = layer.code.map_or(String::new(), |t| format!(", \"EC_hcat_c\" {t}"));
    let name = if layer.name { ", \"EC_hcat_n\" TEXT" } else { "" };
    db.execute_batch(&format!(
        "CREATE TABLE {table} ({id} INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, {geometry} {}{code}{name}, area REAL)",
        layer.kind
    ))
    .unwrap();
    db.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES (?1, 'features', ?1, ?2)",
        (layer.table, layer.srs),
    )
    .unwrap();
    db.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?1, ?2, ?3, ?4, 0, 0)",
        (layer.table, layer.geometry, layer.kind, layer.srs),
    )
    .unwrap();
    for r in rows {
        db.execute(&format!("INSERT INTO {table} ({id}, {geometry}) VALUES (?1, ?2)"), (r.id, &r.blob)).unwrap();
        if layer.code.is_some() {
            db.execute(&format!("UPDATE {table} SET \"EC_hcat_c\" = ?2 WHERE {id} = ?1"), (r.id, &r.code)).unwrap();
        }
        if layer.name {
            db.execute(&format!("UPDATE {table} SET \"EC_hcat_n\" = ?2 WHERE {id} = ?1"), (r.id, &r.name)).unwrap();
        }
    }
    add_rtree(db, layer, rows);
    db.execute_batch("RELEASE layer").unwrap();
}

fn add_rtree(db: &Connection, layer: &Layer<'_>, rows: &[Row]) {
    if layer.rtree == Rtree::None {
        return;
    }
    let rtree = quoted(&format!("rtree_{}_{}", layer.table, layer.geometry));
    db.execute_batch(&format!("CREATE VIRTUAL TABLE {rtree} USING rtree(id, minx, maxx, miny, maxy)")).unwrap();
    let kept = match layer.rtree {
        Rtree::Filled => rows.len(),
        Rtree::Stale => rows.len() * 3 / 4,
        Rtree::Empty | Rtree::None => 0,
    };
    for r in &rows[..kept] {
        if let Some([w, s, e, n]) = r.blob.as_deref().and_then(blob::header_envelope) {
            db.execute(&format!("INSERT INTO {rtree} VALUES (?1, ?2, ?3, ?4, ?5)"), (r.id, w, e, s, n)).unwrap();
        }
    }
}

pub fn classes() -> Arc<ClassTable> {
    let text = include_str!("../../config/classes/eurocrops.csv");
    Arc::new(ClassTable::parse(text, "config/classes/eurocrops.csv").unwrap())
}

pub fn options(layer: Option<&str>) -> OpenOptions {
    let choice = LayerChoice {
        layer: layer.map(str::to_owned),
        code_column: Some("EC_hcat_c".into()),
        name_column: Some("EC_hcat_n".into()),
    };
    OpenOptions { choice, assume_immutable: false }
}

pub fn square(x: f64, y: f64, side: f64) -> Polygon {
    Polygon::from_ring([[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]])
}

pub fn scan_all(source: &dyn ParcelSource) -> Result<Vec<ScannedParcel>, ParcelError> {
    let mut rows = Vec::new();
    let count = source.scan(&mut |p| rows.push(p.clone()), &mut |_| ControlFlow::Continue(()))?;
    assert_eq!(count, rows.len() as u64);
    Ok(rows)
}
