//! How many requests at once a server bears, learnt from its answers: one more after some rounds of good ones,
//! half after a refusal.
//!
//! Contract: never above the configured ceiling, never below one. Every node learns for itself, so the nodes of a
//! cluster share what a host grants without knowing of each other (additive increase, multiplicative decrease, as in
//! RFC 5681). Units: moments are milliseconds on any clock that does not run backwards.
//! Trap: the refusals of one burst are one event; requests sent before the last cut say nothing about the time after it.

/// Rounds of good answers before one request more is tried. Many nodes that each try one more every round would keep a
/// small host refusing.
const ROUNDS: u32 = 8;

/// The learnt limit of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    ceiling: u32,
    allowed: u32,
    /// Good answers since the limit last changed.
    good: u32,
    /// When the limit was last halved.
    cut_ms: Option<u64>,
}

impl Throttle {
    /// Begins with all of `ceiling` (at least 1).
    pub fn new(ceiling: u32) -> Self {
        let ceiling = ceiling.max(1);
        Self { ceiling, allowed: ceiling, good: 0, cut_ms: None }
    }

    /// Requests that may be in flight now.
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    /// A request was served.
    pub fn served(&mut self) {
        if self.allowed == self.ceiling {
            return;
        }
        self.good += 1;
        if self.good >= self.allowed * ROUNDS {
            self.good = 0;
            self.allowed += 1;
        }
    }

    /// A request sent at `sent_ms` was refused for there being too many, and this is known at `now_ms`. Whether the
    /// limit became smaller.
    pub fn refused(&mut self, sent_ms: u64, now_ms: u64) -> bool {
        self.good = 0;
        if self.cut_ms.is_some_and(|cut| sent_ms <= cut) || self.allowed == 1 {
            return false;
        }
        self.allowed = (self.allowed / 2).max(1);
        self.cut_ms = Some(now_ms);
        true
    }
}

/// Whether a status says that there are too many requests: 429 (RFC 6585) and what object stores say, 503.
pub fn is_refusal(status: u16) -> bool {
    matches!(status, 429 | 503)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_of_refusals_is_one_cut_and_a_round_of_answers_one_more() {
        let mut throttle = Throttle::new(16);
        assert!(throttle.refused(0, 10));
        assert!((0..15).all(|_| !throttle.refused(5, 11)), "they were sent before the cut");
        assert_eq!(throttle.allowed(), 8);
        assert!(throttle.refused(11, 20));
        assert_eq!(throttle.allowed(), 4);
        (0..4 * ROUNDS - 1).for_each(|_| throttle.served());
        assert_eq!(throttle.allowed(), 4);
        throttle.served();
        assert_eq!(throttle.allowed(), 5);
        (0..2000).for_each(|_| throttle.served());
        assert_eq!(throttle.allowed(), 16);
    }

    #[test]
    fn one_request_is_always_allowed() {
        let mut throttle = Throttle::new(0);
        assert!(!throttle.refused(1, 2));
        assert_eq!(throttle.allowed(), 1);
    }

    /// Rounds in which `nodes` send all they may to a server that serves `capacity` of a round and refuses the rest.
    /// Refused and sent over the last half of the rounds.
    fn rounds(nodes: usize, ceiling: u32, capacity: u32) -> (u64, u64) {
        let mut throttles = vec![Throttle::new(ceiling); nodes];
        let (mut refused, mut sent) = (0, 0);
        for round in 0..1000u64 {
            let total: u32 = throttles.iter().map(Throttle::allowed).sum();
            // The server refuses everybody's share alike; which request is hit rotates.
            let over = total.saturating_sub(capacity);
            let mut number = 0u32;
            for throttle in &mut throttles {
                for _ in 0..throttle.allowed() {
                    let hit = (u64::from(number) * 7 + round) % u64::from(total) < u64::from(over);
                    number += 1;
                    if hit {
                        throttle.refused(2 * round + 1, 2 * round + 2);
                    } else {
                        throttle.served();
                    }
                    if round >= 500 {
                        sent += 1;
                        refused += u64::from(hit);
                    }
                }
            }
        }
        (refused, sent)
    }

    proptest! {
        /// Whatever the number of nodes, they settle near what the server bears.
        #[test]
        fn nodes_that_know_nothing_of_each_other_share_a_server(
            nodes in 1..12_usize, ceiling in 8..64_u32, capacity in 16..80_u32,
        ) {
            let (refused, sent) = rounds(nodes, ceiling, capacity);
            let asked = nodes as u64 * u64::from(ceiling) * 500;
            prop_assert!(refused * 5 <= sent, "{refused} of {sent} refused");
            prop_assert!(sent >= asked.min(u64::from(capacity) * 500) / 3, "{sent} sent of {asked}");
        }

        #[test]
        fn the_limit_stays_between_one_and_the_ceiling(ceiling in 0..100_u32, events in prop::collection::vec(any::<(bool, u16)>(), 0..500)) {
            let mut throttle = Throttle::new(ceiling);
            let mut now = 0;
            for (good, pause) in events {
                now += u64::from(pause);
                if good { throttle.served() } else { _ = throttle.refused(now.saturating_sub(100), now) }
                prop_assert!((1..=ceiling.max(1)).contains(&throttle.allowed()));
            }
        }
    }
}
