//! The parcels of one cell while they come in.
//!
//! Contract: holds at most [`MAX_CELL_PARCELS`] parcels and [`MAX_CELL_POINTS`] points, whatever the file says;
//! one more of either is an error, not a shorter answer.
//! Trap: `lonlat` of the parcels holds the point in the parcels' CRS until [`Gather::finish`] moves all of them.

use std::sync::Arc;

use super::error::ParcelError;
use super::place::{self, Places, meets};
use super::{MAX_CELL_PARCELS, MAX_CELL_POINTS};
use crate::domain::classes::ClassId;
use crate::domain::parcel::Parcel;
use crate::domain::polygon::{Envelope, Polygon};

pub(super) struct Gather {
    area: Envelope,
    parcels: Vec<Parcel>,
    /// Which of them have no place in degrees yet.
    fresh: Vec<usize>,
    points: usize,
    full: bool,
}

impl Gather {
    /// For parcels that meet `area`, in the parcels' CRS.
    pub(super) fn new(area: Envelope) -> Self {
        Self { area, parcels: Vec::new(), fresh: Vec::new(), points: 0, full: false }
    }

    /// Takes a parcel unless its shape is beside the area or has no interior; `shape` is left empty when taken.
    pub(super) fn add(&mut self, id: i64, shape: &mut Polygon, class: impl FnOnce() -> Option<ClassId>) {
        if self.full || !shape.envelope().is_some_and(|e| meets(&e, &self.area)) {
            return;
        }
        let Ok(point) = place::point(shape) else { return };
        if self.has_room(shape.points().len()) {
            self.fresh.push(self.parcels.len());
            let shape = Arc::new(std::mem::take(shape));
            self.parcels.push(Parcel { id, class: class(), shape, point, lonlat: point });
        }
    }

    /// Takes a parcel of an earlier cell, unless it is beside the area.
    pub(super) fn add_known(&mut self, parcel: Parcel) {
        let meets = parcel.shape.envelope().is_some_and(|e| meets(&e, &self.area));
        if !self.full && meets && self.has_room(parcel.shape.points().len()) {
            self.parcels.push(parcel);
        }
    }

    /// Counts one more parcel of so many points.
    fn has_room(&mut self, points: usize) -> bool {
        self.points += points;
        self.full = self.parcels.len() == MAX_CELL_PARCELS || self.points > MAX_CELL_POINTS;
        !self.full
    }

    /// The parcels with their places in degrees, ascending by id, without those off the map; `learn` is shown those that
    /// were not known. `bbox` is for the message.
    pub(super) fn finish(
        mut self,
        places: &Places,
        bbox: [f64; 4],
        learn: impl Fn(&Parcel),
    ) -> Result<Vec<Parcel>, ParcelError> {
        if self.full {
            return Err(ParcelError::CellTooLarge { bbox });
        }
        let mut points: Vec<[f64; 2]> = self.fresh.iter().map(|at| self.parcels[*at].point).collect();
        places.lonlat(&mut points)?;
        for (at, lonlat) in self.fresh.iter().zip(points) {
            self.parcels[*at].lonlat = lonlat;
            learn(&self.parcels[*at]);
        }
        self.parcels.retain(|p| place::on_map(p.lonlat).is_ok());
        self.parcels.sort_unstable_by_key(|p| p.id);
        Ok(self.parcels)
    }
}
