//! A worker's own counters, gathered from its stages and doors: for `/metrics` and for its heartbeats.
//!
//! Contract: reads what is counted anyway and changes nothing; cheap enough to be asked every second.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use metrics::{counter, gauge};
use tokio::sync::Semaphore;

use super::probes;
use crate::actors::health::Health;
use crate::actors::hosts::Hosts;
use crate::actors::lane::LaneGauge;
use crate::adapters::http::Http;
use crate::adapters::imagery::Imagery;
use crate::domain::heartbeat::Heartbeat;

/// What there is to read.
#[derive(Clone)]
pub struct Instruments {
    /// The lanes of the road, in its order.
    pub lanes: Vec<LaneGauge>,
    /// The door to the catalog.
    pub catalog: Arc<Http>,
    /// The door to the images.
    pub images: Arc<Http>,
    /// The reader of images, with its cache.
    pub imagery: Arc<Imagery>,
    /// Whether the STAC API answers.
    pub catalog_health: Arc<Health>,
    /// Whether the image hosts do.
    pub image_hosts: Arc<Hosts>,
    /// Free MiB of `worker.window_mb`, and all of them.
    pub windows: (Arc<Semaphore>, u32),
}

impl Instruments {
    /// Whether tasks wait for a service.
    pub fn held(&self) -> bool {
        self.down().iter().any(|(_, down)| *down)
    }

    /// The services, and whether they (of the image hosts: any) are down.
    fn down(&self) -> [(&'static str, bool); 2] {
        [("catalog", self.catalog_health.is_open()), ("images", self.image_hosts.any_open())]
    }

    /// Writes everything down for `/metrics`.
    pub fn record(&self) {
        probes::lanes(&self.lanes);
        probes::http("catalog", &self.catalog);
        probes::http("images", &self.images);
        let stats = self.imagery.stats();
        counter!("satellite_cache_hits_total").absolute(stats.hits.load(Relaxed));
        counter!("satellite_cache_misses_total").absolute(stats.decoded.load(Relaxed));
        counter!("satellite_cache_decoded_bytes_total").absolute(stats.decoded_bytes.load(Relaxed));
        counter!("satellite_headers_total").absolute(stats.headers.load(Relaxed));
        for (name, down) in self.down() {
            gauge!("satellite_service_down", "service" => name).set(f64::from(u8::from(down)));
        }
        let (free, all) = &self.windows;
        let used = u64::from(*all).saturating_sub(free.available_permits() as u64);
        gauge!("satellite_window_memory_bytes").set((used << 20) as f64);
    }

    /// Writes the counters of a heartbeat.
    pub fn fill(&self, beat: &mut Heartbeat) {
        beat.in_flight = self.lanes.iter().map(|lane| (lane.name.to_owned(), lane.in_use() as u64)).collect();
        let stats = self.imagery.stats();
        (beat.cache_hits, beat.cache_misses) = (stats.hits.load(Relaxed), stats.decoded.load(Relaxed));
        let doors = [self.catalog.counters().tally(), self.images.counters().tally()];
        beat.requests = doors.iter().map(|tally| tally.requests).sum();
        beat.bytes_fetched = doors.iter().map(|tally| tally.bytes).sum();
    }
}
