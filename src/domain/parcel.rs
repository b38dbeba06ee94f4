//! A field parcel, as the worker draws it and as the master's one pass over the table sees it.
//!
//! Units: rings and `point` in the parcels' own CRS, `lonlat` in degrees (WGS 84).
//! Contract: `id` is the layer's integer primary key; the representative point is computed in the parcels'
//! CRS and only then moved to lon/lat, by the same code for both types, so master and worker put a parcel
//! into the same cell.

use std::sync::Arc;

use super::class_table::Lookup;
use super::classes::ClassId;
use super::polygon::Polygon;

/// A parcel with its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// Integer primary key of the row.
    pub id: i64,
    /// Class by the class table; `None` when excluded or unknown.
    pub class: Option<ClassId>,
    /// Rings, parcels' CRS; shared, because neighbouring cells see the same parcels.
    pub shape: Arc<Polygon>,
    /// Representative point, parcels' CRS.
    pub point: [f64; 2],
    /// Representative point, `[lon, lat]` degrees.
    pub lonlat: [f64; 2],
}

/// A parcel as the master counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedParcel {
    /// Integer primary key of the row.
    pub id: i64,
    /// What the class table says.
    pub class: Lookup,
    /// For [`Lookup::Unknown`]: code and name as the file has them, to tell the user.
    pub label: Option<Arc<str>>,
    /// Representative point `[lon, lat]`, degrees, or why there is none.
    pub place: Result<[f64; 2], Reject>,
}

/// Why a row of the table is no parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reject {
    /// The geometry is NULL.
    NullGeometry,
    /// The geometry has no points.
    EmptyGeometry,
    /// Points or lines where polygons are expected.
    NotAPolygon,
    /// The blob is not a GeoPackage geometry, or contradicts itself.
    InvalidGeometry,
    /// A polygon with curved edges of a kind that cannot be turned into straight ones.
    UnsupportedCurve,
    /// A shape without interior (a line drawn as a polygon).
    NoArea,
    /// Larger than any parcel can be: more than 64 MiB of geometry.
    TooLarge,
    /// The representative point has no place on the globe.
    OffTheMap,
}

impl Reject {
    /// Name for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NullGeometry => "null_geometry",
            Self::EmptyGeometry => "empty_geometry",
            Self::NotAPolygon => "not_a_polygon",
            Self::InvalidGeometry => "invalid_geometry",
            Self::UnsupportedCurve => "unsupported_curve",
            Self::NoArea => "no_area",
            Self::TooLarge => "too_large",
            Self::OffTheMap => "off_the_map",
        }
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
