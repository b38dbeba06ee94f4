//! The workers of a run, each on one line: what it says of itself, and what its results say.
//!
//! Contract: a function of the progress; whoever reports results or a heartbeat is there once, by name as people count
//! (`9` before `10`). Without heartbeats only results speak. Units: per second since the worker came up; shares 0 to 1.
//! Trap: heartbeats count everything since the worker came up, results only the run that is shown, so their chips differ.

use serde::Serialize;

use super::heartbeat::Heartbeat;
use super::progress::Progress;
use super::roster::{Presence, Present};

/// One worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hand {
    /// Its name.
    pub worker: String,
    /// What it is at; `None`: it sends no heartbeats.
    pub presence: Option<Presence>,
    /// Name of its machine; empty without heartbeats.
    pub host: String,
    /// Tasks of the run whose result is its own.
    pub tasks: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Chips of the run that it wrote.
    pub chips: u64,
    /// First and last result; 0: none yet.
    pub first_ms: u64,
    /// See `first_ms`.
    pub last_ms: u64,
    /// When it was heard of last, by whatever message.
    pub heard_ms: u64,
    /// Messages in its stages, over all of them.
    pub in_flight: u64,
    /// The same by stage, without zeros, as `stage n, …`.
    pub stages: String,
    /// Chips it wrote, per second, since it came up.
    pub chips_per_s: Option<f64>,
    /// Bytes it fetched, per second, since it came up.
    pub bytes_per_s: Option<f64>,
    /// Blocks found in its cache, of all it wanted.
    pub cache_share: Option<f64>,
}

/// Everybody.
pub fn crew(progress: &Progress) -> Vec<Hand> {
    let mut hands: Vec<Hand> = progress.presence.iter().map(of_presence).collect();
    for w in &progress.workers {
        let at = hands.iter().position(|hand| hand.worker == w.worker).unwrap_or_else(|| {
            hands.push(Hand { worker: w.worker.clone(), ..Hand::default() });
            hands.len() - 1
        });
        let hand = &mut hands[at];
        (hand.tasks, hand.failed, hand.chips) = (w.tasks, w.failed, w.chips);
        (hand.first_ms, hand.last_ms) = (w.first_ms, w.last_ms);
        hand.heard_ms = hand.heard_ms.max(w.last_ms);
    }
    hands.sort_by_cached_key(|hand| (hand.worker.parse::<u64>().unwrap_or(u64::MAX), hand.worker.clone()));
    hands
}

fn of_presence(present: &Present) -> Hand {
    let beat = &present.beat;
    let per_s = |n: u64| ratio(n.saturating_mul(1000), beat.at_ms.saturating_sub(beat.started_ms));
    let stages: Vec<String> =
        beat.in_flight.iter().filter(|(_, n)| **n > 0).map(|(stage, n)| format!("{stage} {n}")).collect();
    Hand {
        worker: beat.worker_id.clone(),
        presence: Some(present.presence),
        host: beat.host.clone(),
        heard_ms: present.heard_ms,
        in_flight: in_flight(beat),
        stages: stages.join(", "),
        chips_per_s: per_s(beat.chips),
        bytes_per_s: per_s(beat.bytes_fetched),
        cache_share: ratio(beat.cache_hits, beat.cache_hits.saturating_add(beat.cache_misses)),
        ..Hand::default()
    }
}

fn in_flight(beat: &Heartbeat) -> u64 {
    beat.in_flight.values().fold(0, |sum, n| sum.saturating_add(*n))
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^53
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::heartbeat::Activity;
    use crate::domain::result::TaskResult;
    use crate::domain::tally::Tally;

    #[test]
    fn words_and_results_of_a_worker_stand_on_one_line() {
        let mut tally = Tally::default();
        let result = r#"{"task_id":1,"worker_id":"9","bbox":[0,0,1,1],"chips_saved":5,"chips_per_class":{},
            "status":"success","finished_ms":5000}"#;
        tally.apply(&serde_json::from_str::<TaskResult>(result).unwrap(), 0);
        let beat = |name: &str, activity| Heartbeat {
            worker_id: name.into(),
            at_ms: 11_000,
            started_ms: 1_000,
            interval_ms: 5_000,
            activity,
            chips: 20,
            cache_hits: 3,
            cache_misses: 1,
            bytes_fetched: 5_000_000,
            in_flight: [("pixels".to_owned(), 2), ("writer".to_owned(), 0)].into(),
            ..Heartbeat::default()
        };
        tally.hear(beat("9", Activity::Working), 11_000);
        tally.hear(beat("10", Activity::Idle), 11_000);
        let hands = crew(&Progress::of(&tally, 12_000));
        let names: Vec<_> = hands.iter().map(|h| (h.worker.as_str(), h.presence, h.tasks, h.chips)).collect();
        assert_eq!(names, [("9", Some(Presence::Working), 1, 5), ("10", Some(Presence::Idle), 0, 0)]);
        let hand = &hands[0];
        assert_eq!((hand.chips_per_s, hand.bytes_per_s, hand.cache_share), (Some(2.0), Some(500_000.0), Some(0.75)));
        assert_eq!((hand.in_flight, hand.stages.as_str(), hand.heard_ms), (2, "pixels 2", 11_000));
    }
}
