//! A monitor over a large run: 20,000 tasks with a million chips, replayed from a broker's topics.
//!
//! Contract: the figures are printed (`--nocapture`) and bounded; the monitor is the real one, page and all, in this
//! process, so memory is that of the monitor, the embedded broker with all messages, and the test together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use satellite_pipeline::adapters::broker::{Broker, EmbeddedBroker, EmbeddedLimits, Record, TopicSpec};
use satellite_pipeline::domain::plan_record::{PLAN_SCHEMA, PlanRecord};
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::log_tap::LogTap;
use satellite_pipeline::node::monitor::{self, Watch};
use satellite_pipeline::node::probes::Probes;
use tokio_util::sync::CancellationToken;

const TASKS: u64 = 20_000;
const CHIPS: u64 = 50;
/// What a monitor of this size may use, and how long it may take to know everything again. The build is not optimised.
const MOST_BYTES: usize = 200 << 20;
const LONGEST: Duration = Duration::from_secs(10);
/// Of a core, while one page follows a run on which nothing happens, and one of which five results a second arrive.
const SHARE: f64 = 0.05;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// CPU time of this process so far, seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn publish_run(broker: &EmbeddedBroker) {
    let classes: serde_json::Map<String, serde_json::Value> = (1..=8)
        .map(|c| {
            let plan = serde_json::json!({ "name": format!("class{c}"), "colour": "#446688", "parcels": 200_000, "expected": 130_000, "target": 120_000 });
            (c.to_string(), plan)
        })
        .collect();
    let plan = serde_json::json!({
        "schema": PLAN_SCHEMA, "run_id": "big", "state": "published", "tasks": TASKS, "parcels": 1_600_000,
        "classes": classes, "seed": 1, "created_ms": 1,
    });
    let plan: PlanRecord = serde_json::from_value(plan).unwrap();
    broker.publish(Record::keyed("satellite-control", plan.key(), plan.to_json().unwrap())).await.unwrap();
    for task in 1..=TASKS {
        let (x, y) = ((task % 160) as f64 * 0.05 - 4.0, (task / 160) as f64 * 0.05 + 37.0);
        let bbox = [x, y, x + 0.05, y + 0.05];
        let distribution: serde_json::Map<_, _> = (1..=8).map(|c| (c.to_string(), 10.into())).collect();
        let message = serde_json::json!({
            "task_id": task, "bbox": bbox, "grid_step": 0.05, "polygon_count": 80, "class_distribution": distribution,
            "run_id": "big", "schema": 1, "seed": 1,
        });
        broker.publish(Record::keyed("satellite-tasks", format!("task_{task}"), message.to_string())).await.unwrap();
        let failed = task % 40 == 0;
        let per_class: serde_json::Map<_, _> = [(1, 20), (2, 10), (4, 9), (5, 6), (8, 5)]
            .into_iter()
            .filter(|_| !failed)
            .map(|(c, n): (u8, u64)| (c.to_string(), n.into()))
            .collect();
        let mut result = serde_json::json!({
            "task_id": task, "worker_id": format!("host-{}", task % 12), "bbox": bbox, "run_id": "big",
            "chips_saved": if failed { 0 } else { CHIPS }, "chips_per_class": per_class,
            "status": if failed { "failed_download" } else { "success" },
            "chips_rejected": { "nodata": 3, "corrupt": 1 },
            "finished_ms": 1_700_000_000_000_u64 + task * 900, "elapsed_ms": 9000,
        });
        if failed {
            result["error"] =
                format!("pixels: GET https://images.example.org/tile/{task}/B04.tif: 404 Not Found").into();
        }
        broker.publish(Record::keyed("satellite-results", format!("{task}"), result.to_string())).await.unwrap();
    }
}

#[test]
fn a_million_chips_fit_and_are_known_again_in_seconds() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    actix::System::with_tokio_rt(runtime).block_on(async {
        let limits = EmbeddedLimits { bytes: 64 << 20, ..EmbeddedLimits::default() };
        let broker = EmbeddedBroker::new(limits);
        let topics = ["satellite-tasks", "satellite-results", "satellite-control"].map(|t| TopicSpec::new(t, 1));
        broker.create_topics(&topics).await.unwrap();
        publish_run(&broker).await;
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let text = format!("[monitor]\nlisten = \"{address}\"\nui = \"none\"\n");
        let config = Arc::new(Config::from_toml("test", &text).unwrap());
        let url = format!("http://{address}");
        let mut took = Vec::new();
        for _restart in 0..2 {
            let stop = CancellationToken::new();
            let watch = Watch { exit_when_done: false, alone: true, log: LogTap::default(), probes: Probes::default() };
            let (own, drain, shared) = (config.clone(), stop.clone(), Arc::new(broker.clone()));
            let began = Instant::now();
            let monitor = actix::spawn(async move { monitor::run(&own, shared, &drain, watch).await });
            loop {
                let progress = match reqwest::get(format!("{url}/api/v1/progress")).await {
                    Ok(answer) => answer.json().await.unwrap(),
                    Err(_) => serde_json::Value::Null,
                };
                if progress["caught_up"] == true && progress["complete"] == true {
                    assert_eq!(progress["tasks_done"], TASKS);
                    assert_eq!(progress["chips"], (TASKS - TASKS / 40) * CHIPS);
                    break;
                }
                assert!(began.elapsed() < 6 * LONGEST, "{progress}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            took.push(began.elapsed());
            if took.len() == 2 {
                let quiet = follow(&url, Duration::from_secs(20)).await;
                let more = actix::spawn(improve(broker.clone()));
                let busy = follow(&url, Duration::from_secs(30)).await;
                more.abort();
                println!(
                    "followed by one page: {:.1} % of a core, {:.1} % while results arrive",
                    quiet * 100.0,
                    busy * 100.0
                );
                assert!(quiet <= SHARE && busy <= SHARE, "{quiet} and {busy} of a core");
            }
            stop.cancel();
            monitor.await.unwrap().unwrap();
        }
        let peak = resident();
        println!("known after {took:?}; peak {} MiB, with the broker's {TASKS} tasks and results", peak >> 20);
        assert!(peak <= MOST_BYTES, "{peak} bytes");
        assert!(took.iter().all(|t| *t <= LONGEST), "{took:?}");
    });
}

/// Five tasks a second that had failed succeed, over the whole map.
async fn improve(broker: EmbeddedBroker) {
    for task in (40..TASKS).step_by(40) {
        let message = serde_json::json!({
            "task_id": task, "worker_id": "host-1", "bbox": [0, 40, 0.05, 40.05], "run_id": "big", "chips_saved": CHIPS,
            "chips_per_class": { "3": CHIPS }, "status": "success", "finished_ms": 1_700_020_000_000_u64 + task,
        });
        broker.publish(Record::keyed("satellite-results", format!("{task}"), message.to_string())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One page is open for so long; the answer is the share of a core that all of this process took.
async fn follow(url: &str, time: Duration) -> f64 {
    let page = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert!(page.len() < 600_000, "a page of {} bytes", page.len());
    let mut live = reqwest::get(format!("{url}/live")).await.unwrap();
    let (began, before) = (Instant::now(), cpu());
    let mut received = 0;
    while began.elapsed() < time {
        let left = time.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, live.chunk()).await {
            Ok(chunk) => received += chunk.unwrap().expect("the stream goes on").len(),
            Err(_) => break,
        }
    }
    let share = (cpu() - before) / began.elapsed().as_secs_f64();
    println!("a page of {} kB, {} kB in {} s", page.len() / 1000, received / 1000, time.as_secs());
    assert!(received > 10_000, "{received} bytes");
    share
}
