//! `/live`: the panels that have changed, as server-sent events.
//!
//! Contract: event `panels` carries a JSON object of panel id to HTML, all of them first, then those that differ from
//! what this client has. A client that is slow misses moments, never gets them late: only the last one is kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::panels::Panel;
use super::{Site, problem};

/// Longest silence on the wire; proxies cut connections that say nothing.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) async fn follow(State(site): State<Arc<Site>>) -> Response {
    let Ok(permit) = site.watchers.clone().try_acquire_owned() else {
        let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, "too many pages are watching; try again later");
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("10"));
        return answer;
    };
    let mut seen = site.seen.clone();
    seen.mark_changed();
    let sent: Arc<[Panel]> = Arc::from([]);
    let events = stream::unfold((site, seen, sent, permit), async |(site, mut seen, sent, permit)| {
        loop {
            // The monitor has ended.
            seen.changed().await.ok()?;
            let moment = seen.borrow_and_update().clone();
            let panels = moment.panels(&site).await;
            let fresh = |p: &&Panel| sent.iter().find(|s| s.id == p.id).is_none_or(|s| s.html != p.html);
            let news: BTreeMap<&str, &str> = panels.iter().filter(fresh).map(|p| (p.id, &*p.html)).collect();
            if news.is_empty() {
                continue;
            }
            // Texts cannot fail to be JSON.
            let data = serde_json::to_string(&news).unwrap_or_default();
            let event = Event::default().event("panels").data(data);
            return Some((Ok::<_, Infallible>(event), (site, seen, panels, permit)));
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(SILENCE)).into_response()
}
