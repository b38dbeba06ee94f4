//! One Sentinel-2 scene (a STAC item) as the rest of the pipeline needs it.
//!
//! Units: metres in the scene's own UTM zone for [`PixelGrid`], percent for cloud cover, degrees for the footprint.
//! Contract: built only by the catalog adapter, which has checked that every required asset is
//! there; hrefs are absolute. Trap: the bounding box of a scene at an orbit's edge holds much more than its pixels:
//! ask [`Scene::touches`], which uses the footprint.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::band::Band;
use super::footprint::Footprint;

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

impl PixelGrid {
    /// From an affine transform in the order of the STAC projection extension (`[a, b, c, d, e, f]`, nine numbers
    /// with the constant last row) and a shape `[rows, columns]`; `None` unless it is a square, north-up grid.
    pub fn from_affine(transform: &[f64], shape: [u64; 2]) -> Option<Self> {
        let (&[a, b, c, d, e, f], last_row) = transform.split_first_chunk::<6>()?;
        if !(last_row.is_empty() || last_row == [0.0, 0.0, 1.0]) {
            return None;
        }
        let square = a > 0.0 && a == -e && b == 0.0 && d == 0.0 && [a, c, f].iter().all(|v| v.is_finite());
        let [rows, cols] = shape.map(|n| u32::try_from(n).ok().filter(|n| *n > 0));
        square.then_some(Self { x0: c, y0: f, res: a, width: cols?, height: rows? })
    }
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
    /// Acquisition.
    pub datetime: DateTime<Utc>,
    /// `eo:cloud_cover`, percent; items without it count as 100.
    pub cloud_cover: f64,
    /// EPSG code of the scene's CRS, from `proj:epsg` or `proj:code`.
    pub epsg: u32,
    /// `s2:product_uri`: the same acquisition has the same one in every collection.
    pub product_uri: Option<String>,
    /// `s2:sequence`: of two copies of one product the later one is higher.
    pub sequence: Option<u32>,
    /// `updated`: when the catalog last touched the item.
    pub updated: Option<DateTime<Utc>>,
    /// `s2:processing_baseline`, for instance `05.09`.
    pub baseline: Option<String>,
    /// `earthsearch:boa_offset_applied`.
    pub boa_offset_applied: Option<bool>,
    /// `[west, south, east, north]`, degrees; west is larger than east across the antimeridian.
    pub bbox: [f64; 4],
    /// Where its pixels are, when the item says.
    pub footprint: Option<Footprint>,
    /// Assets by band.
    pub assets: BTreeMap<Band, Asset>,
}

impl Scene {
    /// The file of a band.
    pub fn asset(&self, band: Band) -> Option<&Asset> {
        self.assets.get(&band)
    }

    /// What all tiles of one overpass have in common: satellite, start of the recording and orbit, out of the product's
    /// name (`S2A_MSIL2A_20230501T105621_N0509_R094_T30TVK_…`); `None` without such a name.
    pub fn overpass(&self) -> Option<String> {
        let parts: Vec<&str> = self.product_uri.as_deref()?.split('_').collect();
        match parts[..] {
            [satellite, _, start, _, orbit, _, ..] => Some(format!("{satellite}_{start}_{orbit}")),
            _ => None,
        }
    }

    /// Whether it may have pixels in `[west, south, east, north]` (degrees): by its bounding box, and by its
    /// footprint if it has one.
    pub fn touches(&self, bbox: [f64; 4]) -> bool {
        overlap(self.bbox, bbox) && self.footprint.as_ref().is_none_or(|f| f.touches(bbox))
    }

    /// Whether it may have pixels at a point (degrees).
    pub fn holds(&self, lon: f64, lat: f64) -> bool {
        overlap(self.bbox, [lon, lat, lon, lat]) && self.footprint.as_ref().is_none_or(|f| f.holds(lon, lat))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl Scene {
    /// A scene of zone 30 without files, for tests to fill in.
    pub(crate) fn bare() -> Self {
        Self {
            id: "item".into(),
            collection: "sentinel-2-l2a".into(),
            datetime: "2023-05-01T10:56:29Z".parse().unwrap(),
            cloud_cover: 3.0,
            epsg: 32630,
            product_uri: None,
            sequence: Some(0),
            updated: None,
            baseline: None,
            boa_offset_applied: None,
            bbox: [0.0, 0.0, 1.0, 1.0],
            footprint: None,
            assets: BTreeMap::new(),
        }
    }
}

/// Whether two closed boxes share a point; the first may cross the antimeridian.
fn overlap(scene: [f64; 4], other: [f64; 4]) -> bool {
    let [w, s, e, n] = scene;
    let [ow, os, oe, on] = other;
    let lon = if w <= e { w <= oe && ow <= e } else { w <= oe || ow <= e };
    lon && s <= on && os <= n
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn grids_come_from_six_or_nine_numbers() {
        let six = [10.0, 0.0, 399960.0, 0.0, -10.0, 4500000.0];
        let want = PixelGrid { x0: 399960.0, y0: 4500000.0, res: 10.0, width: 5490, height: 10980 };
        assert_eq!(PixelGrid::from_affine(&six, [10980, 5490]), Some(want));
        let nine = [&six[..], &[0.0, 0.0, 1.0]].concat();
        assert_eq!(PixelGrid::from_affine(&nine, [10980, 5490]), Some(want));
    }

    #[test]
    fn grids_that_are_not_square_and_north_up_are_refused() {
        for bad in [
            &[10.0, 0.1, 0.0, 0.0, -10.0, 0.0][..],
            &[10.0, 0.0, 0.0, 0.0, 10.0, 0.0],
            &[10.0, 0.0, 0.0, 0.0, -20.0, 0.0],
            &[10.0, 0.0, f64::NAN, 0.0, -10.0, 0.0],
            &[10.0, 0.0, 0.0],
            &[10.0, 0.0, 0.0, 0.0, -10.0, 0.0, 1.0, 0.0, 1.0],
        ] {
            assert_eq!(PixelGrid::from_affine(bad, [10, 10]), None, "{bad:?}");
        }
        let good = [10.0, 0.0, 0.0, 0.0, -10.0, 0.0];
        assert_eq!(PixelGrid::from_affine(&good, [0, 10]), None);
        assert_eq!(PixelGrid::from_affine(&good, [10, u64::MAX]), None);
    }

    #[test]
    fn boxes_overlap_across_the_antimeridian() {
        assert!(overlap([179.0, 0.0, -179.0, 1.0], [-179.5, 0.5, -179.4, 0.6]));
        assert!(overlap([179.0, 0.0, -179.0, 1.0], [179.5, 0.5, 179.6, 0.6]));
        assert!(!overlap([179.0, 0.0, -179.0, 1.0], [0.0, 0.5, 1.0, 0.6]));
        assert!(!overlap([0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]));
    }
}
