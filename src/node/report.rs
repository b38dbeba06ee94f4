//! `node report DIR`: a finished or unfinished run as one HTML file that can be sent by mail.
//!
//! Contract: what is said comes from the manifests of DIR, times included, so the same dataset gives the same file; with a
//! broker in the configuration also from its topics, which alone know of tasks that failed or wait. The file is whole (no
//! script, nothing is loaded) and bounded: [`SAMPLES`] chips as pictures, and a map that draws neighbours as one.
//! Trap: manifests are read one by one and let go; what is kept is the tally and the names of the samples.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::cli;
use super::config::Config;
use super::error::NodeError;
use super::parts;
use super::report_page::{Paper, Sample, page};
use crate::adapters::broker::{Broker, ReadEvent};
use crate::adapters::dataset::gallery::{Gallery, Kind};
use crate::domain::checksum::hex;
use crate::domain::class_table::ClassTable;
use crate::domain::classes::ClassId;
use crate::domain::plan_record::PlanRecord;
use crate::domain::result::TaskResult;
use crate::domain::tally::Tally;
use crate::domain::task::{Task, TaskKey, fnv1a};
use crate::domain::view::View;

/// Chips shown, over all classes.
pub const SAMPLES: usize = 48;
/// Most chips of one class.
const OF_CLASS: usize = 6;

/// Writes the report.
///
/// # Errors
/// A directory without a dataset; a file that cannot be read or written; a broker that refuses.
pub async fn run(asked: &cli::Report, config: &Config) -> Result<(), NodeError> {
    let gallery = Gallery::new(parts::directory(&asked.dir)?);
    let run = the_run(&gallery, asked.run.as_deref())?;
    let classes = parts::classes(config)?;
    let mut tally = Tally::new(Some(&run));
    if !config.kafka.is_embedded() {
        let broker = parts::broker(config, "report").await?;
        listen(config, &*broker, &mut tally).await?;
    }
    let out = asked.out.clone();
    let written = tokio::task::spawn_blocking(move || write(&gallery, &run, tally, &classes, out)).await;
    let (path, bytes) = written.map_err(|_| NodeError::Stopped("writing the report panicked".into()))??;
    super::say(&format!("{} ({:.1} MB)", path.display(), bytes as f64 / 1e6));
    Ok(())
}

/// The run whose manifests are there; the one asked for when there are several.
fn the_run(gallery: &Gallery, asked: Option<&str>) -> Result<String, NodeError> {
    let runs = gallery.runs()?;
    match (asked, runs.as_slice()) {
        (Some(run), _) if runs.iter().any(|r| r == run) => Ok(run.to_owned()),
        (None, [run]) => Ok(run.clone()),
        (_, []) => Err(NodeError::Incomplete(format!(
            "{}: no task of a dataset is finished there (no .manifests/RUN): nothing to report",
            gallery.root().display()
        ))),
        _ => Err(NodeError::Incomplete(format!(
            "{} holds the runs {}: name one with --run",
            gallery.root().display(),
            runs.join(", ")
        ))),
    }
}

/// Takes plans, tasks and results from the broker, as far as they are there.
async fn listen(config: &Config, broker: &dyn Broker, tally: &mut Tally) -> Result<(), NodeError> {
    let kafka = &config.kafka;
    let mut events = broker.read(&[&kafka.control_topic, &kafka.tasks_topic, &kafka.results_topic]).await?;
    while let Some(event) = events.recv().await {
        match event {
            // What cannot be read is not counted, as the monitor does not.
            ReadEvent::Record(record) if *record.topic == *kafka.results_topic => {
                if let Ok(result) = serde_json::from_slice::<TaskResult>(&record.payload) {
                    tally.apply(&result, u64::try_from(record.timestamp_ms).unwrap_or(0));
                }
            }
            ReadEvent::Record(record) if *record.topic == *kafka.tasks_topic => {
                if let Ok(task) = Task::parse(&record.payload) {
                    tally.task(&task);
                }
            }
            ReadEvent::Record(record) => {
                if let Ok(plan) = PlanRecord::parse(&record.payload) {
                    tally.plan(plan);
                }
            }
            ReadEvent::CaughtUp => break,
            ReadEvent::Failed(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A chip that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u64,
    name: String,
    task: u64,
    parcel: i64,
    item: String,
}

fn write(
    gallery: &Gallery,
    run: &str,
    mut tally: Tally,
    classes: &ClassTable,
    out: PathBuf,
) -> Result<(PathBuf, usize), NodeError> {
    let mut candidates: BTreeMap<ClassId, Vec<Candidate>> = BTreeMap::new();
    for task in gallery.tasks(run)? {
        let Some(manifest) = gallery.manifest(&TaskKey { run: run.to_owned(), task })? else { continue };
        tally.apply(&manifest.result, 0);
        for chip in manifest.chips {
            let best = candidates.entry(chip.class).or_default();
            let rank = fnv1a(chip.name.as_bytes());
            if best.len() < OF_CLASS || best.last().is_some_and(|last| rank < last.rank) {
                best.push(Candidate { rank, name: chip.name, task, parcel: chip.parcel, item: chip.item });
                best.sort();
                best.truncate(OF_CLASS);
            }
        }
    }
    // The end of the run, not the clock: the same dataset gives the same report.
    let mut view = View::of(&tally, 0, None);
    view.at_ms = view.progress.last_ms.unwrap_or(0);
    view.progress = crate::domain::progress::Progress::of(&tally, view.at_ms);
    for class in &mut view.progress.classes {
        if let Some(info) = classes.classes().get(&class.class).filter(|_| class.name.is_empty()) {
            class.name.clone_from(&info.name);
            class.colour = format!("#{}", hex(&info.colour));
        }
    }
    let samples = pictures(gallery, candidates);
    let html = page(&Paper { run, view: &view, samples: &samples });
    std::fs::write(&out, &html).map_err(NodeError::system(format!("writing {}", out.display())))?;
    Ok((out, html.len()))
}

/// Pictures of the candidates, class by class in turn, as far as their files can be read.
fn pictures(gallery: &Gallery, candidates: BTreeMap<ClassId, Vec<Candidate>>) -> Vec<Sample> {
    let turns =
        (0..OF_CLASS).flat_map(|turn| candidates.iter().filter_map(move |(c, list)| Some((*c, list.get(turn)?))));
    let mut samples = Vec::new();
    for (class, candidate) in turns.take(SAMPLES) {
        let both = gallery
            .picture_named(&candidate.name, Kind::Image)
            .and_then(|image| Ok((image, gallery.picture_named(&candidate.name, Kind::Mask)?)));
        match both {
            Ok((image, mask)) => samples.push(Sample {
                class,
                task: candidate.task,
                parcel: candidate.parcel,
                item: candidate.item.clone(),
                image,
                mask,
            }),
            Err(error) => tracing::warn!(%error, "a chip is missing in the report"),
        }
    }
    samples.sort_by_key(|sample| sample.class);
    samples
}
