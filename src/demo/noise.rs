//! Seeded numbers and smooth noise for the made-up region.
//!
//! Contract: pure functions of their arguments, so that pixels may be painted in any order and by any thread.
//! Units: coordinates in noise cells (divide metres by a wavelength); values from -1 to 1 unless said otherwise.
//! Trap: value noise repeats its lattice under the axes; change the seed per use, not the coordinates.

/// The finaliser of splitmix64: a bijection of 64 bits that looks random.
pub(super) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Two numbers made one.
pub(super) fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a) ^ b)
}

/// 0 (included) to 1 (excluded) from 64 random bits.
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A stream of random numbers (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 (included) to 1 (excluded).
    pub(super) fn unit(&mut self) -> f64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        unit(bits)
    }

    /// `low` (included) to `high` (excluded).
    pub(super) fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// As [`Rng::range`], with as many numbers in each octave.
    pub(super) fn log_range(&mut self, low: f64, high: f64) -> f64 {
        self.range(low.ln(), high.ln()).exp()
    }
}

/// Independent noise per lattice point, -1 to 1.
pub(super) fn white(seed: u64, x: i64, y: i64) -> f32 {
    let bits =
        mix(seed ^ (x as u64).wrapping_mul(0x8cb9_2ba7_2f3d_8dd7) ^ (y as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
    (bits >> 40) as f32 * (2.0 / (1u32 << 24) as f32) - 1.0
}

/// Value noise: white noise on whole coordinates, smooth in between.
pub(super) fn smooth(seed: u64, x: f64, y: f64) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let ease = |t: f64| (t * t * (3.0 - 2.0 * t)) as f32;
    let (tx, ty) = (ease(x - x0), ease(y - y0));
    let (ix, iy) = (x0 as i64, y0 as i64);
    let row = |y| {
        let (a, b) = (white(seed, ix, y), white(seed, ix + 1, y));
        a + (b - a) * tx
    };
    let (a, b) = (row(iy), row(iy + 1));
    a + (b - a) * ty
}

/// Octaves of [`smooth`], each of half the wavelength and half the height; about -1 to 1.
pub(super) fn fractal(seed: u64, x: f64, y: f64, octaves: u32) -> f32 {
    let (mut sum, mut height, mut scale) = (0.0, 1.0f32, 1.0);
    for octave in 0..octaves {
        sum += height * smooth(seed.wrapping_add(u64::from(octave)), x * scale, y * scale);
        height *= 0.5;
        scale *= 2.0;
    }
    sum / (2.0 - height * 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_smooth_and_repeatable() {
        for i in 0..5000 {
            let (x, y) = (f64::from(i) * 0.37 - 700.0, f64::from(i) * -0.11);
            let here = fractal(7, x, y, 4);
            assert!((-1.0..=1.0).contains(&here));
            assert!((here - fractal(7, x + 1e-4, y, 4)).abs() < 0.01);
            assert_eq!(here.to_bits(), fractal(7, x, y, 4).to_bits());
        }
    }

    #[test]
    fn random_numbers_fill_their_range() {
        let mut rng = Rng::new(3);
        let mean = (0..20_000).map(|_| rng.range(2.0, 4.0)).sum::<f64>() / 20_000.0;
        assert!((mean - 3.0).abs() < 0.02, "{mean}");
    }
}
