//! Third stage: which scenes can give each chip, best first.
//!
//! Contract: the search ([`super::finder`]) is made only as far as each chip needs a first scene; the pixels stage goes on
//! with it for chips whose scenes turn out to be cloudy or cut off. Within a step the least cloudy scene comes first.
//! Whether every pixel of a window is valid only the pixels can say (a footprint's edges are straight in degrees, a
//! tile's in metres). Windows are cut in the scene's own UTM zone, so neighbouring parcels may get chips of different
//! zones. Trap: with a chip per season a parcel gives several chips of one number.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::finder::Finder;
use super::lane::{Credited, Lane};
use super::messages::{ChipOutcome, ChipPlan, Conclude, Drawn, Fan, FindScenes, Job, ReadWindows};
use super::retry::GiveUp;
use super::ticket::Outcome;
use crate::adapters::failpoint::reach;
use crate::domain::manifest::Rejection;
use crate::domain::result::Status;

/// What the scenes stage needs.
#[derive(Clone)]
pub struct Scenes {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The search.
    pub finder: Arc<Finder>,
    /// Scenes that may be looked at for one chip.
    pub max_scenes: usize,
    /// Next stage.
    pub pixels: Lane<ReadWindows>,
    /// Where a task without a chip ends.
    pub conclude: Lane<Conclude>,
}

impl Actor for Scenes {
    type Context = Context<Self>;
}

impl Handler<Credited<FindScenes>> for Scenes {
    type Result = ();

    fn handle(&mut self, asked: Credited<FindScenes>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.job.span("scenes"));
        asked.work(span, |message| this.find(message));
    }
}

impl Scenes {
    async fn find(self, asked: FindScenes) {
        let FindScenes { job, drawn, parcels } = asked;
        reach("scenes.before");
        let mut plans = self.plans(&job, &drawn);
        match self.finder.provide(&job, &mut plans).await {
            Ok(()) => {}
            Err(GiveUp::Cancelled) => return job.ticket.settle(Outcome::Abandoned),
            Err(GiveUp::Failed(failure)) => return job.fail(&self.worker, failure, Status::FailedDownload),
        }
        reach("scenes.after");
        let fan = Arc::new(Fan::new(job, plans.len(), parcels));
        let (with, without): (Vec<_>, Vec<_>) = plans.into_iter().partition(|p| p.choice.want().is_some());
        tracing::debug!(chips = with.len(), without_scene = without.len(), "scenes found");
        for plan in without {
            fan.note(plan.drawn.chip, ChipOutcome::Rejected(rejection(&self.finder, &plan)));
        }
        if !with.is_empty() {
            self.pixels.send(ReadWindows { fan, chips: with }).await;
        } else if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }

    /// The chips of the drawn parcels: one each, or one for each season.
    fn plans(&self, job: &Job, drawn: &[Drawn]) -> Vec<ChipPlan> {
        let seasons = |d: &Drawn| self.finder.seasons.of(job.seed, job.task.task_id, d.class);
        let plan = |d: &Drawn, season| ChipPlan::new(d.clone(), season, self.max_scenes);
        drawn.iter().flat_map(|d| seasons(d).into_iter().map(move |season| plan(d, season))).collect()
    }
}

/// Why there is no chip, once every step of the search was made.
pub(super) fn rejection(finder: &Finder, plan: &ChipPlan) -> Rejection {
    let nothing = ("no_scene", "no scene of the seasons holds the whole window".to_owned());
    let (reason, detail) = plan.refused.clone().unwrap_or(nothing);
    Rejection {
        parcel: plan.drawn.parcel,
        class: plan.drawn.class,
        season: finder.seasons.all().get(plan.season).map(|s| s.name.clone()).unwrap_or_default(),
        reason: reason.to_owned(),
        detail,
    }
}
