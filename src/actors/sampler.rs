//! Second stage: which parcels of the cell become chips.
//!
//! Contract: the draw depends on the run's seed and the parcel's id alone; a cell with nothing to do ends
//! here, with the original pipeline's statuses, and costs no HTTP request. Of what is drawn, parcels whose class has
//! enough chips are left out afterwards, so the others keep their numbers: what is made then is a part of what
//! would have been made, byte for byte.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::cpu::CpuPool;
use super::lane::{Credited, Lane};
use super::messages::{Conclude, Done, Drawn, FindScenes, Job, SampleParcels};
use super::quotas::Quotas;
use super::ticket::Outcome;
use crate::adapters::failpoint::reach;
use crate::adapters::parcels::ParcelSource;
use crate::domain::classes::ClassId;
use crate::domain::failure::Failure;
use crate::domain::manifest::Rejection;
use crate::domain::parcel::Parcel;
use crate::domain::quota::QUOTA;
use crate::domain::result::Status;
use crate::domain::sampling::is_drawn;
use crate::domain::task::Task;

/// What the sampler needs.
#[derive(Clone)]
pub struct Sampler {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The parcels.
    pub parcels: Arc<dyn ParcelSource>,
    /// Cells with fewer parcels are skipped.
    pub min_parcels: u64,
    /// How far around the cell labels are needed, metres.
    pub margin_m: f64,
    /// Which classes have enough chips.
    pub quotas: Quotas,
    /// Where the work is done.
    pub cpu: CpuPool,
    /// Next stage.
    pub scenes: Lane<FindScenes>,
    /// Where a task with nothing to do ends.
    pub conclude: Lane<Conclude>,
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
        let (parcels, margin, min) = (self.parcels.clone(), self.margin_m, self.min_parcels);
        let (task, seed, filled) = (job.task.clone(), job.seed, self.quotas.filled(&job.task));
        let work = move || {
            let around = parcels.cell(task.bbox, margin)?;
            Ok(draw(&task, seed, min, &filled, around))
        };
        let Some(drawn) = self.cpu.run(work).await else { return };
        match drawn.map_err(|e: crate::adapters::parcels::ParcelError| parcel_failure(&e)) {
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

/// Draws the parcels of the cell from all those around it. `around` is ascending by id; what is kept of it
/// are the labelled parcels. Drawn parcels of the classes `filled` are left out.
fn draw(task: &Task, seed: u64, min_parcels: u64, filled: &BTreeSet<ClassId>, mut around: Vec<Parcel>) -> Draw {
    let inside = around.iter().filter(|p| task.holds(p.lonlat[0], p.lonlat[1]));
    if (inside.clone().count() as u64) < min_parcels {
        return Draw::Nothing(Status::SkippedFewPolygons);
    }
    let wanted =
        |p: &&Parcel| p.class.is_some_and(|c| task.sampling_probs.is_empty() || task.sampling_probs.contains_key(&c));
    if !inside.clone().any(|p| wanted(&p)) {
        return Draw::Nothing(Status::SkippedNoTargetClasses);
    }
    let drawn: Vec<Drawn> = inside
        .filter_map(|p| Some((p, p.class?)))
        .filter(|(p, class)| {
            let chance =
                if task.sampling_probs.is_empty() { Some(1.0) } else { task.sampling_probs.get(class).copied() };
            chance.is_some_and(|chance| is_drawn(seed, p.id, chance))
        })
        .zip(0..)
        .map(|((p, class), chip)| Drawn { chip, parcel: p.id, class, point: p.point, lonlat: p.lonlat })
        .collect();
    if drawn.is_empty() {
        return Draw::Nothing(Status::SkippedSampling);
    }
    let (left_out, drawn): (Vec<_>, Vec<_>) = drawn.into_iter().partition(|d| filled.contains(&d.class));
    if drawn.is_empty() {
        return Draw::Nothing(Status::SkippedQuota);
    }
    let left_out = left_out.iter().map(|d| Rejection {
        parcel: d.parcel,
        class: d.class,
        reason: QUOTA.into(),
        detail: String::new(),
    });
    let left_out = left_out.collect();
    around.retain(|p| p.class.is_some());
    Draw::Some { drawn, left_out, parcels: around }
}

fn parcel_failure(error: &crate::adapters::parcels::ParcelError) -> Failure {
    Failure { severity: error.severity(), stage: "sampler", reason: error.to_string(), retry_after_s: None }
}
