//! Splits an ordered list of tasks into partitions: each one a contiguous stretch of about equal weight.
//!
//! Units: weights in expected chips. Contract: partitions never go down along the list, and the load of
//! each is within the largest single weight of the mean.
//! Trap: with fewer tasks than partitions some partitions stay empty.

/// What a task costs besides its chips (STAC search, headers), in chips.
pub const TASK_WEIGHT: u64 = 2;

/// The partition of each weight, in order. A task goes where the middle of its weight falls when the whole
/// line is cut into `partitions` equal pieces.
pub fn split(weights: &[u64], partitions: i32) -> Vec<i32> {
    let count = u128::try_from(partitions.max(1)).unwrap_or(1);
    let total = weights.iter().map(|w| u128::from(*w)).sum::<u128>().max(1);
    let mut before = 0u128;
    let place = |weight: &u64| {
        let middle = 2 * before + u128::from(*weight);
        before += u128::from(*weight);
        let index = (middle * count / (2 * total)).min(count - 1);
        i32::try_from(index).unwrap_or(i32::MAX)
    };
    weights.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_weights_are_dealt_out_equally() {
        assert_eq!(split(&[1; 6], 3), [0, 0, 1, 1, 2, 2]);
        assert_eq!(split(&[5], 4), [2]);
        assert_eq!(split(&[], 4), [0i32; 0]);
    }

    proptest! {
        #[test]
        fn contiguous_and_balanced_within_one_task(weights in prop::collection::vec(1..500u64, 1..300), n in 1..40i32) {
            let parts = split(&weights, n);
            prop_assert!(parts.windows(2).all(|w| w[0] <= w[1]));
            prop_assert!(parts.iter().all(|p| (0..n).contains(p)));
            let total: u64 = weights.iter().sum();
            let largest = *weights.iter().max().unwrap_or(&0) as f64;
            let mean = total as f64 / f64::from(n);
            for p in 0..n {
                let load: u64 = weights.iter().zip(&parts).filter(|(_, q)| **q == p).map(|(w, _)| w).sum();
                prop_assert!((load as f64 - mean).abs() <= largest + 1e-6, "{load} against {mean}");
            }
        }
    }
}
