//! The STAC API pages: landing, conformance, collections, one item, search by GET and POST.
//!
//! Contract: shapes and paging are those of Earth Search v1: `next` is a POST link with `merge: false` and the whole
//! body (a GET link after a GET), it comes with every page that has an item, and the page after the last is empty.
//! An answer above [`MAX_ANSWER_BYTES`] is a 502, as behind its gateway.
//! Trap: `next` links point at the address the server is bound to, not at the `Host` header.

use super::Shared;
use super::query::{Page, Search};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the gateway before Earth Search lets through.
const MAX_ANSWER_BYTES: usize = 6 << 20;
const GEOJSON: &str = "application/geo+json";
const CONFORMANCE: [&str; 8] = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
    "https://api.stacspec.org/v1.0.0/item-search#sort",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
];

pub(super) async fn landing(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let base = &shared.base;
    let link = |rel: &str, path: &str| json!({"rel": rel, "type": "application/json", "href": format!("{base}{path}")});
    let search =
        |method: &str| json!({"rel": "search", "type": GEOJSON, "href": format!("{base}/search"), "method": method});
    Json(json!({
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "demo",
        "title": "Demo region",
        "description": "Made-up Sentinel-2 scenes of a made-up region.",
        "conformsTo": CONFORMANCE,
        "links": [link("self", "/"), link("root", "/"), link("conformance", "/conformance"),
            link("data", "/collections"), search("GET"), search("POST")],
    }))
}

pub(super) async fn conformance() -> Json<Value> {
    Json(json!({"conformsTo": CONFORMANCE}))
}

pub(super) async fn collections(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let all: Vec<Value> = shared.catalog.collections().iter().map(|id| describe(&shared, id)).collect();
    Json(json!({
        "collections": all,
        "links": [{"rel": "root", "type": "application/json", "href": format!("{}/", shared.base)}],
        "context": {"limit": 10, "matched": all.len(), "returned": all.len()},
    }))
}

pub(super) async fn collection(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    if shared.catalog.collections().contains(id.as_str()) {
        Json(describe(&shared, &id)).into_response()
    } else {
        refuse(StatusCode::NOT_FOUND, "Collection not found")
    }
}

pub(super) async fn item(
    State(shared): State<Arc<Shared>>,
    Path((collection, id)): Path<(String, String)>,
) -> Response {
    match shared.catalog.find(&collection, &id) {
        Some(item) => ([(header::CONTENT_TYPE, GEOJSON)], item.json.to_string()).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "Item not found"),
    }
}

pub(super) async fn search_post(State(shared): State<Arc<Shared>>, body: axum::body::Bytes) -> Response {
    let body = if body.is_empty() { Ok(Map::new()) } else { serde_json::from_slice(&body) };
    let Ok(body) = body else { return refuse(StatusCode::BAD_REQUEST, "The body is not a JSON object") };
    let next_link = |token: String| {
        let mut full = body.clone();
        full.insert("next".into(), token.into());
        json!({"rel": "next", "title": "Next page of Items", "method": "POST", "type": GEOJSON,
            "href": format!("{}/search", shared.base), "merge": false, "body": full})
    };
    answer(&shared, &body, next_link)
}

pub(super) async fn search_get(
    State(shared): State<Arc<Shared>>,
    Query(given): Query<BTreeMap<String, String>>,
) -> Response {
    let body = match body_of_query(&given) {
        Ok(body) => body,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    let next_link = |token: String| {
        let kept = given.iter().filter(|(key, _)| *key != "next").map(|(k, v)| (k.as_str(), v.as_str()));
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("next", &token)
            .finish();
        json!({"rel": "next", "title": "Next page of Items", "method": "GET", "type": GEOJSON,
            "href": format!("{}/search?{query}", shared.base)})
    };
    answer(&shared, &body, next_link)
}

fn answer(shared: &Shared, body: &Map<String, Value>, next_link: impl FnOnce(String) -> Value) -> Response {
    let search = match Search::from_json(body) {
        Ok(search) => search,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    let Page { items, matched, next } = match search.run(shared.catalog.items()) {
        Ok(page) => page,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    let root = json!({"rel": "root", "type": "application/json", "href": shared.base});
    let links: Vec<Value> = next.map(next_link).into_iter().chain([root]).collect();
    let features: Vec<&Value> = items.iter().map(|item| &item.json).collect();
    let text = json!({
        "type": "FeatureCollection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "context": {"limit": search.limit, "matched": matched, "returned": features.len()},
        "numberMatched": matched,
        "numberReturned": features.len(),
        "features": features,
        "links": links,
    })
    .to_string();
    if text.len() > MAX_ANSWER_BYTES {
        return refuse(StatusCode::BAD_GATEWAY, "The answer is larger than the gateway allows: ask for fewer items");
    }
    ([(header::CONTENT_TYPE, GEOJSON)], text).into_response()
}

/// The JSON body that says the same as a query string: lists by commas, objects as JSON text.
fn body_of_query(given: &BTreeMap<String, String>) -> Result<Map<String, Value>, String> {
    let mut body = Map::new();
    for (key, text) in given {
        let value = match key.as_str() {
            "collections" | "ids" => text.split(',').collect(),
            "bbox" | "limit" => {
                let numbers = text.split(',').map(|n| n.trim().parse::<Value>().ok().filter(Value::is_number));
                let numbers: Vec<Value> = numbers.collect::<Option<_>>().ok_or(format!("{key} is not numeric"))?;
                if key == "limit" { numbers.into_iter().next().unwrap_or_default() } else { numbers.into() }
            }
            "query" | "intersects" => text.parse().map_err(|_| format!("{key} is not JSON"))?,
            "sortby" => text.split(',').map(sort_key).collect(),
            _ => text.as_str().into(),
        };
        body.insert(key.clone(), value);
    }
    Ok(body)
}

fn sort_key(text: &str) -> Value {
    match text.strip_prefix('-') {
        Some(field) => json!({"field": field, "direction": "desc"}),
        None => json!({"field": text.trim_start_matches('+'), "direction": "asc"}),
    }
}

fn describe(shared: &Shared, id: &str) -> Value {
    let members: Vec<_> = shared.catalog.items().iter().filter(|item| item.collection == id).collect();
    let bbox = members
        .iter()
        .map(|item| item.bbox)
        .reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]);
    let first = members.iter().map(|item| item.time).min().map(|t| t.to_rfc3339());
    let last = members.iter().map(|item| item.time).max().map(|t| t.to_rfc3339());
    let base = &shared.base;
    json!({
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": id,
        "description": "Scenes below the server's root.",
        "license": "other",
        "extent": {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[first, last]]}},
        "links": [
            {"rel": "self", "type": "application/json", "href": format!("{base}/collections/{id}")},
            {"rel": "root", "type": "application/json", "href": format!("{base}/")},
        ],
    })
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let code = status.canonical_reason().unwrap_or_default().replace(' ', "");
    (status, Json(json!({"code": code, "description": reason}))).into_response()
}
