//! The parcels of one cell while they come in.
//!
//! Contract: holds at most [`MAX_CELL_PARCELS`] parcels and [`MAX_CELL_POINTS`] points, whatever the file says;
//! one more of either is an error, not a shorter answer.
//! Trap: `lonlat` of the parcels holds the point in the parcels' CRS until [`Gather::finish`] moves all of them.

use super::error::ParcelError;
use super::place::{self, Places, meets};
use super::{MAX_CELL_PARCELS, MAX_CELL_POINTS};
use crate::domain::classes::ClassId;
use crate::domain::parcel::Parcel;
use crate::domain::polygon::{Envelope, Polygon};

pub(super) struct Gather {
    area: Envelope,
    parcels: Vec<Parcel>,
    points: usize,
    full: bool,
}

impl Gather {
    /// For parcels that meet `area`, in the parcels' CRS.
    pub(super) fn new(area: Envelope) -> Self {
        Self { area, parcels: Vec::new(), points: 0, full: false }
    }

    /// Takes a parcel unless its shape is beside the area or has no interior; `shape` is left empty when taken.
    pub(super) fn add(&mut self, id: i64, shape: &mut Polygon, class: impl FnOnce() -> Option<ClassId>) {
        if self.full || !shape.envelope().is_some_and(|e| meets(&e, &self.area)) {
            return;
        }
        let Ok(point) = place::point(shape) else { return };
        self.points += shape.points().len();
        self.full = self.parcels.len() == MAX_CELL_PARCELS || self.points > MAX_CELL_POINTS;
        if !self.full {
            let shape = std::mem::take(shape);
            self.parcels.push(Parcel { id, class: class(), shape, point, lonlat: point });
        }
    }

    /// The parcels with their places in degrees, ascending by id, without those off the map. `bbox` is for the
    /// message.
    pub(super) fn finish(mut self, places: &Places, bbox: [f64; 4]) -> Result<Vec<Parcel>, ParcelError> {
        if self.full {
            return Err(ParcelError::CellTooLarge { bbox });
        }
        let mut points: Vec<[f64; 2]> = self.parcels.iter().map(|p| p.point).collect();
        places.lonlat(&mut points)?;
        for (parcel, lonlat) in self.parcels.iter_mut().zip(points) {
            parcel.lonlat = lonlat;
        }
        self.parcels.retain(|p| place::on_map(p.lonlat).is_ok());
        self.parcels.sort_unstable_by_key(|p| p.id);
        Ok(self.parcels)
    }
}
