//! How fast results come: now, over a window, and over the whole run.
//!
//! Contract: pure. Units: `_ms` is milliseconds since 1970 UTC or a span of them, rates are per second, times to go seconds.
//! Trap: rates follow the results' own times, whoever looks and whenever.

use super::outcome::Outcome;

/// Width of the window the current rates are taken over, milliseconds.
pub const WINDOW_MS: u64 = 300_000;

/// The time the current rates are taken over.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from_ms: u64,
    pub(super) span_ms: u64,
}

impl Window {
    /// Whether a result of this time is in it; a window from 0 on holds all.
    pub(super) fn holds(&self, when_ms: u64) -> bool {
        when_ms > self.from_ms || self.from_ms == 0
    }
}

/// Results over time.
pub(super) struct Rates {
    pub(super) since: Window,
    pub(super) first_ms: Option<u64>,
    pub(super) last_ms: Option<u64>,
    pub(super) chips: f64,
    pub(super) tasks: f64,
    pub(super) mean_chips: f64,
}

impl Rates {
    pub(super) fn of(shown: &[&Outcome], now_ms: u64) -> Self {
        let first_ms = shown.iter().map(|k| k.when_ms).min();
        let last_ms = shown.iter().map(|k| k.when_ms).max();
        let (Some(first), Some(last)) = (first_ms, last_ms) else {
            let since = Window { from_ms: 0, span_ms: 0 };
            return Self { since, first_ms, last_ms, chips: 0.0, tasks: 0.0, mean_chips: 0.0 };
        };
        // A worker's clock may be ahead of ours; its results are not in the future.
        let now = now_ms.max(last);
        let from_ms = now.saturating_sub(WINDOW_MS);
        let since = Window { from_ms, span_ms: now - first.max(from_ms) };
        let recent = shown.iter().filter(|k| since.holds(k.when_ms));
        let (tasks, chips) = recent.fold((0_u64, 0_u64), |(t, c), k| (t + 1, c.saturating_add(k.chips)));
        let all = shown.iter().fold(0_u64, |n, kept| n.saturating_add(kept.chips));
        let mean_chips = per_second(all, last - first);
        let (chips, tasks) = (per_second(chips, since.span_ms), per_second(tasks, since.span_ms));
        Self { since, first_ms, last_ms, chips, tasks, mean_chips }
    }
}

/// A rate; spans under a second count as one.
#[allow(clippy::cast_precision_loss)] // counts far below 2^53
pub(super) fn per_second(n: u64, span_ms: u64) -> f64 {
    n as f64 * 1000.0 / span_ms.max(1000) as f64
}

/// Seconds for what is left; 0 for nothing, `None` when no end is in sight.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rounded up, capped
pub(super) fn eta(left: u64, per_s: f64) -> Option<u64> {
    if left == 0 {
        return Some(0);
    }
    let seconds = (left as f64 / per_s).ceil();
    (seconds.is_finite() && seconds < 1e9).then_some(seconds as u64)
}
