//! Everybody who works or worked on a run: results and heartbeats side by side.
//!
//! Contract: pure; one entry per worker that has a result or says that it is there, by name as people count.
//! Trap: tasks and chips are those of the results, so they belong to the run that is shown; a heartbeat belongs
//! to the worker, whatever it works on.

use std::collections::BTreeMap;

use super::progress::Progress;
use super::roster::{Presence, Present};

/// A worker, as far as anything is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    /// Its name.
    pub worker: String,
    /// What it says it is at; `None`: it never said anything.
    pub presence: Option<Presence>,
    /// Tasks whose kept result is this worker's.
    pub tasks: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Chips it wrote.
    pub chips: u64,
    /// Its last word or result, milliseconds since 1970 UTC.
    pub last_ms: u64,
}

/// The workers of a run, those of the results first where names are equal.
pub fn crew(progress: &Progress) -> Vec<Hand> {
    let mut said: BTreeMap<&str, &Present> =
        progress.presence.iter().map(|present| (present.beat.worker_id.as_str(), present)).collect();
    let reported = progress.workers.iter().map(|w| {
        let present = said.remove(w.worker.as_str());
        Hand {
            worker: w.worker.clone(),
            presence: present.map(|p| p.presence),
            tasks: w.tasks,
            failed: w.failed,
            chips: w.chips,
            last_ms: present.map_or(0, |p| p.heard_ms).max(w.last_ms),
        }
    });
    let mut hands: Vec<Hand> = reported.collect();
    // Who has no result of this run and has gone is none of its business.
    let idle = said.into_values().filter(|p| p.presence != Presence::Gone).map(|p| Hand {
        worker: p.beat.worker_id.clone(),
        presence: Some(p.presence),
        tasks: 0,
        failed: 0,
        chips: 0,
        last_ms: p.heard_ms,
    });
    hands.extend(idle);
    hands.sort_by_cached_key(|hand| (hand.worker.parse::<u64>().unwrap_or(u64::MAX), hand.worker.clone()));
    hands
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::heartbeat::{Activity, Heartbeat};
    use crate::domain::tally::Tally;

    #[test]
    fn results_and_heartbeats_meet_by_name() {
        let mut tally = Tally::default();
        for (task, worker) in [(1, "10"), (2, "9"), (3, "10")] {
            let text = format!(
                r#"{{"task_id":{task},"worker_id":"{worker}","bbox":[0,0,1,1],"chips_saved":2,
                    "chips_per_class":{{"1":2}},"status":"success"}}"#
            );
            tally.apply(&serde_json::from_str(&text).unwrap(), 1_000);
        }
        for (worker, activity, at_ms) in
            [("10", Activity::Working, 9_000), ("new", Activity::Idle, 1_000), ("old", Activity::Gone, 1_000)]
        {
            let beat = Heartbeat { worker_id: worker.into(), activity, interval_ms: 1_000, ..Heartbeat::default() };
            tally.hear(beat, at_ms);
        }
        let hands = crew(&Progress::of(&tally, 10_000));
        let seen: Vec<_> = hands.iter().map(|h| (&*h.worker, h.presence, h.tasks, h.chips, h.last_ms)).collect();
        let (working, lost) = (Some(Presence::Working), Some(Presence::Lost));
        assert_eq!(seen, [("9", None, 1, 2, 1_000), ("10", working, 2, 4, 9_000), ("new", lost, 0, 0, 1_000)]);
    }
}
