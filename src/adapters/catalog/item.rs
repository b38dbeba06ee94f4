//! A [`Scene`] from one STAC item, in any of the dialects met so far.
//!
//! Contract: what comes out has every required band under an absolute URL; what cannot be used says why, and only that
//! item is lost. Read: STAC 1.0 and 1.1; `proj:epsg` and `proj:code`; properties on the item or on the asset;
//! transforms of six or nine numbers; asset keys as in [`Band::asset_keys`]. Trap: an item's own links come from outside,
//! so the URLs built here still have to pass the HTTP door's trust.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use stac::Item;
use url::Url;

use crate::domain::band::Band;
use crate::domain::footprint::Footprint;
use crate::domain::scene::{Asset, PixelGrid, Scene};

/// Longest id or URL that is taken, bytes.
const MAX_TEXT: usize = 2048;

/// Why an item gives no scene.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not an item.
    #[error("not a STAC item: {0}")]
    Malformed(String),
    /// Without acquisition date.
    #[error("it has neither datetime nor start_datetime")]
    NoDatetime,
    /// Without a coordinate reference system of its own.
    #[error("it has no EPSG code in proj:epsg or proj:code")]
    NoCrs,
    /// Without bounding box.
    #[error("it has no bbox, or one with impossible numbers")]
    NoBbox,
    /// Without a band that is needed.
    #[error("it has no asset for band {0} (looked for {keys})", keys = .0.asset_keys().join(", "))]
    NoAsset(Band),
    /// An asset of a kind nobody can ask for.
    #[error("asset of band {band}: `{href}` is not a usable URL: {why}")]
    Href {
        /// Which.
        band: Band,
        /// As it stands in the item.
        href: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Unusable {
    /// A short name for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NoDatetime => "no_datetime",
            Self::NoCrs => "no_crs",
            Self::NoBbox => "no_bbox",
            Self::NoAsset(_) => "no_asset",
            Self::Href { .. } => "href",
        }
    }
}

/// Reads items.
#[derive(Debug, Clone)]
pub struct ItemReader {
    /// Bands an item must have to be of use; others are taken when they are there.
    pub required: Vec<Band>,
    /// What relative hrefs are relative to (`stac.relative_href_base`), when configured: a folder's URL, in which
    /// `{id}` and `{collection}` stand for the item's.
    pub relative_href_base: Option<String>,
    /// The URL the item came from: the last resort for relative hrefs.
    pub source: Url,
}

impl ItemReader {
    /// One feature of a search's answer.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(&self, feature: Value) -> Result<Scene, Unusable> {
        let item: Item = serde_json::from_value(feature).map_err(|e| Unusable::Malformed(e.to_string()))?;
        if item.id.is_empty() || item.id.len() > MAX_TEXT {
            return Err(Unusable::Malformed("its id is empty or too long".into()));
        }
        let datetime = item.properties.datetime.or(item.properties.start_datetime).ok_or(Unusable::NoDatetime)?;
        let bbox = flat_bbox(&item).ok_or(Unusable::NoBbox)?;
        let more = &item.properties.additional_fields;
        Ok(Scene {
            epsg: epsg(&item).ok_or(Unusable::NoCrs)?,
            assets: self.assets(&item)?,
            footprint: item.geometry.as_ref().and_then(footprint),
            collection: item.collection.clone().unwrap_or_default(),
            cloud_cover: number(more, "eo:cloud_cover").filter(|c| (0.0..=100.0).contains(c)).unwrap_or(100.0),
            product_uri: text(more, "s2:product_uri"),
            sequence: number(more, "s2:sequence").map(|n| n as u32),
            updated: item.properties.updated.as_deref().and_then(|t| t.parse::<DateTime<Utc>>().ok()),
            baseline: text(more, "s2:processing_baseline"),
            boa_offset_applied: more.get("earthsearch:boa_offset_applied").and_then(Value::as_bool),
            id: item.id,
            datetime,
            bbox,
        })
    }

    fn assets(&self, item: &Item) -> Result<BTreeMap<Band, Asset>, Unusable> {
        let base = self.base(item)?;
        let mut found = BTreeMap::new();
        for band in Band::ALL {
            let asset = band.asset_keys().iter().find_map(|key| item.assets.get(*key));
            let required = self.required.contains(&band);
            match asset.map(|a| (a, resolve(&base, &a.href))) {
                Some((asset, Ok(href))) => _ = found.insert(band, Asset { href, grid: grid(item, asset) }),
                Some((asset, Err(why))) if required => {
                    return Err(Unusable::Href { band, href: asset.href.chars().take(120).collect(), why });
                }
                None if required => return Err(Unusable::NoAsset(band)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// What the item's relative hrefs are relative to.
    fn base(&self, item: &Item) -> Result<Url, Unusable> {
        if let Some(template) = &self.relative_href_base {
            return folder_of(template, &item.id, item.collection.as_deref().unwrap_or_default());
        }
        let own = item.links.iter().find(|l| l.rel == "self").and_then(|l| self.source.join(&l.href).ok());
        Ok(own.unwrap_or_else(|| self.source.clone()))
    }
}

/// The configured folder of one item's files. Ids come from outside, so only such as cannot leave the folder are put in.
pub(super) fn folder_of(template: &str, id: &str, collection: &str) -> Result<Url, Unusable> {
    let mut folder = template.to_owned();
    for (hole, value) in [("{id}", id), ("{collection}", collection)] {
        let harmless = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if folder.contains(hole) && (!harmless || value.is_empty() || value.starts_with('.')) {
            return Err(Unusable::Malformed(format!("its {hole} cannot be part of a URL")));
        }
        folder = folder.replace(hole, value);
    }
    if !folder.ends_with('/') {
        folder.push('/');
    }
    Url::parse(&folder).map_err(|e| Unusable::Malformed(format!("relative_href_base gives no URL: {e}")))
}

fn resolve(base: &Url, href: &str) -> Result<String, String> {
    if href.is_empty() || href.len() > MAX_TEXT {
        return Err("it is empty or too long".into());
    }
    let url = base.join(href).map_err(|e| e.to_string())?;
    match url.scheme() {
        "http" | "https" | "file" => Ok(url.into()),
        other => Err(format!("only http, https and file are read, not {other}")),
    }
}

/// The EPSG code: on the item (`proj:code` in the way of crate stac too, or `proj:epsg`), else on its first band.
fn epsg(item: &Item) -> Option<u32> {
    let of = |fields: &Map<String, Value>| {
        let code = text(fields, "proj:code").and_then(|c| c.strip_prefix("EPSG:")?.parse().ok());
        code.or_else(|| number(fields, "proj:epsg").map(|n| n as u32))
    };
    let on_band = || {
        let mut keys = Band::ALL.iter().flat_map(|b| b.asset_keys());
        keys.find_map(|key| of(&item.assets.get(*key)?.additional_fields))
    };
    of(&item.properties.additional_fields).or_else(on_band).filter(|code| (1024..=998_999).contains(code))
}

/// The asset's grid, from its own `proj:` fields or the item's.
fn grid(item: &Item, asset: &stac::Asset) -> Option<PixelGrid> {
    let field = |key| asset.additional_fields.get(key).or_else(|| item.properties.additional_fields.get(key));
    let numbers: Vec<f64> = field("proj:transform")?.as_array()?.iter().map_while(Value::as_f64).collect();
    let shape: Vec<u64> = field("proj:shape")?.as_array()?.iter().map_while(Value::as_u64).collect();
    PixelGrid::from_affine(&numbers, shape.try_into().ok()?)
}

fn flat_bbox(item: &Item) -> Option<[f64; 4]> {
    let bbox = match item.bbox? {
        stac::Bbox::TwoDimensional(bbox) => bbox,
        stac::Bbox::ThreeDimensional([w, s, _, e, n, _]) => [w, s, e, n],
    };
    let [w, s, e, n] = bbox;
    let sound = w.abs() <= 180.0 && e.abs() <= 180.0 && -90.0 <= s && s <= n && n <= 90.0;
    sound.then_some(bbox)
}

/// Outer rings of the item's (multi)polygon; any other geometry says nothing.
fn footprint(geometry: &stac::Geometry) -> Option<Footprint> {
    let value = serde_json::to_value(geometry).ok()?;
    let coordinates = value.get("coordinates")?.as_array()?;
    let outer: Vec<&Value> = match value.get("type")?.as_str()? {
        "Polygon" => vec![coordinates.first()?],
        "MultiPolygon" => coordinates.iter().filter_map(|p| p.get(0)).collect(),
        _ => return None,
    };
    let point = |p: &Value| Some([p.get(0)?.as_f64()?, p.get(1)?.as_f64()?]);
    Footprint::new(outer.into_iter().map(|ring| ring.as_array()?.iter().map(point).collect()).collect::<Option<_>>()?)
}

fn text(fields: &Map<String, Value>, key: &str) -> Option<String> {
    fields.get(key).and_then(Value::as_str).filter(|s| s.len() <= MAX_TEXT).map(str::to_owned)
}

/// A number, or a text that is one: `s2:sequence` is `"0"` in Earth Search.
fn number(fields: &Map<String, Value>, key: &str) -> Option<f64> {
    match fields.get(key)? {
        Value::String(s) => s.trim().parse().ok(),
        other => other.as_f64(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::harmonise::{Mode, by_item, decide};

    /// An item in the shape of Earth Search's, with one 10 m and one 20 m band.
    fn item() -> Value {
        json!({
            "type": "Feature", "stac_version": "1.0.0", "id": "S2A_30TVK_20230501_0_L2A",
            "collection": "sentinel-2-l2a",
            "geometry": {"type": "Polygon", "coordinates": [[[-4.2, 39.6], [-2.9, 39.7], [-2.9, 40.6], [-4.2, 39.6]]]},
            "bbox": [-4.2, 39.6, -2.9, 40.6],
            "properties": {
                "datetime": "2023-05-01T11:06:21.024000Z", "eo:cloud_cover": 3.25, "proj:epsg": 32630,
                "s2:sequence": "1", "s2:processing_baseline": "05.09", "s2:product_uri": "P.SAFE",
                "earthsearch:boa_offset_applied": true, "updated": "2023-05-02T01:25:21.658Z"
            },
            "links": [{"rel": "self", "href": "https://stac.example/v1/collections/c/items/S2A"}],
            "assets": {
                "blue": {"href": "https://cogs.example/B02.tif", "proj:shape": [10980, 10980],
                         "proj:transform": [10, 0, 399960, 0, -10, 4500000]},
                "blue-jp2": {"href": "s3://cogs/B02.jp2"},
                "rededge1": {"href": "./B05.tif", "proj:shape": [5490, 5490],
                             "proj:transform": [20, 0, 399960, 0, -20, 4500000, 0, 0, 1]}
            }
        })
    }

    fn reader() -> ItemReader {
        ItemReader {
            required: vec![Band::B02, Band::B05],
            relative_href_base: None,
            source: "https://stac.example/v1/search".parse().unwrap(),
        }
    }

    #[test]
    fn an_item_of_earth_search() {
        let scene = reader().read(item()).unwrap();
        assert_eq!((scene.epsg, scene.cloud_cover, scene.sequence), (32630, 3.25, Some(1)));
        assert_eq!(scene.datetime.to_rfc3339(), "2023-05-01T11:06:21.024+00:00");
        assert_eq!((scene.baseline.as_deref(), scene.boa_offset_applied), (Some("05.09"), Some(true)));
        assert_eq!((scene.product_uri.as_deref(), scene.updated.is_some()), (Some("P.SAFE"), true));
        let grid = PixelGrid { x0: 399960.0, y0: 4500000.0, res: 20.0, width: 5490, height: 5490 };
        assert_eq!(scene.asset(Band::B05).unwrap().grid, Some(grid));
        assert!(scene.touches([-3.1, 40.0, -3.0, 40.1]));
        assert!(!scene.touches([-4.2, 40.5, -4.1, 40.6]), "in the bbox, not in the footprint");
    }

    #[test]
    fn relative_hrefs() {
        let href = |reader: ItemReader, item| reader.read(item).unwrap().asset(Band::B05).unwrap().href.clone();
        assert_eq!(href(reader(), item()), "https://stac.example/v1/collections/c/items/B05.tif");
        let mut orphan = item();
        orphan["links"] = json!([]);
        assert_eq!(href(reader(), orphan), "https://stac.example/v1/B05.tif");
        let based = |base: &str| ItemReader { relative_href_base: Some(base.into()), ..reader() };
        assert_eq!(href(based("http://files.example/scene"), item()), "http://files.example/scene/B05.tif");
        let per_item = based("http://files.example/{collection}/{id}/");
        assert_eq!(
            href(per_item.clone(), item()),
            "http://files.example/sentinel-2-l2a/S2A_30TVK_20230501_0_L2A/B05.tif"
        );
        let mut sly = item();
        sly["id"] = json!("../../x");
        assert!(matches!(per_item.read(sly), Err(Unusable::Malformed(_))));
    }

    #[test]
    fn the_crs_in_all_its_places() {
        let epsg = |change: &dyn Fn(&mut Value)| {
            let mut item = item();
            item["properties"].as_object_mut().unwrap().remove("proj:epsg");
            change(&mut item);
            reader().read(item).map(|s| s.epsg)
        };
        assert_eq!(epsg(&|i| i["properties"]["proj:code"] = json!("EPSG:32631")), Ok(32631));
        assert_eq!(epsg(&|i| i["properties"]["proj:epsg"] = json!(32629)), Ok(32629));
        assert_eq!(epsg(&|i| i["assets"]["blue"]["proj:code"] = json!("EPSG:32628")), Ok(32628));
        assert_eq!(epsg(&|_| ()), Err(Unusable::NoCrs));
        assert_eq!(epsg(&|i| i["properties"]["proj:code"] = json!("IAU_2015:30100")), Err(Unusable::NoCrs));
        assert_eq!(epsg(&|i| i["properties"]["proj:epsg"] = json!(null)), Err(Unusable::NoCrs));
    }

    #[test]
    fn a_1_1_item_with_mission_names() {
        let mut item = item();
        item["stac_version"] = json!("1.1.0");
        let blue = item["assets"]["blue"].take();
        item["assets"] = json!({"B02": blue, "B05": {"href": "https://cogs.example/B05.tif"}});
        let scene = reader().read(item).unwrap();
        assert_eq!(scene.asset(Band::B02).unwrap().href, "https://cogs.example/B02.tif");
        assert_eq!(scene.asset(Band::B05).unwrap().grid, None);
    }

    /// Planetary Computer: the mission's names, the classification among them, and no word about the offset.
    #[test]
    fn an_item_of_planetary_computer() {
        let asset = |band: Band| {
            let (res, size) = if band.gsd() == 10 { (10, 10_980) } else { (20, 5490) };
            let href = format!("https://blobs.example/30/T/VK/2023/05/01/T30TVK_{}_{res}m.tif", band.name());
            json!({"href": href, "proj:shape": [size, size], "proj:transform": [res, 0, 399960, 0, -res, 4500000]})
        };
        let assets: Map<String, Value> = Band::ALL.iter().map(|b| (b.name().to_owned(), asset(*b))).collect();
        let mut item = item();
        item["id"] = json!("S2A_MSIL2A_20230501T110621_R137_T30TVK_20230501T173102");
        item["stac_version"] = json!("1.1.0");
        item["assets"] = Value::Object(assets);
        item["properties"] = json!({
            "datetime": "2023-05-01T11:06:21.024000Z", "eo:cloud_cover": 3.25, "proj:code": "EPSG:32630",
            "s2:processing_baseline": "05.09", "platform": "Sentinel-2A",
            "s2:product_uri": "S2A_MSIL2A_20230501T110621_N0509_R137_T30TVK_20230501T173102.SAFE",
        });
        let scene = ItemReader { required: Band::ALL.to_vec(), ..reader() }.read(item).unwrap();
        assert_eq!((scene.epsg, scene.assets.len()), (32630, 11));
        assert!(scene.asset(Band::Scl).unwrap().href.ends_with("T30TVK_SCL_20m.tif"));
        assert_eq!(scene.overpass().as_deref(), Some("S2A_20230501T110621_R137"));
        // Its DNs hold the offset, and the pixels say so.
        assert_eq!(by_item(Mode::Auto, &scene), None);
        assert_eq!(decide(Mode::Auto, &scene, Some(1240)).subtract, 1000);
        assert_eq!(decide(Mode::Stac, &scene, None).subtract, 1000);
    }

    #[test]
    fn what_is_missing_is_named_and_the_rest_is_optional() {
        let without = |path: &str, key: &str| {
            let mut item = item();
            item.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(key);
            reader().read(item)
        };
        let text = without("/assets", "blue").unwrap_err().to_string();
        assert_eq!(text, "it has no asset for band B02 (looked for blue, B02, B02_10m)");
        assert_eq!(without("/properties", "datetime"), Err(Unusable::NoDatetime));
        assert_eq!(without("", "bbox"), Err(Unusable::NoBbox));
        assert!(matches!(without("", "id"), Err(Unusable::Malformed(_))));
        assert!(matches!(reader().read(json!("x")), Err(Unusable::Malformed(_))));
        assert_eq!(without("/properties", "eo:cloud_cover").unwrap().cloud_cover, 100.0);
        for optional in ["s2:sequence", "s2:product_uri", "s2:processing_baseline", "updated"] {
            assert!(without("/properties", optional).is_ok(), "{optional}");
        }
        let mut s3 = item();
        s3["assets"]["blue"]["href"] = json!("s3://bucket/B02.tif");
        assert!(reader().read(s3).unwrap_err().to_string().contains("only http, https and file"));
    }
}
