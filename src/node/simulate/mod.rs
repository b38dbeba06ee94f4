//! `node simulate`: how long a run would take with so many workers, and what would limit it.
//!
//! Contract: the tasks come in the order and the partitions of the master's plan, workers are bound as they are (lanes,
//! requests per host, cache, windows), the clock is virtual, nothing is asked over a network, and the same command gives
//! the same answer. How near it comes to real runs: docs/operations.md. Units: milliseconds and rates on the command
//! line, nanoseconds inside. Trap: servers make wait and never refuse or fail; stops at targets are not simulated.

mod credits;
mod crew;
mod engine;
mod ground;
mod load;
mod model;
mod outcome;
mod pipe;
mod requests;

use std::io::Write;

use tokio_util::sync::CancellationToken;

use super::cli_simulate::Simulate;
use super::config::{Config, LogFormat, Need};
use super::error::NodeError;
use super::master::{self, Bars};
use super::parts;
use model::Model;

/// Simulates each number of workers and prints a table, or with `log.format = "json"` an object for each.
///
/// # Errors
/// Unusable settings; parcels that cannot be planned.
pub async fn run(
    config: &Config,
    asked: &Simulate,
    drain: &CancellationToken,
    out: &mut (dyn Write + Send),
) -> Result<(), NodeError> {
    let model = Model::of(config, asked)?;
    let tasks = match asked.tasks {
        Some(count) => {
            let layout = (config.grid.step, &model.seasons, config.run.seed, config.kafka.partitions);
            let made = load::made_up(count, asked.chips_per_task, asked.around, layout);
            made.map_err(|e| NodeError::Setting { key: "grid.step", why: e.to_string() })?
        }
        None => {
            config.require(&[Need::Parcels])?;
            let classes = parts::classes(config)?;
            let source = parts::parcels(config, classes.clone())?;
            load::planned(&master::plan(config, source, &classes, Bars::Hidden, drain).await?)
        }
    };
    let json = config.log.format == LogFormat::Json;
    let partitions = model.partitions;
    let mut runs = Vec::new();
    for workers in &asked.workers {
        let done = engine::run(&model, &tasks, *workers);
        if json {
            writeln!(out, "{}", done.json(partitions)).map_err(NodeError::system("writing the simulation"))?;
        }
        runs.push(done);
    }
    if json {
        return Ok(());
    }
    let (count, drawn) = (tasks.len(), tasks.iter().map(|t| u64::from(t.drawn)).sum::<u64>());
    let shown = writeln!(out, "{count} tasks, {drawn} parcels drawn, {partitions} partitions; busy in percent")
        .and_then(|()| outcome::table(&runs, partitions).write(out));
    shown.map_err(NodeError::system("writing the simulation"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "simulate_tests.rs"]
mod tests;
