//! Parcels in a list: the twin of the GeoPackage for tests of everything that needs parcels.
//!
//! Contract: the same answers as a GeoPackage with the same rows; `tests/parcels_contract.rs` holds both to it.
//! Trap: every query looks at every row.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::types::ValueRef;

use super::gather::Gather;
use super::labels::Labeller;
use super::place::{self, Places};
use super::{LayerInfo, ParcelError, ParcelSource, ScanProgress};
use crate::adapters::crs::{Crs, CrsError};
use crate::domain::class_table::{ClassTable, Lookup};
use crate::domain::parcel::{Parcel, Reject, ScannedParcel};
use crate::domain::polygon::Polygon;
use crate::domain::task::fnv1a;

/// One row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryRow {
    /// Id.
    pub id: i64,
    /// Crop code.
    pub code: Option<String>,
    /// Crop name.
    pub name: Option<String>,
    /// Shape in the layer's CRS; `None` for NULL.
    pub shape: Option<Polygon>,
}

/// A layer in memory.
#[derive(Debug)]
pub struct MemoryParcels {
    layer: LayerInfo,
    places: Places,
    classes: Arc<ClassTable>,
    rows: Vec<MemoryRow>,
}

impl MemoryParcels {
    /// A layer of these rows.
    ///
    /// # Errors
    /// When the CRS has no way to lon/lat.
    pub fn new(crs: Crs, mut rows: Vec<MemoryRow>, classes: Arc<ClassTable>) -> Result<Self, CrsError> {
        rows.sort_by_key(|r| r.id);
        let places = Places::new(&crs)?;
        let layer = LayerInfo {
            name: "memory".into(),
            geometry_column: "geom".into(),
            id_column: "id".into(),
            code_column: Some("code".into()),
            name_column: Some("name".into()),
            row_estimate: rows.len() as u64,
            fingerprint: format!(
                "memory|{}|{}|{:016x}",
                rows.len(),
                crs.definition(),
                fnv1a(format!("{rows:?}").as_bytes())
            ),
            crs,
        };
        Ok(Self { layer, places, classes, rows })
    }
}

fn value(text: &Option<String>) -> ValueRef<'_> {
    text.as_deref().map_or(ValueRef::Null, |t| ValueRef::Text(t.as_bytes()))
}

impl ParcelSource for MemoryParcels {
    fn layer(&self) -> &LayerInfo {
        &self.layer
    }

    fn scan(
        &self,
        sink: &mut dyn FnMut(&ScannedParcel),
        progress: &mut dyn FnMut(ScanProgress) -> ControlFlow<()>,
    ) -> Result<u64, ParcelError> {
        let mut labeller = Labeller::new(Arc::clone(&self.classes));
        for (done, row) in self.rows.iter().enumerate() {
            let class = labeller.classify(value(&row.code), || value(&row.name));
            let label = (class == Lookup::Unknown).then(|| labeller.label());
            let point = row.shape.as_ref().ok_or(Reject::NullGeometry).and_then(place::point);
            let place = match point {
                Ok(point) => {
                    let mut points = [point];
                    self.places.lonlat(&mut points)?;
                    place::on_map(points[0])
                }
                Err(reason) => Err(reason),
            };
            sink(&ScannedParcel { id: row.id, class, label, place });
            if progress(ScanProgress { rows: done as u64 + 1, total_estimate: self.rows.len() as u64 }).is_break() {
                return Err(ParcelError::Cancelled);
            }
        }
        Ok(self.rows.len() as u64)
    }

    fn cell(&self, bbox: [f64; 4], margin_m: f64) -> Result<Vec<Parcel>, ParcelError> {
        let area = self.places.search_box(bbox, margin_m)?;
        let mut labeller = Labeller::new(Arc::clone(&self.classes));
        let mut gather = Gather::new(area);
        for row in &self.rows {
            if let Some(shape) = &row.shape {
                let class = || labeller.classify(value(&row.code), || value(&row.name)).class();
                gather.add(row.id, &mut shape.clone(), class);
            }
        }
        gather.finish(&self.places, bbox, |_| ())
    }
}
