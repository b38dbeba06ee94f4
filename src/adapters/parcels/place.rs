//! Where a parcel is: its representative point, in the parcels' CRS and in lon/lat.
//!
//! Contract: the one way to get there, for the scan and for the cell, so both agree to the bit.
//! Trap: lon/lat is computed from the point, never from transformed rings.

use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::domain::parcel::Reject;
use crate::domain::polygon::{Envelope, Polygon};

/// Metres per degree of latitude, a little less than anywhere on the ellipsoid, so boxes come out too large
/// rather than too small.
const METRES_PER_DEGREE: f64 = 110_000.0;

/// Ways between the parcels' CRS and lon/lat.
#[derive(Debug, Clone)]
pub(super) struct Places {
    to_lonlat: Transform,
    from_lonlat: Transform,
}

impl Places {
    pub(super) fn new(crs: &Crs) -> Result<Self, CrsError> {
        let lonlat = Crs::lonlat();
        Ok(Self { to_lonlat: Transform::new(crs, &lonlat)?, from_lonlat: Transform::new(&lonlat, crs)? })
    }

    /// Points in the parcels' CRS to degrees, in place; NaN where there is no place.
    pub(super) fn lonlat(&self, points: &mut [[f64; 2]]) -> Result<(), CrsError> {
        self.to_lonlat.points_or_nan(points)
    }

    /// The box in the parcels' CRS that holds `bbox` (degrees) grown by `margin_m` metres.
    pub(super) fn search_box(&self, bbox: [f64; 4], margin_m: f64) -> Result<Envelope, CrsError> {
        let [w, s, e, n] = bbox;
        let dy = margin_m.max(0.0) / METRES_PER_DEGREE;
        let widest = (s - dy).abs().max((n + dy).abs()).min(89.0);
        let dx = dy / widest.to_radians().cos();
        self.from_lonlat.envelope([w - dx, (s - dy).max(-90.0), e + dx, (n + dy).min(90.0)])
    }
}

/// The representative point of a shape as read from the file.
pub(super) fn point(shape: &Polygon) -> Result<[f64; 2], Reject> {
    if shape.is_empty() {
        return Err(Reject::EmptyGeometry);
    }
    shape.representative_point().ok_or(Reject::NoArea)
}

/// What came out of [`Places::lonlat`], as a place: on the map as the grid has it.
pub(super) fn on_map([lon, lat]: [f64; 2]) -> Result<[f64; 2], Reject> {
    let there = (-180.0..180.0).contains(&lon) && (-90.0..90.0).contains(&lat);
    if there { Ok([lon, lat]) } else { Err(Reject::OffTheMap) }
}

/// Whether two boxes share a point.
pub(super) fn meets(a: &Envelope, b: &Envelope) -> bool {
    a[0] <= b[2] && b[0] <= a[2] && a[1] <= b[3] && b[1] <= a[3]
}
