//! A plan for people and for programs: what `node plan` prints and what the master logs.
//!
//! Units: parcels, cells and chips are counts, probabilities shares of 1.
//! Trap: expected chips are parcels drawn, before clouds and scene edges take theirs.

use std::io::{self, Write};

use crate::domain::plan::{Plan, PlanSummary};

/// The plan's totals as one JSON object.
///
/// # Errors
/// Never for a plan made by the planner; serde's error otherwise.
pub fn as_json(plan: &Plan) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(&plan.summary)
}

/// The plan's totals as a table.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_plan(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let summary = &plan.summary;
    writeln!(out, "run {}  seed {}  cells of {} degrees", summary.run_id, summary.seed, summary.grid_step)?;
    let share = |n: u64| 100.0 * n as f64 / summary.rows.max(1) as f64;
    writeln!(out, "rows {}  parcels {} ({:.1} %)", summary.rows, summary.parcels, share(summary.parcels))?;
    for (reason, n) in &summary.rejected {
        writeln!(out, "  rejected  {reason:<20} {n:>12}")?;
    }
    print_classes(summary, out)?;
    writeln!(out, "excluded by a rule {:>12}", summary.excluded)?;
    writeln!(out, "known to no rule   {:>12}", summary.unknown)?;
    for (code, n) in &summary.unknown_codes {
        writeln!(out, "  {n:>12}  {code}")?;
    }
    writeln!(out, "tasks {}  expected chips {}", summary.tasks, summary.expected)?;
    for (reason, n) in &summary.dropped_cells {
        writeln!(out, "  cells dropped  {reason:<20} {n:>12}")?;
    }
    print_partitions(summary, out)
}

fn print_classes(summary: &PlanSummary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>5} {:<20} {:>10} {:>10} {:>8} {:>11} {:>10} {:>10}",
        "class", "name", "parcels", "in tasks", "cells", "probability", "expected", "target"
    )?;
    for (id, class) in &summary.classes {
        let probability = class.probability.map_or("-".to_owned(), |p| format!("{p:.3}"));
        let target = class.target.map_or("-".to_owned(), |t| t.to_string());
        writeln!(
            out,
            "{:>5} {:<20} {:>10} {:>10} {:>8} {probability:>11} {:>10} {target:>10}",
            id.get(),
            class.name,
            class.parcels,
            class.planned,
            class.cells,
            class.expected
        )?;
    }
    Ok(())
}

fn print_partitions(summary: &PlanSummary, out: &mut dyn Write) -> io::Result<()> {
    let span = |count: fn(&crate::domain::plan::PartitionLoad) -> u64| {
        let all = || summary.partitions.iter().map(count);
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    };
    let (fewest, most) = span(|p| p.tasks);
    let (low, high) = span(|p| p.expected);
    writeln!(
        out,
        "partitions {}  tasks {fewest} to {most} each  expected chips {low} to {high} each",
        summary.partitions.len()
    )
}
