//! From which of a member's partitions the next message is taken.
//!
//! Pure. Contract: with a focus on k, only from the k lowest that are not at their end; when all are at their end, from
//! any, so that new messages are seen wherever they appear. Without a focus, from all in turn.
//! Trap: a partition that changed hands begins anew: [`Flow::forget`] it.

use std::collections::BTreeSet;

use super::TopicPartition;

/// Which partitions gave all they had, and whose turn it was last.
#[derive(Debug, Default)]
pub(super) struct Flow {
    at_end: BTreeSet<TopicPartition>,
    last: Option<TopicPartition>,
}

impl Flow {
    pub(super) fn forget(&mut self, tp: &TopicPartition) {
        self.at_end.remove(tp);
    }

    /// A message came from this partition.
    pub(super) fn more(&mut self, tp: &TopicPartition) {
        self.at_end.remove(tp);
        self.last = Some(tp.clone());
    }

    /// This partition gave its last message for now.
    pub(super) fn ended(&mut self, tp: &TopicPartition) {
        self.at_end.insert(tp.clone());
    }

    /// The partitions to try, in that order, of those held (ascending).
    pub(super) fn order<'a>(&self, held: &'a [TopicPartition], focus: Option<usize>) -> Vec<&'a TopicPartition> {
        let open = || held.iter().filter(|tp| !self.at_end.contains(tp));
        match focus {
            Some(k) if open().next().is_some() => open().take(k).collect(),
            _ => {
                let first = held.iter().position(|tp| self.last.as_ref().is_some_and(|last| tp > last)).unwrap_or(0);
                held[first..].iter().chain(&held[..first]).collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn held() -> Vec<TopicPartition> {
        (0..3).map(|n| (Arc::from("t"), n)).collect()
    }

    fn order(flow: &Flow, focus: Option<usize>) -> Vec<i32> {
        flow.order(&held(), focus).iter().map(|tp| tp.1).collect()
    }

    #[test]
    fn without_a_focus_all_have_their_turn() {
        let (mut flow, held) = (Flow::default(), held());
        assert_eq!(order(&flow, None), [0, 1, 2]);
        flow.more(&held[0]);
        assert_eq!(order(&flow, None), [1, 2, 0]);
        flow.more(&held[2]);
        flow.ended(&held[1]);
        assert_eq!(order(&flow, None), [0, 1, 2], "an end may be the past: it is still looked at");
        assert!(Flow::default().order(&[], None).is_empty());
    }

    #[test]
    fn a_focus_walks_through_the_partitions_and_none_starves() {
        let (mut flow, held) = (Flow::default(), held());
        assert_eq!(order(&flow, Some(1)), [0]);
        assert_eq!(order(&flow, Some(2)), [0, 1]);
        flow.ended(&held[0]);
        assert_eq!(order(&flow, Some(1)), [1]);
        flow.ended(&held[1]);
        flow.ended(&held[2]);
        assert_eq!(order(&flow, Some(1)), [0, 1, 2], "new messages are seen anywhere");
        flow.more(&held[1]);
        assert_eq!(order(&flow, Some(1)), [1]);
        flow.forget(&held[0]);
        assert_eq!(order(&flow, Some(1)), [0], "a partition that changed hands may have more");
    }
}
