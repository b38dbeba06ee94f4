//! `rejections.parquet`: one row per parcel of a class, each in exactly one state, with a reason.
//!
//! Contract: rows in order of parcel id. With the parcels at hand every parcel of every class is there and the totals
//! are held against the plan; without them only those that the manifests name. Places are degrees, null for rows that
//! are no parcel and for runs without the parcels.
//! Trap: states are those of the moment; a run that goes on turns `not_done` into others.

use std::collections::{BTreeMap, HashMap};

use arrow_array::builder::{Float64Builder, Int64Builder, StringBuilder, UInt8Builder, UInt64Builder};
use serde::Serialize;

use super::FinishError;
use super::columns::{BATCH, Column, TableWriter, field};
use super::outcomes::Outcomes;
use super::publish::Publication;
use crate::domain::class_table::Lookup;
use crate::domain::classes::ClassId;
use crate::domain::grid::{Cell, Grid};
use crate::domain::parcel::ScannedParcel;
use crate::domain::parcel_state::{ParcelState, Totals};
use crate::domain::plan::{ClassPlan, Plan};
use crate::domain::sampling::is_drawn;
use crate::domain::task::TaskKey;

/// Name of the table.
pub const NAME: &str = "rejections.parquet";

/// Name of the totals.
pub const TOTALS: &str = "dataset-parcels.json";

/// What the plan says, as far as a parcel's state depends on it.
#[derive(Debug)]
pub struct Planned {
    grid: Grid,
    seed: u64,
    tasks: HashMap<Cell, u64>,
    classes: BTreeMap<ClassId, ClassPlan>,
}

impl Planned {
    /// From a plan; its grid must be that of the plan.
    pub fn new(plan: &Plan, grid: Grid) -> Self {
        let middle = |[w, s, e, n]: [f64; 4]| grid.cell_of((w + e) / 2.0, (s + n) / 2.0);
        let tasks = plan.tasks.iter().filter_map(|p| Some((middle(p.task.bbox)?, p.task.task_id))).collect();
        Self { grid, seed: plan.summary.seed, tasks, classes: plan.summary.classes.clone() }
    }
}

/// Why tasks failed that have no manifest.
pub type Failures = HashMap<TaskKey, String>;

#[derive(Default)]
struct Columns {
    parcel: Int64Builder,
    class: UInt8Builder,
    state: StringBuilder,
    reason: StringBuilder,
    task: UInt64Builder,
    run: StringBuilder,
    lon: Float64Builder,
    lat: Float64Builder,
}

/// Totals as they are written.
#[derive(Debug, Serialize)]
pub struct Account {
    /// The run.
    pub run: String,
    /// `all` parcels of the classes, or those `drawn` alone, because no parcels were given.
    pub parcels: &'static str,
    /// Whether every sum meets the plan's; nobody can say without the parcels.
    pub reconciled: Option<bool>,
    /// By class.
    pub classes: BTreeMap<ClassId, ClassAccount>,
    /// What does not meet.
    pub differences: Vec<String>,
}

/// One class's parcels.
#[derive(Debug, Default, Serialize)]
pub struct ClassAccount {
    /// What the plan says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<ClassPlan>,
    /// Its parcels by state and reason.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The table being written.
pub struct RejectionWriter<'a> {
    table: TableWriter,
    columns: Columns,
    rows: usize,
    run: &'a str,
    outcomes: &'a Outcomes,
    /// Of this run, by number.
    failures: HashMap<u64, &'a str>,
    totals: BTreeMap<ClassId, Totals>,
    /// Parcels of the manifests that were met.
    met: usize,
}

impl<'a> RejectionWriter<'a> {
    /// Begins the table of a run.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(
        to: &Publication,
        run: &'a str,
        outcomes: &'a Outcomes,
        failures: &'a Failures,
    ) -> Result<Self, FinishError> {
        let c = Columns::default();
        let fields = vec![
            field("parcel", &c.parcel, false),
            field("class", &c.class, false),
            field("state", &c.state, false),
            field("reason", &c.reason, true),
            field("task", &c.task, true),
            field("run", &c.run, false),
            field("lon", &c.lon, true),
            field("lat", &c.lat, true),
        ];
        let table = TableWriter::begin(to, NAME, fields, Vec::new())?;
        let of_run = failures.iter().filter(|(key, _)| key.run == run);
        let failures = of_run.map(|(key, why)| (key.task, why.as_str())).collect();
        Ok(Self { table, columns: c, rows: 0, run, outcomes, failures, totals: BTreeMap::new(), met: 0 })
    }

    /// Adds a row of the layer; one without a class is in nobody's plan.
    ///
    /// # Errors
    /// As the system says.
    pub fn scanned(&mut self, planned: &Planned, parcel: &ScannedParcel) -> Result<(), FinishError> {
        let Lookup::Class(class) = parcel.class else { return Ok(()) };
        let (lon, lat) = match parcel.place {
            Ok([lon, lat]) => (Some(lon), Some(lat)),
            Err(reason) => return self.row(parcel.id, class, (ParcelState::Unusable, reason.as_str()), None, None),
        };
        let cell = lon.zip(lat).and_then(|(lon, lat)| planned.grid.cell_of(lon, lat));
        let chance = planned.classes.get(&class).map_or(0.0, |c| c.probability.unwrap_or(1.0));
        let Some(task) = cell.and_then(|cell| planned.tasks.get(&cell)).copied() else {
            let reason = if cell.is_none() {
                return self.row(parcel.id, class, (ParcelState::Unusable, "off_the_map"), None, None);
            } else if chance > 0.0 {
                "few_parcels"
            } else {
                "few_parcels_or_no_wanted_class"
            };
            return self.row(parcel.id, class, (ParcelState::NoTask, reason), None, lon.zip(lat));
        };
        let (outcomes, failures) = (self.outcomes, &self.failures);
        let state = if !is_drawn(planned.seed, parcel.id, chance) {
            (ParcelState::NotDrawn, "")
        } else if let Some(outcome) = outcomes.of(parcel.id) {
            self.met += 1;
            (outcome.state, outcome.reason)
        } else if let Some(status) = outcomes.status(task) {
            let state = if status.is_skip() { ParcelState::Skipped } else { ParcelState::Unaccounted };
            (state, status.as_str())
        } else if let Some(reason) = failures.get(&task) {
            (ParcelState::Failed, *reason)
        } else {
            (ParcelState::NotDone, "")
        };
        self.row(parcel.id, class, state, Some(task), lon.zip(lat))
    }

    /// Adds every parcel that the manifests name, for want of the others.
    ///
    /// # Errors
    /// As the system says.
    pub fn drawn_alone(&mut self) -> Result<(), FinishError> {
        let outcomes = self.outcomes;
        outcomes.iter().try_for_each(|o| self.row(o.parcel, o.class, (o.state, o.reason), Some(o.task), None))
    }

    fn row(
        &mut self,
        parcel: i64,
        class: ClassId,
        (state, reason): (ParcelState, &str),
        task: Option<u64>,
        place: Option<(f64, f64)>,
    ) -> Result<(), FinishError> {
        let c = &mut self.columns;
        c.parcel.append_value(parcel);
        c.class.append_value(class.get());
        c.state.append_value(state.as_str());
        c.reason.append_option((!reason.is_empty()).then_some(reason));
        c.task.append_option(task);
        c.run.append_value(self.run);
        c.lon.append_option(place.map(|p| p.0));
        c.lat.append_option(place.map(|p| p.1));
        self.totals.entry(class).or_default().add(state, reason);
        self.rows += 1;
        if self.rows == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FinishError> {
        self.rows = 0;
        let c = &mut self.columns;
        let columns = vec![
            c.parcel.take(),
            c.class.take(),
            c.state.take(),
            c.reason.take(),
            c.task.take(),
            c.run.take(),
            c.lon.take(),
            c.lat.take(),
        ];
        self.table.write(columns)
    }

    /// Ends the table and holds the totals against the plan, if there is one.
    ///
    /// # Errors
    /// As the system says.
    pub fn end(mut self, to: &mut Publication, planned: Option<&Planned>) -> Result<Account, FinishError> {
        if self.rows > 0 {
            self.flush()?;
        }
        self.table.end(to)?;
        let mut account = Account {
            run: self.run.to_owned(),
            parcels: if planned.is_some() { "all" } else { "drawn" },
            reconciled: None,
            classes: BTreeMap::new(),
            differences: Vec::new(),
        };
        if let Some(planned) = planned {
            for (class, plan) in &planned.classes {
                let totals = self.totals.remove(class).unwrap_or_default();
                let found = totals.differences(plan);
                account.differences.extend(found.into_iter().map(|d| format!("class {class}: {d}")));
                account.classes.insert(*class, ClassAccount { plan: Some(plan.clone()), totals });
            }
            if self.met != self.outcomes.len() {
                let strange = self.outcomes.len() - self.met;
                account.differences.push(format!("{strange} parcels of the manifests were not drawn by the plan"));
            }
            account.reconciled = Some(account.differences.is_empty());
        }
        for (class, totals) in self.totals {
            account.classes.insert(class, ClassAccount { plan: None, totals });
        }
        to.put_json(TOTALS, &account)?;
        Ok(account)
    }
}
