//! Ground in deep shade, where taking the air out leaves less than no light: reflectance a little below zero.
//!
//! Contract: pure; the same ground on every date and in every zone; no pixel is 0, which means that nothing was seen.
//! Units: metres of the region's plane, DN = reflectance x 10,000. Trap: one product that keeps the offset of 1000 shows
//! such ground as DNs below 1000, and one whose archive subtracted without a look as DNs near 65,535.

use super::noise::{fractal, mix2, white};

/// Wavelength of the slopes that throw the shade, metres.
const SLOPE: f64 = 900.0;
/// Noise from which a slope is deep enough.
const STEEP: f32 = 0.62;

/// What became of such ground in a scene's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Underflow {
    /// The offset was never taken out: DNs from 910 to 1010.
    Kept,
    /// It was, below zero and around: DNs from 65,446 to 65,535.
    Wrapped,
}

/// Whether a place of the region of this seed lies in deep shade.
pub(super) fn is_dark(seed: u64, p: [f64; 2]) -> bool {
    fractal(mix2(seed, 31), p[0] / SLOPE, p[1] / SLOPE, 2) > STEEP
}

impl Underflow {
    /// One pixel of such ground; `noise` is the sensor's, by scene and band.
    pub(super) fn digital(self, noise: u64, row: usize, col: usize) -> u16 {
        let light = (50.0 * white(noise, col as i64, row as i64) - 40.0).round() as i32;
        match self {
            Self::Kept => (1000 + light).clamp(910, 1010) as u16,
            Self::Wrapped => light.clamp(-90, -1) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_the_ground_is_dark_in_patches() {
        let dark = |x: u32, y: u32| is_dark(42, [f64::from(x) * 20.0, f64::from(y) * 20.0]);
        let (mut there, mut beside) = (0, 0);
        for (x, y) in (0..500).flat_map(|x| (0..500).map(move |y| (x, y))) {
            there += u32::from(dark(x, y));
            beside += u32::from(dark(x, y) && dark(x + 1, y));
        }
        assert!((500..10_000).contains(&there), "{there} of 250,000");
        assert!(beside * 10 > there * 8, "{beside} of {there}");
    }

    #[test]
    fn both_kinds_lie_where_they_are_harmful() {
        let all = |kind: Underflow| (0..10_000).map(move |i| kind.digital(7, i / 100, i % 100));
        assert!(all(Underflow::Kept).all(|dn| (910..=1010).contains(&dn)));
        assert!(all(Underflow::Kept).any(|dn| dn == 1000) && all(Underflow::Kept).any(|dn| dn > 1001));
        assert!(all(Underflow::Wrapped).all(|dn| dn >= 65_446));
    }
}
