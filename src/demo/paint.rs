//! Paints one date of one scene: ten bands and the scene classification.
//!
//! Contract: a pure function of region seed, labels, date and sky, whatever the number of threads.
//! Units: DN = reflectance x 10,000, 1 to 16000 (or what [`Underflow`] makes of deep shade), 0 where the orbit did not see;
//! 20 m bands are means of four pixels.
//! Trap: bands come in the order B02 B03 B04 B08 (10 m) B05 B06 B07 B8A B11 B12 (20 m).

use super::dark::{Underflow, is_dark};
use super::labels::{FIRST_PARCEL, Labels, TRACK, WILD};
use super::noise::{fractal, mix2, smooth, unit, white};
use super::region::{Plane, RIVER, Region, river_distance};
use super::sky::{Air, Sky};
use super::spectra::{self, Ground, Spectrum};
use crate::domain::scene::PixelGrid;
use rayon::prelude::*;

/// Bands at 10 m; the others are at 20 m.
pub(super) const FINE_BANDS: usize = 4;
/// Row pairs painted between two merges; bounds what is in memory twice.
const CHUNK: usize = 128;

/// The pixels of one scene.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// Ten bands, row by row.
    pub(super) bands: [Vec<u16>; 10],
    /// Scene classification at 20 m.
    pub(super) scl: Vec<u8>,
}

/// How one label looks on one date.
#[derive(Debug, Clone, Copy)]
struct Look {
    seed: u64,
    ground: Ground,
    soil: f32,
    /// Direction of the rows times their wave number, 1/m.
    rows: [f64; 2],
    row_depth: f32,
    stain: f32,
}

/// All that a painter needs.
pub(super) struct Painter<'a> {
    pub(super) region: &'a Region,
    pub(super) labels: &'a Labels,
    pub(super) grid: PixelGrid,
    /// Local plane from easting and northing: `x = m[0] + m[1] E + m[2] N`, `y = m[3] + m[4] E + m[5] N`.
    pub(super) to_plane: [f64; 6],
    pub(super) day: f32,
    pub(super) sky: Sky,
    /// Added to every valid DN: 1000 for a scene whose offset was not removed.
    pub(super) offset: f32,
    /// What deep shade became; `None`: there is none.
    pub(super) underflow: Option<Underflow>,
    /// Seed of the sensor's noise; differs per scene.
    pub(super) noise: u64,
}

/// Two rows of the 10 m bands, one of the 20 m bands.
struct RowPair {
    bands: [Vec<u16>; 10],
    scl: Vec<u8>,
}

/// The affine map from a scene's eastings and northings to the region's local plane, through three corners; a few
/// tens of metres off at the far end of a small scene, which only shifts textures.
pub(super) fn plane_map(region: &Region, corners_utm: [[f64; 2]; 3], corners_degrees: [[f64; 2]; 3]) -> [f64; 6] {
    let plane = Plane::of(region.bounds);
    let local = corners_degrees.map(|p| plane.metres(p));
    let [a, b, c] = corners_utm;
    let det = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]);
    let solve = |axis: usize| {
        let (u, v) = (local[1][axis] - local[0][axis], local[2][axis] - local[0][axis]);
        let east = (u * (c[1] - a[1]) - v * (b[1] - a[1])) / det;
        let north = (v * (b[0] - a[0]) - u * (c[0] - a[0])) / det;
        [local[0][axis] - east * a[0] - north * a[1], east, north]
    };
    let (x, y) = (solve(0), solve(1));
    [x[0], x[1], x[2], y[0], y[1], y[2]]
}

impl Painter<'_> {
    pub(super) fn paint(&self) -> Picture {
        let looks = self.looks();
        let pairs = self.grid.height as usize / 2;
        let mut picture = Picture::default();
        for start in (0..pairs).step_by(CHUNK) {
            let chunk: Vec<RowPair> =
                (start..pairs.min(start + CHUNK)).into_par_iter().map(|pair| self.row_pair(pair, &looks)).collect();
            for pair in chunk {
                for (band, rows) in picture.bands.iter_mut().zip(&pair.bands) {
                    band.extend_from_slice(rows);
                }
                picture.scl.extend_from_slice(&pair.scl);
            }
        }
        picture
    }

    fn looks(&self) -> Vec<Look> {
        let track = Ground { straw: 0.22, leaf: 0.08, ..Ground::default() };
        let plain =
            Look { seed: self.region.seed, ground: track, soil: 1.18, rows: [0.0; 2], row_depth: 0.0, stain: 0.3 };
        let parcels = self.region.parcels.iter().map(|parcel| {
            let seed = mix2(self.region.seed, 0x1000 + parcel.id as u64);
            let draw = |n: u64| unit(mix2(seed, n)) as f32;
            let cover = parcel.crop.cover;
            let mut ground = spectra::ground(cover, self.day + (draw(1) - 0.5) * 16.0);
            let vigour = 0.78 + 0.4 * draw(2);
            ground.leaf *= vigour;
            ground.evergreen *= vigour;
            ground.straw *= 0.8 + 0.4 * draw(3);
            let (angle, depth, period) = (draw(4) * std::f32::consts::PI, row_depth(cover), 26.0 + 12.0 * draw(5));
            let wave = std::f64::consts::TAU / f64::from(period);
            let rows = [f64::from(angle.cos()) * wave, f64::from(angle.sin()) * wave];
            let soil = (0.72 + 0.56 * draw(6)) * if self.day < 80.0 || self.day > 300.0 { 0.86 } else { 1.0 };
            Look { seed, ground, soil, rows, row_depth: depth, stain: stain(cover) }
        });
        // Label 0, wild land, is mixed per pixel; its entry only holds the place.
        [plain, plain].into_iter().chain(parcels).collect()
    }

    fn row_pair(&self, pair: usize, looks: &[Look]) -> RowPair {
        let (width, half) = (self.labels.width, self.labels.width / 2);
        let sized = |band: usize| vec![0u16; if band < FINE_BANDS { 2 * width } else { half }];
        let mut out = RowPair { bands: std::array::from_fn(sized), scl: vec![0; half] };
        for column in 0..half {
            let x = self.grid.x0 + (column as f64 + 0.5) * 20.0;
            let y = self.grid.y0 - (pair as f64 + 0.5) * 20.0;
            let air = self.sky.over(x, y);
            let Air::Seen { cloud, shadow } = air else { continue };
            let (mut mean, mut wet) = ([0f32; 10], 0);
            for quarter in 0..4 {
                let (row, col) = (2 * pair + quarter / 2, 2 * column + quarter % 2);
                let (spectrum, water) = self.ground(row, col, looks);
                wet += u8::from(water);
                let seen = through(spectrum, cloud, shadow);
                for (band, value) in seen.into_iter().enumerate().take(FINE_BANDS) {
                    out.bands[band][quarter / 2 * width + col] = self.digital(value, band, row, col);
                }
                (0..10).for_each(|band| mean[band] += spectrum[band] / 4.0);
            }
            let seen = through(mean, cloud, shadow);
            for (band, value) in seen.into_iter().enumerate().skip(FINE_BANDS) {
                out.bands[band][column] = self.digital(value, band, pair, column);
            }
            let ndvi = (mean[3] - mean[2]) / (mean[3] + mean[2]);
            let below = if wet >= 2 {
                6
            } else if ndvi > 0.4 {
                4
            } else {
                5
            };
            out.scl[column] = air.classify(below);
            if let Some(kind) =
                self.underflow.filter(|_| out.scl[column] == below && is_dark(self.region.seed, self.plane([x, y])))
            {
                self.shade(kind, pair, column, &mut out);
            }
        }
        out
    }

    /// Puts one 20 m pixel into deep shade: class 2 of the classification, and every band below zero.
    fn shade(&self, kind: Underflow, pair: usize, column: usize, out: &mut RowPair) {
        out.scl[column] = 2;
        for (band, rows) in out.bands.iter_mut().enumerate() {
            let noise = self.noise ^ (band as u64);
            if band >= FINE_BANDS {
                rows[column] = kind.digital(noise, pair, column);
                continue;
            }
            for quarter in 0..4 {
                let (row, col) = (2 * pair + quarter / 2, 2 * column + quarter % 2);
                rows[quarter / 2 * self.labels.width + col] = kind.digital(noise, row, col);
            }
        }
    }

    /// A place of the scene in the region's plane.
    fn plane(&self, [e, n]: [f64; 2]) -> [f64; 2] {
        let m = &self.to_plane;
        [m[0] + m[1] * e + m[2] * n, m[3] + m[4] * e + m[5] * n]
    }

    /// The ground's spectrum at a 10 m pixel, and whether it is water.
    fn ground(&self, row: usize, col: usize, looks: &[Look]) -> (Spectrum, bool) {
        let (e, n) = (self.grid.x0 + (col as f64 + 0.5) * 10.0, self.grid.y0 - (row as f64 + 0.5) * 10.0);
        let p = self.plane([e, n]);
        match self.labels.cells[row * self.labels.width + col] {
            WILD => self.wild(p),
            label => {
                let look = &looks[label as usize];
                let scale = if label == TRACK { 30.0 } else { 110.0 };
                let stain = fractal(look.seed, p[0] / scale, p[1] / scale, 3) * look.stain;
                let wave = (look.rows[0] * p[0] + look.rows[1] * p[1]).cos() as f32 * look.row_depth;
                let mut ground = look.ground;
                let thick = (1.0 + stain + wave).max(0.1);
                ground.leaf *= thick;
                ground.evergreen *= thick;
                ground.bloom *= thick;
                debug_assert!(label == TRACK || label >= FIRST_PARCEL);
                (ground.reflect(look.soil * (1.0 - 0.35 * stain)), false)
            }
        }
    }

    /// Scrub, grass and bare slopes; the river and the trees along it.
    fn wild(&self, p: [f64; 2]) -> (Spectrum, bool) {
        let seed = self.region.seed;
        let away = river_distance(seed, p);
        if away < RIVER {
            return (spectra::WATER, true);
        }
        let large = fractal(mix2(seed, 21), p[0] / 900.0, p[1] / 900.0, 3);
        let fine = fractal(mix2(seed, 22), p[0] / 70.0, p[1] / 70.0, 3);
        let slope = smooth(mix2(seed, 23), (p[0] + 0.6 * p[1]) / 260.0, (p[1] - 0.6 * p[0]) / 700.0);
        let bank = (1.0 - (away - RIVER) / 160.0).clamp(0.0, 1.0) as f32;
        let grass = spectra::ground(super::crops::Cover::Pasture, self.day);
        let trees = (0.26 + 0.4 * large + 0.55 * fine).clamp(0.0, 0.9);
        let ground = Ground {
            evergreen: trees * (1.0 - bank) + 0.35 * bank,
            leaf: grass.leaf * (0.5 + 0.3 * fine + 0.4 * bank).max(0.0),
            straw: 0.45 * grass.straw + 0.1,
            bloom: 0.0,
        };
        let light = 1.0 + 0.14 * slope;
        (ground.reflect(0.95 + 0.2 * large).map(|v| v * light), false)
    }

    /// Reflectance to DN, with the sensor's noise.
    fn digital(&self, reflectance: f32, band: usize, row: usize, col: usize) -> u16 {
        let noise = white(self.noise ^ (band as u64), col as i64, row as i64);
        (reflectance * (1.0 + 0.016 * noise) + 9.0 * noise + self.offset).clamp(1.0, 16_000.0) as u16
    }
}

fn through(mut spectrum: Spectrum, cloud: f32, shadow: f32) -> Spectrum {
    if cloud > 0.0 || shadow > 0.0 {
        for (value, white) in spectrum.iter_mut().zip(spectra::CLOUD) {
            *value = *value * (1.0 - 0.6 * shadow) * (1.0 - cloud) + white * cloud;
        }
    }
    spectrum
}

fn row_depth(cover: super::crops::Cover) -> f32 {
    use super::crops::Cover::*;
    match cover {
        Olive | Almond => 0.26,
        Vineyard | Fruit | Citrus => 0.18,
        Maize | Vegetables | Sunflower => 0.08,
        _ => 0.04,
    }
}

/// How patchy a cover grows.
fn stain(cover: super::crops::Cover) -> f32 {
    use super::crops::Cover::*;
    match cover {
        Forest => 0.45,
        Pasture | Fallow => 0.5,
        Olive | Almond | Vineyard => 0.25,
        _ => 0.18,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::demo::region::Size;

    fn paint(threads: usize, underflow: Option<Underflow>) -> Picture {
        let region = Region::generate(Size::Tiny, 5);
        let transform = crate::demo::labels::transform(4258, 32630).unwrap();
        let on_field = crate::demo::labels::project(&transform, &region.parcels[40].polygons[0].rings[0]).unwrap()[0];
        let [x0, y0] = [on_field[0] - 500.0, on_field[1] + 1500.0].map(|m| (m / 20.0).floor() * 20.0);
        let grid = PixelGrid { x0, y0, res: 10.0, width: 120, height: 300 };
        let labels = Labels::draw(&region, 32630, &grid).unwrap();
        assert!(labels.cells.iter().any(|&label| label >= FIRST_PARCEL));
        let sky = Sky::new(1, 20.0, Some(0.8), grid);
        let to_plane = [-x0, 1.0, 0.0, -y0, 0.0, 1.0];
        let painter = Painter {
            region: &region,
            labels: &labels,
            grid,
            to_plane,
            day: 115.0,
            sky,
            offset: 0.0,
            underflow,
            noise: 9,
        };
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| painter.paint())
    }

    #[test]
    fn threads_do_not_change_a_pixel() {
        let (one, four) = (paint(1, Some(Underflow::Kept)), paint(4, Some(Underflow::Kept)));
        assert!(one.bands == four.bands && one.scl == four.scl);
    }

    #[test]
    fn all_bands_and_the_classification_agree_on_what_was_seen() {
        let picture = paint(2, Some(Underflow::Wrapped));
        let unseen = picture.scl.iter().filter(|&&class| class == 0).count();
        assert!(unseen > 1000 && unseen < picture.scl.len() / 2, "{unseen}");
        for (band, values) in picture.bands.iter().enumerate() {
            let (width, scale) = if band < FINE_BANDS { (120, 2) } else { (60, 1) };
            assert_eq!(values.len(), width * 150 * scale);
            for (i, &dn) in values.iter().enumerate() {
                let class = picture.scl[i / width / scale * 60 + i % width / scale];
                assert_eq!(dn == 0, class == 0, "band {band} pixel {i}");
            }
        }
    }

    #[test]
    fn the_plane_map_goes_through_its_corners() {
        let region = Region::generate(Size::Tiny, 5);
        let degrees = [[-0.03, 41.64], [0.03, 41.64], [-0.03, 41.60]];
        let utm = [[747_000.0, 4_614_000.0], [752_000.0, 4_614_170.0], [747_150.0, 4_609_560.0]];
        let m = plane_map(&region, utm, degrees);
        for (p, d) in utm.iter().zip(degrees) {
            let [x, y] = Plane::of(region.bounds).metres(d);
            assert!((m[0] + m[1] * p[0] + m[2] * p[1] - x).abs() < 1e-3);
            assert!((m[3] + m[4] * p[0] + m[5] * p[1] - y).abs() < 1e-3);
        }
    }
}
