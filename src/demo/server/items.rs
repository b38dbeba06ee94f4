//! The STAC items below the server's root.
//!
//! Contract: every `*.json` file of type `Feature` with an id, a collection and assets is an item; it is served as it
//! stands, except that its `self` link becomes the URL of its own file, so that relative hrefs resolve.
//! Newest first, as Earth Search sorts. Units: degrees for boxes, RFC 3339 for times.
//! Trap: files above [`MAX_ITEM_BYTES`], directories deeper than [`MAX_DEPTH`] and items past [`MAX_ITEMS`] are passed
//! over: the catalog lives in memory.

use crate::demo::DemoError;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Larger JSON files are not items; the largest real one has some 60 KB.
const MAX_ITEM_BYTES: u64 = 4 << 20;
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: usize = 20_000;

/// One item and what searches compare.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) collection: String,
    pub(super) time: DateTime<Utc>,
    /// `[west, south, east, north]`, degrees.
    pub(super) bbox: [f64; 4],
    pub(super) json: Value,
}

/// All items, newest first.
#[derive(Debug)]
pub(super) struct Catalog {
    items: Vec<Item>,
}

impl Catalog {
    /// Reads every item below `root`; `base` is the URL the root is served at.
    pub(super) fn scan(root: &Path, base: &str) -> Result<Self, DemoError> {
        let mut items = Vec::new();
        walk(root, 0, &mut |file| {
            if items.len() < MAX_ITEMS
                && let Some(item) = read(root, file, base)
            {
                items.push(item);
            }
        })?;
        items.sort_by(|a, b| (b.time, &b.id, &b.collection).cmp(&(a.time, &a.id, &a.collection)));
        Ok(Self { items })
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn find(&self, collection: &str, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.collection == collection && item.id == id)
    }

    /// Ids of the collections that have an item.
    pub(super) fn collections(&self) -> BTreeSet<&str> {
        self.items.iter().map(|item| item.collection.as_str()).collect()
    }
}

/// Calls `found` with every JSON file, in name order. Links to directories are not followed.
fn walk(dir: &Path, depth: usize, found: &mut impl FnMut(&Path)) -> Result<(), DemoError> {
    let listing = std::fs::read_dir(dir).map_err(|e| DemoError::io(dir, e))?;
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
    paths.sort();
    for path in paths {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, found)?;
        } else if path.extension().is_some_and(|e| e == "json") && meta.len() <= MAX_ITEM_BYTES && meta.is_file() {
            found(&path);
        }
    }
    Ok(())
}

/// The item in a file, or none if the file is something else.
fn read(root: &Path, file: &Path, base: &str) -> Option<Item> {
    let mut json: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    if json["type"] != "Feature" || !json["assets"].is_object() {
        return None;
    }
    let id = json["id"].as_str()?.to_owned();
    let collection = json["collection"].as_str()?.to_owned();
    let time = DateTime::parse_from_rfc3339(json["properties"]["datetime"].as_str()?).ok()?.to_utc();
    let bbox = bbox(&json["bbox"]).or_else(|| envelope(&json["geometry"]["coordinates"]))?;
    set_self_link(&mut json, &file_url(root, file, base)?);
    Some(Item { id, collection, time, bbox, json })
}

fn file_url(root: &Path, file: &Path, base: &str) -> Option<String> {
    let mut url = url::Url::parse(base).ok()?;
    url.path_segments_mut().ok()?.clear().extend(file.strip_prefix(root).ok()?.iter().map(|s| s.to_string_lossy()));
    Some(url.into())
}

fn set_self_link(item: &mut Value, href: &str) {
    let link = json!({"rel": "self", "type": "application/geo+json", "href": href});
    match item["links"].as_array_mut() {
        Some(links) => {
            links.retain(|l| l["rel"] != "self");
            links.insert(0, link);
        }
        None => item["links"] = json!([link]),
    }
}

/// A JSON box of 4 or 6 numbers, heights dropped.
pub(super) fn bbox(json: &Value) -> Option<[f64; 4]> {
    let n: Vec<f64> = json.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    match *n.as_slice() {
        [w, s, e, n] => Some([w, s, e, n]),
        [w, s, _, e, n, _] => Some([w, s, e, n]),
        _ => None,
    }
}

/// The box around GeoJSON coordinates of any depth.
pub(super) fn envelope(coordinates: &Value) -> Option<[f64; 4]> {
    let mut found: Option<[f64; 4]> = None;
    let mut left = vec![coordinates];
    while let Some(next) = left.pop() {
        let parts = next.as_array()?;
        match (parts.first().and_then(Value::as_f64), parts.get(1).and_then(Value::as_f64)) {
            (Some(x), Some(y)) => {
                let [w, s, e, n] = found.unwrap_or([x, y, x, y]);
                found = Some([w.min(x), s.min(y), e.max(x), n.max(y)]);
            }
            _ => left.extend(parts),
        }
    }
    found
}
