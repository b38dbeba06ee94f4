//! The panels of the overview as HTML: how far it is, classes, map, time, chips, failures, workers.
//!
//! Contract: pure functions of the moment; panels have an id, and their HTML stands inside a section of that id. Lists are
//! bounded, what is left out is counted and linked. States are told by word and pattern, never by colour alone.

use maud::{Markup, html};

use super::words::{ago, class_name, colour, count, moment as when, rate, span};
use super::{Moment, chart, map};
use crate::domain::cell::{Cell, CellState};
use crate::domain::crew::{Hand, crew};
use crate::domain::plan_record::PlanState;
use crate::domain::progress::{ClassProgress, Progress, Reason};
use crate::domain::roster::Presence;
use crate::domain::view::View;

/// Pictures on the overview, and most of one task.
const PICTURES: usize = 12;
const PICTURES_OF_TASK: u64 = 3;
/// Failures and workers on the overview.
const FAILURES: usize = 5;
const WORKERS: usize = 24;

/// A part of the overview that is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    pub(super) id: &'static str,
    pub(super) html: String,
}

/// All panels, in the order they stand on the page. `dataset`: whether there are pictures here.
pub(super) fn all(moment: &Moment, dataset: bool) -> Vec<Panel> {
    let (view, progress) = (&moment.view, &moment.view.progress);
    let panel = |id, html: Markup| Panel { id, html: html.into_string() };
    vec![
        panel("run", super::page::run_line(moment)),
        panel("summary", summary(moment)),
        panel("classes", classes(&progress.classes)),
        panel("map", map_panel(view)),
        panel("throughput", html! { h2 { "Chips over time" } (chart::chart(&view.throughput)) }),
        panel("chips", newest(view, dataset)),
        panel("workers", workers(progress, view.at_ms)),
        panel("failures", failures(view)),
    ]
}

fn summary(moment: &Moment) -> Markup {
    let (view, p) = (&moment.view, &moment.view.progress);
    let state = match p.plan {
        _ if !moment.caught_up => "reading what has happened so far",
        Some(PlanState::Publishing) => "tasks are being published",
        Some(PlanState::Published) if p.complete && p.tasks_failed > 0 => "complete, with failures",
        Some(PlanState::Published) if p.complete => "complete",
        Some(PlanState::Published) => "at work",
        None if p.tasks_done > 0 => "at work, without a plan",
        None => "waiting for a plan",
    };
    let lag = moment.lag.as_ref().map(|lag| lag.iter().map(|l| l.behind).sum::<u64>());
    let age = p
        .first_ms
        .map(|first| span(p.last_ms.filter(|_| p.complete).unwrap_or(view.at_ms).saturating_sub(first) / 1000));
    html! {
        h1 { (state) }
        dl.tiles {
            div { dt { "Tasks" } dd { (of(p.tasks_done, p.tasks_planned)) (meter(p.tasks_done, p.tasks_planned, "#3b7ea1")) } }
            div { dt { "Chips" } dd { (of(p.chips, p.chips_target))
                @if let Some(percent) = p.percent { small { (rate(percent)) " % of target" } } } }
            div { dt { "Chips per second" } dd { (rate(p.chips_per_s)) small { "mean " (rate(p.mean_chips_per_s)) } } }
            div { dt { "Time" } dd { (age.as_deref().unwrap_or("–"))
                @if let Some(eta) = p.eta_s.filter(|s| *s > 0) { small { "about " (span(eta)) " to go" } } } }
            @if let Some(lag) = lag {
                div { dt { "Not yet settled" } dd { (count(lag)) small { "messages in the tasks topic" } } }
            }
        }
        ul.states {
            @for state in CellState::ALL {
                li { (map::swatch(state)) " " a href={ "/tasks?state=" (state.as_str()) } { (count(view.count(state))) " " (state.as_str()) } }
            }
        }
        @if p.results_refused > 0 {
            p { strong { (count(p.results_refused)) } " results are not counted: there are more tasks than the monitor can hold." }
        }
    }
}

fn of(part: u64, whole: Option<u64>) -> Markup {
    html! { b { (count(part)) } @if let Some(whole) = whole { " of " (count(whole)) } }
}

/// A bar; the numbers stand beside it, so it is hidden from those who listen.
fn meter(part: u64, whole: Option<u64>, fill: &str) -> Markup {
    let share = |whole: u64| (part.min(whole) as f64 / whole.max(1) as f64 * 1000.0).round();
    html! {
        @if let Some(whole) = whole {
            svg.bar viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="1000" height="10" {}
                rect width=(share(whole)) height="10" fill=(fill) {}
            }
        }
    }
}

/// The table of classes.
pub(crate) fn classes(classes: &[ClassProgress]) -> Markup {
    html! {
        h2 { "Classes" }
        @if classes.is_empty() { p.faint { "No plan and no chip yet." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Classes" { table {
                thead { tr { th { "Class" } th.n { "Chips" } th.n { "Target" } th.n { "%" } th.n.wide { "per s" } th.n { "to go" } } }
                tbody { @for c in classes { (class(c)) } }
            } }
        }
    }
}

fn class(c: &ClassProgress) -> Markup {
    let name = if c.name.is_empty() { format!("class {}", c.class) } else { format!("{} {}", c.class, c.name) };
    let to_go = match c.eta_s {
        Some(0) => "filled".to_owned(),
        Some(s) => span(s),
        None => "–".to_owned(),
    };
    html! {
        tr {
            th scope="row" {
                svg.dot viewBox="0 0 10 10" aria-hidden="true" { rect width="10" height="10" rx="2" fill=(colour(&c.colour)) {} }
                (name) (meter(c.chips, c.target, colour(&c.colour)))
            }
            td.n { (count(c.chips)) }
            td.n { @if let Some(t) = c.target { (count(t)) } @else { "–" } }
            td.n { @if let Some(p) = c.percent { (rate(p)) } @else { "–" } }
            td.n.wide { (rate(c.chips_per_s)) }
            td.n { (to_go) }
        }
    }
}

fn map_panel(view: &View) -> Markup {
    html! { h2 { "Map" } (map::map(&view.cells, map::Links::Tasks)) }
}

fn newest(view: &View, dataset: bool) -> Markup {
    let run = view.progress.run_id.as_deref();
    let shown = view.newest.iter().map(|i| &view.cells[*i]).flat_map(|cell| {
        let chips = cell.outcome.as_ref().map_or(0, |o| o.chips);
        let n = chips.min(PICTURES_OF_TASK);
        (0..n).map(move |i| (cell.task, i * chips / n))
    });
    let shown: Vec<_> = shown.take(PICTURES).collect();
    html! {
        h2 { "Newest chips" }
        @match run {
            Some(run) if dataset && !shown.is_empty() => ul.chips { @for (task, chip) in shown { li { (pair(run, task, chip)) } } },
            _ if shown.is_empty() => p.faint { "None yet." },
            _ => p.faint { "Pictures are there where the monitor sees the dataset: output.dir is no directory of this machine." },
        }
    }
}

/// A chip's two pictures.
pub(super) fn pair(run: &str, task: u64, chip: u64) -> Markup {
    let address = |kind| format!("/pictures/{run}/{task}/{chip}/{kind}.png");
    html! {
        a href={ "/tasks/" (task) } {
            img src=(address("image")) width="128" height="128" loading="lazy" alt={ "Task " (task) ", chip " (chip) ": true colour" };
            img src=(address("mask")) width="128" height="128" loading="lazy" alt={ "Task " (task) ", chip " (chip) ": mask" };
            span { "task " (task) " · chip " (chip) }
        }
    }
}

fn failures(view: &View) -> Markup {
    let (total, p) = (view.failed.len(), &view.progress);
    html! {
        h2 { "Failures" }
        @if total == 0 { p.faint { "None." } }
        @else {
            (reasons(&p.failures, "tasks"))
            ul.failures { @for cell in view.latest_failures().take(FAILURES) { li { (failure(cell, view.at_ms)) } } }
            @if total > FAILURES { p { a href="/tasks?state=failed" { "all " (count(total as u64)) " failed tasks" } } }
        }
        @if !p.rejected.is_empty() {
            h3 { "Parcels that gave no chip" }
            (reasons(&p.rejected, "parcels"))
        }
    }
}

/// Reasons and how often they were given.
pub(crate) fn reasons(reasons: &[Reason], of: &str) -> Markup {
    html! { ul.reasons { @for r in reasons { li { b { (count(r.count)) } " " (of) ": " (r.reason) } } } }
}

fn failure(cell: &Cell, now_ms: u64) -> Markup {
    html! {
        a href={ "/tasks/" (cell.task) } { "task " (cell.task) }
        @if let Some(o) = &cell.outcome {
            " " span.faint { (o.status.as_str()) ", worker " (o.worker) ", " (ago(o.when_ms, now_ms)) }
            @if let Some(reason) = o.reason.as_ref().or(o.kind.as_ref()) { br; (reason) }
        }
    }
}

fn workers(p: &Progress, now_ms: u64) -> Markup {
    let hands = crew(p);
    let heard = hands.iter().any(|hand| hand.presence.is_some());
    html! {
        h2 { "Workers" }
        @if hands.is_empty() { p.faint { "None has said anything yet." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Workers" { table {
                thead { tr {
                    th { "Worker" } @if heard { th { "Is" } }
                    th.n { "Tasks" } th.n { "Failed" } th.n { "Chips" }
                    @if heard { th.n { "Chips/s" } th.n { "MB/s" } th.n { "Cache" } th { "In flight" } }
                    th.n { "Heard" }
                } }
                tbody { @for hand in hands.iter().take(WORKERS) { (worker(hand, heard, now_ms)) } }
            } }
            @if hands.len() > WORKERS { p.faint { "and " (hands.len() - WORKERS) " more: " a href="/api/v1/workers" { "all of them" } } }
        }
    }
}

fn worker(hand: &Hand, heard: bool, now_ms: u64) -> Markup {
    let dash = || "–".to_owned();
    let cache = hand.cache_share.map_or_else(dash, |share| format!("{:.0} %", share * 100.0));
    html! {
        tr {
            th scope="row" { (hand.worker) @if !hand.host.is_empty() && !hand.worker.starts_with(&hand.host) { br; small { (hand.host) } } }
            @if heard { td { (hand.presence.map_or("–", Presence::as_str)) } }
            td.n { (count(hand.tasks)) }
            td.n { (count(hand.failed)) }
            td.n { (count(hand.chips)) }
            @if heard {
                td.n { (hand.chips_per_s.map_or_else(dash, rate)) }
                td.n { (hand.bytes_per_s.map_or_else(dash, |bytes| rate(bytes / 1e6))) }
                td.n { (cache) }
                td { (hand.stages) }
            }
            td.n { time datetime=(when(hand.heard_ms)) { (ago(hand.heard_ms, now_ms)) } }
        }
    }
}

/// Chips by class in words: `3 fruit: 12, 5 cereals: 4`.
pub(super) fn chips_by_class(cell: &Cell, classes: &[ClassProgress]) -> String {
    let list = cell.outcome.iter().flat_map(|o| o.per_class.iter());
    let words: Vec<String> = list.map(|(class, n)| format!("{}: {n}", class_name(classes, *class))).collect();
    words.join(", ")
}
