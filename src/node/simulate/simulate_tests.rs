//! Simulated runs against what arithmetic says of them.

use proptest::prelude::*;

use super::super::cli::{Action, Invocation};
use super::load::Todo;
use super::outcome::Outcome;
use super::*;

/// A model out of a command line's options and settings.
fn model(options: &str, sets: &[&str]) -> Model {
    let line = format!("node simulate {options}");
    let Action::Simulate(asked) = Invocation::parse(line.split_whitespace()).unwrap().action else { panic!("{line}") };
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Model::of(&Config::load(&[], [], &sets).unwrap(), &asked).unwrap()
}

fn tasks(model: &Model, count: u32, mean: f64) -> Vec<Todo> {
    let partitions = model.partitions as i32;
    load::made_up(count, mean, [-4.0, 40.0], (0.05, &model.seasons, 42, partitions)).unwrap()
}

/// Nothing takes time but answers: 100 ms each, one block is a whole file, no scene is cloudy.
const ONLY_ANSWERS: &str = "--latency 100 --stac-latency 100 --block 10980 --cloudy 0 --unsettled 1 --link-mbit 0 --broker-rate 0 \
    --draw-ms 0 --decode-ms 0 --cut-ms 0 --encode-ms 0 --write-ms 0 --commit-ms 0";

fn one_chip(model: &Model) -> Outcome {
    let todo = Todo { task_id: 1, bbox: [-4.05, 40.0, -4.0, 40.05], drawn: 1, partition: 0 };
    engine::run(model, &[todo], 1)
}

#[test]
fn a_chip_waits_for_as_many_answers_as_its_requests_per_host_make_it() {
    // A search; header and block of the classification; 10 headers; 4 reads of overviews; 10 blocks.
    let one = one_chip(&model(ONLY_ANSWERS, &["imagery.requests_per_host=1"]));
    assert_eq!((one.requests, one.searches, one.blocks, one.chips), (26, 1, 11, 1));
    assert!((one.seconds() - 2.7).abs() < 1e-6, "{}", one.seconds());
    // The same, with headers and blocks of all bands side by side.
    let many = one_chip(&model(ONLY_ANSWERS, &["imagery.requests_per_host=16"]));
    assert!((many.seconds() - 0.9).abs() < 1e-6, "{}", many.seconds());
    // Six of the ten at a time take two rounds, twice.
    let six = one_chip(&model(ONLY_ANSWERS, &["imagery.requests_per_host=6"]));
    assert!((six.seconds() - 1.1).abs() < 1e-6, "{}", six.seconds());
    // No classification, no overviews.
    let sets = ["imagery.requests_per_host=16", "chips.max_bad_fraction=1", "chips.harmonise=stac"];
    let bare = one_chip(&model(ONLY_ANSWERS, &sets));
    assert!((bare.seconds() - 0.3).abs() < 1e-6, "{}", bare.seconds());
}

#[test]
fn a_cloudy_scene_costs_its_look() {
    let options = ONLY_ANSWERS.replace("--cloudy 0", "--cloudy 1");
    let cloudy = one_chip(&model(&options, &["imagery.requests_per_host=16"]));
    assert!((cloudy.seconds() - 0.9 - 7.0 * 0.2).abs() < 1e-6, "seven looks in vain: {}", cloudy.seconds());
    assert_eq!(cloudy.blocks, 11 + 7);
}

#[test]
fn every_task_is_settled_once_and_twice_the_same() {
    let model = model("", &["kafka.partitions=20"]);
    let tasks = tasks(&model, 600, 12.0);
    let drawn: u64 = tasks.iter().map(|t| u64::from(t.drawn)).sum();
    let mut before = f64::INFINITY;
    for workers in [1, 3, 20, 40] {
        let done = engine::run(&model, &tasks, workers);
        assert_eq!((done.tasks, done.chips), (600, drawn), "{workers} workers");
        assert_eq!(done, engine::run(&model, &tasks, workers));
        assert!(done.seconds() <= before * 1.02, "{workers} workers: {} after {before} s", done.seconds());
        before = done.seconds();
    }
    let idle = engine::run(&model, &tasks, 40);
    assert_eq!(idle.limit(model.partitions), "kafka.partitions");
    assert!(idle.even < 0.55, "half of them have nothing to do: {}", idle.even);
}

#[test]
fn neighbours_share_blocks_only_while_the_cache_holds_them() {
    let sizes = ["worker.cache_mb=448", "worker.cache_mb=16"];
    let [large, small] = sizes.map(|cache| {
        let model = model("--cloudy 0", &[cache, "stac.season=summer", "kafka.partitions=1"]);
        engine::run(&model, &tasks(&model, 900, 10.0), 1).blocks
    });
    assert!(small > large * 3 / 2, "{small} blocks fetched, {large} with a large cache");
}

#[test]
fn the_limit_is_what_was_made_small() {
    let fast = "--latency 1 --stac-latency 1 --link-mbit 0";
    let cases = [
        ("", "cores", 4),
        ("--image-rate 50", "image host, requests", 4),
        ("--image-mbit 50", "image host, bytes", 4),
        ("--store-mbit 50", "output, bytes", 4),
        ("--store-rate 50", "output, operations", 4),
        ("--stac-rate 0.05", "STAC API", 4),
        ("--broker-rate 1", "broker", 4),
        ("--link-mbit 20", "link", 4),
        ("--latency 400", "requests_per_host", 1),
    ];
    for (option, limit, requests) in cases {
        let line = match option {
            "--link-mbit 20" => format!("--latency 1 --stac-latency 1 {option}"),
            "--latency 400" => format!("--stac-latency 1 --link-mbit 0 {option}"),
            _ => format!("{fast} {option}"),
        };
        let sets = format!("imagery.requests_per_host={requests}");
        let model = model(&line, &[&sets, "worker.cores=1", "kafka.partitions=8"]);
        let done = engine::run(&model, &tasks(&model, 300, 8.0), 4);
        assert_eq!(done.limit(model.partitions), limit, "{line}: {:?}", done.shares);
    }
}

#[test]
fn the_table_and_the_object_say_the_same() {
    let model = model("", &[]);
    let runs = [engine::run(&model, &tasks(&model, 50, 5.0), 2)];
    let mut out = Vec::new();
    outcome::table(&runs, model.partitions).write(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let rate = format!("{:.1}", runs[0].json(15)["chips_per_s"].as_f64().unwrap());
    assert!(text.lines().nth(1).unwrap().contains(&rate), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Nothing is done faster than its server can.
    #[test]
    fn no_run_is_faster_than_the_work_it_holds(
        workers in 1..12_u32, cores in 1..4_u32, requests in 1..20_u32, rate in 5..200_u32, mbit in 20..2000_u32,
    ) {
        let sets = [
            format!("worker.cores={cores}"), format!("imagery.requests_per_host={requests}"), "kafka.partitions=9".into(),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let model = model(&format!("--image-rate {rate} --image-mbit {mbit} --store-mbit {mbit} --encode-ms 9"), &sets);
        let done = engine::run(&model, &tasks(&model, 120, 6.0), workers);
        let least = [
            done.requests as f64 / f64::from(rate),
            done.bytes_in * 8e-6 / f64::from(mbit),
            done.bytes_out * 8e-6 / f64::from(mbit),
            done.requests as f64 * 0.04 / f64::from(requests * workers),
            done.chips as f64 * 0.0095 / f64::from(cores * workers),
        ];
        for (which, least) in least.into_iter().enumerate() {
            prop_assert!(done.seconds() >= least * 0.999, "bound {which}: {} s, at least {least}", done.seconds());
        }
    }
}
