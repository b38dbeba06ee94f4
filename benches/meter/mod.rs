//! What a process and a thread have used so far, as Linux tells it.
//!
//! Units: seconds of CPU time, MiB. Contract: read from `/proc`, so no crate and no unsafe code.
//! Trap: the process's CPU time comes in ticks of 10 ms; the thread's is exact.

#![allow(dead_code, reason = "each program uses its part")]

use std::fs;

/// Ticks per second of `/proc/*/stat`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

/// CPU time of this process, all threads, user and system: `(user, system)`.
pub(crate) fn process_cpu() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in brackets that may hold spaces.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|v| v.parse::<f64>().ok()).unwrap_or_default();
    (field(11) / TICKS, field(12) / TICKS)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// Largest resident size of this process so far.
pub(crate) fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
