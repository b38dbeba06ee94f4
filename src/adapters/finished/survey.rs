//! First look at all chips: where they are, and which split each belongs to.
//!
//! Contract: two passes over the manifests; the answer is a function of them and of the settings. Corners are taken from
//! the chip's own UTM zone to WGS 84, so chips of different zones are compared on the ellipsoid.
//! Memory per chip: 72 bytes of outline, 8 of block, 2 of splits, and the trees of [`split::separate`].

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::FinishError;
use super::manifests::{Fingerprint, Manifests};
use crate::adapters::crs::{Crs, CrsError, Transform};
use crate::adapters::dataset::disk::DiskStore;
use crate::domain::block::{Block, Blocks};
use crate::domain::manifest::{ChipRecord, Manifest};
use crate::domain::quad::Quad;
use crate::domain::split::{self, SharedParcels, Split, SplitSettings};

/// What is known of all chips; places in the lists follow the order of the manifests.
#[derive(Debug)]
pub struct Survey {
    /// Where each chip belongs.
    pub splits: Vec<Split>,
    /// The block that drew it.
    pub blocks: Vec<Block>,
    /// `[west, south, east, north]` around all chips, degrees.
    pub bounds: [f64; 4],
    /// First chip of each task, one more at the end.
    pub starts: Vec<usize>,
    /// Proof that the splits are apart.
    pub certificate: Certificate,
    /// [`Manifests::fingerprint`]: what the dataset was made from.
    pub fingerprint: String,
}

/// What is certified of a split; recounted from its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    /// Settings it was made with.
    pub settings: SplitSettings,
    /// What the blocks are.
    pub blocks: &'static str,
    /// Chips by split.
    pub chips: BTreeMap<&'static str, u64>,
    /// Blocks that drew each split and hold a chip.
    pub blocks_drawn: BTreeMap<&'static str, u64>,
    /// Parcels that show in chips of two splits.
    pub shared_parcels: u64,
    /// What a chip's parcels are: `all` in its mask, or its `centre` parcel alone, when the manifests know no others.
    pub parcels_known: &'static str,
    /// Pairs of chips of two splits that share pixels of the ground.
    pub pairs_sharing_pixels: u64,
    /// The smallest distances, by pair.
    pub distances: Vec<Distance>,
    /// The smallest of all; none when there are not two splits.
    pub smallest_distance_m: Option<f64>,
    /// How distances are measured.
    pub distance_is: &'static str,
}

/// Nearest chips of two splits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distance {
    /// The splits.
    pub splits: [&'static str; 2],
    /// Metres between the outlines.
    pub metres: f64,
    /// Names of the two chips.
    pub chips: [String; 2],
}

const BLOCKS_ARE: &str =
    "rows of latitude of block_km, each cut into the whole number of equal columns nearest to square";
const DISTANCE_IS: &str = "between outlines, on the plane tangent to the WGS 84 ellipsoid midway between the two chips";

/// Corners of chips in degrees; transforms by EPSG code are made once.
#[derive(Debug, Default)]
pub struct Corners {
    zones: HashMap<u32, Transform>,
}

impl Corners {
    /// Lower left, lower right, upper right, upper left, as lon and lat.
    ///
    /// # Errors
    /// A CRS that PROJ does not know, or a place that is nowhere.
    pub fn of(&mut self, chip: &ChipRecord) -> Result<[[f64; 2]; 4], FinishError> {
        let place = |source: CrsError| FinishError::Place { chip: chip.name.clone(), source };
        let zone = match self.zones.entry(chip.epsg) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let crs = Crs::epsg(chip.epsg).map_err(place)?;
                new.insert(Transform::new(&crs, &Crs::lonlat()).map_err(place)?)
            }
        };
        let [w, s, e, n] = chip.grid.bounds();
        let mut corners = [[w, s], [e, s], [e, n], [w, n]];
        zone.points(&mut corners).map_err(place)?;
        Ok(corners)
    }
}

/// Parcels a chip shows: all in its mask when the manifest knows them, else the one in its centre.
pub fn parcels(chip: &ChipRecord) -> &[i64] {
    match chip.provenance.parcels.as_slice() {
        [] => std::slice::from_ref(&chip.parcel),
        all => all,
    }
}

struct Seen {
    manifest: Manifest,
    places: Vec<([[f64; 2]; 4], Quad)>,
}

impl Survey {
    /// Looks at all chips; see the module's contract.
    ///
    /// # Errors
    /// Manifests that cannot be read, chips that are nowhere.
    pub fn make(
        manifests: &Manifests,
        store: &DiskStore,
        settings: SplitSettings,
        pool: &rayon::ThreadPool,
    ) -> Result<Self, FinishError> {
        let blocks_of = Blocks::new(settings.block_km);
        let (mut quads, mut blocks, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
        let (mut starts, mut shared) = (vec![0], SharedParcels::default());
        let mut bounds = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        let (mut hash, mut all_known) = (Fingerprint::default(), true);
        let read = |at| {
            let manifest = manifests.read_published(store, at)?;
            let mut corners = Corners::default();
            let place = |chip| corners.of(chip).map(|c| (c, Quad::new(c)));
            let places = manifest.chips.iter().map(place).collect::<Result<_, _>>()?;
            Ok(Seen { manifest, places })
        };
        manifests.each(pool, read, |_, Seen { manifest, places }| {
            hash.add(&manifest);
            for (chip, (corners, quad)) in manifest.chips.iter().zip(places) {
                let centre = [0, 1].map(|i| corners.iter().map(|c| c[i]).sum::<f64>() / 4.0);
                let block = blocks_of.at(centre);
                let split = settings.draw(block);
                shared.see(split, parcels(chip));
                all_known &= !chip.provenance.parcels.is_empty();
                for [lon, lat] in corners {
                    bounds = [bounds[0].min(lon), bounds[1].min(lat), bounds[2].max(lon), bounds[3].max(lat)];
                }
                quads.push(quad);
                blocks.push(block);
                drawn.push(split);
            }
            starts.push(quads.len());
            Ok(())
        })?;
        let mut splits = split::separate(&quads, &drawn, &settings);
        // Second pass: parcels. Only validation and test chips' were kept, so the others are asked again.
        let mut at = 0;
        manifests.each(
            pool,
            |at| manifests.read(at),
            |_, manifest| {
                for chip in &manifest.chips {
                    splits[at] = shared.resolve(splits[at], parcels(chip));
                    shared.settle(splits[at], parcels(chip));
                    at += 1;
                }
                Ok(())
            },
        )?;
        let mut survey = Self {
            splits,
            blocks,
            bounds,
            starts,
            certificate: Certificate {
                settings,
                blocks: BLOCKS_ARE,
                chips: BTreeMap::new(),
                blocks_drawn: BTreeMap::new(),
                shared_parcels: shared.shared(),
                parcels_known: if all_known { "all" } else { "centre" },
                pairs_sharing_pixels: 0,
                distances: Vec::new(),
                smallest_distance_m: None,
                distance_is: DISTANCE_IS,
            },
            fingerprint: hash.end(),
        };
        survey.certify(manifests, &quads, &settings)?;
        Ok(survey)
    }

    fn certify(&mut self, manifests: &Manifests, quads: &[Quad], settings: &SplitSettings) -> Result<(), FinishError> {
        let mut chips: BTreeMap<&'static str, u64> = BTreeMap::new();
        for split in [Split::Train, Split::Val, Split::Test, Split::Buffer] {
            chips.insert(split.as_str(), self.splits.iter().filter(|s| **s == split).count() as u64);
        }
        let mut seen: Vec<Block> = self.blocks.clone();
        seen.sort_unstable();
        seen.dedup();
        let mut drawn: BTreeMap<&'static str, u64> = BTreeMap::new();
        for block in seen {
            *drawn.entry(settings.draw(block).as_str()).or_default() += 1;
        }
        let mut distances = Vec::new();
        for (a, b) in [(Split::Train, Split::Val), (Split::Train, Split::Test), (Split::Val, Split::Test)] {
            if let Some(found) = split::nearest(quads, &self.splits, a, b) {
                let mut chips = found.chips;
                chips.sort_by_key(|at| self.splits[*at]);
                let names = [self.name(manifests, chips[0])?, self.name(manifests, chips[1])?];
                distances.push(Distance { splits: [a.as_str(), b.as_str()], metres: found.metres, chips: names });
            }
        }
        let certificate = &mut self.certificate;
        (certificate.chips, certificate.blocks_drawn) = (chips, drawn);
        certificate.smallest_distance_m = distances.iter().map(|d| d.metres).reduce(f64::min);
        certificate.pairs_sharing_pixels = split::overlapping(quads, &self.splits);
        certificate.distances = distances;
        Ok(())
    }

    /// Name of the chip at a place.
    fn name(&self, manifests: &Manifests, at: usize) -> Result<String, FinishError> {
        let task = self.starts.partition_point(|start| *start <= at) - 1;
        Ok(manifests.read(task)?.chips[at - self.starts[task]].name.clone())
    }

    /// Splits of the chips of the task at this place of the list.
    pub fn splits_of(&self, task: usize) -> &[Split] {
        &self.splits[self.starts[task]..self.starts[task + 1]]
    }
}
