//! The geometry column of a GeoPackage: a small header, then ISO WKB
//! (<https://www.geopackage.org/spec131/#gpb_format>).
//!
//! Contract: never panics and never allocates more than a small multiple of the blob, whatever the bytes: each
//! count is held against the bytes that are left before memory is asked for. Z and M are dropped. Polygon, MultiPolygon,
//! Triangle, CurvePolygon, MultiSurface and collections of them become one [`Polygon`]; bytes after the
//! geometry are ignored.
//! Trap: PostGIS's EWKB keeps its dimension and SRID flags in the type number's high bits. It is refused, not
//! guessed at.

use super::curve;
use crate::domain::parcel::Reject;
use crate::domain::polygon::{Envelope, Polygon};

/// Largest geometry that is read, bytes.
pub const MAX_BLOB_BYTES: usize = 64 << 20;

/// Collections within collections that are followed.
const MAX_DEPTH: u32 = 8;

/// What is wrong with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// No `GP` at the beginning.
    #[error("does not begin with a GeoPackage header")]
    NoHeader,
    /// Envelope indicator 5 to 7.
    #[error("envelope indicator {0} is not defined")]
    EnvelopeKind(u8),
    /// A user-defined geometry encoding.
    #[error("is an extended GeoPackage geometry: rewrite the layer with standard geometries")]
    Extended,
    /// PostGIS flags in the type.
    #[error("is EWKB, not ISO WKB (type {0:#x}): rewrite the layer, for instance with ogr2ogr")]
    Ewkb(u32),
    /// Ends too early, or a count promises more than there is.
    #[error("ends before its geometry does")]
    Truncated,
    /// First byte of a WKB geometry.
    #[error("byte order {0} is neither 0 nor 1")]
    ByteOrder(u8),
    /// Not a polygonal type.
    #[error("geometry type {0} is not a polygon")]
    NotAPolygon(u32),
    /// A curve within a polygon that is none of the known kinds, or has an impossible number of points.
    #[error("curve type {0} with {1} points cannot be drawn")]
    Curve(u32, u32),
    /// NaN or infinite.
    #[error("has a coordinate that is not a finite number")]
    NotFinite,
    /// One or two points.
    #[error("has a ring of {0} points")]
    ShortRing(u32),
    /// Collections in collections in collections.
    #[error("nests collections deeper than {MAX_DEPTH}")]
    Nested,
    /// See [`MAX_BLOB_BYTES`].
    #[error("is larger than {MAX_BLOB_BYTES} bytes")]
    TooLarge,
}

impl BlobError {
    /// The reason under which the row is counted.
    pub fn reject(self) -> Reject {
        match self {
            Self::NotAPolygon(_) => Reject::NotAPolygon,
            Self::Curve(..) => Reject::UnsupportedCurve,
            Self::TooLarge => Reject::TooLarge,
            Self::NoHeader
            | Self::EnvelopeKind(_)
            | Self::Extended
            | Self::Ewkb(_)
            | Self::Truncated
            | Self::ByteOrder(_)
            | Self::NotFinite
            | Self::ShortRing(_)
            | Self::Nested => Reject::InvalidGeometry,
        }
    }
}

/// Reads a blob into `out`, which is cleared first. An empty geometry leaves it empty.
///
/// # Errors
/// Any [`BlobError`]; `out` then holds rubbish.
pub fn parse(blob: &[u8], out: &mut Polygon) -> Result<(), BlobError> {
    out.clear();
    if blob.len() > MAX_BLOB_BYTES {
        return Err(BlobError::TooLarge);
    }
    let header = Header::read(blob)?;
    if header.empty {
        return Ok(());
    }
    let mut cursor = Cursor { rest: &blob[header.length..], little: true };
    cursor.surface(out, 0)
}

/// The envelope in the header, `None` when it has none or a nonsensical one.
pub fn header_envelope(blob: &[u8]) -> Option<Envelope> {
    let header = Header::read(blob).ok().filter(|h| h.has_envelope && !h.empty)?;
    let mut cursor = Cursor { rest: &blob[8..], little: header.little };
    let [min_x, max_x, min_y, max_y] = [cursor.f64().ok()?, cursor.f64().ok()?, cursor.f64().ok()?, cursor.f64().ok()?];
    let sensible = min_x <= max_x && min_y <= max_y && [min_x, max_x, min_y, max_y].iter().all(|v| v.is_finite());
    sensible.then_some([min_x, min_y, max_x, max_y])
}

/// The WKB type number of the geometry (dimensions removed), to tell polygons from points without parsing.
pub fn geometry_type(blob: &[u8]) -> Option<u32> {
    let header = Header::read(blob).ok()?;
    let mut cursor = Cursor { rest: &blob[header.length..], little: true };
    cursor.kind().ok().map(|(kind, _)| kind)
}

/// Whether a WKB type number stands for something [`parse`] reads.
pub fn is_polygonal(kind: u32) -> bool {
    matches!(kind, POLYGON | MULTI_POLYGON | COLLECTION | CURVE_POLYGON | MULTI_SURFACE | TRIANGLE)
}

/// Writes a polygon as a little-endian blob with an envelope: a Polygon when it has one part, else a
/// MultiPolygon. [`parse`] gives the same polygon back.
pub fn encode(polygon: &Polygon, srs_id: i32) -> Vec<u8> {
    let mut out = b"GP\0".to_vec();
    out.push(if polygon.is_empty() { 0b1_0001 } else { 0b0_0011 });
    out.extend(srs_id.to_le_bytes());
    if let Some([w, s, e, n]) = polygon.envelope() {
        [w, e, s, n].iter().for_each(|v| out.extend(v.to_le_bytes()));
    }
    let mut parts: Vec<Vec<&[[f64; 2]]>> = Vec::new();
    for (ring, hole) in polygon.rings() {
        match parts.last_mut() {
            Some(part) if hole => part.push(ring),
            _ => parts.push(vec![ring]),
        }
    }
    let many = parts.len() != 1;
    if many {
        put_head(&mut out, MULTI_POLYGON, parts.len());
    }
    for part in parts {
        put_head(&mut out, POLYGON, part.len());
        for ring in part {
            out.extend((ring.len() as u32).to_le_bytes());
            ring.iter().flatten().for_each(|v| out.extend(v.to_le_bytes()));
        }
    }
    out
}

fn put_head(out: &mut Vec<u8>, kind: u32, count: usize) {
    out.push(1);
    out.extend(kind.to_le_bytes());
    out.extend((count as u32).to_le_bytes());
}

struct Header {
    length: usize,
    little: bool,
    empty: bool,
    has_envelope: bool,
}

impl Header {
    fn read(blob: &[u8]) -> Result<Self, BlobError> {
        let [b'G', b'P', _version, flags, ..] = *blob else { return Err(BlobError::NoHeader) };
        let kind = (flags >> 1) & 0b111;
        let envelope = match kind {
            0 => 0,
            1 => 32,
            2 | 3 => 48,
            4 => 64,
            other => return Err(BlobError::EnvelopeKind(other)),
        };
        if flags & 0b10_0000 != 0 {
            return Err(BlobError::Extended);
        }
        let length = 8 + envelope;
        if blob.len() < length {
            return Err(BlobError::Truncated);
        }
        Ok(Self { length, little: flags & 1 == 1, empty: flags & 0b1_0000 != 0, has_envelope: envelope > 0 })
    }
}

const LINE_STRING: u32 = 2;
const POLYGON: u32 = 3;
const MULTI_POLYGON: u32 = 6;
const COLLECTION: u32 = 7;
const CIRCULAR_STRING: u32 = 8;
const COMPOUND_CURVE: u32 = 9;
const CURVE_POLYGON: u32 = 10;
const MULTI_SURFACE: u32 = 12;
const TRIANGLE: u32 = 17;

/// Smallest WKB geometry: byte order, type, count.
const SMALLEST_GEOMETRY: usize = 9;

struct Cursor<'a> {
    rest: &'a [u8],
    little: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BlobError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(BlobError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BlobError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(BlobError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, BlobError> {
        let bytes = self.bytes()?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn f64(&mut self) -> Result<f64, BlobError> {
        let bytes = self.bytes()?;
        Ok(if self.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }

    /// A count of things that take at least `each` bytes.
    fn count(&mut self, each: usize) -> Result<u32, BlobError> {
        let count = self.u32()?;
        let fits = (count as usize).checked_mul(each).is_some_and(|n| n <= self.rest.len());
        if fits { Ok(count) } else { Err(BlobError::Truncated) }
    }

    /// Byte order and type of the next geometry: type without dimensions, and doubles per point.
    fn kind(&mut self) -> Result<(u32, usize), BlobError> {
        match self.bytes::<1>()? {
            [0] => self.little = false,
            [1] => self.little = true,
            [other] => return Err(BlobError::ByteOrder(other)),
        }
        let kind = self.u32()?;
        if kind >> 29 != 0 {
            return Err(BlobError::Ewkb(kind));
        }
        let doubles = match kind / 1000 {
            0 => 2,
            1 | 2 => 3,
            3 => 4,
            _ => return Err(BlobError::NotAPolygon(kind)),
        };
        Ok((kind % 1000, doubles))
    }

    /// Any polygonal geometry.
    fn surface(&mut self, out: &mut Polygon, depth: u32) -> Result<(), BlobError> {
        if depth > MAX_DEPTH {
            return Err(BlobError::Nested);
        }
        let (kind, doubles) = self.kind()?;
        match kind {
            POLYGON | TRIANGLE => self.polygon(doubles, out),
            CURVE_POLYGON => self.curve_polygon(out),
            MULTI_POLYGON | MULTI_SURFACE | COLLECTION => {
                for _ in 0..self.count(SMALLEST_GEOMETRY)? {
                    self.surface(out, depth + 1)?;
                }
                Ok(())
            }
            other => Err(BlobError::NotAPolygon(other)),
        }
    }

    fn polygon(&mut self, doubles: usize, out: &mut Polygon) -> Result<(), BlobError> {
        for ring in 0..self.count(4)? {
            let count = self.points(doubles, out)?;
            close(out, count, ring > 0)?;
        }
        Ok(())
    }

    /// Hands over the points of a sequence and tells how many there were.
    fn points(&mut self, doubles: usize, out: &mut impl Extend<[f64; 2]>) -> Result<u32, BlobError> {
        let count = self.count(8 * doubles)?;
        let bytes = self.take(count as usize * 8 * doubles)?;
        let mut finite = true;
        let mut point = |x: f64, y: f64| {
            finite &= x.is_finite() & y.is_finite();
            [x, y]
        };
        let numbers = bytes.as_chunks::<8>().0;
        match (doubles, self.little) {
            // Almost every point there is; with their size known they are copied at once.
            (2, true) => {
                let pairs = numbers.as_chunks::<2>().0;
                out.extend(pairs.iter().map(|[x, y]| point(f64::from_le_bytes(*x), f64::from_le_bytes(*y))));
            }
            (_, true) => out.extend(
                numbers.chunks_exact(doubles).map(|p| point(f64::from_le_bytes(p[0]), f64::from_le_bytes(p[1]))),
            ),
            (_, false) => out.extend(
                numbers.chunks_exact(doubles).map(|p| point(f64::from_be_bytes(p[0]), f64::from_be_bytes(p[1]))),
            ),
        }
        if finite { Ok(count) } else { Err(BlobError::NotFinite) }
    }

    fn curve_polygon(&mut self, out: &mut Polygon) -> Result<(), BlobError> {
        for ring in 0..self.count(SMALLEST_GEOMETRY)? {
            let before = out.points().len();
            let (kind, doubles) = self.kind()?;
            if kind == COMPOUND_CURVE {
                for _ in 0..self.count(SMALLEST_GEOMETRY)? {
                    let (part, doubles) = self.kind()?;
                    self.curve(part, doubles, before, out)?;
                }
            } else {
                self.curve(kind, doubles, before, out)?;
            }
            let count = (out.points().len() - before) as u32;
            close(out, count, ring > 0)?;
        }
        Ok(())
    }

    /// A straight or circular piece of the ring that began at point `start` of `out`; a first point that
    /// repeats the last one of the piece before is left out.
    fn curve(&mut self, kind: u32, doubles: usize, start: usize, out: &mut Polygon) -> Result<(), BlobError> {
        let mut points = Vec::new();
        let count = self.points(doubles, &mut points)?;
        let straight = match kind {
            LINE_STRING => points,
            CIRCULAR_STRING if count == 0 || (count >= 3 && count % 2 == 1) => curve::linearise(&points),
            _ => return Err(BlobError::Curve(kind, count)),
        };
        if (out.points().len() + straight.len()) * size_of::<[f64; 2]>() > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge);
        }
        let joins = out.points().len() > start && out.points().last() == straight.first();
        out.extend(straight.into_iter().skip(usize::from(joins)));
        Ok(())
    }
}

fn close(out: &mut Polygon, count: u32, hole: bool) -> Result<(), BlobError> {
    if count == 1 || count == 2 {
        return Err(BlobError::ShortRing(count));
    }
    out.close_ring(hole);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "blob_tests.rs"]
mod tests;
