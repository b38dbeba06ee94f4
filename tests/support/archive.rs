//! A small archive of items, and a server of it that behaves like Earth Search.
//!
//! Contract: every item is the real one of the fixture with one thing changed; [`BEST_FIRST`] is what [`query`] must
//! find in [`archive`]. Trap: the server honours no filter at all, which is the point.
#![allow(unreachable_pub)]

use axum::body::Body;
use axum::http::Response;
use satellite_pipeline::domain::scene_query::SceneQuery;
use satellite_pipeline::domain::season::Season;
use serde_json::{Value, json as js};

use super::fault_server::{Asked, json};

/// A page with a Sentinel-2 and a Landsat item.
pub const PAGE_1: &str = include_str!("../fixtures/earth_search/page1.json");
/// The page after it.
pub const PAGE_2_EMPTY: &str = include_str!("../fixtures/earth_search/page2_empty.json");

/// A fixture, parsed.
pub fn page(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The real Sentinel-2 item of the fixture, moved to a day, with a cloud cover.
pub fn item(id: &str, day: &str, cloud: Value) -> Value {
    let mut item = page(PAGE_1)["features"][0].clone();
    item["id"] = js!(id);
    item["properties"]["datetime"] = js!(format!("{day}T18:02:55.276000Z"));
    item["properties"]["eo:cloud_cover"] = cloud;
    item["properties"]["s2:product_uri"] = js!(format!("{id}.SAFE"));
    item
}

/// A cell inside the fixture's tile, [west, south, east, north].
pub const CELL: [f64; 4] = [-105.15, 40.15, -105.10, 40.20];

/// Autumn below 20 % over one cell.
pub fn query() -> SceneQuery {
    SceneQuery {
        bbox: CELL,
        intervals: vec![Season::new("autumn", "2023-09-23", "2023-12-20").unwrap().interval],
        max_cloud: Some(20.0),
        collections: vec!["sentinel-2-l2a".into()],
    }
}

/// Items that ask for every rule: clouds that sort otherwise as text, days at the edges, copies, other places.
pub fn archive() -> Vec<Value> {
    let mut items = vec![
        item("nine", "2023-10-08", js!(9.5)),
        item("ten", "2023-10-09", js!(10)),
        item("hundred", "2023-10-10", js!(100)),
        item("one", "2023-10-11", js!("1.5")),
        item("twenty", "2023-10-12", js!(20.0)),
        item("last-day", "2023-12-20", js!(5.0)),
        item("too-late", "2023-12-21", js!(5.0)),
        item("too-early", "2023-09-22", js!(5.0)),
        item("same-cloud-b", "2023-11-02", js!(7.0)),
        item("same-cloud-a", "2023-11-02", js!(7.0)),
        item("no-cloud-stated", "2023-11-03", js!(null)),
    ];
    for sequence in ["0", "1"] {
        let mut copy = item(&format!("copy_{sequence}"), "2023-11-05", js!(3.0));
        copy["properties"]["s2:product_uri"] = js!("TWICE.SAFE");
        copy["properties"]["s2:sequence"] = js!(sequence);
        items.push(copy);
    }
    let mut elsewhere = item("elsewhere", "2023-11-06", js!(1.0));
    elsewhere["bbox"] = js!([10.0, 40.0, 11.0, 41.0]);
    let mut slanted = item("orbit-edge", "2023-11-07", js!(1.0));
    slanted["geometry"]["coordinates"] = js!([[[-106.2, 40.6], [-106.2, 39.7], [-106.0, 39.7], [-106.2, 40.6]]]);
    let mut landsat = item("landsat", "2023-11-08", js!(0.5));
    landsat["collection"] = js!("landsat-c2-l2");
    items.extend([elsewhere, slanted, landsat]);
    items
}

/// What the query finds, in order.
pub const BEST_FIRST: [&str; 7] = ["one", "copy_1", "last-day", "same-cloud-a", "same-cloud-b", "nine", "ten"];

/// Pages as Earth Search makes them: a next link even after everything has come, and no filter honoured.
pub fn earth_search(items: Vec<Value>, per_page: usize) -> impl Fn(&Asked) -> Response<Body> + Send + Sync {
    move |asked| {
        let from = asked.body["next"].as_u64().unwrap_or(0) as usize;
        let features: Vec<Value> = items.iter().skip(from).take(per_page).cloned().collect();
        if features.is_empty() {
            return json(&page(PAGE_2_EMPTY));
        }
        let mut body = asked.body.clone();
        body["next"] = js!(from + per_page);
        let href = format!("http://{}{}", asked.headers["host"].to_str().unwrap(), asked.path);
        let mut answer = page(PAGE_1);
        (answer["numberMatched"], answer["numberReturned"]) = (js!(items.len()), js!(features.len()));
        answer["context"] = js!({"limit": per_page, "matched": items.len(), "returned": features.len()});
        answer["features"] = js!(features);
        answer["links"] = js!([{"rel": "next", "method": "POST", "merge": false, "href": href, "body": body}]);
        json(&answer)
    }
}
