//! What is done about the BOA offset of each scene, found out once per scene.
//!
//! Contract: the rule is [`crate::domain::harmonise`]'s; this finds the evidence it asks for, in the blue band's smallest
//! overview and the classification's: two small reads each, for scenes only that the item does not settle. Retried here;
//! an overview that is damaged counts as not seen. Units: DN. Trap: answers are kept by item, so a catalog that changes
//! an item's files under the same id is not noticed while the node runs.

use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;

use super::cpu::CpuPool;
use super::hosts::Hosts;
use super::retry::{GiveUp, RetryPolicy, retry_on};
use crate::adapters::imagery::Imagery;
use crate::adapters::imagery::overview::Overview;
use crate::domain::band::Band;
use crate::domain::failure::Severity;
use crate::domain::harmonise::{Mode, Offset, by_item, dark_land, decide};
use crate::domain::scene::Scene;

/// Scenes whose offsets are remembered.
const REMEMBERED: usize = 4096;

/// Finds and remembers offsets.
pub struct Offsets {
    mode: Mode,
    imagery: Arc<Imagery>,
    cpu: CpuPool,
    known: Cache<(String, String), Offset>,
}

impl Offsets {
    /// Offsets by `mode`; knows of no scene yet.
    pub fn new(mode: Mode, imagery: Arc<Imagery>, cpu: CpuPool) -> Self {
        Self { mode, imagery, cpu, known: Cache::new(REMEMBERED) }
    }

    /// What is done with a scene's DNs. `bands` are those of a chip: the first is looked at where there is no blue one.
    ///
    /// # Errors
    /// [`GiveUp`] when an image host does not answer.
    pub async fn of(
        &self,
        scene: &Scene,
        bands: &[Band],
        hosts: &Hosts,
        policy: RetryPolicy,
        cancel: &CancellationToken,
    ) -> Result<Offset, GiveUp> {
        if let Some(offset) = by_item(self.mode, scene) {
            return Ok(offset);
        }
        let find = async {
            let overview = async |band: Option<Band>| -> Result<Option<Overview>, GiveUp> {
                let Some(asset) = band.and_then(|band| scene.asset(band)) else { return Ok(None) };
                let read = || async { self.imagery.overview(&asset.href).await.map_err(|e| e.failure()) };
                match retry_on(&hosts.of(&asset.href), policy, cancel, read).await {
                    Ok(overview) => Ok(Some(overview)),
                    Err(GiveUp::Failed(f)) if f.severity == Severity::Permanent => {
                        tracing::warn!(item = scene.id, "no overview: {}", f.reason);
                        Ok(None)
                    }
                    Err(other) => Err(other),
                }
            };
            let blue = scene.asset(Band::B02).map(|_| Band::B02).or_else(|| bands.first().copied());
            let (dark, classes) = (overview(blue).await?, overview(Some(Band::Scl)).await?);
            let dark = match dark {
                Some(dark) => self.cpu.run(move || dark_of(&dark, classes.as_ref())).await.flatten(),
                None => None,
            };
            let offset = decide(self.mode, scene, dark);
            tracing::info!(item = scene.id, dark_land = dark, ?offset, "offset decided by the pixels");
            Ok(offset)
        };
        let key = (scene.collection.clone(), scene.id.clone());
        self.known.get_or_insert_async(&key, find).await
    }
}

fn dark_of(band: &Overview, classes: Option<&Overview>) -> Option<u16> {
    let classes = classes.and_then(|c| Some((c.rows, c.cols, c.raster()?)));
    let classes = classes.as_ref().map(|(rows, cols, values)| (*rows, *cols, values.as_slice()));
    dark_land(&band.samples(), classes)
}
