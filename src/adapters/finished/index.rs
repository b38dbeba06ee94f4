//! `index.parquet`: one row per chip, as GeoParquet 1.1.
//!
//! Contract: rows in order of run, task and chip. Geometry is the chip's outline as WKB in EPSG:4326, x being the
//! longitude, counter-clockwise, with a `bbox` column that covers it. `crs` and `transform` (rasterio's order) say where
//! the pixels are. Columns `pixels_N` count the mask's pixels of class N, `pixels_0` those without a label, `pixels_255`
//! those declared unlabelled. Shares are of the chip's pixels, 0 to 1. Columns that a manifest does not know are null.
//! Trap: edges of the outline are straight in UTM; between its four corners the geometry is off by less than a metre.

use arrow_array::builder::{
    BinaryBuilder, Float64Builder, Int64Builder, StringBuilder, UInt8Builder, UInt16Builder, UInt32Builder,
    UInt64Builder,
};
use arrow_array::{ArrayRef, StructArray};
use arrow_schema::{DataType, Field};
use std::sync::Arc;

use super::FinishError;
use super::columns::{Affine, BATCH, Column, Instants, IntList, TableWriter, field};
use super::publish::Publication;
use super::survey::parcels;
use crate::domain::block::Block;
use crate::domain::class_table::ClassTable;
use crate::domain::manifest::{ChipRecord, Manifest};
use crate::domain::split::Split;

/// Name of the file.
pub const NAME: &str = "index.parquet";

/// EPSG:4326 as PROJJSON, what GeoParquet names CRSs by.
const EPSG_4326: &str = r#"{"$schema":"https://proj.org/schemas/v0.7/projjson.schema.json","type":"GeographicCRS","name":"WGS 84","datum":{"type":"GeodeticReferenceFrame","name":"World Geodetic System 1984","ellipsoid":{"name":"WGS 84","semi_major_axis":6378137,"inverse_flattening":298.257223563}},"coordinate_system":{"subtype":"ellipsoidal","axis":[{"name":"Geodetic latitude","abbreviation":"Lat","direction":"north","unit":"degree"},{"name":"Geodetic longitude","abbreviation":"Lon","direction":"east","unit":"degree"}]},"id":{"authority":"EPSG","code":4326}}"#;

/// A chip and what the survey found out about it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The record of its task.
    pub manifest: &'a Manifest,
    /// Its own.
    pub chip: &'a ChipRecord,
    /// Its corners in degrees, counter-clockwise.
    pub corners: &'a [[f64; 2]; 4],
    /// Where it belongs.
    pub split: Split,
    /// The block that drew it.
    pub block: Block,
    /// Seed of the run, when it is known.
    pub seed: Option<u64>,
}

#[derive(Default)]
struct Columns {
    name: StringBuilder,
    image: StringBuilder,
    mask: StringBuilder,
    split: StringBuilder,
    block: StringBuilder,
    class: UInt8Builder,
    class_name: StringBuilder,
    parcel: Int64Builder,
    parcels: IntList,
    label_share: Float64Builder,
    item: StringBuilder,
    collection: StringBuilder,
    product_uri: StringBuilder,
    baseline: StringBuilder,
    datetime: Instants,
    season: StringBuilder,
    cloud_cover: Float64Builder,
    bad_fraction: Float64Builder,
    nodata_fraction: Float64Builder,
    offset_rule: StringBuilder,
    offset: UInt16Builder,
    widened: StringBuilder,
    crs: StringBuilder,
    transform: Affine,
    width: UInt32Builder,
    height: UInt32Builder,
    image_bytes: UInt64Builder,
    image_checksum: StringBuilder,
    mask_bytes: UInt64Builder,
    mask_checksum: StringBuilder,
    task: UInt64Builder,
    worker: StringBuilder,
    run: StringBuilder,
    seed: UInt64Builder,
    bbox: [Float64Builder; 4],
    geometry: BinaryBuilder,
}

/// The table being written.
pub struct IndexWriter<'a> {
    table: TableWriter,
    columns: Columns,
    pixels: Vec<(u8, UInt32Builder)>,
    classes: &'a ClassTable,
    rows: usize,
}

/// Names of the four columns of `bbox`.
const BBOX: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

impl<'a> IndexWriter<'a> {
    /// Begins the table; `bounds` is `[west, south, east, north]` around all chips, degrees.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(to: &Publication, classes: &'a ClassTable, bounds: [f64; 4]) -> Result<Self, FinishError> {
        let values = std::iter::once(0).chain(classes.classes().keys().map(|c| c.get())).chain([255]);
        let pixels: Vec<_> = values.map(|value| (value, UInt32Builder::new())).collect();
        let columns = Columns::default();
        let table = TableWriter::begin(to, NAME, fields(&columns, &pixels), vec![("geo".into(), geo(bounds))])?;
        Ok(Self { table, columns, pixels, classes, rows: 0 })
    }

    /// Adds a chip.
    ///
    /// # Errors
    /// As the system says.
    pub fn add(&mut self, row: Row<'_>) -> Result<(), FinishError> {
        let Row { manifest, chip, corners, split, block, seed } = row;
        let (c, origin) = (&mut self.columns, &chip.provenance);
        c.name.append_value(&chip.name);
        c.image.append_value(format!("images/{}.tif", chip.name));
        c.mask.append_value(format!("masks/{}.tif", chip.name));
        c.split.append_value(split.as_str());
        c.block.append_value(block.to_string());
        c.class.append_value(chip.class.get());
        c.class_name.append_option(self.classes.classes().get(&chip.class).map(|info| &info.name));
        c.parcel.append_value(chip.parcel);
        c.parcels.append_value(parcels(chip).iter().map(|p| Some(*p)));
        c.label_share.append_value(label_share(chip));
        c.item.append_value(&chip.item);
        c.collection.append_value(&chip.collection);
        c.product_uri.append_option(origin.product_uri.as_deref());
        c.baseline.append_option(origin.baseline.as_deref());
        c.datetime.0.append_option(millis(&chip.datetime));
        c.season.append_value(&chip.season);
        c.cloud_cover.append_value(chip.cloud_cover);
        c.bad_fraction.append_option(origin.bad_fraction);
        c.nodata_fraction.append_value(origin.nodata_fraction);
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        c.offset_rule.append_option(said(&origin.offset_rule));
        c.offset.append_value(origin.offset);
        c.widened.append_option(said(&origin.widened));
        c.crs.append_value(format!("EPSG:{}", chip.epsg));
        c.transform.push(chip.grid.transform());
        c.width.append_value(chip.grid.width);
        c.height.append_value(chip.grid.height);
        c.image_bytes.append_value(chip.image.bytes);
        c.image_checksum.append_value(chip.image.checksum.multihash());
        c.mask_bytes.append_value(chip.mask.bytes);
        c.mask_checksum.append_value(chip.mask.checksum.multihash());
        c.task.append_value(manifest.key.task);
        c.worker.append_value(&manifest.result.worker_id);
        c.run.append_value(&manifest.key.run);
        c.seed.append_option(seed);
        for (builder, value) in c.bbox.iter_mut().zip(around(corners)) {
            builder.append_value(value);
        }
        c.geometry.append_value(wkb(corners));
        for (value, builder) in &mut self.pixels {
            builder.append_value(chip.pixels.iter().find(|(v, _)| v == value).map_or(0, |(_, n)| *n));
        }
        self.rows += 1;
        if self.rows == BATCH { self.flush() } else { Ok(()) }
    }

    /// Ends the table.
    ///
    /// # Errors
    /// As the system says.
    pub fn end(mut self, to: &mut Publication) -> Result<(), FinishError> {
        if self.rows > 0 {
            self.flush()?;
        }
        self.table.end(to)
    }

    fn flush(&mut self) -> Result<(), FinishError> {
        self.rows = 0;
        self.table.write(arrays(&mut self.columns, &mut self.pixels))
    }
}

fn fields(c: &Columns, pixels: &[(u8, UInt32Builder)]) -> Vec<Field> {
    let mut fields = vec![
        field("name", &c.name, false),
        field("image", &c.image, false),
        field("mask", &c.mask, false),
        field("split", &c.split, false),
        field("block", &c.block, false),
        field("class", &c.class, false),
        field("class_name", &c.class_name, true),
        field("parcel", &c.parcel, false),
        field("parcels", &c.parcels, false),
        field("label_share", &c.label_share, false),
        field("item", &c.item, false),
        field("collection", &c.collection, false),
        field("product_uri", &c.product_uri, true),
        field("baseline", &c.baseline, true),
        field("datetime", &c.datetime, true),
        field("season", &c.season, false),
        field("cloud_cover", &c.cloud_cover, false),
        field("bad_fraction", &c.bad_fraction, true),
        field("nodata_fraction", &c.nodata_fraction, false),
        field("offset_rule", &c.offset_rule, true),
        field("offset", &c.offset, false),
        field("widened", &c.widened, true),
        field("crs", &c.crs, false),
        field("transform", &c.transform, false),
        field("width", &c.width, false),
        field("height", &c.height, false),
        field("image_bytes", &c.image_bytes, false),
        field("image_checksum", &c.image_checksum, false),
        field("mask_bytes", &c.mask_bytes, false),
        field("mask_checksum", &c.mask_checksum, false),
        field("task", &c.task, false),
        field("worker", &c.worker, false),
        field("run", &c.run, false),
        field("seed", &c.seed, true),
    ];
    fields.extend(pixels.iter().map(|(value, builder)| field(&format!("pixels_{value}"), builder, false)));
    fields.push(Field::new("bbox", DataType::Struct(bbox_fields().into()), false));
    fields.push(Field::new("geometry", DataType::Binary, false));
    fields
}

fn bbox_fields() -> Vec<Field> {
    BBOX.iter().map(|name| Field::new(*name, DataType::Float64, false)).collect()
}

fn arrays(c: &mut Columns, pixels: &mut [(u8, UInt32Builder)]) -> Vec<ArrayRef> {
    let mut arrays = vec![
        c.name.take(),
        c.image.take(),
        c.mask.take(),
        c.split.take(),
        c.block.take(),
        c.class.take(),
        c.class_name.take(),
        c.parcel.take(),
        c.parcels.take(),
        c.label_share.take(),
        c.item.take(),
        c.collection.take(),
        c.product_uri.take(),
        c.baseline.take(),
        c.datetime.take(),
        c.season.take(),
        c.cloud_cover.take(),
        c.bad_fraction.take(),
        c.nodata_fraction.take(),
        c.offset_rule.take(),
        c.offset.take(),
        c.widened.take(),
        c.crs.take(),
        c.transform.take(),
        c.width.take(),
        c.height.take(),
        c.image_bytes.take(),
        c.image_checksum.take(),
        c.mask_bytes.take(),
        c.mask_checksum.take(),
        c.task.take(),
        c.worker.take(),
        c.run.take(),
        c.seed.take(),
    ];
    arrays.extend(pixels.iter_mut().map(|(_, builder)| builder.take()));
    let boxes: Vec<ArrayRef> = c.bbox.iter_mut().map(Column::take).collect();
    arrays.push(Arc::new(StructArray::new(bbox_fields().into(), boxes, None)));
    arrays.push(Arc::new(c.geometry.finish()));
    arrays
}

/// Share of a chip's pixels that have a class.
pub fn label_share(chip: &ChipRecord) -> f64 {
    let labelled: u64 = chip.pixels.iter().filter(|(v, _)| !matches!(v, 0 | 255)).map(|(_, n)| u64::from(*n)).sum();
    labelled as f64 / (f64::from(chip.grid.width) * f64::from(chip.grid.height))
}

/// An RFC 3339 instant as milliseconds since 1970 UTC.
fn millis(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis())
}

/// `[west, south, east, north]` around corners.
pub fn around(corners: &[[f64; 2]; 4]) -> [f64; 4] {
    let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    corners.iter().fold(start, |b, c| [b[0].min(c[0]), b[1].min(c[1]), b[2].max(c[0]), b[3].max(c[1])])
}

/// A closed polygon of one ring as ISO WKB, little-endian.
fn wkb(corners: &[[f64; 2]; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(93);
    out.push(1);
    for number in [3u32, 1, 5] {
        out.extend(number.to_le_bytes());
    }
    for value in corners.iter().chain(&corners[..1]).flatten() {
        out.extend(value.to_le_bytes());
    }
    out
}

/// The file's `geo` metadata.
fn geo(bounds: [f64; 4]) -> String {
    let covering: serde_json::Map<_, _> =
        BBOX.iter().map(|side| ((*side).to_owned(), serde_json::json!(["bbox", side]))).collect();
    let crs: serde_json::Value = serde_json::from_str(EPSG_4326).unwrap_or_default();
    serde_json::json!({
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": { "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": crs,
            "orientation": "counterclockwise",
            "bbox": bounds,
            "covering": { "bbox": covering },
        }},
    })
    .to_string()
}
