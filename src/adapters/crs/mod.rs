//! Coordinate reference systems and the way from one to another (GDAL and PROJ behind it).
//!
//! Units: those of the two CRSs. Axes are always x then y, that is easting, northing or longitude, latitude,
//! whatever order the authority declares.
//! Contract: points are transformed each on its own, shapes each as a whole. GDAL chooses among several datum operations
//! by the mean of the points of a call, so a batch could move a point differently than the point alone, and master and
//! worker must agree to the bit on where a parcel is; a shape that is moved as a whole does not tear where operations meet.
//! From degrees to metres shapes go by polynomials that are held to PROJ (`patch`).
//! Datum grids are never fetched: PROJ's network access is off by default, and an
//! environment that turns it on is refused, because machines with and without the grid would disagree.
//! Trap: GDAL's handles belong to the thread that made them. They live in a small cache per thread; a
//! [`Transform`] is only the pair of names and may go anywhere.

mod patch;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gdal::spatial_ref::{AxisMappingStrategy, CoordTransform, SpatialRef};

use crate::domain::failure::Severity;
use crate::domain::polygon::{Envelope, envelope_of};
use patch::{Patch, Square};

/// Transforms that one thread keeps; the parcels' CRS to lon/lat and to a handful of UTM zones.
const CACHED_PER_THREAD: usize = 32;

/// Patches that a thread keeps of one transform, some 450 bytes each.
const PATCHES: usize = 256;

/// Points per edge of an envelope that is transformed.
const POINTS_PER_EDGE: u32 = 21;

/// Sends what GDAL and PROJ would print on standard error to the log, at level `debug`: what concerns a task comes
/// back as an error of the call anyway.
pub fn log_gdal_errors() {
    gdal::config::set_error_handler(|kind, number, message| {
        tracing::debug!(number, "GDAL {kind:?}: {message}");
    });
}

/// Why a CRS or a transformation cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CrsError {
    /// Neither code nor definition is understood.
    #[error("CRS `{name}` is not known to PROJ: {reason}")]
    Unknown {
        /// `EPSG:n` or the beginning of the definition.
        name: String,
        /// GDAL's words.
        reason: String,
    },
    /// The layer declares that it has none.
    #[error(
        "srs_id {0} does not name a defined CRS: assign the right one to the layer (for instance `ogr2ogr -a_srs`)"
    )]
    Undefined(i64),
    /// Where a point lies would depend on the network.
    #[error("PROJ_NETWORK is `{0}`: unset it, machines would disagree on where parcels are")]
    Network(String),
    /// No way between the two.
    #[error("no transformation from `{from}` to `{to}`: {reason}")]
    NoPath {
        /// Source.
        from: String,
        /// Target.
        to: String,
        /// GDAL's words.
        reason: String,
    },
    /// A point outside what the projection can express.
    #[error("point ({x}, {y}) of `{from}` has no place in `{to}`")]
    Point {
        /// Source.
        from: String,
        /// Target.
        to: String,
        /// x in the source's units.
        x: f64,
        /// y.
        y: f64,
    },
}

impl CrsError {
    /// A point concerns one task; everything else is wrong for every task of the node.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Point { .. } => Severity::Permanent,
            Self::Unknown { .. } | Self::Undefined(_) | Self::Network(_) | Self::NoPath { .. } => Severity::Fatal,
        }
    }
}

/// A coordinate reference system: its definition, checked once. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Crs(Arc<str>);

impl Crs {
    /// By EPSG code.
    ///
    /// # Errors
    /// When PROJ does not know the code.
    pub fn epsg(code: u32) -> Result<Self, CrsError> {
        // Every task asks for its zone, and PROJ looks the whole system up in its database.
        static KNOWN: Mutex<BTreeMap<u32, Crs>> = Mutex::new(BTreeMap::new());
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crs) = known().get(&code) {
            return Ok(crs.clone());
        }
        let crs = Self::checked(format!("EPSG:{code}"))?;
        Ok(known().entry(code).or_insert(crs).clone())
    }

    /// WGS 84 longitude and latitude in degrees.
    pub fn lonlat() -> Self {
        Self(Arc::from("EPSG:4326"))
    }

    /// By a row of `gpkg_spatial_ref_sys`: the EPSG code where there is one that PROJ knows, else the WKT.
    ///
    /// # Errors
    /// For the undefined systems 0 and -1, and for rows that PROJ does not understand.
    pub fn from_srs_row(srs_id: i64, organization: &str, code: i64, definition: &str) -> Result<Self, CrsError> {
        let undefined = definition.trim().is_empty() || definition.trim().eq_ignore_ascii_case("undefined");
        let epsg = u32::try_from(code).ok().filter(|_| organization.trim().eq_ignore_ascii_case("EPSG"));
        match epsg.map(Self::epsg) {
            Some(Ok(crs)) => Ok(crs),
            Some(Err(error)) if undefined => Err(error),
            None if undefined || srs_id == 0 || srs_id == -1 => Err(CrsError::Undefined(srs_id)),
            _ => Self::checked(definition.trim().to_owned()),
        }
    }

    /// What PROJ is given: `EPSG:n` or WKT.
    pub fn definition(&self) -> &str {
        &self.0
    }

    /// Whether coordinates are degrees.
    ///
    /// # Errors
    /// When the definition is not understood (not after a successful constructor).
    pub fn is_geographic(&self) -> Result<bool, CrsError> {
        Ok(self.spatial_ref()?.is_geographic())
    }

    /// Metres in one unit of x or y; `None` for degrees.
    ///
    /// # Errors
    /// As [`Self::is_geographic`].
    pub fn metres_per_unit(&self) -> Result<Option<f64>, CrsError> {
        let srs = self.spatial_ref()?;
        Ok((!srs.is_geographic()).then(|| srs.linear_units()))
    }

    fn checked(definition: String) -> Result<Self, CrsError> {
        let crs = Self(Arc::from(definition));
        crs.spatial_ref().map(|_| crs)
    }

    fn spatial_ref(&self) -> Result<SpatialRef, CrsError> {
        let mut srs = SpatialRef::from_definition(&self.0)
            .map_err(|e| CrsError::Unknown { name: self.to_string(), reason: e.to_string() })?;
        srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
        Ok(srs)
    }
}

impl std::fmt::Display for Crs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.char_indices().nth(60) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}

struct Cached {
    from: Crs,
    to: Crs,
    handle: CoordTransform,
    /// From degrees to metres: only there is a patch as good as PROJ. Where both are metres, corners may lie on whole numbers
    /// and come out as such, and so on the centres of pixels, where the last bit decides.
    unrolls: bool,
    patches: HashMap<Square, Option<Box<Patch>>>,
}

impl Cached {
    /// Moves all points, in place, by one operation; false, and nothing moved, when one of them has no place.
    fn moves(handle: &CoordTransform, points: &mut [[f64; 2]]) -> bool {
        let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = points.iter().map(|[x, y]| (*x, *y)).unzip();
        let moved = handle.transform_coords(&mut xs, &mut ys, &mut []).is_ok();
        let all = moved && xs.iter().chain(&ys).all(|v| v.is_finite());
        if all {
            points.iter_mut().zip(xs.into_iter().zip(ys)).for_each(|(point, (x, y))| *point = [x, y]);
        }
        all
    }

    /// The patch of a square.
    fn patch(&mut self, square: Square) -> Option<&Patch> {
        if self.patches.len() >= PATCHES && !self.patches.contains_key(&square) {
            self.patches.clear();
        }
        let fit = || Patch::fit(square, |points| Self::moves(&self.handle, points)).map(Box::new);
        self.patches.entry(square).or_insert_with(fit).as_deref()
    }
}

thread_local! {
    static HANDLES: RefCell<Vec<Cached>> = const { RefCell::new(Vec::new()) };
}

/// The way from one CRS to another. `Send` and cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transform {
    from: Crs,
    to: Crs,
}

impl Transform {
    /// Checks that there is a way.
    ///
    /// # Errors
    /// [`CrsError::NoPath`], [`CrsError::Network`], or either CRS's own error.
    pub fn new(from: &Crs, to: &Crs) -> Result<Self, CrsError> {
        let transform = Self { from: from.clone(), to: to.clone() };
        if !transform.is_identity() {
            refuse_network(std::env::var("PROJ_NETWORK").ok())?;
            transform.with_cached(|_| ())?;
        }
        Ok(transform)
    }

    /// Whether points stay as they are.
    pub fn is_identity(&self) -> bool {
        self.from == self.to
    }

    /// Moves one point.
    ///
    /// # Errors
    /// [`CrsError::Point`] when it has no place in the target CRS.
    pub fn point(&self, point: [f64; 2]) -> Result<[f64; 2], CrsError> {
        let mut points = [point];
        self.points(&mut points)?;
        Ok(points[0])
    }

    /// Moves points in place.
    ///
    /// # Errors
    /// [`CrsError::Point`] for the first one without a place in the target CRS; the others before it have
    /// been moved then.
    pub fn points(&self, points: &mut [[f64; 2]]) -> Result<(), CrsError> {
        self.try_points(points, |this, before| Err(this.no_place(before)))
    }

    /// Moves points in place; those without a place in the target CRS become NaN.
    ///
    /// # Errors
    /// When the transformation itself cannot be made.
    pub fn points_or_nan(&self, points: &mut [[f64; 2]]) -> Result<(), CrsError> {
        self.try_points(points, |_, _| Ok([f64::NAN; 2]))
    }

    /// Moves the points of one shape, all by the same operation, in place; those without a place in the target CRS become
    /// NaN. From degrees to metres this is within 1e-7 m of PROJ; two shapes with the same points come out the
    /// same.
    ///
    /// # Errors
    /// When the transformation itself cannot be made.
    pub fn shape_or_nan(&self, points: &mut [[f64; 2]]) -> Result<(), CrsError> {
        if self.is_identity() || points.iter().any(|p| !finite(*p)) {
            return self.points_or_nan(points);
        }
        let square = envelope_of(points).and_then(Square::around);
        let moved = self.with_cached(|cached| {
            if let Some(patch) = square.filter(|_| cached.unrolls).and_then(|square| cached.patch(square)) {
                patch.apply(points);
                return true;
            }
            Cached::moves(&cached.handle, points)
        })?;
        // Else one of them has no place.
        if moved { Ok(()) } else { self.points_or_nan(points) }
    }

    fn try_points(
        &self,
        points: &mut [[f64; 2]],
        on_failure: impl Fn(&Self, [f64; 2]) -> Result<[f64; 2], CrsError>,
    ) -> Result<(), CrsError> {
        if self.is_identity() {
            for point in points.iter_mut().filter(|p| !finite(**p)) {
                *point = on_failure(self, *point)?;
            }
            return Ok(());
        }
        self.with_cached(|Cached { handle, .. }| {
            for point in points {
                let (mut x, mut y) = ([point[0]], [point[1]]);
                let ok = finite(*point) && handle.transform_coords(&mut x, &mut y, &mut []).is_ok();
                let moved = [x[0], y[0]];
                *point = if ok && finite(moved) { moved } else { on_failure(self, *point)? };
            }
            Ok(())
        })?
    }

    /// Smallest envelope in the target CRS around the image of this one: its edges are walked with 21 points
    /// each, and the result grows by 1 % of its size, which covers what an edge bulges out between them.
    ///
    /// # Errors
    /// [`CrsError::Point`] when no point of the edge has a place there.
    pub fn envelope(&self, envelope: Envelope) -> Result<Envelope, CrsError> {
        if self.is_identity() {
            return Ok(envelope);
        }
        let [w, s, e, n] = envelope;
        let mut edge = Vec::with_capacity(4 * POINTS_PER_EDGE as usize);
        for i in 0..POINTS_PER_EDGE {
            let t = f64::from(i) / f64::from(POINTS_PER_EDGE - 1);
            let (x, y) = (w + (e - w) * t, s + (n - s) * t);
            edge.extend([[x, s], [x, n], [w, y], [e, y]]);
        }
        self.points_or_nan(&mut edge)?;
        let placed = edge.iter().filter(|p| finite(**p));
        let around = placed.fold([f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY], |a, p| {
            [a[0].min(p[0]), a[1].min(p[1]), a[2].max(p[0]), a[3].max(p[1])]
        });
        if around[0] > around[2] {
            return Err(self.no_place([w, s]));
        }
        let (dx, dy) = ((around[2] - around[0]) * 0.01, (around[3] - around[1]) * 0.01);
        Ok([around[0] - dx, around[1] - dy, around[2] + dx, around[3] + dy])
    }

    fn no_place(&self, [x, y]: [f64; 2]) -> CrsError {
        let (from, to) = (self.from.to_string(), self.to.to_string());
        CrsError::Point { from, to, x, y }
    }

    /// Runs `f` with this thread's handle, made on first use; the least recently made one goes when there
    /// are too many.
    fn with_cached<R>(&self, f: impl FnOnce(&mut Cached) -> R) -> Result<R, CrsError> {
        HANDLES.with_borrow_mut(|handles| {
            let at = match handles.iter().position(|c| c.from == self.from && c.to == self.to) {
                Some(at) => at,
                None => {
                    let cached = self.build()?;
                    if handles.len() == CACHED_PER_THREAD {
                        handles.remove(0);
                    }
                    handles.push(cached);
                    handles.len() - 1
                }
            };
            Ok(f(&mut handles[at]))
        })
    }

    fn build(&self) -> Result<Cached, CrsError> {
        let (from, to) = (self.from.spatial_ref()?, self.to.spatial_ref()?);
        let handle = CoordTransform::new(&from, &to).map_err(|e| CrsError::NoPath {
            from: self.from.to_string(),
            to: self.to.to_string(),
            reason: e.to_string(),
        })?;
        let unrolls = from.is_geographic() && to.is_projected() && to.linear_units() == 1.0;
        Ok(Cached { from: self.from.clone(), to: self.to.clone(), handle, unrolls, patches: HashMap::new() })
    }
}

/// PROJ's own reading of the variable: on for these words in any case.
fn refuse_network(setting: Option<String>) -> Result<(), CrsError> {
    match setting {
        Some(s) if ["ON", "YES", "TRUE"].iter().any(|on| s.eq_ignore_ascii_case(on)) => Err(CrsError::Network(s)),
        _ => Ok(()),
    }
}

fn finite([x, y]: [f64; 2]) -> bool {
    x.is_finite() && y.is_finite()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
