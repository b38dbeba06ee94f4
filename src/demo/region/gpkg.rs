//! Writes a region as GeoPackage through OGR.
//!
//! Contract: layer [`LAYER`], EPSG:4258, geometry column `geom` of declared type GEOMETRY (polygons and multipolygons
//! are mixed), primary key `fid`, R-tree on, EuroCrops columns. An existing file is replaced.
//! Trap: OGR stamps the file with the time of writing, so two files differ although all rows are equal.

use super::{LAYER, Parcel, Polygon, Region};
use crate::demo::DemoError;
use gdal::DriverManager;
use gdal::errors::Result;
use gdal::spatial_ref::{AxisMappingStrategy, SpatialRef};
use gdal::vector::{Defn, Feature, Geometry, LayerAccess, LayerOptions, OGRFieldType, OGRwkbGeometryType};
use std::path::Path;

/// Degrees across the planted shapes.
const BOW_TIE: f64 = 0.001;

impl Region {
    /// Writes the parcels and the planted troubles to `path`.
    ///
    /// # Errors
    /// [`DemoError::Io`] if an old file cannot be removed, [`DemoError::Gdal`] if OGR cannot write.
    pub fn write_gpkg(&self, path: &Path) -> std::result::Result<(), DemoError> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(DemoError::io(path, e)),
            _ => {}
        }
        self.write(path).map_err(|e| DemoError::gdal(format!("writing {}", path.display()), e))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut dataset = DriverManager::get_driver_by_name("GPKG")?.create_vector_only(path)?;
        let mut srs = SpatialRef::from_epsg(4258)?;
        srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
        let transaction = dataset.start_transaction()?;
        let mut dataset = transaction;
        let layer = dataset.create_layer(LayerOptions {
            name: LAYER,
            srs: Some(&srs),
            ty: OGRwkbGeometryType::wkbUnknown,
            options: Some(&["GEOMETRY_NAME=geom", "FID=fid", "SPATIAL_INDEX=YES"]),
        })?;
        let text = OGRFieldType::OFTString;
        let names = ["EC_trans_n", "EC_hcat_n", "EC_hcat_c", "EC_NUTS3"];
        layer.create_defn_fields(&names.map(|name| (name, text)))?;
        let defn = Defn::from_layer(&layer);
        for parcel in &self.parcels {
            row(&defn, parcel)?.create(&layer)?;
        }
        for geometry in self.troubles()? {
            let mut feature = Feature::new(&defn)?;
            let values = ["TOMATO", "tomato", "3301280000", "ES243"];
            for (index, value) in values.iter().enumerate() {
                feature.set_field_string(index, value)?;
            }
            if let Some(geometry) = geometry {
                feature.set_geometry(geometry)?;
            }
            feature.create(&layer)?;
        }
        dataset.commit()
    }

    /// No geometry, an empty one, a ring without area that crosses itself; then, among the fields, a ring that crosses
    /// itself, a hole that reaches beyond its shell, and two parts that overlap.
    fn troubles(&self) -> Result<[Option<Geometry>; super::TROUBLES]> {
        let [w, s, ..] = self.bounds;
        let d = BOW_TIE;
        let square = |x: f64, y: f64, d: f64| vec![[x, y], [x + d, y], [x + d, y + d], [x, y + d]];
        let one = |rings: Vec<Vec<[f64; 2]>>| vec![Polygon { rings }];
        let (x, y) = (w + d, s + d);
        let bow_tie = one(vec![vec![[x, y], [x + d, y + d], [x + d, y], [x, y + d]]]);
        let among = |n: usize| self.parcels[self.parcels.len() * n / 4].polygons[0].rings[0][0];
        let [x, y] = among(1);
        let crossed = one(vec![vec![[x, y], [x + d, y + d], [x + d, y], [x, y + d / 2.0]]]);
        let [x, y] = among(2);
        let pierced = one(vec![square(x, y, d), square(x + 0.7 * d, y + 0.3 * d, 0.6 * d)]);
        let [x, y] = among(3);
        let twice = [square(x, y, d), square(x + d / 2.0, y + d / 2.0, d)].map(|ring| Polygon { rings: vec![ring] });
        let shape = |polygons: &[Polygon]| Geometry::from_wkb(&wkb(polygons)).map(Some);
        let empty = Geometry::empty(OGRwkbGeometryType::wkbPolygon)?;
        Ok([None, Some(empty), shape(&bow_tie)?, shape(&crossed)?, shape(&pierced)?, shape(&twice)?])
    }
}

fn row<'a>(defn: &'a Defn, parcel: &Parcel) -> Result<Feature<'a>> {
    let mut feature = Feature::new(defn)?;
    let province = if parcel.polygons[0].rings[0][0][0] < 0.0 { "ES243" } else { "ES513" };
    let crop = parcel.crop;
    let values = [Some(crop.translated), crop.name, crop.code, Some(province)];
    for (index, value) in values.iter().enumerate() {
        match value {
            Some(value) => feature.set_field_string(index, value)?,
            None => feature.set_field_null(index)?,
        }
    }
    feature.set_geometry(Geometry::from_wkb(&wkb(&parcel.polygons))?)?;
    Ok(feature)
}

/// Little-endian WKB: a Polygon, or a MultiPolygon of more than one. Rings are closed here.
fn wkb(polygons: &[Polygon]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if polygons.len() > 1 {
        bytes.push(1);
        bytes.extend(6u32.to_le_bytes());
        bytes.extend((polygons.len() as u32).to_le_bytes());
    }
    for polygon in polygons {
        bytes.push(1);
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((polygon.rings.len() as u32).to_le_bytes());
        for ring in &polygon.rings {
            bytes.extend((ring.len() as u32 + 1).to_le_bytes());
            for coordinate in ring.iter().chain(ring.first()).flatten() {
                bytes.extend(coordinate.to_le_bytes());
            }
        }
    }
    bytes
}
