//! What is shared by amount: so many bytes, requests or operations a second, first come, first served; and cores.
//!
//! Contract: a call says when the work asked for now will be done; calls come in the order of time. Throughput is that
//! of a fair share, single waits are not. Units: nanoseconds of the virtual clock. Trap: `busy` counts work when it is
//! asked for, so at an instant it may be ahead of the clock by what is queued.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A second of the virtual clock.
pub(super) const SECOND: f64 = 1e9;

/// Something with a rate, or without bound.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    cost_ns: Option<f64>,
    free: u64,
    busy: u64,
}

impl Pipe {
    /// `per_second` units a second; 0: no bound.
    pub(super) fn new(per_second: f64) -> Self {
        Self { cost_ns: (per_second > 0.0).then(|| SECOND / per_second), free: 0, busy: 0 }
    }

    /// When `amount` units that come now are through.
    pub(super) fn push(&mut self, now: u64, amount: f64) -> u64 {
        let Some(cost) = self.cost_ns else { return now };
        let cost = (amount * cost) as u64;
        self.busy += cost;
        self.free = self.free.max(now) + cost;
        self.free
    }

    /// Share of the time until `now` in which it was busy; `None` without a bound.
    pub(super) fn share(&self, now: u64) -> Option<f64> {
        self.cost_ns.map(|_| (self.busy as f64 / now.max(1) as f64).min(1.0))
    }
}

/// The cores of a worker.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    free: BinaryHeap<Reverse<u64>>,
    busy: u64,
}

impl Cores {
    /// So many, at least one.
    pub(super) fn new(count: usize) -> Self {
        Self { free: (0..count.max(1)).map(|_| Reverse(0)).collect(), busy: 0 }
    }

    /// When work of `ns` that comes now is done.
    pub(super) fn run(&mut self, now: u64, ns: u64) -> u64 {
        let free = self.free.pop().map_or(0, |Reverse(at)| at);
        let done = free.max(now) + ns;
        self.free.push(Reverse(done));
        self.busy += ns;
        done
    }

    /// Core time used so far, nanoseconds.
    pub(super) fn busy(&self) -> u64 {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_serves_in_turn_and_is_never_faster_than_its_rate() {
        let mut pipe = Pipe::new(10.0);
        assert_eq!((pipe.push(0, 1.0), pipe.push(0, 1.0)), (100_000_000, 200_000_000));
        assert_eq!(pipe.push(1_000_000_000, 5.0), 1_500_000_000, "after a pause it begins at once");
        assert_eq!(pipe.share(1_400_000_000), Some(0.5));
        let mut free = Pipe::new(0.0);
        assert_eq!((free.push(7, 1e9), free.share(9)), (7, None));
    }

    #[test]
    fn cores_work_side_by_side() {
        let mut cores = Cores::new(2);
        assert_eq!([cores.run(0, 10), cores.run(0, 4), cores.run(0, 4), cores.run(20, 1)], [10, 4, 8, 21]);
        assert_eq!(cores.busy(), 19);
    }
}
