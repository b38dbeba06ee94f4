//! What a simulated run came to: how long it took, and what was busy meanwhile.
//!
//! Contract: shares are of the time until four fifths of the tasks were done, so that the end, when some workers have
//! nothing left to do, does not hide what limits the rest. Units: nanoseconds, bytes, shares of 1.

use super::super::table::Table;

/// How many of [`Shares::by_name`] belong to all workers together.
const SHARED: usize = 6;

/// Share above which something counts as saturated.
const SATURATED: f64 = 0.8;

/// How busy everything was; `None`: it has no bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shares {
    pub(super) cores: f64,
    pub(super) requests: f64,
    pub(super) windows: f64,
    pub(super) chips: f64,
    pub(super) searches: f64,
    pub(super) link: Option<f64>,
    pub(super) image_requests: Option<f64>,
    pub(super) image_bytes: Option<f64>,
    pub(super) stac: Option<f64>,
    pub(super) store_bytes: Option<f64>,
    pub(super) store_ops: Option<f64>,
    pub(super) broker: Option<f64>,
}

impl Shares {
    /// Shares by name: what all workers share, then what each has.
    fn by_name(&self) -> [(&'static str, Option<f64>); 12] {
        [
            ("image host, requests", self.image_requests),
            ("image host, bytes", self.image_bytes),
            ("STAC API", self.stac),
            ("output, bytes", self.store_bytes),
            ("output, operations", self.store_ops),
            ("broker", self.broker),
            ("cores", Some(self.cores)),
            ("link", self.link),
            ("requests_per_host", Some(self.requests)),
            ("stac.requests_in_flight", Some(self.searches)),
            ("window_mb", Some(self.windows)),
            ("chips_in_flight", Some(self.chips)),
        ]
    }

    /// What limits: the most saturated of what all share, because its queue fills the workers' own bounds; else the
    /// most saturated of those.
    fn limit(&self) -> &'static str {
        let all = self.by_name();
        let busiest = |of: &[(&'static str, Option<f64>)]| {
            let saturated = of.iter().filter_map(|(name, share)| Some((*name, share.filter(|s| *s >= SATURATED)?)));
            saturated.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, _)| name)
        };
        let (shared, own) = all.split_at(SHARED);
        busiest(shared).or_else(|| busiest(own)).unwrap_or("waiting (tasks_in_flight)")
    }
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) workers: u32,
    pub(super) wall_ns: u64,
    /// Mean time of a worker's last task, share of the whole.
    pub(super) even: f64,
    pub(super) tasks: u64,
    pub(super) chips: u64,
    pub(super) searches: u64,
    /// Requests to the image host, the blocks they brought, and bytes.
    pub(super) requests: u64,
    pub(super) blocks: u64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) shares: Shares,
}

impl Outcome {
    /// Seconds from the first task to the last.
    pub(super) fn seconds(&self) -> f64 {
        self.wall_ns as f64 / super::pipe::SECOND
    }

    fn rate(&self) -> f64 {
        self.chips as f64 / self.seconds().max(1e-9)
    }

    fn each(&self, total: f64) -> f64 {
        total / self.chips.max(1) as f64
    }

    /// What limits the run. More workers than partitions, and it is those.
    pub(super) fn limit(&self, partitions: u32) -> &'static str {
        if self.workers > partitions { "kafka.partitions" } else { self.shares.limit() }
    }

    /// As one JSON object.
    pub(super) fn json(&self, partitions: u32) -> serde_json::Value {
        let shares: serde_json::Map<String, serde_json::Value> =
            self.shares.by_name().into_iter().map(|(name, share)| (name.to_owned(), share.into())).collect();
        serde_json::json!({
            "workers": self.workers, "wall_s": self.seconds(), "tasks": self.tasks, "chips": self.chips,
            "chips_per_s": self.rate(), "image_requests": self.requests, "image_blocks": self.blocks,
            "image_bytes": self.bytes_in, "searches": self.searches, "output_bytes": self.bytes_out,
            "even": self.even, "busy": shares, "limit": self.limit(partitions),
        })
    }
}

/// All runs as a table; what has no bound shows `-`.
pub(super) fn table(runs: &[Outcome], partitions: u32) -> Table {
    let mut table = Table::new(&[
        "WORKERS",
        "TIME",
        "CHIPS/S",
        "REQ/S",
        "MB/CHIP",
        "MBIT/S IN",
        "MBIT/S OUT",
        "SEARCH/S",
        "EVEN",
        "CORES",
        "REQUESTS",
        "LINK",
        "IMAGES",
        "STAC",
        "OUTPUT",
        "BROKER",
        "LIMIT",
    ]);
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.0}", s * 100.0));
    let larger = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    for run in runs {
        let (s, per_s) = (&run.shares, |total: f64| total / run.seconds().max(1e-9));
        table.row([
            run.workers.to_string(),
            clock(run.seconds()),
            format!("{:.1}", run.rate()),
            format!("{:.1}", per_s(run.requests as f64)),
            format!("{:.2}", run.each(run.bytes_in) / 1e6),
            format!("{:.0}", per_s(run.bytes_in * 8e-6)),
            format!("{:.0}", per_s(run.bytes_out * 8e-6)),
            format!("{:.2}", per_s(run.searches as f64)),
            percent(Some(run.even)),
            percent(Some(s.cores)),
            percent(Some(s.requests)),
            percent(s.link),
            percent(larger(s.image_requests, s.image_bytes)),
            percent(larger(Some(s.searches), s.stac)),
            percent(larger(s.store_bytes, s.store_ops)),
            percent(s.broker),
            run.limit(partitions).to_owned(),
        ]);
    }
    table
}

/// `2:05:09`, or `12.3 s` below a minute.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if whole < 60 {
        format!("{seconds:.1} s")
    } else {
        format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    }
}
