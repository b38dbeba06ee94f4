//! The tally against everything that may come twice, late, in another order, or from outside.

use proptest::prelude::*;

use super::*;
use crate::domain::plan_record::{PLAN_SCHEMA, PlanState};
use crate::domain::progress::Progress;
use crate::domain::result::Status;

fn class(n: u8) -> ClassId {
    ClassId::try_from(n).unwrap()
}

fn result(run: Option<&str>, task: u64, status: Status, chips: u64) -> TaskResult {
    let text = format!(
        r#"{{"task_id":{task},"worker_id":"w1","bbox":[0,0,1,1],"chips_saved":{chips},
            "chips_per_class":{{"1":{chips}}},"status":"{}"}}"#,
        status.as_str()
    );
    TaskResult { run_id: run.map(str::to_owned), ..serde_json::from_str(&text).unwrap() }
}

fn plan(run: &str, created_ms: u64, tasks: u64) -> PlanRecord {
    PlanRecord {
        schema: PLAN_SCHEMA,
        run_id: run.into(),
        state: PlanState::Published,
        tasks,
        parcels: 0,
        classes: BTreeMap::new(),
        seed: 0,
        created_ms,
    }
}

#[test]
fn a_success_replaces_a_failure_and_not_the_other_way() {
    let mut tally = Tally::default();
    let failed = TaskResult { error: Some("scenes: 503".into()), ..result(None, 1, Status::Failed, 0) };
    assert_eq!(tally.apply(&failed, 1), Applied::New);
    assert_eq!(Progress::of(&tally, 9).failures[0].reason, "scenes: #");
    assert_eq!(tally.apply(&result(None, 1, Status::Success, 5), 2), Applied::Better);
    assert_eq!(tally.apply(&failed, 3), Applied::Known);
    assert_eq!(tally.apply(&result(None, 1, Status::Success, 5), 4), Applied::Known);
    let progress = Progress::of(&tally, 9);
    assert_eq!((progress.tasks_done, progress.tasks_succeeded, progress.chips), (1, 1, 5));
    assert!(progress.failures.is_empty());
}

#[test]
fn the_plan_decides_what_counts() {
    let mut tally = Tally::default();
    for (run, task) in [(Some("old"), 1), (Some("new"), 1), (None, 2), (Some("new"), 2), (None, 77)] {
        tally.apply(&result(run, task, Status::Success, 3), 1);
    }
    assert_eq!(Progress::of(&tally, 9).tasks_done, 5, "no plan: everything counts");
    tally.plan(plan("old", 1, 2));
    tally.plan(plan("new", 2, 2));
    let progress = Progress::of(&tally, 9);
    assert_eq!((progress.run_id.as_deref(), progress.tasks_done, progress.chips), (Some("new"), 2, 6));
    assert!(progress.complete);
    let mut pinned = Tally::new(Some("old"));
    pinned.apply(&result(Some("old"), 1, Status::Success, 3), 1);
    pinned.plan(plan("new", 2, 2));
    pinned.plan(plan("old", 1, 2));
    let progress = Progress::of(&pinned, 9);
    assert_eq!((progress.run_id.as_deref(), progress.tasks_done, progress.complete), (Some("old"), 1, false));
}

#[test]
fn published_is_not_undone_and_a_restarted_master_is_believed() {
    let mut tally = Tally::default();
    tally.plan(plan("r", 5, 2));
    tally.plan(PlanRecord { state: PlanState::Publishing, ..plan("r", 5, 2) });
    assert_eq!(tally.shown_plan().unwrap().state, PlanState::Published);
    tally.plan(PlanRecord { state: PlanState::Publishing, ..plan("r", 6, 2) });
    assert_eq!(tally.shown_plan().unwrap().state, PlanState::Publishing);
    (0..200).for_each(|n| tally.plan(plan(&format!("r{n}"), 10 + n, 2)));
    assert_eq!((tally.plans.len(), tally.run()), (MAX_PLANS, Some("r199")));
}

#[test]
fn texts_from_outside_are_cleaned_and_bounded() {
    let mut tally = Tally::default();
    for n in 0..5_000_u64 {
        let error = Some(format!("{}\u{1b}[2J", "x".repeat((n % 400) as usize)));
        tally.apply(&TaskResult { error, worker_id: format!("w{n}"), ..result(None, 1, Status::Failed, 0) }, n);
    }
    assert!(tally.names.len() <= 2 * MIN_NAMES, "{}", tally.names.len());
    assert!(tally.names.iter().all(|name| name.chars().count() <= MAX_REASON && !name.contains('\u{1b}')));
}

#[test]
fn a_large_run_fits() {
    let mut tally = Tally::default();
    for task in 1..=20_000 {
        tally.apply(&result(Some("r"), task, Status::Success, 50), task);
    }
    tally.plan(plan("r", 1, 20_000));
    let progress = Progress::of(&tally, 20_000);
    assert_eq!((progress.chips, progress.complete), (1_000_000, true));
}

fn results() -> impl Strategy<Value = Vec<(TaskResult, u64)>> {
    let one = (0..3_usize, 1..6_u64, 0..Status::ALL.len(), 0..4_u64, 1..50_u64, 0..3_u8).prop_map(
        |(run, task, status, chips, when, worker)| {
            let mut r = result([None, Some("a"), Some("b")][run], task, Status::ALL[status], chips);
            r.worker_id = format!("w{worker}");
            r.finished_ms = if worker == 0 { 0 } else { when };
            r.error = r.status.is_failure().then(|| format!("reason {chips}"));
            r.target_samples = BTreeMap::from([(class(2), chips)]);
            (r, when)
        },
    );
    prop::collection::vec(one, 0..40)
}

proptest! {
    /// Neither order nor repetition changes anything that is shown, whenever the plan arrives.
    #[test]
    fn order_and_duplicates_do_not_matter(
        list in results(), shuffled in any::<u64>(), plan_at in 0..40_usize, planned in any::<bool>(),
    ) {
        let mut other = list.clone();
        other.extend(list.iter().take(7).cloned());
        other.sort_by_key(|(r, when)| {
            let key = format!("{shuffled}{}{}{when}{:?}", r.key(), r.worker_id, r.status);
            crate::domain::task::fnv1a(key.as_bytes())
        });
        let show = |list: &[(TaskResult, u64)], plan_at: usize| {
            let mut tally = Tally::default();
            for (i, (result, seen)) in list.iter().enumerate() {
                if planned && i == plan_at {
                    tally.plan(plan("a", 1, 4));
                }
                tally.apply(result, *seen);
            }
            if planned {
                tally.plan(plan("a", 1, 4));
            }
            Progress::of(&tally, 100)
        };
        prop_assert_eq!(show(&list, 0), show(&other, plan_at));
    }
}
