//! The overview, and the frame around every page.
//!
//! Contract: complete without scripts: the page then loads itself again every few seconds. With them, [`super::live`]
//! replaces the panels in place. All texts are escaped by maud, and no style or script stands in the page itself.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, PreEscaped, html};

use super::Site;
use super::document::{document, files};
use super::moment::Moment;

/// What a page is besides its content.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    /// The page's place in the navigation.
    pub(super) here: &'a str,
    /// Load again after so many seconds when there are no scripts.
    pub(super) again_s: Option<u64>,
    /// Whether the panels follow the run.
    pub(super) live: bool,
}

const PLACES: [(&str, &str); 3] = [("/", "Overview"), ("/tasks", "Tasks"), ("/tasks?state=failed", "Failures")];

pub(super) async fn overview(State(site): State<Arc<Site>>) -> Response {
    let moment = site.moment();
    let panels = moment.panels(&site).await;
    let content = html! {
        // The head's panel stands in the frame already.
        @for panel in panels.iter().filter(|panel| panel.id != "run") {
            section id=(panel.id) { (PreEscaped(&*panel.html)) }
        }
    };
    let frame = Frame { title: "Overview", here: "/", again_s: Some(site.interval_s), live: true };
    answer(&moment, &frame, &content)
}

/// What the head says of the run.
pub(super) fn run_line(moment: &Moment) -> Markup {
    html! { "run " code { (moment.run().unwrap_or("without a plan yet")) } }
}

/// A whole page.
pub(super) fn answer(moment: &Moment, frame: &Frame<'_>, content: &Markup) -> Response {
    let run = moment.run().unwrap_or("without a plan yet");
    let more = html! {
        (files())
        @if let Some(seconds) = frame.again_s {
            noscript { meta http-equiv="refresh" content=(seconds); }
        }
        @if frame.live { script src="/live.js" defer {} }
    };
    let body = html! {
        a.skip href="#content" { "Skip to the content" }
        header {
            p.brand { "satellite-pipeline" }
            p #run { (run_line(moment)) }
            nav aria-label="Pages" {
                @for (address, name) in PLACES {
                    a href=(address) aria-current=[(address == frame.here).then_some("page")] { (name) }
                }
            }
            @if frame.live {
                // Filled in by the script, so that without it nobody waits for what does not come.
                p #link role="status" {}
            }
        }
        main #content class=[frame.live.then_some("panels")] { (content) }
        footer {
            p { "The same as JSON: "
                @for (i, name) in ["progress", "classes", "workers", "cells", "failures"].iter().enumerate() {
                    @if i > 0 { ", " }
                    a href={ "/api/v1/" (name) } { (name) }
                }
            }
        }
    };
    let page = document(&format!("{} · run {run}", frame.title), &more, &body);
    Html(page).into_response()
}
