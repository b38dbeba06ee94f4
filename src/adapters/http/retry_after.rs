//! `Retry-After` in both of its forms (RFC 9110, section 10.2.3).
//!
//! Contract: whole seconds from the answer, at most the cap; nonsense gives `None`. Trap: a date is taken against the
//! server's own `Date` when it sent one, because its clock and ours differ.

use chrono::{DateTime, Utc};

/// Seconds to wait, from the header's value and the answer's `Date`.
pub(super) fn seconds(value: &str, date: Option<&str>, cap: u64) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse().unwrap_or(u64::MAX).min(cap));
    }
    let at = http_date(value)?;
    let now = date.and_then(http_date).unwrap_or_else(Utc::now);
    let wait = (at - now).num_seconds().max(0);
    Some(wait.unsigned_abs().min(cap))
}

fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text.trim()).ok().map(|d| d.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_nonsense() {
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(seconds("7", None, 300), Some(7));
        assert_eq!(seconds("99999999999999999999999", None, 300), Some(300));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:30 GMT", date, 300), Some(30));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:27:00 GMT", date, 300), Some(0), "in the past");
        assert_eq!(seconds("Fri, 31 Dec 2100 23:59:59 GMT", date, 300), Some(300));
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(nonsense, date, 300), None, "{nonsense}");
        }
    }
}
