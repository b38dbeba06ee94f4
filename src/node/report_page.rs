//! The report as HTML.
//!
//! Contract: pure; the drawings are the monitor's page's, the style sheet and the pictures stand in the file, and a policy
//! in its head forbids everything else, so that a reader's mail program has nothing to ask about.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};

use super::web::document::document;
use super::web::words::{class_name, count, moment, rate, span};
use super::web::{chart, map, panels};
use crate::domain::cell::CellState;
use crate::domain::classes::ClassId;
use crate::domain::view::View;

/// Failures that are listed one by one.
const FAILURES: usize = 50;

/// A chip with its pictures, PNG.
pub(super) struct Sample {
    pub(super) class: ClassId,
    pub(super) task: u64,
    pub(super) parcel: i64,
    pub(super) item: String,
    pub(super) image: Vec<u8>,
    pub(super) mask: Vec<u8>,
}

/// What a report is made from.
pub(super) struct Paper<'a> {
    pub(super) run: &'a str,
    pub(super) view: &'a View,
    pub(super) samples: &'a [Sample],
}

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole file.
pub(super) fn page(paper: &Paper<'_>) -> String {
    let (view, p) = (paper.view, &paper.view.progress);
    let more = html! {
        meta http-equiv="Content-Security-Policy" content=(POLICY);
        style { (PreEscaped(include_str!("web/style.css"))) }
    };
    let body = html! {
        header { p.brand { "satellite-pipeline" } p #run { "report of run " code { (paper.run) } } }
        main.panels {
            section #summary { (summary(view)) }
            section #classes { (panels::classes(&p.classes)) }
            section #map { h2 { "Map" } (map::map(&view.cells, map::Links::None)) }
            section #throughput { h2 { "Chips over time" } (chart::chart(&view.throughput)) }
            section #chips { (samples(paper)) }
            section #workers { (workers(view)) }
            section #failures { (failures(view)) }
        }
        footer { p { "Written by satellite-pipeline " (env!("CARGO_PKG_VERSION"))
            ". Pictures contain modified Copernicus Sentinel data, unless the scenes were made up." } }
    };
    document(&format!("Run {}", paper.run), &more, &body)
}

fn summary(view: &View) -> Markup {
    let p = &view.progress;
    let took = p.first_ms.zip(p.last_ms).map(|(first, last)| last.saturating_sub(first) / 1000);
    let tasks =
        |n: u64, whole: Option<u64>| html! { b { (count(n)) } @if let Some(whole) = whole { " of " (count(whole)) } };
    html! {
        h1 { @if p.complete { "complete" } @else if p.tasks_planned.is_some() { "not complete" } @else { "what is in the dataset" } }
        dl.tiles {
            div { dt { "Tasks" } dd { (tasks(p.tasks_done, p.tasks_planned)) } }
            div { dt { "Chips" } dd { (tasks(p.chips, p.chips_target)) @if let Some(part) = p.percent { small { (rate(part)) " % of target" } } } }
            div { dt { "Chips per second" } dd { b { (rate(p.mean_chips_per_s)) } small { "over the whole run" } } }
            div { dt { "From first to last result" } dd { b { (took.map(span).unwrap_or_default()) }
                small { (p.first_ms.map(moment).unwrap_or_default()) br; (p.last_ms.map(moment).unwrap_or_default()) } } }
        }
        ul.states { @for state in CellState::ALL { @if view.count(state) > 0 {
            li { (map::swatch(state)) " " (count(view.count(state))) " " (state.as_str()) }
        } } }
    }
}

fn failures(view: &View) -> Markup {
    let p = &view.progress;
    html! {
        h2 { "Failures" }
        @if p.tasks_planned.is_none() {
            p.faint { "Failed tasks leave nothing in a dataset; with the broker's address in the configuration the report has them." }
        } @else if view.failed.is_empty() { p.faint { "None." } }
        (panels::reasons(&p.failures, "tasks"))
        ul.failures { @for cell in view.failed.iter().take(FAILURES).map(|i| &view.cells[*i]) {
            @if let Some(o) = &cell.outcome {
                li { b { "task " (cell.task) } " " span.faint { (o.status.as_str()) ", worker " (o.worker) ", " (moment(o.when_ms)) }
                    br; (o.reason.as_deref().or(o.kind.as_deref()).unwrap_or_default()) }
            }
        } }
        @if view.failed.len() > FAILURES { p.faint { "and " (view.failed.len() - FAILURES) " more" } }
        @if !p.rejected.is_empty() { h3 { "Parcels that gave no chip" } (panels::reasons(&p.rejected, "parcels")) }
    }
}

fn workers(view: &View) -> Markup {
    html! {
        h2 { "Workers" }
        div.scroll { table {
            thead { tr { th { "Worker" } th.n { "Tasks" } th.n { "Failed" } th.n { "Chips" } th { "Last result" } } }
            tbody { @for w in &view.progress.workers {
                tr { th scope="row" { (w.worker) } td.n { (count(w.tasks)) } td.n { (count(w.failed)) } td.n { (count(w.chips)) } td { (moment(w.last_ms)) } }
            } }
        } }
    }
}

fn samples(paper: &Paper<'_>) -> Markup {
    let address = |png: &[u8]| format!("data:image/png;base64,{}", STANDARD.encode(png));
    let classes = &paper.view.progress.classes;
    html! {
        h2 { "Chips" }
        @if paper.samples.is_empty() { p.faint { "None." } }
        ul.chips { @for s in paper.samples {
            @let name = class_name(classes, s.class);
            li {
                div.pair {
                    img src=(address(&s.image)) width="128" height="128" alt={ (name) ": true colour" };
                    img src=(address(&s.mask)) width="128" height="128" alt={ (name) ": mask" };
                }
                small { (name) ", task " (s.task) ", parcel " (s.parcel) br; (s.item) }
            }
        } }
    }
}
