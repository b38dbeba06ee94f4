//! What the master says about its plan: one record per run on the compacted control topic.
//!
//! Contract: key `plan/{run_id}`; written with state `publishing` before the first task and again with
//! `published` after the last one is acknowledged, so a reader that sees `published` may trust `tasks`.
//! Tasks of a run are numbered from 1 to `tasks`. Units: chips and parcels are counts, times are
//! milliseconds since 1970 UTC. Trap: the control topic keeps the plans of earlier runs too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classes::ClassId;
use super::task::is_safe_run_id;

/// Newest form of the record this program knows.
pub const PLAN_SCHEMA: u32 = 1;

/// Largest record that is read, bytes; one of 254 classes has about 40 000.
pub const MAX_PLAN_BYTES: usize = 256 * 1024;

const KEY_PREFIX: &str = "plan/";

/// How far the master is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Tasks are being published.
    Publishing,
    /// Every task was acknowledged by the broker.
    Published,
}

/// What is planned for one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassPlan {
    /// Short name, for instance `olives`.
    pub name: String,
    /// `#rrggbb`.
    pub colour: String,
    /// Parcels of the class in the planned cells.
    pub parcels: u64,
    /// Parcels that will be drawn: each gives a chip if a scene allows it.
    pub expected: u64,
    /// Chips wanted; `None` in mode `basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
}

/// The plan of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Form of this record.
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// How far the master is.
    pub state: PlanState,
    /// Tasks of the run, numbered from 1.
    pub tasks: u64,
    /// Parcels in the cells that became tasks.
    pub parcels: u64,
    /// By class.
    pub classes: BTreeMap<ClassId, ClassPlan>,
    /// Seed of the run.
    pub seed: u64,
    /// When the master began to publish.
    pub created_ms: u64,
}

/// Why a record is not a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Longer than [`MAX_PLAN_BYTES`].
    #[error("plan record of {0} bytes is larger than the {MAX_PLAN_BYTES} allowed")]
    TooLarge(usize),
    /// Not JSON, or not of a plan's shape.
    #[error("record on the control topic is not a plan: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("plan schema {0} is newer than {PLAN_SCHEMA}, the newest this node knows: upgrade the node")]
    Schema(u32),
    /// A run id that is not one.
    #[error("plan record: run_id {0:?} is not 1 to 64 letters, digits, `-`, `_` and inner `.`")]
    RunId(String),
}

impl PlanRecord {
    /// Key of this record on the control topic.
    pub fn key(&self) -> String {
        format!("{KEY_PREFIX}{}", self.run_id)
    }

    /// The run a key of the control topic speaks of; `None` for keys that are not plans.
    pub fn run_of_key(key: &str) -> Option<&str> {
        key.strip_prefix(KEY_PREFIX)
    }

    /// Reads and checks one record.
    ///
    /// # Errors
    /// Any [`PlanError`]; the record is then to be ignored, with a warning.
    pub fn parse(raw: &[u8]) -> Result<Self, PlanError> {
        if raw.len() > MAX_PLAN_BYTES {
            return Err(PlanError::TooLarge(raw.len()));
        }
        let plan: Self = serde_json::from_slice(raw)?;
        if plan.schema > PLAN_SCHEMA {
            return Err(PlanError::Schema(plan.schema));
        }
        if !is_safe_run_id(&plan.run_id) {
            return Err(PlanError::RunId(plan.run_id));
        }
        Ok(plan)
    }

    /// The record as on the wire.
    ///
    /// # Errors
    /// None that is known: the type has no value JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, PlanError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn plan() -> PlanRecord {
        let olives =
            ClassPlan { name: "olives".into(), colour: "#808000".into(), parcels: 10, expected: 2, target: Some(1) };
        PlanRecord {
            schema: PLAN_SCHEMA,
            run_id: "r1".into(),
            state: PlanState::Published,
            tasks: 3,
            parcels: 12,
            classes: BTreeMap::from([(ClassId::try_from(1).unwrap(), olives)]),
            seed: 42,
            created_ms: 1,
        }
    }

    #[test]
    fn travels_unchanged() {
        let raw = plan().to_json().unwrap();
        assert_eq!(PlanRecord::parse(&raw).unwrap(), plan());
        assert_eq!(PlanRecord::run_of_key(&plan().key()), Some("r1"));
        assert_eq!(PlanRecord::run_of_key("stop/r1"), None);
        assert_eq!(
            String::from_utf8(raw).unwrap(),
            r##"{"schema":1,"run_id":"r1","state":"published","tasks":3,"parcels":12,"classes":{"1":{"name":"olives","colour":"#808000","parcels":10,"expected":2,"target":1}},"seed":42,"created_ms":1}"##
        );
    }

    #[test]
    fn what_is_not_a_plan_is_refused() {
        let with = |from: &str, to: &str| {
            let text = String::from_utf8(plan().to_json().unwrap()).unwrap().replace(from, to);
            PlanRecord::parse(text.as_bytes())
        };
        assert!(matches!(with("\"schema\":1", "\"schema\":2"), Err(PlanError::Schema(2))));
        assert!(matches!(with("\"r1\"", "\"../r1\""), Err(PlanError::RunId(_))));
        assert!(matches!(with("\"1\":", "\"255\":"), Err(PlanError::Json(_))));
        assert!(matches!(PlanRecord::parse(&vec![b' '; MAX_PLAN_BYTES + 1]), Err(PlanError::TooLarge(_))));
        assert!(with("\"seed\"", "\"later\":1,\"seed\"").is_ok(), "fields of later versions are ignored");
    }
}
