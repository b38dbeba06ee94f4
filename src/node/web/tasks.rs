//! The list of tasks and the page of one task.
//!
//! Contract: addresses carry a number, a state and a page, nothing else is used of them; lists have [`PER_PAGE`] lines.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{Frame, answer};
use super::panels::{chips_by_class, pair};
use super::words::{class_name, count, degrees, moment as when, span};
use super::{Moment, Site, problem};
use crate::domain::cell::{Cell, CellState};
use crate::domain::manifest::Manifest;
use crate::domain::task::{TaskKey, is_safe_run_id};

/// Lines of a list.
pub(super) const PER_PAGE: usize = 100;
/// Pictures on a task's page.
const PICTURES: usize = 60;

/// What a list may be asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    pub(super) state: Option<String>,
    pub(super) page: Option<String>,
    pub(super) per_page: Option<String>,
}

/// A part of the cells: those of one state, cut into pages. Failed ones come newest first, the others by number.
pub(super) struct Part {
    pub(super) state: Option<CellState>,
    pub(super) total: usize,
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) per_page: usize,
    /// Places in the view's cells.
    pub(super) places: Vec<usize>,
}

impl Part {
    /// The part asked for, or what is wrong with the question.
    pub(super) fn of(moment: &Moment, asked: &Asked) -> Result<Self, String> {
        let state = match asked.state.as_deref().filter(|s| !s.is_empty()) {
            None => None,
            Some(name) => Some(CellState::named(name).ok_or("state is one of done, skipped, failed, waiting")?),
        };
        let number = |text: &Option<String>, most: usize, usual: usize, what: &str| match text.as_deref() {
            None => Ok(usual),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=most).contains(n))
                .ok_or_else(|| format!("{what} is a number from 1 to {most}")),
        };
        let page = number(&asked.page, 1_000_000, 1, "page")?;
        let per_page = number(&asked.per_page, 1000, PER_PAGE, "per_page")?;
        let cells = &moment.view.cells;
        let places: Vec<usize> = match state {
            Some(CellState::Failed) => moment.view.failed.to_vec(),
            Some(state) => (0..cells.len()).filter(|i| cells[*i].state() == state).collect(),
            None => (0..cells.len()).collect(),
        };
        let (total, pages) = (places.len(), places.len().div_ceil(per_page).max(1));
        let places = places.into_iter().skip((page - 1) * per_page).take(per_page).collect();
        Ok(Self { state, total, page, pages, per_page, places })
    }
}

pub(super) async fn list(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Response {
    let moment = site.moment();
    let part = match Part::of(&moment, &asked) {
        Ok(part) => part,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    let here = if part.state == Some(CellState::Failed) { "/tasks?state=failed" } else { "/tasks" };
    let name = part.state.map_or("Tasks".to_owned(), |state| format!("Tasks: {}", state.as_str()));
    let content = html! {
        h1 { (name) }
        p { a href="/tasks" { "all" } @for state in CellState::ALL {
            " · " a href={ "/tasks?state=" (state.as_str()) } { (state.as_str()) }
        } }
        p.faint { (count(part.total as u64)) " tasks" @if part.pages > 1 { ", page " (part.page) " of " (part.pages) } }
        @if part.places.is_empty() { p { "None." } } @else { (table(&moment, &part)) }
        (turning(&part))
    };
    answer(&moment, &Frame { title: &name, here, again_s: None, live: false }, &content)
}

fn table(moment: &Moment, part: &Part) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Tasks" { table {
            thead { tr { th { "Task" } th { "State" } th.n { "Chips" } th { "Worker" } th { "Ended" } th { "Why" } } }
            tbody { @for cell in part.places.iter().map(|i| &moment.view.cells[*i]) {
                tr {
                    th scope="row" { a href={ "/tasks/" (cell.task) } { (cell.task) } }
                    @if let Some(o) = &cell.outcome {
                        td { (o.status.as_str()) }
                        td.n { (count(o.chips)) }
                        td { (o.worker) }
                        td { (when(o.when_ms)) }
                        td.why { (o.reason.as_deref().or(o.kind.as_deref()).unwrap_or_default()) }
                    } @else { td { "waiting" } td.n { "–" } td {} td {} td {} }
                }
            } }
        } }
    }
}

fn turning(part: &Part) -> Markup {
    let state = part.state.map(|s| format!("state={}&", s.as_str())).unwrap_or_default();
    let to = |page: usize| format!("/tasks?{state}page={page}&per_page={}", part.per_page);
    html! {
        @if part.pages > 1 {
            nav.turning aria-label="Pages of the list" {
                @if part.page > 1 { a rel="prev" href=(to(part.page - 1)) { "← previous" } }
                @if part.page < part.pages { a rel="next" href=(to(part.page + 1)) { "next →" } }
            }
        }
    }
}

pub(super) async fn one(State(site): State<Arc<Site>>, Path(task): Path<String>) -> Response {
    let moment = site.moment();
    let Some(cell) = task.parse().ok().and_then(|task| moment.view.cell(task)) else {
        return problem(StatusCode::NOT_FOUND, "there is no such task in this run");
    };
    let key = moment.run().filter(|run| is_safe_run_id(run)).map(|run| TaskKey { run: run.into(), task: cell.task });
    let manifest = match key {
        Some(key) if cell.state() == CellState::Done => site.pictures.manifest(key).await,
        _ => None,
    };
    let title = format!("Task {}", cell.task);
    let frame = Frame { title: &title, here: "", again_s: None, live: false };
    answer(&moment, &frame, &about(&moment, cell, manifest.as_ref()))
}

fn about(moment: &Moment, cell: &Cell, manifest: Option<&Manifest>) -> Markup {
    let classes = &moment.view.progress.classes;
    html! {
        h1 { "Task " (cell.task) ": " (cell.state().as_str()) }
        @if let Some(reason) = cell.outcome.as_ref().and_then(|o| o.reason.as_deref().or(o.kind.as_deref())) {
            h2 { "Why it failed" }
            pre #reason { (reason) }
            p.faint {
                "With Kafka the task is in the dead-letter topic: " code { "node dlq list" } " shows it, " code { "node dlq replay" }
                " publishes it again. With the embedded broker, start the run again. A later success takes the failure's place."
            }
        }
        dl.facts {
            @if let Some(bbox) = cell.bbox { dt { "Cell" } dd { (degrees(bbox)) } }
            @if let Some(o) = &cell.outcome {
                dt { "Status" } dd { (o.status.as_str()) }
                dt { "Worker" } dd { (o.worker) }
                dt { "Ended" } dd { (when(o.when_ms)) @if o.elapsed_ms > 0 { ", after " (span(o.elapsed_ms.div_ceil(1000))) } }
                dt { "Chips" } dd { (count(o.chips)) @if o.chips > 0 { " (" (chips_by_class(cell, classes)) ")" } }
                @if !o.rejected.is_empty() {
                    dt { "Parcels without a chip" }
                    dd { @for (i, (why, n)) in o.rejected.iter().enumerate() { @if i > 0 { ", " } (count(*n)) " " (why) } }
                }
            } @else { dt { "Status" } dd { "waiting, or in a worker's hands" } }
        }
        @if let Some(manifest) = manifest {
            h2 { "Chips" }
            ul.chips {
                @for (i, chip) in manifest.chips.iter().take(PICTURES).enumerate() {
                    li {
                        (pair(&manifest.key.run, cell.task, i as u64))
                        small { (class_name(classes, chip.class)) ", parcel " (chip.parcel) br; (chip.item) }
                    }
                }
            }
            @if manifest.chips.len() > PICTURES { p.faint { "and " (manifest.chips.len() - PICTURES) " more" } }
        }
    }
}
