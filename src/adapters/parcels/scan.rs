//! One streaming pass over the table: readers take turns at ranges of ids and work out where the parcels are, the
//! calling thread brings their places to lon/lat.
//!
//! Contract: rows arrive in order of id. A reader has [`BATCHES`] batches of [`BATCH_ROWS`] rows, which are used
//! again, and one geometry at a time. All readers see the same state of the file: each holds SQLite's shared lock
//! before the first row is read.
//! Trap: the sink runs on the calling thread; a slow sink slows the readers down, it does not pile up rows. Where
//! ids are sparse in one place and dense in another, one reader does most of the work: slower, not wrong.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};

use super::error::ParcelError;
use super::labels::Labeller;
use super::layer::LayerInfo;
use super::place::{self, Places};
use super::sql::from_sqlite;
use super::{ScanProgress, blob, query};
use crate::domain::class_table::Lookup;
use crate::domain::parcel::{Reject, ScannedParcel};
use crate::domain::polygon::Polygon;

const BATCH_ROWS: usize = 8192;
const BATCHES: usize = 4;

/// Bytes that a row with a polygon takes in the file, at least: four points of 16 bytes.
const ROW_BYTES: u64 = 64;

/// Gives the lock back. Not reached after an error, when the connection is closed.
const END: &str = "COMMIT";

/// A connection that nobody else uses meanwhile, and what classifies its rows.
pub(super) type Reader<'a> = (&'a mut Connection, &'a mut Labeller);

/// Rows with their representative points in the parcels' CRS.
#[derive(Default)]
struct Batch {
    rows: Vec<BatchRow>,
    /// Those of the rows that have one, in their order.
    points: Vec<[f64; 2]>,
    /// The last one of its range.
    ends: bool,
}

struct BatchRow {
    id: i64,
    class: Lookup,
    label: Option<Arc<str>>,
    point: Result<(), Reject>,
}

impl Batch {
    /// Gives the row's id; `shape` is used again.
    fn push(&mut self, row: &Row<'_>, labeller: &mut Labeller, shape: &mut Polygon) -> rusqlite::Result<i64> {
        let point = query::geometry(row)?.and_then(|blob| {
            blob::parse(blob, shape).map_err(blob::BlobError::reject)?;
            place::point(shape)
        });
        let code = row.get_ref(2)?;
        let class = labeller.classify(code, || row.get_ref(3).unwrap_or(ValueRef::Null));
        let label = (class == Lookup::Unknown).then(|| labeller.label());
        self.points.extend(point.ok());
        let id = row.get(0)?;
        self.rows.push(BatchRow { id, class, label, point: point.map(|_| ()) });
        Ok(id)
    }
}

/// The ids of a table in equal ranges, of a batch each if the ids have no gaps.
#[derive(Debug, Clone, Copy)]
struct Ranges {
    first: i64,
    last: i64,
    /// Ids of a range; 1 at least.
    ids: u64,
    count: u64,
}

impl Ranges {
    fn new(first: i64, last: i64, rows: u64) -> Self {
        let wanted = rows.div_ceil(BATCH_ROWS as u64).max(1);
        let ids = (last.abs_diff(first) / wanted).saturating_add(1);
        Self { first, last, ids, count: last.abs_diff(first) / ids + 1 }
    }

    /// First and last id of a range.
    fn get(self, number: u64) -> (i64, i64) {
        let start = self.first.saturating_add_unsigned(number * self.ids);
        (start, start.saturating_add_unsigned(self.ids - 1).min(self.last))
    }
}

/// The two ways between a reader and the calling thread.
struct Lane {
    full: Receiver<Batch>,
    free: SyncSender<Batch>,
}

/// See [`super::ParcelSource::scan`]; each reader works on a thread of its own.
pub(super) fn scan(
    readers: Vec<Reader<'_>>,
    (layer, path): (&LayerInfo, &Path),
    places: &Places,
    sink: &mut dyn FnMut(&ScannedParcel),
    progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
) -> Result<u64, ParcelError> {
    let (mut span, mut ready) = (None, Vec::new());
    for (db, labeller) in readers {
        match begin(db, layer) {
            Ok(found) => {
                span = span.or(found);
                ready.push((db, labeller));
            }
            // Somebody waits to write, so nobody else gets in; the reader that is in goes on alone.
            Err(_) if !ready.is_empty() => {
                // Fails where BEGIN has.
                let _ = db.execute_batch("ROLLBACK");
            }
            Err(error) => return Err(from_sqlite(path, error)),
        }
    }
    let Some((first, last)) = span else {
        return ready
            .iter()
            .try_for_each(|(db, _)| db.execute_batch(END))
            .map(|()| 0)
            .map_err(|e| from_sqlite(path, e));
    };
    // The estimate may be nothing but the span of the ids; the file cannot hold more than it has room for.
    let room = std::fs::metadata(path).map_or(0, |m| m.len()) / ROW_BYTES;
    let ranges = Ranges::new(first, last, layer.row_estimate.min(room));
    let lost = || ParcelError::ReaderLost { path: path.to_owned() };
    std::thread::scope(|scope| {
        let (mut lanes, mut threads, turns) = (Vec::new(), Vec::new(), ready.len());
        for (turn, reader) in ready.into_iter().enumerate() {
            let (full_tx, full) = sync_channel::<Batch>(BATCHES);
            let (free, free_rx) = sync_channel::<Batch>(BATCHES);
            for _ in 0..BATCHES {
                let _ = free.send(Batch::default());
            }
            let mine = (turn as u64..ranges.count).step_by(turns).map(move |number| ranges.get(number));
            let run = move || read(reader, layer, mine, &free_rx, &full_tx);
            let thread = std::thread::Builder::new().name("parcel-reader".into()).spawn_scoped(scope, run);
            threads.push(thread.map_err(|_| lost())?);
            lanes.push(Lane { full, free });
        }
        let outcome = Work { places, total_estimate: layer.row_estimate, sink, progress }.run(&lanes, ranges.count);
        // A reader that waits for either channel ends when both are gone.
        drop(lanes);
        let read: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let rows = outcome?;
        for outcome in read {
            outcome.map_err(|_| lost())?.map_err(|e| from_sqlite(path, e))?;
        }
        rows.ok_or_else(lost)
    })
}

/// First and last id, read in a transaction that stays open.
fn begin(db: &Connection, layer: &LayerInfo) -> rusqlite::Result<Option<(i64, i64)>> {
    db.execute_batch("BEGIN")?; // until END
    let (first, last): (Option<i64>, Option<i64>) =
        db.query_row(&query::span_sql(layer), [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(first.zip(last))
}

/// Reads until its ranges end or nobody wants more.
fn read(
    (db, labeller): Reader<'_>,
    layer: &LayerInfo,
    ranges: impl Iterator<Item = (i64, i64)>,
    free: &Receiver<Batch>,
    full: &SyncSender<Batch>,
) -> rusqlite::Result<()> {
    let mut quick = db.prepare_cached(&query::quick_scan_sql(layer))?;
    let mut out = Out { labeller, shape: Polygon::default(), batch: Batch::default(), free, full };
    for (mut next, last) in ranges {
        if !out.fetch() {
            return Ok(());
        }
        let read = query::limited(db, || out.read(&mut quick, &mut next, last));
        let wanted = match read {
            Err(error) if query::is_too_large(&error) => {
                out.read(&mut *db.prepare_cached(&query::scan_sql(layer))?, &mut next, last)
            }
            read => read,
        }?;
        if !(wanted && out.send(true)) {
            return Ok(());
        }
    }
    drop(quick);
    db.execute_batch(END)
}

/// The batch being filled, and where it goes.
struct Out<'a> {
    labeller: &'a mut Labeller,
    /// Used again for every row.
    shape: Polygon,
    batch: Batch,
    free: &'a Receiver<Batch>,
    full: &'a SyncSender<Batch>,
}

impl Out<'_> {
    /// Reads the rows from `next`, which goes along, to `last`. `false` when nobody wants more.
    fn read(&mut self, statement: &mut Statement<'_>, next: &mut i64, last: i64) -> rusqlite::Result<bool> {
        let mut rows = statement.query((*next, last))?;
        while let Some(row) = rows.next()? {
            if self.batch.rows.len() == BATCH_ROWS && !(self.send(false) && self.fetch()) {
                return Ok(false);
            }
            let id = self.batch.push(row, self.labeller, &mut self.shape)?;
            // Nothing comes after the greatest id there is.
            *next = id.saturating_add(1);
        }
        Ok(true)
    }

    fn fetch(&mut self) -> bool {
        let Ok(mut batch) = self.free.recv() else { return false };
        batch.rows.clear();
        batch.points.clear();
        self.batch = batch;
        true
    }

    fn send(&mut self, ends: bool) -> bool {
        self.batch.ends = ends;
        self.full.send(std::mem::take(&mut self.batch)).is_ok()
    }
}

/// What the calling thread does with the rows.
struct Work<'a> {
    places: &'a Places,
    total_estimate: u64,
    sink: &'a mut dyn FnMut(&ScannedParcel),
    progress: &'a mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
}

impl Work<'_> {
    /// Works off all ranges in order. `None` when a reader ended before its last range.
    fn run(mut self, lanes: &[Lane], ranges: u64) -> Result<Option<u64>, ParcelError> {
        let mut rows = 0;
        for (_, lane) in (0..ranges).zip(lanes.iter().cycle()) {
            let mut ends = false;
            while !ends {
                let Ok(mut batch) = lane.full.recv() else { return Ok(None) };
                ends = batch.ends;
                rows += batch.rows.len() as u64;
                self.hand_on(&mut batch)?;
                if (self.progress)(ScanProgress { rows, total_estimate: self.total_estimate }).is_break() {
                    return Err(ParcelError::Cancelled);
                }
                // The reader may have read its last row and gone.
                let _ = lane.free.send(batch);
            }
        }
        Ok(Some(rows))
    }

    fn hand_on(&mut self, batch: &mut Batch) -> Result<(), ParcelError> {
        self.places.lonlat(&mut batch.points)?;
        let mut placed = batch.points.iter();
        for row in batch.rows.drain(..) {
            let mut next = || placed.next().map_or(Err(Reject::OffTheMap), |p| place::on_map(*p));
            let place = row.point.and_then(|()| next());
            (self.sink)(&ScannedParcel { id: row.id, class: row.class, label: row.label, place });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::adapters::crs::Crs;
    use crate::domain::class_table::ClassTable;

    /// Scans `first` with a second reader whose file lacks the table; gives the rows. Twice, as locks are given back.
    fn scan_beside_a_stranger(first: &str) -> Vec<u64> {
        let layer = LayerInfo {
            name: "t".into(),
            geometry_column: "geom".into(),
            id_column: "rowid".into(),
            code_column: Some("code".into()),
            name_column: None,
            crs: Crs::lonlat(),
            row_estimate: 3,
            fingerprint: String::new(),
        };
        let places = Places::new(&layer.crs).unwrap();
        let classes = Arc::new(ClassTable::parse("class,5,cereals,#ddcc44\nname,barley,5,\n", "test").unwrap());
        let [mut one, mut two] = [0, 1].map(|_| Connection::open_in_memory().unwrap());
        let [mut labels, mut more] = [0, 1].map(|_| Labeller::new(classes.clone()));
        one.execute_batch(first).unwrap();
        let mut scan_once = || {
            let readers = vec![(&mut one, &mut labels), (&mut two, &mut more)];
            let place = (&layer, Path::new("t.gpkg"));
            let rows = scan(readers, place, &places, &mut |_| {}, &mut |_| ControlFlow::Continue(())).unwrap();
            assert!(one.is_autocommit() && two.is_autocommit());
            rows
        };
        vec![scan_once(), scan_once()]
    }

    #[test]
    fn a_second_reader_that_does_not_get_in_is_done_without() {
        let table = "CREATE TABLE t (geom BLOB, code TEXT);";
        assert_eq!(scan_beside_a_stranger(table), [0, 0]);
        assert_eq!(
            scan_beside_a_stranger(&format!("{table} INSERT INTO t (code) VALUES ('1'), ('2'), ('3');")),
            [3, 3]
        );
    }

    #[test]
    fn ranges_hold_every_id_once_whatever_the_gaps() {
        let spans =
            [(1, 1), (0, 2047), (1, 2049), (-5, 5000), (7, 1 << 40), (i64::MIN, i64::MAX), (i64::MAX, i64::MAX)];
        for (first, last) in spans {
            for rows in [0, 1, 2048, 2049, 2_000_000] {
                let ranges = Ranges::new(first, last, rows);
                assert!(ranges.count <= rows.div_ceil(BATCH_ROWS as u64) + 2, "{ranges:?}");
                let mut next = i128::from(first);
                for number in 0..ranges.count {
                    let (from, to) = ranges.get(number);
                    assert!(i128::from(from) == next && from <= to, "{ranges:?} {number}");
                    next = i128::from(to) + 1;
                }
                assert_eq!(next, i128::from(last) + 1, "{ranges:?}");
            }
        }
    }
}
