//! `node dataset`: from chips and manifests to what trainers use.
//!
//! Contract: needs the directory alone; with `parcels.path` it also accounts for every parcel, and refuses a
//! configuration that is not the run's. Everything it writes can be made again; see [`crate::adapters::finished`].
//! Trap: blocks for as long as it works: never on the reactor.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::cli::{self, DatasetAction};
use super::config::Config;
use super::dataset_report as report;
use super::error::NodeError;
use super::{master, parts};
use crate::actors::cpu::CpuPool;
use crate::adapters::dataset::disk::DiskStore;
use crate::adapters::finished::FinishError;
use crate::adapters::finished::classes::{CSV, Counts, Lists};
use crate::adapters::finished::index::{IndexWriter, Row};
use crate::adapters::finished::manifests::Manifests;
use crate::adapters::finished::outcomes::Outcomes;
use crate::adapters::finished::publish::Publication;
use crate::adapters::finished::record::{Finished, Origin};
use crate::adapters::finished::rejections::{Account, Failures, Planned, RejectionWriter};
use crate::adapters::finished::stac::{self as catalog, Extent, TaskItems};
use crate::adapters::finished::survey::{Corners, Survey};
use crate::adapters::finished::{pixels, webdataset};
use crate::adapters::parcels::ParcelSource;
use crate::domain::class_table::ClassTable;
use crate::domain::grid::Grid;
use crate::domain::manifest::Manifest;
use crate::domain::planner::Planner;
use crate::domain::task::fnv1a;

/// Name of the split's record.
pub const SPLIT: &str = "dataset-split.json";

/// Name of the statistics.
pub const STATS: &str = "stats.json";

/// Version of what is made: raised when the same manifests give other files.
const VERSION: u32 = 2;

/// Runs one command.
///
/// # Errors
/// A directory without a finished task, a configuration that is not the run's, files that cannot be read or written;
/// [`NodeError::Incomplete`] when the parcels do not add up.
pub fn run(
    config: &Config,
    asked: &cli::Dataset,
    failures: Failures,
    out: &mut (dyn Write + Send),
) -> Result<(), NodeError> {
    let work = Work::begin(config, &asked.dir, failures)?;
    match asked.action {
        DatasetAction::Finish => work.make(Parts { tables: true, stats: true, stac: config.finish.stac }, out),
        DatasetAction::Split => work.make(Parts { tables: true, stats: false, stac: false }, out),
        DatasetAction::Stats => {
            work.require_split()?;
            work.make(Parts { tables: false, stats: true, stac: false }, out)
        }
        DatasetAction::Export => {
            work.require_split()?;
            let to = asked.out.as_deref().unwrap_or(Path::new("."));
            let done = webdataset::export(&work.manifests, &work.survey, to, asked.shard_mb * 1_000_000)?;
            report::exported(&done, to, out).map_err(NodeError::system("writing the report"))
        }
    }
}

/// As `node dataset finish DIR`.
///
/// # Errors
/// As [`run`].
pub fn finish(config: &Config, dir: &Path, out: &mut (dyn Write + Send)) -> Result<(), NodeError> {
    let work = Work::begin(config, dir, Failures::new())?;
    work.make(Parts { tables: true, stats: true, stac: config.finish.stac }, out)
}

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    /// Index, lists, classes, split, parcels.
    tables: bool,
    /// Statistics.
    stats: bool,
    /// STAC, beside the tables.
    stac: bool,
}

/// The parcels, and what was planned for them.
struct Parcels {
    source: Arc<dyn ParcelSource>,
    planned: Planned,
    run: String,
}

/// A task's record, and the corners of its chips in degrees.
type Placed = (Manifest, Vec<[[f64; 2]; 4]>);

struct Work<'a> {
    config: &'a Config,
    dir: &'a Path,
    pool: Arc<rayon::ThreadPool>,
    classes: Arc<ClassTable>,
    manifests: Manifests,
    parcels: Option<Parcels>,
    survey: Survey,
    failures: Failures,
}

impl<'a> Work<'a> {
    /// Looks at everything there is; changes nothing.
    fn begin(config: &'a Config, dir: &'a Path, mut failures: Failures) -> Result<Self, NodeError> {
        parts::directory(dir)?;
        let pool = CpuPool::new(parts::cores(config)).map_err(|e| NodeError::Stopped(format!("threads: {e}")))?;
        let (pool, classes) = (pool.pool(), parts::classes(config)?);
        let manifests = Manifests::list(dir)?;
        let parcels = plan(config, &classes, &manifests)?;
        let store = DiskStore::new(dir, false, true);
        let survey = Survey::make(&manifests, &store, config.split.settings(), &pool)?;
        // A topic may hold letters of other runs, whose tasks have the same numbers.
        failures.retain(|key, _| manifests.runs().contains(&key.run));
        Ok(Self { config, dir, pool, classes, manifests, parcels, survey, failures })
    }

    fn origin(&self) -> Origin {
        let mut failed: Vec<_> = self.failures.iter().collect();
        failed.sort();
        let settings = serde_json::json!([
            VERSION,
            self.config.split,
            format!("{:?}", self.classes),
            self.parcels.as_ref().map(|p| (&p.run, p.source.fingerprint())),
            failed,
        ]);
        let settings = format!("{:016x}", fnv1a(settings.to_string().as_bytes()));
        Origin { manifests: self.survey.fingerprint.clone(), settings }
    }

    /// Statistics and shards are of the split that is on the disk.
    fn require_split(&self) -> Result<(), NodeError> {
        let record = Finished::read(self.dir)?;
        let path = self.dir.display().to_string();
        let stale = |why: &str| Err(FinishError::Stale { path, why: why.to_owned() }.into());
        match record {
            None => stale("is not split yet"),
            Some(record) if record.origin != self.origin() => {
                stale("was split from other manifests, or with other settings")
            }
            Some(record) => match record.check(self.dir, true)?.into_iter().next() {
                Some((name, why)) => stale(&format!("was split, but {name} {why}")),
                None => Ok(()),
            },
        }
    }

    fn make(&self, parts: Parts, out: &mut (dyn Write + Send)) -> Result<(), NodeError> {
        let mut to = Publication::begin(self.dir)?;
        let made = match self.fill(parts, &mut to) {
            Ok(made) => made,
            Err(error) => {
                to.abandon();
                return Err(error);
            }
        };
        let record = to.publish(self.origin())?;
        let (survey, account) = (&self.survey, made.account.as_ref());
        let said = report::made(survey, &self.manifests, account, made.pixels.as_ref(), &record, out);
        said.map_err(NodeError::system("writing the report"))?;
        let apart = survey.certificate.shared_parcels == 0 && survey.certificate.pairs_sharing_pixels == 0;
        match account {
            _ if !apart => Err(NodeError::Incomplete("the splits are not apart: see dataset-split.json".into())),
            Some(account) if !account.differences.is_empty() => Err(NodeError::Incomplete(format!(
                "the parcels do not add up to the plan: {}",
                account.differences.join("; ")
            ))),
            _ => Ok(()),
        }
    }

    fn fill(&self, parts: Parts, to: &mut Publication) -> Result<Made, NodeError> {
        let mut made = Made::default();
        if parts.tables {
            let counts = self.chips(parts.stac, to)?;
            to.put(CSV, counts.csv(&self.classes).as_bytes())?;
            to.put_json(SPLIT, &self.survey.certificate)?;
            made.account = Some(self.account(to)?);
        }
        if parts.stats {
            let (bands, effort) = pixels::update(&self.manifests, &self.survey, &self.pool, to)?;
            let mut counts = Counts::default();
            let mut at = self.survey.splits.iter();
            self.manifests.each(
                &self.pool,
                |at| self.manifests.read(at),
                |_, manifest| {
                    manifest.chips.iter().zip(&mut at).for_each(|(chip, split)| counts.add(chip, *split));
                    Ok(())
                },
            )?;
            to.put_json(STATS, &report::stats(&bands, &counts, &self.classes, &self.survey))?;
            made.pixels = Some((bands, effort));
        }
        Ok(made)
    }

    /// Everything that goes chip by chip.
    fn chips(&self, stac: bool, to: &mut Publication) -> Result<Counts, NodeError> {
        let bands = if stac { self.band_names()? } else { Vec::new() };
        let href = self.config.finish.item_href(self.config.stac.url.as_str());
        let id = self.manifests.runs().join("+");
        let shared =
            catalog::Shared { root: self.dir, id: &id, classes: &self.classes, bands: &bands, item_href: &href };
        let read = |at| -> Result<Placed, FinishError> {
            let (manifest, mut zones) = (self.manifests.read(at)?, Corners::default());
            let corners = manifest.chips.iter().map(|chip| zones.of(chip)).collect::<Result<Vec<_>, _>>()?;
            if stac && !manifest.chips.is_empty() {
                let splits = self.survey.splits_of(at);
                catalog::write_task(&shared, &TaskItems { manifest: &manifest, corners: &corners, splits })?;
            }
            Ok((manifest, corners))
        };
        let mut index = IndexWriter::begin(to, &self.classes, self.survey.bounds)?;
        let (mut lists, mut counts) = (Lists::begin(to)?, Counts::default());
        let mut extent = Extent { bounds: self.survey.bounds, interval: None, tasks: Vec::new() };
        self.manifests.each(&self.pool, read, |at, (manifest, corners)| {
            let first = self.survey.starts[at];
            if !manifest.chips.is_empty() {
                extent.tasks.push((manifest.key.run.clone(), manifest.key.task));
            }
            let seed = self.parcels.as_ref().filter(|p| p.run == manifest.key.run).map(|_| self.config.run.seed);
            for (n, chip) in manifest.chips.iter().enumerate() {
                let (split, block) = (self.survey.splits[first + n], self.survey.blocks[first + n]);
                index.add(Row { manifest: &manifest, chip, corners: &corners[n], split, block, seed })?;
                lists.add(&chip.name, split)?;
                counts.add(chip, split);
                let interval = extent.interval.get_or_insert_with(|| [chip.datetime.clone(), chip.datetime.clone()]);
                if chip.datetime < interval[0] {
                    interval[0].clone_from(&chip.datetime);
                }
                if chip.datetime > interval[1] {
                    interval[1].clone_from(&chip.datetime);
                }
            }
            Ok(())
        })?;
        index.end(to)?;
        lists.end(to)?;
        if stac {
            catalog::write_collection(&shared, &extent)?;
        }
        Ok(counts)
    }

    /// The bands as the first image names them.
    fn band_names(&self) -> Result<Vec<String>, NodeError> {
        for at in 0..self.manifests.len() {
            if let Some(chip) = self.manifests.read(at)?.chips.first() {
                return Ok(pixels::band_names(&self.dir.join("images").join(format!("{}.tif", chip.name)))?);
            }
        }
        Ok(Vec::new())
    }

    /// The state of every parcel.
    fn account(&self, to: &mut Publication) -> Result<Account, NodeError> {
        let run = match &self.parcels {
            Some(parcels) => parcels.run.clone(),
            None => self.manifests.runs().last().cloned().unwrap_or_default(),
        };
        let outcomes = Outcomes::read(&self.manifests, &run, &self.pool)?;
        let mut writer = RejectionWriter::begin(to, &run, &outcomes, &self.failures)?;
        let Some(parcels) = &self.parcels else {
            writer.drawn_alone()?;
            return Ok(writer.end(to, None)?);
        };
        let mut failed = None;
        let mut sink = |row: &_| {
            if failed.is_none() {
                failed = writer.scanned(&parcels.planned, row).err();
            }
        };
        parcels.source.scan(&mut sink, &mut |_| ControlFlow::Continue(()))?;
        failed.map_or(Ok(()), Err)?;
        Ok(writer.end(to, Some(&parcels.planned))?)
    }
}

#[derive(Default)]
struct Made {
    account: Option<Account>,
    pixels: Option<(pixels::Bands, pixels::Effort)>,
}

/// Plans again what the master planned, if the parcels are at hand; the run must be one of the directory's.
fn plan(config: &Config, classes: &Arc<ClassTable>, manifests: &Manifests) -> Result<Option<Parcels>, NodeError> {
    if config.parcels.path.as_os_str().is_empty() {
        return Ok(None);
    }
    let source = parts::parcels(config, classes.clone())?;
    let count = |settings| -> Result<_, NodeError> {
        let mut planner = Planner::new(settings)?;
        source.scan(&mut |row| planner.add(row), &mut |_| ControlFlow::Continue(()))?;
        Ok(planner.finish()?)
    };
    let mut settings = master::settings(config, &*source, classes)?;
    if let Some(all) = master::before_chances(config, &settings) {
        master::set_chances(config, &mut settings, &count(all)?.summary.classes);
    }
    let plan = count(settings)?;
    let run = plan.summary.run_id.clone();
    if !manifests.runs().contains(&run) {
        return Err(NodeError::Setting {
            key: "parcels.path",
            why: format!(
                "with these parcels and settings the run is `{run}`, but {} holds {}: give the configuration it was made \
                 with, or --set parcels.path='' to leave the parcels out",
                manifests.root().display(),
                manifests.runs().join(", ")
            ),
        });
    }
    let grid = Grid::new(config.grid.step).map_err(crate::domain::plan::PlanError::from)?;
    let planned = Planned::new(&plan, grid);
    Ok(Some(Parcels { source, planned, run }))
}
