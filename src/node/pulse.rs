//! A worker's heartbeats: every few seconds its state on the status topic, and a last word when it leaves.
//!
//! Contract: a change of what it is at is said within a second. Nothing waits for a heartbeat; one that cannot be published is left out, and the next one says the
//! same. The last one says `gone`, so that only workers that died are taken for lost. Trap: times are this
//! machine's clock; who reads them should look at the broker's stamp as well.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::config::host_name;
use super::instruments::Instruments;
use crate::actors::settler::Counts;
use crate::adapters::broker::{Broker, GroupHandle, Record};
use crate::domain::heartbeat::{Activity, Heartbeat};

/// Time between two looks at what the worker is at: a change is said before the next heartbeat is due.
const LOOK: Duration = Duration::from_secs(1);

/// Longest time a heartbeat may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a heartbeat is made of.
pub struct Pulse {
    /// Name of the worker.
    pub worker: Arc<str>,
    /// Its lanes, doors and caches.
    pub instruments: Instruments,
    /// Its membership.
    pub group: GroupHandle,
    /// Its tasks and chips.
    pub counts: Arc<Counts>,
    /// Fires when it is told to stop.
    pub drain: CancellationToken,
    /// Time between two.
    pub interval: Duration,
}

impl Pulse {
    /// Beats until `end`, then says the last word.
    pub async fn beat(self, broker: Arc<dyn Broker>, topic: String, end: CancellationToken) {
        let started_ms = now_ms();
        let mut ticks = interval(self.interval.min(LOOK));
        let mut said: Option<(Activity, Instant)> = None;
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let gone = tokio::select! {
                biased;
                () = end.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let activity = if gone { Activity::Gone } else { self.activity() };
            // Half a look early is in time; the next one would be late.
            let due = |(last, at): (Activity, Instant)| last != activity || at.elapsed() + LOOK / 2 >= self.interval;
            if !said.is_none_or(due) {
                continue;
            }
            said = Some((activity, Instant::now()));
            let beat = self.state(activity, started_ms);
            let payload = serde_json::to_vec(&beat).unwrap_or_default();
            let publish = broker.publish(Record::keyed(topic.as_str(), self.worker.as_bytes().to_vec(), payload));
            match timeout(PATIENCE, publish).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!("no heartbeat: {error}"),
                Err(_) => tracing::debug!("no heartbeat: no acknowledgement"),
            }
            if gone {
                return;
            }
        }
    }

    fn activity(&self) -> Activity {
        match self.group.in_flight() {
            _ if self.drain.is_cancelled() => Activity::Draining,
            _ if self.instruments.held() => Activity::Held,
            0 => Activity::Idle,
            _ => Activity::Working,
        }
    }

    fn state(&self, activity: Activity, started_ms: u64) -> Heartbeat {
        let mut beat = Heartbeat {
            worker_id: self.worker.to_string(),
            host: host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at_ms: now_ms(),
            started_ms,
            interval_ms: self.interval.as_millis() as u64,
            activity,
            tasks_finished: self.counts.finished.load(Relaxed),
            tasks_failed: self.counts.failed.load(Relaxed),
            chips: self.counts.chips.load(Relaxed),
            partitions: self.group.status().borrow().assigned.iter().map(|(_, partition)| *partition).collect(),
            ..Heartbeat::default()
        };
        self.instruments.fill(&mut beat);
        beat
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
