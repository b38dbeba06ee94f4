//! Fourth stage: the pixels of each chip's window, out of the scenes' COGs.
//!
//! Contract: the chips of a task are read scene by scene in batches whose decoded blocks fit a share of
//! `worker.window_mb`; every block is fetched and decoded once for all chips that touch it. A chip whose
//! window holds more nodata (DN 0 in any band) than allowed, or whose scene is damaged, goes to its next
//! candidate; without one it is rejected with the reason. Failures that may pass are retried here; when
//! they do not pass the whole task fails, so that a dataset never depends on a server's mood. A block that
//! does not decode is fetched once more, because bytes also break on the way.
//! Trap: a batch's blocks are held until its last chip is cut, beyond the cache's bound; the memory permit
//! covers them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Context, Handler};
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::cpu::CpuPool;
use super::health::Health;
use super::lane::{Credited, Lane};
use super::messages::{Candidate, ChipOutcome, ChipPlan, Conclude, Drawn, Fan, Rasterise, ReadWindows};
use super::retry::{GiveUp, RetryPolicy, retry_on};
use crate::adapters::failpoint::reach;
use crate::adapters::imagery::block::Samples;
use crate::adapters::imagery::cut::{Cut, Resampling};
use crate::adapters::imagery::header::Cog;
use crate::adapters::imagery::{BlockResult, Imagery, ImageryError};
use crate::domain::band::Band;
use crate::domain::failure::{Failure, Severity};
use crate::domain::manifest::Rejection;
use crate::domain::scene::{PixelGrid, Scene};

/// What the pixels stage needs.
#[derive(Clone)]
pub struct Pixels {
    /// Reader of COGs.
    pub imagery: Arc<Imagery>,
    /// Bands of a chip, in order.
    pub bands: Arc<[Band]>,
    /// How coarser bands are brought to the chip's grid.
    pub resampling: Resampling,
    /// Share of a chip's pixels that may be nodata, 0 to 1.
    pub max_nodata: f64,
    /// Memory for blocks held by batches, MiB; its permits are MiB.
    pub memory: Arc<Semaphore>,
    /// Most MiB of blocks in one batch.
    pub batch_mb: u32,
    /// Retries of fetches.
    pub retry: RetryPolicy,
    /// Whether the image hosts answer at all.
    pub health: Arc<Health>,
    /// Where windows are cut.
    pub cpu: CpuPool,
    /// Next stage.
    pub rasteriser: Lane<Rasterise>,
    /// Where a task ends whose last chip is rejected here.
    pub conclude: Lane<Conclude>,
}

impl Actor for Pixels {
    type Context = Context<Self>;
}

impl Handler<Credited<ReadWindows>> for Pixels {
    type Result = ();

    fn handle(&mut self, asked: Credited<ReadWindows>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.fan.job().span("pixels"));
        asked.work(span, |message| this.read(message));
    }
}

/// A chip at its current candidate.
struct Waiting {
    drawn: Drawn,
    candidates: std::vec::IntoIter<Candidate>,
    now: Candidate,
}

/// A chip with its cut of every band.
struct Ready {
    chip: Waiting,
    grid: PixelGrid,
    cuts: Vec<Cut>,
}

/// The bands of one scene.
struct Bands {
    grid: PixelGrid,
    files: Vec<(Arc<Cog>, PixelGrid)>,
}

/// Decoded blocks by band and block number.
type Held = Vec<HashMap<u32, Arc<Samples>>>;

/// What one chip's cutting came to.
enum CutDone {
    Pixels(Vec<u16>),
    Nodata(f64),
    Missing,
}

impl Pixels {
    async fn read(self, asked: ReadWindows) {
        let ReadWindows { fan, chips } = asked;
        reach("pixels.before");
        let mut waiting: Vec<Waiting> = Vec::new();
        for ChipPlan { drawn, candidates } in chips {
            let mut candidates = candidates.into_iter();
            match candidates.next() {
                Some(now) => waiting.push(Waiting { drawn, candidates, now }),
                None => fan.note(drawn.chip, ChipOutcome::Rejected(reject(&drawn, "no_scene", String::new()))),
            }
        }
        while !waiting.is_empty() {
            let scene = waiting[0].now.scene.clone();
            let (group, others) = waiting.into_iter().partition(|w| Arc::ptr_eq(&w.now.scene, &scene));
            waiting = others;
            if let Err(failure) = self.read_scene(&fan, &scene, group, &mut waiting).await {
                let end = |drawn: &Drawn| match &failure {
                    GiveUp::Cancelled => fan.note(drawn.chip, ChipOutcome::Abandoned),
                    GiveUp::Failed(f) => fan.note(drawn.chip, ChipOutcome::Broken(f.clone())),
                };
                waiting.drain(..).for_each(|w| end(&w.drawn));
            }
        }
        if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }

    /// Reads the chips of one scene; those that need another scene come back into `waiting`, and so do those
    /// not reached when an error ends the task.
    async fn read_scene(
        &self,
        fan: &Arc<Fan>,
        scene: &Arc<Scene>,
        group: Vec<Waiting>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), GiveUp> {
        let bands = match self.open(fan, scene).await {
            Ok(bands) => bands,
            Err(GiveUp::Failed(f)) if f.severity == Severity::Permanent => {
                tracing::warn!(item = scene.id, "scene left out: {}", f.reason);
                group.into_iter().for_each(|w| next(fan, w, "unreadable", &f.reason, waiting));
                return Ok(());
            }
            Err(other) => {
                waiting.extend(group);
                return Err(other);
            }
        };
        let mut ready = Vec::with_capacity(group.len());
        for chip in group {
            let grid = chip.now.window.grid(&bands.grid);
            let cuts: Option<Vec<Cut>> =
                bands.files.iter().map(|(_, band)| Cut::new(band, &grid, self.resampling)).collect();
            match cuts {
                Some(cuts) => ready.push(Ready { chip, grid, cuts }),
                None => next(fan, chip, "outside_scene", "a band ends inside the window", waiting),
            }
        }
        // Chips that share blocks lie next to each other.
        ready.sort_by_key(|r| (r.chip.now.window.row / 1024, r.chip.now.window.col / 1024, r.chip.drawn.chip));
        while !ready.is_empty() {
            let (count, wanted, bytes) = self.batch(&bands, &ready);
            let rest = ready.split_off(count);
            let batch = std::mem::replace(&mut ready, rest);
            if let Err(error) = self.read_batch(fan, &bands, batch, wanted, bytes, waiting).await {
                waiting.extend(ready.into_iter().map(|r| r.chip));
                return Err(error);
            }
        }
        Ok(())
    }

    /// How many of the first chips make a batch, with the blocks they need of each band and their bytes.
    fn batch(&self, bands: &Bands, ready: &[Ready]) -> (usize, Vec<Vec<u32>>, usize) {
        let mut wanted: Vec<BTreeMap<u32, ()>> = bands.files.iter().map(|_| BTreeMap::new()).collect();
        let (mut bytes, mut count) = (0usize, 0);
        for chip in ready {
            let mut new = Vec::new();
            for (band, ((cog, _), cut)) in bands.files.iter().zip(&chip.cuts).enumerate() {
                let fresh = cut.blocks(cog).into_iter().filter(|b| !wanted[band].contains_key(b));
                new.extend(fresh.map(|b| (band, b, cog.decoded_bytes(b))));
            }
            let more: usize = new.iter().map(|(_, _, n)| n).sum();
            if count > 0 && bytes + more > (self.batch_mb as usize) << 20 {
                break;
            }
            for (band, block, _) in new {
                wanted[band].insert(block, ());
            }
            bytes += more;
            count += 1;
        }
        (count, wanted.into_iter().map(|w| w.into_keys().collect()).collect(), bytes)
    }

    /// Fetches a batch's blocks, cuts its chips, and sends them on.
    async fn read_batch(
        &self,
        fan: &Arc<Fan>,
        bands: &Bands,
        batch: Vec<Ready>,
        wanted: Vec<Vec<u32>>,
        bytes: usize,
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), GiveUp> {
        let permits = (bytes.div_ceil(1 << 20) as u32).clamp(1, self.batch_mb);
        let memory = self.memory.acquire_many(permits).await;
        let fetched = self.fetch(fan, bands, wanted).await;
        let (held, errors) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                waiting.extend(batch.into_iter().map(|r| r.chip));
                return Err(error);
            }
        };
        reach("pixels.after");
        let files: Arc<Vec<Arc<Cog>>> = Arc::new(bands.files.iter().map(|(cog, _)| cog.clone()).collect());
        let mut batch = batch.into_iter();
        while let Some(Ready { chip, grid, cuts }) = batch.next() {
            let slot = self.rasteriser.reserve().await;
            let (held, files, cuts) = (held.clone(), files.clone(), Arc::new(cuts));
            let (cuts_there, limit) = (cuts.clone(), self.max_nodata);
            let pixels = (grid.width * grid.height) as usize;
            let Some(done) = self.cpu.run(move || cut_all(&files, &held, &cuts_there, pixels, limit)).await else {
                let rest = batch.map(|r| r.chip).chain([chip]);
                waiting.extend(rest);
                return Err(GiveUp::Failed(Failure::fatal("pixels", "cutting a window panicked")));
            };
            match done {
                CutDone::Pixels(pixels) => {
                    let (fan, from) = (fan.clone(), chip.now);
                    slot.send(Rasterise { fan, drawn: chip.drawn, from, grid, pixels });
                }
                CutDone::Nodata(share) => {
                    let detail = format!("{:.1} % of the window is nodata in {}", share * 100.0, chip.now.scene.id);
                    next(fan, chip, "nodata", &detail, waiting);
                }
                CutDone::Missing => {
                    let needed = bands.files.iter().zip(cuts.iter()).enumerate();
                    let mut keys =
                        needed.flat_map(|(b, ((cog, _), cut))| cut.blocks(cog).into_iter().map(move |i| (b, i)));
                    let why = keys.find_map(|key| errors.get(&key)).map_or("a block is missing", |w| w.as_str());
                    next(fan, chip, "unreadable", why, waiting);
                }
            }
        }
        drop(memory);
        tracing::debug!(bytes, "windows cut");
        Ok(())
    }

    /// The headers of all bands, and the grid they share.
    async fn open(&self, fan: &Fan, scene: &Scene) -> Result<Bands, GiveUp> {
        let cancel = &fan.job().cancel;
        let open = async |band: &Band| {
            let missing = || Failure::permanent("pixels", format!("item {} has no asset for {band}", scene.id));
            let asset = scene.asset(*band).ok_or_else(|| GiveUp::Failed(missing()))?;
            let header = || async { self.imagery.open(&asset.href).await.map_err(|e| e.failure()) };
            let cog = retry_on(&self.health, self.retry, cancel, header).await?;
            let grid = place(scene, *band, &cog, asset.grid).map_err(GiveUp::Failed)?;
            Ok::<_, GiveUp>((cog, grid))
        };
        let opened = join_all(self.bands.iter().map(open)).await;
        let files = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
        let finest = files.iter().map(|f| f.1).min_by(|a, b| a.res.total_cmp(&b.res));
        let grid = finest.ok_or_else(|| GiveUp::Failed(Failure::fatal("pixels", "chips.bands is empty")))?;
        Ok(Bands { grid, files })
    }

    /// All blocks of a batch, trying again what may pass; with the reasons of those that will not.
    async fn fetch(
        &self,
        fan: &Fan,
        bands: &Bands,
        wanted: Vec<Vec<u32>>,
    ) -> Result<(Arc<Held>, HashMap<(usize, u32), String>), GiveUp> {
        let damaged: HashSet<(usize, u32)> = HashSet::new();
        let state = Mutex::new((wanted, vec![HashMap::new(); bands.files.len()], HashMap::new(), damaged));
        let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = || async {
            let asking = lock().0.clone();
            let reads = bands.files.iter().zip(&asking).map(|((cog, _), blocks)| self.imagery.blocks(cog, blocks));
            let answers: Vec<HashMap<u32, BlockResult>> = join_all(reads).await;
            let mut again = None;
            let (left, held, errors, damaged) = &mut *lock();
            for (band, answer) in answers.into_iter().enumerate() {
                left[band].clear();
                for (index, result) in answer {
                    match result {
                        Ok(samples) => {
                            self.health.works();
                            held[band].insert(index, samples);
                        }
                        Err(error @ ImageryError::Block { .. }) if damaged.insert((band, index)) => {
                            left[band].push(index);
                            again = Some(Failure::transient("pixels", error.to_string()));
                        }
                        Err(error) if error.severity() == Severity::Permanent => {
                            errors.insert((band, index), error.to_string());
                        }
                        Err(error) => {
                            left[band].push(index);
                            again = Some(error.failure());
                        }
                    }
                }
            }
            again.map_or(Ok(()), Err)
        };
        retry_on(&self.health, self.retry, &fan.job().cancel, attempt).await?;
        let (_, held, errors, _) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((Arc::new(held), errors))
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

/// Cuts all bands of one chip and counts its nodata.
fn cut_all(files: &[Arc<Cog>], held: &Held, cuts: &[Cut], pixels: usize, max_nodata: f64) -> CutDone {
    let mut out = vec![0u16; pixels * cuts.len()];
    let planes = out.chunks_exact_mut(pixels).zip(files).zip(held).zip(cuts);
    for (((plane, cog), blocks), cut) in planes {
        if cut.copy(cog, blocks, plane).is_none() {
            return CutDone::Missing;
        }
    }
    let mut valid = vec![true; pixels];
    for plane in out.chunks_exact(pixels) {
        valid.iter_mut().zip(plane).for_each(|(v, dn)| *v &= *dn != 0);
    }
    let nodata = valid.iter().filter(|v| !**v).count() as f64 / pixels as f64;
    if nodata > max_nodata { CutDone::Nodata(nodata) } else { CutDone::Pixels(out) }
}

/// Moves a chip to its next candidate, or rejects it.
fn next(fan: &Fan, mut chip: Waiting, reason: &str, detail: &str, waiting: &mut Vec<Waiting>) {
    match chip.candidates.next() {
        Some(candidate) => {
            chip.now = candidate;
            waiting.push(chip);
        }
        None => {
            let rejection = reject(&chip.drawn, reason, detail.to_owned());
            fan.note(chip.drawn.chip, ChipOutcome::Rejected(rejection));
        }
    }
}

fn reject(drawn: &Drawn, reason: &str, detail: String) -> Rejection {
    Rejection { parcel: drawn.parcel, class: drawn.class, reason: reason.to_owned(), detail }
}
