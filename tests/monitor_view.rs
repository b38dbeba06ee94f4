//! The monitor's views, word for word.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use satellite_pipeline::domain::progress::Progress;
use satellite_pipeline::node::monitor_view::{Lag, Style, WIDTH, json, one_line, summary};
use std::collections::BTreeMap;

use satellite_pipeline::domain::classes::ClassId;
use satellite_pipeline::domain::plan_record::{ClassPlan, PLAN_SCHEMA, PlanRecord, PlanState};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::tally::Tally;

fn class(n: u8) -> ClassId {
    ClassId::try_from(n).unwrap()
}

fn result(task: u64, worker: &str, chips: &[(u8, u64)], status: Status) -> TaskResult {
    TaskResult {
        task_id: task,
        worker_id: worker.into(),
        bbox: [0.0, 0.0, 1.0, 1.0],
        chips_saved: chips.iter().map(|(_, n)| n).sum(),
        chips_per_class: chips.iter().map(|(c, n)| (class(*c), *n)).collect(),
        status,
        target_samples: BTreeMap::new(),
        sampling_probs: BTreeMap::new(),
        error: status.is_failure().then(|| format!("scenes: GET https://example.org/{task}: 503\u{7}")),
        run_id: Some("r-1".into()),
        chips_rejected: BTreeMap::from([("nodata".into(), 1)]),
        sampled: 0,
        finished_ms: 1_000_000 + task * 10_000,
        elapsed_ms: 0,
    }
}

fn plan() -> PlanRecord {
    let of = |n: u8, name: &str, target| {
        let plan = ClassPlan { name: name.into(), colour: "#102030".into(), parcels: 99, expected: 50, target };
        (class(n), plan)
    };
    PlanRecord {
        schema: PLAN_SCHEMA,
        run_id: "r-1".into(),
        state: PlanState::Published,
        tasks: 10,
        parcels: 400,
        classes: BTreeMap::from([
            of(1, "olives", Some(20)),
            of(3, "a very long name of a class\u{1b}", Some(4)),
            of(8, "fallow", None),
        ]),
        seed: 1,
        created_ms: 1,
    }
}

fn tally() -> Tally {
    let mut tally = Tally::default();
    tally.plan(plan());
    tally.apply(&result(1, "9", &[(1, 5)], Status::Success), 0);
    tally.apply(&result(2, "10", &[(1, 2), (3, 6)], Status::Success), 0);
    tally.apply(&result(3, "9", &[], Status::SkippedFewPolygons), 0);
    tally.apply(&result(4, "10", &[], Status::FailedDownload), 0);
    tally.apply(&result(5, "10", &[], Status::FailedDownload), 0);
    tally
}

const LAG: [Lag; 3] =
    [Lag { partition: 0, behind: 0 }, Lag { partition: 1, behind: 2 }, Lag { partition: 2, behind: 3 }];

#[test]
fn a_summary_is_exactly_this() {
    let text = summary(&Progress::of(&tally(), 1_110_000), Style::default());
    assert_eq!(
        text,
        "\
run r-1 is not complete
tasks     5 of 10  [###############---------------]
          2 success, 2 failed_download, 1 skipped_few_polygons
chips     13 of 24  45.8 %  in 40s, 0.3 chips/s

class                    chips    target       %
  1 olives                   7        20    35.0  [#########-----------------]
  3 a very long na..         6         4   150.0  [##########################]
  8 fallow                   0         -       -

failed         2 x scenes: GET https://example.org/#: #?

no chip        5 x nodata

worker                              tasks   failed      chips   last seen
9                                       2        0          5   20s ago
10                                      3        2          8   0s ago
"
    );
}

#[test]
fn an_empty_tally_has_a_line() {
    let waiting = [Lag { partition: 0, behind: 0 }];
    assert_eq!(one_line(&Progress::of(&Tally::default(), 5), Some(&waiting)), "0 tasks, 0 chips, 0.0 chips/s, lag 0");
}

#[test]
fn one_line_says_the_essentials() {
    assert_eq!(
        one_line(&Progress::of(&tally(), 1_110_000), Some(&LAG)),
        "5 of 10 tasks (2 failed, 1 skipped), 13 chips (45.8 % of target), 0.1 chips/s, ETA 1m 40s, lag 5"
    );
}

#[test]
fn the_summary_says_whether_it_is_complete() {
    let mut tally = tally();
    let text = summary(&Progress::of(&tally, 2_000_000), Style::default());
    assert!(text.starts_with("run r-1 is not complete\n"), "{text}");
    for task in 4..=10 {
        tally.apply(&result(task, "w", &[(1, 2)], Status::Success), 0);
    }
    let text = summary(&Progress::of(&tally, 2_000_000), Style::default());
    let lines: Vec<_> = text.lines().take(4).collect();
    assert_eq!(
        lines,
        [
            "run r-1 is complete",
            "tasks     10 of 10  [##############################]",
            "          9 success, 1 skipped_few_polygons",
            "chips     27 of 24  100.0 %  in 1m 30s, 0.3 chips/s",
        ]
    );
}

#[test]
fn json_has_the_fields_readers_rely_on() {
    let text = json(&Progress::of(&tally(), 1_110_000), Some(&LAG)).unwrap();
    assert!(!text.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["run_id"], "r-1");
    assert_eq!(value["plan"], "published");
    assert_eq!((&value["tasks_planned"], &value["tasks_done"]), (&10.into(), &5.into()));
    assert_eq!(value["statuses"]["failed_download"], 2);
    assert_eq!((&value["chips"], &value["complete"]), (&13.into(), &false.into()));
    assert_eq!((&value["classes"][0]["class"], &value["classes"][0]["target"]), (&1.into(), &20.into()));
    assert_eq!((&value["workers"][1]["worker"], &value["workers"][1]["chips"]), (&"10".into(), &8.into()));
    assert_eq!(value["lag"][2]["behind"], 3);
    assert_eq!(value["eta_s"], 100);
}

#[test]
fn colours_and_blocks_only_where_welcome() {
    let progress = Progress::of(&tally(), 1_110_000);
    let rich = summary(&progress, Style { colour: true, blocks: true });
    assert!(rich.contains("[\u{1b}[38;2;16;32;48m\u{2588}\u{2588}"), "{rich}");
    let plain = summary(&progress, Style::default());
    assert!(plain.is_ascii() && !plain.contains('\u{1b}'));
    assert!(plain.lines().all(|line| line.chars().count() <= WIDTH));
    let style = |terminal, pairs: &[(&str, &str)]| {
        let vars: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Style::of(terminal, |name| vars.get(name).cloned())
    };
    assert_eq!(style(true, &[("LANG", "C.UTF-8")]), Style { colour: true, blocks: true });
    assert_eq!(style(true, &[("NO_COLOR", "1"), ("LC_ALL", "C"), ("LANG", "C.UTF-8")]), Style::default());
    assert_eq!(style(true, &[("NO_COLOR", ""), ("TERM", "dumb")]), Style::default());
    assert_eq!(style(false, &[("LANG", "es_ES.utf8")]), Style { colour: false, blocks: true });
}

#[test]
fn many_workers_are_summed_up() {
    let mut tally = tally();
    for n in 0..40 {
        tally.apply(&TaskResult { run_id: Some("r-1".into()), ..result(6, "x", &[], Status::Failed) }, 0);
        let name = format!("host-with-a-name-that-is-much-too-long-{n:02}");
        tally.apply(&TaskResult { run_id: None, ..result(100 + n, &name, &[(1, 1)], Status::Success) }, 0);
    }
    tally.plan(PlanRecord { tasks: 1000, created_ms: 2, ..plan() });
    let text = summary(&Progress::of(&tally, 2_200_000), Style::default());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    assert!(text.contains("and 27 more"), "{text}");
}
