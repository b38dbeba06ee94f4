//! The pipeline's worker on chosen cells, measured from inside: one line of JSON on standard output.
//!
//! ```text
//! worker FIXTURE_JSON OUT [section.key=value]...
//! ```
//!
//! Contract: plans with the master's own code, runs `node::worker::run`, which is all that `node --role worker` does,
//! and publishes the tasks of the fixture's cells on the embedded broker as soon as the worker has joined its group.
//! What comes before (the plan; opening files, loading certificates) is counted apart, as the imports and first
//! connections of the other programs are; `first_chip_s` begins before both but for the plan. The work ends with the
//! last result. Units: seconds, MiB.
//! Trap: OUT must not exist; a task that its manifests know is settled without work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod meter;

use std::fs::DirEntry;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use satellite_pipeline::adapters::broker::{Broker, EmbeddedBroker, EmbeddedLimits, ReadEvent, Record};
use satellite_pipeline::domain::plan::PlannedTask;
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::probes::Probes;
use satellite_pipeline::node::{master, parts, telemetry, worker};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// As the program has it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [fixture, out, sets @ ..] = &args[..] else {
        eprintln!("worker: nothing to do without FIXTURE_JSON and OUT; scripts/bench gives them");
        return;
    };
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let cells: Vec<[i64; 2]> = serde_json::from_value(fixture["cells"].clone()).unwrap();
    let sets: Vec<String> = sets.iter().cloned().chain([format!("output.dir={out}")]).collect();
    let config = Config::load(&[], [], &sets).unwrap_or_else(|e| panic!("{e}"));
    telemetry::init(&config.log).unwrap();
    // As node::app builds it.
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .thread_name("reactor")
            .build()
            .unwrap()
    };
    let report = actix::System::with_tokio_rt(runtime).block_on(run(&config, &cells, Path::new(out)));
    println!("{report}");
}

async fn run(config: &Config, cells: &[[i64; 2]], out: &Path) -> Value {
    let none = CancellationToken::new();
    let started = Instant::now();
    let classes = parts::classes(config).unwrap();
    let source = parts::parcels(config, classes.clone()).unwrap();
    let plan = master::plan(config, source, &classes, master::Bars::Hidden, &none).await.unwrap();
    let step = config.grid.step;
    let wanted = |t: &&PlannedTask| {
        let middle = [0, 1].map(|k| ((t.task.bbox[k] + step / 2.0) / step).floor() as i64);
        cells.contains(&middle)
    };
    let tasks: Vec<&PlannedTask> = plan.tasks.iter().filter(wanted).collect();
    assert_eq!(tasks.len(), cells.len(), "the plan lacks some of the fixture's cells");

    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(EmbeddedLimits::default()));
    broker.create_topics(&parts::topics(config)).await.unwrap();
    let plan_s = started.elapsed().as_secs_f64();

    let (begin, begin_clock) = (Instant::now(), SystemTime::now());
    let drain = CancellationToken::new();
    // As a node with `metrics.listen` does, unless the cost of that is what is measured.
    let probes = if std::env::var_os("BENCH_NO_METRICS").is_some() {
        Probes::default()
    } else {
        Probes::install("worker").unwrap()
    };
    let counting = async {
        publish(&*broker, config, &tasks).await;
        let (before, since) = (meter::process_cpu(), Instant::now());
        let chips = count(&*broker, config, tasks.len()).await;
        let (wall_s, after) = (since.elapsed().as_secs_f64(), meter::process_cpu());
        drain.cancel();
        (chips, wall_s, before, after, since - begin)
    };
    let mut working = std::pin::pin!(worker::run(config, broker.clone(), &drain, false, &probes));
    let (chips, wall_s, before, after, join_s) = tokio::select! {
        ended = &mut working => panic!("the worker ended early: {ended:?}"),
        counted = counting => counted,
    };
    working.await.unwrap();
    let cpu = [after.0 - before.0, after.1 - before.1];
    json!({
        "tasks": tasks.len(), "chips": chips, "wall_s": wall_s, "cpu_s": cpu[0] + cpu[1], "user_s": cpu[0],
        "sys_s": cpu[1], "rss_mb": meter::peak_rss_mb(), "first_chip_s": first_mask(&out.join("masks"), begin_clock),
        "startup_wall_s": plan_s + join_s.as_secs_f64(), "startup_cpu_s": before.0 + before.1,
    })
}

/// Publishes the tasks once somebody is there to take them.
async fn publish(broker: &dyn Broker, config: &Config, tasks: &[&PlannedTask]) {
    while broker.group_members(&config.kafka.group).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for planned in tasks {
        let payload = serde_json::to_vec(&planned.task).unwrap();
        let record = Record::keyed(&config.kafka.tasks_topic, format!("task_{}", planned.task.task_id), payload);
        broker.publish(record.to_partition(planned.partition)).await.unwrap();
    }
}

/// Reads results until all tasks have one. Gives the number of chips.
async fn count(broker: &dyn Broker, config: &Config, tasks: usize) -> u64 {
    let mut results = broker.read(&[&config.kafka.results_topic]).await.unwrap();
    let (mut left, mut chips) = (tasks, 0);
    while left > 0 {
        match results.recv().await.expect("results end early") {
            ReadEvent::Record(record) => {
                let result: Value = serde_json::from_slice(&record.payload).unwrap();
                assert_eq!(result["status"], "success", "{result}");
                chips += result["chips_saved"].as_u64().unwrap();
                left -= 1;
            }
            ReadEvent::CaughtUp => {}
            ReadEvent::Failed(error) => panic!("{error}"),
        }
    }
    chips
}

/// Seconds from `begin` to the first mask on the disk; a chip's mask is written after its image, and is linked, not copied,
/// to where it ends up. Asked afterwards, so that nobody watches while the worker works.
fn first_mask(masks: &Path, begin: SystemTime) -> f64 {
    let written = |entry: std::io::Result<DirEntry>| entry.unwrap().metadata().unwrap().modified().unwrap();
    let first = std::fs::read_dir(masks).unwrap().map(written).min().expect("no mask");
    first.duration_since(begin).unwrap_or_default().as_secs_f64()
}
