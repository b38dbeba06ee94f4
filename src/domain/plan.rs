//! The master's plan and what decides it; [`super::planner::Planner`] makes it.
//!
//! Units: degrees for cells, chips for expectations and targets.
//! Contract: [`PlanSettings`] and the set of parcels decide the plan, nothing else does.
//! Trap: `expected` counts the parcels that are drawn, so it is an upper bound: clouds and scene edges take
//! their share; `target` already allows for them by the conversion rate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classes::ClassId;
use super::grid::BadStep;
use super::season::Seasons;
use super::task::{Task, is_safe_run_id};

/// Distinct unknown codes that are told apart; further ones are counted together.
pub const MAX_UNKNOWN_LABELS: usize = 65_536;

/// Unknown codes that a summary lists.
pub const TOP_UNKNOWN: usize = 20;

/// How parcels become chips.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampling {
    /// Every parcel of a class is a candidate; no targets.
    Basic,
    /// A share of each class, and a target per class.
    Balanced {
        /// Chance of a parcel of the class to be drawn, 0 to 1.
        probabilities: BTreeMap<ClassId, f64>,
        /// Share of drawn parcels that is expected to give a usable chip, 0 to 1; enters the target only.
        conversion_rate: f64,
        /// Largest target of a class, chips.
        max_target: u64,
        /// The same for single classes, instead of `max_target`.
        quotas: BTreeMap<ClassId, u64>,
    },
}

/// In which order tasks are published. Their numbers follow the curve in any case, so the dataset does not depend
/// on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Along the Hilbert curve, in territories.
    Space,
    /// Those first that fill the targets with the fewest tasks, dealt out to the partitions in turn.
    Rarest,
}

/// Everything that decides what the plan says.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSettings {
    /// Seed of the run.
    pub seed: u64,
    /// Edge of a cell, degrees.
    pub step: f64,
    /// Cells with fewer parcels are dropped.
    pub min_parcels: u64,
    /// How parcels become chips.
    pub sampling: Sampling,
    /// Classes of the class table with their names.
    pub classes: BTreeMap<ClassId, String>,
    /// In which order tasks are published.
    pub order: Order,
    /// Seasons that tasks draw their scenes from: those of one season are visited together.
    pub seasons: Seasons,
    /// Partitions of the task topic.
    pub partitions: i32,
    /// Configured run id; `None`: derived from the plan.
    pub run_id: Option<String>,
    /// Whatever else decides the dataset (fingerprint of the layer, chip size, bands, seasons, …), as one text
    /// that enters the derived run id.
    pub context: String,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The step.
    #[error(transparent)]
    Step(#[from] BadStep),
    /// A class without a probability.
    #[error("class {0} ({1}) has no probability: add it to sampling.probabilities (0 leaves it out)")]
    NoProbability(ClassId, String),
    /// A probability for a class that the class table does not declare.
    #[error("sampling.probabilities names class {0}, which parcels.classes does not declare")]
    StrayProbability(ClassId),
    /// A number that is no share.
    #[error("{0} is {1}, allowed is 0 to 1")]
    NotAShare(String, f64),
    /// Partition count.
    #[error("kafka.partitions is {0}, at least 1 is needed")]
    Partitions(i32),
    /// Run id.
    #[error("run.id `{0}`: only 1 to 64 letters, digits, `-`, `_` and inner `.` are allowed")]
    RunId(String),
    /// Not one row of the layer is a usable parcel.
    #[error(
        "none of the {rows} rows of the layer is a usable parcel ({reasons}): check parcels.layer and its geometry"
    )]
    NoParcels {
        /// Rows read.
        rows: u64,
        /// Rejected rows by reason.
        reasons: String,
    },
    /// Parcels, but of no class.
    #[error(
        "none of {parcels} parcels has a class: {excluded} are excluded by rules of parcels.classes, {unknown} are known \
         to no rule ({examples}); check parcels.code_column, parcels.name_column and parcels.classes"
    )]
    NoClass {
        /// Usable parcels.
        parcels: u64,
        /// Of these, excluded by a rule.
        excluded: u64,
        /// Of these, known to no rule.
        unknown: u64,
        /// The most frequent codes that no rule knows.
        examples: String,
    },
    /// Every cell was dropped.
    #[error(
        "no task: {few} cells have fewer than {min} parcels, {no_class} have no parcel of a class; check \
         grid.min_parcels and grid.step"
    )]
    NoTasks {
        /// Cells dropped for too few parcels.
        few: u64,
        /// The limit.
        min: u64,
        /// Cells dropped for want of a class.
        no_class: u64,
    },
}

/// One task with its place in the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTask {
    /// What is sent.
    pub task: Task,
    /// Partition it is sent to.
    pub partition: i32,
    /// Parcels of the cell that are drawn.
    pub expected_chips: u64,
}

/// A class in the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassPlan {
    /// Short name.
    pub name: String,
    /// Parcels of the class with a place, in dropped cells too.
    pub parcels: u64,
    /// Parcels of the class in cells that became tasks.
    pub planned: u64,
    /// Tasks that have the class.
    pub cells: u64,
    /// Chance to be drawn; `None` in mode basic.
    pub probability: Option<f64>,
    /// Parcels of tasks that are drawn: the most chips this class can give.
    pub expected: u64,
    /// Chips wanted; `None` in mode basic.
    pub target: Option<u64>,
}

/// What one partition got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionLoad {
    /// Tasks.
    pub tasks: u64,
    /// Expected chips of these tasks.
    pub expected: u64,
}

/// Totals of a plan, for people and for the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// The run.
    pub run_id: String,
    /// Seed of the run.
    pub seed: u64,
    /// Edge of a cell, degrees.
    pub grid_step: f64,
    /// Rows of the layer.
    pub rows: u64,
    /// Rows that are parcels with a place.
    pub parcels: u64,
    /// Parcels that a rule puts into no class.
    pub excluded: u64,
    /// Parcels that no rule knows.
    pub unknown: u64,
    /// Tasks.
    pub tasks: u64,
    /// Expected chips over all classes.
    pub expected: u64,
    /// Per class.
    pub classes: BTreeMap<ClassId, ClassPlan>,
    /// Rows that are no parcel, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Cells that became no task, by reason.
    pub dropped_cells: BTreeMap<String, u64>,
    /// The [`TOP_UNKNOWN`] codes that no rule knows, most frequent first.
    pub unknown_codes: Vec<(String, u64)>,
    /// Per partition.
    pub partitions: Vec<PartitionLoad>,
}

/// A finished plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Totals.
    pub summary: PlanSummary,
    /// Tasks in the order in which they are published; numbered from 1 along the Hilbert curve.
    pub tasks: Vec<PlannedTask>,
}

/// Reason in [`PlanSummary::dropped_cells`]: fewer parcels than `min_parcels`.
pub const FEW_PARCELS: &str = "few_parcels";
/// Reason in [`PlanSummary::dropped_cells`]: no parcel of a class that can be drawn.
pub const NO_CLASS: &str = "no_target_class";

impl PlanSettings {
    /// Checks everything but the step.
    ///
    /// # Errors
    /// The first setting that is impossible, or the class and probability that do not fit.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.partitions < 1 {
            return Err(PlanError::Partitions(self.partitions));
        }
        if let Some(id) = self.run_id.as_ref().filter(|id| !is_safe_run_id(id)) {
            return Err(PlanError::RunId(id.clone()));
        }
        let Sampling::Balanced { probabilities, conversion_rate, .. } = &self.sampling else { return Ok(()) };
        let shares = probabilities.iter().map(|(c, p)| (format!("sampling.probabilities of class {c}"), *p));
        for (what, share) in shares.chain([("sampling.conversion_rate".to_owned(), *conversion_rate)]) {
            if !(0.0..=1.0).contains(&share) {
                return Err(PlanError::NotAShare(what, share));
            }
        }
        if let Some(stray) = probabilities.keys().find(|c| !self.classes.contains_key(c)) {
            return Err(PlanError::StrayProbability(*stray));
        }
        match self.classes.iter().find(|(c, _)| !probabilities.contains_key(c)) {
            Some((class, name)) => Err(PlanError::NoProbability(*class, name.clone())),
            None => Ok(()),
        }
    }
}
