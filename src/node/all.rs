//! `--role all`: master, worker and monitor in one process, over one broker.
//!
//! Contract: with `exit_when_done` the monitor decides when the run is complete and the worker then
//! drains; whatever ends first in trouble ends the others. With the embedded broker the dataset's
//! manifests are the only state that survives: started again, the run publishes its plan again, settles
//! finished tasks from their manifests, and goes on with the rest.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::error::NodeError;
use super::master::Bars;
use super::monitor::Watch;
use super::{master, monitor, parts, worker};
use crate::adapters::broker::Broker;
use crate::domain::progress::Progress;

/// What the three roles came to.
#[derive(Debug)]
pub struct AllReport {
    /// How far the run is.
    pub progress: Progress,
    /// What the worker did.
    pub worker: worker::WorkerReport,
}

/// Runs the three roles.
///
/// # Errors
/// The first trouble of any role.
pub async fn run(
    config: &Config,
    broker: Arc<dyn Broker>,
    drain: &CancellationToken,
    watch: Watch,
) -> Result<AllReport, NodeError> {
    // What cannot work is said before anything is started.
    parts::parcels(config, parts::classes(config)?)?;
    let store = parts::store(config)?;
    broker.create_topics(&parts::topics(config)).await?;
    let bars = if monitor::takes_the_terminal(config) { Bars::Hidden } else { Bars::Shown };
    let probes = watch.probes.clone();
    let (stop_worker, stop_monitor) = (drain.child_token(), drain.child_token());
    let planning = async {
        let planned = master::run(config, broker.clone(), bars, drain).await;
        // A directory of another run is the user's mistake, and he should hear of it before the first task.
        let planned = planned.and_then(|plan| store.bind(&plan.summary.run_id).map(|()| plan).map_err(Into::into));
        if planned.is_err() {
            stop_worker.cancel();
            stop_monitor.cancel();
        }
        planned
    };
    let working = async {
        let worked = worker::run(config, broker.clone(), &stop_worker, false, &probes).await;
        if worked.is_err() {
            stop_monitor.cancel();
        }
        worked
    };
    let watching = async {
        let watched = monitor::run(config, broker.clone(), &stop_monitor, watch).await;
        stop_worker.cancel();
        watched
    };
    let (planned, worked, watched) = tokio::join!(planning, working, watching);
    // The cause before its consequences.
    planned?;
    let worker = worked?;
    Ok(AllReport { progress: watched?, worker })
}
