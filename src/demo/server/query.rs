//! A STAC search request: read from JSON, matched against items.
//!
//! Contract: `collections`, `ids`, `bbox`, `intersects`, `datetime`, `query`, `sortby`, `limit` and `next` count;
//! anything else, `filter` included, is silently ignored, as Earth Search does. A geometry counts as its envelope on
//! both sides. Units: degrees, RFC 3339, whatever unit a queried property has.
//! Trap: an item without a queried property never matches, also not under `neq`.

use super::items::{self, Item};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// Items per page when the request names no limit.
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: u64 = 10_000;

/// Why a request is a 400; a sentence for its sender.
pub(super) type Refusal = String;

/// One condition of `query`.
#[derive(Debug)]
struct Condition {
    property: String,
    operator: String,
    operand: Value,
}

/// A search, ready to run.
#[derive(Debug, Default)]
pub(super) struct Search {
    collections: Vec<String>,
    ids: Vec<String>,
    bbox: Option<[f64; 4]>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    conditions: Vec<Condition>,
    /// Field path and whether it descends.
    sort: Vec<(String, bool)>,
    pub(super) limit: usize,
    next: Option<String>,
}

/// A page of a result.
pub(super) struct Page<'a> {
    pub(super) items: Vec<&'a Item>,
    pub(super) matched: usize,
    /// Where the next page begins; present whenever this page has an item, even the last.
    pub(super) next: Option<String>,
}

impl Search {
    /// Reads the body of a POST.
    pub(super) fn from_json(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let (bbox, intersects) = (present(body, "bbox"), present(body, "intersects"));
        if bbox.is_some() && intersects.is_some() {
            return Err("Expected bbox OR intersects, not both".into());
        }
        let bbox = match (bbox, intersects) {
            (Some(bbox), _) => Some(checked_bbox(bbox)?),
            (None, Some(geometry)) => Some(geometry_envelope(geometry).ok_or("intersects is not a GeoJSON geometry")?),
            (None, None) => None,
        };
        let (from, to) = present(body, "datetime").map(interval).transpose()?.unwrap_or_default();
        Ok(Self {
            collections: strings(body, "collections")?,
            ids: strings(body, "ids")?,
            bbox,
            from,
            to,
            conditions: present(body, "query").map(conditions).transpose()?.unwrap_or_default(),
            sort: present(body, "sortby").map(sort_keys).transpose()?.unwrap_or_default(),
            limit: present(body, "limit").map(limit).transpose()?.unwrap_or(DEFAULT_LIMIT),
            next: present(body, "next").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// One page of the items (given newest first) that match.
    pub(super) fn run<'a>(&self, items: &'a [Item]) -> Result<Page<'a>, Refusal> {
        let mut found: Vec<&Item> = items.iter().filter(|item| self.matches(item)).collect();
        if !self.sort.is_empty() {
            found.sort_by(|a, b| self.order(a, b));
        }
        let start = match &self.next {
            None => 0,
            Some(token) => 1 + found.iter().position(|i| token_of(i) == *token).ok_or("Invalid next token")?,
        };
        let page: Vec<&Item> = found.iter().skip(start).take(self.limit).copied().collect();
        let next = page.last().map(|last| token_of(last));
        Ok(Page { items: page, matched: found.len(), next })
    }

    fn matches(&self, item: &Item) -> bool {
        let listed = |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        listed(&self.collections, &item.collection)
            && listed(&self.ids, &item.id)
            && self.bbox.is_none_or(|b| overlap(b, item.bbox))
            && self.from.is_none_or(|from| item.time >= from)
            && self.to.is_none_or(|to| item.time <= to)
            && self.conditions.iter().all(|condition| condition.holds(&item.json["properties"]))
    }

    fn order(&self, a: &Item, b: &Item) -> Ordering {
        let by = |(field, descends): &(String, bool)| {
            let order = compare(value_at(&a.json, field), value_at(&b.json, field)).unwrap_or(Ordering::Equal);
            if *descends { order.reverse() } else { order }
        };
        self.sort.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl Condition {
    fn holds(&self, properties: &Value) -> bool {
        let Some(value) = properties.get(&self.property).filter(|v| !v.is_null()) else { return false };
        let order = compare(value, &self.operand);
        match self.operator.as_str() {
            "eq" => order == Some(Ordering::Equal),
            "neq" => order != Some(Ordering::Equal),
            "lt" => order == Some(Ordering::Less),
            "lte" => order.is_some_and(Ordering::is_le),
            "gt" => order == Some(Ordering::Greater),
            "gte" => order.is_some_and(Ordering::is_ge),
            "startsWith" => matches!((value.as_str(), self.operand.as_str()), (Some(v), Some(p)) if v.starts_with(p)),
            // The reader let no other operator pass.
            _ => self.operand.as_array().is_some_and(|all| all.contains(value)),
        }
    }
}

const OPERATORS: [&str; 8] = ["eq", "neq", "lt", "lte", "gt", "gte", "startsWith", "in"];

fn token_of(item: &Item) -> String {
    let time = item.json["properties"]["datetime"].as_str().unwrap_or_default();
    format!("{time},{},{}", item.id, item.collection)
}

fn present<'a>(body: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    body.get(key).filter(|value| !value.is_null())
}

fn strings(body: &Map<String, Value>, key: &str) -> Result<Vec<String>, Refusal> {
    let Some(value) = present(body, key) else { return Ok(Vec::new()) };
    serde_json::from_value(value.clone()).map_err(|_| format!("{key} must be an array of strings"))
}

fn checked_bbox(value: &Value) -> Result<[f64; 4], Refusal> {
    let bbox = items::bbox(value).ok_or("bbox must have 4 or 6 numbers")?;
    let [w, s, e, n] = bbox;
    if w <= e && s <= n { Ok(bbox) } else { Err("Invalid bbox: west must not exceed east, nor south north".into()) }
}

fn geometry_envelope(geometry: &Value) -> Option<[f64; 4]> {
    match geometry["geometries"].as_array() {
        Some(parts) => items::envelope(&parts.iter().map(|part| part["coordinates"].clone()).collect()),
        None => items::envelope(&geometry["coordinates"]),
    }
}

/// Boxes that only touch overlap, as in GeoJSON intersection.
fn overlap(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] <= b[2] && b[0] <= a[2] && a[1] <= b[3] && b[1] <= a[3]
}

type Interval = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// `T`, `T/T`, `../T`, `T/..`; an empty end is open as well.
fn interval(value: &Value) -> Result<Interval, Refusal> {
    let text = value.as_str().ok_or("datetime must be a string")?;
    let instant = |part: &str| match part {
        "" | ".." => Ok(None),
        _ => {
            DateTime::parse_from_rfc3339(part).map(|t| Some(t.to_utc())).map_err(|_| format!("Invalid datetime {part}"))
        }
    };
    let (from, to) = match text.split_once('/') {
        Some((from, to)) => (instant(from)?, instant(to)?),
        None => (instant(text)?, instant(text)?),
    };
    match (from, to) {
        (None, None) => Err("datetime must have an end".into()),
        (Some(a), Some(b)) if a > b => Err("datetime must begin before it ends".into()),
        ends => Ok(ends),
    }
}

fn limit(value: &Value) -> Result<usize, Refusal> {
    let number = value.as_u64().filter(|n| (1..=MAX_LIMIT).contains(n));
    number.map(|n| n as usize).ok_or_else(|| format!("limit must be a whole number from 1 to {MAX_LIMIT}"))
}

fn conditions(value: &Value) -> Result<Vec<Condition>, Refusal> {
    let mut found = Vec::new();
    for (property, operators) in value.as_object().ok_or("query must be an object")? {
        for (operator, operand) in operators.as_object().ok_or("query operators must be an object")? {
            if !OPERATORS.contains(&operator.as_str()) {
                return Err(format!("query operator {operator} is not one of {}", OPERATORS.join(", ")));
            }
            found.push(Condition { property: property.clone(), operator: operator.clone(), operand: operand.clone() });
        }
    }
    Ok(found)
}

fn sort_keys(value: &Value) -> Result<Vec<(String, bool)>, Refusal> {
    let key = |one: &Value| Some((one["field"].as_str()?.to_owned(), one["direction"] == "desc"));
    let keys = value.as_array().and_then(|all| all.iter().map(key).collect());
    keys.ok_or_else(|| "sortby must be an array of {field, direction}".into())
}

/// A value by dotted path; a bare name is a member of the item, or else one of its properties.
fn value_at<'a>(item: &'a Value, field: &str) -> &'a Value {
    match field.strip_prefix("properties.") {
        Some(property) => &item["properties"][property],
        None if item[field].is_null() => &item["properties"][field],
        None => &item[field],
    }
}

/// Numbers by size, strings by text (RFC 3339 in one zone sorts by time); other pairs have no order.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}
