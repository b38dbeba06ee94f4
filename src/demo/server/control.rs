//! The server's own pages: `/__stats`, `/__reset`, `/__config`, `/__fault`.
//!
//! Contract: none of them is counted, delayed or spoiled. All answer JSON.
//! Trap: `/__reset` leaves the knobs alone, so that a benchmark can configure once and reset before each run.

use super::{Fault, FaultKind, Knobs, Shared, Stats};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.counters.snapshot())
}

pub(super) async fn reset(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.counters.reset();
    shared.faults.clear();
    Json(json!({"reset": true}))
}

/// What `/__config` may change; what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    latency_ms: Option<u64>,
    mbit: Option<u64>,
}

pub(super) async fn config(State(shared): State<Arc<Shared>>, Query(change): Query<Change>) -> Json<Knobs> {
    let now = shared.counters.knobs();
    let latency_ms = change.latency_ms.unwrap_or(now.latency_ms);
    shared.counters.configure(Knobs { latency_ms, mbit: change.mbit.unwrap_or(now.mbit) });
    Json(shared.counters.knobs())
}

/// The query of `/__fault`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFault {
    path: String,
    kind: String,
    times: Option<u32>,
}

pub(super) async fn fault(
    State(shared): State<Arc<Shared>>,
    Query(new): Query<NewFault>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let kind: FaultKind = new.kind.parse().map_err(|e| (StatusCode::BAD_REQUEST, format!("{e}\n")))?;
    let times = new.times.unwrap_or(1);
    shared.faults.add(Fault { path: new.path.clone(), kind, times });
    Ok(Json(json!({"path": new.path, "kind": new.kind, "times": times})))
}
