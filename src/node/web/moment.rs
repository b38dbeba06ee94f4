//! One moment of the run as the page shows it: the view, the lag, and the panels once somebody has asked for them.
//!
//! Contract: the panels are drawn at most once per moment, off the reactor, and shared by all who look; nobody looks,
//! nothing is drawn.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Site;
use super::panels::{self, Panel};
use crate::domain::tally::Tally;
use crate::domain::view::View;
use crate::node::monitor_view::Lag;

/// See the head of this file.
#[derive(Debug)]
pub struct Moment {
    pub(super) view: View,
    pub(super) lag: Option<Vec<Lag>>,
    /// Whether everything that had happened when the monitor came up has been read.
    pub(super) caught_up: bool,
    panels: OnceCell<Arc<[Panel]>>,
}

impl Moment {
    /// A moment to show.
    pub fn new(view: View, lag: Option<Vec<Lag>>, caught_up: bool) -> Self {
        Self { view, lag, caught_up, panels: OnceCell::new() }
    }

    /// Before anything was heard.
    pub(super) fn empty() -> Self {
        Self::new(View::of(&Tally::default(), 0, None), None, false)
    }

    /// The run, as results and manifests name it.
    pub(super) fn run(&self) -> Option<&str> {
        self.view.progress.run_id.as_deref()
    }

    /// The panels of the overview.
    pub(super) async fn panels(self: &Arc<Self>, site: &Site) -> Arc<[Panel]> {
        let draw = async || {
            let (moment, dataset) = (Arc::clone(self), site.pictures.is_there());
            let drawn = site.drawing.run(move || panels::all(&moment, dataset)).await;
            // A panic in there was logged; the page then shows no panels, and the next moment tries again.
            drawn.unwrap_or_default().into()
        };
        Arc::clone(self.panels.get_or_init(draw).await)
    }
}
