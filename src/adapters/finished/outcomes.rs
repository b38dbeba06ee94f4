//! What the manifests say about parcels, found by id.
//!
//! Contract: one look-up gives a parcel's chip if it has one, else its rejection. Only one run's manifests are asked:
//! parcels of another run are other draws.
//! Memory: 24 bytes per parcel that was drawn, and one copy of each reason.

use std::collections::HashMap;

use super::FinishError;
use super::manifests::Manifests;
use crate::domain::classes::ClassId;
use crate::domain::parcel_state::ParcelState;
use crate::domain::result::Status;

/// What became of a drawn parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    parcel: i64,
    /// 0: a chip; else one more than the reason's place.
    reason: u32,
    task: u64,
    class: ClassId,
}

/// What became of a parcel, as the manifests have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// [`ParcelState::Chip`] or [`ParcelState::Rejected`].
    pub state: ParcelState,
    /// Why it was rejected, else empty.
    pub reason: &'a str,
    /// Its task.
    pub task: u64,
    /// Its class.
    pub class: ClassId,
    /// Its id.
    pub parcel: i64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Outcomes {
    entries: Vec<Entry>,
    reasons: Vec<String>,
    tasks: HashMap<u64, Status>,
}

impl Outcomes {
    /// Reads the manifests of a run.
    ///
    /// # Errors
    /// Manifests that cannot be read.
    pub fn read(manifests: &Manifests, run: &str, pool: &rayon::ThreadPool) -> Result<Self, FinishError> {
        let (mut entries, mut reasons) = (Vec::new(), Vec::<String>::new());
        let (mut known, mut tasks) = (HashMap::<String, u32>::new(), HashMap::new());
        manifests.each(
            pool,
            |at| manifests.read(at),
            |_, manifest| {
                if manifest.key.run != run {
                    return Ok(());
                }
                let task = manifest.key.task;
                tasks.insert(task, manifest.result.status);
                entries.extend(manifest.chips.iter().map(|c| Entry {
                    parcel: c.parcel,
                    reason: 0,
                    task,
                    class: c.class,
                }));
                for rejection in manifest.rejected {
                    let reason = *known.entry(rejection.reason).or_insert_with_key(|reason| {
                        reasons.push(reason.clone());
                        reasons.len() as u32
                    });
                    entries.push(Entry { parcel: rejection.parcel, reason, task, class: rejection.class });
                }
                Ok(())
            },
        )?;
        entries.sort_unstable();
        // Several chips of one parcel, or a season without a chip beside one with: the chip comes first.
        entries.dedup_by_key(|e| e.parcel);
        Ok(Self { entries, reasons, tasks })
    }

    /// Parcels that were drawn and decided.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How a task ended, if it has a manifest.
    pub fn status(&self, task: u64) -> Option<Status> {
        self.tasks.get(&task).copied()
    }

    /// What became of a parcel; `None` when no manifest names it.
    pub fn of(&self, parcel: i64) -> Option<Outcome<'_>> {
        let at = self.entries.binary_search_by_key(&parcel, |e| e.parcel).ok()?;
        Some(self.outcome(&self.entries[at]))
    }

    /// All of them, in order of the parcel.
    pub fn iter(&self) -> impl Iterator<Item = Outcome<'_>> {
        self.entries.iter().map(|entry| self.outcome(entry))
    }

    fn outcome(&self, entry: &Entry) -> Outcome<'_> {
        let (state, reason) = match (entry.reason as usize).checked_sub(1) {
            None => (ParcelState::Chip, ""),
            Some(at) => (ParcelState::Rejected, self.reasons[at].as_str()),
        };
        Outcome { state, reason, task: entry.task, class: entry.class, parcel: entry.parcel }
    }
}
