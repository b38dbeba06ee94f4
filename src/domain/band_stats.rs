//! Exact statistics of uint16 bands, in pieces that can be added up.
//!
//! Contract: one counter for each of the 65,536 values, so mean, standard deviation and percentiles are those of all
//! pixels, not estimates, and the order of adding does not matter; [`Histogram::merge`] of parts equals the whole, and
//! [`Histogram::unmerge`] takes a part out again. Value 0 is nodata and is not counted.
//! Units: DN. Standard deviation is the population's (divided by n). Percentiles interpolate linearly between ranks, as
//! `numpy.percentile` does by default (Hyndman and Fan 1996, definition 7).
//! Memory: 512 KiB per histogram.

use serde::{Deserialize, Serialize};

/// Percentiles that are reported.
pub const PERCENTILES: [u8; 7] = [1, 2, 25, 50, 75, 98, 99];

/// Values of a uint16.
pub const VALUES: usize = 1 << 16;

/// How often each value occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram(Box<[u64]>);

/// What a histogram says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BandStats {
    /// Pixels counted; those of nodata are not.
    pub pixels: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Smallest and largest value.
    pub min: u16,
    /// Largest value.
    pub max: u16,
    /// Values at [`PERCENTILES`], in that order.
    pub percentiles: [f64; PERCENTILES.len()],
}

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; VALUES].into_boxed_slice())
    }
}

impl Histogram {
    /// From counters, one per value; `None` for another number of them.
    pub fn from_counts(counts: Vec<u64>) -> Option<Self> {
        (counts.len() == VALUES && counts[0] == 0).then(|| Self(counts.into_boxed_slice()))
    }

    /// The counters, by value.
    pub fn counts(&self) -> &[u64] {
        &self.0
    }

    /// Counts pixels.
    pub fn add(&mut self, pixels: &[u16]) {
        for value in pixels {
            self.0[usize::from(*value)] += 1;
        }
        self.0[0] = 0;
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// Takes out what [`Self::merge`] put in; `None` when more is to go than there is.
    pub fn unmerge(&self, other: &Self) -> Option<Self> {
        let left: Option<Vec<u64>> =
            self.0.iter().zip(&other.0).map(|(mine, theirs)| mine.checked_sub(*theirs)).collect();
        left.map(|counts| Self(counts.into_boxed_slice()))
    }

    /// The statistics; `None` when no pixel was counted.
    pub fn stats(&self) -> Option<BandStats> {
        let pixels: u64 = self.0.iter().sum();
        let min = self.0.iter().position(|n| *n > 0)?;
        let max = self.0.iter().rposition(|n| *n > 0)?;
        let (mut sum, mut squares) = (0u128, 0u128);
        for (value, n) in self.0.iter().enumerate() {
            sum += value as u128 * u128::from(*n);
            squares += (value * value) as u128 * u128::from(*n);
        }
        let n = u128::from(pixels);
        // Exact up to the last division: whole numbers of 128 bits.
        let variance = (n * squares - sum * sum) as f64 / (n as f64 * n as f64);
        Some(BandStats {
            pixels,
            mean: sum as f64 / n as f64,
            std: variance.sqrt(),
            min: min as u16,
            max: max as u16,
            percentiles: PERCENTILES.map(|p| self.percentile(pixels, p)),
        })
    }

    fn percentile(&self, pixels: u64, p: u8) -> f64 {
        // Rank (n - 1) * p / 100, whole part and hundredths apart, so that nothing is lost to rounding.
        let scaled = u128::from(pixels - 1) * u128::from(p);
        let (rank, part) = ((scaled / 100) as u64, (scaled % 100) as f64 / 100.0);
        let low = self.at_rank(rank);
        let high = if part > 0.0 { self.at_rank(rank + 1) } else { low };
        f64::from(low) + (f64::from(high) - f64::from(low)) * part
    }

    /// The value at a rank, from 0.
    fn at_rank(&self, rank: u64) -> u16 {
        let mut below = 0;
        let found = self.0.iter().position(|n| {
            below += n;
            below > rank
        });
        found.unwrap_or(VALUES - 1) as u16
    }
}

/// Weight of each class, so that every class counts the same in all: `total / (classes x pixels of the class)`, what
/// scikit-learn calls `balanced`. Classes without pixels have none.
pub fn balanced_weights(pixels: &[(u8, u64)]) -> Vec<(u8, f64)> {
    let present = || pixels.iter().filter(|(_, n)| *n > 0);
    let total: u64 = present().map(|(_, n)| n).sum();
    let classes = present().count() as f64;
    present().map(|(class, n)| (*class, total as f64 / (classes * *n as f64))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pixels: &[u16]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(pixels);
        histogram
    }

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile([1, 2, 3, 4], [1, 2, 25, 50, 75, 98, 99])
        let stats = of(&[4, 1, 3, 2, 0]).stats().unwrap();
        assert_eq!(stats.percentiles, [1.03, 1.06, 1.75, 2.5, 3.25, 3.94, 3.9699999999999998]);
        assert_eq!((stats.pixels, stats.min, stats.max, stats.mean), (4, 1, 4, 2.5));
        assert!((stats.std - 1.118_033_988_749_895).abs() < 1e-15);
    }

    #[test]
    fn nothing_but_nodata_has_no_statistics() {
        assert_eq!(of(&[0, 0]).stats(), None);
        assert_eq!(of(&[1]).unmerge(&of(&[2])), None);
    }

    #[test]
    fn a_million_chips_do_not_overflow() {
        let mut counts = vec![0; VALUES];
        counts[65_535] = 1 << 40;
        counts[1] = 1 << 40;
        let stats = Histogram::from_counts(counts).unwrap().stats().unwrap();
        assert_eq!((stats.mean, stats.std), (32_768.0, 32_767.0));
    }

    #[test]
    fn weights_make_classes_count_the_same() {
        let weights = balanced_weights(&[(1, 100), (2, 300), (3, 0)]);
        assert_eq!(weights, [(1, 2.0), (2, 400.0 / 600.0)]);
    }

    proptest! {
        #[test]
        fn they_are_what_the_definitions_say(pixels in prop::collection::vec(0u16.., 1..400), cut in 0usize..400) {
            let cut = cut.min(pixels.len());
            let mut merged = of(&pixels[..cut]);
            merged.merge(&of(&pixels[cut..]));
            prop_assert_eq!(&merged, &of(&pixels));
            prop_assert_eq!(merged.unmerge(&of(&pixels[cut..])), Some(of(&pixels[..cut])));
            let mut valid: Vec<f64> = pixels.iter().filter(|v| **v > 0).map(|v| f64::from(*v)).collect();
            valid.sort_by(f64::total_cmp);
            match merged.stats() {
                None => prop_assert!(valid.is_empty()),
                Some(stats) => {
                    let n = valid.len() as f64;
                    let mean = valid.iter().sum::<f64>() / n;
                    let std = (valid.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
                    prop_assert!((stats.mean - mean).abs() <= 1e-9 * mean);
                    prop_assert!((stats.std - std).abs() <= 1e-9 * mean);
                    for (p, got) in PERCENTILES.into_iter().zip(stats.percentiles) {
                        let rank = (n - 1.0) * f64::from(p) / 100.0;
                        let (low, high) = (valid[rank.floor() as usize], valid[rank.ceil() as usize]);
                        prop_assert!((got - (low + (high - low) * rank.fract())).abs() < 1e-6);
                    }
                }
            }
        }
    }
}
