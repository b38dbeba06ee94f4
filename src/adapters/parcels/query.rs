//! Rows as they come from the table, and the statements that fetch them.
//!
//! Contract: columns are id, length of the geometry, geometry, code, name, in this order, whatever they are
//! called. A geometry larger than [`MAX_BLOB_BYTES`] is not fetched.
//! Trap: reading a later column of a row makes SQLite walk the row's overflow pages; the geometry comes first
//! because it is needed anyway.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::blob::MAX_BLOB_BYTES;
use super::layer::LayerInfo;
use super::sql::quote;
use crate::domain::parcel::Reject;

/// The columns with a table's alias in front (`t.`) or nothing.
fn columns(layer: &LayerInfo, alias: &str) -> String {
    let column = |name: &str| format!("{alias}{}", quote(name));
    let optional = |name: &Option<String>| name.as_deref().map_or("NULL".to_owned(), column);
    let geometry = column(&layer.geometry_column);
    format!(
        "{}, length({geometry}), CASE WHEN length({geometry}) <= {MAX_BLOB_BYTES} THEN {geometry} END, {}, {}",
        id(layer, alias),
        optional(&layer.code_column),
        optional(&layer.name_column),
    )
}

fn id(layer: &LayerInfo, alias: &str) -> String {
    if layer.id_column == "rowid" { format!("{alias}rowid") } else { format!("{alias}{}", quote(&layer.id_column)) }
}

/// The rows with ?1 <= id <= ?2 in order of id.
pub(super) fn scan_sql(layer: &LayerInfo) -> String {
    let id = id(layer, "");
    format!("SELECT {} FROM {} WHERE {id} BETWEEN ?1 AND ?2 ORDER BY {id}", columns(layer, ""), quote(&layer.name))
}

/// Least and greatest id; NULL without rows. SQLite looks up one of them at a time without a scan.
pub(super) fn span_sql(layer: &LayerInfo) -> String {
    let (id, table) = (id(layer, ""), quote(&layer.name));
    format!("SELECT (SELECT min({id}) FROM {table}), (SELECT max({id}) FROM {table})")
}

/// Rows whose entry in the R-tree meets the box ?1 <= x <= ?2, ?3 <= y <= ?4; at most ?5.
pub(super) fn rtree_sql(layer: &LayerInfo, rtree: &str) -> String {
    format!(
        "SELECT {} FROM {} r JOIN {} t ON t.rowid = r.id \
         WHERE r.maxx >= ?1 AND r.minx <= ?2 AND r.maxy >= ?3 AND r.miny <= ?4 LIMIT ?5",
        columns(layer, "t."),
        quote(rtree),
        quote(&layer.name),
    )
}

/// One row by id.
pub(super) fn row_sql(layer: &LayerInfo) -> String {
    format!("SELECT {} FROM {} WHERE rowid = ?1", columns(layer, ""), quote(&layer.name))
}

/// The geometry of a row, or why there is none.
pub(super) fn geometry<'a>(row: &'a Row<'_>) -> rusqlite::Result<Result<&'a [u8], Reject>> {
    Ok(match row.get_ref(2)? {
        ValueRef::Blob(blob) => Ok(blob),
        ValueRef::Null if row.get::<_, Option<i64>>(1)?.is_some() => Err(Reject::TooLarge),
        ValueRef::Null => Err(Reject::NullGeometry),
        ValueRef::Text(_) | ValueRef::Integer(_) | ValueRef::Real(_) => Err(Reject::InvalidGeometry),
    })
}
