//! A cell of the map: a task, where it is, and what became of it.
//!
//! Contract: every task that was seen as a task or as a result is one cell; tasks that are only planned by number and
//! never seen have no place and are no cell. Units: degrees (lon, lat; WGS 84).
//! Trap: "waiting" includes tasks that a worker has in its hands: nothing on the broker tells the two apart.

use std::sync::Arc;

use serde::Serialize;

use super::outcome::Outcome;

/// What became of a task, as the map shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    /// No result yet.
    Waiting,
    /// Chips were written.
    Done,
    /// There was nothing to do.
    Skipped,
    /// It failed.
    Failed,
}

impl CellState {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 4] = [Self::Done, Self::Skipped, Self::Failed, Self::Waiting];

    /// Its name, as in JSON and in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// One task on the map.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The task's number.
    pub task: u64,
    /// `[west, south, east, north]`; `None`: no message says a possible one.
    pub bbox: Option<[f64; 4]>,
    /// Its best result; `None`: it waits.
    pub outcome: Option<Arc<Outcome>>,
}

impl Cell {
    /// What became of it.
    pub fn state(&self) -> CellState {
        match self.outcome.as_ref().map(|o| o.status) {
            None => CellState::Waiting,
            Some(status) if status.is_failure() => CellState::Failed,
            Some(status) if status.is_skip() => CellState::Skipped,
            Some(_) => CellState::Done,
        }
    }
}
