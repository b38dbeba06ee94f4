//! `stats.json`: exact statistics of the training chips' pixels, kept up to date by what has changed.
//!
//! Contract: every pixel of every training chip counts once, nodata (0) left out, band by band; nothing is sampled and
//! nothing is estimated (see [`crate::domain::band_stats`]). The histograms are kept in `.stats.state` with the list of
//! chips in them, so that the next time only chips that have come or gone are read; the result is the same as from
//! scratch. All threads of the pool read.
//! Memory: one histogram of 512 KiB per band and thread, some for merging, and one bit per chip.
//! Trap: a state that does not fit the manifests is thrown away, and everything is read again.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gdal::{Dataset, Metadata as _};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::FinishError;
use super::manifests::Manifests;
use super::publish::Publication;
use super::survey::Survey;
use crate::domain::band_stats::{BandStats, Histogram, PERCENTILES, VALUES};
use crate::domain::split::Split;

/// Name of the kept histograms.
pub const STATE: &str = ".stats.state";

/// Version of the state's format.
const SCHEMA: u32 = 1;

/// Chips that are read between two looks at the list.
const BATCH: usize = 512;

/// Histograms of all bands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bands {
    /// Name of each band, as the images have it, and how often each value occurs in it.
    pub bands: Vec<(String, Histogram)>,
}

impl Bands {
    fn merge(mut self, other: Self) -> Result<Self, FinishError> {
        if self.bands.is_empty() {
            return Ok(other);
        }
        if other.bands.is_empty() {
            return Ok(self);
        }
        same(&self, &other, "a chip")?;
        for ((_, mine), (_, theirs)) in self.bands.iter_mut().zip(&other.bands) {
            mine.merge(theirs);
        }
        Ok(self)
    }

    /// Adds an image.
    fn read(mut self, path: &Path) -> Result<Self, FinishError> {
        let failed = |why: String| FinishError::Image { path: path.display().to_string(), why };
        let gdal = |e: gdal::errors::GdalError| failed(e.to_string());
        let image = Dataset::open(path).map_err(gdal)?;
        let fresh = self.bands.is_empty();
        if !fresh && image.raster_count() != self.bands.len() {
            return Err(failed(format!("it has {} bands, others {}", image.raster_count(), self.bands.len())));
        }
        let (width, height) = image.raster_size();
        for at in 0..image.raster_count() {
            let band = image.rasterband(at + 1).map_err(gdal)?;
            let name = band.description().map_err(gdal)?;
            if fresh {
                self.bands.push((name, Histogram::default()));
            } else if self.bands[at].0 != name {
                return Err(failed(format!("band {} is called {name:?}, in others {:?}", at + 1, self.bands[at].0)));
            }
            let pixels = band.read_as::<u16>((0, 0), (width, height), (width, height), None).map_err(gdal)?;
            self.bands[at].1.add(pixels.data());
        }
        Ok(self)
    }

    /// Statistics of the bands that have any pixel.
    pub fn stats(&self) -> Vec<BandReport> {
        let report = |(name, histogram): &(String, Histogram)| {
            let BandStats { pixels, mean, std, min, max, percentiles } = histogram.stats()?;
            let percentiles = PERCENTILES.iter().map(u8::to_string).zip(percentiles).collect();
            Some(BandReport { name: name.clone(), pixels, mean, std, min, max, percentiles })
        };
        self.bands.iter().filter_map(report).collect()
    }
}

fn same(a: &Bands, b: &Bands, what: &str) -> Result<(), FinishError> {
    let names = |bands: &Bands| bands.bands.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(a) == names(b) {
        return Ok(());
    }
    let why = format!("{what} has the bands {}, others {}", names(b).join(" "), names(a).join(" "));
    Err(FinishError::Image { path: "images".into(), why })
}

/// One band in `stats.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BandReport {
    /// Name.
    pub name: String,
    /// Pixels counted.
    pub pixels: u64,
    /// Mean, DN.
    pub mean: f64,
    /// Standard deviation of the population, DN.
    pub std: f64,
    /// Smallest value.
    pub min: u16,
    /// Largest value.
    pub max: u16,
    /// Percentile by its number.
    pub percentiles: BTreeMap<String, f64>,
}

/// What the histograms were made of.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    schema: u32,
    bands: Vec<String>,
    /// Run, task, attempt, and the chips that are in: a bit each, from the first, in bytes as hex.
    tasks: Vec<(String, u64, String, String)>,
}

/// A list of chips as bits.
fn bits(chips: &[bool]) -> Vec<u8> {
    chips.chunks(8).map(|byte| byte.iter().zip(0..).map(|(b, at)| u8::from(*b) << at).sum()).collect()
}

fn is_set(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

/// Names of an image's bands.
///
/// # Errors
/// A file that cannot be read.
pub fn band_names(path: &Path) -> Result<Vec<String>, FinishError> {
    let gdal = |e: gdal::errors::GdalError| FinishError::Image { path: path.display().to_string(), why: e.to_string() };
    let image = Dataset::open(path).map_err(gdal)?;
    (1..=image.raster_count()).map(|at| image.rasterband(at)?.description()).collect::<Result<_, _>>().map_err(gdal)
}

/// How much was read to bring the statistics up to date, images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Images added.
    pub added: u64,
    /// Images taken out again.
    pub removed: u64,
}

/// Brings the histograms up to date and leaves the new state in the publication.
///
/// # Errors
/// Images that cannot be read or do not have the same bands.
pub fn update(
    manifests: &Manifests,
    survey: &Survey,
    pool: &rayon::ThreadPool,
    to: &mut Publication,
) -> Result<(Bands, Effort), FinishError> {
    let kept = load(manifests.root()).filter(|(contents, _)| fits(contents, manifests));
    let (contents, mut bands) = kept.unwrap_or_default();
    let before: HashMap<(&str, u64), &str> =
        contents.tasks.iter().map(|(run, task, _, bits)| ((run.as_str(), *task), bits.as_str())).collect();
    let images = manifests.root().join("images");
    let mut now = Contents { schema: SCHEMA, ..Contents::default() };
    let (mut come, mut gone) = (Batch::default(), Batch::default());
    manifests.each(
        pool,
        |at| manifests.read(at),
        |at, manifest| {
            let wanted: Vec<bool> = survey.splits_of(at).iter().map(|s| *s == Split::Train).collect();
            let key = (manifest.key.run.as_str(), manifest.key.task);
            let had = before.get(&key).map(|hex| unhex(hex)).unwrap_or_default();
            for (n, chip) in manifest.chips.iter().enumerate() {
                let path = || images.join(format!("{}.tif", chip.name));
                match (is_set(&had, n), wanted[n]) {
                    (false, true) => come.push(path(), pool)?,
                    (true, false) => gone.push(path(), pool)?,
                    _ => {}
                }
            }
            let hex = crate::domain::checksum::hex(&bits(&wanted));
            now.tasks.push((manifest.key.run.clone(), manifest.key.task, manifest.attempt.clone(), hex));
            Ok(())
        },
    )?;
    let effort = Effort { added: come.count, removed: gone.count };
    bands = bands.merge(come.end(pool)?)?;
    let out = gone.end(pool)?;
    if !out.bands.is_empty() {
        same(&bands, &out, "a chip that left")?;
        for ((name, mine), (_, theirs)) in bands.bands.iter_mut().zip(&out.bands) {
            let lost = || FinishError::Stale {
                path: manifests.root().join(STATE).display().to_string(),
                why: format!("does not hold what it says (band {name}): remove it"),
            };
            *mine = mine.unmerge(theirs).ok_or_else(lost)?;
        }
    }
    now.bands = bands.bands.iter().map(|(name, _)| name.clone()).collect();
    save(&now, &bands, to)?;
    Ok((bands, effort))
}

/// Whether every task of the state is still there as it was.
fn fits(contents: &Contents, manifests: &Manifests) -> bool {
    let known: HashMap<_, _> = (0..manifests.len()).map(|at| (manifests.key(at), at)).collect();
    contents.schema == SCHEMA
        && contents.tasks.iter().all(|(run, task, attempt, _)| {
            let key = crate::domain::task::TaskKey { run: run.clone(), task: *task };
            let there = known.get(&key).and_then(|at| manifests.read(*at).ok());
            there.is_some_and(|manifest| manifest.attempt == *attempt)
        })
}

/// Images that are read together.
#[derive(Default)]
struct Batch {
    paths: Vec<PathBuf>,
    bands: Bands,
    count: u64,
}

impl Batch {
    fn push(&mut self, path: PathBuf, pool: &rayon::ThreadPool) -> Result<(), FinishError> {
        self.paths.push(path);
        self.count += 1;
        if self.paths.len() == BATCH { self.read(pool) } else { Ok(()) }
    }

    fn read(&mut self, pool: &rayon::ThreadPool) -> Result<(), FinishError> {
        let paths = std::mem::take(&mut self.paths);
        let share = paths.len().div_ceil(pool.current_num_threads()).max(1);
        let parts = pool.install(|| {
            let part = |paths: &[PathBuf]| paths.iter().try_fold(Bands::default(), |bands, path| bands.read(path));
            paths.par_chunks(share).map(part).collect::<Result<Vec<_>, _>>()
        })?;
        for part in parts {
            self.bands = std::mem::take(&mut self.bands).merge(part)?;
        }
        Ok(())
    }

    fn end(mut self, pool: &rayon::ThreadPool) -> Result<Bands, FinishError> {
        self.read(pool)?;
        Ok(self.bands)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn save(contents: &Contents, bands: &Bands, to: &mut Publication) -> Result<(), FinishError> {
    let json = |source| FinishError::Json { path: STATE.to_owned(), source };
    let head = serde_json::to_vec(contents).map_err(json)?;
    let draft = to.draft(STATE)?;
    let io = |e| FinishError::io("writing", Path::new(STATE))(e);
    let mut packed = zstd::Encoder::new(draft, 3).map_err(io)?;
    packed.write_all(&(head.len() as u64).to_le_bytes()).and_then(|()| packed.write_all(&head)).map_err(io)?;
    for (_, histogram) in &bands.bands {
        packed.write_all(bytemuck::cast_slice(histogram.counts())).map_err(io)?;
    }
    let draft = packed.finish().map_err(io)?;
    to.close(draft)
}

/// The state, if there is a sound one.
fn load(root: &Path) -> Option<(Contents, Bands)> {
    use std::io::Read as _;
    // One that no record vouches for may be from another time than the rest.
    let record = super::record::Finished::read(root).ok()??;
    let vouched = record.files.iter().find(|f| f.name == STATE)?;
    let path = root.join(STATE);
    (super::record::sha256(&path).ok()? == vouched.sha256).then_some(())?;
    let mut raw = zstd::Decoder::new(std::fs::File::open(&path).ok()?).ok()?;
    let mut length = [0; 8];
    raw.read_exact(&mut length).ok()?;
    let mut head = Vec::new();
    raw.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut head).ok()?;
    let contents: Contents = serde_json::from_slice(&head).ok()?;
    let mut bands = Bands::default();
    for name in &contents.bands {
        let mut counts = vec![0u64; VALUES];
        raw.read_exact(bytemuck::cast_slice_mut(&mut counts)).ok()?;
        bands.bands.push((name.clone(), Histogram::from_counts(counts)?));
    }
    Some((contents, bands))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back() {
        let chips: Vec<bool> = (0..21).map(|i| i % 3 == 0).collect();
        let packed = bits(&chips);
        assert_eq!(unhex(&crate::domain::checksum::hex(&packed)), packed);
        assert_eq!((0..21).map(|at| is_set(&packed, at)).collect::<Vec<_>>(), chips);
        assert!(!is_set(&packed, 1000));
    }
}
