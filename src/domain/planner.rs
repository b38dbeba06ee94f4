//! From one pass over the parcels to numbered tasks in partitions.
//!
//! Units: degrees for cells, chips for expectations and targets.
//! Contract: the plan depends on the set of parcels and the settings, not on the order in which the parcels
//! came. Memory grows with the number of cells, not of parcels. Expected chips are exact: the same hash that
//! the workers use is asked for every parcel.
//! Trap: a cell's `polygon_count` counts parcels of whatever class by representative point; a worker that
//! counts envelopes touching the cell gets more.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use serde::Serialize;

use super::class_table::Lookup;
use super::classes::ClassId;
use super::grid::{Cell, Grid};
use super::hilbert::Frame;
use super::parcel::{Reject, ScannedParcel};
use super::plan::{
    ClassPlan, FEW_PARCELS, MAX_UNKNOWN_LABELS, NO_CLASS, Order, PartitionLoad, Plan, PlanError, PlanSettings,
    PlanSummary, PlannedTask, Sampling, TOP_UNKNOWN,
};
use super::rarest;
use super::sampling::is_drawn;
use super::task::{SCHEMA, Task, fnv1a};
use super::territory::{Stop, lay_out};

/// What is known of one cell.
#[derive(Debug, Clone, Default)]
struct Tally {
    parcels: u64,
    classes: Vec<ClassTally>,
}

#[derive(Debug, Clone, Copy)]
struct ClassTally {
    class: ClassId,
    parcels: u64,
    drawn: u64,
}

/// Collects parcels; see the module's contract.
#[derive(Debug)]
pub struct Planner {
    settings: PlanSettings,
    grid: Grid,
    chance: [f64; 256],
    cells: HashMap<Cell, Tally>,
    rows: u64,
    excluded: u64,
    unknown: u64,
    rejected: BTreeMap<Reject, u64>,
    labels: HashMap<Arc<str>, u64>,
}

impl Planner {
    /// A planner that has seen nothing yet.
    ///
    /// # Errors
    /// When a setting is impossible or the probabilities do not fit the classes.
    pub fn new(settings: PlanSettings) -> Result<Self, PlanError> {
        let grid = Grid::new(settings.step)?;
        settings.check()?;
        let mut chance = [0.0; 256];
        for class in settings.classes.keys() {
            chance[usize::from(class.get())] = match &settings.sampling {
                Sampling::Basic => 1.0,
                Sampling::Balanced { probabilities, .. } => probabilities.get(class).copied().unwrap_or(0.0),
            };
        }
        Ok(Self {
            settings,
            grid,
            chance,
            cells: HashMap::new(),
            rows: 0,
            excluded: 0,
            unknown: 0,
            rejected: BTreeMap::new(),
            labels: HashMap::new(),
        })
    }

    /// Counts one row of the layer.
    pub fn add(&mut self, parcel: &ScannedParcel) {
        self.rows += 1;
        let cell = parcel.place.and_then(|[lon, lat]| self.grid.cell_of(lon, lat).ok_or(Reject::OffTheMap));
        let cell = match cell {
            Ok(cell) => cell,
            Err(reason) => {
                *self.rejected.entry(reason).or_default() += 1;
                return;
            }
        };
        let tally = self.cells.entry(cell).or_default();
        tally.parcels += 1;
        match parcel.class {
            Lookup::Class(class) => {
                let drawn = is_drawn(self.settings.seed, parcel.id, self.chance[usize::from(class.get())]);
                tally.count(class, drawn);
            }
            Lookup::Excluded => self.excluded += 1,
            Lookup::Unknown => self.count_unknown(parcel.label.as_ref()),
        }
    }

    fn chips_per_parcel(&self) -> u64 {
        self.settings.seasons.chips_per_parcel() as u64
    }

    /// Chance of a parcel of the class to be drawn.
    fn chance_of(&self, class: ClassId) -> f64 {
        self.chance[usize::from(class.get())]
    }

    fn count_unknown(&mut self, label: Option<&Arc<str>>) {
        self.unknown += 1;
        let Some(label) = label else { return };
        if let Some(n) = self.labels.get_mut(label) {
            *n += 1;
        } else if self.labels.len() < MAX_UNKNOWN_LABELS {
            self.labels.insert(Arc::clone(label), 1);
        }
    }

    /// Lays out the tasks.
    ///
    /// # Errors
    /// When there is nothing to do; the message says what to look at.
    pub fn finish(self) -> Result<Plan, PlanError> {
        let parcels: u64 = self.cells.values().map(|t| t.parcels).sum();
        if parcels == 0 {
            return Err(PlanError::NoParcels { rows: self.rows, reasons: list(&self.rejected) });
        }
        let mut classes = self.class_plans();
        let unknown_codes = self.unknown_codes();
        if classes.values().all(|c| c.parcels == 0) {
            let examples: Vec<&str> = unknown_codes.iter().take(5).map(|(label, _)| label.as_str()).collect();
            let (excluded, unknown, examples) = (self.excluded, self.unknown, examples.join(", "));
            return Err(PlanError::NoClass { parcels, excluded, unknown, examples });
        }
        let (kept, dropped_cells) = self.choose_cells()?;
        for tally in kept.iter().flat_map(|(_, t)| &t.classes) {
            if let Some(plan) = classes.get_mut(&tally.class) {
                plan.planned += tally.parcels;
                plan.expected += tally.drawn * self.chips_per_parcel();
                plan.cells += 1;
            }
        }
        for (class, plan) in &mut classes {
            plan.target = self.target(*class, plan);
        }
        let along = along_the_curve(&kept);
        let mut tasks = self.number(&along, &classes);
        let run_id = self.settings.run_id.clone().unwrap_or_else(|| self.derive_run_id(&tasks));
        for planned in &mut tasks {
            planned.task.run_id = Some(run_id.clone());
        }
        let tasks = match self.settings.order {
            Order::Space => self.swept(tasks, &along),
            Order::Rarest => self.rarest_first(tasks, &along, &classes),
        };
        let summary = PlanSummary {
            run_id,
            seed: self.settings.seed,
            grid_step: self.settings.step,
            rows: self.rows,
            parcels,
            excluded: self.excluded,
            unknown: self.unknown,
            tasks: tasks.len() as u64,
            expected: tasks.iter().map(|t| t.expected_chips).sum(),
            classes,
            rejected: self.rejected.iter().map(|(r, n)| (r.as_str().to_owned(), *n)).collect(),
            dropped_cells,
            unknown_codes,
            partitions: loads(&tasks, self.settings.partitions),
        };
        Ok(Plan { summary, tasks })
    }

    fn class_plans(&self) -> BTreeMap<ClassId, ClassPlan> {
        let mut plans: BTreeMap<ClassId, ClassPlan> = BTreeMap::new();
        for (class, name) in &self.settings.classes {
            let probability = match &self.settings.sampling {
                Sampling::Basic => None,
                Sampling::Balanced { .. } => Some(self.chance_of(*class)),
            };
            let plan = ClassPlan {
                name: name.clone(),
                parcels: 0,
                planned: 0,
                cells: 0,
                probability,
                expected: 0,
                target: None,
            };
            plans.insert(*class, plan);
        }
        for tally in self.cells.values().flat_map(|t| &t.classes) {
            if let Some(plan) = plans.get_mut(&tally.class) {
                plan.parcels += tally.parcels;
            }
        }
        plans
    }

    /// `min(quota or max_target, floor(parcels x probability x conversion_rate))`, parcels being those of the tasks.
    fn target(&self, class: ClassId, plan: &ClassPlan) -> Option<u64> {
        let Sampling::Balanced { conversion_rate, max_target, quotas, .. } = &self.settings.sampling else {
            return None;
        };
        let most = quotas.get(&class).unwrap_or(max_target);
        let wanted =
            plan.planned as f64 * plan.probability? * conversion_rate * self.settings.seasons.chips_per_parcel() as f64;
        // A product such as 100 x 0.2 x 0.35 may miss its whole number by one ulp; floor must not turn 7 into 6.
        Some((*most).min((wanted * (1.0 + 4.0 * f64::EPSILON)).floor() as u64))
    }

    /// The cells that become tasks, in order of the cell, and the others counted by reason.
    #[allow(clippy::type_complexity)]
    fn choose_cells(&self) -> Result<(Vec<(Cell, &Tally)>, BTreeMap<String, u64>), PlanError> {
        let (mut few, mut no_class) = (0u64, 0u64);
        let mut kept: Vec<(Cell, &Tally)> = Vec::new();
        for (cell, tally) in &self.cells {
            if tally.parcels < self.settings.min_parcels {
                few += 1;
            } else if !tally.classes.iter().any(|c| self.chance_of(c.class) > 0.0) {
                no_class += 1;
            } else {
                kept.push((*cell, tally));
            }
        }
        if kept.is_empty() {
            return Err(PlanError::NoTasks { few, min: self.settings.min_parcels, no_class });
        }
        kept.sort_unstable_by_key(|(cell, _)| *cell);
        Ok((kept, BTreeMap::from([(FEW_PARCELS.to_owned(), few), (NO_CLASS.to_owned(), no_class)])))
    }

    /// Tasks numbered along the curve. The number decides a task's season and name, so it must not follow from the order
    /// in which tasks are visited, which follows from the season.
    fn number(&self, along: &[Placed<'_>], classes: &BTreeMap<ClassId, ClassPlan>) -> Vec<PlannedTask> {
        let sampling_probs: BTreeMap<ClassId, f64> =
            classes.iter().filter_map(|(c, p)| Some((*c, p.probability?))).collect();
        let target_samples: BTreeMap<ClassId, u64> =
            classes.iter().filter_map(|(c, p)| Some((*c, p.target?))).collect();
        let planned = along.iter().zip(1u64..).map(|((_, cell, tally), task_id)| {
            let task = Task {
                task_id,
                bbox: self.grid.bbox(*cell),
                grid_step: self.settings.step,
                polygon_count: tally.parcels,
                class_distribution: tally.classes.iter().map(|c| (c.class, c.parcels)).collect(),
                sampling_probs: sampling_probs.clone(),
                target_samples: target_samples.clone(),
                schema: Some(SCHEMA),
                run_id: None,
                seed: Some(self.settings.seed),
                attempt: 0,
            };
            let drawn: u64 = tally.classes.iter().map(|c| c.drawn).sum();
            PlannedTask { task, partition: 0, expected_chips: drawn * self.chips_per_parcel() }
        });
        planned.collect()
    }

    /// The same tasks in the order of visits, cut into partitions.
    fn swept(&self, tasks: Vec<PlannedTask>, along: &[Placed<'_>]) -> Vec<PlannedTask> {
        let stop = |(planned, (_, cell, _)): (&PlannedTask, &Placed<'_>)| Stop {
            task_id: planned.task.task_id,
            cell: *cell,
            expected: planned.expected_chips,
        };
        let stops: Vec<Stop> = tasks.iter().zip(along).map(stop).collect();
        let order = lay_out(&stops, &self.grid, &self.settings.seasons, self.settings.seed, self.settings.partitions);
        let mut tasks: Vec<Option<PlannedTask>> = tasks.into_iter().map(Some).collect();
        let placed = order.into_iter().filter_map(|(at, partition)| Some((tasks[at].take()?, partition)));
        placed.map(|(planned, partition)| PlannedTask { partition, ..planned }).collect()
    }

    /// The same tasks in the order of [`rarest`], dealt out to the partitions in turn.
    fn rarest_first(
        &self,
        tasks: Vec<PlannedTask>,
        along: &[Placed<'_>],
        classes: &BTreeMap<ClassId, ClassPlan>,
    ) -> Vec<PlannedTask> {
        let Sampling::Balanced { conversion_rate, .. } = self.settings.sampling else {
            return self.swept(tasks, along);
        };
        let wanted = classes.iter().filter_map(|(class, plan)| Some((*class, plan.target? as f64 / conversion_rate)));
        let drawn = |(_, _, tally): &Placed<'_>| tally.classes.iter().map(|c| (c.class, c.drawn)).collect();
        let drawn: Vec<Vec<(ClassId, u64)>> = along.iter().map(drawn).collect();
        let turns = (0..self.settings.partitions).cycle();
        let mut tasks: Vec<Option<PlannedTask>> = tasks.into_iter().map(Some).collect();
        let chosen = rarest::order(&drawn, &wanted.collect()).into_iter().filter_map(|i| tasks[i].take());
        chosen.zip(turns).map(|(planned, partition)| PlannedTask { partition, ..planned }).collect()
    }

    /// Hash of the settings' context and of every task as it will be sent; the tasks carry seed, step,
    /// probabilities and targets themselves. Partitions are left out: they do not change the dataset.
    fn derive_run_id(&self, tasks: &[PlannedTask]) -> String {
        let sent: Vec<u64> = tasks.iter().map(|t| hash_of(&(&t.task, t.expected_chips))).collect();
        let (context, names) = (&self.settings.context, &self.settings.classes);
        format!("{:016x}", hash_of(&(context, names, self.settings.min_parcels, sent)))
    }

    fn unknown_codes(&self) -> Vec<(String, u64)> {
        let mut codes: Vec<(&Arc<str>, u64)> = self.labels.iter().map(|(l, n)| (l, *n)).collect();
        codes.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        codes.into_iter().take(TOP_UNKNOWN).map(|(label, n)| (label.to_string(), n)).collect()
    }
}

impl Tally {
    fn count(&mut self, class: ClassId, drawn: bool) {
        let drawn = u64::from(drawn);
        match self.classes.iter_mut().find(|c| c.class == class) {
            Some(tally) => {
                tally.parcels += 1;
                tally.drawn += drawn;
            }
            None => self.classes.push(ClassTally { class, parcels: 1, drawn }),
        }
    }
}

/// Hash of a value's JSON. Not by way of [`serde_json::Value`], where the order of fields, and with it the run id, would
/// hang on a feature that some dependency may switch.
fn hash_of(value: &impl Serialize) -> u64 {
    #[expect(clippy::expect_used, reason = "numbers, texts and maps with numbers or texts for keys have a JSON")]
    let json = serde_json::to_vec(value).expect("a plan has a JSON");
    fnv1a(&json)
}

/// A cell with its place along the Hilbert curve.
type Placed<'a> = (u64, Cell, &'a Tally);

fn along_the_curve<'a>(kept: &[(Cell, &'a Tally)]) -> Vec<Placed<'a>> {
    let frame = Frame::around(kept.iter().map(|(cell, _)| *cell));
    let mut order: Vec<Placed<'a>> = kept.iter().map(|(cell, t)| (frame.key(*cell), *cell, *t)).collect();
    order.sort_unstable_by_key(|(key, cell, _)| (*key, *cell));
    order
}

fn loads(tasks: &[PlannedTask], partitions: i32) -> Vec<PartitionLoad> {
    let mut loads = vec![PartitionLoad::default(); usize::try_from(partitions).unwrap_or(0)];
    for planned in tasks {
        if let Some(load) = usize::try_from(planned.partition).ok().and_then(|p| loads.get_mut(p)) {
            load.tasks += 1;
            load.expected += planned.expected_chips;
        }
    }
    loads
}

fn list(rejected: &BTreeMap<Reject, u64>) -> String {
    let parts: Vec<String> = rejected.iter().map(|(r, n)| format!("{r}: {n}")).collect();
    if parts.is_empty() { "it is empty".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "planner_tests.rs"]
mod tests;
