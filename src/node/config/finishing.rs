//! The sections about the finished dataset: how it is split, and what is made of it.
//!
//! Contract: as the other sections: built only after every value was checked. Meaning, units and defaults stand in
//! `config/default.toml`.

use serde::{Deserialize, Serialize};

use crate::domain::split::SplitSettings;

/// `[split]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Seed of the draw.
    pub seed: u64,
    /// Edge of a block, km.
    pub block_km: f64,
    /// Share of blocks for validation, 0 to 1.
    pub val_share: f64,
    /// Share of blocks for testing, 0 to 1.
    pub test_share: f64,
    /// Least distance between chips of different splits, metres.
    pub buffer_m: f64,
}

impl Split {
    /// As the domain wants them.
    pub fn settings(&self) -> SplitSettings {
        let Self { seed, block_km, val_share, test_share, buffer_m } = *self;
        SplitSettings { seed, block_km, val_share, test_share, buffer_m }
    }
}

/// `[finish]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// Whether to write a STAC catalog.
    pub stac: bool,
    /// Address of a chip's source item with `{collection}` and `{item}`; empty: by `stac.url`. See [`Finish::item_href`].
    pub item_href: String,
}

impl Finish {
    /// The address, `api` being the STAC API's.
    pub fn item_href(&self, api: &str) -> String {
        if self.item_href.is_empty() {
            return format!("{}/collections/{{collection}}/items/{{item}}", api.trim_end_matches('/'));
        }
        self.item_href.clone()
    }
}
