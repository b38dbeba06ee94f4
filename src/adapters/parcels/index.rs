//! Finding the rows that meet a box: by the GeoPackage's own R-tree, or by one made in memory.
//!
//! Units: the parcels' CRS. Contract: both give a superset of the rows whose envelope meets the box; the caller
//! compares the real envelope. A file's R-tree is used only after a sample of rows was found in it.
//! Trap: an R-tree table may be there and be empty or out of date, when a tool without triggers added rows.

use std::path::Path;

use rstar::RTree;
use rstar::primitives::{GeomWithData, Rectangle};
use rusqlite::{Connection, OptionalExtension};

use super::blob;
use super::error::ParcelError;
use super::layer::LayerInfo;
use super::sql::{from_sqlite, quote};
use crate::domain::polygon::{Envelope, Polygon};

/// Rows that are looked up in the file's R-tree before it is believed.
const SAMPLES: i64 = 64;

/// Envelopes of all rows, 40 bytes each and the tree's own nodes.
pub(super) type Envelopes = RTree<GeomWithData<Rectangle<[f64; 2]>, i64>>;

/// Name of the layer's R-tree table if it can be trusted.
pub(super) fn trusted_rtree(db: &Connection, path: &Path, layer: &LayerInfo) -> Result<Option<String>, ParcelError> {
    let name = format!("rtree_{}_{}", layer.name, layer.geometry_column);
    let find = || -> rusqlite::Result<Option<String>> {
        let table: Option<String> = db
            .query_row(
                "SELECT name FROM sqlite_master WHERE lower(name) = lower(?1) AND type = 'table'",
                [&name],
                |row| row.get(0),
            )
            .optional()?;
        let Some(table) = table else { return Ok(None) };
        Ok(is_current(db, layer, &table)?.then_some(table))
    };
    find().map_err(|e| from_sqlite(path, e))
}

fn is_current(db: &Connection, layer: &LayerInfo, rtree: &str) -> rusqlite::Result<bool> {
    let table = quote(&layer.name);
    let span = format!("SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})");
    let (low, high): (Option<i64>, Option<i64>) = db.query_row(&span, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((low, high)) = low.zip(high) else { return Ok(true) };
    let geometry = quote(&layer.geometry_column);
    let mut next = db.prepare(&format!(
        "SELECT rowid, {geometry} FROM {table} WHERE rowid >= ?1 AND {geometry} IS NOT NULL LIMIT 1"
    ))?;
    let mut entry = db.prepare(&format!("SELECT minx, miny, maxx, maxy FROM {} WHERE id = ?1", quote(rtree)))?;
    let span = high.abs_diff(low) as f64;
    let mut shape = Polygon::default();
    for sample in 0..SAMPLES {
        let from = low.saturating_add((span * sample as f64 / (SAMPLES - 1) as f64) as i64);
        let found = next
            .query_row([from], |row| Ok((row.get::<_, i64>(0)?, envelope(row.get_ref(1)?, &mut shape))))
            .optional()?;
        let Some((id, Some(real))) = found else { continue };
        let kept: Option<Envelope> =
            entry.query_row([id], |r| Ok([r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?])).optional()?;
        if !kept.is_some_and(|k| k[0] <= real[0] && k[1] <= real[1] && k[2] >= real[2] && k[3] >= real[3]) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the whole table once.
pub(super) fn build(db: &Connection, path: &Path, layer: &LayerInfo) -> Result<Envelopes, ParcelError> {
    let read = || -> rusqlite::Result<Envelopes> {
        let geometry = quote(&layer.geometry_column);
        let sql = format!(
            "SELECT rowid, {geometry} FROM {} WHERE length({geometry}) <= {}",
            quote(&layer.name),
            blob::MAX_BLOB_BYTES
        );
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let (mut entries, mut shape) = (Vec::new(), Polygon::default());
        while let Some(row) = rows.next()? {
            if let Some([w, s, e, n]) = envelope(row.get_ref(1)?, &mut shape) {
                entries.push(GeomWithData::new(Rectangle::from_corners([w, s], [e, n]), row.get(0)?));
            }
        }
        Ok(RTree::bulk_load(entries))
    };
    read().map_err(|e| from_sqlite(path, e))
}

/// Ids of the rows whose envelope meets the box, ascending, at most `limit`.
pub(super) fn ids(envelopes: &Envelopes, area: Envelope, limit: usize) -> Vec<i64> {
    let around = rstar::AABB::from_corners([area[0], area[1]], [area[2], area[3]]);
    let hits = envelopes.locate_in_envelope_intersecting(around).take(limit);
    let mut ids: Vec<i64> = hits.map(|entry| entry.data).collect();
    ids.sort_unstable();
    ids
}

/// The envelope of a row: from the header, or from the points where the header has none.
fn envelope(value: rusqlite::types::ValueRef<'_>, shape: &mut Polygon) -> Option<Envelope> {
    let bytes = value.as_blob().ok()?;
    blob::header_envelope(bytes).or_else(|| blob::parse(bytes, shape).ok().and_then(|()| shape.envelope()))
}
