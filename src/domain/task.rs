//! One task: the work of one grid cell, as it travels on topic `satellite-tasks`.
//!
//! Contract: the original pipeline's fields alone make a valid task; everything we added is
//! optional. `bbox` is `[west, south, east, north]` in degrees (lon, lat; WGS 84), half-open:
//! a point on the west or south edge is inside, on the east or north edge outside.
//! Trap: class ids are JSON object keys, so they arrive as strings (`{"1": 12}`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classes::ClassId;

/// Largest task message that is read at all, bytes; ours are below 2 KiB.
pub const MAX_TASK_BYTES: usize = 64 * 1024;

/// Wire version of what we add to the original's fields.
pub const SCHEMA: u32 = 1;

/// Why a message is not a task. All are permanent: the message goes to the dead-letter topic.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Longer than [`MAX_TASK_BYTES`].
    #[error("task message of {0} bytes is larger than the {MAX_TASK_BYTES} allowed")]
    TooLarge(usize),
    /// Not JSON, or not of a task's shape.
    #[error("task message is not a task: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of the right shape with an impossible value.
    #[error("task field `{field}`: {why}")]
    Field {
        /// Name on the wire.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a later version.
    #[error("task schema {0} is newer than {SCHEMA}, the newest this node knows: upgrade the node")]
    Schema(u32),
}

/// A task as on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Number within the run, from 0 or 1 upwards.
    pub task_id: u64,
    /// `[west, south, east, north]`, degrees.
    pub bbox: [f64; 4],
    /// Edge of the cell, degrees.
    #[serde(default = "default_step")]
    pub grid_step: f64,
    /// Parcels in the cell, of whatever class.
    #[serde(default)]
    pub polygon_count: u64,
    /// Parcels of each class in the cell.
    #[serde(default)]
    pub class_distribution: BTreeMap<ClassId, u64>,
    /// Chance of each class's parcels to become a chip; empty: every parcel of a class is taken.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub sampling_probs: BTreeMap<ClassId, f64>,
    /// Chips wanted per class over the whole run; empty: no target.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub target_samples: BTreeMap<ClassId, u64>,
    /// Wire version of the fields below; absent in the original's tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// The run this task belongs to; absent in the original's tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Seed of the run; absent: the worker's `run.seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Attempts already spent by earlier deliveries, over all workers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
}

fn default_step() -> f64 {
    0.05
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The original sends `null` for probabilities and targets in mode `basic`.
fn null_as_empty<'de, D, V>(d: D) -> Result<BTreeMap<ClassId, V>, D::Error>
where
    D: serde::Deserializer<'de>,
    V: Deserialize<'de>,
{
    Ok(Option::<BTreeMap<ClassId, V>>::deserialize(d)?.unwrap_or_default())
}

/// Names a task's outcome for ever: the same task, delivered twice, has the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// Run id, or for a task without one `x` and a hash of what the task says.
    pub run: String,
    /// Number within the run.
    pub task: u64,
}

impl std::fmt::Display for TaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.run, self.task)
    }
}

impl Task {
    /// Reads and checks one message.
    ///
    /// # Errors
    /// Any [`TaskError`]; the message is then poison.
    pub fn parse(raw: &[u8]) -> Result<Self, TaskError> {
        if raw.len() > MAX_TASK_BYTES {
            return Err(TaskError::TooLarge(raw.len()));
        }
        let task: Self = serde_json::from_slice(raw)?;
        task.check()?;
        Ok(task)
    }

    fn check(&self) -> Result<(), TaskError> {
        let field = |field, why: String| Err(TaskError::Field { field, why });
        if let Some(schema) = self.schema
            && schema > SCHEMA
        {
            return Err(TaskError::Schema(schema));
        }
        let [w, s, e, n] = self.bbox;
        let inside =
            |lo: f64, hi: f64, limit: f64| lo.is_finite() && hi.is_finite() && lo < hi && lo >= -limit && hi <= limit;
        if !inside(w, e, 180.0) || !inside(s, n, 90.0) {
            return field("bbox", format!("[{w}, {s}, {e}, {n}] is not [west, south, east, north] in degrees"));
        }
        if e - w > 5.0 || n - s > 5.0 {
            return field("bbox", format!("{} x {} degrees is larger than the 5 x 5 a task may cover", e - w, n - s));
        }
        if !(self.grid_step.is_finite() && self.grid_step > 0.0) {
            return field("grid_step", format!("{} is not a positive number of degrees", self.grid_step));
        }
        for (class, p) in &self.sampling_probs {
            if !(0.0..=1.0).contains(p) {
                return field("sampling_probs", format!("class {class} has probability {p}, allowed is 0 to 1"));
            }
        }
        if let Some(run) = &self.run_id
            && !is_safe_run_id(run)
        {
            return field("run_id", "only 1 to 64 letters, digits, `-`, `_` and inner `.` are allowed".into());
        }
        Ok(())
    }

    /// The key under which this task's outcome is kept.
    pub fn key(&self) -> TaskKey {
        let run = self.run_id.clone().unwrap_or_else(|| format!("x{:016x}", self.fingerprint()));
        TaskKey { run, task: self.task_id }
    }

    /// Hash of what the task asks for (not of its attempts): FNV-1a, 64 bit, over its JSON.
    fn fingerprint(&self) -> u64 {
        let plain = serde_json::json!([self.bbox, self.grid_step, self.sampling_probs, self.target_samples, self.seed]);
        fnv1a(plain.to_string().as_bytes())
    }

    /// Whether a point (degrees) belongs to this task's cell.
    pub fn holds(&self, lon: f64, lat: f64) -> bool {
        let [w, s, e, n] = self.bbox;
        w <= lon && lon < e && s <= lat && lat < n
    }
}

/// FNV-1a, 64 bit (<http://www.isthe.com/chongo/tech/comp/fnv/>): stable over versions and machines.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Run ids become directory names, so nothing that could leave a directory is one.
pub fn is_safe_run_id(run: &str) -> bool {
    (1..=64).contains(&run.len())
        && !run.starts_with('.')
        && run.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
