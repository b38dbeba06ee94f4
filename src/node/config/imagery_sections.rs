//! The sections that decide about imagery and labels: where scenes are looked for, what of them becomes a chip, and what
//! of the parcels its mask.
//!
//! Contract: as in [`super::sections`]. Trap: `stac.season` holds a name or one of three words; the words cannot be names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Address;
use super::sections::given;
use super::shape::{class_map, seconds};
use crate::domain::classes::ClassId;

/// `[stac]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stac {
    /// Root of the API.
    pub url: Address,
    /// Collections to search.
    pub collections: Vec<String>,
    /// Cloud cover a scene may have at first, percent.
    pub max_cloud: f64,
    /// A name in `seasons`, or one of [`SEASON_WORDS`].
    pub season: String,
    /// Where the search for another scene ends.
    pub widen: Widen,
    /// Scenes looked at for one chip.
    pub max_scenes: usize,
    /// Edge of the neighbourhood one search covers, degrees.
    pub neighbourhood: f64,
    /// Searches at the same time.
    pub requests_in_flight: usize,
    /// Longest time for one request.
    #[serde(rename = "timeout_s", with = "seconds")]
    pub timeout: Duration,
    /// Further attempts after a transient failure.
    pub retries: u32,
    /// Whether the server may filter by cloud cover; the client always does.
    pub cloud_on_server: bool,
    /// Base of relative asset links; empty: the item's address. See [`Stac::relative_href_base`].
    pub relative_href_base: Address,
    /// First and last day (`YYYY-MM-DD`, both included) by name.
    pub seasons: BTreeMap<String, [String; 2]>,
    /// Season of each class, for `season = "by_class"`.
    #[serde(with = "class_map")]
    pub by_class: BTreeMap<ClassId, String>,
}

/// `stac.season` when each task draws its own.
pub const RANDOM_SEASON: &str = "random";
/// `stac.season` for a chip of every season.
pub const ALL_SEASONS: &str = "all";
/// `stac.season` for the season of the chip's class.
pub const SEASON_BY_CLASS: &str = "by_class";
/// What `stac.season` may say besides a season's name.
pub const SEASON_WORDS: [&str; 3] = [RANDOM_SEASON, ALL_SEASONS, SEASON_BY_CLASS];

/// How far the search for a scene goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Widen {
    /// The season, below `stac.max_cloud`.
    None,
    /// The season, with more cloud.
    Cloud,
    /// Any season.
    Season,
}

impl Stac {
    /// The one season of all tasks; `None`: it differs.
    pub fn season(&self) -> Option<&str> {
        (!SEASON_WORDS.contains(&self.season.as_str())).then_some(self.season.as_str())
    }

    /// The configured base of relative asset links.
    pub fn relative_href_base(&self) -> Option<&str> {
        given(self.relative_href_base.as_str())
    }
}

/// How a coarser band is brought to the chip's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// The value of the pixel below.
    Nearest,
    /// Mean of the four nearest, weighted.
    Bilinear,
}

/// Whom to believe about the BOA offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harmonise {
    /// The item, and where it is not to be trusted the pixels.
    Auto,
    /// The item.
    Stac,
    /// Nobody: DNs stay as they are.
    None,
}

/// `[chips]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chips {
    /// Edge of a chip, pixels; a multiple of 16.
    pub size: u32,
    /// Edge of a pixel, metres.
    pub resolution: u32,
    /// Bands in the order they are written.
    pub bands: Vec<String>,
    /// How coarser bands are brought to the chip's pixels.
    pub resampling: Resampling,
    /// Share of a chip that may have no data, 0 to 1.
    pub max_nodata_fraction: f64,
    /// Share of a chip that may be of a class in `bad_scl`, 0 to 1; 1 asks no classification.
    pub max_bad_fraction: f64,
    /// Classes of SCL that make a pixel bad.
    pub bad_scl: Vec<u8>,
    /// Whether a scene without a classification is no use.
    pub require_scl: bool,
    /// Share of a chip that may have impossible DNs, 0 to 1.
    pub max_suspect_fraction: f64,
    /// What is done about the BOA offset.
    pub harmonise: Harmonise,
}

/// What is done with an invalid shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    /// It is mended.
    Repair,
    /// Its parcel is neither centre nor label.
    Reject,
}

/// `[labels]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// What is done with an invalid shape.
    pub invalid: Invalid,
    /// Metres next to a parcel's edge that are not labelled.
    pub erode_m: f64,
    /// Value of pixels without a label: 0 or 255.
    pub unlabelled: u8,
    /// Smallest share of a chip that is labelled, 0 to 1.
    pub min_share: f64,
}
