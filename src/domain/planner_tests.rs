//! Tests of [`super::Planner`].
use super::*;
use crate::domain::season::{Season, Seasons};
use proptest::prelude::*;

fn class(n: u8) -> ClassId {
    ClassId::try_from(n).unwrap()
}

fn seasons() -> Seasons {
    let season = |(name, first, last)| Season::new(name, first, last).unwrap();
    let windows = [("spring", "2023-03-21", "2023-06-20"), ("summer", "2023-06-21", "2023-09-22")];
    Seasons::new(windows.map(season).to_vec()).unwrap()
}

fn settings() -> PlanSettings {
    PlanSettings {
        seed: 42,
        step: 0.05,
        min_parcels: 3,
        order: Order::Space,
        sampling: Sampling::Balanced {
            probabilities: BTreeMap::from([(class(1), 0.2), (class(5), 1.0)]),
            conversion_rate: 0.35,
            max_target: 15_000,
            quotas: BTreeMap::new(),
        },
        classes: BTreeMap::from([(class(1), "olives".into()), (class(5), "cereals".into())]),
        seasons: seasons(),
        partitions: 4,
        run_id: None,
        context: "layer".into(),
    }
}

fn parcel(id: i64, lookup: Lookup, lon: f64, lat: f64) -> ScannedParcel {
    let label = (lookup == Lookup::Unknown).then(|| Arc::from(format!("code {}", id % 3)));
    ScannedParcel { id, class: lookup, label, place: Ok([lon, lat]) }
}

fn plan_of(settings: PlanSettings, parcels: &[ScannedParcel]) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(settings).unwrap();
    parcels.iter().for_each(|p| planner.add(p));
    planner.finish()
}

/// 100 cereals in one cell, 2 in another, 3 unknown in a third.
fn region() -> Vec<ScannedParcel> {
    let mut parcels: Vec<ScannedParcel> =
        (0..100).map(|id| parcel(id, Lookup::Class(class(5)), -3.01, 40.01)).collect();
    parcels.extend((100..102).map(|id| parcel(id, Lookup::Class(class(1)), -2.0, 40.0)));
    parcels.extend((102..105).map(|id| parcel(id, Lookup::Unknown, -1.0, 40.0)));
    parcels.push(ScannedParcel { place: Err(Reject::NullGeometry), ..parcel(105, Lookup::Excluded, 0.0, 0.0) });
    parcels.push(parcel(106, Lookup::Excluded, -3.01, 40.01));
    parcels.push(parcel(107, Lookup::Excluded, 180.0, 0.0));
    parcels
}

#[test]
fn counts_targets_and_reasons_are_those_of_the_rows() {
    let plan = plan_of(settings(), &region()).unwrap();
    let s = &plan.summary;
    assert_eq!((s.rows, s.parcels, s.excluded, s.unknown, s.tasks, s.expected), (108, 106, 1, 3, 1, 100));
    assert_eq!(s.rejected, BTreeMap::from([("null_geometry".into(), 1), ("off_the_map".into(), 1)]));
    assert_eq!(s.dropped_cells, BTreeMap::from([(FEW_PARCELS.into(), 1), (NO_CLASS.into(), 1)]));
    let cereals = &s.classes[&class(5)];
    assert_eq!((cereals.parcels, cereals.planned, cereals.cells, cereals.expected), (100, 100, 1, 100));
    assert_eq!((cereals.probability, cereals.target), (Some(1.0), Some(35)));
    let olives = &s.classes[&class(1)];
    assert_eq!((olives.parcels, olives.planned, olives.target), (2, 0, Some(0)));
    assert_eq!(s.unknown_codes.len(), 3);
    let task = &plan.tasks[0].task;
    assert_eq!((task.task_id, task.polygon_count, task.seed, task.schema), (1, 101, Some(42), Some(SCHEMA)));
    assert!(task.holds(-3.01, 40.01));
    assert_eq!(task.run_id.as_ref(), Some(&s.run_id));
    assert_eq!(Task::parse(&serde_json::to_vec(task).unwrap()).unwrap(), *task);
    let json = serde_json::to_string(s).unwrap();
    assert_eq!(serde_json::from_str::<PlanSummary>(&json).unwrap(), *s);
}

#[test]
fn targets_floor_the_exact_product_and_stop_at_the_limit() {
    let cereals: Vec<ScannedParcel> = (0..100).map(|id| parcel(id, Lookup::Class(class(1)), -3.01, 40.01)).collect();
    let plan = plan_of(settings(), &cereals).unwrap();
    assert_eq!(plan.summary.classes[&class(1)].target, Some(7), "100 x 0.2 x 0.35");
    let mut low = settings();
    if let Sampling::Balanced { max_target, .. } = &mut low.sampling {
        *max_target = 5;
    }
    assert_eq!(plan_of(low, &cereals).unwrap().summary.classes[&class(1)].target, Some(5));
}

#[test]
fn mode_basic_takes_everything_and_sends_no_targets() {
    let basic = PlanSettings { sampling: Sampling::Basic, ..settings() };
    let plan = plan_of(basic, &region()).unwrap();
    let task = &plan.tasks[0].task;
    assert!(task.sampling_probs.is_empty() && task.target_samples.is_empty());
    assert_eq!((plan.summary.expected, plan.summary.classes[&class(5)].target), (100, None));
}

#[test]
fn a_class_with_probability_zero_makes_no_task() {
    let mut s = settings();
    if let Sampling::Balanced { probabilities, .. } = &mut s.sampling {
        probabilities.insert(class(5), 0.0);
    }
    assert!(matches!(plan_of(s, &region()), Err(PlanError::NoTasks { few: 1, no_class: 2, .. })));
}

#[test]
fn the_number_of_partitions_does_not_change_the_run() {
    let many = PlanSettings { partitions: 15, ..settings() };
    assert_eq!(
        plan_of(settings(), &region()).unwrap().summary.run_id,
        plan_of(many, &region()).unwrap().summary.run_id
    );
}

#[test]
fn what_cannot_be_planned_says_why() {
    let text = |s: PlanSettings, p: &[ScannedParcel]| plan_of(s, p).unwrap_err().to_string();
    assert!(text(settings(), &[]).contains("none of the 0 rows"));
    let null = ScannedParcel { place: Err(Reject::NullGeometry), ..parcel(1, Lookup::Excluded, 0.0, 0.0) };
    assert!(text(settings(), &[null]).contains("null_geometry: 1"));
    let unknown = text(settings(), &[parcel(1, Lookup::Unknown, 0.0, 0.0)]);
    assert!(unknown.contains("1 are known to no rule (code 1)"), "{unknown}");
    let lonely = text(settings(), &[parcel(1, Lookup::Class(class(5)), 0.0, 0.0)]);
    assert!(lonely.contains("1 cells have fewer than 3 parcels"), "{lonely}");
    let refused = |change: fn(&mut PlanSettings)| {
        let mut s = settings();
        change(&mut s);
        Planner::new(s).unwrap_err().to_string()
    };
    assert!(refused(|s| s.step = 0.0).contains("grid.step"));
    assert!(refused(|s| s.partitions = 0).contains("kafka.partitions"));
    assert!(refused(|s| s.run_id = Some("../x".into())).contains("run.id"));
    assert!(refused(|s| drop(s.classes.insert(class(7), "vegetables".into()))).contains("class 7 (vegetables)"));
    assert!(refused(|s| drop(s.classes.remove(&class(1)))).contains("names class 1"));
    let share = |s: &mut PlanSettings| {
        if let Sampling::Balanced { conversion_rate, .. } = &mut s.sampling {
            *conversion_rate = 1.5;
        }
    };
    assert!(refused(share).contains("sampling.conversion_rate is 1.5"));
}

#[test]
fn the_run_id_follows_the_plan_and_a_configured_one_wins() {
    let base = plan_of(settings(), &region()).unwrap().summary.run_id;
    assert_eq!(plan_of(settings(), &region()).unwrap().summary.run_id, base);
    let other = |change: fn(&mut PlanSettings)| {
        let mut s = settings();
        change(&mut s);
        plan_of(s, &region()).unwrap().summary.run_id
    };
    assert_ne!(other(|s| s.seed = 43), base);
    assert_ne!(other(|s| s.context = "other".into()), base);
    assert_ne!(other(|s| s.step = 0.1), base);
    assert_eq!(other(|s| s.run_id = Some("spain-2023".into())), "spain-2023");
    assert_ne!(plan_of(settings(), &region()[1..]).unwrap().summary.run_id, base);
}

fn rows() -> impl Strategy<Value = Vec<ScannedParcel>> {
    prop::collection::vec((0..4u8, -400..400i32, -200..200i32, 0..5u8), 1..400).prop_map(|rows| {
        let row = |(id, (kind, x, y, odd)): (usize, (u8, i32, i32, u8))| {
            let lookup = match kind {
                0 => Lookup::Unknown,
                1 => Lookup::Excluded,
                2 => Lookup::Class(class(1)),
                _ => Lookup::Class(class(5)),
            };
            // Multiples of 0.025 so that many points lie on cell edges.
            let mut row = parcel(id as i64, lookup, f64::from(x / 8) * 0.025, 40.0 + f64::from(y / 8) * 0.025);
            if odd == 0 {
                row.place = Err(Reject::EmptyGeometry);
            }
            row
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #[test]
    fn the_plan_does_not_depend_on_the_order_of_rows(rows in rows(), seed: u64) {
        let mut shuffled = rows.clone();
        shuffled.sort_by_key(|p| crate::domain::sampling::splitmix64(seed ^ p.id as u64));
        prop_assert_eq!(plan_of(settings(), &rows), plan_of(settings(), &shuffled));
    }

    #[test]
    fn every_parcel_is_in_one_cell_and_numbers_add_up(rows in rows()) {
        let loose = PlanSettings { min_parcels: 0, ..settings() };
        let Ok(plan) = plan_of(loose, &rows) else { return Ok(()) };
        let placed: Vec<[f64; 2]> = rows.iter().filter_map(|p| p.place.ok()).collect();
        for [lon, lat] in &placed {
            prop_assert!(plan.tasks.iter().filter(|t| t.task.holds(*lon, *lat)).count() <= 1);
        }
        for planned in &plan.tasks {
            let inside = |p: &&ScannedParcel| p.place.is_ok_and(|[lon, lat]| planned.task.holds(lon, lat));
            let here: Vec<&ScannedParcel> = rows.iter().filter(inside).collect();
            prop_assert_eq!(here.len() as u64, planned.task.polygon_count);
            let drawn = here.iter().filter(|p| {
                let chance = p.class.class().map_or(0.0, |c| planned.task.sampling_probs[&c]);
                is_drawn(42, p.id, chance)
            });
            prop_assert_eq!(drawn.count() as u64, planned.expected_chips);
            let classes: u64 = planned.task.class_distribution.values().sum();
            prop_assert_eq!(here.iter().filter(|p| p.class.class().is_some()).count() as u64, classes);
        }
        let mut ids: Vec<u64> = plan.tasks.iter().map(|t| t.task.task_id).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (1..=plan.tasks.len() as u64).collect::<Vec<_>>());
        prop_assert!(plan.tasks.windows(2).all(|w| w[0].partition <= w[1].partition));
        prop_assert_eq!(plan.summary.partitions.iter().map(|p| p.tasks).sum::<u64>(), plan.summary.tasks);
    }
}

#[test]
fn a_series_expects_a_chip_of_every_season() {
    let plan = |seasons: Seasons| {
        let mut planner = Planner::new(PlanSettings { seasons, ..settings() }).unwrap();
        for id in 0..2000 {
            let lonlat = [-3.0 + (id % 40) as f64 * 0.01, 40.0];
            planner.add(&ScannedParcel { id, class: Lookup::Class(class(5)), label: None, place: Ok(lonlat) });
        }
        planner.finish().unwrap().summary
    };
    let (one, series) = (plan(seasons()), plan(seasons().every()));
    assert!(one.expected > 100);
    assert_eq!(series.expected, 2 * one.expected);
    let targets = |s: &PlanSummary| s.classes[&class(5)].target.unwrap();
    assert!(targets(&series) - 2 * targets(&one) <= 1, "but for rounding");
}

#[test]
fn the_rarest_come_first_and_only_the_order_changes() {
    // Thirty cells of olives; one in ten has a few cereals too.
    let mut parcels = Vec::new();
    for cell in 0..30_i64 {
        let lon = -3.01 + 0.05 * (cell % 6) as f64;
        let lat = 40.01 + 0.05 * (cell / 6) as f64;
        parcels.extend((0..100).map(|n| parcel(cell * 1000 + n, Lookup::Class(class(1)), lon, lat)));
        let cereals = if cell % 10 == 7 { 4 } else { 0 };
        parcels.extend((100..100 + cereals).map(|n| parcel(cell * 1000 + n, Lookup::Class(class(5)), lon, lat)));
    }
    let space = plan_of(settings(), &parcels).unwrap();
    let rarest = plan_of(PlanSettings { order: Order::Rarest, ..settings() }, &parcels).unwrap();
    assert_eq!(rarest.summary.run_id, space.summary.run_id);
    let by_number =
        |plan: &Plan| plan.tasks.iter().map(|t| (t.task.task_id, t.task.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(by_number(&rarest), by_number(&space), "the same tasks under the same numbers");
    let has_cereals = |t: &PlannedTask| t.task.class_distribution.contains_key(&class(5));
    assert!(rarest.tasks[..3].iter().all(has_cereals) && !rarest.tasks[3..].iter().any(has_cereals));
    assert!(!space.tasks[..3].iter().all(has_cereals));
    let dealt: Vec<i32> = rarest.tasks.iter().map(|t| t.partition).collect();
    assert_eq!(dealt, (0..30).map(|i| i % 4).collect::<Vec<_>>());
    assert_eq!(rarest.summary.partitions.iter().map(|p| p.tasks).sum::<u64>(), 30);
}

#[test]
fn a_quota_takes_the_place_of_the_largest_target() {
    let mut quoted = settings();
    if let Sampling::Balanced { quotas, .. } = &mut quoted.sampling {
        quotas.insert(class(5), 3);
    }
    let parcels: Vec<_> = (0..500).map(|id| parcel(id, Lookup::Class(class(5)), 1.01, 41.01)).collect();
    let target = |settings| plan_of(settings, &parcels).unwrap().summary.classes[&class(5)].target.unwrap();
    assert!(target(settings()) > 3);
    assert_eq!(target(quoted), 3);
}
