//! One contract for every catalog, and the STAC API's own troubles, over real connections on the loopback.
//!
//! Contract proved: the STAC API and the scripted twin give the same scenes in the same order for the same question,
//! whatever the server does with filters, order and pages; neighbours share searches; broken items cost only themselves;
//! a wrong endpoint says so. The fixtures are trimmed answers of Earth Search.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/archive.rs"]
mod archive;
#[path = "support/fault_server.rs"]
mod fault_server;

use std::sync::Arc;
use std::time::Duration;

use archive::{BEST_FIRST, PAGE_1, PAGE_2_EMPTY, archive, earth_search, item, page, query};
use axum::body::Body;
use axum::http::Response;
use fault_server::{Asked, FaultServer, answer, json};
use satellite_pipeline::adapters::catalog::{
    Catalog, CatalogError, CatalogSettings, ItemReader, ScriptedCatalog, StacCatalog,
};
use satellite_pipeline::adapters::http::{Http, HttpSettings, Trust};
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::failure::Severity;
use satellite_pipeline::domain::scene_query::SceneQuery;
use satellite_pipeline::domain::season::Season;
use serde_json::{Value, json as js};
use url::Url;

fn catalog_with(server: &FaultServer, change: impl FnOnce(&mut CatalogSettings)) -> StacCatalog {
    let trust = Trust::new([server.url.clone()]);
    let http = Http::new(HttpSettings { trust, read_timeout: Duration::from_secs(5), ..HttpSettings::default() });
    let mut settings = CatalogSettings::new(server.url.join("v1").unwrap());
    change(&mut settings);
    StacCatalog::new(Arc::new(http.unwrap()), settings).unwrap()
}

async fn stac(answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> (FaultServer, StacCatalog) {
    let server = FaultServer::start(answer).await;
    let catalog = catalog_with(&server, |_| ());
    (server, catalog)
}

fn scripted(items: &[Value]) -> ScriptedCatalog {
    let source: Url = "https://stac.example/v1/search".parse().unwrap();
    let reader = ItemReader { required: Band::ALL.to_vec(), relative_href_base: None, source };
    ScriptedCatalog::new(items.iter().filter_map(|i| reader.read(i.clone()).ok()))
}

async fn ids(catalog: &dyn Catalog, query: &SceneQuery) -> Vec<String> {
    catalog.find(query).await.unwrap().iter().map(|s| s.id.clone()).collect()
}

/// The contract, for any catalog that holds [`archive`].
async fn keeps_the_contract(catalog: &dyn Catalog) {
    assert_eq!(ids(catalog, &query()).await, BEST_FIRST);
    assert_eq!(ids(catalog, &query()).await, BEST_FIRST, "asked again");

    let clear = SceneQuery { max_cloud: Some(5.0), ..query() };
    assert_eq!(ids(catalog, &clear).await, ["one", "copy_1"], "the bound itself is too cloudy");
    let any = SceneQuery { max_cloud: None, ..query() };
    let all = ids(catalog, &any).await;
    assert_eq!(all[..7], BEST_FIRST);
    assert_eq!(all[7..], ["twenty", "hundred", "no-cloud-stated"], "no statement counts as overcast");

    let early = Season::new("early", "2023-09-01", "2023-09-22").unwrap().interval;
    let both = SceneQuery { intervals: vec![early, query().intervals[0]], ..query() };
    assert_eq!(ids(catalog, &both).await.len(), BEST_FIRST.len() + 1, "windows are searched together");

    let open_sea = SceneQuery { bbox: [-30.05, 40.0, -30.0, 40.05], ..query() };
    assert!(ids(catalog, &open_sea).await.is_empty());
    let at_the_edge = SceneQuery { bbox: [-106.18, 39.75, -106.13, 39.8], ..query() };
    assert!(ids(catalog, &at_the_edge).await.contains(&"orbit-edge".to_owned()));
    let landsat = SceneQuery { collections: vec!["landsat-c2-l2".into()], ..query() };
    assert_eq!(ids(catalog, &landsat).await, ["landsat"]);
}

#[tokio::test]
async fn the_scripted_twin_keeps_the_contract() {
    let catalog = scripted(&archive());
    keeps_the_contract(&catalog).await;
    assert_eq!(catalog.asked()[0], query());
}

#[tokio::test]
async fn the_stac_api_keeps_the_contract_on_pages_of_any_size() {
    for per_page in [1, 3, 100] {
        let (_server, catalog) = stac(earth_search(archive(), per_page)).await;
        keeps_the_contract(&catalog).await;
    }
}

#[tokio::test]
async fn the_twin_fails_as_scripted_and_then_works() {
    let gone = CatalogError::Query { endpoint: "e".into(), why: "scripted".into() };
    let catalog = scripted(&archive()).failing_first([gone]);
    assert!(catalog.find(&query()).await.unwrap_err().to_string().contains("scripted"));
    assert_eq!(ids(&catalog, &query()).await, BEST_FIRST);
}

#[tokio::test]
async fn a_real_answer_of_earth_search() {
    let (server, catalog) = stac(|asked| {
        let mut first = page(PAGE_1);
        let own = format!("http://{}/v1/search", asked.headers["host"].to_str().unwrap());
        first["links"][0]["href"] = js!(own);
        json(&if asked.body.get("next").is_some() { page(PAGE_2_EMPTY) } else { first })
    })
    .await;
    let scenes = catalog.find(&query()).await.unwrap();
    assert_eq!(scenes.len(), 1);
    let scene = &scenes[0];
    assert_eq!((scene.id.as_str(), scene.epsg), ("S2A_13TDE_20231008_0_L2A", 32613));
    assert_eq!(scene.assets.len(), 11);
    let (b02, b05) = (scene.asset(Band::B02).unwrap(), scene.asset(Band::B05).unwrap());
    assert!(
        b02.href.starts_with("https://sentinel-cogs.s3.us-west-2.amazonaws.com/") && b02.href.ends_with("/B02.tif")
    );
    assert_eq!(b05.grid.map(|g| (g.x0, g.y0, g.res, g.width)), Some((399960.0, 4500000.0, 20.0, 5490)));

    let asked = server.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/v1/search"));
    assert_eq!(asked.len(), 1, "both items have come, so the next page would be empty");
    let body = js!({
        "bbox": [-105.5, 40.0, -105.0, 40.5], "limit": 100, "collections": ["sentinel-2-l2a"],
        "datetime": "2023-09-23T00:00:00Z/2023-12-20T23:59:59.999Z", "query": {"eo:cloud_cover": {"lt": 20.0}}
    });
    assert_eq!(asked[0].body, body);
    let tally = catalog.counters().tally();
    assert_eq!((tally.searches, tally.pages, tally.items), (1, 1, 2));
    assert_eq!(tally.unusable, [("href", 1)].into(), "Landsat bands are on s3 alone");
}

#[tokio::test]
async fn neighbours_share_one_search_even_at_once() {
    let (server, catalog) = stac(earth_search(archive(), 100)).await;
    let catalog = Arc::new(catalog);
    let tasks: Vec<_> = (0..40u32)
        .map(|i| {
            let catalog = catalog.clone();
            let (x, y) = (f64::from(i % 10) * 0.05 - 105.5, f64::from(i / 10) * 0.05 + 40.0);
            let query = SceneQuery { bbox: [x, y, x + 0.05, y + 0.05], ..query() };
            tokio::spawn(async move { catalog.find(&query).await.unwrap().len() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), BEST_FIRST.len());
    }
    assert_eq!(server.asked().len(), 1);
    let tally = catalog.counters().tally();
    assert_eq!((tally.finds, tally.searches), (40, 1));
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_failures_are_not_remembered() {
    let server = FaultServer::start({
        let honest = earth_search(archive(), 100);
        let calls = std::sync::atomic::AtomicUsize::new(0);
        move |asked| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => answer(503, &[("retry-after", "2")], "slow down"),
            _ => honest(asked),
        }
    })
    .await;
    let catalog = catalog_with(&server, |s| {
        (s.cached_scenes, s.max_items) = (32, 32);
    });
    let busy = catalog.find(&query()).await.unwrap_err();
    assert_eq!((busy.severity(), busy.retry_after_s()), (Severity::Transient, Some(2)));
    assert_eq!(ids(&catalog, &query()).await, BEST_FIRST);
    for block in 0..20 {
        let west = f64::from(block) * 0.5;
        catalog.find(&SceneQuery { bbox: [west, 0.0, west + 0.05, 0.05], ..query() }).await.unwrap();
    }
    let before = catalog.counters().tally().searches;
    catalog.find(&query()).await.unwrap();
    assert!(catalog.counters().tally().searches - before <= 1);
    assert_eq!(before, 22, "every block was asked for once, the failed one twice");
}

#[tokio::test]
async fn a_server_that_compares_numbers_as_text_can_be_told_nothing() {
    let as_text = |asked: &Asked| {
        let bound = asked.body["query"]["eo:cloud_cover"]["lt"].as_f64().map(|b| b.to_string());
        let text = |i: &Value| i["properties"]["eo:cloud_cover"].to_string();
        let kept = |i: &Value| bound.as_ref().is_none_or(|b| text(i).as_str() < b.as_str());
        json(&js!({"features": archive().into_iter().filter(kept).collect::<Vec<_>>()}))
    };
    let (server, catalog) = stac(as_text).await;
    assert!(!ids(&catalog, &query()).await.contains(&"nine".to_owned()), "the server has lost it");
    assert!(catalog.counters().tally().filter_ignored > 0, "100 is less than 20, as text");
    let catalog = catalog_with(&server, |s| s.cloud_on_server = false);
    assert_eq!(ids(&catalog, &query()).await, BEST_FIRST);
    let cloudier = SceneQuery { max_cloud: None, ..query() };
    assert_eq!(ids(&catalog, &cloudier).await.len(), BEST_FIRST.len() + 3);
    assert_eq!(catalog.counters().tally().searches, 1, "and every bound is served by one search");
}

#[tokio::test]
async fn broken_items_cost_only_themselves() {
    let mut items = archive();
    let mut lacks_red = item("lacks-red", "2023-10-20", js!(0.1));
    lacks_red["assets"].as_object_mut().unwrap().remove("red");
    let mut s3 = item("s3", "2023-10-20", js!(0.1));
    s3["assets"]["red"]["href"] = js!("s3://bucket/B04.jp2");
    let mut no_crs = item("no-crs", "2023-10-20", js!(0.1));
    no_crs["properties"].as_object_mut().unwrap().remove("proj:epsg");
    let bad_date = item("bad-date", "2023-99-99", js!(0.1));
    items.splice(0..0, [js!(null), js!({"type": "Feature"}), js!([1]), lacks_red, s3, no_crs, bad_date]);
    let (_server, catalog) = stac(earth_search(items, 100)).await;
    assert_eq!(ids(&catalog, &query()).await, BEST_FIRST);
    let unusable = catalog.counters().tally().unusable;
    let count = |kind| unusable.get(kind).copied().unwrap_or(0);
    assert_eq!((count("no_asset"), count("href"), count("no_crs")), (1, 1, 1), "{unusable:?}");
    assert_eq!(unusable.values().sum::<u64>(), 7, "{unusable:?}");
}

#[tokio::test]
async fn dialects_of_the_crs_and_of_relative_hrefs() {
    let mut code = item("code", "2023-10-20", js!(1.0));
    code["stac_version"] = js!("1.1.0");
    code["properties"].as_object_mut().unwrap().remove("proj:epsg");
    code["properties"]["proj:code"] = js!("EPSG:32613");
    let mut relative = item("relative", "2023-10-21", js!(2.0));
    for asset in relative["assets"].as_object_mut().unwrap().values_mut() {
        let name = asset["href"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        asset["href"] = js!(format!("./{name}"));
    }
    relative["links"] = js!([{"rel": "self", "href": "/v1/items/relative"}]);
    let (server, catalog) = stac(earth_search(vec![code.clone(), relative.clone()], 100)).await;
    let scenes = catalog.find(&query()).await.unwrap();
    assert_eq!(scenes.iter().map(|s| s.epsg).collect::<Vec<_>>(), [32613, 32613]);
    assert_eq!(scenes[1].asset(Band::B02).unwrap().href, server.at("v1/items/B02.tif"));

    let server = FaultServer::start(earth_search(vec![relative], 100)).await;
    let base = Some("http://files.example/s2/{id}".into());
    let catalog = catalog_with(&server, |s| s.relative_href_base = base);
    let scene = &catalog.find(&query()).await.unwrap()[0];
    assert_eq!(scene.asset(Band::B02).unwrap().href, "http://files.example/s2/relative/B02.tif");
}

#[tokio::test]
async fn merged_bodies_and_get_links() {
    for merge in [true, false] {
        let (server, catalog) = stac(move |asked| {
            let second = asked.body["token"] == js!("t") || asked.path.contains("token=t");
            let link = match merge {
                true => {
                    js!({"rel": "next", "href": "/v1/search", "method": "POST", "merge": true, "body": {"token": "t"}})
                }
                false => js!({"rel": "next", "href": "/v1/search?token=t"}),
            };
            let (id, links) = if second { ("second", js!([])) } else { ("first", js!([link])) };
            json(&js!({"type": "FeatureCollection", "features": [item(id, "2023-10-20", js!(1.0))], "links": links}))
        })
        .await;
        assert_eq!(ids(&catalog, &query()).await, ["first", "second"]);
        let second = server.asked().remove(1);
        assert_eq!(second.method, if merge { "POST" } else { "GET" });
        assert_eq!(second.body["limit"], if merge { js!(100) } else { js!(null) });
    }
}

/// A search may end before a page that would be empty, and only there.
#[tokio::test]
async fn the_number_of_matches_is_believed_with_a_short_page_alone() {
    // Pages the server has, items it says there are, most items a page may have; pages that have to be asked for.
    for (sizes, matched, limit, asked) in [
        (vec![3], js!({"numberMatched": 3}), 100, 1),
        (vec![3], js!({"context": {"matched": 3}}), 100, 1),
        (vec![0], js!({"numberMatched": 0}), 100, 1),
        (vec![3], js!({}), 100, 2),
        (vec![3], js!({"numberMatched": null}), 100, 2),
        (vec![3, 2], js!({"numberMatched": 5}), 100, 2),
        (vec![3, 2], js!({"numberMatched": 4}), 100, 3),
        (vec![3, 2], js!({"numberMatched": 0}), 100, 3),
        (vec![3, 2], js!({"numberMatched": 3}), 3, 3),
        (vec![3, 3], js!({"numberMatched": 6}), 3, 3),
    ] {
        let all: usize = sizes.iter().sum();
        let (pages, said) = (sizes.clone(), matched.clone());
        let server = FaultServer::start(move |asked| {
            let page = asked.body["page"].as_u64().unwrap_or(0) as usize;
            let items: Vec<Value> = (0..pages.get(page).copied().unwrap_or(0))
                .map(|i| item(&format!("{page}_{i}"), "2023-10-20", js!(1.0)))
                .collect();
            let body = js!({"page": page + 1});
            let next = js!([{"rel": "next", "href": asked.path, "method": "POST", "merge": true, "body": body}]);
            let mut answer = js!({"features": items, "links": if page < pages.len() { next } else { js!([]) }});
            answer.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
            json(&answer)
        })
        .await;
        let catalog = catalog_with(&server, |s| s.page_items = limit);
        catalog.find(&query()).await.unwrap();
        assert_eq!(catalog.counters().tally().items, all as u64, "{sizes:?} {matched}");
        assert_eq!(server.asked().len(), asked, "{sizes:?} {matched}");
    }
}

#[tokio::test]
async fn paging_without_end_ends() {
    let link = |asked: &Asked| js!([{"rel": "next", "href": asked.path, "method": "POST", "body": asked.body}]);
    let one = || vec![item("one", "2023-10-20", js!(1.0))];
    let (server, catalog) = stac(move |a| json(&js!({"features": one(), "links": link(a)}))).await;
    assert_eq!(ids(&catalog, &query()).await, ["one"], "the same page again");
    assert_eq!(server.asked().len(), 1);

    let onward = |asked: &Asked| {
        let n = asked.body["n"].as_u64().unwrap_or(0) + 1;
        js!([{"rel": "next", "href": asked.path, "method": "POST", "merge": true, "body": {"n": n}}])
    };
    let (server, catalog) = stac(move |a| json(&js!({"features": [], "links": onward(a)}))).await;
    assert!(ids(&catalog, &query()).await.is_empty(), "empty pages that promise more");
    assert_eq!(server.asked().len(), 3);

    let server = FaultServer::start(move |a| json(&js!({"features": one(), "links": onward(a)}))).await;
    let pages = catalog_with(&server, |s| s.max_pages = 7).find(&query()).await.unwrap_err();
    assert!(pages.to_string().contains("more than 7 pages"), "{pages}");
    let items = catalog_with(&server, |s| s.max_items = 5).find(&query()).await.unwrap_err();
    assert!(items.to_string().contains("more than 5 items"), "{items}");
    assert_eq!((pages.severity(), items.severity()), (Severity::Permanent, Severity::Permanent));
}

#[tokio::test]
async fn a_next_page_elsewhere_is_refused() {
    let link = js!([{"rel": "next", "href": "http://127.0.0.1:1/steal", "method": "POST"}]);
    let (_server, catalog) = stac(move |_| json(&js!({"features": [], "links": link}))).await;
    let error = catalog.find(&query()).await.unwrap_err();
    assert!(matches!(error, CatalogError::ForeignNext { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_stac_api_is_the_nodes_failure_with_the_remedy() {
    let html = || answer(200, &[("content-type", "text/html")], "<html><title>Welcome</title>");
    type Wrong = fn() -> Response<Body>;
    let answers: [(Wrong, &str); 6] = [
        (|| answer(404, &[], "no such page"), "status 404: no such page"),
        (html, "a page of HTML"),
        (|| json(&js!({"type": "Catalog", "links": []})), "JSON without `features`"),
        (|| json(&js!([1, 2])), "JSON without `features`"),
        (|| answer(401, &[], "who are you"), "status 401"),
        (|| answer(301, &[("location", "/stac/search")], ""), "configure that URL"),
    ];
    for (wrong, words) in answers {
        let (server, catalog) = stac(move |_| wrong()).await;
        let error = catalog.find(&query()).await.unwrap_err();
        assert_eq!(error.severity(), Severity::Fatal, "{error}");
        for part in [words, &server.at("v1"), "a STAC API root?", "stac.url"] {
            assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
        }
    }
}

#[tokio::test]
async fn a_maintenance_page_after_a_good_answer_is_waited_out() {
    let honest = earth_search(archive(), 100);
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let (_server, catalog) = stac(move |asked| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        1 => answer(200, &[("content-type", "text/html")], "<h1>Back soon</h1>"),
        _ => honest(asked),
    })
    .await;
    assert_eq!(ids(&catalog, &query()).await, BEST_FIRST);
    let other = SceneQuery { max_cloud: Some(30.0), ..query() };
    assert_eq!(catalog.find(&other).await.unwrap_err().severity(), Severity::Transient);
    assert_eq!(ids(&catalog, &other).await.len(), BEST_FIRST.len() + 1);
}

#[tokio::test]
async fn throttling_and_troubles_are_transient() {
    for (status, body) in [(429, ""), (403, r#"{"message":"Forbidden"}"#), (500, ""), (502, ""), (503, ""), (504, "")] {
        let (server, catalog) = stac(move |_| answer(status, &[("retry-after", "9")], body)).await;
        let error = catalog.find(&query()).await.unwrap_err();
        assert_eq!((error.severity(), error.retry_after_s()), (Severity::Transient, Some(9)), "{error}");
        assert!(error.to_string().contains(&server.at("v1/search")));
        assert_eq!(server.asked().len(), 1, "no retries in this layer");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let with = |change: fn(&mut CatalogSettings)| {
        let http = Arc::new(Http::new(HttpSettings::default()).unwrap());
        let mut settings = CatalogSettings::new("https://stac.example/v1".parse().unwrap());
        change(&mut settings);
        StacCatalog::new(http, settings).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert!(with(|s| s.url = "data:text".parse().unwrap()).unwrap_err().contains("http or https"));
    assert!(with(|s| s.neighbourhood_deg = 0.0).unwrap_err().contains("at least 0.01"));
    assert!(with(|s| s.relative_href_base = Some("scenes".into())).unwrap_err().contains("stac.relative_href_base"));
}
