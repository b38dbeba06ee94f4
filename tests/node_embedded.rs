//! Whole nodes with the embedded broker: `--role all` as a process, killed, drained, and run again.
//!
//! Contract: whatever happens to a run, running it again gives the dataset of a run to which nothing happened, byte for
//! byte, and asks for nothing that is there already. Exit codes: 0 complete, 1 incomplete.
//! Trap: kills come when so many tasks are finished, so how much of the next ones is staged differs from run to run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::sync::OnceLock;

use node::{Pairs, World, assert_same, files_below};
use serde_json::Value;

/// The dataset of a run to which nothing happened.
fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.verify();
        world.dataset()
    })
}

const ALL: [&str; 3] = ["--role", "all", "--exit-when-done"];

#[test]
fn a_run_completes_and_a_second_one_adds_and_asks_nothing() {
    let world = World::new();
    let first = world.run_all();
    assert!(first.out.contains("is complete\n"), "{}", first.out);
    world.verify();
    let made = world.dataset();
    assert_same(&made, undisturbed());
    let names = |dir: &str| made.keys().filter_map(|k| k.strip_prefix(dir).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names("images/"), names("masks/"), "an image without its mask, or the reverse");

    world.server.reset();
    world.run_all();
    assert_eq!(world.server.stats().total().requests, 0, "finished tasks need no request");
    assert_same(&world.dataset(), &made);
    world.verify();
}

#[test]
fn a_killed_run_is_completed_by_the_next_one() {
    let world = World::new();
    // Slow enough to be killed midway.
    world.server.configure(satellite_pipeline::demo::server::Knobs { latency_ms: 20, mbit: 0 });
    for finished in [0, 1, 4, 9] {
        let mut node = world.start(&ALL);
        node.until(&format!("{finished} tasks are finished"), |n| match finished {
            0 => n.log().contains("worker is up"),
            _ => world.manifests() >= finished,
        });
        node.kill();
    }
    let before = world.manifests();
    assert!(before >= 9);
    world.run_all();
    world.verify();
    assert!(files_below(&world.output().join(".staging")).is_empty(), "staged files were left behind");
    assert_same(&world.dataset(), undisturbed());
}

#[test]
fn a_signal_lets_the_work_in_flight_end_and_the_next_run_completes() {
    let world = World::new();
    world.server.configure(satellite_pipeline::demo::server::Knobs { latency_ms: 50, mbit: 0 });
    for name in ["TERM", "INT"] {
        let finished = world.manifests();
        let mut node = world.start(&ALL);
        node.until("a task is finished", |_| world.manifests() > finished);
        node.signal(name);
        let ended = node.ends(1);
        ended.says(&[&format!("SIG{name}: finishing what is in flight; a second signal stops now"), "worker is down"]);
        ended.says(&["node: stopped before the run was complete: ", " tasks have a result"]);
        assert!(files_below(&world.output().join(".staging")).is_empty(), "a drained node leaves nothing staged");
        world.verify();
    }
    world.run_all();
    assert_same(&world.dataset(), undisturbed());
}

#[test]
fn a_second_signal_stops_now() {
    let world = World::new();
    world.server.configure(satellite_pipeline::demo::server::Knobs { latency_ms: 2000, mbit: 0 });
    let mut node = world.start(&ALL);
    node.until("the worker fetches", |_| world.server.stats().total().requests > 0);
    node.signal("TERM");
    node.until("the first signal is seen", |n| n.log().contains("a second signal stops now"));
    let since = std::time::Instant::now();
    node.signal("TERM");
    node.ends(1).says(&["second signal (SIGTERM): stopping now, what is in flight will be done again"]);
    assert!(since.elapsed().as_millis() < 1500, "{:?}", since.elapsed());
}

#[test]
fn the_seed_decides_and_the_mode_too() {
    let mut world = World::new();
    world.set("run.seed", "43");
    world.run_all();
    let other = world.dataset();
    assert_ne!(
        other.keys().collect::<Vec<_>>(),
        undisturbed().keys().collect::<Vec<_>>(),
        "another seed, other parcels"
    );

    // The directory belongs to the run of the first seed.
    world.set("run.seed", "44");
    let refused = world.run(&ALL, 2);
    refused.says(&["holds the dataset of run `", "use an empty directory, or put {run} into output.name_template"]);
    assert_same(&world.dataset(), &other);

    let mut basic = World::new();
    basic.set("sampling.mode", "\"basic\"").set("run.id", "\"all-of-them\"");
    let ended = basic.run_all();
    let plan: Value = serde_json::from_str(&basic.run(&["plan", "--json"], 0).out).unwrap();
    basic.verify();
    assert_eq!(plan["run_id"], "all-of-them");
    assert_eq!(chips_and_rejected(&basic), plan["expected"].as_u64().unwrap(), "{}", ended.out);
    let planned: u64 = plan["classes"].as_object().unwrap().values().map(|c| c["planned"].as_u64().unwrap()).sum();
    assert_eq!(plan["expected"], planned, "every parcel of a class is a candidate");
    assert!(basic.dataset().len() > undisturbed().len());
}

/// Chips written and parcels that gave none, over all manifests.
fn chips_and_rejected(world: &World) -> u64 {
    let manifests = files_below(&world.output().join(".manifests"));
    let count = |path: &std::path::PathBuf| {
        let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        (manifest["chips"].as_array().unwrap().len() + manifest["rejected"].as_array().unwrap().len()) as u64
    };
    manifests.iter().map(count).sum()
}

#[test]
fn the_plan_says_what_the_run_gives() {
    let world = World::new();
    let plan: Value = serde_json::from_str(&world.run(&["plan", "--json"], 0).out).unwrap();
    assert!(!world.output().exists() && world.server.stats().total().requests == 0, "a plan touches nothing");
    let table = world.run(&["plan"], 0).out;
    let run = plan["run_id"].as_str().unwrap();
    assert!(table.contains(&format!("run {run}  seed 42")), "{table}");

    let json = world.run(&["--role", "all", "--exit-when-done", "--log", "json"], 0);
    assert_eq!(chips_and_rejected(&world), plan["expected"].as_u64().unwrap());
    assert_eq!(world.manifests() as u64, plan["tasks"].as_u64().unwrap());
    for line in json.err.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(event["level"].is_string() && event["timestamp"].is_string(), "{line}");
    }
    let done = json.err.lines().filter(|l| l.contains("\"task done\"")).count();
    assert_eq!(done as u64, plan["tasks"].as_u64().unwrap(), "one event for each task");
    let views: Vec<Value> = json.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = views.last().unwrap();
    assert_eq!((&last["complete"], &last["tasks_done"], &last["run_id"]), (&true.into(), &plan["tasks"], &run.into()));
    assert_eq!(last["chips"].as_u64().unwrap(), (world.dataset().len() / 2) as u64);
}

#[test]
fn the_configuration_is_explained_and_colours_are_for_people() {
    let world = World::new();
    let said = world.start_with(
        &["config", "--explain", "--set", "grid.min_parcels=9"],
        &[("NODE__GRID__STEP", "0.02"), ("NO_COLOR", "1")],
    );
    let out = said.ends(0).out;
    for (section, key, value, from) in [
        ("grid", "step", "0.02", "NODE__GRID__STEP"),
        ("grid", "min_parcels", "9", "--set"),
        ("worker", "cache_mb", "64", "node.toml"),
        ("chips", "size", "256", "default"),
    ] {
        let (_, rest) = out.split_once(&format!("[{section}]\n")).unwrap();
        let line = rest.lines().find(|l| l.starts_with(&format!("{key} = "))).unwrap();
        assert!(line.contains(value) && line.contains(from), "{line}");
    }
    let ended = world.start_with(&ALL, &[("NO_COLOR", "1")]).ends(0);
    assert!(!ended.out.contains('\u{1b}') && !ended.err.contains('\u{1b}'));
}

#[test]
fn a_damaged_dataset_is_found_and_mended() {
    let world = World::new();
    world.run_all();
    let images = files_below(&world.output().join("images"));
    let dir = world.output().display().to_string();
    std::fs::write(&images[0], b"no TIFF").unwrap();
    std::fs::write(world.output().join("images/stray.tif"), b"stray").unwrap();
    let found = world.run(&["verify", &dir], 1);
    assert!(found.out.contains("damaged: ") && found.out.contains("orphan: ") && found.out.contains("2 findings"));
    found.says(&["something is wrong; `--repair` mends what can be mended"]);
    let mended = world.run(&["verify", &dir, "--repair"], 1);
    mended.says(&["1 tasks lost files and must be done again"]);
    world.verify();
    world.run_all();
    world.verify();
    assert_same(&world.dataset(), undisturbed());
}
