//! What the texts of the configuration may look like: names, addresses, days, templates.
//!
//! Contract: pure yes or no; the words for "no" stand beside each key in [`super::rules::KEYS`].
//! Trap: run, worker and template texts become file names, so nothing in them may leave a directory.

use std::net::SocketAddr;

use chrono::NaiveDate;
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::adapters::dataset::s3::S3Place;
use crate::domain::task::is_safe_run_id;

/// Bands there are, in the order they are written by default.
const BANDS: [&str; 10] = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"];

/// What a file name may be made from.
const PLACEHOLDERS: [&str; 7] = ["worker", "task", "class", "chip", "parcel", "run", "season"];

pub(super) fn line(s: &str) -> bool {
    s.len() <= 1000 && !s.chars().any(char::is_control)
}

pub(super) fn path(s: &str) -> bool {
    s.len() <= 4096 && !s.contains('\0')
}

pub(super) fn some_path(s: &str) -> bool {
    !s.is_empty() && path(s)
}

/// A directory, or a bucket and a prefix.
pub(super) fn place(s: &str) -> bool {
    some_path(s) && (!S3Place::is_meant(s) || S3Place::parse(s).is_some())
}

/// Address of an S3 service: no secret may hide in it.
pub(super) fn service(s: &str) -> bool {
    let plain = |u: Url| u.username().is_empty() && u.password().is_none() && u.query().is_none();
    s.is_empty() || (web(s) && Url::parse(s).is_ok_and(plain))
}

/// Address of an item: something to put its id into.
pub(super) fn item_href(s: &str) -> bool {
    s.is_empty() || (line(s) && s.contains("{item}"))
}

/// Run and worker ids: both become parts of file names.
pub(super) fn run_id(s: &str) -> bool {
    s.is_empty() || is_safe_run_id(s)
}

pub(super) fn topic(s: &str) -> bool {
    (1..=249).contains(&s.len()) && s != "." && s != ".." && s.bytes().all(plain)
}

pub(super) fn group(s: &str) -> bool {
    (1..=249).contains(&s.len()) && !s.chars().any(char::is_control) && s.trim() == s
}

/// `embedded`, or a list of `[protocol://]host:port`.
pub(super) fn bootstrap(s: &str) -> bool {
    s == super::EMBEDDED || s.split(',').all(|server| host_port(server.trim()))
}

fn host_port(server: &str) -> bool {
    let server = server.rsplit_once("://").map_or(server, |(_, rest)| rest);
    let Some((host, port)) = server.rsplit_once(':') else { return false };
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    host_ok && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}

pub(super) fn web(s: &str) -> bool {
    Url::parse(s).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
}

pub(super) fn base(s: &str) -> bool {
    s.is_empty() || web(s) || Url::parse(s).is_ok_and(|u| u.scheme() == "file")
}

pub(super) fn names(list: &[&str]) -> bool {
    !list.is_empty() && list.len() <= 100 && list.iter().all(|s| !s.is_empty() && line(s))
}

pub(super) fn season_name(s: &str) -> bool {
    (1..=32).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

pub(super) fn property_name(s: &str) -> bool {
    (1..=100).contains(&s.len()) && s.bytes().all(plain)
}

/// First and last day of a season, in order.
pub(super) fn days(list: &[&str]) -> bool {
    let day = |s: &str| (s.len() == 10).then(|| NaiveDate::parse_from_str(s, "%Y-%m-%d").ok()).flatten();
    match list {
        [first, last] => day(first).zip(day(last)).is_some_and(|(first, last)| first <= last),
        _ => false,
    }
}

pub(super) fn bands(list: &[&str]) -> bool {
    let once = |(i, band): (usize, &&str)| BANDS.contains(band) && !list[..i].contains(band);
    !list.is_empty() && list.iter().enumerate().all(once)
}

/// A file name with placeholders that no two chips of a run can share.
pub(super) fn template(s: &str) -> bool {
    let Some((literal, used)) = split_template(s) else { return false };
    let has = |p: &str| used.contains(&p);
    s.len() <= 150
        && literal.bytes().all(plain)
        && !s.starts_with('.')
        && used.iter().all(|p| PLACEHOLDERS.contains(p))
        && (has("parcel") || (has("task") && has("chip")))
}

/// The characters outside the braces, and the names inside them.
fn split_template(s: &str) -> Option<(String, Vec<&str>)> {
    let (mut literal, mut used, mut rest) = (String::new(), Vec::new(), s);
    while let Some(open) = rest.find('{') {
        literal.push_str(&rest[..open]);
        let close = open + rest[open..].find('}')?;
        used.push(&rest[open + 1..close]);
        rest = &rest[close + 1..];
    }
    literal.push_str(rest);
    Some((literal, used))
}

pub(super) fn listen(s: &str) -> bool {
    s.is_empty() || s.parse::<SocketAddr>().is_ok()
}

/// Long enough not to be guessed, and nothing a header, a cookie or an address would have to escape.
pub(super) fn token(s: &str) -> bool {
    s.is_empty() || (16..=200).contains(&s.len()) && s.bytes().all(|b| plain(b) || b == b'~')
}

pub(super) fn filter(s: &str) -> bool {
    EnvFilter::try_new(s).is_ok()
}
