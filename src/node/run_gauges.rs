//! The run as the monitor sees it, as metrics.
//!
//! Contract: gauges of the last view; a value that is not known is not shown. Units: tasks and chips are counts.

use metrics::gauge;

use super::monitor_view::Lag;
use crate::domain::progress::Progress;
use crate::domain::result::Status;
use crate::domain::roster::Presence;

/// Writes down how far the run is.
pub fn record(progress: &Progress, lag: Option<&[Lag]>) {
    for status in Status::ALL.map(Status::as_str) {
        let tasks = progress.statuses.get(status).copied().unwrap_or(0);
        gauge!("satellite_run_tasks", "status" => status).set(tasks as f64);
    }
    if let Some(planned) = progress.tasks_planned {
        gauge!("satellite_run_tasks", "status" => "planned").set(planned as f64);
    }
    for class in &progress.classes {
        let labels = [("class", class.class.to_string()), ("name", class.name.clone())];
        gauge!("satellite_run_chips", &labels).set(class.chips as f64);
        if let Some(target) = class.target {
            gauge!("satellite_run_chips_target", &labels).set(target as f64);
        }
    }
    for presence in Presence::ALL {
        let workers = progress.presence.iter().filter(|w| w.presence == presence).count();
        gauge!("satellite_run_workers", "activity" => presence.as_str()).set(workers as f64);
    }
    for lag in lag.into_iter().flatten() {
        gauge!("satellite_lag_tasks", "partition" => lag.partition.to_string()).set(lag.behind as f64);
    }
}
