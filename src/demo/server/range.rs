//! The `Range` header of one request, after RFC 9110 section 14.
//!
//! Contract: a single byte range is honoured; several ranges, another unit or a malformed header are ignored, which
//! the RFC allows and object stores do. Units: bytes, ends exclusive.
//! Trap: a suffix longer than the file is the whole file; a suffix of 0 bytes cannot be satisfied.

use std::ops::Range;

/// What a `Range` header asks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// No usable header: the whole file, status 200.
    Whole,
    /// These bytes, status 206.
    Part(Range<u64>),
    /// Beyond the end, status 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: u64) -> Asked {
    let Some(spec) = header.and_then(bytes_unit) else { return Asked::Whole };
    let Some((from, to)) = spec.split_once('-') else { return Asked::Whole };
    match (from.trim(), to.trim()) {
        ("", suffix) => match number(suffix) {
            Some(0) => Asked::Unsatisfiable,
            Some(_) if size == 0 => Asked::Unsatisfiable,
            Some(n) => Asked::Part(size.saturating_sub(n)..size),
            None => Asked::Whole,
        },
        (first, "") => match number(first) {
            Some(first) if first < size => Asked::Part(first..size),
            Some(_) => Asked::Unsatisfiable,
            None => Asked::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if last < first => Asked::Whole,
            (Some(first), Some(last)) if first < size => Asked::Part(first..last.saturating_add(1).min(size)),
            (Some(_), Some(_)) => Asked::Unsatisfiable,
            _ => Asked::Whole,
        },
    }
}

fn bytes_unit(header: &str) -> Option<&str> {
    let (unit, spec) = header.split_once('=')?;
    (unit.trim().eq_ignore_ascii_case("bytes") && !spec.contains(',')).then_some(spec)
}

/// Digits only: `u64::from_str` would take a plus sign. A number past `u64` lies past any file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_cut_to_the_file() {
        assert_eq!(parse(Some("bytes=0-0"), 10), Asked::Part(0..1));
        assert_eq!(parse(Some("bytes=2-"), 10), Asked::Part(2..10));
        assert_eq!(parse(Some("bytes=-3"), 10), Asked::Part(7..10));
        assert_eq!(parse(Some("bytes=-99"), 10), Asked::Part(0..10));
        assert_eq!(parse(Some("Bytes=8-99999999999999999999999"), 10), Asked::Part(8..10));
    }

    #[test]
    fn what_lies_past_the_end_is_unsatisfiable() {
        for header in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(parse(Some(header), 10), Asked::Unsatisfiable, "{header}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Asked::Unsatisfiable);
        assert_eq!(parse(Some("bytes=-1"), 0), Asked::Unsatisfiable);
    }

    #[test]
    fn anything_else_is_ignored() {
        for header in ["bytes=5-2", "bytes=a-b", "bytes=+1-2", "lines=0-1", "bytes 0-1", "bytes=0-1,4-5", "bytes=-", ""]
        {
            assert_eq!(parse(Some(header), 10), Asked::Whole, "{header}");
        }
        assert_eq!(parse(None, 10), Asked::Whole);
    }
}
