//! One Sentinel-2 scene (a STAC item) as the rest of the pipeline needs it.
//!
//! Units: metres in the scene's own UTM zone for [`PixelGrid`], percent for cloud cover.
//! Contract: built only by the catalog adapter, which has checked that every required asset is
//! there; hrefs are absolute.

use std::collections::BTreeMap;

/// A north-up raster grid: where pixel (row 0, col 0) begins and how large a pixel is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PixelGrid {
    /// Easting of the west edge, metres.
    pub x0: f64,
    /// Northing of the north edge, metres.
    pub y0: f64,
    /// Edge of a pixel, metres.
    pub res: f64,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// One file of a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    /// Absolute URL.
    pub href: String,
    /// From `proj:transform` and `proj:shape`, when the item has them.
    pub grid: Option<PixelGrid>,
}

/// A scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Item id.
    pub id: String,
    /// Collection id.
    pub collection: String,
    /// Acquisition, RFC 3339 UTC.
    pub datetime: String,
    /// `eo:cloud_cover`, percent; items without it count as 100.
    pub cloud_cover: f64,
    /// EPSG code of the scene's CRS, from `proj:epsg` or `proj:code`.
    pub epsg: u32,
    /// `s2:product_uri`: the same acquisition has the same one in every collection.
    pub product_uri: Option<String>,
    /// `s2:processing_baseline`, for instance `05.09`.
    pub baseline: Option<String>,
    /// `earthsearch:boa_offset_applied`.
    pub boa_offset_applied: Option<bool>,
    /// `[west, south, east, north]`, degrees.
    pub bbox: [f64; 4],
    /// Assets by key (`blue`, `scl`, …).
    pub assets: BTreeMap<String, Asset>,
}
