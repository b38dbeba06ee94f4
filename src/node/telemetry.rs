//! The log: where it goes, in which form, and what is in it.
//!
//! Contract: everything is logged through `tracing` to standard error, so standard output stays free for
//! what a command prints. `RUST_LOG`, when set, is used instead of `log.filter`. Colours only for people:
//! text form, a terminal, no `NO_COLOR`. JSON is one object per line with the fields of the event and of
//! the span around it. Events about a task carry `task_id`, `worker` and `stage`, from delivery to the last file:
//! each stage opens a span of its own (`Job::span`), of the highest level, so that no filter takes it away.
//! Trap: a process has one log; the second [`init`] is refused.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;

use super::config::{Log, LogFormat};
use super::log_tap::LogTap;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` or `log.filter` is not a filter.
    #[error(
        "{source_name} = {filter:?} is not a log filter ({cause}); write for instance \"info,satellite_pipeline=debug\""
    )]
    Filter {
        /// Which of the two.
        source_name: &'static str,
        /// Its value.
        filter: String,
        /// What is wrong.
        cause: ParseError,
    },
    /// Something has set up a log before.
    #[error("this process has a log already: {0}")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sets up the log of this process; the tap holds it back while the terminal shows something else.
///
/// # Errors
/// A filter that is not one; a second call.
pub fn init(log: &Log) -> Result<LogTap, TelemetryError> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = std::io::stderr().is_terminal() && !no_color;
    let tap = LogTap::default();
    let subscriber = subscriber(log, rust_log.as_deref(), colour, tap.clone())?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(tap)
}

/// A log that writes to `to`: what [`init`] sets up, for those who keep it elsewhere.
///
/// # Errors
/// A filter that is not one.
pub fn subscriber<W>(
    log: &Log,
    rust_log: Option<&str>,
    colour: bool,
    to: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (source_name, text) = match rust_log.filter(|text| !text.is_empty()) {
        Some(text) => ("RUST_LOG", text),
        None => ("log.filter", log.filter.as_str()),
    };
    let filter = EnvFilter::try_new(text).map_err(|cause| TelemetryError::Filter {
        source_name,
        filter: text.to_owned(),
        cause,
    })?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to);
    Ok(match log.format {
        LogFormat::Text => Box::new(base.with_ansi(colour).with_target(false).finish()),
        LogFormat::Json => {
            Box::new(base.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, filter: &str, rust_log: Option<&str>, colour: bool) -> String {
        let ink = Paper::default();
        let to = ink.clone();
        let log = Log { format, filter: filter.into() };
        let subscriber = subscriber(&log, rust_log, colour, move || to.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _in = tracing::error_span!("task", task_id = 7, worker = %"w2", stage = "pixels").entered();
            tracing::info!(blocks = 3, "read");
            tracing::debug!("hidden");
        });
        String::from_utf8(ink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn events_carry_task_worker_and_stage() {
        let text = log(LogFormat::Text, "info", None, false);
        for part in ["INFO", "task_id=7", "worker=w2", "stage=\"pixels\"", "blocks=3", "read"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("hidden") && !text.contains('\u{1b}'), "{text}");
        assert!(log(LogFormat::Text, "info", None, true).contains('\u{1b}'));
        let json: serde_json::Value = serde_json::from_str(&log(LogFormat::Json, "info", None, true)).unwrap();
        assert_eq!((&json["message"], &json["blocks"], &json["level"]), (&"read".into(), &3.into(), &"INFO".into()));
        let span = &json["span"];
        assert_eq!((&span["task_id"], &span["worker"], &span["stage"]), (&7.into(), &"w2".into(), &"pixels".into()));
    }

    #[test]
    fn rust_log_comes_first_and_a_bad_filter_is_named() {
        assert!(log(LogFormat::Text, "error", Some("debug"), false).contains("hidden"));
        assert!(log(LogFormat::Text, "debug", Some(""), false).contains("hidden"));
        let wrong = Log { format: LogFormat::Text, filter: "info".into() };
        let error = subscriber(&wrong, Some("=,="), false, std::io::sink).err().unwrap().to_string();
        assert!(error.starts_with("RUST_LOG = \"=,=\" is not a log filter"), "{error}");
    }
}
