//! When a class has enough chips: what the monitor tells the workers, and what a worker makes of it.
//!
//! Contract: a record holds the chips counted so far of one run; these counts never fall, so records may come
//! late, twice or from two monitors, and a [`QuotaBook`] keeps the greatest of each class. Whether a class is
//! filled is decided against the targets of the task at hand: raised targets open it again by themselves.
//! Units: chips. Trap: a class whose target is 0, too small for a share of its parcels, has no target and is
//! never filled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::classes::ClassId;
use super::progress::Progress;
use super::task::{Task, is_safe_run_id};

/// Newest form of the record this program knows.
pub const QUOTA_SCHEMA: u32 = 1;
/// Largest record that is read, bytes; one of 254 classes has about 12 000.
pub const MAX_QUOTA_BYTES: usize = 64 * 1024;
/// Most runs a book remembers; the one heard of longest ago goes first.
pub const MAX_RUNS: usize = 64;
/// Reason of a drawn parcel that gave no chip because its class had enough.
pub const QUOTA: &str = "quota";

const KEY_PREFIX: &str = "quota/";

/// How full a run's classes are, as on the control topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    /// Form of this record.
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// Tasks that are counted: grows with every record of the same run.
    pub sequence: u64,
    /// Chips by class.
    pub counts: BTreeMap<ClassId, u64>,
    /// Chips wanted, by class, as the plan says.
    pub targets: BTreeMap<ClassId, u64>,
    /// Classes with at least as many chips as wanted.
    pub filled: BTreeSet<ClassId>,
}

/// Why a record is not one of quotas.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// Longer than [`MAX_QUOTA_BYTES`].
    #[error("quota record of {0} bytes is larger than the {MAX_QUOTA_BYTES} allowed")]
    TooLarge(usize),
    /// Not JSON, or not of its shape.
    #[error("record on the control topic is not one of quotas: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("quota schema {0} is newer than {QUOTA_SCHEMA}, the newest this node knows: upgrade the node")]
    Schema(u32),
    /// A run id that is not one.
    #[error("quota record: run_id {0:?} is not 1 to 64 letters, digits, `-`, `_` and inner `.`")]
    RunId(String),
}

impl QuotaRecord {
    /// What there is to say of a run; `None`: no plan is known, or it has no targets.
    pub fn of(progress: &Progress) -> Option<Self> {
        let run_id = progress.run_id.clone()?;
        let targets: BTreeMap<_, _> = progress.classes.iter().filter_map(|c| Some((c.class, c.target?))).collect();
        if targets.is_empty() {
            return None;
        }
        let counts: BTreeMap<_, _> = progress.classes.iter().map(|c| (c.class, c.chips)).collect();
        let filled = filled(&targets, &counts);
        Some(Self { schema: QUOTA_SCHEMA, run_id, sequence: progress.tasks_done, counts, targets, filled })
    }

    /// Key of this record on the control topic.
    pub fn key(&self) -> String {
        format!("{KEY_PREFIX}{}", self.run_id)
    }

    /// Whether a key of the control topic is one of quotas.
    pub fn is_key(key: &[u8]) -> bool {
        key.starts_with(KEY_PREFIX.as_bytes())
    }

    /// Reads and checks one record.
    ///
    /// # Errors
    /// Any [`QuotaError`]; the record is then to be ignored, with a warning.
    pub fn parse(raw: &[u8]) -> Result<Self, QuotaError> {
        if raw.len() > MAX_QUOTA_BYTES {
            return Err(QuotaError::TooLarge(raw.len()));
        }
        let record: Self = serde_json::from_slice(raw)?;
        if record.schema > QUOTA_SCHEMA {
            return Err(QuotaError::Schema(record.schema));
        }
        if !is_safe_run_id(&record.run_id) {
            return Err(QuotaError::RunId(record.run_id));
        }
        Ok(record)
    }

    /// The record as on the wire.
    ///
    /// # Errors
    /// None that is known: the type has no value JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, QuotaError> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// The classes that have what is wanted of them.
fn filled(targets: &BTreeMap<ClassId, u64>, counts: &BTreeMap<ClassId, u64>) -> BTreeSet<ClassId> {
    let has = |class: &ClassId| counts.get(class).copied().unwrap_or(0);
    targets.iter().filter(|(class, target)| **target > 0 && has(class) >= **target).map(|(class, _)| *class).collect()
}

/// What a worker knows of the runs it may be given tasks of.
#[derive(Debug, Default)]
pub struct QuotaBook {
    runs: BTreeMap<String, Counted>,
    heard: u64,
}

#[derive(Debug, Default)]
struct Counted {
    chips: BTreeMap<ClassId, u64>,
    /// When it was heard of last, in records.
    heard: u64,
}

impl QuotaBook {
    /// Notes that a run has at least these chips. The answer says whether that was news.
    pub fn note(&mut self, run: &str, counts: &BTreeMap<ClassId, u64>) -> bool {
        self.heard += 1;
        if !self.runs.contains_key(run) && self.runs.len() >= MAX_RUNS {
            let oldest = self.runs.iter().min_by_key(|(_, counted)| counted.heard).map(|(run, _)| run.clone());
            oldest.and_then(|run| self.runs.remove(&run));
        }
        let known = self.runs.entry(run.to_owned()).or_default();
        known.heard = self.heard;
        let mut news = false;
        for (class, chips) in counts {
            let before = known.chips.entry(*class).or_default();
            news |= chips > before;
            *before = (*before).max(*chips);
        }
        news
    }

    /// The classes of which this task's run has as many chips as the task says are wanted.
    pub fn filled(&self, task: &Task) -> BTreeSet<ClassId> {
        match task.run_id.as_deref().and_then(|run| self.runs.get(run)) {
            Some(counted) => filled(&task.target_samples, &counted.chips),
            None => BTreeSet::new(),
        }
    }
}

/// Whether the cell has, by what its task says of it, no parcel of a class that is still wanted: it need not
/// even be looked at.
pub fn leaves_nothing(task: &Task, filled: &BTreeSet<ClassId>) -> bool {
    let drawable = |class: &ClassId| {
        task.sampling_probs.is_empty() || task.sampling_probs.get(class).is_some_and(|chance| *chance > 0.0)
    };
    let mut wanted = task.class_distribution.keys().filter(|class| drawable(class)).peekable();
    wanted.peek().is_some() && wanted.all(|class| filled.contains(class))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(n: u8) -> ClassId {
        ClassId::try_from(n).unwrap()
    }

    fn map(pairs: &[(u8, u64)]) -> BTreeMap<ClassId, u64> {
        pairs.iter().map(|(c, n)| (class(*c), *n)).collect()
    }

    fn task(targets: &[(u8, u64)]) -> Task {
        let json = serde_json::json!({"task_id": 1, "bbox": [0, 40, 0.05, 40.05], "run_id": "r", "schema": 1});
        Task { target_samples: map(targets), ..Task::parse(json.to_string().as_bytes()).unwrap() }
    }

    fn record() -> QuotaRecord {
        QuotaRecord {
            schema: QUOTA_SCHEMA,
            run_id: "r".into(),
            sequence: 3,
            counts: map(&[(1, 9), (2, 0)]),
            targets: map(&[(1, 9), (2, 5)]),
            filled: [class(1)].into(),
        }
    }

    #[test]
    fn travels_unchanged_and_what_is_no_record_is_refused() {
        let raw = record().to_json().unwrap();
        let text =
            r#"{"schema":1,"run_id":"r","sequence":3,"counts":{"1":9,"2":0},"targets":{"1":9,"2":5},"filled":[1]}"#;
        assert_eq!((QuotaRecord::parse(&raw).unwrap(), String::from_utf8(raw).unwrap().as_str()), (record(), text));
        assert!(QuotaRecord::is_key(record().key().as_bytes()) && !QuotaRecord::is_key(b"plan/r"));
        let with = |from: &str, to: &str| QuotaRecord::parse(text.replace(from, to).as_bytes());
        assert!(matches!(with("\"schema\":1", "\"schema\":2"), Err(QuotaError::Schema(2))));
        assert!(matches!(with("\"r\"", "\"../r\""), Err(QuotaError::RunId(_))));
        assert!(matches!(with("[1]", "[0]"), Err(QuotaError::Json(_))));
        assert!(matches!(QuotaRecord::parse(&vec![b' '; MAX_QUOTA_BYTES + 1]), Err(QuotaError::TooLarge(_))));
    }

    #[test]
    fn a_class_is_filled_by_the_task_s_own_target() {
        let mut book = QuotaBook::default();
        assert!(book.note("r", &map(&[(1, 9), (2, 4), (3, 7)])) && !book.note("r", &map(&[(1, 8)])));
        assert_eq!(book.filled(&task(&[(1, 9), (2, 5), (3, 0)])), [class(1)].into(), "target 0 is none");
        assert!(book.filled(&task(&[(1, 10), (2, 5)])).is_empty(), "a raised target opens the class again");
        assert!(book.filled(&Task { run_id: Some("other".into()), ..task(&[(1, 1)]) }).is_empty());
        assert!(book.filled(&Task { run_id: None, ..task(&[(1, 1)]) }).is_empty());
        assert!(book.filled(&task(&[])).is_empty());
    }

    #[test]
    fn a_cell_is_left_alone_only_when_all_its_classes_are_filled() {
        let mut cell = task(&[(1, 1), (2, 1)]);
        let all: BTreeSet<_> = [class(1), class(2)].into();
        assert!(!leaves_nothing(&cell, &all), "a task that says nothing of its cell is looked at");
        cell.class_distribution = map(&[(1, 3), (2, 1), (3, 5)]);
        assert!(!leaves_nothing(&cell, &all), "class 3 is open");
        cell.sampling_probs = [(class(1), 0.5), (class(2), 1.0), (class(3), 0.0)].into();
        assert!(leaves_nothing(&cell, &all), "class 3 is never drawn");
        assert!(!leaves_nothing(&cell, &[class(1)].into()));
    }

    #[test]
    fn a_book_forgets_the_runs_it_heard_of_longest_ago() {
        let mut book = QuotaBook::default();
        book.note("r", &map(&[(1, 5)]));
        for n in 0..MAX_RUNS * 2 {
            book.note(&format!("other{n}"), &map(&[(1, 1)]));
            book.note("r", &map(&[(1, 5)]));
        }
        assert_eq!((book.runs.len(), book.filled(&task(&[(1, 5)])).len()), (MAX_RUNS, 1));
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_records_do_not_matter(
            records in prop::collection::vec(prop::collection::btree_map(1..4u8, 0..20u64, 0..4), 1..12),
            targets in prop::collection::btree_map(1..4u8, 0..20u64, 0..4),
        ) {
            let told = |records: &mut dyn Iterator<Item = &BTreeMap<u8, u64>>| {
                let mut book = QuotaBook::default();
                for record in records {
                    book.note("r", &record.iter().map(|(c, n)| (class(*c), *n)).collect());
                }
                book.filled(&task(&targets.iter().map(|(c, n)| (*c, *n)).collect::<Vec<_>>()))
            };
            let once = told(&mut records.iter());
            prop_assert_eq!(&once, &told(&mut records.iter().rev().chain(&records)));
        }
    }
}
