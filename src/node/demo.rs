//! `node demo`: the whole pipeline on a made-up region, offline.
//!
//! Contract: everything lies below one directory; a second call uses what the first one generated and
//! adds nothing to a complete dataset. STAC and scenes are served on loopback while it runs.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::cli;
use super::config::{self, Config};
use super::error::NodeError;
use super::log_tap::LogTap;
use super::monitor::Watch;
use super::probes::Probes;
use super::{all, parts};
use crate::adapters::broker::Broker;
use crate::demo::server::DemoServer;
use crate::demo::{CLASS_STYLES, Size, contact_sheet, prepare};

/// Chips of each class on the contact sheet.
const SHEET_CHIPS: usize = 8;

/// Generates, serves, runs, and shows.
///
/// # Errors
/// Whatever the generator, the server or a role meets.
pub async fn run(
    demo: &cli::Demo,
    files: &[std::path::PathBuf],
    sets: &[String],
    log: LogTap,
    drain: &CancellationToken,
) -> Result<(), NodeError> {
    let size = match demo.size {
        cli::DemoSize::Small => Size::Small,
        cli::DemoSize::Full => Size::Full,
    };
    std::fs::create_dir_all(&demo.out).map_err(NodeError::system(format!("creating {}", demo.out.display())))?;
    let seed = load(demo, files, sets, "http://127.0.0.1:1", Path::new("parcels.gpkg"))?.run.seed;
    let out = demo.out.clone();
    let made = tokio::task::spawn_blocking(move || prepare(&out, size, seed)).await;
    let inputs = made.map_err(|_| NodeError::Stopped("making the demo region panicked".into()))??;
    let server = DemoServer::start(&inputs.scenes_root, std::net::SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let config = load(demo, files, sets, &server.url(), &inputs.gpkg)?;
    let broker: Arc<dyn Broker> = parts::broker(&config, "demo").await?;
    let watch = Watch { exit_when_done: true, alone: false, log, probes: Probes::default() };
    let report = all::run(&config, broker, drain, watch).await;
    let dataset = config.output.dir.clone();
    let bucket = config.output.bucket();
    let sheet = demo.out.join("contact-sheet.png");
    let true_colour = config.chips.bands.starts_with(&["B02".into(), "B03".into(), "B04".into()]);
    if let Some(bucket) = bucket {
        let report = report?;
        super::say(&format!("\n{} chips of {} tasks", report.progress.chips, report.progress.tasks_done));
        super::say(&format!("dataset        {bucket}"));
        let endpoint = config.output.s3_endpoint().map(|url| format!(" --set output.s3_endpoint={url}"));
        let allow = if config.output.s3_allow_http { " --set output.s3_allow_http=true" } else { "" };
        super::say(&format!("check it with  node verify {bucket}{}{allow}", endpoint.unwrap_or_default()));
        server.stop().await;
        return Ok(());
    }
    if !true_colour {
        tracing::warn!("no contact sheet: it shows true colours, and chips.bands does not begin with B02, B03, B04");
    }
    if report.is_ok() && true_colour {
        let (from, to) = (dataset.clone(), sheet.clone());
        let drawn = tokio::task::spawn_blocking(move || contact_sheet::write(&from, &CLASS_STYLES, SHEET_CHIPS, &to));
        drawn.await.map_err(|_| NodeError::Stopped("drawing the contact sheet panicked".into()))??;
    }
    let report = report?;
    super::say("");
    let (settings, to) = (config.clone(), dataset.clone());
    let finish = move || super::dataset::finish(&settings, &to, &mut std::io::stdout());
    let finished = tokio::task::spawn_blocking(finish).await;
    finished.map_err(|_| NodeError::Stopped("finishing the dataset panicked".into()))??;
    super::say(&format!(
        "\n{} chips of {} tasks\ndataset        {}",
        report.progress.chips,
        report.progress.tasks_done,
        dataset.display()
    ));
    if true_colour {
        super::say(&format!("contact sheet  {}", sheet.display()));
    }
    super::say(&format!("check it with  node verify {}", dataset.display()));
    if demo.serve {
        super::say(&format!("serving STAC and scenes at {} until interrupted", server.url()));
        drain.cancelled().await;
    }
    server.stop().await;
    Ok(())
}

/// The demo's configuration: built-in, then the user's, then what only this call knows.
fn load(
    demo: &cli::Demo,
    files: &[std::path::PathBuf],
    sets: &[String],
    url: &str,
    parcels: &Path,
) -> Result<Config, NodeError> {
    let quote = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let mut own = vec![
        format!("stac.url={url}"),
        format!("parcels.path={}", quote(parcels)),
        format!("output.dir={}", quote(&demo.out.join("dataset"))),
    ];
    own.extend(demo.kafka.iter().map(|k| format!("kafka.bootstrap_servers={k}")));
    own.extend(sets.iter().cloned());
    let built_in = [("config/demo.toml", config::DEMO_TOML)];
    Ok(Config::load_over(&built_in, files, config::process_env(), &own)?)
}
