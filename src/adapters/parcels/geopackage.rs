//! Parcels in a GeoPackage file, by SQLite alone.
//!
//! Contract: `Send + Sync`; every caller works on a connection of its own, taken from a shelf and put back, so
//! there are as many as there were callers at the same time. Parcels that a cell has shown are remembered by their ids, up
//! to 4 MiB: whoever opens the file reads one state of it.
//! Trap: without a usable R-tree in the file the first [`ParcelSource::cell`] reads the whole table to make one
//! in memory: 0.6 us and 110 bytes per row.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rusqlite::{Connection, Row};

use super::gather::Gather;
use super::index::{self, Envelopes};
use super::labels::Labeller;
use super::layer::{self, LayerChoice, LayerInfo};
use super::place::Places;
use super::sql::{self, from_sqlite};
use super::{MAX_CELL_PARCELS, ParcelError, ParcelSource, ScanProgress, blob, query, scan};
use crate::domain::class_table::ClassTable;
use crate::domain::parcel::{Parcel, ScannedParcel};
use crate::domain::polygon::{Envelope, Polygon};

/// How the file is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Layer and columns.
    pub choice: LayerChoice,
    /// Nobody changes the file while this node runs: SQLite takes no locks.
    pub assume_immutable: bool,
}

/// A connection and what goes with it.
#[derive(Debug)]
struct Reader {
    db: Connection,
    labeller: Labeller,
}

impl Reader {
    fn scanner(&mut self) -> scan::Reader<'_> {
        (&mut self.db, &mut self.labeller)
    }
}

/// How the ids of a cell's rows are found.
#[derive(Debug)]
enum Finder {
    Rtree { sql: String },
    Memory(Mutex<Option<Arc<Envelopes>>>),
}

/// An opened GeoPackage.
#[derive(Debug)]
pub struct GeoPackage {
    path: PathBuf,
    options: OpenOptions,
    classes: Arc<ClassTable>,
    layer: LayerInfo,
    places: Places,
    finder: Finder,
    row_sql: String,
    shelf: Mutex<Vec<Reader>>,
    known: Known,
}

/// Parcels of cells that were read, by id: those around a cell's edges are read again for its neighbours.
type Known = Cache<i64, Parcel, ParcelWeight>;

/// How much of them is kept, bytes.
const KNOWN_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone)]
struct ParcelWeight;

impl Weighter<i64, Parcel> for ParcelWeight {
    fn weight(&self, _: &i64, parcel: &Parcel) -> u64 {
        (size_of_val(parcel.shape.points()) + size_of::<Parcel>()) as u64 + 128
    }
}

impl GeoPackage {
    /// Opens `path` and finds the layer.
    ///
    /// # Errors
    /// Anything that makes the file, its layer or its CRS unusable.
    pub fn open(path: &Path, options: OpenOptions, classes: Arc<ClassTable>) -> Result<Self, ParcelError> {
        let db = sql::open(path, options.assume_immutable)?;
        let layer = layer::choose(&db, path, &options.choice)?;
        let places = Places::new(&layer.crs).map_err(|source| ParcelError::LayerCrs {
            path: path.to_owned(),
            layer: layer.name.clone(),
            source: Box::new(source),
        })?;
        let finder = match index::trusted_rtree(&db, path, &layer)? {
            Some(rtree) => Finder::Rtree { sql: query::rtree_sql(&rtree) },
            None => Finder::Memory(Mutex::default()),
        };
        let row_sql = query::row_sql(&layer);
        let reader = Reader { db, labeller: Labeller::new(Arc::clone(&classes)) };
        let shelf = Mutex::new(vec![reader]);
        let known = Cache::with_weighter((KNOWN_BYTES / 512) as usize, KNOWN_BYTES, ParcelWeight);
        Ok(Self { path: path.to_owned(), options, classes, layer, places, finder, row_sql, shelf, known })
    }

    /// Whether cells are found by the file's own R-tree.
    pub fn has_rtree(&self) -> bool {
        matches!(self.finder, Finder::Rtree { .. })
    }

    /// Runs `f` with a connection that nobody else uses meanwhile. After an error the connection is dropped:
    /// a stale file handle does not get better.
    fn with_reader<R>(&self, f: impl FnOnce(&mut Reader) -> Result<R, ParcelError>) -> Result<R, ParcelError> {
        let shelved = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match shelved {
            Some(reader) => reader,
            None => Reader {
                db: sql::open(&self.path, self.options.assume_immutable)?,
                labeller: Labeller::new(Arc::clone(&self.classes)),
            },
        };
        let result = f(&mut reader)?;
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(result)
    }

    /// Ids of the rows that may meet the box, ascending, one more than allowed at most.
    fn ids_near(&self, db: &Connection, area: Envelope) -> Result<Vec<i64>, ParcelError> {
        let limit = MAX_CELL_PARCELS + 1;
        match &self.finder {
            Finder::Rtree { sql } => rtree_ids(db, sql, area, limit).map_err(|e| from_sqlite(&self.path, e)),
            Finder::Memory(envelopes) => Ok(index::ids(&*self.envelopes(db, envelopes)?, area, limit)),
        }
    }

    /// The index in memory, made by whoever needs it first; others wait for it.
    fn envelopes(&self, db: &Connection, slot: &Mutex<Option<Arc<Envelopes>>>) -> Result<Arc<Envelopes>, ParcelError> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(envelopes) = &*slot {
            return Ok(Arc::clone(envelopes));
        }
        tracing::info!(layer = %self.layer.name, "the layer has no usable R-tree: indexing it in memory");
        let envelopes = Arc::new(index::build(db, &self.path, &self.layer)?);
        *slot = Some(Arc::clone(&envelopes));
        Ok(envelopes)
    }
}

/// Ascending, because neighbours in the table are often neighbours on the ground and share its pages.
fn rtree_ids(db: &Connection, sql: &str, [w, s, e, n]: Envelope, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut ids: Vec<i64> =
        statement.query_map((w, e, s, n, limit as i64), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Calls `each` for those of the rows that are there.
fn listed_rows(
    db: &Connection,
    sql: &str,
    ids: &[i64],
    each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    for id in ids {
        let mut rows = statement.query([id])?;
        if let Some(row) = rows.next()? {
            each(row)?;
        }
    }
    Ok(())
}

impl ParcelSource for GeoPackage {
    fn layer(&self) -> &LayerInfo {
        &self.layer
    }

    fn scan(
        &self,
        sink: &mut dyn FnMut(&ScannedParcel),
        progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
    ) -> Result<u64, ParcelError> {
        let mut scan = |readers: Vec<scan::Reader<'_>>| {
            scan::scan(readers, (&self.layer, &self.path), &self.places, sink, progress)
        };
        self.with_reader(|one| {
            // Under a write-ahead log two readers may see different states of the file.
            if sql::has_write_ahead_log(&one.db).map_err(|e| from_sqlite(&self.path, e))? {
                return scan(vec![one.scanner()]);
            }
            self.with_reader(|two| scan(vec![one.scanner(), two.scanner()]))
        })
    }

    fn cell(&self, bbox: [f64; 4], margin_m: f64) -> Result<Vec<Parcel>, ParcelError> {
        let area = self.places.search_box(bbox, margin_m)?;
        self.with_reader(|Reader { db, labeller }| {
            let mut gather = Gather::new(area);
            let mut ids = self.ids_near(db, area)?;
            ids.retain(|id| match self.known.get(id) {
                Some(known) => {
                    gather.add_known(known);
                    false
                }
                None => true,
            });
            let mut shape = Polygon::default();
            let mut take = |row: &Row<'_>| {
                let Ok(bytes) = query::geometry(row)? else { return Ok(()) };
                if blob::parse(bytes, &mut shape).is_ok() {
                    let (code, name) = (row.get_ref(2)?, row.get_ref(3)?);
                    gather.add(row.get(0)?, &mut shape, || labeller.classify(code, || name).class());
                }
                Ok(())
            };
            listed_rows(db, &self.row_sql, &ids, &mut take).map_err(|e| from_sqlite(&self.path, e))?;
            gather.finish(&self.places, bbox, |parcel| self.known.insert(parcel.id, parcel.clone()))
        })
    }
}
