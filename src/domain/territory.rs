//! Tasks laid out for the workers: the order of visits, cut into the partitions of the task topic.
//!
//! Contract: a function of its arguments alone; every task comes once, partitions never go down along the order, and
//! each holds a stretch of about equal weight. The one place where [`super::sweep`] and [`super::partition`] meet, for
//! plans and for simulations of them. Units: expected chips. Trap: the order follows from the season, the season from
//! the number, so numbers must not follow from the order.

use super::grid::{Cell, Grid};
use super::partition;
use super::season::Seasons;
use super::sweep::Visit;

/// A task as far as its place matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Its number.
    pub task_id: u64,
    /// Its cell.
    pub cell: Cell,
    /// Chips expected of it.
    pub expected: u64,
}

/// Which of `stops` comes when (by its place in the slice), with its partition.
pub fn lay_out(stops: &[Stop], grid: &Grid, seasons: &Seasons, seed: u64, partitions: i32) -> Vec<(usize, i32)> {
    let visit = |stop: &Stop| {
        let [w, s, e, n] = grid.bbox(stop.cell);
        Visit::of(stop.cell, (w + e) / 2.0, (s + n) / 2.0, seasons.visit_index(seed, stop.task_id))
    };
    let mut order: Vec<(Visit, u64, usize)> =
        stops.iter().enumerate().map(|(at, stop)| (visit(stop), stop.task_id, at)).collect();
    order.sort_unstable();
    let weights: Vec<u64> = order.iter().map(|(_, _, at)| stops[*at].expected + partition::TASK_WEIGHT).collect();
    let partitions = partition::split(&weights, partitions);
    order.into_iter().zip(partitions).map(|((_, _, at), partition)| (at, partition)).collect()
}
