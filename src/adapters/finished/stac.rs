//! The dataset as a static STAC catalog: a collection, a catalog per task, an item per chip.
//!
//! ```text
//! DIR/stac/collection.json            extent, links to the tasks' catalogs, the tables as assets
//! DIR/stac/RUN/task_N/catalog.json    links to its items
//! DIR/stac/RUN/task_N/NAME.json       one chip: image and mask, where, when, from which item
//! ```
//!
//! Contract: STAC 1.1 with the extensions projection 2, eo 1.1, raster 1.1, label 1.0.1 and file 2.1; hrefs are relative,
//! so the directory may be moved; only `derived_from` points outside. A task's catalogs keep `collection.json` and
//! directories short: a country has some ten thousand tasks. A file is written, synced and renamed only when it is not
//! there with these very bytes.
//! Trap: items are of the moment of the last `finish`; those of tasks that are gone stay until somebody removes `stac/`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use stac::{Asset, Bbox, Collection, Item, Link};

use super::FinishError;
use super::index::{around, label_share};
use crate::domain::band::Band;
use crate::domain::class_table::ClassTable;
use crate::domain::manifest::{ChipRecord, FileRecord, Manifest};
use crate::domain::split::Split;

/// Directory below the dataset's.
pub const DIR: &str = "stac";

const PROJECTION: &str = "https://stac-extensions.github.io/projection/v2.0.0/schema.json";
const EO: &str = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";
const RASTER: &str = "https://stac-extensions.github.io/raster/v1.1.0/schema.json";
const LABEL: &str = "https://stac-extensions.github.io/label/v1.0.1/schema.json";
const FILE: &str = "https://stac-extensions.github.io/file/v2.1.0/schema.json";
const TIFF: &str = "image/tiff; application=geotiff";
const JSON: &str = "application/json";
const GEOJSON: &str = "application/geo+json";

/// What all items have in common.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// The dataset's directory.
    pub root: &'a Path,
    /// Id of the collection.
    pub id: &'a str,
    /// Classes by number.
    pub classes: &'a ClassTable,
    /// Names of the images' bands.
    pub bands: &'a [String],
    /// Address of an item that a chip comes from, with `{collection}` and `{item}`.
    pub item_href: &'a str,
}

/// Chips of one task with what the survey found out.
#[derive(Debug)]
pub struct TaskItems<'a> {
    /// The record.
    pub manifest: &'a Manifest,
    /// Corners of each chip, degrees.
    pub corners: &'a [[[f64; 2]; 4]],
    /// Split of each chip.
    pub splits: &'a [Split],
}

/// Writes the items and the catalog of one task; returns how many files were not there already as they should be.
///
/// # Errors
/// As the system says.
pub fn write_task(shared: &Shared<'_>, task: &TaskItems<'_>) -> Result<u64, FinishError> {
    let key = &task.manifest.key;
    let dir = shared.root.join(DIR).join(&key.run).join(format!("task_{}", key.task));
    fs::create_dir_all(&dir).map_err(FinishError::io("creating", &dir))?;
    let mut written = 0;
    for ((chip, corners), split) in task.manifest.chips.iter().zip(task.corners).zip(task.splits) {
        let path = dir.join(format!("{}.json", chip.name));
        written += u64::from(put(&path, &item(shared, task.manifest, chip, corners, *split)?)?);
    }
    let mut links = vec![link("../../collection.json", "root", JSON), link("../../collection.json", "parent", JSON)];
    links.extend(task.manifest.chips.iter().map(|c| link(&format!("./{}.json", c.name), "item", GEOJSON)));
    let catalog = json!({
        "type": "Catalog",
        "stac_version": stac::STAC_VERSION,
        "id": format!("{}-task_{}", key.run, key.task),
        "description": format!("Chips of task {} of run {}", key.task, key.run),
        "links": links,
    });
    let path = dir.join("catalog.json");
    written += u64::from(put(&path, &catalog)?);
    sync_dir(&dir)?;
    Ok(written)
}

/// What the collection says of all chips.
#[derive(Debug)]
pub struct Extent {
    /// `[west, south, east, north]`, degrees.
    pub bounds: [f64; 4],
    /// First and last acquisition, RFC 3339.
    pub interval: Option<[String; 2]>,
    /// Catalogs of tasks that have chips: run and task.
    pub tasks: Vec<(String, u64)>,
}

/// Writes the collection, last of all.
///
/// # Errors
/// As the system says.
pub fn write_collection(shared: &Shared<'_>, extent: &Extent) -> Result<(), FinishError> {
    let words = "Crop parcels on Sentinel-2 L2A: images of ten bands and masks of crop classes, one pair per chip. \
                 Contains modified Copernicus Sentinel data.";
    let path = shared.root.join(DIR).join("collection.json");
    let made = |source| FinishError::Json { path: path.display().to_string(), source };
    let mut collection = Collection::new(shared.id, words);
    collection.license = "other".to_owned();
    collection.extent.spatial.bbox = vec![Bbox::TwoDimensional(extent.bounds)];
    let interval = extent.interval.as_ref().map(|i| i.each_ref().map(|t| Some(t.clone()))).unwrap_or_default();
    collection.extent.temporal.interval = serde_json::from_value(json!([interval])).map_err(made)?;
    collection.links.push(link("./collection.json", "root", JSON));
    for (run, task) in &extent.tasks {
        collection.links.push(link(&format!("./{run}/task_{task}/catalog.json"), "child", JSON));
    }
    let tables = [
        ("index", "../index.parquet", "application/vnd.apache.parquet", "One row per chip"),
        ("rejections", "../rejections.parquet", "application/vnd.apache.parquet", "One row per parcel"),
        ("classes", "../classes.csv", "text/csv", "Classes, chips and pixels"),
        ("statistics", "../stats.json", JSON, "Statistics of the training chips"),
        ("split", "../dataset-split.json", JSON, "How the chips were split, and the certificate"),
    ];
    for (name, href, kind, title) in tables {
        let mut asset = Asset::new(href);
        asset.r#type = Some(kind.to_owned());
        asset.title = Some(title.to_owned());
        asset.roles = vec!["metadata".to_owned()];
        collection.assets.insert(name.to_owned(), asset);
    }
    let codes: Vec<u8> = shared.classes.classes().keys().map(|c| c.get()).collect();
    let summaries = json!({ "satellite:class": codes, "eo:bands": eo_bands(shared.bands) });
    collection.summaries = summaries.as_object().cloned();
    put(&path, &collection)?;
    sync_dir(&shared.root.join(DIR))
}

fn item(
    shared: &Shared<'_>,
    manifest: &Manifest,
    chip: &ChipRecord,
    corners: &[[f64; 2]; 4],
    split: Split,
) -> Result<Item, FinishError> {
    let made = |source| FinishError::Json { path: format!("{}.json", chip.name), source };
    let ring: Vec<&[f64; 2]> = corners.iter().chain(&corners[..1]).collect();
    let mut item = Item::new(&chip.name);
    item.extensions = [PROJECTION, EO, RASTER, LABEL, FILE].map(str::to_owned).to_vec();
    item.geometry = serde_json::from_value(json!({ "type": "Polygon", "coordinates": [ring] })).map_err(made)?;
    item.bbox = Some(Bbox::TwoDimensional(around(corners)));
    item.collection = Some(shared.id.to_owned());
    item.properties = serde_json::from_value(properties(shared, manifest, chip, split)).map_err(made)?;
    item.links = vec![
        link("../../collection.json", "root", JSON),
        link("./catalog.json", "parent", JSON),
        link("../../collection.json", "collection", JSON),
    ];
    let source = shared.item_href.replace("{collection}", &chip.collection).replace("{item}", &chip.item);
    item.links.push(link(&source, "derived_from", GEOJSON));
    let mut image = Asset::new(format!("../../../images/{}.tif", chip.name));
    image.roles = vec!["data".to_owned()];
    image.additional_fields = image_fields(shared, chip);
    let mut mask = Asset::new(format!("../../../masks/{}.tif", chip.name));
    mask.roles = vec!["labels".to_owned(), "labels-raster".to_owned()];
    mask.additional_fields = mask_fields(chip);
    for (name, mut asset) in [("image", image), ("mask", mask)] {
        asset.r#type = Some(TIFF.to_owned());
        item.assets.insert(name.to_owned(), asset);
    }
    Ok(item)
}

fn properties(shared: &Shared<'_>, manifest: &Manifest, chip: &ChipRecord, split: Split) -> Value {
    let name = |value: u8| {
        let class = crate::domain::classes::ClassId::try_from(value).ok();
        class.and_then(|c| shared.classes.classes().get(&c)).map(|info| info.name.clone())
    };
    let shown = chip.pixels.iter().filter_map(|(value, n)| Some(json!({ "name": name(*value)?, "count": n })));
    let names: Vec<&str> = shared.classes.classes().values().map(|info| info.name.as_str()).collect();
    json!({
        "datetime": chip.datetime,
        "gsd": chip.grid.res,
        "platform": chip.item.get(..3).filter(|p| p.starts_with("S2")).map(|p| format!("sentinel-{}", p[1..].to_lowercase())),
        "eo:cloud_cover": chip.cloud_cover.clamp(0.0, 100.0),
        "proj:code": format!("EPSG:{}", chip.epsg),
        "proj:shape": [chip.grid.height, chip.grid.width],
        "proj:transform": chip.grid.transform(),
        "proj:bbox": chip.grid.bounds(),
        "label:type": "raster",
        "label:properties": null,
        "label:tasks": ["segmentation"],
        "label:description": "Crop class of every labelled parcel, by number; 0 has no label",
        // In a raster no property holds the class: the name is null, and the overview has no key.
        "label:classes": [{ "name": null, "classes": names }],
        "label:overviews": [{ "counts": shown.collect::<Vec<_>>() }],
        "satellite:class": chip.class,
        "satellite:class_name": name(chip.class.get()),
        "satellite:parcel": chip.parcel,
        "satellite:label_share": label_share(chip),
        "satellite:season": chip.season,
        "satellite:split": split.as_str(),
        "satellite:task": manifest.key.task,
        "satellite:run": manifest.key.run,
    })
}

fn image_fields(shared: &Shared<'_>, chip: &ChipRecord) -> Map<String, Value> {
    let one = json!({
        "data_type": "uint16", "nodata": 0, "scale": 0.0001, "spatial_resolution": chip.grid.res, "sampling": "area",
    });
    let mut fields = file_fields(&chip.image);
    fields.insert("eo:bands".to_owned(), eo_bands(shared.bands));
    fields.insert("raster:bands".to_owned(), Value::Array(vec![one; shared.bands.len()]));
    fields
}

fn mask_fields(chip: &ChipRecord) -> Map<String, Value> {
    let mut fields = file_fields(&chip.mask);
    let one = json!({ "data_type": "uint8", "nodata": 0, "spatial_resolution": chip.grid.res, "sampling": "area" });
    fields.insert("raster:bands".to_owned(), json!([one]));
    fields
}

/// Length, and the checksum as the file extension wants it.
fn file_fields(file: &FileRecord) -> Map<String, Value> {
    let fields = [("file:size", json!(file.bytes)), ("file:checksum", json!(file.checksum.multihash()))];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Names, common names and centre wavelengths (micrometres, Sentinel-2A) of the bands.
fn eo_bands(names: &[String]) -> Value {
    let band = |name: &String| {
        let known = match name.parse::<Band>().ok()? {
            Band::B02 => ("blue", 0.4924),
            Band::B03 => ("green", 0.5598),
            Band::B04 => ("red", 0.6646),
            Band::B05 => ("rededge", 0.7041),
            Band::B06 => ("rededge", 0.7405),
            Band::B07 => ("rededge", 0.7828),
            Band::B08 => ("nir", 0.8328),
            Band::B8A => ("nir08", 0.8647),
            Band::B11 => ("swir16", 1.6137),
            Band::B12 => ("swir22", 2.2024),
            Band::Scl => return None,
        };
        Some(json!({ "name": name, "common_name": known.0, "center_wavelength": known.1 }))
    };
    let all = names.iter().map(|name| band(name).unwrap_or_else(|| json!({ "name": name })));
    Value::Array(all.collect())
}

fn link(href: &str, rel: &str, kind: &str) -> Link {
    let mut link = Link::new(href, rel);
    link.r#type = Some(kind.to_owned());
    link
}

/// Writes a file unless it is there with these bytes.
fn put(path: &Path, value: &impl serde::Serialize) -> Result<bool, FinishError> {
    let json = |source| FinishError::Json { path: path.display().to_string(), source };
    let mut text = serde_json::to_vec(value).map_err(json)?;
    text.push(b'\n');
    if fs::read(path).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    let part = path.with_extension("json.part");
    let written = File::create(&part).and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_all()));
    written.and_then(|()| fs::rename(&part, path)).map_err(FinishError::io("writing", path))?;
    Ok(true)
}

fn sync_dir(dir: &Path) -> Result<(), FinishError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(FinishError::io("syncing", dir))
}
