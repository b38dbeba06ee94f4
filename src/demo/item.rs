//! The STAC item of a made-up scene, in the shape of Earth Search v1.
//!
//! Contract: percentages are counted from the painted classification; hrefs are relative to the item's own file; DNs
//! are harmonised (`earthsearch:boa_offset_applied` true) unless the scene says otherwise.
//! Units: percent, degrees, metres. Trap: `raster:bands` states offset -0.1 although it was removed, as the real ones do.

use super::sky::Sky;
use crate::domain::scene::PixelGrid;
use serde_json::{Map, Value, json};

/// A band as the item describes it.
pub(super) struct Band {
    /// Asset key.
    pub(super) key: &'static str,
    /// File stem.
    pub(super) file: &'static str,
    title: &'static str,
    common: &'static str,
    /// Centre and width, micrometres.
    wave: [f64; 2],
    /// Metres per pixel.
    pub(super) res: u32,
}

const fn band(
    key: &'static str,
    file: &'static str,
    title: &'static str,
    common: &'static str,
    wave: [f64; 2],
    res: u32,
) -> Band {
    Band { key, file, title, common, wave, res }
}

/// The ten bands in the order of the pipeline's chips.
pub(super) static BANDS: [Band; 10] = [
    band("blue", "B02", "Blue (band 2) - 10m", "blue", [0.49, 0.098], 10),
    band("green", "B03", "Green (band 3) - 10m", "green", [0.56, 0.045], 10),
    band("red", "B04", "Red (band 4) - 10m", "red", [0.665, 0.038], 10),
    band("nir", "B08", "NIR 1 (band 8) - 10m", "nir", [0.842, 0.145], 10),
    band("rededge1", "B05", "Red edge 1 (band 5) - 20m", "rededge", [0.704, 0.019], 20),
    band("rededge2", "B06", "Red edge 2 (band 6) - 20m", "rededge", [0.74, 0.018], 20),
    band("rededge3", "B07", "Red edge 3 (band 7) - 20m", "rededge", [0.783, 0.028], 20),
    band("nir08", "B8A", "NIR 2 (band 8A) - 20m", "nir08", [0.865, 0.033], 20),
    band("swir16", "B11", "SWIR 1 (band 11) - 20m", "swir16", [1.61, 0.143], 20),
    band("swir22", "B12", "SWIR 2 (band 12) - 20m", "swir22", [2.19, 0.242], 20),
];

/// What an item says about one scene.
pub(super) struct Description<'a> {
    pub(super) zone: u32,
    pub(super) square: &'static str,
    /// `A` or `B`.
    pub(super) satellite: char,
    /// `2023-04-25`.
    pub(super) date: &'a str,
    /// The `_0_` of the id.
    pub(super) sequence: u32,
    pub(super) boa_offset_applied: bool,
    pub(super) grid: PixelGrid,
    /// The ground seen, degrees, closed ring not needed.
    pub(super) footprint: Vec<[f64; 2]>,
    pub(super) scl: &'a [u8],
    /// Where the files are, relative to the item's own: `.` or `../OTHER`.
    pub(super) files: String,
}

impl Description<'_> {
    /// The item's id, for instance `S2B_30TYM_20230425_0_L2A`.
    pub(super) fn id(&self) -> String {
        let Self { satellite, zone, square, sequence, .. } = self;
        format!("S2{satellite}_{zone}T{square}_{}_{sequence}_L2A", self.day())
    }

    fn day(&self) -> String {
        self.date.replace('-', "")
    }

    /// The same for every item of one acquisition, whatever its sequence.
    fn product_uri(&self) -> String {
        let Self { satellite, zone, square, .. } = self;
        let day = self.day();
        format!("S2{satellite}_MSIL2A_{day}T105629_N0509_R094_T{zone}T{square}_{day}T165201.SAFE")
    }

    /// The whole item.
    pub(super) fn json(&self) -> Value {
        let (id, bbox) = (self.id(), self.bbox());
        let mut ring = self.footprint.clone();
        ring.extend(self.footprint.first());
        json!({
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": id,
            "collection": "sentinel-2-l2a",
            "properties": self.properties(),
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": bbox,
            "links": [
                {"rel": "self", "type": "application/geo+json", "href": format!("./{id}.json")},
                {"rel": "license", "href": "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice"},
            ],
            "assets": self.assets(),
            "stac_extensions": [
                "https://stac-extensions.github.io/mgrs/v1.0.0/schema.json",
                "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
                "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
                "https://stac-extensions.github.io/grid/v1.0.0/schema.json",
                "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
            ],
        })
    }

    fn bbox(&self) -> [f64; 4] {
        self.footprint.iter().fold([f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY], |b, p| {
            [b[0].min(p[0]), b[1].min(p[1]), b[2].max(p[0]), b[3].max(p[1])]
        })
    }

    fn properties(&self) -> Value {
        let share = Shares::of(self.scl);
        let Self { zone, square, satellite, date, sequence, .. } = self;
        let created = format!("{date}T21:07:44.000Z");
        json!({
            "created": created,
            "updated": created,
            "platform": format!("sentinel-2{}", satellite.to_ascii_lowercase()),
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "datetime": format!("{date}T10:56:29.000000Z"),
            "eo:cloud_cover": share.percent(&[8, 9, 10]),
            "proj:epsg": 32600 + zone,
            "mgrs:utm_zone": zone,
            "mgrs:latitude_band": "T",
            "mgrs:grid_square": square,
            "grid:code": format!("MGRS-{zone}T{square}"),
            "s2:nodata_pixel_percentage": share.nodata(),
            "s2:dark_features_percentage": share.percent(&[2]),
            "s2:cloud_shadow_percentage": share.percent(&[3]),
            "s2:vegetation_percentage": share.percent(&[4]),
            "s2:not_vegetated_percentage": share.percent(&[5]),
            "s2:water_percentage": share.percent(&[6]),
            "s2:unclassified_percentage": share.percent(&[7]),
            "s2:medium_proba_clouds_percentage": share.percent(&[8]),
            "s2:high_proba_clouds_percentage": share.percent(&[9]),
            "s2:thin_cirrus_percentage": share.percent(&[10]),
            "s2:snow_ice_percentage": share.percent(&[11]),
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": "05.09",
            "s2:product_uri": self.product_uri(),
            "s2:generation_time": format!("{date}T16:52:01.000000Z"),
            "s2:sequence": sequence.to_string(),
            "earthsearch:boa_offset_applied": self.boa_offset_applied,
        })
    }

    fn assets(&self) -> Value {
        let mut assets = Map::new();
        for band in &BANDS {
            let value = json!({
                "href": format!("{}/{}.tif", self.files, band.file),
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "title": band.title,
                "eo:bands": [{"name": band.key, "common_name": band.common,
                    "center_wavelength": band.wave[0], "full_width_half_max": band.wave[1]}],
                "gsd": band.res,
                "proj:shape": self.shape(band.res),
                "proj:transform": self.transform(band.res),
                "raster:bands": [{"nodata": 0, "data_type": "uint16", "bits_per_sample": 15,
                    "spatial_resolution": band.res, "scale": 0.0001, "offset": -0.1}],
                "roles": ["data", "reflectance"],
            });
            assets.insert(band.key.to_owned(), value);
        }
        let scl = json!({
            "href": format!("{}/SCL.tif", self.files),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": "Scene classification map (SCL)",
            "proj:shape": self.shape(20),
            "proj:transform": self.transform(20),
            "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
            "roles": ["data", "reflectance"],
        });
        assets.insert("scl".to_owned(), scl);
        assets.into()
    }

    /// Rows and columns.
    fn shape(&self, res: u32) -> [u32; 2] {
        let scale = res / 10;
        [self.grid.height / scale, self.grid.width / scale]
    }

    fn transform(&self, res: u32) -> [i64; 6] {
        let res = i64::from(res);
        [res, 0, self.grid.x0 as i64, 0, -res, self.grid.y0 as i64]
    }
}

/// Counts of the classification.
struct Shares {
    counts: [usize; 12],
    seen: usize,
}

impl Shares {
    fn of(scl: &[u8]) -> Self {
        let mut counts = [0; 12];
        scl.iter().for_each(|&class| counts[usize::from(class).min(11)] += 1);
        Self { counts, seen: scl.len() - counts[0] }
    }

    /// Percent of the pixels seen, six decimals.
    fn percent(&self, classes: &[usize]) -> f64 {
        let hits: usize = classes.iter().map(|&class| self.counts[class]).sum();
        rounded(hits, self.seen)
    }

    fn nodata(&self) -> f64 {
        rounded(self.counts[0], self.counts[0] + self.seen)
    }
}

fn rounded(part: usize, whole: usize) -> f64 {
    (part as f64 / whole.max(1) as f64 * 1e8).round() / 1e6
}

/// The ground a sky shows, in degrees.
pub(super) fn footprint(sky: &Sky, epsg: u32) -> Result<Vec<[f64; 2]>, super::DemoError> {
    super::labels::project(&super::labels::transform(epsg, 4326)?, &sky.footprint())
}
