//! A polygon or multipolygon in any plane CRS: all its rings in one flat buffer.
//!
//! Units: those of the CRS (metres or degrees); x is easting or longitude, y northing or latitude.
//! Contract: "inside" is the even-odd rule over all rings, whatever their orientation; a ring is closed
//! implicitly, so a repeated last point is harmless. Rings know whether they are holes, which only area and
//! centroid use (an outer ring counts positive, a hole negative).
//! Trap: coordinates of millions of metres lose digits in the shoelace formula: sums run over differences to
//! the polygon's first point.

/// `[min x, min y, max x, max y]`.
pub type Envelope = [f64; 4];

/// One ring: where it ends in the buffer, and its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ring {
    end: u32,
    hole: bool,
}

/// Rings of a (multi)polygon. The default value is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Polygon {
    xy: Vec<[f64; 2]>,
    rings: Vec<Ring>,
}

impl Polygon {
    /// A polygon without holes.
    pub fn from_ring(ring: impl IntoIterator<Item = [f64; 2]>) -> Self {
        let mut polygon = Self::default();
        polygon.push_ring(ring, false);
        polygon
    }

    /// Adds a ring; `hole` says that it is cut out of the last ring that is not a hole. Rings without points
    /// are ignored.
    pub fn push_ring(&mut self, ring: impl IntoIterator<Item = [f64; 2]>, hole: bool) {
        self.xy.extend(ring);
        self.close_ring(hole);
    }

    /// Ends the ring that was being built by [`Extend`].
    pub fn close_ring(&mut self, hole: bool) {
        let end = self.xy.len() as u32;
        if self.rings.last().map_or(0, |r| r.end) < end {
            self.rings.push(Ring { end, hole });
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.xy.clear();
        self.rings.clear();
    }

    /// Whether there is no ring.
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// The rings in file order, with `true` for a hole.
    pub fn rings(&self) -> impl Iterator<Item = (&[[f64; 2]], bool)> + Clone {
        let mut start = 0usize;
        self.rings.iter().map(move |ring| {
            let points = &self.xy[start..ring.end as usize];
            start = ring.end as usize;
            (points, ring.hole)
        })
    }

    /// Every point of every ring.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.xy
    }

    /// Every point of every ring, to move them into another CRS.
    pub fn points_mut(&mut self) -> &mut [[f64; 2]] {
        &mut self.xy
    }

    /// Smallest box around all points; `None` when empty.
    pub fn envelope(&self) -> Option<Envelope> {
        envelope_of(&self.xy)
    }

    /// Area in squared units of the CRS: outer rings minus holes, never negative.
    pub fn area(&self) -> f64 {
        self.xy.first().map_or(0.0, |base| self.moments(*base, |_| ()).0.max(0.0))
    }

    /// Centroid of the area; `None` when there is no area.
    pub fn centroid(&self) -> Option<[f64; 2]> {
        let base = *self.xy.first()?;
        centroid_of(base, self.moments(base, |_| ()))
    }

    /// Even-odd rule. Points exactly on an edge may fall on either side, always on the same one.
    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        let mut inside = false;
        self.crossings(y, |cx| inside ^= x < cx);
        inside
    }

    /// A point inside that stands for the parcel.
    ///
    /// The centroid if it is inside; else the middle of the widest interior span of the horizontal line
    /// through the centroid; where that line meets no interior (parts above and below), through the
    /// envelope's mid-height; then through the mid-height of the largest part. `None` for shapes without
    /// interior, and for those so thin or so large that the point cannot be computed.
    pub fn representative_point(&self) -> Option<[f64; 2]> {
        let base = *self.xy.first()?;
        let mut bounds = Bounds::NONE;
        let moments = self.moments(base, |p| bounds.add(p));
        let [x0, y0, x1, y1] = bounds.envelope();
        let possible = |[x, y]: &[f64; 2]| (x0..=x1).contains(x) && (y0..=y1).contains(y);
        let centroid = centroid_of(base, moments).filter(possible);
        if let Some(c) = centroid
            && self.contains(c)
        {
            return Some(c);
        }
        let mid = |e: Envelope| e[1] + (e[3] - e[1]) / 2.0;
        let point = centroid
            .and_then(|c| self.widest_span(c[1]))
            .or_else(|| self.widest_span(mid([x0, y0, x1, y1])))
            .or_else(|| self.widest_span(mid(self.largest_part()?)));
        point.filter(possible)
    }

    /// Middle of the widest interior span at height `y`; the westernmost of equals.
    fn widest_span(&self, y: f64) -> Option<[f64; 2]> {
        let mut xs = Vec::new();
        self.crossings(y, |x| xs.push(x));
        xs.sort_unstable_by(f64::total_cmp);
        let mut best: Option<(f64, f64)> = None;
        for pair in xs.chunks_exact(2) {
            let width = pair[1] - pair[0];
            if width > best.map_or(0.0, |b| b.0) {
                best = Some((width, pair[0] + width / 2.0));
            }
        }
        best.map(|(_, x)| [x, y])
    }

    /// Envelope of the outer ring with the largest area; the first of equals.
    fn largest_part(&self) -> Option<Envelope> {
        let mut best: Option<(f64, &[[f64; 2]])> = None;
        for (ring, _) in self.rings().filter(|(_, hole)| !hole) {
            let area = ring_moments(ring, ring[0], &mut |_| ()).0.abs();
            if best.is_none_or(|(largest, _)| area > largest) {
                best = Some((area, ring));
            }
        }
        envelope_of(best?.1)
    }

    /// Calls `f` with the x of every edge that the horizontal line at `y` crosses. An edge owns its lower end
    /// and not its upper one, so a line through a vertex counts right.
    fn crossings(&self, y: f64, mut f: impl FnMut(f64)) {
        for (ring, _) in self.rings() {
            let mut a = ring[ring.len() - 1];
            let mut a_below = a[1] <= y;
            for &b in ring {
                let b_below = b[1] <= y;
                if a_below != b_below {
                    f(a[0] + (y - a[1]) * ((b[0] - a[0]) / (b[1] - a[1])));
                }
                (a, a_below) = (b, b_below);
            }
        }
    }

    /// Area and first moments about `base`; every point is shown to `each` on the way.
    fn moments(&self, base: [f64; 2], mut each: impl FnMut([f64; 2])) -> (f64, f64, f64) {
        self.rings().fold((0.0, 0.0, 0.0), |sum, (ring, hole)| {
            let (area, mx, my) = ring_moments(ring, base, &mut each);
            let sign = if (area < 0.0) == hole { 1.0 } else { -1.0 };
            (sum.0 + sign * area, sum.1 + sign * mx, sum.2 + sign * my)
        })
    }
}

/// New points belong to the ring being built; [`Polygon::close_ring`] ends that ring.
impl Extend<[f64; 2]> for Polygon {
    fn extend<T: IntoIterator<Item = [f64; 2]>>(&mut self, points: T) {
        self.xy.extend(points);
    }
}

/// From area and first moments about `base`; `None` when there is no area.
fn centroid_of(base: [f64; 2], (area, mx, my): (f64, f64, f64)) -> Option<[f64; 2]> {
    let c = [base[0] + mx / area, base[1] + my / area];
    (area > 0.0 && c[0].is_finite() && c[1].is_finite()).then_some(c)
}

/// Signed area (counter-clockwise positive) and first moments of a ring about `base`, by the shoelace formula.
fn ring_moments(ring: &[[f64; 2]], base: [f64; 2], each: &mut impl FnMut([f64; 2])) -> (f64, f64, f64) {
    let (mut area, mut mx, mut my) = (0.0, 0.0, 0.0);
    let mut a = ring.last().map_or([0.0; 2], |p| [p[0] - base[0], p[1] - base[1]]);
    for p in ring {
        each(*p);
        let b = [p[0] - base[0], p[1] - base[1]];
        let cross = a[0] * b[1] - b[0] * a[1];
        area += cross;
        mx += cross * (a[0] + b[0]);
        my += cross * (a[1] + b[1]);
        a = b;
    }
    (area / 2.0, mx / 6.0, my / 6.0)
}

/// The box around the points seen so far.
struct Bounds {
    low: [f64; 2],
    high: [f64; 2],
}

impl Bounds {
    const NONE: Self = Self { low: [f64::INFINITY; 2], high: [f64::NEG_INFINITY; 2] };

    /// Comparisons instead of `f64::min`, which asks about NaN each time. A coordinate that is NaN counts for nothing.
    fn add(&mut self, p: [f64; 2]) {
        let less = |a: f64, b: f64| if a < b { a } else { b };
        let more = |a: f64, b: f64| if a > b { a } else { b };
        self.low = [less(p[0], self.low[0]), less(p[1], self.low[1])];
        self.high = [more(p[0], self.high[0]), more(p[1], self.high[1])];
    }

    fn envelope(&self) -> Envelope {
        [self.low[0], self.low[1], self.high[0], self.high[1]]
    }
}

/// The box around points; `None` when there are none.
pub(crate) fn envelope_of(points: &[[f64; 2]]) -> Option<Envelope> {
    let mut bounds = Bounds::NONE;
    points.iter().for_each(|p| bounds.add(*p));
    (!points.is_empty()).then(|| bounds.envelope())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "polygon_tests.rs"]
mod tests;
