//! The command line of `node`: parsing and types, no work.
//!
//! Contract: scripts rely on these names. Wrong usage ends with exit code 2 (clap's own). `--config`, `--set`
//! and `--log` may stand before or after the subcommand and add up in that order: each level has its own
//! copy of them, because clap's `global` arguments would let the later place silently drop the earlier one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use super::cli_broker::{Dlq, DlqAction, Topics, TopicsAction};
pub use super::cli_dataset::{Dataset, DatasetAction, ExportFormat};
pub use super::cli_simulate::Simulate;
use super::config::{LogFormat, Ui};

const EXAMPLES: &str = "\
Examples:
  node demo                                          see it work, offline
  node --role all --config my.toml                   one machine, no broker
  node --role worker --config my.toml --worker-id 3  one worker of many (needs Kafka)
  node plan --config my.toml                         what the master would publish
  node simulate --tasks 20000 --workers 1,15         how long a country would take, and what limits it
  node verify /data/output                           check a dataset
  node dataset finish /data/output --config my.toml  index, split, statistics, STAC
  node config --explain --set grid.step=0.1          where each setting comes from

Exit codes: 0 done, 1 the work failed or is incomplete, 2 wrong usage or configuration.
SIGINT and SIGTERM let the tasks in flight end; a second one stops now.";

/// What was asked for, with the options of both places put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// `--config`, in order.
    pub files: Vec<PathBuf>,
    /// `--set`, in order, then what other options stand for (`--log`, `--worker-id`).
    pub sets: Vec<String>,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Be a node.
    Role {
        /// Which part it plays.
        role: Role,
        /// Whether to end when the work is done.
        exit_when_done: bool,
    },
    /// `demo`
    Demo(Demo),
    /// `topics`
    Topics(Topics),
    /// `group`
    Group,
    /// `dlq`
    Dlq(Dlq),
    /// `plan`
    Plan {
        /// Whether to print JSON.
        json: bool,
    },
    /// `simulate`
    Simulate(Box<Simulate>),
    /// `serve`
    Serve(Serve),
    /// `verify`
    Verify(Verify),
    /// `dataset`
    Dataset(Dataset),
    /// `report`
    Report(Report),
    /// `config`
    Config {
        /// Whether to say where each value came from.
        explain: bool,
    },
}

/// The part a node plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Plans the tasks and publishes them
    Master,
    /// Turns tasks into chips
    Worker,
    /// Shows how far the run is
    Monitor,
    /// All three in one process
    All,
}

/// Options of `node demo`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Demo {
    /// Directory of everything the demonstration makes
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    pub out: PathBuf,
    /// How much of it: a small region, or a whole Sentinel-2 tile
    #[arg(long, value_enum, default_value = "small")]
    pub size: DemoSize,
    /// Go on serving STAC and images when the run is done
    #[arg(long)]
    pub serve: bool,
    /// Use this Kafka instead of the embedded broker
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
}

/// How large the demonstration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoSize {
    /// A few thousand parcels, under two minutes
    Small,
    /// A whole tile
    Full,
}

/// Options of `node serve`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Serve {
    /// Directory of scenes: COGs, and the STAC items that describe them (`*.json`)
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub listen: std::net::SocketAddr,
}

/// Options of `node verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Verify {
    /// The dataset: the directory with images/ and masks/, or s3://BUCKET/PREFIX
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Mend what can be mended
    #[arg(long)]
    pub repair: bool,
    /// Compare lengths only, do not read and hash every file
    #[arg(long, conflicts_with = "repair")]
    pub quick: bool,
}

/// Options of `node report`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Report {
    /// The dataset: the directory with images/ and masks/
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub out: PathBuf,
    /// Which run, when the directory holds several
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
}

#[derive(Debug, Parser)]
#[command(
    name = "node",
    version,
    about = "Crop parcels and Sentinel-2 scenes in, a class-balanced training set of image chips out",
    after_help = EXAMPLES,
    override_usage = "node --role <ROLE> [OPTIONS]\n       node <COMMAND> [OPTIONS]",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    /// Be a node of this role
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Name of this worker in results and file names (worker.id)
    #[arg(long, value_name = "N")]
    worker_id: Option<String>,
    /// End when the work is done
    #[arg(long)]
    exit_when_done: bool,
    /// How the monitor shows itself (monitor.ui)
    #[arg(long, value_enum)]
    ui: Option<Ui>,
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
struct Common {
    /// Configuration file (TOML); repeatable, later ones win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One setting; repeatable, later ones win
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    set: Vec<String>,
    /// Form of the log on standard error (log.format)
    #[arg(long, value_enum)]
    log: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Offline demonstration: synthetic region, scenes, STAC, broker, all roles
    Demo {
        #[command(flatten)]
        demo: Demo,
        #[command(flatten)]
        common: Common,
    },
    /// The topics of the configuration: partitions, offsets
    Topics {
        #[command(flatten)]
        topics: Topics,
        #[command(flatten)]
        common: Common,
    },
    /// Members, assignment, committed offset and lag of the worker group
    Group {
        #[command(flatten)]
        common: Common,
    },
    /// Tasks that failed for good: list them, publish them again, or forget them
    Dlq {
        #[command(flatten)]
        dlq: Dlq,
        #[command(flatten)]
        common: Common,
    },
    /// Dry run of the master: cells, tasks, parcels and expected chips per class; publishes nothing
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// How long a run would take with so many workers, and what would limit it; runs nothing
    Simulate {
        #[command(flatten)]
        simulate: Box<Simulate>,
        #[command(flatten)]
        common: Common,
    },
    /// Serves a directory of scenes: STAC search over its items, files with ranges
    Serve {
        #[command(flatten)]
        serve: Serve,
        #[command(flatten)]
        common: Common,
    },
    /// Checks a dataset: orphans, truncated files, duplicates, manifest against files
    Verify {
        #[command(flatten)]
        verify: Verify,
        #[command(flatten)]
        common: Common,
    },
    /// A run as one HTML file: classes, map, throughput, failures, sample chips
    Report {
        #[command(flatten)]
        report: Report,
        #[command(flatten)]
        common: Common,
    },
    /// Makes a dataset ready for training: index, split, statistics, STAC, shards
    Dataset {
        #[command(flatten)]
        dataset: Dataset,
        #[command(flatten)]
        common: Common,
    },
    /// The effective configuration
    Config {
        /// Say where each value came from
        #[arg(long)]
        explain: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl Invocation {
    /// Parses a command line, program name first.
    ///
    /// # Errors
    /// clap's error: `exit()` on it prints usage, help or version and ends with 2 or 0.
    pub fn parse<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let cli = Cli::try_parse_from(args)?;
        let (action, inner) = match (cli.role, cli.command) {
            (Some(_), Some(_)) => return Err(usage("--role and a subcommand cannot be used together")),
            (None, Some(_)) if cli.worker_id.is_some() || cli.exit_when_done || cli.ui.is_some() => {
                return Err(usage("--worker-id, --exit-when-done and --ui go with --role, not with a subcommand"));
            }
            (None, None) => return Err(usage("what should the node do? give --role, or a subcommand")),
            (Some(role), None) => (Action::Role { role, exit_when_done: cli.exit_when_done }, Common::default()),
            (None, Some(command)) => command.split(),
        };
        let mut sets = [cli.common.set, inner.set].concat();
        sets.extend(inner.log.or(cli.common.log).map(|format| format!("log.format={}", word(format))));
        sets.extend(cli.ui.and_then(|ui| ui.to_possible_value()).map(|ui| format!("monitor.ui={}", ui.get_name())));
        sets.extend(cli.worker_id.map(|id| format!("worker.id={id}")));
        Ok(Self { files: [cli.common.config, inner.config].concat(), sets, action })
    }
}

impl Command {
    fn split(self) -> (Action, Common) {
        match self {
            Self::Demo { demo, common } => (Action::Demo(demo), common),
            Self::Topics { topics, common } => (Action::Topics(topics), common),
            Self::Group { common } => (Action::Group, common),
            Self::Dlq { dlq, common } => (Action::Dlq(dlq), common),
            Self::Plan { json, common } => (Action::Plan { json }, common),
            Self::Simulate { simulate, common } => (Action::Simulate(simulate), common),
            Self::Serve { serve, common } => (Action::Serve(serve), common),
            Self::Verify { verify, common } => (Action::Verify(verify), common),
            Self::Dataset { dataset, common } => (Action::Dataset(dataset), common),
            Self::Report { report, common } => (Action::Report(report), common),
            Self::Config { explain, common } => (Action::Config { explain }, common),
        }
    }
}

fn usage(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

fn word(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

/// A `--set` has a dotted key and an equals sign; what they may be, the configuration decides.
fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if key.contains('.') => Ok(text.to_owned()),
        _ => Err("write section.key=value, for instance grid.step=0.1".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "cli_tests.rs"]
mod tests;
