//! Where a chip's pixels come from and what was done to them: the part of its record a trainer filters by.
//!
//! Contract: a function of the scene, the configuration and the pixels; never of the worker, the clock or
//! the order of work. Every field has a default, so records written by earlier versions can be read. Units:
//! shares are of the chip's pixels, 0 to 1.

use serde::{Deserialize, Serialize};

/// What is known of a chip's pixels and labels beyond its place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// `s2:product_uri` of the scene.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_uri: Option<String>,
    /// `s2:processing_baseline` of the scene, for instance `05.09`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// What was done about the BOA offset, as one word; empty: nothing was looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub offset_rule: String,
    /// What was subtracted from every DN above 0.
    pub offset: u16,
    /// Share of pixels whose SCL class is bad; `None`: the scene has no SCL, or it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_fraction: Option<f64>,
    /// Share of pixels that are nodata in any band.
    pub nodata_fraction: f64,
    /// Share of pixels whose DN, in any band, is above what ground, cloud or snow can reflect (20,000).
    #[serde(skip_serializing_if = "is_zero")]
    pub suspect_fraction: f64,
    /// How far the search had to be widened: empty, `cloud`, or `season`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub widened: String,
    /// Ids of all parcels burnt into the mask, ascending; their pixels may be fewer than their class's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parcels: Vec<i64>,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}
