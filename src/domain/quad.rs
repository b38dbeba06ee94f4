//! The outline of a chip on the ellipsoid, and the gap between two of them, whatever UTM zones they lie in.
//!
//! Units: metres; corners in degrees. Contract: [`Quad::gap`] is exact to the millimetre for chips of one place and to a
//! metre for chips 100 km apart: both are projected straight onto the plane that touches the WGS 84 ellipsoid midway
//! between them. Symmetric up to rounding.
//! Trap: not for chips on opposite sides of the Earth; ask [`Quad::chord`] first, which is true everywhere.

/// Semi-major axis of WGS 84, metres, and its first eccentricity squared.
const A: f64 = 6_378_137.0;
const E2: f64 = 6.694_379_990_141_317e-3;

/// A convex quadrilateral: centre in geocentric coordinates, corners relative to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quad {
    centre: [f64; 3],
    corners: [[f32; 3]; 4],
}

/// Geocentric coordinates (EPSG:4978) of a place on the WGS 84 ellipsoid, degrees to metres.
pub fn geocentric([lon, lat]: [f64; 2]) -> [f64; 3] {
    let (lon, lat) = (lon.to_radians(), lat.to_radians());
    let n = A / (1.0 - E2 * lat.sin().powi(2)).sqrt();
    [n * lat.cos() * lon.cos(), n * lat.cos() * lon.sin(), n * (1.0 - E2) * lat.sin()]
}

impl Quad {
    /// From four corners in degrees, in order around the outline.
    pub fn new(corners: [[f64; 2]; 4]) -> Self {
        let corners = corners.map(geocentric);
        let centre = [0, 1, 2].map(|i| corners.iter().map(|c| c[i]).sum::<f64>() / 4.0);
        Self { centre, corners: corners.map(|c| sub(c, centre).map(|v| v as f32)) }
    }

    /// Its middle, geocentric.
    pub fn centre(&self) -> [f64; 3] {
        self.centre
    }

    /// Distance from the middle to the farthest corner.
    pub fn radius(&self) -> f64 {
        self.corners.iter().map(|c| norm(c.map(f64::from))).fold(0.0, f64::max)
    }

    /// Straight distance between the middles.
    pub fn chord(&self, other: &Self) -> f64 {
        norm(sub(self.centre, other.centre))
    }

    /// Smallest distance between the two outlines; negative by how deep they overlap.
    pub fn gap(&self, other: &Self) -> f64 {
        let middle = [0, 1, 2].map(|i| (self.centre[i] + other.centre[i]) / 2.0);
        // The ellipsoid's normal: gradient of x^2/a^2 + y^2/a^2 + z^2/b^2.
        let up = unit([middle[0], middle[1], middle[2] / (1.0 - E2)]);
        let aside = if up[2].abs() < 0.9 { [0.0, 0.0, 1.0] } else { [1.0, 0.0, 0.0] };
        let east = unit(cross(aside, up));
        let north = cross(up, east);
        let flat = |quad: &Self| {
            quad.corners.map(|c| {
                let at = [0, 1, 2].map(|i| quad.centre[i] - middle[i] + f64::from(c[i]));
                [dot(at, east), dot(at, north)]
            })
        };
        gap(&flat(self), &flat(other))
    }
}

type Flat = [[f64; 2]; 4];

/// Gap of two convex quadrilaterals in a plane: by separating axes when they overlap, else by corners and edges.
fn gap(a: &Flat, b: &Flat) -> f64 {
    let apart = separation(a, b).max(separation(b, a));
    if apart < 0.0 {
        return apart;
    }
    let corner_to_edges = |from: &Flat, to: &Flat| {
        let edges = (0..4).map(|i| (to[i], to[(i + 1) % 4]));
        let all = edges.flat_map(|(p, q)| from.iter().map(move |c| to_segment(*c, p, q)));
        all.fold(f64::INFINITY, f64::min)
    };
    corner_to_edges(a, b).min(corner_to_edges(b, a))
}

/// How far apart the two are along the edge normals of the first; negative when they overlap on all of them.
fn separation(a: &Flat, b: &Flat) -> f64 {
    let middle = [0, 1].map(|i| a.iter().map(|c| c[i]).sum::<f64>() / 4.0);
    let mut best = f64::NEG_INFINITY;
    for i in 0..4 {
        let (p, q) = (a[i], a[(i + 1) % 4]);
        let mut normal = [q[1] - p[1], p[0] - q[0]];
        let length = normal[0].hypot(normal[1]);
        if length == 0.0 {
            continue;
        }
        // Outwards, whichever way round the corners go.
        let sign = (p[0] - middle[0]) * normal[0] + (p[1] - middle[1]) * normal[1];
        normal = normal.map(|v| v / length * sign.signum());
        let beyond = b.iter().map(|c| (c[0] - p[0]) * normal[0] + (c[1] - p[1]) * normal[1]);
        best = best.max(beyond.fold(f64::INFINITY, f64::min));
    }
    best
}

fn to_segment(c: [f64; 2], p: [f64; 2], q: [f64; 2]) -> f64 {
    let (dx, dy) = (q[0] - p[0], q[1] - p[1]);
    let length2 = dx * dx + dy * dy;
    let t = if length2 > 0.0 { (((c[0] - p[0]) * dx + (c[1] - p[1]) * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
    (c[0] - p[0] - t * dx).hypot(c[1] - p[1] - t * dy)
}

fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

fn unit(a: [f64; 3]) -> [f64; 3] {
    let length = norm(a);
    a.map(|v| v / length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Metres in a degree of longitude and latitude at 41.6 N on WGS 84.
    const LON: f64 = 83_378.8;
    const LAT: f64 = 111_070.4;

    /// A chip of 2560 m whose west and south edges are so many metres from (0, 41.6).
    fn chip(east: f64, north: f64) -> Quad {
        let [w, s, e, n] = [east / LON, 41.6 + north / LAT, (east + 2560.0) / LON, 41.6 + (north + 2560.0) / LAT];
        Quad::new([[w, s], [e, s], [e, n], [w, n]])
    }

    #[test]
    fn geocentric_agrees_with_the_definition_of_the_ellipsoid() {
        let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-3);
        assert!(near(geocentric([0.0, 0.0]), [6_378_137.0, 0.0, 0.0]));
        assert!(near(geocentric([90.0, 0.0]), [0.0, 6_378_137.0, 0.0]));
        assert!(near(geocentric([0.0, 90.0]), [0.0, 0.0, 6_356_752.314]));
    }

    #[test]
    fn gaps_beside_above_and_across_the_corner() {
        for (east, north, want) in
            [(3560.0, 0.0, 1000.0), (0.0, -2860.0, 300.0), (2860.0, 2960.0, 500.0), (-2561.0, 100.0, 1.0)]
        {
            let got = chip(0.0, 0.0).gap(&chip(east, north));
            assert!((got - want).abs() < 2.0, "{got} for {want}");
            assert!((got - chip(east, north).gap(&chip(0.0, 0.0))).abs() < 1e-3);
        }
    }

    #[test]
    fn overlapping_chips_have_a_negative_gap_as_deep_as_the_overlap() {
        for (east, north, want) in [(0.0, 0.0, -2560.0), (2550.0, 0.0, -10.0), (2500.0, 2540.0, -20.0)] {
            let got = chip(0.0, 0.0).gap(&chip(east, north));
            assert!((got - want).abs() < 3.0, "{got} for {want}");
        }
    }

    #[test]
    fn a_chip_is_as_large_as_it_is() {
        let chip = chip(0.0, 0.0);
        assert!((chip.radius() - 2560.0 / 2.0_f64.sqrt()).abs() < 2.0, "{}", chip.radius());
        assert_eq!(chip.chord(&chip), 0.0);
    }
}
