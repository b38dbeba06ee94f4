//! The monitor: reads all results from the beginning and shows how far the run is.
//!
//! Contract: its state is a function of what the topics hold, so it may be stopped and started at any
//! time. All it writes to the broker is how many chips each class has ([`super::quota`]). With `exit_when_done` it ends when every planned task has a result:
//! 0 if none failed, else 1.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::Actor as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::config::{Config, LogFormat, Ui};
use super::error::NodeError;
use super::monitor_view::{Lag, Style, json, one_line, page, summary};
use super::quota::Herald;
use crate::actors::lane::Lane;
use crate::actors::tallier::{AskProgress, PlanArrived, ResultArrived, Tallier};
use crate::adapters::broker::{Broker, ReadEvent};
use crate::domain::progress::Progress;
use crate::domain::quota::QuotaRecord;

/// Results on their way to the tally.
const RESULTS: usize = 256;

/// Shortest time between two views, and longest between two looks at whether the run is complete.
const SHORTEST: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(1);

/// How the view is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// A page that is drawn over the last one.
    Page,
    /// One line at a time.
    Lines,
    /// One JSON object at a time.
    Json,
    /// Only the summary.
    Quiet,
}

impl View {
    fn of(config: &Config) -> Self {
        match config.monitor.ui {
            Ui::Json => Self::Json,
            Ui::None => Self::Quiet,
            Ui::Log => Self::Lines,
            Ui::Tui | Ui::Auto if config.log.format == LogFormat::Json => Self::Json,
            Ui::Tui | Ui::Auto if std::io::stdout().is_terminal() => Self::Page,
            Ui::Tui | Ui::Auto => Self::Lines,
        }
    }
}

/// Watches until the run is complete (`exit_when_done`) or a signal comes.
///
/// # Errors
/// A broker that refuses; with `exit_when_done` also failed tasks and an incomplete run.
pub async fn run(
    config: &Config,
    broker: Arc<dyn Broker>,
    drain: &CancellationToken,
    exit_when_done: bool,
) -> Result<Progress, NodeError> {
    let tallier = Tallier::new(config.run.id()).start();
    let results: Lane<ResultArrived> = Lane::new("tally", RESULTS, tallier.clone().recipient());
    let plans: Lane<PlanArrived> = Lane::new("tally", 16, tallier.clone().recipient());
    let asks: Lane<AskProgress> = Lane::new("tally", 1, tallier.recipient());
    let topics = [config.kafka.results_topic.as_str(), config.kafka.control_topic.as_str()];
    let mut events = broker.read(&topics).await?;
    let (view, style) = (View::of(config), Style::of(std::io::stdout().is_terminal(), |v| std::env::var(v).ok()));
    let mut screen = Screen { view, style, lines: 0 };
    let mut ticks = tokio::time::interval(config.monitor.interval.clamp(SHORTEST, LOOK));
    let mut drawn: Option<Instant> = None;
    let (mut herald, mut caught_up) = (Herald::default(), false);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            event = events.recv() => match event {
                Some(ReadEvent::CaughtUp) => {
                    tracing::debug!("everything that was there has been read");
                    caught_up = true;
                }
                Some(event) => feed(config, event, &results, &plans).await?,
                None => return Err(NodeError::Stopped("reading the results has ended".into())),
            },
            _ = ticks.tick() => {
                let progress = ask(&asks).await?;
                if caught_up && config.sampling.stop_when_filled {
                    herald.say(config, &*broker, &progress).await;
                }
                if drawn.is_none_or(|at| at.elapsed() + SHORTEST / 2 >= config.monitor.interval) {
                    drawn = Some(Instant::now());
                    screen.draw(&progress, lag(config, &*broker).await.as_deref());
                }
                if exit_when_done && progress.complete {
                    break;
                }
            }
        }
    }
    let progress = ask(&asks).await?;
    screen.finish(&progress);
    match &progress {
        p if exit_when_done && !p.complete => Err(NodeError::Incomplete(format!(
            "stopped before the run was complete: {} of {} tasks have a result",
            p.tasks_done,
            p.tasks_planned.map_or("?".into(), |n| n.to_string())
        ))),
        p if exit_when_done && p.tasks_failed > 0 => {
            Err(NodeError::Incomplete(format!("{} of {} tasks failed; see above", p.tasks_failed, p.tasks_done)))
        }
        _ => Ok(progress),
    }
}

/// Passes one event on to the tally.
async fn feed(
    config: &Config,
    event: ReadEvent,
    results: &Lane<ResultArrived>,
    plans: &Lane<PlanArrived>,
) -> Result<(), NodeError> {
    match event {
        ReadEvent::Record(record) if *record.topic == *config.kafka.results_topic => {
            let seen_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
            results.send(ResultArrived { payload: record.payload, seen_ms }).await;
        }
        ReadEvent::Record(record) if record.key.as_deref().is_some_and(QuotaRecord::is_key) => {}
        ReadEvent::Record(record) => plans.send(PlanArrived { payload: record.payload }).await,
        ReadEvent::CaughtUp => {}
        ReadEvent::Failed(error) => return Err(error.into()),
    }
    Ok(())
}

async fn ask(asks: &Lane<AskProgress>) -> Result<Progress, NodeError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let (reply, answer) = oneshot::channel();
    asks.send(AskProgress { now_ms: now, reply }).await;
    answer.await.map_err(|_| NodeError::Stopped("counting the results panicked".into()))
}

/// How far the workers are behind; `None` when the broker cannot say just now.
async fn lag(config: &Config, broker: &dyn Broker) -> Option<Vec<Lag>> {
    let topics = [config.kafka.tasks_topic.as_str()];
    let asked = broker.group_lag(&config.kafka.group, &topics);
    let lags = tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()?;
    Some(lags.iter().map(|l| Lag { partition: l.partition, behind: l.lag() }).collect())
}

/// Draws on standard output.
struct Screen {
    view: View,
    style: Style,
    lines: usize,
}

impl Screen {
    fn draw(&mut self, progress: &Progress, lag: Option<&[Lag]>) {
        let text = match self.view {
            View::Page => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
                let text = page(progress, lag, now, self.style);
                let over = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
                self.lines = text.lines().count();
                over + &text
            }
            View::Lines => one_line(progress, lag) + "\n",
            View::Json => json(progress, lag).unwrap_or_default() + "\n",
            View::Quiet => return,
        };
        write(&text);
    }

    fn finish(&mut self, progress: &Progress) {
        let over = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        match self.view {
            View::Json => write(&(json(progress, None).unwrap_or_default() + "\n")),
            _ => write(&(over + &summary(progress, self.style))),
        }
    }
}

/// A closed pipe (`| head`) is no reason to stop watching.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
