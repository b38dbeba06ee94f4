//! From a command line to an exit code.
//!
//! Contract: the only place that decides which part of the program runs. Errors go to standard error in
//! one sentence; results to standard output.

use std::io::Write;
use std::process::ExitCode;

use super::cli::{Action, Invocation, Role, TopicsAction};
use super::config::{Config, Need, process_env};
use super::error::NodeError;
use super::log_tap::LogTap;
use super::master::Bars;
use super::monitor::Watch;
use super::probes::Probes;
use super::topics::{Consent, TopicsCommand};
use super::{
    all, dataset, demo, dlq, group, master, metrics_http, monitor, parts, plan, report, shutdown, simulate, telemetry,
    topics, verify, worker,
};
use crate::adapters::finished::rejections::Failures;
use crate::demo::server::DemoServer;
use crate::domain::progress::Progress;

/// Runs one command to its end.
pub fn main(invocation: Invocation) -> ExitCode {
    match start(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody left to tell then.
            let _ = writeln!(std::io::stderr(), "node: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(invocation: Invocation) -> Result<(), NodeError> {
    crate::adapters::failpoint::arm();
    let Invocation { files, sets, action } = invocation;
    let config = Config::load(&files, process_env(), &sets)?;
    let log = telemetry::init(&config.log).map_err(|e| NodeError::Setting { key: "log.filter", why: e.to_string() })?;
    crate::adapters::crs::log_gdal_errors();
    match &action {
        Action::Config { explain } => return show_config(&config, *explain),
        Action::Verify(asked) => return verify::run(&config, asked, &mut std::io::stdout().lock()),
        Action::Dataset(asked) if !asked.dead_letters => {
            return dataset::run(&config, asked, Failures::new(), &mut std::io::stdout());
        }
        _ => {}
    }
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        #[expect(
            clippy::expect_used,
            reason = "without a runtime there is nobody to report to; actix wants no Result here"
        )]
        builder.enable_all().worker_threads(2).thread_name("reactor").build().expect("a thread for the reactor")
    };
    actix::System::with_tokio_rt(runtime).block_on(run(config, log, files, sets, action))
}

fn show_config(config: &Config, explain: bool) -> Result<(), NodeError> {
    let mut out = std::io::stdout().lock();
    let shown = if explain { config.explain(&mut out) } else { config.print(&mut out) };
    shown.map_err(NodeError::system("writing the configuration"))
}

async fn run(
    config: Config,
    log: LogTap,
    files: Vec<std::path::PathBuf>,
    sets: Vec<String>,
    action: Action,
) -> Result<(), NodeError> {
    let drain = shutdown::watch(log.clone())?;
    match action {
        Action::Role { role, exit_when_done } => play(&config, log, role, exit_when_done, &drain).await,
        Action::Demo(asked) => demo::run(&asked, &files, &sets, log, &drain).await,
        Action::Plan { json } => {
            config.require(&[Need::Parcels])?;
            let classes = parts::classes(&config)?;
            let source = parts::parcels(&config, classes.clone())?;
            let made = master::plan(&config, source, &classes, Bars::Shown, &drain).await?;
            let mut out = std::io::stdout().lock();
            let shown = if json {
                plan::as_json(&made).map_err(Into::into).and_then(|json| writeln!(out, "{json}"))
            } else {
                plan::print_plan(&made, &mut out)
            };
            shown.map_err(NodeError::system("writing the plan"))
        }
        Action::Topics(asked) => {
            config.require(&[Need::Broker])?;
            let broker = parts::broker(&config, "topics").await?;
            let command = match asked.action {
                TopicsAction::Create => TopicsCommand::Create,
                TopicsAction::List => TopicsCommand::List,
                TopicsAction::Describe => TopicsCommand::Describe,
                TopicsAction::Delete => TopicsCommand::Delete,
                TopicsAction::Reset => TopicsCommand::Reset,
            };
            let mut answers = std::io::BufReader::new(std::io::stdin());
            let consent = Consent::from_terminal(asked.yes, &mut answers);
            Ok(topics::run(&*broker, command, &parts::topics(&config), consent, &mut std::io::stdout()).await?)
        }
        Action::Group => {
            config.require(&[Need::Broker])?;
            let broker = parts::broker(&config, "group").await?;
            let topics = [config.kafka.tasks_topic.as_str()];
            Ok(group::show(&*broker, &config.kafka.group, &topics, &mut std::io::stdout()).await?)
        }
        Action::Dlq(asked) => {
            config.require(&[Need::Broker])?;
            let broker = parts::broker(&config, "dlq").await?;
            let mut answers = std::io::BufReader::new(std::io::stdin());
            let consent = Consent::from_terminal(asked.yes, &mut answers);
            dlq::run(&asked, &*broker, &config.kafka.dlq_topic, consent, &mut std::io::stdout()).await
        }
        Action::Simulate(asked) => simulate::run(&config, &asked, &drain, &mut std::io::stdout()).await,
        Action::Report(asked) => report::run(&asked, &config).await,
        Action::Serve(asked) => {
            let server = DemoServer::start(&asked.dir, asked.listen).await?;
            super::say(&format!("{} items at {}", server.items(), server.url()));
            drain.cancelled().await;
            server.stop().await;
            Ok(())
        }
        Action::Dataset(asked) => {
            config.require(&[Need::Broker])?;
            let broker = parts::broker(&config, "dataset").await?;
            let letters = dlq::open_letters(&*broker, &config.kafka.dlq_topic).await?;
            let failures = letters.into_iter().filter_map(dlq::Letter::failure).collect();
            let work = move || dataset::run(&config, &asked, failures, &mut std::io::stdout());
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|_| NodeError::Stopped("finishing the dataset panicked".into()))?
        }
        Action::Config { .. } | Action::Verify(_) => Ok(()),
    }
}

async fn play(
    config: &Config,
    log: LogTap,
    role: Role,
    exit_when_done: bool,
    drain: &tokio_util::sync::CancellationToken,
) -> Result<(), NodeError> {
    let needs: &[Need] = match role {
        Role::Master | Role::Worker => &[Need::Parcels, Need::Broker],
        Role::Monitor => &[Need::Broker],
        Role::All => &[Need::Parcels],
    };
    config.require(needs)?;
    let end = tokio_util::sync::CancellationToken::new();
    let _ends_with_the_role = end.clone().drop_guard();
    let (name, client) = match role {
        Role::Master => ("master", "master".to_owned()),
        Role::Worker => ("worker", parts::worker_id(config)),
        Role::Monitor => ("monitor", "monitor".to_owned()),
        Role::All => ("all", "all".to_owned()),
    };
    let probes = match config.metrics.listen() {
        Some(listen) => {
            let probes = Probes::install(name)?;
            metrics_http::serve(listen, probes.clone(), end).await?;
            probes
        }
        None => Probes::default(),
    };
    let broker = parts::broker(config, &client).await?;
    if matches!(role, Role::Master | Role::Monitor) {
        let (asked, topic) = (broker.clone(), config.kafka.tasks_topic.clone());
        probes.ask("broker", move || {
            let (broker, topic) = (asked.clone(), topic.clone());
            async move { broker.describe_topics(&[&topic]).await.map(drop).map_err(|e| e.to_string()) }
        });
    }
    match role {
        Role::Master => {
            let plan = master::run(config, broker, Bars::Shown, drain).await?;
            plan::print_plan(&plan, &mut std::io::stdout()).map_err(NodeError::system("writing the plan"))
        }
        Role::Worker => worker::run(config, broker, drain, exit_when_done, &probes).await.map(drop),
        Role::Monitor => {
            let watch = Watch { exit_when_done, alone: true, log, probes };
            monitor::run(config, broker, drain, watch).await.map(|progress| say_next(config, &progress))
        }
        Role::All => {
            let watch = Watch { exit_when_done, alone: false, log, probes };
            all::run(config, broker, drain, watch).await.map(|report| say_next(config, &report.progress))
        }
    }
}

/// After the last task there is one thing left to do.
fn say_next(config: &Config, progress: &Progress) {
    if progress.complete {
        let dir = config.output.dir.display();
        let command = match config.output.bucket() {
            Some(bucket) => format!("aws s3 sync {bucket} DIR && node dataset finish DIR"),
            None => format!("node dataset finish {dir}"),
        };
        tracing::info!(command, "the run is complete; this makes the dataset ready for training");
    }
}
