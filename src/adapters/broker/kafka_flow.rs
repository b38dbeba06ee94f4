//! Which of a member's partitions are read now.
//!
//! Pure. Contract: none when there is no room; with a focus on k, the k lowest that are not at their end; when all are
//! at their end, all of them, so that new messages are seen wherever they appear.
//! Trap: the client library forgets a pause when a partition changes hands, and so must [`Flow::forget`].

use std::collections::BTreeSet;

use super::TopicPartition;

/// What is paused, and which partitions gave all they had.
#[derive(Debug, Default)]
pub(super) struct Flow {
    paused: BTreeSet<TopicPartition>,
    at_end: BTreeSet<TopicPartition>,
}

/// What to tell the client library.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    pub(super) pause: Vec<TopicPartition>,
    pub(super) resume: Vec<TopicPartition>,
}

impl Flow {
    pub(super) fn forget(&mut self, tp: &TopicPartition) {
        self.paused.remove(tp);
        self.at_end.remove(tp);
    }

    /// A message came from this partition.
    pub(super) fn more(&mut self, tp: &TopicPartition) {
        self.at_end.remove(tp);
    }

    /// This partition gave its last message for now.
    pub(super) fn ended(&mut self, tp: TopicPartition) {
        self.at_end.insert(tp);
    }

    pub(super) fn is_paused(&self, tp: &TopicPartition) -> bool {
        self.paused.contains(tp)
    }

    /// What has to change, given the partitions held (ascending); taken as done.
    pub(super) fn change(&mut self, assigned: &[TopicPartition], focus: Option<usize>, room: usize) -> Change {
        let wanted = self.wanted(assigned, focus, room);
        let mut change = Change::default();
        for tp in assigned {
            match (wanted.contains(tp), self.paused.contains(tp)) {
                (true, true) => change.resume.push(tp.clone()),
                (false, false) => change.pause.push(tp.clone()),
                _ => {}
            }
        }
        self.paused.extend(change.pause.iter().cloned());
        for tp in &change.resume {
            self.paused.remove(tp);
        }
        change
    }

    fn wanted<'a>(
        &self,
        assigned: &'a [TopicPartition],
        focus: Option<usize>,
        room: usize,
    ) -> BTreeSet<&'a TopicPartition> {
        if room == 0 {
            return BTreeSet::new();
        }
        let open = || assigned.iter().filter(|tp| !self.at_end.contains(tp));
        match focus {
            Some(k) if open().next().is_some() => open().take(k).collect(),
            _ => assigned.iter().collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn tps(numbers: &[i32]) -> Vec<TopicPartition> {
        numbers.iter().map(|n| (Arc::from("t"), *n)).collect()
    }

    #[test]
    fn everything_pauses_without_room_and_resumes_with_it() {
        let (mut flow, held) = (Flow::default(), tps(&[0, 1]));
        assert_eq!(flow.change(&held, None, 1), Change::default());
        assert_eq!(flow.change(&held, None, 0), Change { pause: tps(&[0, 1]), resume: vec![] });
        assert_eq!(flow.change(&held, None, 0), Change::default());
        assert_eq!(flow.change(&held, None, 2), Change { pause: vec![], resume: tps(&[0, 1]) });
    }

    #[test]
    fn a_focus_walks_through_the_partitions_and_none_starves() {
        let (mut flow, held) = (Flow::default(), tps(&[0, 1, 2]));
        assert_eq!(flow.change(&held, Some(1), 4), Change { pause: tps(&[1, 2]), resume: vec![] });
        flow.ended(held[0].clone());
        assert_eq!(flow.change(&held, Some(1), 4), Change { pause: tps(&[0]), resume: tps(&[1]) });
        flow.ended(held[1].clone());
        assert_eq!(flow.change(&held, Some(1), 4), Change { pause: tps(&[1]), resume: tps(&[2]) });
        flow.ended(held[2].clone());
        assert_eq!(flow.change(&held, Some(1), 4), Change { pause: vec![], resume: tps(&[0, 1]) });
        flow.more(&held[1]);
        assert_eq!(flow.change(&held, Some(1), 4), Change { pause: tps(&[0, 2]), resume: vec![] });
    }

    #[test]
    fn a_partition_that_changed_hands_is_paused_again() {
        let (mut flow, held) = (Flow::default(), tps(&[0, 1]));
        flow.change(&held, None, 0);
        flow.forget(&held[1]);
        assert_eq!(flow.change(&held, None, 0), Change { pause: tps(&[1]), resume: vec![] });
    }
}
