//! A bound as the worker has it: so many credits, first come, first served.
//!
//! Contract: never more than `size` credits are out; who asked first is served first, also when a later one would fit.
//! Units: credits; nanoseconds of the virtual clock. Trap: whoever asks for more than there are gets them all.

use std::collections::VecDeque;

/// Credits and those who wait for them, by a number that means something to the caller.
#[derive(Debug, Clone)]
pub(super) struct Credits {
    size: u32,
    out: u32,
    waiting: VecDeque<(u32, u32)>,
    since: u64,
    /// Credits out times nanoseconds.
    held: u128,
}

impl Credits {
    /// `size` credits, at least one.
    pub(super) fn new(size: usize) -> Self {
        let size = u32::try_from(size.max(1)).unwrap_or(u32::MAX);
        Self { size, out: 0, waiting: VecDeque::new(), since: 0, held: 0 }
    }

    /// How many `wanted` credits really are.
    pub(super) fn clamp(&self, wanted: u32) -> u32 {
        wanted.clamp(1, self.size)
    }

    /// Takes credits for `who`; if that is not possible now, [`Credits::give`] will name it.
    pub(super) fn take(&mut self, now: u64, who: u32, count: u32) -> bool {
        if self.waiting.is_empty() && self.out + count <= self.size {
            self.change(now, self.out + count);
            return true;
        }
        self.waiting.push_back((who, count));
        false
    }

    /// Gives credits back, and adds to `served` who has them now.
    pub(super) fn give(&mut self, now: u64, count: u32, served: &mut Vec<u32>) {
        let mut out = self.out - count;
        while let Some((who, wanted)) = self.waiting.front().copied().filter(|(_, n)| out + n <= self.size) {
            self.waiting.pop_front();
            out += wanted;
            served.push(who);
        }
        self.change(now, out);
    }

    fn change(&mut self, now: u64, out: u32) {
        self.held += u128::from(self.out) * u128::from(now - self.since);
        (self.since, self.out) = (now, out);
    }

    /// Mean share of the credits that were out until `now`.
    pub(super) fn share(&self, now: u64) -> f64 {
        let held = self.held + u128::from(self.out) * u128::from(now - self.since);
        held as f64 / (f64::from(self.size) * now.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_first_is_served_first() {
        let mut credits = Credits::new(3);
        assert!(credits.take(0, 1, 2));
        assert!(!credits.take(0, 2, 2));
        assert!(!credits.take(0, 3, 1), "it would fit, but another one waits");
        let mut served = Vec::new();
        credits.give(10, 2, &mut served);
        assert_eq!(served, [2, 3]);
        assert_eq!(credits.share(20), (2.0 * 10.0 + 3.0 * 10.0) / 60.0);
        assert_eq!(credits.clamp(9), 3);
    }
}
