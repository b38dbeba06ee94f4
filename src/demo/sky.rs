//! Clouds, their shadows, and the edge of the orbit.
//!
//! Contract: pure; the share of cloudy pixels comes close to the one asked for, and the scene's item states the share
//! that was really painted. Units: metres in the scene's CRS, cover in percent.
//! Trap: the orbit's edge is decided per 20 m pixel, so that 10 m and 20 m bands lose the same ground.

use super::noise::fractal;
use crate::domain::scene::PixelGrid;

/// Wavelength of the largest cloud masses, metres.
const MASS: f64 = 3400.0;
/// From the first veil to a full cloud, in noise units.
const RAMP: f32 = 0.22;
/// Opacity from which a pixel counts as cloud of any kind.
const CIRRUS: f32 = 0.08;
/// Noise units between the threshold and a pixel of opacity [`CIRRUS`].
const VEIL: f32 = 0.173 * RAMP;

/// The sky over one scene.
#[derive(Debug, Clone)]
pub(super) struct Sky {
    seed: u64,
    /// Noise value at which clouds begin; infinite for a clear sky.
    threshold: f32,
    /// Where the orbit ends: a share of the width at the north edge.
    orbit_edge: Option<f64>,
    grid: PixelGrid,
}

/// What lies between the ground and the satellite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Air {
    /// Outside the orbit: nodata.
    Outside,
    /// Opacity of cloud, and of shadow on the ground, 0 to 1.
    Seen { cloud: f32, shadow: f32 },
}

impl Sky {
    /// A sky with about `cover` percent of clouds.
    pub(super) fn new(seed: u64, cover: f64, orbit_edge: Option<f64>, grid: PixelGrid) -> Self {
        let mut sky = Self { seed, threshold: f32::INFINITY, orbit_edge, grid };
        if cover > 0.0 {
            let samples = 160;
            let at = |i: u32, n: u32| f64::from(i) / f64::from(samples) * f64::from(n) * grid.res;
            let mut found: Vec<f32> = (0..samples * samples)
                .map(|i| sky.density(grid.x0 + at(i % samples, grid.width), grid.y0 - at(i / samples, grid.height)))
                .collect();
            found.sort_by(f32::total_cmp);
            let clear = ((1.0 - cover / 100.0) * found.len() as f64) as usize;
            sky.threshold = found[clear.min(found.len() - 1)] - VEIL;
        }
        sky
    }

    fn density(&self, x: f64, y: f64) -> f32 {
        fractal(self.seed, x / MASS, y / MASS, 6)
    }

    fn opacity(&self, x: f64, y: f64) -> f32 {
        let t = ((self.density(x, y) - self.threshold) / RAMP).clamp(0.0, 1.0);
        t * t * (3.0 - 2.0 * t)
    }

    /// The air over the middle of a 20 m pixel.
    pub(super) fn over(&self, x: f64, y: f64) -> Air {
        let (width, height) = (f64::from(self.grid.width) * self.grid.res, f64::from(self.grid.height) * self.grid.res);
        let (across, down) = ((x - self.grid.x0) / width, (self.grid.y0 - y) / height);
        if self.orbit_edge.is_some_and(|edge| across + Self::SLANT * down > edge) {
            return Air::Outside;
        }
        if self.threshold == f32::INFINITY {
            return Air::Seen { cloud: 0.0, shadow: 0.0 };
        }
        // Mid-morning sun in the south-east: the cloud that shades this place stands there.
        let shadow = self.opacity(x + 420.0, y - 560.0);
        Air::Seen { cloud: self.opacity(x, y), shadow }
    }

    /// How far the orbit's edge moves west from north to south, as a share of the width.
    const SLANT: f64 = 0.18;

    /// Corners of the ground that was seen, in the scene's CRS, counter-clockwise from the north-west.
    pub(super) fn footprint(&self) -> [[f64; 2]; 4] {
        let PixelGrid { x0, y0, res, width, height } = self.grid;
        let (width, south) = (f64::from(width) * res, y0 - f64::from(height) * res);
        let reach = |share: f64| x0 + width * share.min(1.0);
        let (at_south, at_north) = match self.orbit_edge {
            Some(edge) => (reach(edge - Self::SLANT), reach(edge)),
            None => (x0 + width, x0 + width),
        };
        [[x0, y0], [x0, south], [at_south, south], [at_north, y0]]
    }
}

impl Air {
    /// The scene classification of this air over ground of class `ground` (4 vegetation, 5 bare, 6 water).
    pub(super) fn classify(self, ground: u8) -> u8 {
        match self {
            Self::Outside => 0,
            Self::Seen { cloud, .. } if cloud > 0.62 => 9,
            Self::Seen { cloud, .. } if cloud > 0.3 => 8,
            Self::Seen { cloud, .. } if cloud > CIRRUS => 10,
            Self::Seen { shadow, .. } if shadow > 0.35 => 3,
            Self::Seen { .. } => ground,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: PixelGrid = PixelGrid { x0: 740_000.0, y0: 4_620_000.0, res: 10.0, width: 1200, height: 1800 };

    fn share(sky: &Sky, wanted: impl Fn(u8) -> bool) -> f64 {
        let mut hits = 0;
        for i in 0..600 * 900 {
            let (column, row) = (f64::from(i % 600), f64::from(i / 600));
            let air = sky.over(GRID.x0 + 20.0 * column + 10.0, GRID.y0 - 20.0 * row - 10.0);
            hits += i32::from(wanted(air.classify(5)));
        }
        f64::from(hits) / 5400.0
    }

    #[test]
    fn cover_comes_close_to_what_was_asked() {
        for asked in [3.0, 12.0, 40.0, 70.0] {
            let sky = Sky::new(9, asked, None, GRID);
            let painted = share(&sky, |scl| matches!(scl, 8..=10));
            assert!((painted - asked).abs() < 1.5, "{asked} {painted}");
        }
        assert_eq!(share(&Sky::new(9, 0.0, None, GRID), |scl| scl != 5), 0.0);
    }

    #[test]
    fn the_orbit_edge_leaves_a_slanted_border() {
        let outside = share(&Sky::new(9, 0.0, Some(0.6), GRID), |scl| scl == 0);
        // On average the edge lies at 0.6 - 0.09.
        assert!((outside - 49.0).abs() < 0.5, "{outside}");
    }
}
