//! Fifth stage: the pixels of a chip cut and judged, its mask burnt, and both files encoded.
//!
//! Contract: pure CPU work on the pool, one chip a message, from the first pixel to the last byte on one thread, band after
//! band while its pixels are warm. The pixels stage is told what became of the window when that is known. A mask holds every
//! labelled parcel in the window, not only the drawn one; a chip whose mask would be empty is rejected (`empty_mask`).
//! Trap: pixels are judged over all bands, so a window with anything to judge is cut twice.

use std::cell::RefCell;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::cpu::CpuPool;
use super::lane::{Credited, Lane};
use super::messages::{ChipOutcome, Conclude, Drawn, Fan, Rasterise, WriteChip};
use super::uncut::{Uncut, Verdict};
use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::adapters::failpoint::reach;
use crate::adapters::geotiff::{Compression, EncodeError, MaskLook, Place, encode_image, encode_mask, planes};
use crate::adapters::shapes;
use crate::adapters::spare::{Lent, Spares};
use crate::domain::band::Band;
use crate::domain::candidate::Candidate;
use crate::domain::checksum::Algorithm;
use crate::domain::chip_name::{NameParts, NameTemplate};
use crate::domain::chip_tags::{Tagged, chip_tags};
use crate::domain::failure::Failure;
use crate::domain::label_index::{Burnt, Label, LabelIndex, Placed};
use crate::domain::labels;
use crate::domain::manifest::{ChipRecord, FileRecord, Rejection};
use crate::domain::parcel::Parcel;
use crate::domain::polygon::Polygon;
use crate::domain::provenance::Provenance;

/// What the rasteriser needs.
#[derive(Clone)]
pub struct Rasteriser {
    /// What encoding depends on.
    pub how: Arc<Encoding>,
    /// Where the work is done.
    pub cpu: CpuPool,
    /// Next stage.
    pub writer: Lane<WriteChip>,
    /// Where a task ends whose last chip is rejected here.
    pub conclude: Lane<Conclude>,
}

/// How chips look and are called.
#[derive(Debug)]
pub struct Encoding {
    /// Name of this worker.
    pub worker: Arc<str>,
    /// CRS of the parcels.
    pub crs: Crs,
    /// Bands of the image, in order.
    pub bands: Vec<Band>,
    /// Colours and names of the mask's values.
    pub look: MaskLook,
    /// What of the parcels becomes a label.
    pub labels: LabelRules,
    /// Compression of both files.
    pub compression: Compression,
    /// Checksums of the files in the manifest.
    pub checksum: Algorithm,
    /// Names of chips.
    pub names: NameTemplate,
    /// Buffers for encoded images.
    pub images: Spares<u8>,
    /// Shapes that neighbouring tasks have prepared already.
    pub prepared: Prepared,
}

/// What of the parcels becomes a label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelRules {
    /// Metres next to a parcel's edge that are not labelled.
    pub erode_m: f64,
    /// Value of pixels without a label.
    pub unlabelled: u8,
    /// Smallest share of a chip's pixels that is labelled, 0 to 1.
    pub min_share: f64,
}

/// Shapes as they are burnt, by parcel and EPSG code: a parcel at the edge of a cell shows in chips of its neighbours too.
#[derive(Debug)]
pub struct Prepared(Cache<(i64, u32), Option<Arc<Placed>>, ShapeWeight>);

impl Prepared {
    /// Keeps at most `bytes` of shapes.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter((bytes / 512) as usize, bytes, ShapeWeight))
    }
}

#[derive(Debug, Clone)]
struct ShapeWeight;

impl Weighter<(i64, u32), Option<Arc<Placed>>> for ShapeWeight {
    fn weight(&self, _: &(i64, u32), shape: &Option<Arc<Placed>>) -> u64 {
        shape.as_ref().map_or(0, |s| s.bytes() as u64) + 128
    }
}

/// Buffers that each thread of the pool keeps.
#[derive(Debug, Default)]
struct Scratch {
    /// (bands, rows, cols), DN, harmonised, of a window that had to be judged.
    pixels: Vec<u16>,
    /// (rows, cols), values of classes.
    mask: Vec<u8>,
    burning: labels::Scratch,
}

/// What came of a window.
enum Made {
    /// A chip.
    Chip(Box<WriteChip>),
    /// No chip of this parcel; with its share of the task.
    Nothing(Arc<Fan>, ChipOutcome),
    /// It is back in the pixels stage.
    Refused,
}

/// Tags as the encoder takes them.
fn borrowed<'a>(tags: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    tags.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Actor for Rasteriser {
    type Context = Context<Self>;
}

impl Handler<Credited<Rasterise>> for Rasteriser {
    type Result = ();

    fn handle(&mut self, asked: Credited<Rasterise>, _: &mut Self::Context) {
        let (this, span) = (self.clone(), asked.message.fan.job().span("rasteriser"));
        asked.work(span, |message| this.make(message));
    }
}

impl Rasteriser {
    async fn make(self, asked: Rasterise) {
        let chip = asked.drawn.chip;
        if asked.fan.job().cancel.is_cancelled() {
            let Rasterise { fan, window, .. } = asked;
            window.answer(Verdict::Taken);
            return self.end(fan, chip, ChipOutcome::Abandoned).await;
        }
        reach("rasteriser.before");
        let how = self.how.clone();
        match self.cpu.run(move || SCRATCH.with_borrow_mut(|scratch| how.make(asked, scratch))).await {
            Some(Made::Chip(write)) => {
                reach("rasteriser.after");
                tracing::debug!(chip, bytes = write.image.len() + write.mask.len(), "encoded");
                // The chip's share of the task travels on in the message.
                self.writer.send(*write).await;
            }
            Some(Made::Nothing(fan, outcome)) => self.end(fan, chip, outcome).await,
            // Of a chip that came back the pixels stage knows; one that panicked vanishes.
            Some(Made::Refused) | None => {}
        }
    }

    async fn end(&self, fan: Arc<Fan>, chip: u32, outcome: ChipOutcome) {
        fan.note(chip, outcome);
        if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }
}

/// Why a window gives no files.
enum End {
    /// It is no use.
    Window(Verdict),
    /// It is, and yet there is no chip.
    Outcome(ChipOutcome),
}

/// Why an image ends before its last band.
enum Stop {
    /// There is something in its pixels that has to be judged, over all bands.
    Unjudged,
    End(End),
}

impl From<EncodeError> for Stop {
    fn from(error: EncodeError) -> Self {
        Self::End(error.into())
    }
}

impl From<EncodeError> for End {
    fn from(error: EncodeError) -> Self {
        Self::Outcome(ChipOutcome::Broken(Failure::permanent("rasteriser", error.to_string())))
    }
}

impl Encoding {
    /// Cuts a chip and makes its files.
    fn make(&self, asked: Rasterise, scratch: &mut Scratch) -> Made {
        let Rasterise { fan, drawn, from, window, provenance } = asked;
        match self.encode(&fan, drawn, &from, &window, provenance, scratch) {
            Ok((record, chip, image, mask)) => {
                window.answer(Verdict::Taken);
                Made::Chip(Box::new(WriteChip { fan, record, chip, image, mask }))
            }
            Err(End::Outcome(outcome)) => {
                window.answer(Verdict::Taken);
                Made::Nothing(fan, outcome)
            }
            Err(End::Window(verdict)) => {
                drop(fan);
                window.answer(verdict);
                Made::Refused
            }
        }
    }

    /// Burns, cuts, encodes, and describes one chip.
    fn encode(
        &self,
        fan: &Fan,
        drawn: Drawn,
        from: &Candidate,
        window: &Uncut,
        mut provenance: Provenance,
        Scratch { pixels, mask, burning }: &mut Scratch,
    ) -> Result<(ChipRecord, u32, Lent<u8>, Vec<u8>), End> {
        let (grid, epsg) = (from.grid, from.scene.epsg);
        let Burnt { parcels, pixels: counts } = match self.burn(fan, &drawn, from, mask, burning) {
            Ok(burnt) => burnt,
            // A window that is no use goes to another scene before anything is said of its mask.
            Err(outcome) => return Err(window.cut(pixels).map_or_else(End::Window, |_| End::Outcome(outcome))),
        };
        provenance.parcels = parcels;
        let place = Place { grid: &grid, epsg };
        let bands: Vec<&str> = self.bands.iter().map(|b| b.name()).collect();
        let datetime = from.scene.datetime.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let job = fan.job();
        let tags = |provenance: &Provenance| {
            chip_tags(&Tagged {
                scene: &from.scene,
                season: &from.season,
                datetime: &datetime,
                parcel: drawn.parcel,
                class: drawn.class,
                run: &job.key.run,
                seed: job.seed,
                provenance,
            })
        };
        let mut known = tags(&provenance);
        let mut image = self.images.lend();
        let plain = |band: usize, plane: &mut [u16]| match window.plain(band, plane) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Unjudged),
            Err(verdict) => Err(Stop::End(End::Window(verdict))),
        };
        match encode_image(place, &bands, &borrowed(&known), plain, self.compression, &mut image) {
            Ok(()) => {}
            Err(Stop::End(end)) => return Err(end),
            // Few windows have any; these are cut once more.
            Err(Stop::Unjudged) => {
                let shares = window.cut(pixels).map_err(End::Window)?;
                (provenance.nodata_fraction, provenance.suspect_fraction) = (shares.nodata, shares.suspect);
                known = tags(&provenance);
                encode_image(place, &bands, &borrowed(&known), planes(pixels), self.compression, &mut image)?;
            }
        }
        let mask = encode_mask(place, &self.look, &borrowed(&known), mask, self.compression)?;
        let name = self.names.name(&NameParts {
            worker: &self.worker,
            task: job.task.task_id,
            class: drawn.class.get(),
            chip: drawn.chip,
            parcel: drawn.parcel,
            run: &job.key.run,
            season: &from.season,
        });
        let record = ChipRecord {
            name,
            class: drawn.class,
            parcel: drawn.parcel,
            item: from.scene.id.clone(),
            collection: from.scene.collection.clone(),
            datetime,
            cloud_cover: from.scene.cloud_cover,
            season: from.season.to_string(),
            epsg,
            grid,
            pixels: counts,
            provenance,
            image: FileRecord::of(self.checksum, &image),
            mask: FileRecord::of(self.checksum, &mask),
        };
        Ok((record, drawn.chip, image, mask))
    }

    /// Burns the mask of a window, if it is one to learn from.
    fn burn(
        &self,
        fan: &Fan,
        drawn: &Drawn,
        from: &Candidate,
        mask: &mut Vec<u8>,
        burning: &mut labels::Scratch,
    ) -> Result<Burnt, ChipOutcome> {
        let epsg = from.scene.epsg;
        let make =
            |parcels: &[Parcel]| self.index(parcels, epsg).map_err(|e| Failure::permanent("rasteriser", e.to_string()));
        let labels = fan.labels(epsg, make).map_err(ChipOutcome::Broken)?;
        let burnt = labels.burn(&from.grid, self.labels.unlabelled, mask, burning);
        let unlabelled = burnt.pixels.iter().find(|(value, _)| *value == self.labels.unlabelled).map_or(0, |(_, n)| *n);
        let share = 1.0 - f64::from(unlabelled) / mask.len().max(1) as f64;
        let (reason, detail) = match share {
            0.0 => ("empty_mask", "no pixel centre lies in a labelled parcel".to_owned()),
            few if few < self.labels.min_share => {
                ("few_labels", format!("{:.1} % of the pixels are labelled", share * 100.0))
            }
            _ => return Ok(burnt),
        };
        Err(ChipOutcome::Rejected(Rejection {
            parcel: drawn.parcel,
            class: drawn.class,
            season: from.season.to_string(),
            reason: reason.into(),
            detail,
        }))
    }

    /// The labelled parcels in the CRS `epsg`, drawn in if that is wanted; those without a place there are left out.
    fn index(&self, parcels: &[Parcel], epsg: u32) -> Result<LabelIndex, CrsError> {
        let transform = Transform::new(&self.crs, &Crs::epsg(epsg)?)?;
        let mut labels = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            let Some(class) = parcel.class else { continue };
            let shape = self.prepared.0.get_or_insert_with(&(parcel.id, epsg), || self.prepare(parcel, &transform))?;
            labels.extend(shape.map(|shape| Label { id: parcel.id, class, shape }));
        }
        Ok(LabelIndex::new(labels))
    }

    /// A parcel's shape as it is burnt; `None` when it has no place there, or an erosion leaves nothing.
    fn prepare(&self, parcel: &Parcel, transform: &Transform) -> Result<Option<Arc<Placed>>, CrsError> {
        let mut shape = Polygon::clone(&parcel.shape);
        transform.shape_or_nan(shape.points_mut())?;
        let whole = self.labels.erode_m <= 0.0;
        let shape = if whole { Some(shape) } else { shapes::eroded(&shape, self.labels.erode_m) };
        Ok(shape.and_then(Placed::new).map(Arc::new))
    }
}
