//! Choosing the layer and its columns.
//!
//! Contract: the configured layer, else the only layer of polygons that has rows, else an error that lists what
//! there is. Names are compared exactly first, then without regard to case, as SQL does.
//! Trap: a column of type GEOMETRY (or of a type that the standard does not know) says nothing; its first rows
//! are looked at.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::blob;
use super::error::ParcelError;
use super::sql::{from_sqlite, quote};
use crate::adapters::crs::Crs;

/// Rows of an untyped layer that are looked at.
const SNIFFED_ROWS: u32 = 64;

/// What the configuration says about the layer. Empty strings count as `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerChoice {
    /// `parcels.layer`.
    pub layer: Option<String>,
    /// `parcels.code_column`.
    pub code_column: Option<String>,
    /// `parcels.name_column`.
    pub name_column: Option<String>,
}

/// An opened layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInfo {
    /// Table name.
    pub name: String,
    /// Geometry column.
    pub geometry_column: String,
    /// Integer primary key, or `rowid`.
    pub id_column: String,
    /// Column of crop codes, if there is one.
    pub code_column: Option<String>,
    /// Column of crop names, if there is one.
    pub name_column: Option<String>,
    /// The parcels' CRS.
    pub crs: Crs,
    /// Rows as far as the file tells cheaply; may be too large, and 0 only when there are none.
    pub row_estimate: u64,
    /// Changes when the layer does.
    pub fingerprint: String,
}

/// One row of `gpkg_contents` with its geometry column.
#[derive(Debug)]
struct Entry {
    table: String,
    geometry_column: String,
    declared: String,
    srs_id: i64,
    last_change: String,
    kind: Option<String>,
    rows: u64,
    polygons: bool,
}

impl Entry {
    fn describe(&self) -> String {
        match &self.kind {
            None => format!("`{}` (its table is missing)", self.table),
            Some(_) => format!("`{}` ({}, about {} rows)", self.table, self.declared, self.rows),
        }
    }
}

/// Finds the layer.
///
/// # Errors
/// Everything that makes a layer unusable as parcels.
pub(super) fn choose(db: &Connection, path: &Path, choice: &LayerChoice) -> Result<LayerInfo, ParcelError> {
    let entries = entries(db, path)?;
    let entry = pick(&entries, path, choice.layer.as_deref().filter(|l| !l.is_empty()))?;
    let unusable = |reason: &str| ParcelError::UnusableLayer {
        path: path.to_owned(),
        layer: entry.table.clone(),
        reason: reason.to_owned(),
    };
    match entry.kind.as_deref() {
        None => return Err(unusable("its table is missing")),
        Some("view") => {
            return Err(unusable("it is a view, whose rows have no stable ids: export it to a table with ogr2ogr"));
        }
        Some(_) if !entry.polygons && entry.rows > 0 => {
            return Err(unusable(&format!("its geometries are {}, not polygons", entry.declared)));
        }
        Some(_) => {}
    }
    let columns = columns(db, &entry.table).map_err(|e| from_sqlite(path, e))?;
    let (code_column, name_column) = class_columns(&columns, entry, path, choice)?;
    let sqlite = |e| from_sqlite(path, e);
    let crs = layer_crs(db, path, entry)?;
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    let count = row_count(db, &entry.table).map_err(sqlite)?;
    Ok(LayerInfo {
        name: entry.table.clone(),
        geometry_column: entry.geometry_column.clone(),
        id_column: id_column(&columns),
        code_column,
        name_column,
        row_estimate: count,
        fingerprint: format!("{}|{count}|{}|{}|{size}", entry.table, crs.definition(), entry.last_change),
        crs,
    })
}

fn entries(db: &Connection, path: &Path) -> Result<Vec<Entry>, ParcelError> {
    let read = || -> rusqlite::Result<Vec<Entry>> {
        let mut statement = db.prepare(
            "SELECT c.table_name, g.column_name, upper(g.geometry_type_name), g.srs_id, \
                    coalesce(c.last_change, ''), m.type \
             FROM gpkg_contents c \
             JOIN gpkg_geometry_columns g ON lower(g.table_name) = lower(c.table_name) \
             LEFT JOIN sqlite_master m ON lower(m.name) = lower(c.table_name) AND m.type IN ('table', 'view') \
             WHERE lower(c.data_type) = 'features' ORDER BY c.rowid",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Entry {
                table: row.get(0)?,
                geometry_column: row.get(1)?,
                declared: row.get(2)?,
                srs_id: row.get(3)?,
                last_change: row.get(4)?,
                kind: row.get(5)?,
                rows: 0,
                polygons: false,
            })
        })?;
        let mut entries: Vec<Entry> = rows.collect::<rusqlite::Result<_>>()?;
        for entry in entries.iter_mut().filter(|e| e.kind.is_some()) {
            entry.rows = row_count(db, &entry.table)?;
            entry.polygons = has_polygons(db, entry)?;
        }
        Ok(entries)
    };
    read().map_err(|e| from_sqlite(path, e))
}

fn pick<'a>(entries: &'a [Entry], path: &Path, wanted: Option<&str>) -> Result<&'a Entry, ParcelError> {
    let path = path.to_owned();
    let list = |entries: &mut dyn Iterator<Item = &Entry>| {
        let all: Vec<String> = entries.map(Entry::describe).collect();
        if all.is_empty() { "none (no row of gpkg_contents is a feature table)".to_owned() } else { all.join(", ") }
    };
    if let Some(wanted) = wanted {
        let exact = entries.iter().find(|e| e.table == wanted);
        let found = exact.or_else(|| entries.iter().find(|e| e.table.eq_ignore_ascii_case(wanted)));
        let layers = list(&mut entries.iter());
        return found.ok_or(ParcelError::NoSuchLayer { path, layer: wanted.to_owned(), layers });
    }
    let mut candidates = entries.iter().filter(|e| e.polygons && e.rows > 0);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(ParcelError::NoPolygonLayer { path, layers: list(&mut entries.iter()) }),
        _ => {
            let layers = list(&mut entries.iter().filter(|e| e.polygons && e.rows > 0));
            Err(ParcelError::AmbiguousLayer { path, layers })
        }
    }
}

/// Rows: GDAL's own count where it keeps one, else the span of ids, which is exact for tables without gaps.
fn row_count(db: &Connection, table: &str) -> rusqlite::Result<u64> {
    let kept: Option<Option<i64>> = db
        .query_row("SELECT feature_count FROM gpkg_ogr_contents WHERE lower(table_name) = lower(?1)", [table], |row| {
            row.get(0)
        })
        .optional()
        .unwrap_or(None);
    if let Some(Some(count)) = kept.map(|c| c.filter(|n| *n > 0)) {
        return Ok(count.unsigned_abs());
    }
    let span = format!("SELECT (SELECT min(rowid) FROM {0}), (SELECT max(rowid) FROM {0})", quote(table));
    let (low, high): (Option<i64>, Option<i64>) =
        db.query_row(&span, [], |row| Ok((row.get(0)?, row.get(1)?))).or_else(|_| {
            // A view has no row ids.
            let any = format!("SELECT 1 FROM {} LIMIT 1", quote(table));
            Ok::<_, rusqlite::Error>((db.query_row(&any, [], |row| row.get(0)).optional()?, Some(1)))
        })?;
    Ok(low.zip(high).map_or(0, |(low, high)| high.abs_diff(low).saturating_add(1)))
}

fn has_polygons(db: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
    match entry.declared.as_str() {
        "POLYGON" | "MULTIPOLYGON" | "CURVEPOLYGON" | "MULTISURFACE" | "SURFACE" | "TRIANGLE" => Ok(true),
        "POINT" | "MULTIPOINT" | "LINESTRING" | "MULTILINESTRING" | "CURVE" | "CIRCULARSTRING" | "COMPOUNDCURVE"
        | "MULTICURVE" => Ok(false),
        _ => sniff(db, entry),
    }
}

fn sniff(db: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
    let column = quote(&entry.geometry_column);
    let sql = format!(
        "SELECT substr({column}, 1, 80) FROM {} WHERE {column} IS NOT NULL LIMIT {SNIFFED_ROWS}",
        quote(&entry.table)
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let kind = row.get_ref(0)?.as_blob().ok().and_then(blob::geometry_type);
        if kind.is_some_and(blob::is_polygonal) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Name, declared type, place in the primary key (0: not in it).
type Column = (String, String, u32);

fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = db.prepare("SELECT name, upper(type), pk FROM pragma_table_info(?1)")?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// The integer primary key is the row id under another name; tables without one still have row ids.
fn id_column(columns: &[Column]) -> String {
    let mut keys = columns.iter().filter(|(_, _, place)| *place > 0);
    match (keys.next(), keys.next()) {
        (Some((name, kind, _)), None) if kind == "INTEGER" => name.clone(),
        _ => "rowid".to_owned(),
    }
}

fn class_columns(
    columns: &[Column],
    entry: &Entry,
    path: &Path,
    choice: &LayerChoice,
) -> Result<(Option<String>, Option<String>), ParcelError> {
    let find = |wanted: &Option<String>| {
        let wanted = wanted.as_deref().filter(|w| !w.is_empty())?;
        let exact = columns.iter().find(|(name, ..)| name == wanted);
        exact.or_else(|| columns.iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted))).map(|c| c.0.clone())
    };
    match (find(&choice.code_column), find(&choice.name_column)) {
        (None, None) => {
            let wanted: Vec<String> =
                [&choice.code_column, &choice.name_column].into_iter().flatten().map(|w| format!("`{w}`")).collect();
            let all: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
            Err(ParcelError::NoClassColumn {
                path: path.to_owned(),
                layer: entry.table.clone(),
                wanted: if wanted.is_empty() { "(none is configured)".to_owned() } else { wanted.join(" nor ") },
                columns: all.join(", "),
            })
        }
        found => Ok(found),
    }
}

fn layer_crs(db: &Connection, path: &Path, entry: &Entry) -> Result<Crs, ParcelError> {
    let row: Option<(String, i64, String)> = db
        .query_row(
            "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?1",
            [entry.srs_id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(|e| from_sqlite(path, e))?;
    let (organization, code, definition) = row.unwrap_or_default();
    Crs::from_srs_row(entry.srs_id, &organization, code, &definition).map_err(|source| ParcelError::LayerCrs {
        path: path.to_owned(),
        layer: entry.table.clone(),
        source: Box::new(source),
    })
}
