//! One streaming pass over the table with two threads: one reads rows, one works out where parcels are.
//!
//! Contract: rows arrive in order of id. At most [`BATCHES`] batches of [`BATCH_ROWS`] rows (cut at
//! [`BATCH_BYTES`], so one larger geometry at most goes beyond it) exist at a time, and they are used again.
//! Trap: the sink runs on the calling thread; a slow sink slows the reader down, it does not pile up rows.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;

use super::error::ParcelError;
use super::labels::Labeller;
use super::place::{self, Places};
use super::sql::from_sqlite;
use super::{ScanProgress, blob, query};
use crate::domain::class_table::Lookup;
use crate::domain::parcel::{Reject, ScannedParcel};
use crate::domain::polygon::Polygon;

const BATCH_ROWS: usize = 2048;
const BATCH_BYTES: usize = 1 << 20;
const BATCHES: usize = 4;

/// Rows as read, geometries one after another.
#[derive(Default)]
struct Batch {
    rows: Vec<BatchRow>,
    bytes: Vec<u8>,
}

struct BatchRow {
    id: i64,
    class: Lookup,
    label: Option<Arc<str>>,
    /// End of the geometry in the batch's bytes.
    geometry: Result<usize, Reject>,
}

/// See [`super::ParcelSource::scan`]; the connection and the labeller are used by the reading thread.
pub(super) fn scan(
    (db, labeller): (&mut Connection, &mut Labeller),
    (sql, path): (&str, &Path),
    places: &Places,
    total_estimate: u64,
    sink: &mut dyn FnMut(&ScannedParcel),
    progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
) -> Result<u64, ParcelError> {
    let (full_tx, full_rx) = sync_channel::<Batch>(BATCHES);
    let (free_tx, free_rx) = sync_channel::<Batch>(BATCHES);
    for _ in 0..BATCHES {
        let _ = free_tx.send(Batch::default());
    }
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("parcel-reader".into())
            .spawn_scoped(scope, move || read(db, labeller, sql, &free_rx, &full_tx))
            .map_err(|_| ParcelError::ReaderLost { path: path.to_owned() })?;
        let outcome = work(places, &full_rx, &free_tx, total_estimate, sink, progress);
        // A reader that waits for either channel ends when both are gone.
        drop((full_rx, free_tx));
        let read = reader.join().map_err(|_| ParcelError::ReaderLost { path: path.to_owned() })?;
        let rows = outcome?;
        read.map_err(|e| from_sqlite(path, e))?;
        Ok(rows)
    })
}

/// Reads until the table ends or nobody wants more.
fn read(
    db: &mut Connection,
    labeller: &mut Labeller,
    sql: &str,
    free: &Receiver<Batch>,
    full: &SyncSender<Batch>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut more = true;
    while more {
        let Ok(mut batch) = free.recv() else { return Ok(()) };
        batch.rows.clear();
        batch.bytes.clear();
        while batch.rows.len() < BATCH_ROWS && batch.bytes.len() < BATCH_BYTES {
            let Some(row) = rows.next()? else {
                more = false;
                break;
            };
            let geometry = query::geometry(row)?.map(|blob| {
                batch.bytes.extend_from_slice(blob);
                batch.bytes.len()
            });
            let code = row.get_ref(3)?;
            let class = labeller.classify(code, || row.get_ref(4).unwrap_or(rusqlite::types::ValueRef::Null));
            let label = (class == Lookup::Unknown).then(|| labeller.label());
            batch.rows.push(BatchRow { id: row.get(0)?, class, label, geometry });
        }
        if full.send(batch).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Works off batches until the reader has gone.
fn work(
    places: &Places,
    full: &Receiver<Batch>,
    free: &SyncSender<Batch>,
    total_estimate: u64,
    sink: &mut dyn FnMut(&ScannedParcel),
    progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
) -> Result<u64, ParcelError> {
    let (mut rows, mut shape) = (0, Polygon::default());
    let mut points: Vec<[f64; 2]> = Vec::with_capacity(BATCH_ROWS);
    while let Ok(mut batch) = full.recv() {
        points.clear();
        let mut start = 0;
        for row in &mut batch.rows {
            let Ok(end) = row.geometry else { continue };
            let parsed = blob::parse(&batch.bytes[start..end], &mut shape).map_err(blob::BlobError::reject);
            start = end;
            match parsed.and_then(|()| place::point(&shape)) {
                Ok(point) => points.push(point),
                Err(reason) => row.geometry = Err(reason),
            }
        }
        places.lonlat(&mut points)?;
        rows += batch.rows.len() as u64;
        let mut placed = points.iter();
        for row in batch.rows.drain(..) {
            let mut next = || placed.next().map_or(Err(Reject::OffTheMap), |p| place::on_map(*p));
            let place = row.geometry.and_then(|_| next());
            sink(&ScannedParcel { id: row.id, class: row.class, label: row.label, place });
        }
        if progress(ScanProgress { rows, total_estimate }).is_break() {
            return Err(ParcelError::Cancelled);
        }
        // The reader may have read its last row and gone.
        let _ = free.send(batch);
    }
    Ok(rows)
}
