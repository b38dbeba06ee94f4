//! What became of every parcel of a class: exactly one state each, and sums that must meet the plan's.
//!
//! Contract: the states of a class's parcels add up, in three ways, to what the master planned for the class: parcels,
//! parcels in cells that became tasks, parcels drawn ([`Totals::differences`]). Units: parcels.
//! Trap: a parcel with several chips (one per season) is one parcel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::ClassPlan;

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParcelState {
    /// It is in the centre of a chip.
    Chip,
    /// It was drawn and gave no chip.
    Rejected,
    /// It was not drawn.
    NotDrawn,
    /// Its cell became no task.
    NoTask,
    /// Its task was skipped.
    Skipped,
    /// Its task failed for good.
    Failed,
    /// Its task has no record yet.
    NotDone,
    /// Its row is no parcel.
    Unusable,
    /// It was drawn, its task is finished, and the record does not name it: a fault.
    Unaccounted,
}

impl ParcelState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Chip,
        Self::Rejected,
        Self::NotDrawn,
        Self::NoTask,
        Self::Skipped,
        Self::Failed,
        Self::NotDone,
        Self::Unusable,
        Self::Unaccounted,
    ];

    /// Name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chip => "chip",
            Self::Rejected => "rejected",
            Self::NotDrawn => "not_drawn",
            Self::NoTask => "no_task",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::NotDone => "not_done",
            Self::Unusable => "unusable",
            Self::Unaccounted => "unaccounted",
        }
    }

    /// Whether the parcel was drawn by a task.
    fn is_drawn(self) -> bool {
        !matches!(self, Self::NotDrawn | Self::NoTask | Self::Unusable)
    }
}

/// Parcels of one class, by state and reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// By state.
    pub states: BTreeMap<ParcelState, u64>,
    /// By state and reason, `state: reason`, where there is a reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Totals {
    /// Counts one parcel; an empty reason is none.
    pub fn add(&mut self, state: ParcelState, reason: &str) {
        *self.states.entry(state).or_default() += 1;
        if !reason.is_empty() {
            let key = format!("{}: {reason}", state.as_str());
            *self.reasons.entry(key).or_default() += 1;
        }
    }

    fn sum(&self, of: impl Fn(ParcelState) -> bool) -> u64 {
        self.states.iter().filter(|(state, _)| of(**state)).map(|(_, n)| n).sum()
    }

    /// Where the sums do not meet the plan's; empty when all is accounted for.
    pub fn differences(&self, plan: &ClassPlan) -> Vec<String> {
        use ParcelState as S;
        let sums = [
            ("parcels", self.sum(|s| s != S::Unusable), plan.parcels),
            ("parcels in tasks", self.sum(|s| !matches!(s, S::Unusable | S::NoTask)), plan.planned),
            ("parcels drawn", self.sum(S::is_drawn), plan.expected),
            ("unaccounted", self.sum(|s| s == S::Unaccounted), 0),
        ];
        let differs = sums.into_iter().filter(|(_, got, planned)| got != planned);
        differs.map(|(what, got, planned)| format!("{what}: {got}, planned {planned}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(parcels: u64, planned: u64, expected: u64) -> ClassPlan {
        let name = "olives".to_owned();
        ClassPlan { name, parcels, planned, cells: 1, probability: Some(0.5), expected, target: None }
    }

    fn totals(states: &[(ParcelState, u64)]) -> Totals {
        Totals { states: states.iter().copied().collect(), reasons: BTreeMap::new() }
    }

    #[test]
    fn sums_meet_the_plan() {
        use ParcelState as S;
        let all = totals(&[
            (S::Chip, 5),
            (S::Rejected, 1),
            (S::Skipped, 1),
            (S::Failed, 1),
            (S::NotDone, 2),
            (S::NotDrawn, 10),
            (S::NoTask, 3),
            (S::Unusable, 4),
        ]);
        assert!(all.differences(&plan(23, 20, 10)).is_empty());
        assert_eq!(all.differences(&plan(24, 20, 10)), ["parcels: 23, planned 24"]);
        assert_eq!(all.differences(&plan(23, 20, 11)), ["parcels drawn: 10, planned 11"]);
    }

    #[test]
    fn a_parcel_nobody_accounts_for_is_a_difference_even_when_the_sums_meet() {
        let lost = totals(&[(ParcelState::Unaccounted, 1)]);
        assert_eq!(lost.differences(&plan(1, 1, 1)), ["unaccounted: 1, planned 0"]);
    }

    #[test]
    fn reasons_are_counted_within_their_state() {
        let mut some = Totals::default();
        some.add(ParcelState::Rejected, "nodata");
        some.add(ParcelState::Rejected, "nodata");
        some.add(ParcelState::Chip, "");
        assert_eq!(some.reasons, BTreeMap::from([("rejected: nodata".to_owned(), 2)]));
        assert_eq!(some.states, BTreeMap::from([(ParcelState::Chip, 1), (ParcelState::Rejected, 2)]));
    }
}
