//! Which parcels become chips: a hash of the run's seed and the parcel's id, no random number generator.
//!
//! Contract: the answer depends on `(seed, parcel id, probability)` alone, so it is the same in the master
//! and in every worker, for any worker count, order or number of attempts.
//! Trap: a larger probability keeps every parcel that a smaller one kept; two classes with the same
//! probability do not need different seeds, because parcel ids differ.

/// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the output for
/// the state `x`.
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, 1)` that belongs to this parcel in runs of this seed: the top 53 bits of
/// `splitmix64(seed + id)`, so every value is exact in an `f64`.
pub fn hash01(seed: u64, parcel: i64) -> f64 {
    let bits = splitmix64(seed.wrapping_add(parcel.cast_unsigned())) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Whether a parcel of a class with probability `p` is drawn: never for 0, always for 1.
pub fn is_drawn(seed: u64, parcel: i64, p: f64) -> bool {
    hash01(seed, parcel) < p
}

/// The probability with which `parcels` parcels are expected to give `wanted` chips, when a share `conversion_rate` of
/// those drawn gives `each` chips: never above 1. Nothing wanted is 0, and so is a class without parcels.
pub fn probability(wanted: u64, parcels: u64, conversion_rate: f64, each: u64) -> f64 {
    let most = parcels as f64 * conversion_rate * each as f64;
    if most > 0.0 { (wanted as f64 / most).min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_probability_is_the_share_that_is_needed() {
        assert_eq!(probability(350, 10_000, 0.35, 1), 0.1);
        assert_eq!(probability(350, 10_000, 0.35, 4), 0.025);
        assert_eq!(probability(15_000, 10_331, 0.35, 1), 1.0);
        assert_eq!((probability(0, 10, 0.35, 1), probability(10, 0, 0.35, 1)), (0.0, 0.0));
    }

    #[test]
    fn splitmix64_agrees_with_the_published_sequence_for_seed_1234567() {
        let golden = 0x9e37_79b9_7f4a_7c15u64;
        let got: Vec<u64> = (0..5u64).map(|i| splitmix64(1_234_567u64.wrapping_add(golden.wrapping_mul(i)))).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(got, published);
    }

    #[test]
    fn shares_come_out_near_the_probability() {
        for p in [0.15, 0.2, 0.8] {
            let n = (0..100_000).filter(|id| is_drawn(42, *id, p)).count();
            assert!((n as f64 / 1e5 - p).abs() < 0.005, "{n} of 100000 for {p}");
        }
    }

    proptest! {
        #[test]
        fn zero_draws_none_one_draws_all_and_more_never_draws_less(seed: u64, id: i64, p in 0.0..1.0f64, q in 0.0..1.0f64) {
            prop_assert!(!is_drawn(seed, id, 0.0));
            prop_assert!(is_drawn(seed, id, 1.0));
            let (low, high) = (p.min(q), p.max(q));
            prop_assert!(!is_drawn(seed, id, low) || is_drawn(seed, id, high));
        }
    }
}
