//! `/api/v1`: what the page shows, as JSON. Fields are described in `docs/api.md` and kept.
//!
//! Contract: reads only, from one moment; lists that grow with the run are paged. A question that cannot be answered is
//! `{"error": "…"}` with status 400 or 404.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::tasks::{Asked, Part};
use super::{Moment, Site};
use crate::domain::cell::{Cell, CellState};
use crate::domain::classes::ClassId;
use crate::domain::crew::{Hand, crew};
use crate::domain::progress::{ClassProgress, Progress, Reason};
use crate::domain::throughput::Throughput;
use crate::node::monitor_view::Lag;

pub(super) fn router() -> Router<Arc<Site>> {
    Router::new()
        .route("/progress", get(progress))
        .route("/classes", get(classes))
        .route("/workers", get(workers))
        .route("/cells", get(cells))
        .route("/cells/{task}", get(cell))
        .route("/failures", get(failures))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is no such resource"))
}

fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(serde_json::json!({ "error": text.into() }))).into_response()
}

async fn progress(State(site): State<Arc<Site>>) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        at_ms: u64,
        caught_up: bool,
        #[serde(flatten)]
        progress: &'a Progress,
        states: BTreeMap<&'static str, u64>,
        lag: Option<&'a [Lag]>,
        throughput: &'a Throughput,
    }
    let moment = site.moment();
    let view = &moment.view;
    let states = CellState::ALL.map(|state| (state.as_str(), view.count(state))).into();
    let (lag, throughput) = (moment.lag.as_deref(), &*view.throughput);
    let (at_ms, caught_up) = (view.at_ms, moment.caught_up);
    Json(Answer { at_ms, caught_up, progress: &view.progress, states, lag, throughput }).into_response()
}

async fn classes(State(site): State<Arc<Site>>) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        at_ms: u64,
        classes: &'a [ClassProgress],
    }
    let moment = site.moment();
    Json(Answer { at_ms: moment.view.at_ms, classes: &moment.view.progress.classes }).into_response()
}

async fn workers(State(site): State<Arc<Site>>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        at_ms: u64,
        workers: Vec<Hand>,
    }
    let moment = site.moment();
    Json(Answer { at_ms: moment.view.at_ms, workers: crew(&moment.view.progress) }).into_response()
}

/// A cell as JSON.
#[derive(Serialize)]
struct CellLine<'a> {
    task: u64,
    state: CellState,
    bbox: Option<[f64; 4]>,
    status: Option<&'static str>,
    worker: Option<&'a str>,
    finished_ms: Option<u64>,
    elapsed_ms: Option<u64>,
    chips: u64,
    chips_per_class: BTreeMap<ClassId, u64>,
    rejected: BTreeMap<&'a str, u64>,
    reason: Option<&'a str>,
}

impl<'a> CellLine<'a> {
    fn of(cell: &'a Cell) -> Self {
        let outcome = cell.outcome.as_deref();
        Self {
            task: cell.task,
            state: cell.state(),
            bbox: cell.bbox,
            status: outcome.map(|o| o.status.as_str()),
            worker: outcome.map(|o| &*o.worker),
            finished_ms: outcome.map(|o| o.when_ms),
            elapsed_ms: outcome.map(|o| o.elapsed_ms),
            chips: outcome.map_or(0, |o| o.chips),
            chips_per_class: outcome.map(|o| o.per_class.iter().copied().collect()).unwrap_or_default(),
            rejected: outcome.map(|o| o.rejected.iter().map(|(why, n)| (&**why, *n)).collect()).unwrap_or_default(),
            reason: outcome.and_then(|o| o.reason.as_deref().or(o.kind.as_deref())),
        }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    at_ms: u64,
    total: usize,
    page: usize,
    pages: usize,
    per_page: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<&'a [Reason]>,
    cells: Vec<CellLine<'a>>,
}

fn paged(moment: &Moment, asked: &Asked, kinds: bool) -> Response {
    let part = match Part::of(moment, asked) {
        Ok(part) => part,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    let view = &moment.view;
    Json(Page {
        at_ms: view.at_ms,
        total: part.total,
        page: part.page,
        pages: part.pages,
        per_page: part.per_page,
        kinds: kinds.then_some(&view.progress.failures),
        cells: part.places.iter().map(|i| CellLine::of(&view.cells[*i])).collect(),
    })
    .into_response()
}

async fn cells(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Response {
    paged(&site.moment(), &asked, false)
}

async fn failures(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Response {
    let asked = Asked { state: Some(CellState::Failed.as_str().into()), ..asked };
    paged(&site.moment(), &asked, true)
}

async fn cell(State(site): State<Arc<Site>>, Path(task): Path<String>) -> Response {
    let moment = site.moment();
    match task.parse().ok().and_then(|task| moment.view.cell(task)) {
        Some(cell) => Json(CellLine::of(cell)).into_response(),
        None => error(StatusCode::NOT_FOUND, "there is no such task in this run"),
    }
}
