//! How far a run is: counts derived from the [`Tally`], ready to be shown or served.
//!
//! Contract: pure and complete, one pass over the tasks; the same tally and time give the same progress.
//! Its JSON (serde) is the monitor's machine-readable form: field names are kept.
//! Units: chips, tasks, parcels are counts; `_ms` is milliseconds since 1970 UTC, `_s` seconds, percent 0 to
//! 100 and above when a class has more chips than its target.
//! Trap: rates follow the results' own times, so a monitor that starts late shows no burst.

use std::collections::BTreeMap;

use serde::Serialize;

use super::classes::ClassId;
use super::outcome::Outcome;
use super::plan_record::PlanState;
pub use super::rates::WINDOW_MS;
use super::rates::{Rates, Window, eta, per_second};
use super::result::Status;
use super::roster::Present;
use super::tally::Tally;

/// Most reasons that are listed.
pub const TOP_REASONS: usize = 8;
/// Most workers that are listed.
pub const MAX_WORKERS: usize = 256;

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassProgress {
    /// Mask value.
    pub class: ClassId,
    /// Short name; empty when no plan says it.
    pub name: String,
    /// `#rrggbb`; empty when no plan says it.
    pub colour: String,
    /// Parcels of the class in the plan.
    pub parcels: Option<u64>,
    /// Parcels that will be drawn.
    pub expected: Option<u64>,
    /// Chips written.
    pub chips: u64,
    /// Chips wanted.
    pub target: Option<u64>,
    /// `chips` of `target`.
    pub percent: Option<f64>,
    /// Over the last [`WINDOW_MS`].
    pub chips_per_s: f64,
    /// Until the target, at the current rate; 0 when it is reached, `None` when it is not in sight.
    pub eta_s: Option<u64>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerProgress {
    /// `worker_id` of its results.
    pub worker: String,
    /// Tasks whose kept result is this worker's.
    pub tasks: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Chips it wrote.
    pub chips: u64,
    /// Its first result.
    pub first_ms: u64,
    /// Its last result.
    pub last_ms: u64,
}

/// A reason and how often it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// In words; numbers are replaced by `#`.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The run; `None`: no plan is known and all results count.
    pub run_id: Option<String>,
    /// How far the master is.
    pub plan: Option<PlanState>,
    /// Tasks of the plan.
    pub tasks_planned: Option<u64>,
    /// Tasks with a result.
    pub tasks_done: u64,
    /// Of these, successes.
    pub tasks_succeeded: u64,
    /// Of these, with nothing to do.
    pub tasks_skipped: u64,
    /// Of these, failures.
    pub tasks_failed: u64,
    /// Tasks by status, without zeros.
    pub statuses: BTreeMap<&'static str, u64>,
    /// Every planned task has a result, and the plan is published.
    pub complete: bool,
    /// Chips written.
    pub chips: u64,
    /// Sum of the classes' targets.
    pub chips_target: Option<u64>,
    /// Chips that count towards targets (at most the target of each class), of the sum of targets.
    pub percent: Option<f64>,
    /// By class.
    pub classes: Vec<ClassProgress>,
    /// Reasons of failed tasks, most frequent first; at most [`TOP_REASONS`].
    pub failures: Vec<Reason>,
    /// Reasons why drawn parcels gave no chip; at most [`TOP_REASONS`].
    pub rejected: Vec<Reason>,
    /// By name; at most [`MAX_WORKERS`], those seen last.
    pub workers: Vec<WorkerProgress>,
    /// Workers that say or said that they are there, of whatever run, by name.
    pub presence: Vec<Present>,
    /// First result.
    pub first_ms: Option<u64>,
    /// Last result.
    pub last_ms: Option<u64>,
    /// Over the last [`WINDOW_MS`].
    pub chips_per_s: f64,
    /// Over the last [`WINDOW_MS`].
    pub tasks_per_s: f64,
    /// Over the whole run.
    pub mean_chips_per_s: f64,
    /// Until the last task, at the current rate.
    pub eta_s: Option<u64>,
    /// Results the monitor had no room for.
    pub results_refused: u64,
}

impl Progress {
    /// Counts what `tally` shows at `now_ms`.
    pub fn of(tally: &Tally, now_ms: u64) -> Self {
        let shown: Vec<&Outcome> = tally.shown().into_iter().map(|(_, kept)| &**kept).collect();
        let plan = tally.shown_plan();
        let statuses = by_status(&shown);
        let sum = |which: fn(Status) -> bool| Status::ALL.into_iter().filter(|s| which(*s)).map(|s| statuses[&s]).sum();
        let done = count(shown.len());
        let tasks_planned = plan.map(|p| p.tasks);
        let rates = Rates::of(&shown, now_ms);
        let classes = by_class(tally, &shown, rates.since);
        let left = tasks_planned.map(|tasks| tasks.saturating_sub(done));
        Self {
            run_id: tally.run().map(str::to_owned),
            plan: plan.map(|p| p.state),
            tasks_planned,
            tasks_done: done,
            tasks_succeeded: statuses[&Status::Success],
            tasks_skipped: sum(Status::is_skip),
            tasks_failed: sum(Status::is_failure),
            complete: left == Some(0) && plan.is_some_and(|p| p.state == PlanState::Published),
            chips: shown.iter().fold(0, |n, kept| n.saturating_add(kept.chips)),
            chips_target: total_target(&classes),
            percent: total_percent(&classes),
            classes,
            failures: top(shown.iter().filter_map(|k| k.kind.as_deref()).map(|why| (why, 1))),
            rejected: top(shown.iter().flat_map(|k| &k.rejected).map(|(why, n)| (&**why, *n))),
            workers: by_worker(&shown),
            presence: tally.present(now_ms),
            first_ms: rates.first_ms,
            last_ms: rates.last_ms,
            chips_per_s: rates.chips,
            tasks_per_s: rates.tasks,
            mean_chips_per_s: rates.mean_chips,
            eta_s: left.and_then(|left| eta(left, rates.tasks)),
            statuses: statuses.into_iter().filter(|(_, n)| *n > 0).map(|(s, n)| (s.as_str(), n)).collect(),
            results_refused: tally.refused(),
        }
    }
}

fn by_status(shown: &[&Outcome]) -> BTreeMap<Status, u64> {
    let mut counts: BTreeMap<_, _> = Status::ALL.into_iter().map(|s| (s, 0)).collect();
    for kept in shown {
        *counts.entry(kept.status).or_default() += 1;
    }
    counts
}

fn by_class(tally: &Tally, shown: &[&Outcome], window: Window) -> Vec<ClassProgress> {
    let (mut chips, mut recent): (BTreeMap<ClassId, u64>, BTreeMap<ClassId, u64>) = Default::default();
    for kept in shown {
        for (class, n) in &kept.per_class {
            let known = chips.entry(*class).or_default();
            *known = known.saturating_add(*n);
            if window.holds(kept.when_ms) {
                let known = recent.entry(*class).or_default();
                *known = known.saturating_add(*n);
            }
        }
    }
    let targets = tally.shown_targets();
    let plan = tally.shown_plan();
    let planned = plan.into_iter().flat_map(|p| p.classes.keys());
    for class in targets.keys().chain(planned) {
        chips.entry(*class).or_default();
    }
    let line = |(class, chips): (ClassId, u64)| {
        let planned = plan.and_then(|p| p.classes.get(&class));
        let target = targets.get(&class).copied();
        let chips_per_s = per_second(recent.get(&class).copied().unwrap_or(0), window.span_ms);
        ClassProgress {
            class,
            name: planned.map(|p| p.name.clone()).unwrap_or_default(),
            colour: planned.map(|p| p.colour.clone()).unwrap_or_default(),
            parcels: planned.map(|p| p.parcels),
            expected: planned.map(|p| p.expected),
            chips,
            target,
            percent: target.and_then(|target| percent(chips, target)),
            chips_per_s,
            eta_s: target.and_then(|target| eta(target.saturating_sub(chips), chips_per_s)),
        }
    };
    chips.into_iter().map(line).collect()
}

fn total_target(classes: &[ClassProgress]) -> Option<u64> {
    classes.iter().filter_map(|c| c.target).reduce(u64::saturating_add)
}

fn total_percent(classes: &[ClassProgress]) -> Option<f64> {
    let useful = classes.iter().filter_map(|c| Some(c.chips.min(c.target?))).fold(0, u64::saturating_add);
    percent(useful, total_target(classes)?)
}

fn by_worker(shown: &[&Outcome]) -> Vec<WorkerProgress> {
    let mut workers: BTreeMap<&str, WorkerProgress> = BTreeMap::new();
    for kept in shown {
        let line = workers.entry(&kept.worker).or_insert_with(|| WorkerProgress {
            worker: kept.worker.to_string(),
            tasks: 0,
            failed: 0,
            chips: 0,
            first_ms: kept.when_ms,
            last_ms: kept.when_ms,
        });
        line.tasks += 1;
        line.failed += u64::from(kept.status.is_failure());
        line.chips = line.chips.saturating_add(kept.chips);
        line.first_ms = line.first_ms.min(kept.when_ms);
        line.last_ms = line.last_ms.max(kept.when_ms);
    }
    let mut lines: Vec<_> = workers.into_values().collect();
    if lines.len() > MAX_WORKERS {
        lines.sort_by(|a, b| b.last_ms.cmp(&a.last_ms).then_with(|| a.worker.cmp(&b.worker)));
        lines.truncate(MAX_WORKERS);
    }
    // `10` after `9`, as people count.
    lines.sort_by_cached_key(|w| (w.worker.parse::<u64>().unwrap_or(u64::MAX), w.worker.clone()));
    lines
}

fn top<'a>(reasons: impl Iterator<Item = (&'a str, u64)>) -> Vec<Reason> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (why, n) in reasons {
        let known = counts.entry(why).or_default();
        *known = known.saturating_add(n);
    }
    let mut list: Vec<_> = counts.into_iter().map(|(why, count)| Reason { reason: why.to_owned(), count }).collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    list.truncate(TOP_REASONS);
    list
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^53
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::plan_record::{PLAN_SCHEMA, PlanRecord};
    use crate::domain::result::TaskResult;

    fn at(task: u64, chips: u64, finished_ms: u64) -> TaskResult {
        let text = format!(
            r#"{{"task_id":{task},"worker_id":"w","bbox":[0,0,1,1],"chips_saved":{chips},
                "chips_per_class":{{"2":{chips}}},"status":"success","finished_ms":{finished_ms},
                "target_samples":{{"2":40,"3":10}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn plan(tasks: u64, state: PlanState) -> PlanRecord {
        PlanRecord {
            schema: PLAN_SCHEMA,
            run_id: "r".into(),
            state,
            tasks,
            parcels: 0,
            classes: BTreeMap::new(),
            seed: 0,
            created_ms: 1,
        }
    }

    #[test]
    fn rates_follow_the_window_and_the_whole_run() {
        let mut tally = Tally::default();
        tally.plan(plan(14, PlanState::Published));
        // A slow hour ago, then 10 chips every 30 s.
        tally.apply(&at(1, 100, 1_000), 0);
        for n in 0..10 {
            tally.apply(&at(2 + n, 10, 3_600_000 + 30_000 * n), 0);
        }
        let now = 3_600_000 + 270_000;
        let progress = Progress::of(&tally, now);
        assert!((progress.chips_per_s - 100.0 / 300.0).abs() < 1e-9, "{}", progress.chips_per_s);
        assert!((progress.mean_chips_per_s - 200.0 / 3_869.0).abs() < 1e-9, "{}", progress.mean_chips_per_s);
        assert_eq!(progress.eta_s, Some(90), "3 tasks at one per 30 s");
        let class = &progress.classes[0];
        assert!((class.chips_per_s - 100.0 / 300.0).abs() < 1e-9, "{class:?}");
        let later = Progress::of(&tally, now + WINDOW_MS);
        assert_eq!((later.chips_per_s, later.eta_s), (0.0, None), "nothing for a whole window");
    }

    #[test]
    fn a_run_is_complete_when_it_is_published_and_every_task_has_a_result() {
        let mut tally = Tally::default();
        tally.plan(plan(1, PlanState::Publishing));
        tally.apply(&at(1, 1, 5), 0);
        assert!(!Progress::of(&tally, 9).complete);
        tally.plan(plan(1, PlanState::Published));
        let progress = Progress::of(&tally, 9);
        assert_eq!((progress.complete, progress.eta_s), (true, Some(0)));
    }

    #[test]
    fn targets_come_from_the_results_when_there_is_no_plan() {
        let mut tally = Tally::default();
        tally.apply(&at(1, 60, 5), 0);
        let progress = Progress::of(&tally, 9);
        let lines: Vec<_> = progress.classes.iter().map(|c| (c.class.get(), c.chips, c.target, c.percent)).collect();
        assert_eq!(lines, [(2, 60, Some(40), Some(150.0)), (3, 0, Some(10), Some(0.0))]);
        let to_go: Vec<_> = progress.classes.iter().map(|c| c.eta_s).collect();
        assert_eq!(to_go, [Some(0), None], "class 2 is filled, and nothing of class 3 comes");
        assert_eq!((progress.chips_target, progress.percent), (Some(50), Some(80.0)));
        assert_eq!((progress.tasks_planned, progress.eta_s, progress.complete), (None, None, false));
    }
}
