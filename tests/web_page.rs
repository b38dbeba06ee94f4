//! The monitor's page as a server on loopback: what it says, to whom, and what it makes of those who mean no good.
//!
//! Contract: the server is the real one with all its limits; requests are written byte by byte where the bytes matter.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use satellite_pipeline::domain::plan_record::{PLAN_SCHEMA, PlanRecord, PlanState};
use satellite_pipeline::domain::result::TaskResult;
use satellite_pipeline::domain::tally::Tally;
use satellite_pipeline::domain::task::Task;
use satellite_pipeline::domain::view::View;
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::web::{CONNECTIONS, Moment, WATCHERS, Web};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EVIL: &str = r#"</pre><script>alert(1)</script><img src=x onerror="alert(2)">'&quot;"#;
const TOKEN: &str = "0123456789abcdef-token";

fn result(task: u64, status: &str, chips: u64) -> TaskResult {
    let west = 2.0 + 0.05 * task as f64;
    let text = serde_json::json!({
        "task_id": task, "worker_id": format!("w<i>{}", task % 2), "bbox": [west, 41.0, west + 0.05, 41.05],
        "chips_saved": chips, "chips_per_class": { "1": chips }, "status": status, "run_id": "r1",
        "finished_ms": 1_700_000_000_000_u64 + task * 1000, "elapsed_ms": 4200,
        "error": format!("scenes of {task}: {EVIL}"),
    });
    serde_json::from_value(text).unwrap()
}

fn plan(tasks: u64) -> PlanRecord {
    let class = serde_json::json!({ "name": EVIL, "colour": "red\" onload=\"alert(3)", "parcels": 9, "expected": 9, "target": 20 });
    let record = serde_json::json!({
        "schema": PLAN_SCHEMA, "run_id": "r1", "state": PlanState::Published, "tasks": tasks, "parcels": 9,
        "classes": { "1": class }, "seed": 1, "created_ms": 1,
    });
    serde_json::from_value(record).unwrap()
}

/// Five tasks: two done, one failed, one skipped, one waiting.
fn tally() -> Tally {
    let mut tally = Tally::default();
    tally.plan(plan(5));
    for task in 1..=5 {
        let bbox = [2.0 + 0.05 * task as f64, 41.0, 2.05 + 0.05 * task as f64, 41.05];
        let text = serde_json::json!({ "task_id": task, "bbox": bbox, "run_id": "r1" });
        tally.task(&Task::parse(text.to_string().as_bytes()).unwrap());
    }
    tally.apply(&result(1, "success", 7), 0);
    tally.apply(&result(2, "success", 4), 0);
    tally.apply(&result(3, "failed_download", 0), 0);
    tally.apply(&result(4, "skipped_sampling", 0), 0);
    tally
}

fn moment() -> Moment {
    Moment::new(View::of(&tally(), 1_700_000_010_000, None), None, true)
}

fn config(more: &str) -> Config {
    let text = format!("[monitor]\nlisten = \"127.0.0.1:0\"\n{more}\n[output]\ndir = \"/nowhere\"\n");
    Config::from_toml("test", &text).unwrap()
}

async fn start(more: &str) -> (Web, SocketAddr) {
    let web = Web::start(&config(more), axum::Router::new()).await.unwrap();
    web.show(moment());
    let address = web.address().unwrap();
    (web, address)
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends these bytes and reads until the server closes.
async fn send(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Err: the server has heard enough.
    let _ = stream.write_all(bytes).await;
    let mut raw = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut raw)).await.expect("an answer");
    let text = String::from_utf8_lossy(&raw).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn get_with(to: SocketAddr, path: &str, headers: &str) -> Answer {
    send(to, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").as_bytes()).await
}

async fn get(to: SocketAddr, path: &str) -> Answer {
    get_with(to, path, "").await
}

#[tokio::test]
async fn the_page_is_complete_without_scripts() {
    let (_web, at) = start("").await;
    let page = get(at, "/").await;
    assert_eq!(page.status, 200);
    for text in [
        "at work",
        "run <code>r1</code>",
        "of 20",
        "href=\"/tasks/3\"",
        "failed_download",
        "41.00°",
        "2 done",
        "1 waiting",
    ] {
        assert!(page.body.contains(text), "{text} in {}", page.body);
    }
    assert!(page.body.contains("<noscript><meta http-equiv=\"refresh\""), "{}", page.body);
    assert!(page.body.contains("output.dir is no directory of this machine"), "no pictures, and the page says why");
    let one = get(at, "/tasks/3").await;
    assert!(one.body.contains("Why it failed") && one.body.contains("node dlq replay"), "{}", one.body);
    let list = get(at, "/tasks?state=done&per_page=1").await;
    assert!(list.body.contains("page 1 of 2") && list.body.contains("state=done&amp;page=2"), "{}", list.body);
    for (path, status) in
        [("/tasks/9", 404), ("/tasks/x", 404), ("/tasks?state=odd", 400), ("/tasks?page=0", 400), ("/no", 404)]
    {
        assert_eq!(get(at, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn nothing_a_message_says_becomes_markup() {
    let (_web, at) = start("").await;
    for path in ["/", "/tasks", "/tasks/3", "/tasks?state=failed"] {
        let page = get(at, path).await;
        assert_eq!(page.status, 200, "{path}");
        for bad in ["<script>alert", "<img src=x", "onload=\"", "w<i>"] {
            assert!(!page.body.contains(bad), "{bad} in {path}");
        }
        assert!(
            page.body.contains("&lt;script&gt;alert(1)") || path == "/tasks" && page.body.contains("w&lt;i&gt;"),
            "{path}"
        );
        let policy = page.head.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!page.body.contains(" style=") && !page.body.contains("<style"), "no style in the page itself");
        assert!(page.head.contains("x-content-type-options: nosniff") && page.head.contains("cache-control: no-store"));
        assert_eq!(page.body.matches("<script").count(), usize::from(path == "/"), "our one script, on the overview");
    }
    // Also where the text comes back as it was asked.
    for path in ["/tasks?state=<script>alert(1)</script>", "/tasks/<script>", "/<script>alert(1)</script>"] {
        let answer = get(at, path).await;
        assert!(answer.status >= 400 && !answer.body.contains("<script"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_json_has_the_fields_its_readers_rely_on() {
    let (_web, at) = start("").await;
    let progress = get(at, "/api/v1/progress").await.json();
    assert_eq!(
        (&progress["run_id"], &progress["tasks_done"], &progress["chips"]),
        (&"r1".into(), &4.into(), &11.into())
    );
    assert_eq!(progress["states"], serde_json::json!({ "done": 2, "failed": 1, "skipped": 1, "waiting": 1 }));
    assert_eq!((&progress["throughput"]["bucket_ms"], &progress["caught_up"]), (&1000.into(), &true.into()));
    assert_eq!(get(at, "/api/v1/classes").await.json()["classes"][0]["target"], 20);
    assert_eq!(get(at, "/api/v1/workers").await.json()["workers"].as_array().unwrap().len(), 2);
    let cells = get(at, "/api/v1/cells?page=2&per_page=3").await.json();
    assert_eq!(
        (&cells["total"], &cells["pages"], &cells["cells"][1]["state"]),
        (&5.into(), &2.into(), &"waiting".into())
    );
    let failures = get(at, "/api/v1/failures").await.json();
    assert_eq!((&failures["kinds"][0]["count"], &failures["cells"][0]["task"]), (&1.into(), &3.into()));
    assert_eq!(failures["cells"][0]["reason"], format!("scenes of 3: {EVIL}"), "JSON holds what was said");
    assert_eq!(get(at, "/api/v1/cells/5").await.json()["state"], "waiting");
    for path in ["/api/v1/cells/6", "/api/v1/nothing", "/api/v1/cells?per_page=5000", "/api/v1/cells?state=x"] {
        assert!(get(at, path).await.json()["error"].is_string(), "{path}");
    }
    // What is documented is there.
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap();
    for field in progress.as_object().unwrap().keys().chain(cells["cells"][0].as_object().unwrap().keys()) {
        assert!(docs.contains(&format!("`{field}`")), "docs/api.md does not explain `{field}`");
    }
}

#[tokio::test]
async fn no_path_from_outside_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("out/.manifests/r1")).unwrap();
    std::fs::write(dir.path().join("secret.png"), "secret").unwrap();
    std::fs::write(dir.path().join("out/.manifests/r1/task_1.json"), br#"{"schema":1,"attempt":"../x"}"#).unwrap();
    let text = format!(
        "[monitor]\nlisten = \"127.0.0.1:0\"\n[output]\ndir = {:?}\n",
        dir.path().join("out").display().to_string()
    );
    let web = Web::start(&Config::from_toml("test", &text).unwrap(), axum::Router::new()).await.unwrap();
    web.show(moment());
    let at = web.address().unwrap();
    for path in [
        "/pictures/../../secret.png/1/0/image.png",
        "/pictures/..%2f..%2fsecret.png/1/0/image.png",
        "/pictures/r1/1/0/image.png",
        "/pictures/r1/1/0/..%2f..%2f..%2fsecret.png",
        "/pictures/.../1/0/mask.png",
        "/pictures/r1/-1/0/image.png",
        "/pictures/r1/1/99999999999999999999/image.png",
        "/pictures/r1/1%2f..%2f..%2fsecret/0/image.png",
        "/..%2f..%2fetc%2fpasswd",
        "/style.css/../../secret.png",
        "//etc/passwd",
        "/%00",
    ] {
        let answer = get(at, path).await;
        assert!((400..500).contains(&answer.status) && !answer.body.contains("secret"), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_token_is_asked_for_and_a_cookie_takes_its_place() {
    let (_web, at) = start(&format!("token = \"{TOKEN}\"")).await;
    for path in ["/", "/api/v1/progress", "/live", "/pictures/r1/1/0/image.png", "/tasks/3", "/nothing"] {
        let answer = get(at, path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.contains("asks for a token") && !answer.body.contains("r1"), "{path}");
    }
    assert_eq!(get_with(at, "/", "Authorization: Bearer wrong\r\n").await.status, 401);
    assert_eq!(get(at, "/?token=wrong").await.status, 401);
    assert_eq!(get_with(at, "/api/v1/progress", &format!("Authorization: Bearer {TOKEN}\r\n")).await.status, 200);
    let exchanged = get(at, &format!("/?token={TOKEN}")).await;
    assert_eq!(exchanged.status, 303);
    assert!(exchanged.head.contains("httponly; samesite=lax") && exchanged.head.contains("location: /\r\n"));
    let cookie = exchanged.head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert!(!cookie.contains(TOKEN), "the token itself stays out of the browser");
    assert_eq!(get_with(at, "/", &format!("Cookie: other=1; {cookie}\r\n")).await.status, 200);
    assert_eq!(get_with(at, "/", &format!("Cookie: satellite_monitor={TOKEN}\r\n")).await.status, 401);
}

#[tokio::test]
async fn a_strangers_name_for_this_machine_is_not_answered() {
    let (_web, at) = start("").await;
    for (host, status) in
        [("localhost:8787", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example", 421), ("localhost.evil", 421)]
    {
        let request = format!("GET /api/v1/progress HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(send(at, request.as_bytes()).await.status, status, "{host}");
    }
    let (_open, at) = start("allow_public = true").await;
    assert_eq!(send(at, b"GET / HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let (_web, at) = start("").await;
    assert_eq!(get(at, &format!("/tasks?state={}", "x".repeat(4000))).await.status, 414);
    assert!([400, 414, 431].contains(&get(at, &format!("/{}", "x".repeat(100_000))).await.status));
    assert!([400, 431].contains(&get_with(at, "/", &format!("X-Long: {}\r\n", "x".repeat(100_000))).await.status));
    assert!([400, 431].contains(&get_with(at, "/", &"X-Many: 1\r\n".repeat(200)).await.status));
    assert_eq!(
        send(at, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\nConnection: close\r\n\r\nx")
            .await
            .status,
        405
    );
    assert_eq!(send(at, b"DELETE /tasks/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status, 405);
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_or_take_nothing_are_let_go_and_hold_no_memory() {
    let (web, at) = start("").await;
    assert_eq!(get(at, "/").await.status, 200);
    let before = resident();
    // Those that never finish their request, and those that ask for updates and never read them.
    let mut slow = Vec::new();
    for i in 0..CONNECTIONS - 8 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request =
            if i < WATCHERS { "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" } else { "GET / HTTP/1.1\r\nHo" };
        stream.write_all(request.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(get(at, "/").await.status, 200, "others are served meanwhile");
    assert_eq!(get(at, "/live").await.status, 503, "no more watchers than there may be");
    let mut tally = tally();
    for n in 0..400_u64 {
        tally.apply(&result(1, "success", 8 + n), 0);
        web.show(Moment::new(View::of(&tally, 1_700_000_010_000 + n * 1000, None), None, true));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more for {} idle clients", slow.len());
    // Whoever did not finish a request in ten seconds is gone.
    let since = Instant::now();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), slow.last_mut().unwrap().read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still connected after {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gets_the_panels_and_then_what_changes() {
    let (web, at) = start("").await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = async || -> Vec<Value> {
        let (mut raw, mut part) = (Vec::new(), vec![0; 65_536]);
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_millis(700), stream.read(&mut part)).await {
            raw.extend_from_slice(&part[..n]);
        }
        let text = String::from_utf8_lossy(&raw).into_owned();
        // Chunks of the transfer may cut lines only at their ends: each event is written at once.
        text.lines().filter_map(|l| l.strip_prefix("data: ")).map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let first = read().await;
    let ids: Vec<&String> = first[0].as_object().unwrap().keys().collect();
    assert_eq!(ids, ["chips", "classes", "failures", "map", "run", "summary", "throughput", "workers"]);
    let mut tally = tally();
    tally.apply(&result(5, "success", 1), 0);
    web.show(Moment::new(View::of(&tally, 1_700_000_010_000, None), None, true));
    let second = read().await;
    let html = second.last().unwrap()["summary"].as_str().unwrap().to_owned();
    assert!(html.contains("complete, with failures"), "{html}");
}

#[tokio::test]
async fn a_taken_port_costs_the_page_and_nothing_else() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("[monitor]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let web = Web::start(&Config::from_toml("test", &text).unwrap(), axum::Router::new()).await.unwrap();
    assert_eq!(web.address(), None);
    web.show(moment());
}

#[test]
fn an_address_for_everybody_wants_a_token() {
    for (listen, more, good) in [
        ("0.0.0.0:8787", "", false),
        ("[::]:8787", "", false),
        ("192.168.1.2:8787", "", false),
        ("127.0.0.1:8787", "", true),
        ("[::1]:8787", "", true),
        ("0.0.0.0:8787", "token = \"0123456789abcdef\"", true),
        ("0.0.0.0:8787", "allow_public = true", true),
        ("127.0.0.1:8787", "token = \"short\"", false),
        ("127.0.0.1:8787", "token = \"0123456789 abcdef\"", false),
    ] {
        let loaded = Config::from_toml("test", &format!("[monitor]\nlisten = \"{listen}\"\n{more}\n"));
        assert_eq!(loaded.is_ok(), good, "{listen} {more}");
        if let Err(errors) = loaded {
            let said = errors.to_string();
            assert!(said.contains("monitor.") && !said.contains("abcdef"), "{said}");
        }
    }
    let shown = format!("{:?}", config(&format!("token = \"{TOKEN}\"")));
    assert!(shown.contains("token is set") && !shown.contains(TOKEN), "{shown}");
}
