//! The tasks of a simulated run, in the order and the partitions of a real one.
//!
//! Contract: a plan of parcels is taken as the master publishes it; made-up cells are numbered along the same curve and
//! laid out by the same function. A made-up cell draws an exponential number of parcels: most have few, some have many,
//! as in a country. Units: degrees. Trap: where in its cell a parcel lies is made up in both cases.

use crate::domain::grid::{BadStep, Cell, Grid};
use crate::domain::hilbert::Frame;
use crate::domain::plan::Plan;
use crate::domain::sampling::hash01;
use crate::domain::season::Seasons;
use crate::domain::territory::{Stop, lay_out};

/// One task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Todo {
    /// Its number.
    pub(super) task_id: u64,
    /// `[west, south, east, north]`.
    pub(super) bbox: [f64; 4],
    /// Parcels drawn in it, times seasons of a series.
    pub(super) drawn: u32,
    /// Partition it is published to.
    pub(super) partition: u32,
}

/// The tasks of a plan.
pub(super) fn planned(plan: &Plan) -> Vec<Todo> {
    let todo = |planned: &crate::domain::plan::PlannedTask| Todo {
        task_id: planned.task.task_id,
        bbox: planned.task.bbox,
        drawn: u32::try_from(planned.expected_chips).unwrap_or(u32::MAX),
        partition: u32::try_from(planned.partition).unwrap_or(0),
    };
    plan.tasks.iter().map(todo).collect()
}

/// `count` cells in a square around a place, with `mean` parcels drawn in each.
///
/// # Errors
/// A step no grid can have.
pub(super) fn made_up(
    count: u32,
    mean: f64,
    around: [f64; 2],
    (step, seasons, seed, partitions): (f64, &Seasons, u64, i32),
) -> Result<Vec<Todo>, BadStep> {
    let grid = Grid::new(step)?;
    let edge = f64::from(count).sqrt().ceil() as i32;
    let first = |degrees: f64| (degrees / step).floor() as i32 - edge / 2;
    let (west, south) = (first(around[0]), first(around[1]));
    let cells = (0..count as i32).map(|i| Cell { ix: west + i % edge, iy: south + i / edge });
    let mut cells: Vec<Cell> = cells.collect();
    let frame = Frame::around(cells.iter().copied());
    cells.sort_unstable_by_key(|cell| (frame.key(*cell), *cell));
    let each = seasons.chips_per_parcel() as f64;
    let drawn = |task_id: u64| -(1.0 - hash01(seed, task_id as i64)).ln() * mean;
    let stops: Vec<Stop> = cells
        .into_iter()
        .zip(1u64..)
        .map(|(cell, task_id)| Stop { task_id, cell, expected: (drawn(task_id).round() * each) as u64 })
        .collect();
    let order = lay_out(&stops, &grid, seasons, seed, partitions);
    let todo = |(at, partition): (usize, i32)| {
        let Stop { task_id, cell, expected } = stops[at];
        Todo { task_id, bbox: grid.bbox(cell), drawn: expected as u32, partition: partition as u32 }
    };
    Ok(order.into_iter().map(todo).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::season::Season;

    #[test]
    fn made_up_cells_are_many_even_and_each_once() {
        let seasons = Seasons::new(vec![Season::new("all", "2023-01-01", "2023-12-31").unwrap()]).unwrap();
        let all = made_up(5000, 20.0, [-4.0, 40.0], (0.05, &seasons, 42, 7)).unwrap();
        let ids: std::collections::BTreeSet<u64> = all.iter().map(|t| t.task_id).collect();
        assert_eq!((ids.len(), *ids.first().unwrap(), *ids.last().unwrap()), (5000, 1, 5000));
        let chips: u32 = all.iter().map(|t| t.drawn).sum();
        assert!((95_000..105_000).contains(&chips), "{chips}");
        for partition in 0..7 {
            let load: u32 = all.iter().filter(|t| t.partition == partition).map(|t| t.drawn + 2).sum();
            assert!(load.abs_diff((chips + 10_000) / 7) < 300, "{load} of {chips} in partition {partition}");
        }
        assert!(made_up(1, 1.0, [0.0, 0.0], (0.0, &seasons, 1, 1)).is_err());
    }
}
