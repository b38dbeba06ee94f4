//! The demo server as a client sees it: paging, ranges, traversal attempts, faults, counters.
//!
//! Contract: everything runs on loopback against files made here. Units: bytes, milliseconds.
//! Trap: reqwest tidies `..` out of URLs, so traversal is tried over a raw socket.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use reqwest::{Client, StatusCode};
use satellite_pipeline::demo::server::{DemoServer, Fault, FaultKind, Knobs};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TIF_BYTES: usize = 700_001;

fn tif_byte(i: usize) -> u8 {
    (i * 31 + i / 256) as u8
}

fn item(n: u32, cloud: f64) -> Value {
    let w = f64::from(n) * 0.1;
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": format!("S2A_30TYM_202305{n:02}_0_L2A"),
        "collection": "sentinel-2-l2a", "bbox": [w, 41.0, w + 0.1, 41.1],
        "geometry": {"type": "Polygon", "coordinates": [[[w, 41.0], [w + 0.1, 41.0], [w + 0.1, 41.1], [w, 41.0]]]},
        "properties": {"datetime": format!("2023-05-{n:02}T10:56:29.000000Z"), "eo:cloud_cover": cloud},
        "links": [{"rel": "self", "href": "https://elsewhere.example/item"}],
        "assets": {"blue": {"href": "./B02.tif"}},
    })
}

async fn serve() -> (TempDir, DemoServer) {
    let root = tempfile::tempdir().unwrap();
    for n in 1..=25 {
        let dir = root.path().join(format!("scenes/30TYM/{n:02} a"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("item.json"), item(n, f64::from(n) * 4.0).to_string()).unwrap();
    }
    let tif: Vec<u8> = (0..TIF_BYTES).map(tif_byte).collect();
    std::fs::write(root.path().join("B02.tif"), tif).unwrap();
    std::fs::write(root.path().join("empty.tif"), "").unwrap();
    std::fs::write(root.path().join("notes.json"), r#"{"type": "FeatureCollection"}"#).unwrap();
    let server = DemoServer::start(root.path(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    (root, server)
}

async fn search(server: &DemoServer, body: Value) -> Value {
    let answer = Client::new().post(format!("{}/search", server.url())).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/geo+json");
    answer.json().await.unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    page["features"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_owned()).collect()
}

fn next(page: &Value) -> Option<&Value> {
    page["links"].as_array().unwrap().iter().find(|l| l["rel"] == "next")
}

#[tokio::test]
async fn post_paging_ends_with_an_empty_page_without_next() {
    let (_root, server) = serve().await;
    let mut body = json!({"collections": ["sentinel-2-l2a"], "limit": 10});
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = search(&server, body).await;
        pages += 1;
        seen.extend(ids(&page));
        assert_eq!(page["numberMatched"], 25);
        let Some(link) = next(&page) else {
            assert_eq!(page["numberReturned"], 0);
            break;
        };
        assert_eq!((&link["method"], &link["merge"]), (&json!("POST"), &json!(false)));
        assert_eq!(link["body"]["collections"], json!(["sentinel-2-l2a"]));
        assert_eq!(link["href"], format!("{}/search", server.url()));
        body = link["body"].clone();
    }
    assert_eq!(pages, 4);
    let mut newest_first = seen.clone();
    newest_first.sort_by(|a, b| b.cmp(a));
    assert_eq!(seen, newest_first);
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn get_paging_follows_links_alone() {
    let (_root, server) = serve().await;
    let mut url = format!("{}/search?collections=sentinel-2-l2a&limit=20&bbox=-1,40,9,42", server.url());
    let mut sizes = Vec::new();
    loop {
        let page: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        sizes.push(ids(&page).len());
        let Some(link) = next(&page) else { break };
        url = link["href"].as_str().unwrap().to_owned();
    }
    assert_eq!(sizes, [20, 5, 0]);
}

#[tokio::test]
async fn filters_narrow_and_cql_is_ignored() {
    let (_root, server) = serve().await;
    let count = async |body: Value| search(&server, body).await["numberMatched"].as_u64().unwrap();
    assert_eq!(count(json!({"query": {"eo:cloud_cover": {"lt": 20}}})).await, 4);
    assert_eq!(count(json!({"query": {"eo:cloud_cover": {"lte": 20, "gt": 4}}})).await, 4);
    assert_eq!(count(json!({"query": {"eo:cloud_cover": {"gte": 96}}})).await, 2);
    assert_eq!(count(json!({"query": {"eo:cloud_cover": {"eq": 8}}})).await, 1);
    assert_eq!(count(json!({"query": {"no:such": {"lt": 8}}})).await, 0);
    assert_eq!(count(json!({"filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 20]}})).await, 25);
    assert_eq!(count(json!({"datetime": "2023-05-03T00:00:00Z/2023-05-05T23:59:59Z"})).await, 3);
    assert_eq!(count(json!({"datetime": "../2023-05-02T23:59:59Z"})).await, 2);
    assert_eq!(count(json!({"datetime": "2023-05-24T00:00:00+00:00/.."})).await, 2);
    assert_eq!(count(json!({"datetime": "2023-05-24T10:56:29Z"})).await, 1);
    assert_eq!(count(json!({"bbox": [0.35, 40.0, 0.45, 42.0]})).await, 2);
    assert_eq!(count(json!({"bbox": [0.35, 40.0, -9.0, 0.45, 42.0, 9.0]})).await, 2);
    let square = json!([[[0.35, 40.0], [0.45, 40.0], [0.45, 42.0], [0.35, 40.0]]]);
    assert_eq!(count(json!({"intersects": {"type": "Polygon", "coordinates": square}})).await, 2);
    assert_eq!(count(json!({"ids": ["S2A_30TYM_20230507_0_L2A", "none"]})).await, 1);
    assert_eq!(count(json!({"collections": ["landsat-c2-l2"]})).await, 0);
    let sorted = json!({"sortby": [{"field": "properties.eo:cloud_cover", "direction": "asc"}], "limit": 1});
    assert_eq!(ids(&search(&server, sorted).await), ["S2A_30TYM_20230501_0_L2A"]);
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let (_root, server) = serve().await;
    for body in [
        json!({"limit": 0}),
        json!({"limit": "many"}),
        json!({"datetime": "yesterday"}),
        json!({"bbox": [1, 2, 3]}),
        json!({"bbox": [1, 2, 0, 3]}),
        json!({"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}}),
        json!({"query": {"eo:cloud_cover": {"near": 3}}}),
        json!({"next": "nowhere"}),
        json!([]),
    ] {
        let answer = Client::new().post(format!("{}/search", server.url())).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        let reason: Value = answer.json().await.unwrap();
        assert!(!reason["description"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn pages_of_the_api_lead_to_the_items_and_their_files() {
    let (_root, server) = serve().await;
    let get = async |path: &str| -> Value {
        reqwest::get(format!("{}{path}", server.url())).await.unwrap().json().await.unwrap()
    };
    assert_eq!(get("/").await["type"], "Catalog");
    assert!(get("/conformance").await["conformsTo"].as_array().unwrap().len() > 3);
    assert_eq!(get("/collections").await["collections"][0]["id"], "sentinel-2-l2a");
    assert_eq!(get("/collections/sentinel-2-l2a").await["extent"]["spatial"]["bbox"][0][1], 41.0);
    assert_eq!(get("/collections/none").await["code"], "NotFound");
    let item = get("/collections/sentinel-2-l2a/items/S2A_30TYM_20230507_0_L2A").await;
    let links: Vec<_> = item["links"].as_array().unwrap().iter().filter(|l| l["rel"] == "self").collect();
    assert_eq!(links.len(), 1);
    assert_eq!(item["assets"]["blue"]["href"], "./B02.tif");
    let own: Value = reqwest::get(links[0]["href"].as_str().unwrap()).await.unwrap().json().await.unwrap();
    assert_eq!(own["id"], item["id"]);
}

#[tokio::test]
async fn ranges_hold_exactly_the_bytes_asked_for() {
    let (_root, server) = serve().await;
    let url = format!("{}/B02.tif", server.url());
    let client = Client::new();
    let last = TIF_BYTES - 1;
    for (asked, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=100-262300".to_owned(), 100, 262_301),
        ("bytes=5-".to_owned(), 5, TIF_BYTES),
        ("bytes=-17".to_owned(), TIF_BYTES - 17, TIF_BYTES),
        (format!("bytes={last}-{last}"), last, TIF_BYTES),
        ("bytes=699990-9999999".to_owned(), 699_990, TIF_BYTES),
    ] {
        let answer = client.get(&url).header("range", &asked).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT, "{asked}");
        let said = format!("bytes {from}-{}/{TIF_BYTES}", to - 1);
        assert_eq!(answer.headers()["content-range"], said.as_str());
        assert_eq!(answer.content_length(), Some((to - from) as u64));
        let body = answer.bytes().await.unwrap();
        assert!(body.iter().copied().eq((from..to).map(tif_byte)), "{asked}");
    }
    let answer = client.get(&url).header("range", "bytes=700001-").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.headers()["content-range"], "bytes */700001");
    for ignored in ["bytes=0-1,5-6", "rows=0-1", "bytes=9-3"] {
        let answer = client.get(&url).header("range", ignored).send().await.unwrap();
        assert_eq!((answer.status(), answer.content_length()), (StatusCode::OK, Some(TIF_BYTES as u64)), "{ignored}");
    }
    let empty = client.get(format!("{}/empty.tif", server.url())).send().await.unwrap();
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn head_tells_size_and_etag_without_a_body() {
    let (_root, server) = serve().await;
    let url = format!("{}/B02.tif", server.url());
    let client = Client::new();
    let head = client.head(&url).send().await.unwrap();
    let get = client.get(&url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "700001");
    assert_eq!(head.headers()["accept-ranges"], "bytes");
    assert_eq!(head.headers()["etag"], get.headers()["etag"]);
    assert_eq!(get.bytes().await.unwrap().len(), TIF_BYTES);
    assert_eq!(client.put(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.get(format!("{url}x")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// Sends a request line as it stands and returns the whole answer.
fn raw(server: &DemoServer, target: &str) -> String {
    let mut socket = std::net::TcpStream::connect(server.addr()).unwrap();
    write!(socket, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leaves_the_root() {
    let (root, server) = serve().await;
    let outside = root.path().parent().unwrap().join(format!("secret-{}", std::process::id()));
    std::fs::write(&outside, "secret").unwrap();
    std::os::unix::fs::symlink(&outside, root.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/", root.path().join("all")).unwrap();
    std::os::unix::fs::symlink("B02.tif", root.path().join("inside.tif")).unwrap();
    let name = outside.file_name().unwrap().to_str().unwrap();
    let whole = outside.to_str().unwrap();
    for target in [
        format!("/../{name}"),
        format!("/scenes/../../{name}"),
        format!("/%2e%2e/{name}"),
        format!("/%2e%2e%2f{name}"),
        format!("/..%5c{name}"),
        format!("/{whole}"),
        format!("/%2f{}", &whole[1..]),
        format!("//{}", &whole[1..]),
        "/link".to_owned(),
        format!("/all{whole}"),
        "/B02.tif%00".to_owned(),
        "/scenes".to_owned(),
        "/./B02.tif/..".to_owned(),
    ] {
        let answer = raw(&server, &target);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status == "404" || status == "400", "{target}: {answer}");
        assert!(!answer.contains("secret"), "{target}");
    }
    std::fs::remove_file(outside).unwrap();
    let linked = reqwest::get(format!("{}/inside.tif", server.url())).await.unwrap();
    assert_eq!(linked.status(), StatusCode::OK);
}

#[tokio::test]
async fn each_fault_spoils_its_answers_and_then_ends() {
    let (_root, server) = serve().await;
    let url = format!("{}/B02.tif", server.url());
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let add = |kind, times| server.fault(Fault { path: "*.tif".into(), kind, times });
    let get = || client.get(&url).header("range", "bytes=1000-2999").send();

    add(FaultKind::Status(503, Some(2)), 2);
    for _ in 0..2 {
        let answer = get().await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap())
        );
    }
    add(FaultKind::Reset, 1);
    let mut cause: &dyn std::error::Error = &get().await.unwrap_err();
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    assert!(cause.to_string().contains("reset"), "{cause}");

    add(FaultKind::Truncate, 1);
    let answer = get().await.unwrap();
    assert_eq!(answer.content_length(), Some(2000));
    assert!(answer.bytes().await.is_err());

    add(FaultKind::WrongRange, 1);
    let answer = get().await.unwrap();
    assert_eq!(answer.headers()["content-range"], "bytes 999-2998/700001");
    assert_eq!(answer.bytes().await.unwrap()[0], tif_byte(999));

    add(FaultKind::Html, 1);
    assert_eq!(get().await.unwrap().headers()["content-type"], "text/html; charset=utf-8");

    add(FaultKind::Slow(80), 1);
    let since = Instant::now();
    assert_eq!(get().await.unwrap().status(), StatusCode::PARTIAL_CONTENT);
    assert!(since.elapsed() >= Duration::from_millis(80));

    add(FaultKind::Drip(5), 1);
    let since = Instant::now();
    let answer = client.get(&url).header("range", "bytes=0-19").send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 20);
    assert!(since.elapsed() >= Duration::from_millis(100));

    let body = get().await.unwrap().bytes().await.unwrap();
    assert!(body.iter().copied().eq((1000..3000).map(tif_byte)));
}

#[tokio::test]
async fn the_control_pages_work_over_http() {
    let (_root, server) = serve().await;
    let get = async |path: &str| reqwest::get(format!("{}{path}", server.url())).await.unwrap();
    let script = "/__fault?path=/search&kind=status:502&times=1";
    assert_eq!(get(script).await.status(), StatusCode::OK);
    assert_eq!(get("/__fault?path=*&kind=nonsense").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(get("/search").await.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(get("/search").await.status(), StatusCode::OK);
    let knobs: Knobs = get("/__config?latency_ms=30").await.json().await.unwrap();
    assert_eq!(knobs, Knobs { latency_ms: 30, mbit: 0 });
    let since = Instant::now();
    get("/empty.tif").await;
    assert!(since.elapsed() >= Duration::from_millis(30));
    assert_eq!(get("/__stats").await.json::<Value>().await.unwrap()["stac"]["requests"], 2);
    get("/__reset").await;
    assert_eq!(server.stats().total().requests, 0);
}

#[tokio::test]
async fn counters_tell_classes_heads_ranges_and_bytes() {
    let (_root, server) = serve().await;
    let url = format!("{}/B02.tif", server.url());
    let client = Client::new();
    client.head(&url).send().await.unwrap();
    client.get(&url).header("range", "bytes=0-999").send().await.unwrap().bytes().await.unwrap();
    client.get(&url).send().await.unwrap().bytes().await.unwrap();
    client.get(format!("{}/none.json", server.url())).send().await.unwrap().bytes().await.unwrap();
    search(&server, json!({})).await;
    let mut stats = server.stats();
    // The last answer is counted out just after its bytes have arrived.
    for _ in 0..100 {
        if stats.in_flight == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        stats = server.stats();
    }
    assert_eq!((stats.tif.requests, stats.tif.heads, stats.tif.ranges), (3, 1, 1));
    assert_eq!(stats.tif.bytes, 1000 + TIF_BYTES as u64);
    assert_eq!((stats.json.requests, stats.json.errors, stats.stac.requests), (1, 1, 1));
    assert_eq!((stats.in_flight, stats.max_in_flight), (0, 1));
}

#[tokio::test]
async fn bandwidth_is_limited_per_connection() {
    let (_root, server) = serve().await;
    server.configure(Knobs { latency_ms: 0, mbit: 40 });
    let since = Instant::now();
    reqwest::get(format!("{}/B02.tif", server.url())).await.unwrap().bytes().await.unwrap();
    // 700 KB at 5 MB/s
    assert!(since.elapsed() >= Duration::from_millis(135), "{:?}", since.elapsed());
}

#[tokio::test]
async fn stop_ends_even_a_dripping_answer_and_frees_the_port() {
    let (root, server) = serve().await;
    server.fault(Fault { path: "*".into(), kind: FaultKind::Drip(1000), times: 0 });
    let answer = reqwest::get(format!("{}/B02.tif", server.url())).await.unwrap();
    let addr = server.addr();
    let since = Instant::now();
    server.stop().await;
    assert!(since.elapsed() < Duration::from_secs(3));
    assert!(answer.bytes().await.is_err());
    let again = DemoServer::start(root.path(), addr).await.unwrap();
    assert_eq!(again.items(), 25);
}

#[tokio::test]
async fn a_missing_root_and_a_taken_port_say_so() {
    let (root, server) = serve().await;
    let missing = DemoServer::start(root.path().join("none"), ([127, 0, 0, 1], 0).into()).await.err().unwrap();
    assert!(missing.to_string().contains("none"), "{missing}");
    let taken = DemoServer::start(root.path(), server.addr()).await.err().unwrap();
    assert!(taken.to_string().contains(&server.addr().to_string()), "{taken}");
}
