//! Chips and tasks over time, in a bounded number of equal buckets.
//!
//! Contract: a function of the outcomes alone; at most [`MAX_BUCKETS`] buckets whose width is the smallest of a list of
//! round numbers that fits the whole run. Buckets begin at multiples of their width. Units: milliseconds since 1970 UTC.
//! Trap: the last bucket is not over yet, so its rate looks lower than it is.

use serde::Serialize;

use super::outcome::Outcome;

/// Most buckets there are.
pub const MAX_BUCKETS: u64 = 96;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Widths of buckets; beyond the last they double.
const WIDTHS: [u64; 12] = [
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
    5 * 60 * SECOND,
    15 * 60 * SECOND,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
    7 * 24 * HOUR,
];

/// What ended within one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Chips written.
    pub chips: u64,
    /// Tasks ended, in whatever way.
    pub tasks: u64,
    /// Of these, failed.
    pub failed: u64,
}

/// A run over time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Throughput {
    /// Begin of the first bucket.
    pub from_ms: u64,
    /// Width of each.
    pub bucket_ms: u64,
    /// In order; empty when nothing has ended yet.
    pub buckets: Vec<Bucket>,
}

impl Throughput {
    /// Counts `outcomes`.
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> Self {
        let times = outcomes.clone().map(|o| o.when_ms);
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return Self::default() };
        let bucket_ms = width(first, last);
        let at = |when: u64| when / bucket_ms - first / bucket_ms;
        let mut buckets = vec![Bucket::default(); usize::try_from(at(last) + 1).unwrap_or(0)];
        for outcome in outcomes {
            let Some(bucket) = usize::try_from(at(outcome.when_ms)).ok().and_then(|i| buckets.get_mut(i)) else {
                continue;
            };
            bucket.chips = bucket.chips.saturating_add(outcome.chips);
            bucket.tasks += 1;
            bucket.failed += u64::from(outcome.status.is_failure());
        }
        Self { from_ms: first / bucket_ms * bucket_ms, bucket_ms, buckets }
    }
}

fn width(first: u64, last: u64) -> u64 {
    let fits = |width: &u64| last / width - first / width < MAX_BUCKETS;
    WIDTHS.into_iter().find(fits).unwrap_or_else(|| {
        let mut width = WIDTHS[WIDTHS.len() - 1];
        while !fits(&width) {
            width = width.saturating_mul(2);
        }
        width
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::result::Status;

    fn at(when_ms: u64, chips: u64, status: Status) -> Outcome {
        Outcome {
            status,
            chips,
            per_class: Box::default(),
            when_ms,
            elapsed_ms: 0,
            worker: "w".into(),
            bbox: None,
            kind: None,
            reason: None,
            rejected: Box::default(),
        }
    }

    #[test]
    fn buckets_begin_at_round_times() {
        let list = [at(61_200, 3, Status::Success), at(61_900, 4, Status::Success), at(63_000, 0, Status::Failed)];
        let all = Throughput::of(list.iter());
        assert_eq!((all.from_ms, all.bucket_ms), (61_000, 1000));
        let buckets: Vec<_> = all.buckets.iter().map(|b| (b.chips, b.tasks, b.failed)).collect();
        assert_eq!(buckets, [(7, 2, 0), (0, 0, 0), (0, 1, 1)]);
        assert_eq!(Throughput::of([].iter()), Throughput::default());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_there_are_never_too_many(times in prop::collection::vec(any::<u64>(), 1..30)) {
            let list: Vec<_> = times.iter().map(|t| at(*t, 2, Status::Success)).collect();
            let all = Throughput::of(list.iter());
            prop_assert!(all.buckets.len() as u64 <= MAX_BUCKETS);
            prop_assert_eq!(all.buckets.iter().map(|b| b.chips).sum::<u64>(), 2 * times.len() as u64);
        }
    }
}
