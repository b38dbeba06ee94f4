//! Signals: the first SIGINT or SIGTERM lets the work in flight end, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::NodeError;
use super::log_tap::LogTap;

/// Watches the signals; the token fires at the first one. At the second the terminal is given back, and what `log` keeps
/// for the screen is written out, before the process ends.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn watch(log: LogTap) -> Result<CancellationToken, NodeError> {
    let drain = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::system("watching SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::system("watching SIGTERM"))?;
    let fired = drain.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if fired.is_cancelled() {
                super::tui::restore();
                log.close();
                tracing::error!("second signal ({name}): stopping now, what is in flight will be done again");
                std::process::exit(1);
            }
            tracing::info!("{name}: finishing what is in flight; a second signal stops now");
            fired.cancel();
        }
    });
    Ok(drain)
}
