//! The monitor: reads all results from the beginning and shows how far the run is.
//!
//! Contract: its state is a function of what the topics hold, so it may be stopped and started at any
//! time. All it writes to the broker is how many chips each class has ([`super::quota`]). With `exit_when_done`
//! it ends when every planned task has a result: 0 if none failed, else 1. The tasks topic is read too: it is the only
//! place that says where waiting cells are.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::Actor as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::config::{Config, LogFormat, Ui};
use super::error::NodeError;
use super::log_tap::LogTap;
use super::metrics_http;
use super::monitor_view::{Lag, Style, json, one_line, summary};
use super::probes::Probes;
use super::quota::Herald;
use super::run_gauges;
use super::tui::{Scene, Tui, Wish};
use super::web::{Moment, Web};
use crate::actors::lane::Lane;
use crate::actors::tallier::{AskView, BeatArrived, PlanArrived, ResultArrived, Tallier, TaskSeen};
use crate::adapters::broker::{Broker, ReadEvent};
use crate::domain::progress::Progress;
use crate::domain::quota::QuotaRecord;
use crate::domain::view::View;

/// Messages of each kind on their way to the tally.
const RESULTS: usize = 256;
const FEW: usize = 16;

/// Shortest time between two views, and longest between two looks at whether the run is complete.
const SHORTEST: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(1);

/// How the view is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    /// One line at a time.
    Lines,
    /// One JSON object at a time.
    Json,
    /// Only the summary.
    Quiet,
    /// The whole terminal.
    Full,
}

impl Face {
    fn of(config: &Config) -> Self {
        let full = || {
            let capable = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
            capable && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
        };
        match config.monitor.ui {
            Ui::Tui if full() => Self::Full,
            Ui::Json => Self::Json,
            Ui::None => Self::Quiet,
            Ui::Log => Self::Lines,
            Ui::Auto if config.log.format == LogFormat::Json => Self::Json,
            Ui::Auto if full() => Self::Full,
            Ui::Tui | Ui::Auto => Self::Lines,
        }
    }
}

/// Whether the monitor will take the whole terminal, so that nobody else may draw on it.
pub fn takes_the_terminal(config: &Config) -> bool {
    Face::of(config) == Face::Full
}

/// How a monitor is to behave.
#[derive(Clone)]
pub struct Watch {
    /// End when the run is complete.
    pub exit_when_done: bool,
    /// Whether leaving the screen stops nothing but the monitor.
    pub alone: bool,
    /// Holds the log back while the screen is full.
    pub log: LogTap,
    /// What the process says of itself, on the page's address too.
    pub probes: Probes,
}

/// The lanes to the tally.
struct Tallying {
    results: Lane<ResultArrived>,
    tasks: Lane<TaskSeen>,
    plans: Lane<PlanArrived>,
    beats: Lane<BeatArrived>,
    asks: Lane<AskView>,
}

impl Tallying {
    fn start(config: &Config) -> Self {
        let tallier = Tallier::new(config.run.id()).start();
        Self {
            results: Lane::new("tally", RESULTS, tallier.clone().recipient()),
            tasks: Lane::new("tally", RESULTS, tallier.clone().recipient()),
            plans: Lane::new("tally", FEW, tallier.clone().recipient()),
            beats: Lane::new("tally", FEW, tallier.clone().recipient()),
            asks: Lane::new("tally", 1, tallier.recipient()),
        }
    }

    /// Passes one record on.
    async fn feed(&self, config: &Config, record: crate::adapters::broker::ReadRecord) {
        let seen_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
        let payload = record.payload;
        if *record.topic == *config.kafka.results_topic {
            self.results.send(ResultArrived { payload, seen_ms }).await;
        } else if *record.topic == *config.kafka.tasks_topic {
            self.tasks.send(TaskSeen { payload }).await;
        } else if *record.topic == *config.kafka.status_topic {
            self.beats.send(BeatArrived { payload, seen_ms }).await;
        } else if !record.key.as_deref().is_some_and(QuotaRecord::is_key) {
            self.plans.send(PlanArrived { payload }).await;
        }
    }

    async fn view(&self) -> Result<View, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(AskView { now_ms: now_ms(), reply }).await;
        answer.await.map_err(|_| NodeError::Stopped("counting the results panicked".into()))
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
    watch: Watch,
) -> Result<Progress, NodeError> {
    let exit_when_done = watch.exit_when_done;
    let tally = Tallying::start(config);
    let kafka = &config.kafka;
    let topics =
        [&kafka.results_topic, &kafka.control_topic, &kafka.tasks_topic, &kafka.status_topic].map(String::as_str);
    let mut events = broker.read(&topics).await?;
    let web = Web::start(config, metrics_http::router(watch.probes.clone())).await?;
    let mut screen = Screen::new(config, watch);
    let mut ticks = tokio::time::interval(config.monitor.interval.clamp(SHORTEST, LOOK));
    let mut drawn: Option<Instant> = None;
    let (mut herald, mut caught_up, mut heard) = (Herald::default(), false, false);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            event = events.recv() => match event {
                Some(ReadEvent::Record(record)) => {
                    heard = true;
                    tally.feed(config, record).await;
                }
                // What is known now is shown now.
                Some(ReadEvent::CaughtUp) => (caught_up, drawn) = (true, None),
                Some(ReadEvent::Failed(error)) => return Err(error.into()),
                None => return Err(NodeError::Stopped("reading the results has ended".into())),
            },
            wish = screen.wish() => match wish {
                Wish::Redraw => screen.redraw(),
                Wish::Quit => break,
            },
            _ = ticks.tick() => {
                let due = drawn.is_none_or(|at| at.elapsed() + SHORTEST / 2 >= config.monitor.interval);
                // Between two views nothing is counted again, unless somebody waits for the end or there is a clock to draw.
                let waited_for = exit_when_done || config.sampling.stop_when_filled;
                if !(due || (waited_for && std::mem::take(&mut heard)) || screen.ticks()) {
                    continue;
                }
                let view = tally.view().await?;
                let complete = view.progress.complete;
                // A complete run has nothing left to read, whatever the other topics still hold.
                if (caught_up || complete) && config.sampling.stop_when_filled {
                    herald.say(config, &*broker, &view.progress).await;
                }
                let lag = if due { lag(config, &*broker).await } else { None };
                screen.show(Sight { view: view.clone(), lag: lag.clone(), caught_up }, due);
                if due {
                    drawn = Some(Instant::now());
                    run_gauges::record(&view.progress, lag.as_deref());
                    web.show(Moment::new(view, lag, caught_up));
                }
                if exit_when_done && complete {
                    break;
                }
            }
        }
    }
    let view = tally.view().await?;
    screen.finish(&view.progress);
    verdict(view.progress, exit_when_done)
}

fn verdict(progress: Progress, exit_when_done: bool) -> Result<Progress, NodeError> {
    match progress {
        p if exit_when_done && !p.complete => Err(NodeError::Incomplete(format!(
            "stopped before the run was complete: {} of {} tasks have a result",
            p.tasks_done,
            p.tasks_planned.map_or("?".into(), |n| n.to_string())
        ))),
        p if exit_when_done && p.tasks_failed > 0 => {
            Err(NodeError::Incomplete(format!("{} of {} tasks failed; see above", p.tasks_failed, p.tasks_done)))
        }
        p => Ok(p),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// How far the workers are behind; `None` when the broker cannot say just now.
async fn lag(config: &Config, broker: &dyn Broker) -> Option<Vec<Lag>> {
    let topics = [config.kafka.tasks_topic.as_str()];
    let asked = broker.group_lag(&config.kafka.group, &topics);
    let lags = tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()?;
    Some(lags.iter().map(|l| Lag { partition: l.partition, behind: l.lag() }).collect())
}

/// What there is to see.
struct Sight {
    view: View,
    lag: Option<Vec<Lag>>,
    caught_up: bool,
}

/// Draws on standard output.
struct Screen {
    face: Face,
    style: Style,
    /// The full screen, while it is up.
    tui: Option<Tui>,
    seen: Option<Sight>,
}

impl Screen {
    fn new(config: &Config, watch: Watch) -> Self {
        let style = Style::of(std::io::stdout().is_terminal(), |v| std::env::var(v).ok());
        let face = Face::of(config);
        let tui = (face == Face::Full).then(|| Tui::start(watch.log, watch.alone));
        let tui = tui.transpose().unwrap_or_else(|error| {
            tracing::warn!("this terminal cannot show a full screen ({error}); monitor.ui = \"log\" instead");
            None
        });
        let face = if face == Face::Full && tui.is_none() { Face::Lines } else { face };
        Self { face, style, tui, seen: None }
    }

    /// Whether it shows a time that passes.
    fn ticks(&self) -> bool {
        self.tui.is_some()
    }

    /// What the user wants; without a full screen nothing, ever.
    async fn wish(&mut self) -> Wish {
        match &mut self.tui {
            Some(tui) => tui.wish().await,
            None => std::future::pending().await,
        }
    }

    /// Shows another moment: the full screen at once, the others when one is due. A lag that was not asked for is the last.
    fn show(&mut self, mut sight: Sight, due: bool) {
        let progress = &sight.view.progress;
        match self.face {
            Face::Lines if due => write(&(one_line(progress, sight.lag.as_deref()) + "\n")),
            Face::Json if due => write(&(json(progress, sight.lag.as_deref()).unwrap_or_default() + "\n")),
            Face::Full if !self.tui.as_ref().is_some_and(Tui::is_paused) => {
                if !due {
                    sight.lag = self.seen.take().and_then(|seen| seen.lag);
                }
                self.seen = Some(sight);
                self.redraw();
            }
            _ => {}
        }
    }

    fn redraw(&mut self) {
        if let (Some(tui), Some(Sight { view, lag, caught_up })) = (&mut self.tui, &self.seen) {
            tui.draw(&Scene { view, lag: lag.as_deref(), caught_up: *caught_up, style: self.style });
        }
    }

    fn finish(mut self, progress: &Progress) {
        // The terminal comes back first, then what is to stay on it.
        self.tui = None;
        match self.face {
            Face::Json => write(&(json(progress, None).unwrap_or_default() + "\n")),
            _ => write(&summary(progress, self.style)),
        }
    }
}

/// A closed pipe (`| head`) is no reason to stop watching.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
