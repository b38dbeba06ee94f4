//! How a step can fail, seen from the task: what to do next, and what to tell the user.
//!
//! Contract: every adapter error maps to exactly one [`Severity`]; actors decide on that alone and
//! never on the text. Trap: `Fatal` must be rare and certain, because it stops the whole node.

use serde::{Deserialize, Serialize};

/// What the pipeline does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// May go away by itself (429, 5xx, reset connection, `ESTALE`): retried in the same stage.
    Transient,
    /// Will not go away (bad task, 404, corrupt block): the task or chip ends with this reason.
    Permanent,
    /// Concerns the node, not the task (output not mounted, disk full, credentials): stop taking
    /// tasks, drain, exit non-zero, leave the offset uncommitted.
    Fatal,
}

/// A failure of one step, ready to be reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}")]
pub struct Failure {
    /// What to do about it.
    pub severity: Severity,
    /// Stage of the road it happened in: `intake`, `sampler`, `scenes`, `pixels`, …
    pub stage: &'static str,
    /// One sentence for a person: what, where, and the remedy if there is one.
    pub reason: String,
    /// The server's own wish (`Retry-After`), in seconds, for `Transient` failures.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    /// A failure that may go away by itself.
    pub fn transient(stage: &'static str, reason: impl Into<String>) -> Self {
        Self { severity: Severity::Transient, stage, reason: reason.into(), retry_after_s: None }
    }

    /// A failure that stays.
    pub fn permanent(stage: &'static str, reason: impl Into<String>) -> Self {
        Self { severity: Severity::Permanent, stage, reason: reason.into(), retry_after_s: None }
    }

    /// A failure of the node itself.
    pub fn fatal(stage: &'static str, reason: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, stage, reason: reason.into(), retry_after_s: None }
    }
}
