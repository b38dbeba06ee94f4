//! What a node tells of itself: counters and times for Prometheus, and whether it can work.
//!
//! Contract: whatever is counted anyway is read when somebody asks ([`Probes::watch`]); only times are written
//! as they pass, by the lanes. Checks run at most every [`FRESH`], one round at a time, and each has
//! [`PATIENCE`], so that asking often costs nothing. A `Probes` that was not [`Probes::install`]ed takes
//! everything and tells nothing. Units: seconds and bytes, named in each metric. Trap: a process has one
//! recorder, and lanes ask for it when they are made: install before any stage is started.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::error::NodeError;
use crate::actors::lane::LaneGauge;
use crate::adapters::http::Http;

/// How long the answers of one round of checks are good.
pub const FRESH: Duration = Duration::from_secs(2);
/// Longest time of one check.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How often times are folded into their histograms, lest they pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds of all times, seconds: a mailbox takes microseconds, a task minutes.
const BUCKETS: [f64; 14] = [0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

type Source = Box<dyn Fn() + Send + Sync>;
type Question = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One answer to "can it work?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was asked about, for instance `broker`.
    pub name: &'static str,
    /// What is wrong, in words.
    pub answer: Result<(), String>,
}

/// See the head of this file. Clones are the same.
#[derive(Clone, Default)]
pub struct Probes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    recorder: Option<PrometheusHandle>,
    sources: Mutex<Vec<Source>>,
    questions: Mutex<Vec<(&'static str, Question)>>,
    answers: tokio::sync::Mutex<Option<(Instant, Vec<Check>)>>,
}

impl Probes {
    /// Makes this process record what its parts measure.
    ///
    /// # Errors
    /// When it records already.
    pub fn install(role: &'static str) -> Result<Self, NodeError> {
        let refused = |e: &dyn std::fmt::Display| NodeError::Stopped(format!("metrics cannot be recorded: {e}"));
        let recorder = PrometheusBuilder::new()
            .add_global_label("role", role)
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
            .map_err(|e| refused(&e))?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|e| refused(&e))?;
        describe();
        gauge!("satellite_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let folding = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                folding.run_upkeep();
            }
        });
        Ok(Self(Arc::new(Inner { recorder: Some(handle), ..Inner::default() })))
    }

    /// Runs `source` whenever somebody asks, to write down what is counted elsewhere.
    pub fn watch(&self, source: impl Fn() + Send + Sync + 'static) {
        lock(&self.0.sources).push(Box::new(source));
    }

    /// Asks `question` whenever somebody wants to know whether the node can work.
    pub fn ask<F>(&self, name: &'static str, question: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        lock(&self.0.questions).push((name, Arc::new(move || Box::pin(question()))));
    }

    /// All metrics in Prometheus' text form; `None`: nothing is recorded.
    pub fn text(&self) -> Option<String> {
        let recorder = self.0.recorder.as_ref()?;
        lock(&self.0.sources).iter().for_each(|source| source());
        memory();
        Some(recorder.render())
    }

    /// Whether the node can work, by what it needs.
    pub async fn ready(&self) -> Vec<Check> {
        let mut known = self.0.answers.lock().await;
        if let Some((_, answers)) = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return answers.clone();
        }
        let questions = lock(&self.0.questions).clone();
        let asked = questions.into_iter().map(|(name, question)| async move {
            let answer = tokio::time::timeout(PATIENCE, question()).await;
            Check { name, answer: answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) }
        });
        let answers = join_all(asked).await;
        *known = Some((Instant::now(), answers.clone()));
        answers
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes down how full lanes are.
pub fn lanes(gauges: &[LaneGauge]) {
    for lane in gauges {
        gauge!("satellite_lane_messages", "lane" => lane.name).set(lane.in_use() as f64);
        gauge!("satellite_lane_size", "lane" => lane.name).set(lane.size as f64);
    }
}

/// Writes down what was asked of whom over HTTP; `of` says for what.
pub fn http(of: &'static str, http: &Http) {
    for (host, tally) in http.by_host() {
        let label = || [("for", of.to_owned()), ("host", host.clone())];
        let answered = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(tally.by_class);
        for (status, n) in answered.chain([("none", tally.unanswered)]) {
            let [a, b] = label();
            let status = ("status", status.to_owned());
            counter!("satellite_http_requests_total", &[a, b, status]).absolute(n);
        }
        counter!("satellite_http_received_bytes_total", &label()).absolute(tally.bytes);
        gauge!("satellite_http_requests_in_flight", &label()).set(tally.in_flight as f64);
        gauge!("satellite_http_requests_waiting", &label()).set(tally.waiting as f64);
    }
}

/// Resident memory, where the system says it.
fn memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    if let Some(kib) = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()) {
        gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
}

/// What each metric is, as `# HELP`.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    for (name, what) in [
        ("satellite_lane_blocked_seconds", "Waiting for a credit of a lane: back-pressure of the stage behind it"),
        ("satellite_lane_wait_seconds", "From sending a message to the begin of its work"),
        ("satellite_lane_service_seconds", "Work on a message, waiting for the next lane's credit included"),
        ("satellite_task_seconds", "From delivery to the end of a task, by status"),
    ] {
        describe_histogram!(name, Unit::Seconds, what);
    }
    for (name, what) in [
        ("satellite_tasks_total", "Tasks this worker has ended, by status"),
        ("satellite_chips_total", "Chips in the results of this worker, by class"),
        ("satellite_chips_rejected_total", "Drawn parcels without a chip, by reason"),
        ("satellite_retries_total", "Further attempts, by stage"),
        ("satellite_http_requests_total", "Requests by host and class of status; none: no answer"),
        ("satellite_http_received_bytes_total", "Bytes of bodies read, by host"),
        ("satellite_cache_hits_total", "Blocks found decoded"),
        ("satellite_cache_misses_total", "Blocks fetched and decoded"),
        ("satellite_cache_decoded_bytes_total", "Bytes of the blocks decoded"),
        ("satellite_headers_total", "Headers of image files read"),
    ] {
        describe_counter!(name, what);
    }
    for (name, what) in [
        ("satellite_build_info", "1, with the program's version"),
        ("satellite_lane_messages", "Messages in a lane, queued and being worked on"),
        ("satellite_lane_size", "Most messages a lane takes"),
        ("satellite_http_requests_in_flight", "Requests whose answer is not read yet"),
        ("satellite_http_requests_waiting", "Requests waiting for their host's budget"),
        ("satellite_service_down", "1 while tasks wait for this service"),
        ("satellite_window_memory_bytes", "Decoded blocks held by windows being cut"),
        ("satellite_partitions", "Partitions this worker has"),
        ("satellite_lag_tasks", "Tasks not settled yet, by partition"),
        ("satellite_run_tasks", "Tasks of the run, by status; planned: all"),
        ("satellite_run_chips", "Chips of the run, by class"),
        ("satellite_run_chips_target", "Chips wanted, by class"),
        ("satellite_run_workers", "Workers that were heard of, by activity"),
        ("satellite_plan_tasks", "Tasks of this master's plan: planned, and acknowledged by the broker"),
        ("process_resident_memory_bytes", "Resident memory"),
    ] {
        describe_gauge!(name, what);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_an_answer_and_asking_again_at_once_is_free() {
        let probes = Probes::default();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        probes.ask("broker", move || {
            count.fetch_add(1, SeqCst);
            async { Ok(()) }
        });
        probes.ask("output", std::future::pending);
        for _ in 0..3 {
            let said: Vec<_> = probes.ready().await.into_iter().map(|c| (c.name, c.answer)).collect();
            assert_eq!(said, [("broker", Ok(())), ("output", Err("no answer within 3 s".into()))]);
        }
        assert_eq!(asked.load(SeqCst), 1);
        assert_eq!(probes.text(), None, "nothing is recorded");
    }
}
