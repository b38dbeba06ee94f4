//! The search for scenes, step by step, for as long as a chip needs one.
//!
//! Contract: chips that are in the same season and step share a search. A scene is a candidate when the chip's window
//! lies on its grid and the parcel's point lies in its footprint; what the pixels are worth is decided later, so a chip
//! may come back for its next step. In a series (a chip per season) candidates keep to the parcel's own UTM zone, so
//! that its chips lie on one another. Units: degrees, metres, percent of cloud.
//! Trap: the steps already made are counted in the chip; a chip whose steps are spent stays without a want.

use std::sync::Arc;

use super::cpu::CpuPool;
use super::health::Health;
use super::hosts::Hosts;
use super::messages::{ChipPlan, Job};
use super::retry::{GiveUp, RetryPolicy, retry_on};
use crate::adapters::catalog::{Catalog, CatalogError};
use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::adapters::imagery::Imagery;
use crate::domain::band::Band;
use crate::domain::candidate::{Candidate, Widened};
use crate::domain::failure::{Failure, Severity};
use crate::domain::scene::{PixelGrid, Scene};
use crate::domain::scene_query::SceneQuery;
use crate::domain::season::{Seasons, Step};
use crate::domain::utm;
use crate::domain::window::Window;

/// What a search needs.
pub struct Finder {
    /// The catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Opens a header where an item does not state its grid.
    pub imagery: Arc<Imagery>,
    /// CRS of the parcels.
    pub crs: Crs,
    /// Seasons to look in.
    pub seasons: Arc<Seasons>,
    /// Cloud cover a scene may have at first, percent.
    pub max_cloud: f64,
    /// Where the search ends.
    pub widest: Widened,
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
    pub image_hosts: Arc<Hosts>,
    /// Where coordinates are transformed.
    pub cpu: CpuPool,
}

impl Finder {
    /// Gives every chip something to want, or spends its steps.
    ///
    /// # Errors
    /// [`GiveUp`] when the catalog, or a host that has to be asked for a grid, does not answer.
    pub async fn provide(&self, job: &Job, chips: &mut [ChipPlan]) -> Result<(), GiveUp> {
        while let Some((season, made, step)) = chips.iter().find_map(|chip| self.next_step(chip)) {
            let asking: Vec<usize> = (0..chips.len())
                .filter(|i| {
                    let chip = &chips[*i];
                    chip.choice.want().is_none() && (chip.season, chip.steps) == (season, made)
                })
                .collect();
            let query = SceneQuery {
                bbox: job.task.bbox,
                intervals: step.intervals.clone(),
                max_cloud: step.max_cloud,
                collections: self.collections.to_vec(),
            };
            let find = || async { self.catalog.find(&query).await.map_err(|e| catalog_failure(&e)) };
            let scenes = retry_on(&self.health, self.retry, &job.cancel, find).await?;
            let mut found: Vec<Vec<Candidate>> = vec![Vec::new(); asking.len()];
            for scene in &scenes {
                self.place(job, scene, (season, step.widened), (chips, &asking), &mut found).await?;
            }
            for (i, candidates) in asking.into_iter().zip(found) {
                chips[i].steps += 1;
                chips[i].choice.offer(candidates);
            }
        }
        Ok(())
    }

    /// The step a chip waits for.
    fn next_step(&self, chip: &ChipPlan) -> Option<(usize, usize, Step)> {
        if chip.choice.want().is_some() {
            return None;
        }
        let mut steps = self.seasons.steps(chip.season, self.max_cloud, self.widest).into_iter();
        steps.nth(chip.steps).map(|step| (chip.season, chip.steps, step))
    }

    /// Adds one scene to what was found for each of the chips that it can give.
    async fn place(
        &self,
        job: &Job,
        scene: &Arc<Scene>,
        (season, widened): (usize, Widened),
        (chips, asking): (&[ChipPlan], &[usize]),
        found: &mut [Vec<Candidate>],
    ) -> Result<(), GiveUp> {
        let series = self.seasons.is_series();
        let near: Vec<(usize, [f64; 2])> = asking
            .iter()
            .enumerate()
            .map(|(place, i)| (place, &chips[*i].drawn))
            .filter(|(_, drawn)| scene.holds(drawn.lonlat[0], drawn.lonlat[1]))
            .filter(|(_, drawn)| !series || utm::epsg(drawn.lonlat) == scene.epsg)
            .map(|(place, drawn)| (place, drawn.point))
            .collect();
        if near.is_empty() {
            return Ok(());
        }
        let Some(grid) = self.grid(job, scene).await? else { return Ok(()) };
        let (crs, size, epsg) = (self.crs.clone(), self.chip_size, scene.epsg);
        let Some(windows) = self.cpu.run(move || windows(&crs, epsg, &grid, size, &near)).await else {
            return Err(GiveUp::Failed(Failure::fatal("scenes", "placing the windows panicked")));
        };
        let name: Arc<str> = self.seasons.name_at(season, scene.datetime).into();
        for (place, window) in windows.map_err(|e| GiveUp::Failed(crs_failure(&e)))? {
            found[place].push(Candidate::new(scene.clone(), &grid, window.grid(&grid), name.clone(), widened));
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
        match retry_on(&self.image_hosts.of(&asset.href), self.retry, &job.cancel, open).await {
            Ok(cog) => Ok(cog.grid),
            Err(GiveUp::Failed(f)) if f.severity == Severity::Permanent => {
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
    epsg: u32,
    grid: &PixelGrid,
    size: u32,
    parcels: &[(usize, [f64; 2])],
) -> Result<Vec<(usize, Window)>, CrsError> {
    let to_scene = Transform::new(crs, &Crs::epsg(epsg)?)?;
    let mut points: Vec<[f64; 2]> = parcels.iter().map(|p| p.1).collect();
    to_scene.points_or_nan(&mut points)?;
    let placed =
        parcels.iter().zip(points).filter_map(|((i, _), [x, y])| Some((*i, Window::centred(grid, x, y, size)?)));
    Ok(placed.collect())
}

fn catalog_failure(error: &CatalogError) -> Failure {
    let (severity, retry_after_s) = (error.severity(), error.retry_after_s());
    Failure { severity, stage: "scenes", reason: error.to_string(), retry_after_s }
}

fn crs_failure(error: &CrsError) -> Failure {
    Failure { severity: error.severity(), stage: "scenes", reason: error.to_string(), retry_after_s: None }
}
