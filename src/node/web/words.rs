//! Numbers and times as the page writes them.
//!
//! Contract: pure; times of day are UTC and say so where they stand alone.

use chrono::DateTime;

use crate::domain::classes::ClassId;
use crate::domain::progress::ClassProgress;

pub(crate) use crate::node::monitor_view::span;

/// `1 234 567`, with narrow spaces that do not break.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// `12.3`, without decimals from 100 on.
pub(crate) fn rate(per_s: f64) -> String {
    if per_s >= 99.95 { format!("{per_s:.0}") } else { format!("{per_s:.1}") }
}

/// `2026-11-22 10:42:46 UTC`; empty for 0.
pub(crate) fn moment(ms: u64) -> String {
    written(ms, "%Y-%m-%d %H:%M:%S UTC")
}

/// `10:42`, or with the day when the span is longer than one.
pub(crate) fn mark(ms: u64, days: bool) -> String {
    written(ms, if days { "%m-%d %H:%M" } else { "%H:%M:%S" })
}

/// `3m 07s ago`.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    format!("{} ago", span(now_ms.saturating_sub(then_ms) / 1000))
}

fn written(ms: u64, format: &str) -> String {
    let time = i64::try_from(ms).ok().filter(|ms| *ms > 0).and_then(DateTime::from_timestamp_millis);
    time.map(|time| time.format(format).to_string()).unwrap_or_default()
}

/// A colour, if it is one; else a grey, so that nothing else can stand in an attribute.
pub(crate) fn colour(text: &str) -> &str {
    let digits = text.strip_prefix('#').unwrap_or_default();
    if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()) { text } else { "#808080" }
}

/// `3 fruit`, or the number alone.
pub(crate) fn class_name(classes: &[ClassProgress], class: ClassId) -> String {
    let named = classes.iter().find(|c| c.class == class).map(|c| c.name.as_str()).filter(|name| !name.is_empty());
    named.map_or_else(|| class.to_string(), |name| format!("{class} {name}"))
}

/// `[2.05, 41.30, 2.10, 41.35]` without noise of binary fractions.
pub(crate) fn degrees([w, s, e, n]: [f64; 4]) -> String {
    let short = |d: f64| {
        let text = format!("{d:.5}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    format!("{} to {} E, {} to {} N", short(w), short(e), short(s), short(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_people_write_them() {
        assert_eq!((count(0), count(1234567)), ("0".into(), "1\u{202f}234\u{202f}567".into()));
        assert_eq!((rate(0.04), rate(99.96), rate(1234.5)), ("0.0".into(), "100".into(), "1234".into()));
        assert_eq!(moment(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!((moment(0), moment(u64::MAX)), (String::new(), String::new()));
        assert_eq!(degrees([2.05, 41.300_000_000_000_004, 2.1, 41.35]), "2.05 to 2.1 E, 41.3 to 41.35 N");
    }

    #[test]
    fn only_colours_are_colours() {
        assert_eq!(colour("#a0B1c2"), "#a0B1c2");
        for wrong in ["", "#12345", "red", "#12345g", "#é1234", "url(x)", "#123456;"] {
            assert_eq!(colour(wrong), "#808080");
        }
    }
}
