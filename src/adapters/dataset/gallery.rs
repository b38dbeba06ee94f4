//! A dataset that is only looked at: its manifests, and its chips as small pictures.
//!
//! Contract: reads, never writes, locks or mends, so it may look at a directory that workers write to. What is opened is
//! found in a manifest: nothing a client says becomes a path but a checked run id and a number. Pictures are 8-bit RGB,
//! (rows, cols, 3), at most [`EDGE`] pixels wide and high; true colour is B04, B03, B02 under one fixed stretch, so two
//! pictures can be compared. All calls block on I/O. Units: DN. Trap: GDAL handles live and die within one call.

use std::path::{Path, PathBuf};

use gdal::raster::ResampleAlg;
use gdal::{Dataset, DatasetOptions, Metadata};

use super::{StoreError, safe_key};
use crate::domain::failure::Severity;
use crate::domain::manifest::{MAX_BYTES, Manifest};
use crate::domain::task::{TaskKey, is_safe_run_id};

/// Longest edge of a picture, pixels.
pub const EDGE: usize = 128;

/// DN that is shown as white: a reflectance of 0.3, above most land.
const WHITE: f32 = 3000.0;
/// What lifts dark land; 1 would be linear.
const GAMMA: f32 = 1.0 / 1.5;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// No manifest of this task, or it has no such chip.
    #[error("the dataset in {dir} holds no chip {chip} of task {task}")]
    NoChip {
        /// The directory.
        dir: String,
        /// The task.
        task: TaskKey,
        /// Number of the chip in the manifest.
        chip: usize,
    },
    /// The manifest.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error("reading {path}: {source}")]
    Gdal {
        /// The file.
        path: String,
        /// What GDAL said.
        source: gdal::errors::GdalError,
    },
    /// The picture could not be encoded.
    #[error("writing PNG: {0}")]
    Png(#[from] png::EncodingError),
}

impl GalleryError {
    /// Nobody's work depends on a picture.
    pub fn severity(&self) -> Severity {
        Severity::Permanent
    }
}

/// Which of a chip's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The image, in true colour.
    Image,
    /// The mask, in the colours of its palette.
    Mask,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Gallery {
    root: PathBuf,
}

impl Gallery {
    /// The dataset in `root`, which need not be there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the directory can be seen from this machine.
    pub fn is_there(&self) -> bool {
        self.root.is_dir()
    }

    /// Runs with finished tasks, ascending.
    ///
    /// # Errors
    /// A directory that cannot be read; none at all is no error.
    pub fn runs(&self) -> Result<Vec<String>, StoreError> {
        let mut runs = names(&self.root.join(".manifests"))?;
        runs.retain(|run| is_safe_run_id(run));
        runs.sort();
        Ok(runs)
    }

    /// Numbers of the finished tasks of a run, ascending.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn tasks(&self, run: &str) -> Result<Vec<u64>, StoreError> {
        safe_key(&TaskKey { run: run.to_owned(), task: 0 })?;
        let number = |name: String| name.strip_prefix("task_")?.strip_suffix(".json")?.parse().ok();
        let mut tasks: Vec<u64> =
            names(&self.root.join(".manifests").join(run))?.into_iter().filter_map(number).collect();
        tasks.sort_unstable();
        Ok(tasks)
    }

    /// The record of a finished task; `None`: there is none.
    ///
    /// # Errors
    /// An unsafe run id, a file that cannot be read, or one that is not this task's record.
    pub fn manifest(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        safe_key(key)?;
        let path = self.root.join(".manifests").join(&key.run).join(format!("task_{}.json", key.task));
        let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
        let raw = match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(m) if m.len() > MAX_BYTES => return Err(damaged(format!("{} bytes are too many", m.len()))),
            Ok(_) => std::fs::read(&path),
            Err(e) => Err(e),
        };
        let raw =
            raw.map_err(|source| StoreError::Io { action: "reading", path: path.display().to_string(), source })?;
        let manifest = Manifest::parse(&raw).map_err(|e| damaged(e.to_string()))?;
        if manifest.key != *key {
            return Err(damaged(format!("it is the record of task {}", manifest.key)));
        }
        Ok(Some(manifest))
    }

    /// A PNG of the chip with this place in its task's manifest.
    ///
    /// # Errors
    /// See [`GalleryError`].
    pub fn picture(&self, key: &TaskKey, chip: usize, kind: Kind) -> Result<Vec<u8>, GalleryError> {
        let manifest = self.manifest(key)?;
        let none = || GalleryError::NoChip { dir: self.root.display().to_string(), task: key.clone(), chip };
        let record = manifest.as_ref().and_then(|m| m.chips.get(chip)).ok_or_else(none)?;
        self.picture_named(&record.name, kind)
    }

    /// A PNG of the chip of this name, as a checked manifest holds it.
    ///
    /// # Errors
    /// See [`GalleryError`].
    pub fn picture_named(&self, name: &str, kind: Kind) -> Result<Vec<u8>, GalleryError> {
        if !crate::domain::chip_name::is_safe_stem(name) {
            return Err(StoreError::UnsafeName(name.to_owned()).into());
        }
        let place = match kind {
            Kind::Image => "images",
            Kind::Mask => "masks",
        };
        let path = self.root.join(place).join(format!("{name}.tif"));
        let read = match kind {
            Kind::Image => true_colour(&path),
            Kind::Mask => coloured(&path),
        };
        let (size, pixels) = read.map_err(|source| GalleryError::Gdal { path: path.display().to_string(), source })?;
        Ok(png(size, &pixels)?)
    }
}

type Rgb = ((usize, usize), Vec<[u8; 3]>);

fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Io { action: "reading", path: dir.display().to_string(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}

fn open(path: &Path) -> Result<Dataset, gdal::errors::GdalError> {
    // No other driver is asked, so a file that is no TIFF is nothing but an error.
    Dataset::open_ex(path, DatasetOptions { allowed_drivers: Some(&["GTiff"]), ..DatasetOptions::default() })
}

/// The size of a picture of something this large: at most [`EDGE`] each way.
fn small((width, height): (usize, usize)) -> (usize, usize) {
    let by = width.max(height).div_ceil(EDGE).max(1);
    ((width / by).max(1), (height / by).max(1))
}

fn true_colour(path: &Path) -> Result<Rgb, gdal::errors::GdalError> {
    let tif = open(path)?;
    let (size, to) = (tif.raster_size(), small(tif.raster_size()));
    let band = |name: &str| {
        let named = |i: &usize| tif.rasterband(*i).is_ok_and(|b| b.description().is_ok_and(|d| d == name));
        // A dataset without this band shows its first one: grey is better than nothing.
        let index = (1..=tif.raster_count()).find(named).unwrap_or(1);
        let average = Some(ResampleAlg::Average);
        tif.rasterband(index)?.read_as::<u16>((0, 0), size, to, average)
    };
    let [red, green, blue] = [band("B04")?, band("B03")?, band("B02")?].map(|b| b.into_shape_and_vec().1);
    let pixels = red.iter().zip(&green).zip(&blue).map(|((r, g), b)| [shade(*r), shade(*g), shade(*b)]).collect();
    Ok((to, pixels))
}

fn shade(dn: u16) -> u8 {
    ((f32::from(dn) / WHITE).min(1.0).powf(GAMMA) * 255.0).round() as u8
}

fn coloured(path: &Path) -> Result<Rgb, gdal::errors::GdalError> {
    let tif = open(path)?;
    let (size, to) = (tif.raster_size(), small(tif.raster_size()));
    let band = tif.rasterband(1)?;
    let values = band.read_as::<u8>((0, 0), size, to, Some(ResampleAlg::NearestNeighbour))?.into_shape_and_vec().1;
    let table = band.color_table();
    let colour = |value: u8| {
        let entry = table.as_ref().and_then(|t| t.entry_as_rgb(usize::from(value)));
        entry.map_or([value; 3], |e| [e.r, e.g, e.b].map(|c| c.clamp(0, 255) as u8))
    };
    let palette: Vec<[u8; 3]> = (0..=255).map(colour).collect();
    Ok((to, values.into_iter().map(|value| palette[usize::from(value)]).collect()))
}

fn png((width, height): (usize, usize), pixels: &[[u8; 3]]) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(pixels.as_flattened())?;
    Ok(out)
}
