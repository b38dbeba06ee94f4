//! Everything the monitor can show of one moment: what the terminal, the page and the JSON are drawn from.
//!
//! Contract: a function of the [`Tally`] and the time; whoever holds a view asks nobody anything more. `cells` are
//! ascending by task and shared between views while nothing has changed. Bounds: [`NEWEST`], [`LATEST`], and
//! [`super::tally::MAX_RESULTS`] cells.

use std::cmp::Reverse;
use std::sync::Arc;

use super::cell::{Cell, CellState};
use super::progress::Progress;
use super::tally::Tally;
use super::throughput::Throughput;

/// Most tasks that are listed as the newest with chips.
pub const NEWEST: usize = 24;
/// Most failures that are listed as the latest.
pub const LATEST: usize = 50;

/// One moment of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// When this was, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// [`Tally::version`] it was made from.
    pub version: u64,
    /// The counts.
    pub progress: Progress,
    /// Chips over time.
    pub throughput: Arc<Throughput>,
    /// Every known task of the run, ascending.
    pub cells: Arc<[Cell]>,
    /// Places in `cells` of the tasks that wrote chips last, newest first.
    pub newest: Arc<[usize]>,
    /// Places in `cells` of the failures, newest first.
    pub failed: Arc<[usize]>,
}

impl View {
    /// What `tally` shows at `now_ms`; `last` is reused as far as nothing has changed since.
    pub fn of(tally: &Tally, now_ms: u64, last: Option<&Self>) -> Self {
        let progress = Progress::of(tally, now_ms);
        if let Some(last) = last.filter(|last| last.version == tally.version()) {
            return Self { at_ms: now_ms, progress, ..last.clone() };
        }
        let cells: Arc<[Cell]> = tally.cells().into();
        let outcomes = cells.iter().filter_map(|cell| cell.outcome.as_deref());
        let throughput = Arc::new(Throughput::of(outcomes));
        let wrote = |cell: &Cell| cell.outcome.as_ref().is_some_and(|o| o.chips > 0);
        let mut newest = newest_first(&cells, wrote);
        newest.truncate(NEWEST);
        let failed = newest_first(&cells, |cell| cell.state() == CellState::Failed);
        let (newest, failed) = (newest.into(), failed.into());
        Self { at_ms: now_ms, version: tally.version(), progress, throughput, cells, newest, failed }
    }

    /// The cell of a task.
    pub fn cell(&self, task: u64) -> Option<&Cell> {
        self.cells.binary_search_by_key(&task, |cell| cell.task).ok().map(|i| &self.cells[i])
    }

    /// Tasks without a result: of the plan, or, when there is none, of those that were seen.
    pub fn waiting(&self) -> u64 {
        let seen = self.cells.iter().filter(|cell| cell.outcome.is_none()).count() as u64;
        self.progress.tasks_planned.map_or(seen, |tasks| tasks.saturating_sub(self.progress.tasks_done))
    }

    /// How many tasks are in this state.
    pub fn count(&self, state: CellState) -> u64 {
        match state {
            CellState::Waiting => self.waiting(),
            CellState::Done => self.progress.tasks_succeeded,
            CellState::Skipped => self.progress.tasks_skipped,
            CellState::Failed => self.progress.tasks_failed,
        }
    }

    /// The latest failures, newest first.
    pub fn latest_failures(&self) -> impl Iterator<Item = &Cell> {
        self.failed.iter().take(LATEST).map(|i| &self.cells[*i])
    }
}

fn newest_first(cells: &[Cell], wanted: impl Fn(&Cell) -> bool) -> Vec<usize> {
    let mut places: Vec<usize> = (0..cells.len()).filter(|i| wanted(&cells[*i])).collect();
    places.sort_unstable_by_key(|i| (Reverse(cells[*i].outcome.as_ref().map(|o| o.when_ms)), *i));
    places
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::result::TaskResult;
    use crate::domain::task::Task;

    fn task(n: u64) -> Task {
        serde_json::from_str(&format!(r#"{{"task_id":{n},"bbox":[{n},40,{},41]}}"#, n + 1)).unwrap()
    }

    fn result(n: u64, status: &str, chips: u64, at: u64) -> TaskResult {
        let text = format!(
            r#"{{"task_id":{n},"worker_id":"w","bbox":[{n},40,{},41],"chips_saved":{chips},"chips_per_class":{{}},
                "status":"{status}","finished_ms":{at},"error":"gone {n}"}}"#,
            n + 1
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_task_waits_until_its_result_comes_whichever_is_heard_first() {
        let mut tally = Tally::default();
        for n in 1..=5 {
            tally.task(&task(n));
        }
        tally.apply(&result(2, "success", 7, 30), 0);
        tally.apply(&result(4, "failed", 0, 20), 0);
        tally.apply(&result(9, "success", 1, 10), 0);
        tally.apply(&result(3, "skipped_sampling", 0, 5), 0);
        tally.task(&task(9));
        let view = View::of(&tally, 99, None);
        let states: Vec<_> = view.cells.iter().map(|c| (c.task, c.state().as_str())).collect();
        assert_eq!(states, [(1, "waiting"), (2, "done"), (3, "skipped"), (4, "failed"), (5, "waiting"), (9, "done")]);
        assert_eq!(view.newest.iter().map(|i| view.cells[*i].task).collect::<Vec<_>>(), [2, 9]);
        let failure = view.latest_failures().next().unwrap();
        assert_eq!(failure.outcome.as_ref().unwrap().reason.as_deref(), Some("gone 4"));
        assert_eq!(failure.outcome.as_ref().unwrap().kind.as_deref(), Some("gone #"));
        assert_eq!((view.waiting(), view.count(CellState::Done)), (2, 2));
        assert_eq!(view.cell(9).unwrap().bbox, Some([9.0, 40.0, 10.0, 41.0]));
        assert!(view.cell(6).is_none());
    }

    #[test]
    fn unchanged_parts_are_shared() {
        let mut tally = Tally::default();
        tally.apply(&result(1, "success", 1, 10), 0);
        let first = View::of(&tally, 20, None);
        let second = View::of(&tally, 30, Some(&first));
        assert!(Arc::ptr_eq(&first.cells, &second.cells) && second.at_ms == 30);
        tally.apply(&result(1, "success", 1, 10), 0);
        assert!(Arc::ptr_eq(&first.cells, &View::of(&tally, 40, Some(&second)).cells), "the same result once more");
        tally.apply(&result(1, "success", 2, 10), 0);
        assert!(!Arc::ptr_eq(&first.cells, &View::of(&tally, 50, Some(&second)).cells));
    }
}
