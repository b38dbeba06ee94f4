//! Rows as they come from the table, and the statements that fetch them.
//!
//! Contract: columns are id, geometry, code, name, length of the geometry, in this order, whatever they are
//! called. A geometry larger than [`MAX_BLOB_BYTES`] is not fetched.
//! Trap: asking for the length takes 6 % of a scan. [`quick_scan_sql`] leaves it out and must be
//! run under [`limited`], where a row too large for that ends the statement with an error.

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::blob::MAX_BLOB_BYTES;
use super::layer::LayerInfo;
use super::sql::quote;
use crate::domain::parcel::Reject;

/// The columns, the geometry unless it is too large.
fn columns(layer: &LayerInfo) -> String {
    let geometry = quote(&layer.geometry_column);
    let small = format!("CASE WHEN length({geometry}) <= {MAX_BLOB_BYTES} THEN {geometry} END");
    columns_with(layer, &small, &format!("length({geometry})"))
}

fn columns_with(layer: &LayerInfo, geometry: &str, length: &str) -> String {
    let optional = |name: &Option<String>| name.as_deref().map_or("NULL".to_owned(), quote);
    let (code, name) = (optional(&layer.code_column), optional(&layer.name_column));
    format!("{}, {geometry}, {code}, {name}, {length}", id(layer))
}

fn id(layer: &LayerInfo) -> String {
    if layer.id_column == "rowid" { "rowid".to_owned() } else { quote(&layer.id_column) }
}

/// The rows with ?1 <= id <= ?2 in order of id.
pub(super) fn scan_sql(layer: &LayerInfo) -> String {
    between(layer, &columns(layer))
}

/// The same, without a look at the length of a geometry first.
pub(super) fn quick_scan_sql(layer: &LayerInfo) -> String {
    between(layer, &columns_with(layer, &quote(&layer.geometry_column), "NULL"))
}

fn between(layer: &LayerInfo, columns: &str) -> String {
    let id = id(layer);
    format!("SELECT {columns} FROM {} WHERE {id} BETWEEN ?1 AND ?2 ORDER BY {id}", quote(&layer.name))
}

/// Runs `f` while SQLite refuses to fetch any value larger than [`MAX_BLOB_BYTES`].
pub(super) fn limited<R>(db: &Connection, f: impl FnOnce() -> rusqlite::Result<R>) -> rusqlite::Result<R> {
    let before = db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_BLOB_BYTES as i32)?;
    let result = f();
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, before)?;
    result
}

/// Whether a value was refused for its size.
pub(super) fn is_too_large(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::TooBig)
}

/// Least and greatest id; NULL without rows. SQLite looks up one of them at a time without a scan.
pub(super) fn span_sql(layer: &LayerInfo) -> String {
    let (id, table) = (id(layer), quote(&layer.name));
    format!("SELECT (SELECT min({id}) FROM {table}), (SELECT max({id}) FROM {table})")
}

/// Ids of the rows whose entry in the R-tree meets the box ?1 <= x <= ?2, ?3 <= y <= ?4; at most ?5.
pub(super) fn rtree_sql(rtree: &str) -> String {
    format!("SELECT id FROM {} WHERE maxx >= ?1 AND minx <= ?2 AND maxy >= ?3 AND miny <= ?4 LIMIT ?5", quote(rtree),)
}

/// One row by id.
pub(super) fn row_sql(layer: &LayerInfo) -> String {
    format!("SELECT {} FROM {} WHERE rowid = ?1", columns(layer), quote(&layer.name))
}

/// The geometry of a row, or why there is none.
pub(super) fn geometry<'a>(row: &'a Row<'_>) -> rusqlite::Result<Result<&'a [u8], Reject>> {
    Ok(match row.get_ref(1)? {
        ValueRef::Blob(blob) => Ok(blob),
        ValueRef::Null if row.get::<_, Option<i64>>(4)?.is_some() => Err(Reject::TooLarge),
        ValueRef::Null => Err(Reject::NullGeometry),
        ValueRef::Text(_) | ValueRef::Integer(_) | ValueRef::Real(_) => Err(Reject::InvalidGeometry),
    })
}
