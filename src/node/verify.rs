//! `node verify`: checks a dataset, and mends it when asked to.

use std::io::Write;

use super::cli;
use super::config::Config;
use super::error::NodeError;
use super::parts;
use crate::adapters::dataset::disk::DiskStore;
use crate::adapters::dataset::s3::S3Place;
use crate::adapters::dataset::verify::{Finding, Report, repair, verify};
use crate::adapters::finished::record::inspect;

/// Findings printed one by one; the rest is counted.
const SHOWN: usize = 100;

/// Checks, prints, mends.
///
/// # Errors
/// [`NodeError::Incomplete`] when anything is wrong (after mending: still wrong, or lost).
pub fn run(config: &Config, asked: &cli::Verify, out: &mut dyn Write) -> Result<(), NodeError> {
    if let Some(place) = asked.dir.to_str().and_then(S3Place::parse)
        && !asked.repair
    {
        let report = parts::bucket(config, place, false, true)?.verify(asked.quick)?;
        if report.tasks == 0 && report.findings.is_empty() {
            let dir = asked.dir.display();
            return Err(NodeError::Incomplete(format!("{dir}: there is no dataset (no object below .manifests/)")));
        }
        print(out, &report).map_err(NodeError::system("writing the report"))?;
        let wrong = || NodeError::Incomplete(format!("{}: something is wrong", asked.dir.display()));
        return if report.findings.is_empty() { Ok(()) } else { Err(wrong()) };
    }
    parts::directory(&asked.dir)?;
    let store = DiskStore::new(&asked.dir, false, true);
    let mut report = verify(&store, asked.quick)?;
    let made = inspect(&asked.dir, asked.quick)?;
    report.findings.extend(made.findings);
    let io = NodeError::system("writing the report");
    print(out, &report).map_err(io)?;
    if made.files > 0 {
        let then = if made.outdated {
            "made from other tasks than there are now: run `node dataset finish` again"
        } else {
            "made from these tasks"
        };
        writeln!(out, "{} files of the finished dataset, {then}", made.files)
            .map_err(NodeError::system("writing the report"))?;
    }
    if report.findings.is_empty() {
        return Ok(());
    }
    if !asked.repair {
        let mendable = report.findings.iter().any(|f| !matches!(f, Finding::Missing(..) | Finding::Damaged(..)));
        let hint =
            if mendable { "; `--repair` mends what can be mended" } else { "; `--repair` takes broken tasks out" };
        return Err(NodeError::Incomplete(format!("{}: something is wrong{hint}", asked.dir.display())));
    }
    let lost = repair(&store, &report)?;
    let after = verify(&store, false)?;
    let io = NodeError::system("writing the report");
    writeln!(out, "after the repair:").and_then(|()| print(out, &after)).map_err(io)?;
    if !lost.is_empty() {
        let tasks: Vec<String> = lost.iter().take(SHOWN).map(ToString::to_string).collect();
        return Err(NodeError::Incomplete(format!(
            "{} tasks lost files and must be done again (their rest is in .quarantine/): {}",
            lost.len(),
            tasks.join(" ")
        )));
    }
    if after.findings.is_empty() { Ok(()) } else { Err(NodeError::Incomplete("some findings remain".into())) }
}

/// The findings and the sums, a line each.
fn print(out: &mut dyn Write, report: &Report) -> std::io::Result<()> {
    for finding in report.findings.iter().take(SHOWN) {
        writeln!(out, "{finding}")?;
    }
    if report.findings.len() > SHOWN {
        writeln!(out, "… and {} more", report.findings.len() - SHOWN)?;
    }
    let classes: Vec<String> = report.per_class.iter().map(|(c, n)| format!("{c}: {n}")).collect();
    writeln!(
        out,
        "{} tasks, {} chips ({}), {:.1} MB: {}",
        report.tasks,
        report.chips,
        classes.join(", "),
        report.bytes as f64 / 1e6,
        match report.findings.len() {
            0 => "nothing wrong".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        }
    )
}
