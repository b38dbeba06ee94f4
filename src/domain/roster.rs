//! Which workers there are, by their heartbeats.
//!
//! Contract: the latest heartbeat of each worker counts, however they arrive; a worker that has said nothing for
//! [`LOST_AFTER`] of its own intervals is lost, unless its last word was that it leaves. Bounded: at most
//! [`MAX_WORKERS`], those heard of longest ago go first; texts from outside are shortened and cleaned. Units:
//! milliseconds since 1970 UTC. Trap: times are the broker's stamps where it gives any, so that workers' clocks
//! may differ; the reader's own clock still decides who is lost.

use std::collections::BTreeMap;

use serde::Serialize;

use super::heartbeat::{Activity, Heartbeat};

/// Most workers that are remembered.
pub const MAX_WORKERS: usize = 1024;
/// Intervals without a word after which a worker is lost.
pub const LOST_AFTER: u64 = 3;
/// How long workers that have gone, or are lost, are still shown, milliseconds.
pub const SHOWN_MS: u64 = 3_600_000;
/// Longest text, and most entries of a list, that are kept.
const MAX_TEXT: usize = 64;
const MAX_LANES: usize = 16;
const MAX_PARTITIONS: usize = 1024;

/// What a worker is at, as far as its heartbeats tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Tasks are in flight.
    Working,
    /// Nothing to do.
    Idle,
    /// A service is down; tasks wait.
    Held,
    /// Told to stop; finishes what is in flight.
    Draining,
    /// Has left in an orderly way.
    Gone,
    /// Was there and says nothing any more.
    Lost,
}

impl Presence {
    /// All of them, in the order reports show them.
    pub const ALL: [Self; 6] = [Self::Working, Self::Idle, Self::Held, Self::Draining, Self::Gone, Self::Lost];

    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Held => "held",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Lost => "lost",
        }
    }

    fn of(beat: &Heartbeat, heard_ms: u64, now_ms: u64) -> Self {
        let silent = now_ms.saturating_sub(heard_ms) > LOST_AFTER.saturating_mul(beat.interval_ms.max(1));
        match beat.activity {
            Activity::Gone => Self::Gone,
            _ if silent => Self::Lost,
            Activity::Working => Self::Working,
            Activity::Idle => Self::Idle,
            Activity::Held => Self::Held,
            Activity::Draining => Self::Draining,
        }
    }
}

/// A worker as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Present {
    /// What it is at.
    pub presence: Presence,
    /// When it was heard of last.
    pub heard_ms: u64,
    /// What it said.
    #[serde(flatten)]
    pub beat: Heartbeat,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Roster {
    workers: BTreeMap<String, (u64, Heartbeat)>,
}

impl Roster {
    /// Takes a heartbeat that the broker stamped at `stamp_ms`; 0: it gives no stamps.
    pub fn hear(&mut self, mut beat: Heartbeat, stamp_ms: u64) {
        for text in [&mut beat.worker_id, &mut beat.host, &mut beat.version] {
            *text = clean(text);
        }
        beat.in_flight = beat.in_flight.iter().take(MAX_LANES).map(|(lane, n)| (clean(lane), *n)).collect();
        beat.partitions.truncate(MAX_PARTITIONS);
        let heard_ms = if stamp_ms > 0 { stamp_ms } else { beat.at_ms };
        let known = self.workers.get(&beat.worker_id).map(|(heard, last)| (*heard, last.at_ms));
        if known.is_some_and(|known| known > (heard_ms, beat.at_ms)) {
            return;
        }
        self.workers.insert(beat.worker_id.clone(), (heard_ms, beat));
        if self.workers.len() > MAX_WORKERS {
            let oldest = self.workers.iter().min_by_key(|(name, (heard, _))| (*heard, *name));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| self.workers.remove(&name));
        }
    }

    /// Everybody worth showing at `now_ms`, by name.
    pub fn present(&self, now_ms: u64) -> Vec<Present> {
        let show = |(heard_ms, beat): &(u64, Heartbeat)| {
            let presence = Presence::of(beat, *heard_ms, now_ms);
            let past = matches!(presence, Presence::Gone | Presence::Lost);
            let shown = !past || now_ms.saturating_sub(*heard_ms) <= SHOWN_MS;
            shown.then(|| Present { presence, heard_ms: *heard_ms, beat: beat.clone() })
        };
        self.workers.values().filter_map(show).collect()
    }
}

fn clean(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(worker: &str, at_ms: u64, activity: Activity) -> Heartbeat {
        Heartbeat { worker_id: worker.into(), at_ms, interval_ms: 1_000, activity, ..Heartbeat::default() }
    }

    fn seen(roster: &Roster, now_ms: u64) -> Vec<(String, &'static str)> {
        roster.present(now_ms).into_iter().map(|p| (p.beat.worker_id, p.presence.as_str())).collect()
    }

    #[test]
    fn silence_is_loss_and_a_farewell_is_not() {
        let mut roster = Roster::default();
        roster.hear(beat("a", 10_000, Activity::Idle), 0);
        roster.hear(beat("b", 10_000, Activity::Gone), 0);
        roster.hear(beat("c", 99_000, Activity::Working), 10_500);
        let all = |presences: [&'static str; 3]| {
            ["a", "b", "c"].map(str::to_owned).into_iter().zip(presences).collect::<Vec<_>>()
        };
        assert_eq!(seen(&roster, 13_000), all(["idle", "gone", "working"]));
        assert_eq!(seen(&roster, 13_001), all(["lost", "gone", "working"]));
        assert_eq!(
            seen(&roster, 13_501),
            all(["lost", "gone", "lost"]),
            "the broker's stamp counts, not the worker's clock"
        );
        roster.hear(beat("a", 20_000, Activity::Working), 0);
        roster.hear(beat("a", 15_000, Activity::Gone), 0);
        assert_eq!(seen(&roster, 20_500)[0].1, "working", "what comes late is not believed");
        assert!(roster.present(20_000 + SHOWN_MS + 1).is_empty(), "nobody wants to see yesterday's workers");
    }

    #[test]
    fn what_comes_from_outside_is_bounded_and_cleaned() {
        let mut roster = Roster::default();
        for n in 0..3 * MAX_WORKERS as u64 {
            let lanes = (0..99).map(|lane| (format!("{lane}\u{1b}{}", "x".repeat(500)), 1)).collect();
            let id = format!("w{n}\n{}", "y".repeat(500));
            let odd = Heartbeat { in_flight: lanes, partitions: vec![1; 5000], ..beat(&id, n, Activity::Idle) };
            roster.hear(odd, 1 + n);
        }
        let all = roster.present(3_000);
        assert_eq!(all.len(), MAX_WORKERS);
        assert!(all.iter().all(|p| p.heard_ms > 2 * MAX_WORKERS as u64), "the latest are kept");
        let odd = &all[0].beat;
        assert!(odd.worker_id.chars().count() <= MAX_TEXT && !odd.worker_id.contains('\n'));
        assert!(odd.in_flight.len() <= MAX_LANES && odd.partitions.len() == MAX_PARTITIONS);
        assert!(odd.in_flight.keys().all(|lane| !lane.contains('\u{1b}')));
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(beats in prop::collection::vec((0..4_u8, 1..50_u64, 0..3_u8), 0..30)) {
            let told = |beats: &mut dyn Iterator<Item = &(u8, u64, u8)>| {
                let mut roster = Roster::default();
                for (worker, at, stamped) in beats {
                    let stamp = if *stamped == 0 { 0 } else { *at };
                    roster.hear(beat(&format!("w{worker}"), *at, Activity::Idle), stamp);
                }
                roster.present(60)
            };
            prop_assert_eq!(told(&mut beats.iter()), told(&mut beats.iter().rev().chain(&beats)));
        }
    }
}
