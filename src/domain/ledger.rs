//! What of one partition is settled: how far its offset may be committed.
//!
//! Contract: offsets are begun in ascending order and settled in any order; the commit point never passes an offset
//! that was begun and is not settled, and once everything begun is settled it is one past the last one.
//! Unit: Kafka offsets; a commit point is the offset of the next message to read, so `last settled + 1`.
//! Trap: offsets have holes (compaction, transaction markers). A hole is not an unsettled offset.

use std::collections::BTreeMap;

/// Low-water mark of one partition, for one assignment of it. Memory is bounded by the number of unsettled offsets.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Each unsettled offset, and the one begun just before it.
    unsettled: BTreeMap<i64, Option<i64>>,
    last_begun: Option<i64>,
    mark: Option<i64>,
}

impl Ledger {
    /// A ledger in which nothing was begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a delivered offset. False, and nothing changes, when it is not above all that were begun before.
    #[must_use]
    pub fn begin(&mut self, offset: i64) -> bool {
        if self.last_begun.is_some_and(|last| offset <= last) {
            return false;
        }
        self.unsettled.insert(offset, self.last_begun);
        self.last_begun = Some(offset);
        true
    }

    /// Settles an offset; the answer is the new commit point when it moved.
    ///
    /// Settling an offset twice, or one that was never begun, changes nothing.
    pub fn settle(&mut self, offset: i64) -> Option<i64> {
        self.unsettled.remove(&offset)?;
        let done = match self.unsettled.first_key_value() {
            Some((_, before)) => (*before)?,
            None => self.last_begun?,
        };
        let mark = done + 1;
        if self.mark.is_some_and(|old| mark <= old) {
            return None;
        }
        self.mark = Some(mark);
        Some(mark)
    }

    /// How many offsets are begun and not settled.
    pub fn in_flight(&self) -> usize {
        self.unsettled.len()
    }

    /// Whether this offset is begun and not settled.
    pub fn holds(&self, offset: i64) -> bool {
        self.unsettled.contains_key(&offset)
    }

    /// The last commit point, if anything was settled.
    pub fn mark(&self) -> Option<i64> {
        self.mark
    }

    /// Forgets everything: the partition was lost, or its log began anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_for_the_first_unsettled() {
        let mut l = Ledger::new();
        assert!(l.begin(0) && l.begin(1) && l.begin(2));
        assert_eq!(l.settle(1), None);
        assert_eq!(l.settle(2), None);
        assert_eq!(l.in_flight(), 1);
        assert_eq!(l.settle(0), Some(3));
        assert_eq!(l.mark(), Some(3));
    }

    #[test]
    fn a_hole_does_not_hold_the_mark() {
        let mut l = Ledger::new();
        assert!(l.begin(3) && l.begin(7) && l.begin(9));
        assert_eq!(l.settle(3), Some(4));
        assert_eq!(l.settle(9), None);
        assert_eq!(l.settle(7), Some(10));
    }

    #[test]
    fn refuses_what_was_begun_and_ignores_what_was_not() {
        let mut l = Ledger::new();
        assert!(l.begin(5));
        assert!(!l.begin(5) && !l.begin(4));
        assert_eq!(l.settle(4), None);
        assert_eq!(l.settle(5), Some(6));
        assert_eq!(l.settle(5), None);
        l.reset();
        assert!(l.begin(0));
        assert_eq!(l.settle(0), Some(1));
    }

    /// Gaps between delivered offsets, and the order in which they are settled.
    fn history() -> impl Strategy<Value = (Vec<i64>, Vec<usize>)> {
        prop::collection::vec(1..4i64, 1..60).prop_flat_map(|gaps| {
            let offsets: Vec<i64> = gaps
                .iter()
                .scan(-1i64, |at, gap| {
                    *at += gap;
                    Some(*at)
                })
                .collect();
            let order: Vec<usize> = (0..offsets.len()).collect();
            (Just(offsets), Just(order).prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn never_past_an_unsettled_offset_and_all_the_way_at_the_end((offsets, order) in history(), lead in 1usize..8) {
            let mut ledger = Ledger::new();
            let mut begun = 0;
            let mut settled = std::collections::BTreeSet::new();
            let mut mark = None;
            // Deliveries run ahead of settlements by at most `lead`; settlement order is random among the delivered.
            let mut waiting = order;
            while !waiting.is_empty() {
                while begun < offsets.len() && begun - settled.len() < lead {
                    prop_assert!(ledger.begin(offsets[begun]));
                    begun += 1;
                }
                let at = waiting.iter().position(|i| *i < begun).unwrap();
                let i = waiting.remove(at);
                if let Some(next) = ledger.settle(offsets[i]) {
                    prop_assert!(mark.is_none_or(|old| next > old), "the mark only rises");
                    mark = Some(next);
                }
                settled.insert(offsets[i]);
                let first_open = offsets[..begun].iter().find(|o| !settled.contains(*o));
                if let (Some(first), Some(mark)) = (first_open, mark) {
                    prop_assert!(mark <= *first);
                    let done_below = offsets.iter().rfind(|o| *o < first);
                    prop_assert_eq!(Some(mark), done_below.map(|o| o + 1), "everything below the first open one counts");
                }
                prop_assert_eq!(ledger.in_flight(), begun - settled.len());
                prop_assert!(ledger.in_flight() <= lead);
            }
            prop_assert_eq!(mark, offsets.last().map(|o| o + 1));
        }
    }
}
