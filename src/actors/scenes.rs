//! Third stage: which scenes can give each chip, best first.
//!
//! Contract: the original's fallback (the task's season below `max_cloud`, every season below + 10, every
//! season) is walked only as far as a parcel still lacks a scene; within a step the least cloudy scene comes
//! first. A scene can give a chip when the chip's window lies on the scene's grid and its centre lies in the
//! scene's footprint; whether every pixel of the window is valid only the pixels can say (a footprint's
//! edges are straight in degrees, a tile's in metres). Windows are cut in the scene's own UTM zone, so neighbouring parcels may get chips
//! of different zones.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::cpu::CpuPool;
use super::health::Health;
use super::lane::{Credited, Lane};
use super::messages::{Candidate, ChipOutcome, ChipPlan, Conclude, Drawn, Fan, FindScenes, Job, ReadWindows};
use super::retry::{GiveUp, RetryPolicy, retry_on};
use super::ticket::Outcome;
use crate::adapters::catalog::{Catalog, CatalogError};
use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::adapters::failpoint::reach;
use crate::adapters::imagery::Imagery;
use crate::domain::band::Band;
use crate::domain::failure::Failure;
use crate::domain::manifest::Rejection;
use crate::domain::result::Status;
use crate::domain::scene::{PixelGrid, Scene};
use crate::domain::scene_query::SceneQuery;
use crate::domain::season::Seasons;
use crate::domain::window::Window;

/// What the scenes stage needs.
#[derive(Clone)]
pub struct Scenes {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// The catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Opens a header where an item does not state its grid.
    pub imagery: Arc<Imagery>,
    /// CRS of the parcels.
    pub crs: Crs,
    /// Seasons to draw from.
    pub seasons: Arc<Seasons>,
    /// Cloud cover a scene may have at first, percent.
    pub max_cloud: f64,
    /// Collections to search.
    pub collections: Arc<[String]>,
    /// Band whose grid is the chips' grid.
    pub grid_band: Band,
    /// Edge of a chip, pixels.
    pub chip_size: u32,
    /// Retries of the catalog.
    pub retry: RetryPolicy,
    /// Whether the catalog answers at all.
    pub health: Arc<Health>,
    /// Whether the image hosts do.
    pub image_health: Arc<Health>,
    /// Where coordinates are transformed.
    pub cpu: CpuPool,
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
        let plans = match self.plan(&job, drawn).await {
            Ok(plans) => plans,
            Err(GiveUp::Cancelled) => return job.ticket.settle(Outcome::Abandoned),
            Err(GiveUp::Failed(failure)) => return job.fail(&self.worker, failure, Status::FailedDownload),
        };
        reach("scenes.after");
        let fan = Arc::new(Fan::new(job, plans.len(), parcels));
        let (with, without): (Vec<_>, Vec<_>) = plans.into_iter().partition(|p| !p.candidates.is_empty());
        tracing::debug!(chips = with.len(), without_scene = without.len(), "scenes found");
        for plan in without {
            fan.note(plan.drawn.chip, ChipOutcome::Rejected(no_scene(&plan.drawn)));
        }
        if !with.is_empty() {
            self.pixels.send(ReadWindows { fan, chips: with }).await;
        } else if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }

    /// Candidates of every drawn parcel.
    async fn plan(&self, job: &Job, drawn: Vec<Drawn>) -> Result<Vec<ChipPlan>, GiveUp> {
        let mut plans: Vec<_> = drawn.into_iter().map(|drawn| ChipPlan { drawn, candidates: Vec::new() }).collect();
        for step in self.seasons.steps(job.seed, job.task.task_id, self.max_cloud) {
            if plans.iter().all(|p| !p.candidates.is_empty()) {
                break;
            }
            let query = SceneQuery {
                bbox: job.task.bbox,
                intervals: step.intervals,
                max_cloud: step.max_cloud,
                collections: self.collections.to_vec(),
            };
            let find = || async { self.catalog.find(&query).await.map_err(|e| catalog_failure(&e)) };
            let scenes = retry_on(&self.health, self.retry, &job.cancel, find).await?;
            let season: Arc<str> = step.label.as_str().into();
            for scene in scenes {
                self.offer(job, &scene, &season, &mut plans).await?;
            }
        }
        Ok(plans)
    }

    /// Offers one scene to all parcels that had none before this step, or have it as a further choice.
    async fn offer(
        &self,
        job: &Job,
        scene: &Arc<Scene>,
        season: &Arc<str>,
        plans: &mut [ChipPlan],
    ) -> Result<(), GiveUp> {
        let open = |p: &ChipPlan| p.candidates.first().is_none_or(|c| Arc::ptr_eq(&c.season, season));
        let asking: Vec<usize> = (0..plans.len()).filter(|i| open(&plans[*i])).collect();
        let near: Vec<(usize, [f64; 2])> = asking
            .into_iter()
            .filter(|i| scene.holds(plans[*i].drawn.lonlat[0], plans[*i].drawn.lonlat[1]))
            .map(|i| (i, plans[i].drawn.point))
            .collect();
        if near.is_empty() {
            return Ok(());
        }
        let Some(grid) = self.grid(job, scene).await? else { return Ok(()) };
        let (crs, size, scene_of_work) = (self.crs.clone(), self.chip_size, scene.clone());
        let work = move || windows(&crs, &scene_of_work, &grid, size, &near);
        let Some(windows) = self.cpu.run(work).await else {
            return Err(GiveUp::Failed(Failure::fatal("scenes", "placing the windows panicked")));
        };
        for (i, window) in windows.map_err(|e| GiveUp::Failed(crs_failure(&e)))? {
            plans[i].candidates.push(Candidate { scene: scene.clone(), window, season: season.clone() });
        }
        Ok(())
    }

    /// The scene's 10 m grid, from the item or from the header of its first band; `None` when that file is
    /// no use.
    async fn grid(&self, job: &Job, scene: &Scene) -> Result<Option<PixelGrid>, GiveUp> {
        let Some(asset) = scene.asset(self.grid_band) else { return Ok(None) };
        if asset.grid.is_some() {
            return Ok(asset.grid);
        }
        let open = || async { self.imagery.open(&asset.href).await.map_err(|e| e.failure()) };
        match retry_on(&self.image_health, self.retry, &job.cancel, open).await {
            Ok(cog) => Ok(cog.grid),
            Err(GiveUp::Failed(f)) if f.severity == crate::domain::failure::Severity::Permanent => {
                tracing::warn!(item = scene.id, "left out: {}", f.reason);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

/// Windows of the parcels (by their place in the list) that lie on this scene's grid.
fn windows(
    crs: &Crs,
    scene: &Scene,
    grid: &PixelGrid,
    size: u32,
    parcels: &[(usize, [f64; 2])],
) -> Result<Vec<(usize, Window)>, CrsError> {
    let to_scene = Transform::new(crs, &Crs::epsg(scene.epsg)?)?;
    let mut points: Vec<[f64; 2]> = parcels.iter().map(|p| p.1).collect();
    to_scene.points_or_nan(&mut points)?;
    let placed =
        parcels.iter().zip(points).filter_map(|((i, _), [x, y])| Some((*i, Window::centred(grid, x, y, size)?)));
    Ok(placed.collect())
}

fn no_scene(drawn: &Drawn) -> Rejection {
    Rejection {
        parcel: drawn.parcel,
        class: drawn.class,
        reason: "no_scene".into(),
        detail: "no scene of the seasons holds the whole window".into(),
    }
}

fn catalog_failure(error: &CatalogError) -> Failure {
    let (severity, retry_after_s) = (error.severity(), error.retry_after_s());
    Failure { severity, stage: "scenes", reason: error.to_string(), retry_after_s }
}

fn crs_failure(error: &CrsError) -> Failure {
    Failure { severity: error.severity(), stage: "scenes", reason: error.to_string(), retry_after_s: None }
}
