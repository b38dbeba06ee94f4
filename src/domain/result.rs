//! How a task ended, as it travels on topic `satellite-results`.
//!
//! Contract: results are keyed by task and idempotent; a reader that sees one twice counts it once.
//! The first nine fields are the original pipeline's; what we add is optional for a reader.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classes::ClassId;
use super::task::{Task, TaskKey};

/// Ways a task ends; the original's names, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At least one chip was written.
    Success,
    /// Fewer parcels in the cell than `grid.min_parcels`.
    SkippedFewPolygons,
    /// No parcel of a target class in the cell.
    SkippedNoTargetClasses,
    /// No parcel of the cell was drawn.
    SkippedSampling,
    /// Every class of the cell has its target already.
    SkippedQuota,
    /// No scene, or no scene could be read.
    FailedDownload,
    /// Every chip's mask would have been empty.
    FailedEmptyMask,
    /// Anything else; see `error`.
    Failed,
}

impl Status {
    /// All of them, in the order reports show them.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::SkippedFewPolygons,
        Self::SkippedNoTargetClasses,
        Self::SkippedSampling,
        Self::SkippedQuota,
        Self::FailedDownload,
        Self::FailedEmptyMask,
        Self::Failed,
    ];

    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::SkippedFewPolygons => "skipped_few_polygons",
            Self::SkippedNoTargetClasses => "skipped_no_target_classes",
            Self::SkippedSampling => "skipped_sampling",
            Self::SkippedQuota => "skipped_quota",
            Self::FailedDownload => "failed_download",
            Self::FailedEmptyMask => "failed_empty_mask",
            Self::Failed => "failed",
        }
    }

    /// Whether the task did not do what it was for.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::FailedDownload | Self::FailedEmptyMask | Self::Failed)
    }

    /// Whether there was nothing to do.
    pub fn is_skip(self) -> bool {
        !self.is_failure() && self != Self::Success
    }
}

/// A result as on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's number within its run.
    pub task_id: u64,
    /// Who did it.
    pub worker_id: String,
    /// The task's `[west, south, east, north]`, degrees.
    pub bbox: [f64; 4],
    /// Pairs of image and mask written.
    pub chips_saved: u64,
    /// The same by class of the centre parcel.
    pub chips_per_class: BTreeMap<ClassId, u64>,
    /// How it ended.
    pub status: Status,
    /// Copied from the task.
    #[serde(default)]
    pub target_samples: BTreeMap<ClassId, u64>,
    /// Copied from the task.
    #[serde(default)]
    pub sampling_probs: BTreeMap<ClassId, f64>,
    /// The reason, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The run, or what stands for it ([`Task::key`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Parcels that were drawn but gave no chip, by reason (`outside_scene`, `nodata`, `corrupt`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chips_rejected: BTreeMap<String, u64>,
    /// Parcels drawn.
    #[serde(default)]
    pub sampled: u64,
    /// When it ended, milliseconds since 1970 UTC.
    #[serde(default)]
    pub finished_ms: u64,
    /// How long it took from delivery to commit, milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
}

impl TaskResult {
    /// A result of `task` with nothing in it yet.
    pub fn empty(task: &Task, worker_id: &str, status: Status) -> Self {
        Self {
            task_id: task.task_id,
            worker_id: worker_id.to_owned(),
            bbox: task.bbox,
            chips_saved: 0,
            chips_per_class: BTreeMap::new(),
            status,
            target_samples: task.target_samples.clone(),
            sampling_probs: task.sampling_probs.clone(),
            error: None,
            run_id: Some(task.key().run),
            chips_rejected: BTreeMap::new(),
            sampled: 0,
            finished_ms: 0,
            elapsed_ms: 0,
        }
    }

    /// Key of the task this is the result of; a result of the original's worker has no run.
    pub fn key(&self) -> TaskKey {
        TaskKey { run: self.run_id.clone().unwrap_or_default(), task: self.task_id }
    }
}
