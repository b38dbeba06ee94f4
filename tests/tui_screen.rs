//! The monitor's full screen, character by character, at the sizes people have.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use satellite_pipeline::domain::classes::ClassId;
use satellite_pipeline::domain::plan_record::{ClassPlan, PLAN_SCHEMA, PlanRecord, PlanState};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::tally::Tally;
use satellite_pipeline::domain::view::View;
use satellite_pipeline::node::monitor_view::{Lag, Style};
use satellite_pipeline::node::tui::{Pane, Scene, State, draw};

const NAMES: [&str; 8] =
    ["olives", "vineyards", "fruit", "orchards_forest", "cereals", "legumes", "vegetables", "fallow"];

fn class(n: u8) -> ClassId {
    ClassId::try_from(n).unwrap()
}

fn result(task: u64, status: Status) -> TaskResult {
    let chips = if status == Status::Success { 16 } else { 0 };
    TaskResult {
        task_id: task,
        worker_id: format!("host-{}", task % 3),
        bbox: [0.0, 0.0, 1.0, 1.0],
        chips_saved: chips,
        chips_per_class: (1..=8).map(|c| (class(c), chips / 8)).collect(),
        status,
        target_samples: BTreeMap::new(),
        sampling_probs: BTreeMap::new(),
        error: status.is_failure().then(|| format!("pixels: GET https://example.org/{task}/B04.tif: 404 Not Found")),
        run_id: Some("7d1c".into()),
        chips_rejected: BTreeMap::from([("nodata".into(), 1)]),
        sampled: 0,
        finished_ms: 1_000_000 + task * 1_000,
        elapsed_ms: 0,
    }
}

fn view() -> View {
    let mut tally = Tally::default();
    let planned = |(i, name): (usize, &&str)| {
        let target = Some(40 + 40 * i as u64);
        let plan = ClassPlan { name: (*name).into(), colour: "#6b8e23".into(), parcels: 99, expected: 50, target };
        (class(i as u8 + 1), plan)
    };
    tally.plan(PlanRecord {
        schema: PLAN_SCHEMA,
        run_id: "7d1c".into(),
        state: PlanState::Published,
        tasks: 40,
        parcels: 400,
        classes: NAMES.iter().enumerate().map(planned).collect(),
        seed: 1,
        created_ms: 1,
    });
    for task in 1..=30 {
        let status = if task % 10 == 0 { Status::FailedDownload } else { Status::Success };
        tally.apply(&result(task, status), 0);
    }
    View::of(&tally, 1_031_000, None)
}

const LAG: [Lag; 2] = [Lag { partition: 0, behind: 3 }, Lag { partition: 1, behind: 7 }];

fn screen(width: u16, height: u16, style: Style, state: &mut State) -> String {
    let view = view();
    let scene = Scene { view: &view, lag: Some(&LAG), caught_up: true, style };
    let log: Vec<String> = (0..300).map(|n| format!("INFO line {n}")).collect();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, &scene, &log, state)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_terminal_shows_all_that_matters() {
    let text = screen(80, 24, Style::default(), &mut State::new(true));
    let expected = " run 7d1c  at work  30s
tasks   30 of 40                  #################################-----------
        27 done  0 skipped  3 failed  10 waiting
chips   432 of 1440  29.0 %  14.4 chips/s  ETA 10s
lag     10 tasks in 2 of 2 partitions: p1 7, p0 3

class                 chips   target   per s    to go
  1 olives               54       40     1.8   filled  #########################
  2 vineyards            54       80     1.8      15s  ################---------";
    assert!(text.starts_with(expected), "{text}");
    for part in [
        "  8 fallow               54      320     1.8   2m 28s  ####-",
        "failed      3 x pixels: GET",
        "no chip    30 x nodata",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.ends_with(" 1 overview  2 workers  3 failures (3)  4 lag  5 log   p pause  ? keys  q quit"), "{text}");
    assert!(text.is_ascii(), "no UTF-8, no frames of it");
}

#[test]
fn a_large_terminal_shows_everything_at_once() {
    let text = screen(200, 50, Style { colour: true, blocks: true }, &mut State::new(true));
    for part in [
        "┌ overview ",
        "┌ workers ",
        "┌ failures ",
        "┌ lag ",
        "┌ log ",
        "host-2",
        "404 Not Found",
        "INFO line 299",
        "██",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn panes_scroll_and_stop_at_their_ends() {
    let mut state = State::new(true);
    let press = |state: &mut State, code| state.press(KeyEvent::new(code, KeyModifiers::NONE));
    press(&mut state, KeyCode::Char('5'));
    assert_eq!(state.pane, Pane::Log);
    assert!(screen(80, 24, Style::default(), &mut state).contains("INFO line 299"), "a log is read from its end");
    for _ in 0..100 {
        press(&mut state, KeyCode::PageDown);
    }
    assert!(screen(80, 24, Style::default(), &mut state).contains("INFO line 0"));
    press(&mut state, KeyCode::Char('3'));
    let failures = screen(80, 24, Style::default(), &mut state);
    assert!(failures.contains("task 30  failed_download  worker host-0  1s ago"), "{failures}");
    press(&mut state, KeyCode::Char('?'));
    assert!(screen(80, 24, Style::default(), &mut state).contains("any key closes this"));
}

#[test]
fn no_size_is_too_small_to_draw() {
    for (width, height) in [(1, 1), (20, 6), (40, 10), (80, 3), (109, 29), (110, 30), (300, 100)] {
        for pane in ['1', '2', '3', '4', '5'] {
            let mut state = State::new(false);
            state.press(KeyEvent::new(KeyCode::Char(pane), KeyModifiers::NONE));
            state.help = true;
            screen(width, height, Style { colour: true, blocks: true }, &mut state);
        }
    }
}
