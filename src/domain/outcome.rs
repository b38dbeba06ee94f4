//! What the monitor keeps of a task's result.
//!
//! Contract: of two outcomes of one task the one of greater [`Outcome::merit`] is kept: success over skip over failure,
//! then more chips, then the earlier; a total order, so the kept one does not depend on who came first. Texts were
//! cleaned and shortened by the [`super::tally::Tally`]. Units: milliseconds since 1970 UTC, degrees.
//! Trap: [`Outcome::kind`] has its numbers taken out, so that failures count together; [`Outcome::reason`] is what the
//! worker said.

use std::cmp::Reverse;
use std::sync::Arc;

use super::classes::ClassId;
use super::result::Status;

/// The best known result of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Chips written.
    pub chips: u64,
    /// The same by class, without zeros, ascending.
    pub per_class: Box<[(ClassId, u64)]>,
    /// When it ended.
    pub when_ms: u64,
    /// How long it took from delivery to commit, milliseconds; 0 when the result does not say.
    pub elapsed_ms: u64,
    /// Who did it.
    pub worker: Arc<str>,
    /// The cell, `[west, south, east, north]`; `None` when the result holds no possible one.
    pub bbox: Option<[f64; 4]>,
    /// Why it failed, numbers replaced by `#`.
    pub kind: Option<Arc<str>>,
    /// Why it failed; `None` also when there was no room for more reasons.
    pub reason: Option<Arc<str>>,
    /// Parcels that gave no chip, by reason.
    pub rejected: Box<[(Arc<str>, u64)]>,
}

impl Outcome {
    /// Rank among the results of one task: the greater is kept.
    pub fn merit(&self) -> impl Ord + '_ {
        let rank = if self.status == Status::Success { 2 } else { u8::from(self.status.is_skip()) };
        let exact = (&self.worker, self.status, &self.kind, &self.per_class, &self.rejected);
        (rank, self.chips, Reverse(self.when_ms), exact)
    }
}

/// A cell as it travels, when it is one: degrees, west of east, south of north, on the globe.
pub fn possible(bbox: [f64; 4]) -> Option<[f64; 4]> {
    let [w, s, e, n] = bbox;
    let inside = |lo: f64, hi: f64, limit: f64| lo < hi && lo >= -limit && hi <= limit;
    (inside(w, e, 180.0) && inside(s, n, 90.0)).then_some(bbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_on_the_globe_are_cells() {
        assert!(possible([-180.0, -90.0, 180.0, 90.0]).is_some());
        for wrong in [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 181.0, 1.0], [f64::NAN, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]] {
            assert_eq!(possible(wrong), None);
        }
    }
}
