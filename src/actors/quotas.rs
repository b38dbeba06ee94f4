//! What this worker knows of filled classes, shared by its stages.
//!
//! Contract: cheap to clone and to ask; without records no class is ever filled, so a worker that hears of no
//! monitor takes every parcel drawn. Trap: the answer is of the moment; a task asks once and keeps to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::classes::ClassId;
use crate::domain::quota::QuotaBook;
use crate::domain::task::Task;

/// A shared [`QuotaBook`].
#[derive(Debug, Clone, Default)]
pub struct Quotas(Arc<RwLock<QuotaBook>>);

impl Quotas {
    /// Notes that a run has at least these chips.
    pub fn note(&self, run: &str, counts: &BTreeMap<ClassId, u64>) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).note(run, counts)
    }

    /// The classes this task need not sample any more.
    pub fn filled(&self, task: &Task) -> BTreeSet<ClassId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).filled(task)
    }
}
