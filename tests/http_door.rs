//! The HTTP door against a server that misbehaves in every way met so far, over real connections on the loopback.
//!
//! Contract proved: an answer is exactly what was asked for or a typed error of the right severity; nothing is read
//! without end; nothing goes where it must not. Trap: times here are short, so a loaded machine must only make them
//! longer, never turn an outcome round.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/fault_server.rs"]
mod fault_server;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use fault_server::{Asked, FaultServer, answer, broken, drip, file};
use satellite_pipeline::adapters::http::{Fault, Http, HttpError, HttpSettings, Trust};
use satellite_pipeline::domain::failure::Severity::{self, Permanent, Transient};
use serde_json::json;

const MB: usize = 1 << 20;

fn bytes() -> Vec<u8> {
    (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn settings(server: &FaultServer) -> HttpSettings {
    HttpSettings { trust: Trust::new([server.url.clone()]), ..HttpSettings::default() }
}

async fn door(answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> (FaultServer, Http) {
    let server = FaultServer::start(answer).await;
    let http = Http::new(settings(&server)).unwrap();
    (server, http)
}

/// The fault of a range of 100 bytes that a server answers like this.
async fn fault_of(answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> HttpError {
    let (server, http) = door(answer).await;
    http.get_range(&server.at("x.tif"), 100..200).await.unwrap_err()
}

fn is(error: &HttpError, severity: Severity, words: &str) {
    assert_eq!(error.severity(), severity, "{error}");
    assert!(error.to_string().contains(words), "`{error}` does not say `{words}`");
}

#[tokio::test]
async fn ranges_come_as_asked() {
    let (server, http) = door(|asked| file(asked, &bytes())).await;
    let href = server.at("x.tif");
    assert_eq!(http.get_range(&href, 100..200).await.unwrap(), bytes()[100..200]);
    assert_eq!(http.get_range(&href, 9_999..10_000).await.unwrap(), bytes()[9_999..]);
    assert_eq!(http.get_range_upto(&href, 0..8192).await.unwrap(), bytes()[..8192]);
    assert_eq!(http.get_range_upto(&href, 0..65536).await.unwrap(), bytes(), "the file is shorter");
    let asked = &server.asked()[0];
    assert_eq!(asked.headers["range"], "bytes=100-199");
    assert_eq!(asked.headers["accept-encoding"], "identity");
    assert_eq!(asked.headers["user-agent"], concat!("satellite-pipeline/", env!("CARGO_PKG_VERSION")));
    let tally = http.counters().tally();
    assert_eq!((tally.requests, tally.bytes, tally.in_flight, tally.by_class[1]), (4, 101 + 8192 + 10_000, 0, 4));
    assert_eq!(http.by_host()[0], ("127.0.0.1".into(), tally));
}

#[tokio::test]
async fn a_file_that_ends_too_early_is_a_permanent_fault() {
    let (server, http) = door(|asked| file(asked, &bytes())).await;
    let href = server.at("x.tif");
    is(
        &http.get_range(&href, 9_900..10_100).await.unwrap_err(),
        Permanent,
        "the file has 10000 bytes: it is truncated",
    );
    is(&http.get_range(&href, 20_000..20_100).await.unwrap_err(), Permanent, "ends before byte 20000");
    is(&http.get_range_upto(&href, 20_000..20_100).await.unwrap_err(), Permanent, "ends before byte 20000");
    let (server, http) = door(|_| answer(200, &[], "")).await;
    is(&http.get_range_upto(&server.at("empty.tif"), 0..100).await.unwrap_err(), Permanent, "empty");
}

#[tokio::test]
async fn absurd_ranges_are_not_even_asked_for() {
    let (server, http) = door(|asked| file(asked, &bytes())).await;
    let href = server.at("x.tif");
    for absurd in [5..5, 0..u64::MAX, std::ops::Range { start: 100, end: 50 }] {
        is(&http.get_range(&href, absurd).await.unwrap_err(), Permanent, "cannot be asked for");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_server_without_ranges_is_only_good_for_whole_files() {
    let (server, http) = door(|_| answer(200, &[], bytes())).await;
    let href = server.at("x.tif");
    is(&http.get_range(&href, 0..100).await.unwrap_err(), Permanent, "ignores Range");
    is(&http.get_range(&href, 100..200).await.unwrap_err(), Permanent, "ignores Range");
    is(&http.get_range_upto(&href, 0..8192).await.unwrap_err(), Permanent, "ignores Range");
    assert_eq!(http.get_range(&href, 0..10_000).await.unwrap(), bytes());
    assert_eq!(http.get_range_upto(&href, 0..20_000).await.unwrap(), bytes());
    let (server, http) = door(|_| answer(200, &[], drip(64, &[7; 1024], Duration::ZERO))).await;
    let endless = http.get_range_upto(&server.at("no-length.tif"), 0..8192).await.unwrap_err();
    is(&endless, Permanent, "ignores Range");
    assert!(http.counters().tally().bytes < 64 * 1024, "the rest is not read");
}

#[tokio::test]
async fn another_range_than_asked_is_refused() {
    for stated in ["bytes 0-99/10000", "bytes 100-198/10000", "bytes 100-300/10000", "pages 100-199/10000", "rubbish"] {
        is(&fault_of(move |_| answer(206, &[("content-range", stated)], vec![1; 100])).await, Transient, stated);
    }
    is(&fault_of(|_| answer(206, &[], vec![1; 100])).await, Transient, "no Content-Range");
    let more = fault_of(|_| answer(206, &[("content-range", "bytes 100-199/10000")], vec![1; 101])).await;
    is(&more, Transient, "more bytes");
    let packed = |_: &Asked| answer(206, &[("content-range", "bytes 100-199/9"), ("content-encoding", "gzip")], "x");
    is(&fault_of(packed).await, Permanent, "encoding `gzip`");
}

#[tokio::test]
async fn what_breaks_off_may_come_whole_next_time() {
    let stated = ("content-range", "bytes 100-199/10000");
    let short = fault_of(move |_| answer(206, &[stated], vec![1; 60])).await;
    assert!(matches!(short.fault, Fault::Truncated { got: 60, wanted: Some(100), .. }), "{short}");
    is(&short, Transient, "ended after 60 bytes of 100");
    let lost = fault_of(move |_| answer(206, &[stated, ("content-length", "100")], broken(&[1; 10]))).await;
    is(&lost, Transient, "of 100");
    let chunked = fault_of(move |_| answer(206, &[stated], broken(&[1; 10]))).await;
    is(&chunked, Transient, "of 100");
}

#[tokio::test]
async fn silence_and_drips_end() {
    let server = FaultServer::start(|asked| match asked.path.as_str() {
        "/silent" => answer(206, &[("content-range", "bytes 0-999/1000")], drip(1, b"x", Duration::from_secs(60))),
        _ => answer(206, &[("content-range", "bytes 0-999/1000")], drip(1000, b"x", Duration::from_millis(40))),
    })
    .await;
    let http = Http::new(HttpSettings {
        read_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(900),
        ..settings(&server)
    })
    .unwrap();
    let began = Instant::now();
    is(&http.get_range(&server.at("silent"), 0..1000).await.unwrap_err(), Transient, "no byte for 0.4 s");
    is(&http.get_range(&server.at("drip"), 0..1000).await.unwrap_err(), Transient, "too slowly");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(http.counters().tally().in_flight, 0);
}

#[tokio::test]
async fn statuses_carry_their_severity_and_the_servers_wish() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let error = fault_of(move |_| answer(status, &[("retry-after", "7")], "busy")).await;
        is(&error, Transient, "busy");
        assert_eq!((error.status(), error.retry_after_s()), (Some(status), Some(7)));
    }
    for status in [400, 401, 403, 404, 410, 501] {
        is(&fault_of(move |_| answer(status, &[], "no such thing")).await, Permanent, "no such thing");
    }
    let throttle = fault_of(|_| answer(403, &[], r#"{"message":"Forbidden"}"#)).await;
    is(&throttle, Transient, "status 403");
    let dates = [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:11 GMT")];
    assert_eq!(fault_of(move |_| answer(429, &dates, "")).await.retry_after_s(), Some(11));
    let long = fault_of(|_| answer(404, &[], vec![b'x'; 5 * MB])).await;
    assert!(long.to_string().len() < 300, "{long}");
}

#[tokio::test]
async fn no_connection_is_a_passing_fault() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let http =
        Http::new(HttpSettings { trust: Trust::default().private_hosts(true), ..HttpSettings::default() }).unwrap();
    let refused = http.get_range(&format!("http://{address}/x.tif"), 0..10).await.unwrap_err();
    is(&refused, Transient, "no connection");
    assert_eq!(http.counters().tally().unanswered, 1);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hang_up = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let lost = http.get_range(&format!("http://{address}/x.tif"), 0..10).await.unwrap_err();
    is(&lost, Transient, "connection lost");
    hang_up.abort();
}

#[tokio::test]
async fn https_where_none_is_spoken_is_permanent() {
    let (server, http) = door(|asked| file(asked, &bytes())).await;
    let href = server.at("x.tif").replace("http://", "https://");
    is(&http.get_range(&href, 0..10).await.unwrap_err(), Permanent, "TLS");
}

#[tokio::test]
async fn documents_are_json_or_say_what_they_are() {
    let (server, http) = door(|asked| match asked.path.as_str() {
        "/html" => answer(200, &[("content-type", "text/html")], "<!doctype html>\n<title>Sign in</title>"),
        "/disguised" => answer(200, &[("content-type", "application/json")], "\n <html><body>Down"),
        "/broken" => answer(200, &[], r#"{"features": [1, 2"#),
        "/echo" => fault_server::json(&asked.body),
        _ => fault_server::json(&json!({"got": asked.method})),
    })
    .await;
    let at = |path: &str| server.url.join(path).unwrap();
    is(&http.get_json(&at("html"), MB).await.unwrap_err(), Permanent, "<!doctype html> <title>Sign in</title>");
    is(&http.get_json(&at("disguised"), MB).await.unwrap_err(), Permanent, "HTML");
    is(&http.get_json(&at("broken"), MB).await.unwrap_err(), Permanent, "not JSON");
    assert_eq!(http.get_json(&at("ok"), MB).await.unwrap(), json!({"got": "GET"}));
    let body = json!({"bbox": [0.1, 0.2, 0.30000000000000004, 0.4]});
    assert_eq!(http.post_json(&at("echo"), &body, MB).await.unwrap(), body);
}

#[tokio::test]
async fn a_hundred_megabytes_of_json_are_not_read() {
    let (server, http) = door(|asked| match asked.path.as_str() {
        "/stated" => answer(200, &[("content-length", "104857600")], drip(100, &[b' '; MB], Duration::ZERO)),
        _ => answer(200, &[], drip(100, &[b' '; MB], Duration::ZERO)),
    })
    .await;
    let stated = http.get_json(&server.url.join("stated").unwrap(), MB).await.unwrap_err();
    is(&stated, Permanent, "larger than the 1048576 bytes");
    assert_eq!(http.counters().tally().bytes, 0);
    let streamed = http.get_json(&server.url.join("streamed").unwrap(), MB).await.unwrap_err();
    is(&streamed, Permanent, "larger than the 1048576 bytes");
    assert!(http.counters().tally().bytes < 3 * MB as u64);
}

#[tokio::test]
async fn redirects_are_followed_with_open_eyes() {
    let (server, http) = door(|asked| match asked.path.as_str() {
        "/old.tif" => answer(302, &[("location", "/new.tif")], ""),
        "/loop" => answer(302, &[("location", "/loop")], ""),
        "/metadata" => answer(302, &[("location", "http://169.254.169.254/latest/meta-data/")], ""),
        "/inside" => answer(307, &[("location", "http://127.0.0.2:1/x")], ""),
        "/passwd" => answer(301, &[("location", "file:///etc/passwd")], ""),
        "/nowhere" => answer(302, &[], ""),
        "/search" => answer(301, &[("location", "/v1/search")], ""),
        "/search307" => answer(307, &[("location", "/v1/search")], ""),
        "/v1/search" => fault_server::json(&json!([asked.method, asked.body])),
        _ => file(asked, &bytes()),
    })
    .await;
    let get = async |path: &str| http.get_range(&server.at(path), 0..100).await;
    assert_eq!(get("old.tif").await.unwrap(), bytes()[..100], "the range goes along");
    is(&get("loop").await.unwrap_err(), Permanent, "more than 5 redirects");
    is(&get("metadata").await.unwrap_err(), Permanent, "169.254.169.254, which is not a public address");
    is(&get("inside").await.unwrap_err(), Permanent, "imagery.allow_private_hosts");
    is(&get("passwd").await.unwrap_err(), Permanent, "imagery.allow_file_hrefs");
    is(&get("nowhere").await.unwrap_err(), Permanent, "without a Location");
    let post = async |path: &str| http.post_json(&server.url.join(path).unwrap(), &json!({"limit": 1}), MB).await;
    is(&post("search").await.unwrap_err(), Permanent, "/v1/search: configure that URL");
    assert_eq!(post("search307").await.unwrap(), json!(["POST", {"limit": 1}]));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
    let (server, http) = door(|asked| file(asked, &bytes())).await;
    let href = server.at("x.tif").replace("127.0.0.1", "localhost");
    is(&http.get_range(&href, 0..10).await.unwrap_err(), Permanent, "host `localhost` is at");
    assert!(server.asked().is_empty());
    let named = Trust::new([href.parse().unwrap()]);
    for trust in [named, Trust::default().private_hosts(true)] {
        let http = Http::new(HttpSettings { trust, ..HttpSettings::default() }).unwrap();
        assert_eq!(http.get_range(&href, 0..10).await.unwrap(), bytes()[..10]);
    }
}

#[tokio::test]
async fn behind_a_proxy_it_resolves_the_names_and_written_addresses_are_still_checked() {
    let proxy = FaultServer::start(|asked| file(asked, &bytes())).await;
    let settings = HttpSettings { proxy: Some(proxy.url.clone()), ..HttpSettings::default() };
    let http = Http::new(settings).unwrap();
    let read = http.get_range("http://cogs.invalid/x.tif", 5..15).await;
    assert_eq!(read.unwrap(), bytes()[5..15]);
    assert_eq!(proxy.asked()[0].headers["host"], "cogs.invalid");
    is(&http.get_range("http://10.0.0.1/x.tif", 5..15).await.unwrap_err(), Permanent, "not a public address");
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn secrets_of_a_signed_url_stay_out_of_the_message() {
    let (server, http) = door(|_| answer(404, &[], "")).await;
    let error = http.get_range(&server.at("x.tif?sig=SECRET"), 0..10).await.unwrap_err();
    assert!(error.to_string().contains("x.tif?…") && !error.to_string().contains("SECRET"), "{error}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}/x.tif?sig=SECRET", listener.local_addr().unwrap());
    drop(listener);
    let error = http.get_range(&dead, 0..10).await.unwrap_err();
    assert!(!error.to_string().contains("SECRET"), "{error}");
}

#[tokio::test]
async fn a_host_gets_no_more_requests_at_once_than_its_budget() {
    let server = FaultServer::start(|asked| file(asked, &bytes())).await;
    let http = std::sync::Arc::new(Http::new(HttpSettings { per_host: 3, ..settings(&server) }).unwrap());
    let reads: Vec<_> = (0..24u64)
        .map(|i| {
            let (http, href) = (http.clone(), server.at("x.tif"));
            tokio::spawn(async move { http.get_range(&href, i * 10..i * 10 + 10).await.map(|b| b.len()) })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), 10);
    }
    let tally = http.counters().tally();
    assert_eq!((server.peak(), tally.peak_in_flight, tally.in_flight, tally.waiting), (3, 3, 0, 0));
}

/// Bodies that nobody has used yet, of a megabyte, so that they come in several pieces.
#[tokio::test]
async fn bodies_that_are_not_used_keep_further_requests_from_beginning() {
    let large: Vec<u8> = (0..MB).map(|i| (i % 251) as u8).collect();
    let server = FaultServer::start(move |asked| file(asked, &large)).await;
    let http = std::sync::Arc::new(Http::new(HttpSettings { per_host: 3, bodies: 2, ..settings(&server) }).unwrap());
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (http, href) = (http.clone(), server.at("x.tif"));
        reads.spawn(async move { http.get_range(&href, 0..MB as u64).await.unwrap() });
    }
    let mut held = vec![reads.join_next().await.unwrap().unwrap(), reads.join_next().await.unwrap().unwrap()];
    for more in 1..=10 {
        let early = tokio::time::timeout(Duration::from_millis(20), reads.join_next()).await;
        assert!(early.is_err(), "a third body while two are held");
        assert!(server.asked().len() <= 2 + 3 + more, "{} requests", server.asked().len());
        // A slice of a body is the body.
        let slice = held.remove(0).slice(5..10);
        assert_eq!(*slice, [5, 6, 7, 8, 9]);
        drop(slice);
        held.push(reads.join_next().await.unwrap().unwrap());
    }
    assert_eq!((reads.len(), http.counters().tally().in_flight), (0, 0));
}

/// Two nodes with a budget of 16 each, and a server that bears 8 requests at once.
#[tokio::test]
async fn nodes_that_are_refused_ask_less_at_once_until_the_server_bears_them() {
    let server = FaultServer::start(|asked| match asked.open {
        0..=8 => file(asked, &bytes()),
        _ => answer(503, &[], "slow down"),
    })
    .await;
    let href = server.at("x.tif");
    let node = || async {
        let http = Http::new(settings(&server)).unwrap();
        let one = || async {
            for _ in 0..60 {
                let _ = http.get_range(&href, 0..100).await;
            }
        };
        futures_util::future::join_all((0..16).map(|_| one())).await;
        http.counters().tally()
    };
    let (one, two) = tokio::join!(node(), node());
    let asked = server.asked();
    assert_eq!(one.requests + two.requests, asked.len() as u64);
    let refused = |part: &[Asked]| part.iter().filter(|a| a.open > 8).count();
    let half = asked.len() / 2;
    assert!(refused(&asked[..32]) >= 16, "at first both take all of their budgets");
    let later = refused(&asked[half..]);
    assert!(later * 5 < half, "{later} of the last {half} refused");
    assert!(one.by_class[1] > 300 && two.by_class[1] > 300, "{one:?} {two:?}: neither is starved");
}

#[tokio::test]
async fn a_dropped_read_gives_its_place_back() {
    let server = FaultServer::start(|asked| match asked.path.as_str() {
        "/hangs" => answer(206, &[("content-range", "bytes 0-9/10")], drip(10, b"x", Duration::from_secs(60))),
        _ => file(asked, &bytes()),
    })
    .await;
    let http = Http::new(HttpSettings { per_host: 1, ..settings(&server) }).unwrap();
    let href = server.at("hangs");
    assert!(tokio::time::timeout(Duration::from_millis(300), http.get_range(&href, 0..10)).await.is_err());
    let href = server.at("x.tif");
    let next = tokio::time::timeout(Duration::from_secs(20), http.get_range(&href, 0..10));
    assert_eq!(next.await.unwrap().unwrap(), bytes()[..10]);
}

#[tokio::test]
async fn local_files_only_where_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    std::fs::write(&path, bytes()).unwrap();
    let href = url::Url::from_file_path(&path).unwrap().to_string();
    let with = |trust| Http::new(HttpSettings { trust, ..HttpSettings::default() }).unwrap();
    let refused = with(Trust::default().private_hosts(true)).get_range(&href, 0..10).await.unwrap_err();
    is(&refused, Permanent, "imagery.allow_file_hrefs");
    let base = url::Url::from_file_path(folder.path()).unwrap();
    for trust in [Trust::default().file_hrefs(true), Trust::new([base])] {
        let http = with(trust);
        assert_eq!(http.get_range(&href, 100..200).await.unwrap(), bytes()[100..200]);
        assert_eq!(http.get_range_upto(&href, 0..65536).await.unwrap(), bytes());
        is(&http.get_range(&href, 9_990..10_010).await.unwrap_err(), Permanent, "it is truncated");
        is(&http.get_range_upto(&href, 10_000..10_010).await.unwrap_err(), Permanent, "ends before");
        is(&http.get_range(&format!("{href}.no"), 0..10).await.unwrap_err(), Permanent, "No such file");
    }
    let devices = with(Trust::default().file_hrefs(true));
    is(&devices.get_range("file:///dev/zero", 0..10).await.unwrap_err(), Permanent, "not a regular file");
}
