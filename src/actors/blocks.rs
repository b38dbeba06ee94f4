//! Blocks of one scene's files, fetched for many windows at once within a bound of memory.
//!
//! Contract: the windows are read in batches whose decoded blocks fit a share of `worker.window_mb`; every block is
//! fetched and decoded once for all windows of a batch. Failures that may pass are retried here. A block that does not
//! decode is fetched once more, because bytes also break on the way. Units: MiB for permits, bytes for blocks.
//! Trap: a batch's blocks are held until its last window is cut, beyond the cache's bound; `Held` keeps the permit that
//! covers them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::hosts::Hosts;
use super::retry::{GiveUp, RetryPolicy, retry_on};
use crate::adapters::http::host_of;
use crate::adapters::imagery::block::Samples;
use crate::adapters::imagery::cut::Cut;
use crate::adapters::imagery::header::Cog;
use crate::adapters::imagery::{BlockResult, Imagery, ImageryError};
use crate::domain::band::Band;
use crate::domain::failure::{Failure, Severity};
use crate::domain::scene::{PixelGrid, Scene};

/// Fetches blocks.
#[derive(Clone)]
pub struct BlockReader {
    /// Reader of COGs.
    pub imagery: Arc<Imagery>,
    /// Memory for blocks held by batches, MiB; its permits are MiB.
    pub memory: Arc<Semaphore>,
    /// Most MiB of blocks in one batch.
    pub batch_mb: u32,
    /// Retries of fetches.
    pub retry: RetryPolicy,
    /// Whether the image hosts answer at all.
    pub hosts: Arc<Hosts>,
}

/// Files of one scene, each with its grid.
pub type Files = Vec<(Arc<Cog>, PixelGrid)>;

/// The blocks a batch of windows needs.
pub(super) struct Batch {
    /// How many of the first windows it holds.
    pub(super) count: usize,
    /// Numbers of the blocks, by file.
    wanted: Vec<Vec<u32>>,
    bytes: usize,
}

/// Decoded blocks of a batch.
pub(super) struct Held {
    /// By file and block number.
    pub(super) blocks: Arc<Vec<HashMap<u32, Arc<Samples>>>>,
    /// Why others are missing.
    errors: HashMap<(usize, u32), String>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Why a window with these cuts could not be cut.
    pub(super) fn why(&self, files: &Files, cuts: &[Arc<Cut>]) -> String {
        let mut keys = files
            .iter()
            .zip(cuts)
            .enumerate()
            .flat_map(|(file, ((cog, _), cut))| cut.blocks(cog).map(move |block| (file, block)));
        keys.find_map(|key| self.errors.get(&key)).map_or("a block is missing".into(), Clone::clone)
    }
}

impl BlockReader {
    /// The headers of some bands of a scene, in this order.
    pub(super) async fn open(
        &self,
        scene: &Scene,
        bands: &[Band],
        cancel: &CancellationToken,
    ) -> Result<Files, GiveUp> {
        let open = async |band: &Band| {
            let missing = || Failure::permanent("pixels", format!("item {} has no asset for {band}", scene.id));
            let asset = scene.asset(*band).ok_or_else(|| GiveUp::Failed(missing()))?;
            let header = || async { self.imagery.open(&asset.href).await.map_err(|e| e.failure()) };
            let cog = retry_on(&self.hosts.of(&asset.href), self.retry, cancel, header).await?;
            let grid = place(scene, *band, &cog, asset.grid).map_err(GiveUp::Failed)?;
            Ok::<_, GiveUp>((cog, grid))
        };
        join_all(bands.iter().map(open)).await.into_iter().collect()
    }

    /// How many of the first windows make a batch, with the blocks they need.
    pub(super) fn batch<'a>(&self, files: &Files, windows: impl Iterator<Item = &'a [Arc<Cut>]>) -> Batch {
        let mut wanted: Vec<BTreeMap<u32, ()>> = files.iter().map(|_| BTreeMap::new()).collect();
        let (mut bytes, mut count) = (0usize, 0);
        for cuts in windows {
            let mut new = Vec::new();
            for (file, ((cog, _), cut)) in files.iter().zip(cuts).enumerate() {
                let fresh = cut.blocks(cog).filter(|b| !wanted[file].contains_key(b));
                new.extend(fresh.map(|b| (file, b, cog.decoded_bytes(b))));
            }
            let more: usize = new.iter().map(|(_, _, n)| n).sum();
            if count > 0 && bytes + more > (self.batch_mb as usize) << 20 {
                break;
            }
            for (file, block, _) in new {
                wanted[file].insert(block, ());
            }
            bytes += more;
            count += 1;
        }
        Batch { count, wanted: wanted.into_iter().map(|w| w.into_keys().collect()).collect(), bytes }
    }

    /// All blocks of a batch, once there is memory for them, trying again what may pass.
    pub(super) async fn fetch(&self, files: &Files, batch: Batch, cancel: &CancellationToken) -> Result<Held, GiveUp> {
        let permits = (batch.bytes.div_ceil(1 << 20) as u32).clamp(1, self.batch_mb);
        let memory = self.memory.clone().acquire_many_owned(permits).await.ok();
        let mut hosts: BTreeMap<String, (Arc<Health>, Vec<Part>)> = BTreeMap::new();
        for (file, ((cog, _), left)) in files.iter().zip(batch.wanted).enumerate() {
            let health = || (self.hosts.of(&cog.href), Vec::new());
            hosts.entry(host_of(&cog.href)).or_insert_with(health).1.push(Part::new(file, cog.clone(), left));
        }
        let reads = hosts.into_values().map(|(health, parts)| self.read(health, parts, cancel));
        let mut blocks = vec![HashMap::new(); files.len()];
        let mut errors = HashMap::new();
        for parts in join_all(reads).await {
            for part in parts? {
                blocks[part.file] = part.held;
                errors.extend(part.errors.into_iter().map(|(block, why)| ((part.file, block), why)));
            }
        }
        Ok(Held { blocks: Arc::new(blocks), errors, _memory: memory })
    }

    /// What is wanted of the files of one host.
    async fn read(
        &self,
        health: Arc<Health>,
        parts: Vec<Part>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Part>, GiveUp> {
        let parts = Mutex::new(parts);
        let lock = || parts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = || async {
            let asking: Vec<(Arc<Cog>, Vec<u32>)> = lock().iter().map(|p| (p.cog.clone(), p.left.clone())).collect();
            let reads = asking.iter().map(|(cog, blocks)| self.imagery.blocks(cog, blocks));
            let answers: Vec<HashMap<u32, BlockResult>> = join_all(reads).await;
            let mut again = None;
            for (part, answer) in lock().iter_mut().zip(answers) {
                again = part.take(answer, &health).or(again);
            }
            again.map_or(Ok(()), Err)
        };
        retry_on(&health, self.retry, cancel, attempt).await?;
        Ok(parts.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a batch wants of one file, and has of it.
struct Part {
    file: usize,
    cog: Arc<Cog>,
    left: Vec<u32>,
    held: HashMap<u32, Arc<Samples>>,
    errors: HashMap<u32, String>,
    /// Blocks that did not decode once.
    damaged: HashSet<u32>,
}

impl Part {
    fn new(file: usize, cog: Arc<Cog>, left: Vec<u32>) -> Self {
        Self { file, cog, left, held: HashMap::new(), errors: HashMap::new(), damaged: HashSet::new() }
    }

    /// Sorts an answer; a failure when some blocks are worth another attempt.
    fn take(&mut self, answer: HashMap<u32, BlockResult>, health: &Health) -> Option<Failure> {
        self.left.clear();
        let mut again = None;
        for (index, result) in answer {
            match result {
                Ok(samples) => {
                    health.works();
                    self.held.insert(index, samples);
                }
                Err(error @ ImageryError::Block { .. }) if self.damaged.insert(index) => {
                    self.left.push(index);
                    again = Some(Failure::transient("pixels", error.to_string()));
                }
                Err(error) if error.severity() == Severity::Permanent => {
                    self.errors.insert(index, error.to_string());
                }
                Err(error) => {
                    self.left.push(index);
                    again = Some(error.failure());
                }
            }
        }
        again
    }
}

/// The grid of a band's file, checked against what the item says.
fn place(scene: &Scene, band: Band, cog: &Cog, stated: Option<PixelGrid>) -> Result<PixelGrid, Failure> {
    let refuse = |why: String| Failure::permanent("pixels", format!("{}: {why}", cog.href));
    if let Some(epsg) = cog.epsg
        && epsg != scene.epsg
    {
        return Err(refuse(format!("the file is in EPSG:{epsg}, its item {} in EPSG:{}", scene.id, scene.epsg)));
    }
    match (cog.grid, stated) {
        (Some(found), Some(stated)) if found != stated => {
            Err(refuse(format!("the file's grid {found:?} of {band} is not its item's {stated:?}")))
        }
        (Some(grid), _) | (None, Some(grid)) if grid.width == cog.width && grid.height == cog.height => Ok(grid),
        (None, Some(_)) => Err(refuse("its size is not its item's proj:shape".into())),
        _ => Err(refuse("neither the file nor its item says where it lies".into())),
    }
}
