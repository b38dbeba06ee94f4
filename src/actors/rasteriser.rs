//! Fifth stage: the mask of a chip, and both files encoded.
//!
//! Contract: pure CPU work on the pool, one chip a message. A mask holds every labelled parcel in the
//! window, not only the drawn one; a chip whose mask would be empty is rejected (`empty_mask`).

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::cpu::CpuPool;
use super::lane::{Credited, Lane};
use super::messages::{ChipOutcome, Conclude, Fan, Rasterise, WriteChip};
use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::adapters::failpoint::reach;
use crate::adapters::geotiff::{Compression, MaskLook, Place, encode_image, encode_mask};
use crate::adapters::shapes;
use crate::domain::band::Band;
use crate::domain::chip_name::{NameParts, NameTemplate};
use crate::domain::chip_tags::{Tagged, chip_tags};
use crate::domain::failure::Failure;
use crate::domain::label_index::{Label, LabelIndex};
use crate::domain::labels::{Scratch, histogram};
use crate::domain::manifest::{ChipRecord, FileRecord, Rejection};
use crate::domain::parcel::Parcel;
use crate::domain::polygon::Polygon;

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
    /// Names of chips.
    pub names: NameTemplate,
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
pub struct Prepared(Cache<(i64, u32), Option<Arc<Polygon>>, ShapeWeight>);

impl Prepared {
    /// Keeps at most `bytes` of shapes.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter((bytes / 512) as usize, bytes, ShapeWeight))
    }
}

#[derive(Debug, Clone)]
struct ShapeWeight;

impl Weighter<(i64, u32), Option<Arc<Polygon>>> for ShapeWeight {
    fn weight(&self, _: &(i64, u32), shape: &Option<Arc<Polygon>>) -> u64 {
        shape.as_ref().map_or(0, |s| std::mem::size_of_val(s.points()) as u64) + 128
    }
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
        let (fan, chip) = (asked.fan.clone(), asked.drawn.chip);
        if fan.job().cancel.is_cancelled() {
            drop(asked);
            return self.end(fan, chip, ChipOutcome::Abandoned).await;
        }
        reach("rasteriser.before");
        let how = self.how.clone();
        let Some(made) = self.cpu.run(move || how.encode(asked)).await else { return };
        match made {
            Ok(write) => {
                reach("rasteriser.after");
                tracing::debug!(chip, bytes = write.image.len() + write.mask.len(), "encoded");
                // The chip's share of the task travels on in the message.
                drop(fan);
                self.writer.send(write).await;
            }
            Err(outcome) => self.end(fan, chip, outcome).await,
        }
    }

    async fn end(&self, fan: Arc<Fan>, chip: u32, outcome: ChipOutcome) {
        fan.note(chip, outcome);
        if let Some(done) = Fan::give_back(fan) {
            self.conclude.send(Conclude { done }).await;
        }
    }
}

impl Encoding {
    /// Burns, encodes, and describes one chip.
    fn encode(&self, asked: Rasterise) -> Result<WriteChip, ChipOutcome> {
        let Rasterise { fan, drawn, from, pixels, mut provenance } = asked;
        let grid = from.grid;
        let broken = |reason: String| ChipOutcome::Broken(Failure::permanent("rasteriser", reason));
        let epsg = from.scene.epsg;
        let make =
            |parcels: &[Parcel]| self.index(parcels, epsg).map_err(|e| Failure::permanent("rasteriser", e.to_string()));
        let labels = fan.labels(epsg, make).map_err(ChipOutcome::Broken)?;
        let (mask, burnt) = labels.mask(&grid, self.labels.unlabelled, &mut Scratch::default());
        let counts = histogram(&mask);
        let share = 1.0 - f64::from(counts[usize::from(self.labels.unlabelled)]) / mask.len().max(1) as f64;
        if share == 0.0 || share < self.labels.min_share {
            let (reason, detail) = match share == 0.0 {
                true => ("empty_mask", "no pixel centre lies in a labelled parcel".to_owned()),
                false => ("few_labels", format!("{:.1} % of the pixels are labelled", share * 100.0)),
            };
            return Err(ChipOutcome::Rejected(Rejection {
                parcel: drawn.parcel,
                class: drawn.class,
                season: from.season.to_string(),
                reason: reason.into(),
                detail,
            }));
        }
        provenance.parcels = burnt;
        let place = Place { grid: &grid, epsg };
        let bands: Vec<&str> = self.bands.iter().map(|b| b.name()).collect();
        let datetime = from.scene.datetime.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let job = fan.job();
        let tags = chip_tags(&Tagged {
            scene: &from.scene,
            season: &from.season,
            datetime: &datetime,
            parcel: drawn.parcel,
            class: drawn.class,
            run: &job.key.run,
            seed: job.seed,
            provenance: &provenance,
        });
        let metadata: Vec<(&str, &str)> = tags.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let image =
            encode_image(place, &bands, &metadata, &pixels, self.compression).map_err(|e| broken(e.to_string()))?;
        let mask =
            encode_mask(place, &self.look, &metadata, &mask, self.compression).map_err(|e| broken(e.to_string()))?;
        let name = self.names.name(&NameParts {
            worker: &self.worker,
            task: job.task.task_id,
            class: drawn.class.get(),
            chip: drawn.chip,
            parcel: drawn.parcel,
            run: &job.key.run,
            season: &from.season,
        });
        let pending = || FileRecord { bytes: 0, sha256: String::new() };
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
            pixels: (0..=255).zip(counts).filter(|(_, n)| *n > 0).collect(),
            provenance,
            image: pending(),
            mask: pending(),
        };
        Ok(WriteChip { fan, record, chip: drawn.chip, image, mask })
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

    /// A parcel's shape as it is burnt; `None` when an erosion leaves nothing.
    fn prepare(&self, parcel: &Parcel, transform: &Transform) -> Result<Option<Arc<Polygon>>, CrsError> {
        let mut shape = parcel.shape.clone();
        transform.points_or_nan(shape.points_mut())?;
        let whole = self.labels.erode_m <= 0.0;
        let shape = if whole { Some(shape) } else { shapes::eroded(&shape, self.labels.erode_m) };
        Ok(shape.map(Arc::new))
    }
}
