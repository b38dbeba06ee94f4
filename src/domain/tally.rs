//! The monitor's memory: the best result of every task, and the plans.
//!
//! Contract: a task counts once, whatever is delivered how often and in which order. Of two results of one
//! task the better is kept: success over skip over failure, then more chips, then the earlier; so applying
//! results is a join, and every count that [`super::progress`] derives from it is the same for every order.
//! Bounded by [`MAX_RESULTS`] tasks, about 350 bytes each (measured with six classes per task); chips cost nothing.
//! Units: times are milliseconds since 1970 UTC.
//! Trap: the original's results carry no run; they are taken for the run that is shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::classes::ClassId;
use super::heartbeat::Heartbeat;
use super::plan_record::PlanRecord;
use super::result::{Status, TaskResult};
use super::roster::{Present, Roster};

/// Most tasks that are remembered, over all runs.
pub const MAX_RESULTS: usize = 250_000;
/// Most plans that are remembered; the oldest go first.
pub const MAX_PLANS: usize = 64;
/// Longest name and reason that is kept, characters.
const MAX_NAME: usize = 64;
const MAX_REASON: usize = 160;
/// Texts that are kept without looking whether they are still needed.
const MIN_NAMES: usize = 1024;
/// Most reasons of rejected chips that are kept per task.
const MAX_REJECTED: usize = 16;

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The first of its task.
    New,
    /// Better than the one known.
    Better,
    /// No better than the one known.
    Known,
    /// There is no room for more tasks.
    Refused,
}

/// What is kept of a task's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) status: Status,
    pub(super) saved: u64,
    pub(super) when_ms: u64,
    pub(super) worker: Arc<str>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) chips: Box<[(ClassId, u64)]>,
    pub(super) rejected: Box<[(Arc<str>, u64)]>,
}

impl Kept {
    /// A total order: the greater is the better result of the same task.
    fn merit(&self) -> impl Ord + '_ {
        let rank = if self.status == Status::Success { 2 } else { u8::from(self.status.is_skip()) };
        let exact = (&self.worker, self.status, &self.reason, &self.chips, &self.rejected);
        (rank, self.saved, Reverse(self.when_ms), exact)
    }
}

type Run = Option<Arc<str>>;

/// All that was heard of plans and results.
#[derive(Debug, Default)]
pub struct Tally {
    /// The run to show, when the configuration names one.
    pinned: Option<String>,
    plans: BTreeMap<String, PlanRecord>,
    results: HashMap<(Run, u64), Kept>,
    /// Targets as the results repeat them, for runs without a plan record.
    targets: BTreeMap<Run, BTreeMap<ClassId, u64>>,
    /// One copy of each text that is kept.
    names: HashSet<Arc<str>>,
    /// Size at which texts nobody keeps any more are dropped.
    names_full: usize,
    refused: u64,
    /// The workers' own words.
    roster: Roster,
}

impl Tally {
    /// A tally of the run `pinned`, or of the newest plan when `None`.
    pub fn new(pinned: Option<&str>) -> Self {
        Self { pinned: pinned.map(str::to_owned), ..Self::default() }
    }

    /// Takes a plan; `published` is never undone by a late `publishing` of the same plan.
    pub fn plan(&mut self, plan: PlanRecord) {
        let newer = |known: &PlanRecord| (plan.created_ms, plan.state) >= (known.created_ms, known.state);
        if self.plans.get(&plan.run_id).is_none_or(newer) {
            self.plans.insert(plan.run_id.clone(), plan);
        }
        while self.plans.len() > MAX_PLANS {
            let oldest = self.plans.values().min_by_key(|p| (p.created_ms, p.run_id.clone())).map(|p| p.run_id.clone());
            oldest.and_then(|run| self.plans.remove(&run));
        }
    }

    /// Takes a result that the broker stamped, or this node saw, at `seen_ms`.
    pub fn apply(&mut self, result: &TaskResult, seen_ms: u64) -> Applied {
        let run = result.run_id.as_deref().map(|run| self.name(run, MAX_NAME));
        let key = (run.clone(), result.task_id);
        if !self.results.contains_key(&key) && !self.has_room(&run) {
            self.refused += 1;
            return Applied::Refused;
        }
        self.targets_of(run, &result.target_samples);
        let kept = self.keep(result, seen_ms);
        match self.results.get_mut(&key) {
            None => {
                self.results.insert(key, kept);
                Applied::New
            }
            Some(known) if kept.merit() > known.merit() => {
                *known = kept;
                Applied::Better
            }
            Some(_) => Applied::Known,
        }
    }

    /// The run that is shown: the configured one, else the newest plan's; `None`: everything there is.
    pub fn run(&self) -> Option<&str> {
        let newest = || self.plans.values().max_by_key(|p| (p.created_ms, &p.run_id)).map(|p| p.run_id.as_str());
        self.pinned.as_deref().or_else(newest)
    }

    /// The plan of the run that is shown.
    pub fn shown_plan(&self) -> Option<&PlanRecord> {
        self.run().and_then(|run| self.plans.get(run))
    }

    /// Takes a worker's heartbeat that the broker stamped at `stamp_ms`.
    pub fn hear(&mut self, beat: Heartbeat, stamp_ms: u64) {
        self.roster.hear(beat, stamp_ms);
    }

    /// The workers that say or said that they are there.
    pub fn present(&self, now_ms: u64) -> Vec<Present> {
        self.roster.present(now_ms)
    }

    /// Results for which there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The best result of every task of the run that is shown.
    pub(super) fn shown(&self) -> Vec<&Kept> {
        let Some(run) = self.run() else { return self.results.values().collect() };
        let planned = self.shown_plan().map(|p| p.tasks);
        let mut best: HashMap<u64, &Kept> = HashMap::new();
        for ((of, task), kept) in &self.results {
            let ours = of.as_deref().is_none_or(|of| of == run);
            let planned = planned.is_none_or(|tasks| (1..=tasks).contains(task));
            if ours && planned && best.get(task).is_none_or(|known| kept.merit() > known.merit()) {
                best.insert(*task, kept);
            }
        }
        best.into_values().collect()
    }

    /// Chips wanted per class: the plan's, else what the results repeat.
    pub(super) fn shown_targets(&self) -> BTreeMap<ClassId, u64> {
        if let Some(plan) = self.shown_plan() {
            return plan.classes.iter().filter_map(|(class, p)| Some((*class, p.target?))).collect();
        }
        let run = self.run();
        let mut wanted = BTreeMap::new();
        for (of, targets) in &self.targets {
            if run.is_none() || of.is_none() || of.as_deref() == run {
                for (class, target) in targets {
                    let known: &mut u64 = wanted.entry(*class).or_default();
                    *known = (*known).max(*target);
                }
            }
        }
        wanted
    }

    fn targets_of(&mut self, run: Run, targets: &BTreeMap<ClassId, u64>) {
        if targets.is_empty() || (self.targets.len() >= MAX_PLANS && !self.targets.contains_key(&run)) {
            return;
        }
        let wanted = self.targets.entry(run).or_default();
        for (class, target) in targets {
            let known = wanted.entry(*class).or_default();
            *known = (*known).max(*target);
        }
    }

    /// Room for one more task; the run that is shown may push out the others.
    fn has_room(&mut self, run: &Run) -> bool {
        if self.results.len() < MAX_RESULTS {
            return true;
        }
        let Some(shown) = self.run().map(str::to_owned) else { return false };
        if run.as_deref().is_some_and(|run| run != shown) {
            return false;
        }
        self.results.retain(|(of, _), _| of.as_deref().is_none_or(|of| of == shown));
        self.targets.retain(|of, _| of.as_deref().is_none_or(|of| of == shown));
        self.results.len() < MAX_RESULTS
    }

    fn keep(&mut self, result: &TaskResult, seen_ms: u64) -> Kept {
        let rejected = result.chips_rejected.iter().take(MAX_REJECTED);
        let rejected = rejected.map(|(why, n)| (self.name(why, MAX_NAME), *n)).collect();
        let reason = result.error.as_deref().filter(|_| result.status.is_failure());
        Kept {
            status: result.status,
            saved: result.chips_saved,
            when_ms: if result.finished_ms > 0 { result.finished_ms } else { seen_ms },
            worker: self.name(&result.worker_id, MAX_NAME),
            reason: reason.map(|text| self.name(&same_kind(text), MAX_REASON)),
            chips: result.chips_per_class.iter().filter(|(_, n)| **n > 0).map(|(class, n)| (*class, *n)).collect(),
            rejected,
        }
    }

    /// One copy of each text, shortened, and without characters that could steer a terminal.
    fn name(&mut self, text: &str, max: usize) -> Arc<str> {
        let clean = |c: char| if c.is_control() { '?' } else { c };
        let text: String = text.chars().take(max).map(clean).collect();
        if let Some(known) = self.names.get(text.as_str()) {
            return Arc::clone(known);
        }
        if self.names.len() >= self.names_full.max(MIN_NAMES) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names_full = 2 * self.names.len();
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// A reason with its numbers taken out, so that failures of one kind count together.
fn same_kind(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len().min(4 * MAX_REASON));
    for c in reason.chars().take(4 * MAX_REASON) {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::plan_record::{PLAN_SCHEMA, PlanState};
    use crate::domain::progress::Progress;

    fn class(n: u8) -> ClassId {
        ClassId::try_from(n).unwrap()
    }

    fn result(run: Option<&str>, task: u64, status: Status, chips: u64) -> TaskResult {
        let text = format!(
            r#"{{"task_id":{task},"worker_id":"w1","bbox":[0,0,1,1],"chips_saved":{chips},
                "chips_per_class":{{"1":{chips}}},"status":"{}"}}"#,
            status.as_str()
        );
        TaskResult { run_id: run.map(str::to_owned), ..serde_json::from_str(&text).unwrap() }
    }

    fn plan(run: &str, created_ms: u64, tasks: u64) -> PlanRecord {
        PlanRecord {
            schema: PLAN_SCHEMA,
            run_id: run.into(),
            state: PlanState::Published,
            tasks,
            parcels: 0,
            classes: BTreeMap::new(),
            seed: 0,
            created_ms,
        }
    }

    #[test]
    fn a_success_replaces_a_failure_and_not_the_other_way() {
        let mut tally = Tally::default();
        let failed = TaskResult { error: Some("scenes: 503".into()), ..result(None, 1, Status::Failed, 0) };
        assert_eq!(tally.apply(&failed, 1), Applied::New);
        assert_eq!(Progress::of(&tally, 9).failures[0].reason, "scenes: #");
        assert_eq!(tally.apply(&result(None, 1, Status::Success, 5), 2), Applied::Better);
        assert_eq!(tally.apply(&failed, 3), Applied::Known);
        assert_eq!(tally.apply(&result(None, 1, Status::Success, 5), 4), Applied::Known);
        let progress = Progress::of(&tally, 9);
        assert_eq!((progress.tasks_done, progress.tasks_succeeded, progress.chips), (1, 1, 5));
        assert!(progress.failures.is_empty());
    }

    #[test]
    fn the_plan_decides_what_counts() {
        let mut tally = Tally::default();
        for (run, task) in [(Some("old"), 1), (Some("new"), 1), (None, 2), (Some("new"), 2), (None, 77)] {
            tally.apply(&result(run, task, Status::Success, 3), 1);
        }
        assert_eq!(Progress::of(&tally, 9).tasks_done, 5, "no plan: everything counts");
        tally.plan(plan("old", 1, 2));
        tally.plan(plan("new", 2, 2));
        let progress = Progress::of(&tally, 9);
        assert_eq!((progress.run_id.as_deref(), progress.tasks_done, progress.chips), (Some("new"), 2, 6));
        assert!(progress.complete);
        let mut pinned = Tally::new(Some("old"));
        pinned.apply(&result(Some("old"), 1, Status::Success, 3), 1);
        pinned.plan(plan("new", 2, 2));
        pinned.plan(plan("old", 1, 2));
        let progress = Progress::of(&pinned, 9);
        assert_eq!((progress.run_id.as_deref(), progress.tasks_done, progress.complete), (Some("old"), 1, false));
    }

    #[test]
    fn published_is_not_undone_and_a_restarted_master_is_believed() {
        let mut tally = Tally::default();
        tally.plan(plan("r", 5, 2));
        tally.plan(PlanRecord { state: PlanState::Publishing, ..plan("r", 5, 2) });
        assert_eq!(tally.shown_plan().unwrap().state, PlanState::Published);
        tally.plan(PlanRecord { state: PlanState::Publishing, ..plan("r", 6, 2) });
        assert_eq!(tally.shown_plan().unwrap().state, PlanState::Publishing);
        (0..200).for_each(|n| tally.plan(plan(&format!("r{n}"), 10 + n, 2)));
        assert_eq!((tally.plans.len(), tally.run()), (MAX_PLANS, Some("r199")));
    }

    #[test]
    fn texts_from_outside_are_cleaned_and_bounded() {
        let mut tally = Tally::default();
        for n in 0..5_000_u64 {
            let error = Some(format!("{}\u{1b}[2J", "x".repeat((n % 400) as usize)));
            tally.apply(&TaskResult { error, worker_id: format!("w{n}"), ..result(None, 1, Status::Failed, 0) }, n);
        }
        assert!(tally.names.len() <= 2 * MIN_NAMES, "{}", tally.names.len());
        assert!(tally.names.iter().all(|name| name.chars().count() <= MAX_REASON && !name.contains('\u{1b}')));
    }

    #[test]
    fn a_large_run_fits() {
        let mut tally = Tally::default();
        for task in 1..=20_000 {
            tally.apply(&result(Some("r"), task, Status::Success, 50), task);
        }
        tally.plan(plan("r", 1, 20_000));
        let progress = Progress::of(&tally, 20_000);
        assert_eq!((progress.chips, progress.complete), (1_000_000, true));
    }

    fn results() -> impl Strategy<Value = Vec<(TaskResult, u64)>> {
        let one = (0..3_usize, 1..6_u64, 0..Status::ALL.len(), 0..4_u64, 1..50_u64, 0..3_u8).prop_map(
            |(run, task, status, chips, when, worker)| {
                let mut r = result([None, Some("a"), Some("b")][run], task, Status::ALL[status], chips);
                r.worker_id = format!("w{worker}");
                r.finished_ms = if worker == 0 { 0 } else { when };
                r.error = r.status.is_failure().then(|| format!("reason {chips}"));
                r.target_samples = BTreeMap::from([(class(2), chips)]);
                (r, when)
            },
        );
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        /// Neither order nor repetition changes anything that is shown, whenever the plan arrives.
        #[test]
        fn order_and_duplicates_do_not_matter(
            list in results(), shuffled in any::<u64>(), plan_at in 0..40_usize, planned in any::<bool>(),
        ) {
            let mut other = list.clone();
            other.extend(list.iter().take(7).cloned());
            other.sort_by_key(|(r, when)| {
                let key = format!("{shuffled}{}{}{when}{:?}", r.key(), r.worker_id, r.status);
                crate::domain::task::fnv1a(key.as_bytes())
            });
            let show = |list: &[(TaskResult, u64)], plan_at: usize| {
                let mut tally = Tally::default();
                for (i, (result, seen)) in list.iter().enumerate() {
                    if planned && i == plan_at {
                        tally.plan(plan("a", 1, 4));
                    }
                    tally.apply(result, *seen);
                }
                if planned {
                    tally.plan(plan("a", 1, 4));
                }
                Progress::of(&tally, 100)
            };
            prop_assert_eq!(show(&list, 0), show(&other, plan_at));
        }
    }
}
