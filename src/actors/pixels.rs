//! Fourth stage: which scene gives each chip, and the blocks of the scene's COGs that hold its pixels.
//!
//! Contract: a chip is looked at before it is read: the classification's window is fetched, and a scene in which too many
//! of the chip's pixels are bad costs that one small read. All looks come before all reads, scene by scene, so that chips
//! share blocks. A chip that is cloudy, cut off, or whose files are damaged goes to its next candidate; when it has none
//! the search is taken up again ([`super::finder`]), and when that is at its end the chip is rejected with the reason of
//! the last candidate. Failures that do not pass fail the whole task, so a dataset never depends on a server's mood.
//! Trap: chips of one task may want the same scene through different searches: scenes are compared by item.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::sync::{Mutex, oneshot};

use super::blocks::{BlockReader, Files, Held};
use super::cpu::CpuPool;
use super::finder::Finder;
use super::lane::{Credited, Lane};
use super::messages::{ChipOutcome, ChipPlan, Conclude, Fan, Rasterise, ReadWindows};
use super::offsets::Offsets;
use super::retry::GiveUp;
use super::scenes::rejection;
use super::uncut::{Uncut, Verdict};
use crate::adapters::failpoint::reach;
use crate::adapters::imagery::cut::{Cut, Resampling};
use crate::domain::band::Band;
use crate::domain::choice::Want;
use crate::domain::failure::{Failure, Severity};
use crate::domain::harmonise::Offset;
use crate::domain::pixels::Limits;
use crate::domain::provenance::Provenance;
use crate::domain::scene::{PixelGrid, Scene};
use crate::domain::scl::{BadClasses, Seen};

/// What the pixels stage needs.
#[derive(Clone)]
pub struct Pixels {
    /// Fetches blocks.
    pub reader: BlockReader,
    /// Finds further scenes.
    pub finder: Arc<Finder>,
    /// What is done about the BOA offset.
    pub offsets: Arc<Offsets>,
    /// Bands of a chip, in order.
    pub bands: Arc<[Band]>,
    /// How coarser bands are brought to the chip's grid.
    pub resampling: Resampling,
    /// Classes that make a pixel bad.
    pub bad: BadClasses,
    /// Whether a scene without a classification is no use.
    pub require_scl: bool,
    /// What a chip may hold of what nobody wants.
    pub limits: Limits,
    /// Where windows are cut.
    pub cpu: CpuPool,
    /// Whose windows are being sent to be cut.
    pub turn: Arc<Mutex<()>>,
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

/// A chip with its cut of every file; files on the same grid share one.
struct Ready {
    chip: ChipPlan,
    cuts: Vec<Arc<Cut>>,
}

impl Pixels {
    async fn read(self, asked: ReadWindows) {
        let ReadWindows { fan, chips: mut waiting } = asked;
        reach("pixels.before");
        if let Err(give_up) = self.read_all(&fan, &mut waiting).await {
            for chip in waiting {
                fan.note(
                    chip.drawn.chip,
                    match &give_up {
                        GiveUp::Cancelled => ChipOutcome::Abandoned,
                        GiveUp::Failed(f) => ChipOutcome::Broken(f.clone()),
                    },
                );
            }
        }
        if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }

    /// Decides about every chip; those not reached when an error ends the task are left in `waiting`.
    async fn read_all(&self, fan: &Arc<Fan>, waiting: &mut Vec<ChipPlan>) -> Result<(), GiveUp> {
        loop {
            self.finder.provide(fan.job(), waiting).await?;
            for chip in waiting.extract_if(.., |chip| chip.choice.want().is_none()) {
                fan.note(chip.drawn.chip, ChipOutcome::Rejected(rejection(&self.finder, &chip)));
            }
            let wants = || waiting.iter().filter_map(|chip| chip.choice.want());
            let Some(want) = wants().find(|w| w.is_look()).or_else(|| wants().next()) else { return Ok(()) };
            let (scene, look) = (want.candidate().scene.clone(), want.is_look());
            let same = |want: Want<'_>| {
                let other = &want.candidate().scene;
                want.is_look() == look && other.id == scene.id && other.collection == scene.collection
            };
            let group = waiting.extract_if(.., |chip| chip.choice.want().is_some_and(same)).collect();
            match look {
                true => self.look(fan, &scene, group, waiting).await?,
                false => self.take(fan, &scene, group, waiting).await?,
            }
        }
    }

    /// Looks at the classification of each chip's window; the chips come back into `waiting`.
    async fn look(
        &self,
        fan: &Fan,
        scene: &Arc<Scene>,
        mut group: Vec<ChipPlan>,
        waiting: &mut Vec<ChipPlan>,
    ) -> Result<(), GiveUp> {
        let has = scene.asset(Band::Scl).is_some();
        if !(self.limits.asks_classes() && has) {
            for chip in &mut group {
                if self.limits.asks_classes() && self.require_scl {
                    chip.refuse("no_scl", format!("item {} has no classification (SCL)", scene.id));
                } else {
                    chip.choice.looked(None);
                }
            }
            waiting.extend(group);
            return Ok(());
        }
        let Some(files) = self.files(fan, scene, &[Band::Scl], &mut group, waiting).await? else { return Ok(()) };
        let mut ready = self.cuts(&files, Resampling::Nearest, group, waiting);
        while !ready.is_empty() {
            let batch = self.reader.batch(&files, ready.iter().map(|r| r.cuts.as_slice()));
            let rest = ready.split_off(batch.count);
            let now = std::mem::replace(&mut ready, rest);
            let fetched = self.reader.fetch(&files, batch, &fan.job().cancel).await;
            let (mut chips, cuts): (Vec<_>, Vec<_>) = now.into_iter().map(|r| (r.chip, r.cuts)).unzip();
            let seen = match fetched {
                Ok(held) => self.classes(&files, held, cuts, &chips).await,
                Err(error) => Err(error),
            };
            if seen.is_err() {
                waiting.extend(ready.drain(..).map(|r| r.chip));
            }
            for (chip, seen) in chips.iter_mut().zip(seen.as_ref().into_iter().flatten()) {
                match seen {
                    Ok(seen) => match self.limits.refuses_classes(*seen) {
                        None => chip.choice.looked(Some(seen.bad)),
                        Some(refused) => chip.refuse(refused.reason(), refused.detail(&scene.id)),
                    },
                    Err(why) => chip.refuse("unreadable", why.clone()),
                }
            }
            waiting.extend(chips);
            seen?;
        }
        Ok(())
    }

    /// What each chip's classes are, or why they could not be read.
    async fn classes(
        &self,
        files: &Files,
        held: Held,
        cuts: Vec<Vec<Arc<Cut>>>,
        chips: &[ChipPlan],
    ) -> Result<Vec<Result<Seen, String>>, GiveUp> {
        let sizes: Vec<(usize, usize)> = chips.iter().map(|chip| (size(chip), width(chip))).collect();
        let (files, bad) = (files.clone(), self.bad);
        let work = move || {
            let mut classes = Vec::new();
            let look = |(cuts, (size, width)): (&Vec<Arc<Cut>>, (usize, usize))| {
                classes.resize(size, 0);
                match cuts[0].copy(&files[0].0, &held.blocks[0], &mut classes) {
                    Some(()) => Ok(bad.look(&classes, width)),
                    None => Err(held.why(&files, cuts)),
                }
            };
            cuts.iter().zip(sizes).map(look).collect::<Vec<_>>()
        };
        let panicked = || GiveUp::Failed(Failure::fatal("pixels", "looking at a window panicked"));
        self.cpu.run(work).await.ok_or_else(panicked)
    }

    /// Reads the chips of one scene and sends them on; those that need another scene come back into `waiting`.
    async fn take(
        &self,
        fan: &Arc<Fan>,
        scene: &Arc<Scene>,
        mut group: Vec<ChipPlan>,
        waiting: &mut Vec<ChipPlan>,
    ) -> Result<(), GiveUp> {
        let job = fan.job();
        let Some(files) = self.files(fan, scene, &self.bands, &mut group, waiting).await? else { return Ok(()) };
        let (hosts, retry) = (&self.reader.hosts, self.reader.retry);
        let offset = match self.offsets.of(scene, &self.bands, hosts, retry, &job.cancel).await {
            Ok(offset) => offset,
            Err(error) => {
                waiting.extend(group);
                return Err(error);
            }
        };
        let mut ready = self.cuts(&files, self.resampling, group, waiting);
        while !ready.is_empty() {
            let batch = self.reader.batch(&files, ready.iter().map(|r| r.cuts.as_slice()));
            let rest = ready.split_off(batch.count);
            let now = std::mem::replace(&mut ready, rest);
            let held = match self.reader.fetch(&files, batch, &job.cancel).await {
                Ok(held) => held,
                Err(error) => {
                    waiting.extend(now.into_iter().chain(ready).map(|r| r.chip));
                    return Err(error);
                }
            };
            reach("pixels.after");
            self.cut(fan, (&files, held), offset, now, waiting).await;
        }
        Ok(())
    }

    /// Sends the windows of a batch to be cut; those that are refused come back into `waiting`.
    async fn cut(
        &self,
        fan: &Arc<Fan>,
        (files, held): (&Files, Held),
        offset: Offset,
        batch: Vec<Ready>,
        waiting: &mut Vec<ChipPlan>,
    ) {
        let mut sent = Vec::with_capacity(batch.len());
        // One batch after the other: its chips share blocks, which are warm then.
        let turn = self.turn.lock().await;
        for Ready { mut chip, cuts } in batch {
            let slot = self.rasteriser.reserve().await;
            let Some(Want::Take(from, bad)) = chip.choice.want() else {
                chip.refuse("unreadable", "the scene is gone");
                waiting.push(chip);
                continue;
            };
            let (verdict, heard) = oneshot::channel();
            let (files, blocks, size) = (files.clone(), held.blocks.clone(), size(&chip));
            let window = Uncut { files, blocks, cuts: cuts.clone(), size, offset, limits: self.limits, verdict };
            let provenance = provenance(from.widened.as_str(), &from.scene, bad, offset);
            let (fan, drawn, from) = (fan.clone(), chip.drawn.clone(), from.clone());
            slot.send(Rasterise { fan, drawn, from, window, provenance });
            sent.push((chip, cuts, heard));
        }
        drop(turn);
        for (mut chip, cuts, heard) in sent {
            match (heard.await, chip.choice.want()) {
                // Without a verdict the rasteriser has panicked: the chip vanishes, and its task is lost.
                (Ok(Verdict::Taken) | Err(_), _) => continue,
                (Ok(Verdict::Refused(refused)), Some(want)) => {
                    let detail = refused.detail(&want.candidate().scene.id);
                    chip.refuse(refused.reason(), detail);
                }
                (Ok(_), _) => chip.refuse("unreadable", held.why(files, &cuts)),
            }
            waiting.push(chip);
        }
        tracing::debug!(item = ?files.first().map(|(cog, _)| &cog.href), "windows cut");
    }

    /// The files of some bands; `None` when they are no use, and then the chips are in `waiting` again.
    async fn files(
        &self,
        fan: &Fan,
        scene: &Scene,
        bands: &[Band],
        group: &mut Vec<ChipPlan>,
        waiting: &mut Vec<ChipPlan>,
    ) -> Result<Option<Files>, GiveUp> {
        let opened = self.reader.open(scene, bands, &fan.job().cancel).await;
        let error = match opened {
            Ok(files) => return Ok(Some(files)),
            Err(GiveUp::Failed(f)) if f.severity == Severity::Permanent => {
                tracing::warn!(item = scene.id, "scene left out: {}", f.reason);
                group.iter_mut().for_each(|chip| chip.refuse("unreadable", &f.reason));
                None
            }
            Err(other) => Some(other),
        };
        waiting.append(group);
        error.map_or(Ok(None), Err)
    }

    /// Each chip's cut of every file, chips that share blocks next to each other; a window that leaves a file refuses
    /// its chip.
    fn cuts(&self, files: &Files, how: Resampling, group: Vec<ChipPlan>, waiting: &mut Vec<ChipPlan>) -> Vec<Ready> {
        let mut ready = Vec::with_capacity(group.len());
        for mut chip in group {
            let Some(grid) = chip.choice.want().map(|w| w.candidate().grid) else { continue };
            let mut made: Vec<(PixelGrid, Arc<Cut>)> = Vec::new();
            let mut cut = |band: &PixelGrid| match made.iter().find(|(on, _)| on == band) {
                Some((_, cut)) => Some(cut.clone()),
                None => {
                    let cut = Arc::new(Cut::new(band, &grid, how)?);
                    made.push((*band, cut.clone()));
                    Some(cut)
                }
            };
            match files.iter().map(|(_, band)| cut(band)).collect() {
                Some(cuts) => ready.push(Ready { chip, cuts }),
                None => {
                    chip.refuse("outside_scene", "a band ends inside the window");
                    waiting.push(chip);
                }
            }
        }
        ready.sort_by_key(|r| {
            let grid = r.chip.choice.want().map(|w| w.candidate().grid);
            let block = |metres: f64, res: f64| (metres / res / 1024.0).floor() as i64;
            (grid.map(|g| (block(-g.y0, g.res), block(g.x0, g.res))), r.chip.drawn.chip, r.chip.season)
        });
        ready
    }
}

/// Pixels of a chip's row.
fn width(chip: &ChipPlan) -> usize {
    chip.choice.want().map_or(0, |w| w.candidate().grid.width as usize)
}

/// Pixels of a chip.
fn size(chip: &ChipPlan) -> usize {
    chip.choice.want().map(|w| w.candidate().grid).map_or(0, |g| g.width as usize * g.height as usize)
}

/// What is known before the pixels are.
fn provenance(widened: &str, scene: &Scene, bad: Option<f64>, offset: Offset) -> Provenance {
    Provenance {
        product_uri: scene.product_uri.clone(),
        baseline: scene.baseline.clone(),
        offset_rule: offset.rule.to_owned(),
        offset: offset.subtract,
        bad_fraction: bad,
        widened: widened.to_owned(),
        ..Provenance::default()
    }
}
