//! Second stage: which parcels of the cell become chips, and which shapes are labels.
//!
//! Contract: the draw depends on the run's seed and the parcels alone; a cell with nothing to do ends here, with the
//! original pipeline's statuses, and costs no HTTP request. A parcel that is drawn and may not be a centre (its shape is
//! invalid, it is too small, or too near another) is rejected with the reason and keeps its number, so that the others'
//! names do not depend on it; so do parcels whose class has enough chips. Shapes leave this stage valid. Units: metres, square metres in the parcel's UTM zone.
//! Trap: parcels around the cell are drawn too, because they may keep one inside at a distance.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use quick_cache::sync::Cache;

use super::cpu::CpuPool;
use super::lane::{Credited, Lane};
use super::messages::{Conclude, Done, Drawn, FindScenes, Job, SampleParcels};
use super::quotas::Quotas;
use super::ticket::Outcome;
use crate::adapters::crs::{Crs, Transform};
use crate::adapters::failpoint::reach;
use crate::adapters::parcels::ParcelSource;
use crate::adapters::shapes;
use crate::domain::classes::ClassId;
use crate::domain::failure::Failure;
use crate::domain::manifest::Rejection;
use crate::domain::parcel::Parcel;
use crate::domain::polygon::Polygon;
use crate::domain::quota::QUOTA;
use crate::domain::result::Status;
use crate::domain::sampling::is_drawn;
use crate::domain::task::Task;
use crate::domain::thinning::makes_way;
use crate::domain::utm;

/// What the sampler needs.
#[derive(Clone)]
pub struct Sampler {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The parcels.
    pub parcels: Arc<dyn ParcelSource>,
    /// Cells with fewer parcels are skipped.
    pub min_parcels: u64,
    /// How far around the cell parcels are needed, metres.
    pub margin_m: f64,
    /// What a parcel must be to be a centre or a label.
    pub rules: ParcelRules,
    /// Which classes have enough chips.
    pub quotas: Quotas,
    /// Shapes known to be valid.
    pub valid: Arc<Valid>,
    /// Where the work is done.
    pub cpu: CpuPool,
    /// Next stage.
    pub scenes: Lane<FindScenes>,
    /// Where a task with nothing to do ends.
    pub conclude: Lane<Conclude>,
}

/// Parcels whose shapes were found valid: those around a cell come again with its neighbours.
#[derive(Debug)]
pub struct Valid(Cache<i64, ()>);

impl Default for Valid {
    fn default() -> Self {
        Self(Cache::new(VALID_PARCELS))
    }
}

/// Parcels that are remembered, some 40 bytes each.
const VALID_PARCELS: usize = 65_536;

/// What a parcel must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParcelRules {
    /// Whether an invalid shape is mended; else its parcel is neither centre nor label.
    pub repair: bool,
    /// Smallest area of a centre, square metres.
    pub min_area_m2: f64,
    /// Smallest distance between centres, metres.
    pub min_distance_m: f64,
}

impl Actor for Sampler {
    type Context = Context<Self>;
}

impl Handler<Credited<SampleParcels>> for Sampler {
    type Result = ();

    fn handle(&mut self, asked: Credited<SampleParcels>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.job.span("sampler"));
        asked.work(span, |message| this.sample(message.job));
    }
}

/// What a cell gives.
enum Draw {
    Nothing(Status),
    Some { drawn: Vec<Drawn>, left_out: Vec<Rejection>, parcels: Vec<Parcel> },
}

impl Sampler {
    async fn sample(self, mut job: Job) {
        if job.cancel.is_cancelled() {
            return job.ticket.settle(Outcome::Abandoned);
        }
        reach("sampler.before");
        let (parcels, margin, min, rules) = (self.parcels.clone(), self.margin_m, self.min_parcels, self.rules);
        let (task, seed, filled) = (job.task.clone(), job.seed, self.quotas.filled(&job.task));
        let valid = self.valid.clone();
        let work = move || {
            let around = parcels.cell(task.bbox, margin)?;
            let crs = parcels.crs().clone();
            Ok(draw(&task, seed, &Drawing { min, rules, crs, filled, valid }, around))
        };
        let Some(drawn) = self.cpu.run(work).await else { return };
        match drawn.map_err(|e: crate::adapters::parcels::ParcelError| parcel_failure(&e)) {
            Ok(Draw::Some { drawn, left_out, .. }) if drawn.is_empty() => {
                job.left_out = left_out;
                let done = Done { job, outcomes: Vec::new(), skipped: Some(Status::SkippedSampling) };
                self.conclude.send(Conclude { done }).await;
            }
            Ok(Draw::Some { drawn, left_out, parcels }) => {
                reach("sampler.after");
                tracing::debug!(chips = drawn.len(), left_out = left_out.len(), "parcels drawn");
                job.left_out = left_out;
                self.scenes.send(FindScenes { job, drawn, parcels: Arc::new(parcels) }).await;
            }
            Ok(Draw::Nothing(Status::SkippedQuota)) => job.unwanted(&self.worker),
            Ok(Draw::Nothing(status)) => {
                let done = Done { job, outcomes: Vec::new(), skipped: Some(status) };
                self.conclude.send(Conclude { done }).await;
            }
            Err(failure) => job.fail(&self.worker, failure, Status::Failed),
        }
    }
}

/// What decides a draw beside the task.
struct Drawing {
    min: u64,
    rules: ParcelRules,
    crs: Crs,
    filled: BTreeSet<ClassId>,
    valid: Arc<Valid>,
}

/// Draws the parcels of the cell from all those around it. `around` is ascending by id; what is kept of it
/// are the labelled parcels.
fn draw(task: &Task, seed: u64, how: &Drawing, mut around: Vec<Parcel>) -> Draw {
    let rules = how.rules;
    let mine = |p: &Parcel| task.holds(p.lonlat[0], p.lonlat[1]);
    let inside = || around.iter().filter(|p| mine(p));
    if (inside().count() as u64) < how.min {
        return Draw::Nothing(Status::SkippedFewPolygons);
    }
    let wanted =
        |p: &Parcel| p.class.is_some_and(|c| task.sampling_probs.is_empty() || task.sampling_probs.contains_key(&c));
    if !inside().any(wanted) {
        return Draw::Nothing(Status::SkippedNoTargetClasses);
    }
    let chance = |class| match task.sampling_probs.is_empty() {
        true => Some(1.0),
        false => task.sampling_probs.get(&class).copied(),
    };
    let is_chosen = |p: &Parcel| p.class.and_then(chance).is_some_and(|chance| is_drawn(seed, p.id, chance));
    let chosen: HashSet<i64> = around.iter().filter(|p| is_chosen(p)).map(|p| p.id).collect();
    if !inside().any(|p| chosen.contains(&p.id)) {
        return Draw::Nothing(Status::SkippedSampling);
    }
    let centres: Vec<(Drawn, bool)> = around
        .iter()
        .filter(|p| chosen.contains(&p.id))
        .filter_map(|p| Some((p, p.class?)))
        .scan(0, |next, (p, class)| {
            let chip = *next;
            *next += u32::from(mine(p));
            Some((Drawn { chip, parcel: p.id, class, point: p.point, lonlat: p.lonlat }, mine(p)))
        })
        .collect();
    around.retain(|p| p.class.is_some());
    let mut unfit = mend(&mut around, rules, &how.valid);
    if rules.min_area_m2 > 0.0 {
        let small = |p: &&Parcel| chosen.contains(&p.id) && !unfit.contains_key(&p.id);
        let areas: Vec<_> = around.iter().filter(small).filter_map(|p| Some((p.id, area(p, &how.crs)?))).collect();
        let small = areas.into_iter().filter(|(_, area)| *area < rules.min_area_m2);
        unfit.extend(small.map(|(id, area)| (id, ("too_small", format!("{area:.0} square metres")))));
    }
    if rules.min_distance_m > 0.0 {
        let fit = centres.iter().filter(|(d, _)| !unfit.contains_key(&d.parcel));
        let points: Vec<_> = fit.map(|(d, _)| (d.parcel, d.lonlat)).collect();
        let lost = makes_way(&points, seed, rules.min_distance_m).into_iter();
        unfit.extend(lost.map(|(id, winner)| (id, ("too_close", format!("parcel {winner} is nearer than allowed")))));
    }
    let (mut drawn, mut left_out) = (Vec::new(), Vec::new());
    for (centre, _) in centres.into_iter().filter(|(_, mine)| *mine) {
        let enough = || how.filled.contains(&centre.class).then(|| (QUOTA, String::new()));
        match unfit.remove(&centre.parcel).or_else(enough) {
            None => drawn.push(centre),
            Some((reason, detail)) => {
                let Drawn { parcel, class, .. } = centre;
                let (reason, season) = (reason.to_owned(), String::new());
                left_out.push(Rejection { parcel, class, season, reason, detail });
            }
        }
    }
    if drawn.is_empty() && left_out.iter().any(|r| r.reason == QUOTA) {
        return Draw::Nothing(Status::SkippedQuota);
    }
    Draw::Some { drawn, left_out, parcels: around }
}

/// Reasons against a parcel as a centre, by id.
type Unfit = HashMap<i64, (&'static str, String)>;

/// Mends invalid shapes, or takes them out; those taken out are told.
fn mend(parcels: &mut Vec<Parcel>, rules: ParcelRules, valid: &Valid) -> Unfit {
    let mut unfit = Unfit::new();
    parcels.retain_mut(|parcel| {
        if valid.0.get(&parcel.id).is_some() {
            return true;
        }
        if shapes::is_valid(&parcel.shape) {
            valid.0.insert(parcel.id, ());
            return true;
        }
        let mended = if rules.repair { shapes::repaired(&parcel.shape) } else { None };
        match mended {
            Some(shape) => parcel.shape = Arc::new(shape),
            None => {
                unfit.insert(parcel.id, ("invalid_geometry", "its rings cross, or enclose nothing".to_owned()));
            }
        }
        !unfit.contains_key(&parcel.id)
    });
    unfit
}

/// Square metres in the parcel's UTM zone; `None` when it has no place there.
fn area(parcel: &Parcel, crs: &Crs) -> Option<f64> {
    let to_zone = Transform::new(crs, &Crs::epsg(utm::epsg(parcel.lonlat)).ok()?).ok()?;
    let mut shape = Polygon::clone(&parcel.shape);
    to_zone.shape_or_nan(shape.points_mut()).ok()?;
    Some(shape.area()).filter(|area| area.is_finite())
}

fn parcel_failure(error: &crate::adapters::parcels::ParcelError) -> Failure {
    Failure { severity: error.severity(), stage: "sampler", reason: error.to_string(), retry_after_s: None }
}
