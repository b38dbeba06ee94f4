//! The monitor's memory: the best result of every task, the cells of tasks that wait, and the plans.
//!
//! Contract: a task counts once, whatever is delivered how often and in which order. Of two results of one
//! task the better is kept ([`Outcome::merit`]); so applying results is a join, and every count that
//! [`super::progress`] derives from it is the same for every order. Bounded by [`MAX_RESULTS`] tasks, about 400
//! bytes each, and [`MAX_DETAILS`] reasons in full; chips cost nothing.
//! Units: times are milliseconds since 1970 UTC.
//! Trap: the original's results carry no run; they are taken for the run that is shown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::cell::Cell;
use super::classes::ClassId;
use super::heartbeat::Heartbeat;
use super::outcome::{Outcome, possible};
use super::plan_record::PlanRecord;
use super::result::TaskResult;
use super::roster::{Present, Roster};
use super::task::Task;

/// Most tasks that are remembered, over all runs.
pub const MAX_RESULTS: usize = 250_000;
/// Most plans that are remembered; the oldest go first.
pub const MAX_PLANS: usize = 64;
/// Longest name and reason that is kept, characters.
const MAX_NAME: usize = 64;
const MAX_REASON: usize = 160;
/// Longest reason that is kept in full, characters, and most of them; failures beyond keep their kind only.
const MAX_DETAIL: usize = 1000;
/// Most reasons that are kept in full.
pub const MAX_DETAILS: usize = 10_000;
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

type Run = Option<Arc<str>>;

/// All that was heard of plans and results.
#[derive(Debug, Default)]
pub struct Tally {
    /// The run to show, when the configuration names one.
    pinned: Option<String>,
    plans: BTreeMap<String, PlanRecord>,
    results: HashMap<(Run, u64), Arc<Outcome>>,
    /// Places of tasks that were seen and had no result then.
    waiting: HashMap<(Run, u64), [f64; 4]>,
    /// Reasons kept in full.
    details: usize,
    version: u64,
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
            self.version += 1;
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
        let mut kept = self.keep(result, seen_ms);
        let known = self.results.get(&key);
        let applied = match known {
            None => Applied::New,
            Some(known) if kept.merit() > known.merit() => Applied::Better,
            Some(_) => return Applied::Known,
        };
        self.details -= usize::from(known.is_some_and(|known| known.reason.is_some()));
        if let Some(reason) = result.error.as_deref().filter(|_| result.status.is_failure())
            && self.details < MAX_DETAILS
        {
            self.details += 1;
            kept.reason = Some(clean(reason, MAX_DETAIL).into());
        }
        self.waiting.remove(&key);
        self.results.insert(key, Arc::new(kept));
        self.version += 1;
        applied
    }

    /// Takes a task that was published: the cell of a result that is still to come.
    pub fn task(&mut self, task: &Task) {
        let run = task.run_id.as_deref().map(|run| self.name(run, MAX_NAME));
        let key = (run.clone(), task.task_id);
        let known = self.results.contains_key(&key) || self.waiting.contains_key(&key);
        if let Some(bbox) = possible(task.bbox).filter(|_| !known && self.has_room(&run)) {
            self.waiting.insert(key, bbox);
            self.version += 1;
        }
    }

    /// Changes whenever anything that is shown may have changed.
    pub fn version(&self) -> u64 {
        self.version
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
    pub(super) fn shown(&self) -> Vec<(u64, &Arc<Outcome>)> {
        if self.run().is_none() {
            return self.results.iter().map(|((_, task), kept)| (*task, kept)).collect();
        }
        let mut best: HashMap<u64, &Arc<Outcome>> = HashMap::new();
        for ((of, task), kept) in &self.results {
            if self.is_shown(of, *task) && best.get(task).is_none_or(|known| kept.merit() > known.merit()) {
                best.insert(*task, kept);
            }
        }
        best.into_iter().collect()
    }

    /// Every task of the run that is shown, with or without a result, ascending. Without a plan, tasks of several runs
    /// may have one number; the better result is the cell's then.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let mut cells: HashMap<u64, Cell> = HashMap::with_capacity(self.results.len() + self.waiting.len());
        for (task, kept) in self.shown() {
            let known = cells.get(&task).and_then(|cell| cell.outcome.as_ref());
            if known.is_none_or(|known| kept.merit() > known.merit()) {
                cells.insert(task, Cell { task, bbox: kept.bbox, outcome: Some(Arc::clone(kept)) });
            }
        }
        for ((of, task), bbox) in &self.waiting {
            if self.is_shown(of, *task) {
                cells.entry(*task).or_insert(Cell { task: *task, bbox: Some(*bbox), outcome: None });
            }
        }
        let mut cells: Vec<Cell> = cells.into_values().collect();
        cells.sort_unstable_by_key(|cell| cell.task);
        cells
    }

    /// Whether a task belongs to the run that is shown.
    fn is_shown(&self, of: &Run, task: u64) -> bool {
        let Some(run) = self.run() else { return true };
        let planned = self.shown_plan().map(|p| p.tasks);
        of.as_deref().is_none_or(|of| of == run) && planned.is_none_or(|tasks| (1..=tasks).contains(&task))
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
        if self.results.len() + self.waiting.len() < MAX_RESULTS {
            return true;
        }
        let Some(shown) = self.run().map(str::to_owned) else { return false };
        if run.as_deref().is_some_and(|run| run != shown) {
            return false;
        }
        let stays = |of: &Run| of.as_deref().is_none_or(|of| of == shown);
        self.results.retain(|(of, _), _| stays(of));
        self.waiting.retain(|(of, _), _| stays(of));
        self.targets.retain(|of, _| stays(of));
        self.details = self.results.values().filter(|kept| kept.reason.is_some()).count();
        self.version += 1;
        self.results.len() + self.waiting.len() < MAX_RESULTS
    }

    fn keep(&mut self, result: &TaskResult, seen_ms: u64) -> Outcome {
        let rejected = result.chips_rejected.iter().take(MAX_REJECTED);
        let rejected = rejected.map(|(why, n)| (self.name(why, MAX_NAME), *n)).collect();
        let reason = result.error.as_deref().filter(|_| result.status.is_failure());
        Outcome {
            status: result.status,
            chips: result.chips_saved,
            when_ms: if result.finished_ms > 0 { result.finished_ms } else { seen_ms },
            elapsed_ms: result.elapsed_ms,
            worker: self.name(&result.worker_id, MAX_NAME),
            bbox: possible(result.bbox),
            kind: reason.map(|text| self.name(&same_kind(text), MAX_REASON)),
            reason: None,
            per_class: result.chips_per_class.iter().filter(|(_, n)| **n > 0).map(|(class, n)| (*class, *n)).collect(),
            rejected,
        }
    }

    /// One copy of each text, shortened, and without characters that could steer a terminal.
    fn name(&mut self, text: &str, max: usize) -> Arc<str> {
        let text = clean(text, max);
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

/// The first `max` characters, without those that could steer a terminal or turn the direction of what follows.
fn clean(text: &str, max: usize) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(max).map(|c| if steers(c) { '?' } else { c }).collect()
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
#[path = "tally_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
