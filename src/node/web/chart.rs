//! Chips over time as SVG bars.
//!
//! Contract: pure; one bar per bucket, its height the bucket's chips per second; a cross above the axis marks buckets with
//! failed tasks. Times are UTC. Trap: the last bucket is still filling.

use maud::{Markup, html};

use super::words::{count, mark, rate};
use crate::domain::throughput::Throughput;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 92.0;
const TOP: f64 = 12.0;
const HEIGHT: f64 = 240.0;
const BELOW: f64 = 44.0;
const DAY_MS: u64 = 86_400_000;

/// The chart, or a word when nothing has ended yet.
pub(crate) fn chart(over: &Throughput) -> Markup {
    let per_s = |chips: u64| chips as f64 * 1000.0 / over.bucket_ms.max(1) as f64;
    let Some(peak) = over.buckets.iter().map(|b| b.chips).max() else {
        return html! { p.faint { "No task has ended yet." } };
    };
    let top = round_up(per_s(peak));
    let wide = (WIDTH - LEFT - 8.0) / over.buckets.len() as f64;
    let x = |i: usize| LEFT + i as f64 * wide;
    let bottom = TOP + HEIGHT;
    let at = |i: usize| over.from_ms + over.bucket_ms * i as u64;
    let days = over.bucket_ms * over.buckets.len() as u64 > DAY_MS;
    let chips: u64 = over.buckets.iter().map(|b| b.chips).sum();
    let label = format!("{} chips; at most {} per second", count(chips), rate(per_s(peak)));
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (bottom + BELOW) } role="img" aria-label=(label) {
            g.graticule {
                @for share in [0.0, 0.5, 1.0] {
                    @let y = bottom - share * HEIGHT;
                    line x1=(LEFT) x2=(WIDTH - 8.0) y1=(y) y2=(y) {}
                    text x=(LEFT - 8.0) y=(y + 10.0) text-anchor="end" { (rate(top * share)) }
                }
                text x=(LEFT) y=(bottom + 34.0) { (mark(over.from_ms, days)) }
                text x=(WIDTH - 8.0) y=(bottom + 34.0) text-anchor="end" { (mark(at(over.buckets.len()), days)) " UTC" }
            }
            @for (i, bucket) in over.buckets.iter().enumerate() {
                @let high = per_s(bucket.chips) / top * HEIGHT;
                @if bucket.chips > 0 {
                    rect.done x=(short(x(i) + wide * 0.06)) width=(short(wide * 0.88)) y=(short(bottom - high)) height=(short(high)) {
                        title { (mark(at(i), days)) ": " (count(bucket.chips)) " chips, " (count(bucket.tasks)) " tasks" }
                    }
                }
                @if bucket.failed > 0 {
                    @let middle = x(i) + wide / 2.0;
                    path.cross d={ "M" (short(middle - 7.0)) " " (bottom - 20.0) "l14 14m0 -14l-14 14" } {
                        title { (mark(at(i), days)) ": " (count(bucket.failed)) " failed tasks" }
                    }
                }
            }
        }
        p.faint { "chips per second" @if over.buckets.iter().any(|b| b.failed > 0) { "; × marks failed tasks" } }
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_up(rate: f64) -> f64 {
    let power = 10_f64.powf(rate.max(0.01).log10().floor());
    let next = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|top| *top >= rate);
    next.unwrap_or(10.0 * power)
}

fn short(n: f64) -> String {
    format!("{n:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::throughput::Bucket;

    #[test]
    fn axes_end_at_round_numbers() {
        for (rate, top) in [(0.0, 0.01), (0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (47.0, 50.0), (51.0, 100.0)] {
            assert!((round_up(rate) - top).abs() < 1e-9, "{rate}");
        }
    }

    #[test]
    fn a_bar_for_each_bucket_with_chips_and_a_cross_for_each_with_failures() {
        let buckets = vec![Bucket { chips: 10, tasks: 2, failed: 0 }, Bucket { chips: 0, tasks: 3, failed: 3 }];
        let drawn = chart(&Throughput { from_ms: 60_000, bucket_ms: 5000, buckets }).into_string();
        assert_eq!((drawn.matches("<rect").count(), drawn.matches("class=\"cross\"").count()), (1, 1));
        assert!(drawn.contains("00:01:00: 10 chips, 2 tasks") && drawn.contains("00:01:10 UTC"), "{drawn}");
        assert!(chart(&Throughput::default()).into_string().contains("No task has ended yet"));
    }
}
