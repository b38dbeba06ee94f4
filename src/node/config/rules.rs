//! What each key may hold.
//!
//! Contract: [`KEYS`] and `config/default.toml` name the same keys (a test compares them). A rule looks at
//! one value alone; what two values must be to each other is in [`super::cross`]. Trap: whole numbers are
//! welcome where fractions are allowed, not the other way round.

use config::{Value, ValueKind};

use super::shape::class_map;
use super::text_rules as text;

/// What a key may hold.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// `true` or `false`.
    Bool,
    /// A whole number of this range.
    Int(i64, i64),
    /// A number of this range, or above the lower end if it says so.
    Num(Span),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number for which the check is satisfied.
    IntIf(fn(i64) -> bool),
    /// Text for which the check is satisfied.
    Text(fn(&str) -> bool),
    /// A list of texts for which the check is satisfied.
    List(fn(&[&str]) -> bool),
    /// A list of whole numbers of this range, each at most once.
    Ints(i64, i64),
    /// Entries with free names.
    Table(Entry),
}

/// A range of numbers.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) above_low: bool,
}

/// What a table with free names holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Class = probability.
    Probability,
    /// Name = first and last day.
    Season,
    /// Class = name of a season.
    ClassSeason,
    /// Class = chips.
    Quota,
    /// librdkafka property = its value as text.
    Property,
}

/// One key.
pub(super) struct Key {
    /// `section.key`.
    pub(super) name: &'static str,
    /// What it may hold.
    pub(super) rule: Rule,
    /// The same in words.
    pub(super) allowed: &'static str,
}

impl Key {
    /// Whether a table given as a whole takes the place of the earlier ones instead of adding to them.
    pub(super) fn replaces(&self) -> bool {
        matches!(self.rule, Rule::Table(Entry::Probability | Entry::Season | Entry::ClassSeason | Entry::Quota))
    }
}

/// The key called `name`.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// The value as this rule wants it, or what is wrong with it.
pub(super) fn check(rule: Rule, value: &Value) -> Result<ValueKind, String> {
    match (rule, &value.kind) {
        (Rule::Bool, ValueKind::Boolean(b)) => Ok(ValueKind::Boolean(*b)),
        (Rule::Int(low, high), ValueKind::I64(n)) => {
            (low..=high).contains(n).then_some(ValueKind::I64(*n)).ok_or_else(range)
        }
        (Rule::IntIf(ok), ValueKind::I64(n)) => ok(*n).then_some(ValueKind::I64(*n)).ok_or_else(range),
        (Rule::Num(span), kind) => number(kind).ok_or_else(|| wrong(kind)).and_then(|n| in_span(span, n)),
        (Rule::OneOf(all), ValueKind::String(s)) => {
            all.contains(&s.as_str()).then(|| ValueKind::String(s.clone())).ok_or_else(range)
        }
        (Rule::Text(ok), ValueKind::String(s)) => ok(s).then(|| ValueKind::String(s.clone())).ok_or_else(range),
        (Rule::List(ok), ValueKind::Array(items)) => {
            let texts = texts(items)?;
            ok(&texts).then(|| value.kind.clone()).ok_or_else(range)
        }
        (Rule::Ints(low, high), ValueKind::Array(items)) => {
            let numbers = items.iter().map(|v| match v.kind {
                ValueKind::I64(n) if (low..=high).contains(&n) => Ok(n),
                ValueKind::I64(_) => Err(range()),
                ref other => Err(format!("holds {}", noun(other))),
            });
            let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
            let once = numbers.iter().enumerate().all(|(i, n)| !numbers[..i].contains(n));
            once.then(|| value.kind.clone()).ok_or_else(range)
        }
        (Rule::Int(..) | Rule::IntIf(_), ValueKind::I128(_)) => Err(range()),
        (_, kind) => Err(wrong(kind)),
    }
}

/// One entry of a table: its name and value as the rule wants them, or what is wrong.
pub(super) fn check_entry(entry: Entry, name: &str, value: &Value) -> Result<ValueKind, String> {
    match entry {
        Entry::Probability => {
            class_map::parse(name)?;
            check(Rule::Num(Span { low: 0.0, high: 1.0, above_low: false }), value)
        }
        Entry::Season => {
            if !text::season_name(name) {
                return Err("is not a name of a season".into());
            }
            check(Rule::List(text::days), value)
        }
        Entry::Quota => {
            class_map::parse(name)?;
            check(Rule::Int(0, 1_000_000_000), value)
        }
        Entry::ClassSeason => {
            class_map::parse(name)?;
            check(Rule::Text(text::season_name), value)
        }
        Entry::Property => property(name, &value.kind),
    }
}

fn property(name: &str, kind: &ValueKind) -> Result<ValueKind, String> {
    if !text::property_name(name) {
        return Err("is not a name of a property".into());
    }
    let shown = match kind {
        ValueKind::String(s) => s.clone(),
        ValueKind::Boolean(b) => b.to_string(),
        ValueKind::I64(n) => n.to_string(),
        ValueKind::Float(f) => f.to_string(),
        other => return Err(wrong(other)),
    };
    Ok(ValueKind::String(shown))
}

fn in_span(span: Span, n: f64) -> Result<ValueKind, String> {
    let low = if span.above_low { n > span.low } else { n >= span.low };
    if low && n <= span.high { Ok(ValueKind::Float(n)) } else { Err(range()) }
}

#[allow(clippy::cast_precision_loss)] // every range with fractions lies far below 2^53
fn number(kind: &ValueKind) -> Option<f64> {
    match kind {
        ValueKind::I64(n) => Some(*n as f64),
        ValueKind::Float(f) => Some(*f),
        _ => None,
    }
}

fn texts(items: &[Value]) -> Result<Vec<&str>, String> {
    let text = |v: &Value| match &v.kind {
        ValueKind::String(_) => Ok(()),
        other => Err(format!("holds {}", noun(other))),
    };
    items.iter().try_for_each(text)?;
    Ok(items.iter().filter_map(|v| if let ValueKind::String(s) = &v.kind { Some(s.as_str()) } else { None }).collect())
}

fn range() -> String {
    "is not allowed".into()
}

fn wrong(kind: &ValueKind) -> String {
    format!("is {}", noun(kind))
}

/// The kind of a value, in words.
pub(super) fn noun(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

const fn num(name: &'static str, low: f64, high: f64, allowed: &'static str) -> Key {
    Key { name, rule: Rule::Num(Span { low, high, above_low: false }), allowed }
}

const fn int(name: &'static str, low: i64, high: i64, allowed: &'static str) -> Key {
    Key { name, rule: Rule::Int(low, high), allowed }
}

const fn flag(name: &'static str) -> Key {
    Key { name, rule: Rule::Bool, allowed: "true or false" }
}

const fn word(name: &'static str, all: &'static [&'static str], allowed: &'static str) -> Key {
    Key { name, rule: Rule::OneOf(all), allowed }
}

const fn txt(name: &'static str, ok: fn(&str) -> bool, allowed: &'static str) -> Key {
    Key { name, rule: Rule::Text(ok), allowed }
}

const fn timeout(name: &'static str) -> Key {
    num(name, 0.1, 86_400.0, "seconds, 0.1 to 86400")
}

const TOPIC: &str = "1 to 249 letters, digits, `.`, `_`, `-`";

/// Every key, in the order of `config/default.toml`.
pub(super) const KEYS: &[Key] = &[
    int("run.seed", 0, i64::MAX, "a whole number from 0 to 9223372036854775807"),
    txt("run.id", text::run_id, "\"\" (derived), or 1 to 64 letters, digits, `-`, `_` and inner `.`"),
    txt("kafka.bootstrap_servers", text::bootstrap, "\"embedded\", or host:port, several separated by commas"),
    txt("kafka.tasks_topic", text::topic, TOPIC),
    txt("kafka.results_topic", text::topic, TOPIC),
    txt("kafka.dlq_topic", text::topic, TOPIC),
    txt("kafka.control_topic", text::topic, TOPIC),
    txt("kafka.status_topic", text::topic, TOPIC),
    txt("kafka.group", text::group, "1 to 249 printable characters"),
    int("kafka.partitions", 1, 10_000, "a whole number from 1 to 10000"),
    Key {
        name: "kafka.replication",
        rule: Rule::IntIf(|n| n == -1 || (1..=100).contains(&n)),
        allowed: "-1 (the broker's default), or a whole number from 1 to 100",
    },
    timeout("kafka.connect_timeout_s"),
    int("kafka.focus_partitions", 0, 10_000, "0 (all), or a whole number from 1 to 10000"),
    Key {
        name: "kafka.properties",
        rule: Rule::Table(Entry::Property),
        allowed: "librdkafka properties: \"name\" (in quotes, for its dots) = text, number, true or false",
    },
    txt("parcels.path", text::path, "a path"),
    txt("parcels.layer", text::line, "a layer name, or \"\" (the only polygon layer)"),
    txt("parcels.code_column", text::line, "a column name, or \"\" (there is none)"),
    txt("parcels.name_column", text::line, "a column name, or \"\" (there is none)"),
    txt("parcels.classes", text::path, "a path, or \"\" (the built-in classes)"),
    flag("parcels.assume_immutable"),
    num("grid.step", 0.001, 5.0, "degrees, 0.001 to 5"),
    int("grid.min_parcels", 0, 1_000_000, "a whole number from 0 to 1000000"),
    word("grid.order", &["space", "rarest"], "\"space\" or \"rarest\""),
    word("sampling.mode", &["balanced", "auto", "basic"], "\"balanced\", \"auto\" or \"basic\""),
    Key {
        name: "sampling.conversion_rate",
        rule: Rule::Num(Span { low: 0.0, high: 1.0, above_low: true }),
        allowed: "a number above 0, up to 1",
    },
    int("sampling.max_target", 1, 1_000_000_000, "chips, 1 to 1000000000"),
    Key {
        name: "sampling.quota",
        rule: Rule::Table(Entry::Quota),
        allowed: "class (1 to 254) = chips (0 to 1000000000)",
    },
    num("sampling.min_area_m2", 0.0, 1e9, "square metres, 0 to 1000000000"),
    num("sampling.min_distance_m", 0.0, 50_000.0, "metres, 0 to 50000"),
    flag("sampling.stop_when_filled"),
    Key {
        name: "sampling.probabilities",
        rule: Rule::Table(Entry::Probability),
        allowed: "class (1 to 254) = probability (0 to 1)",
    },
    txt("stac.url", text::web, "an http or https URL"),
    Key { name: "stac.collections", rule: Rule::List(text::names), allowed: "a list of at least one collection" },
    num("stac.max_cloud", 0.0, 100.0, "percent, 0 to 100"),
    txt("stac.season", text::season_name, "\"random\", \"all\", \"by_class\", or a name in stac.seasons"),
    word("stac.widen", &["none", "cloud", "season"], "\"none\", \"cloud\" or \"season\""),
    int("stac.max_scenes", 1, 1000, "a whole number from 1 to 1000"),
    num("stac.neighbourhood", 0.05, 5.0, "degrees, 0.05 to 5"),
    int("stac.requests_in_flight", 1, 256, "a whole number from 1 to 256"),
    timeout("stac.timeout_s"),
    int("stac.retries", 0, 100, "a whole number from 0 to 100"),
    flag("stac.cloud_on_server"),
    txt("stac.relative_href_base", text::base, "an http, https or file URL, or \"\" (the item's own address)"),
    Key {
        name: "stac.seasons",
        rule: Rule::Table(Entry::Season),
        allowed: "name (lower case) = [\"YYYY-MM-DD\", \"YYYY-MM-DD\"], first day not after the last",
    },
    Key {
        name: "stac.by_class",
        rule: Rule::Table(Entry::ClassSeason),
        allowed: "class (1 to 254) = name of a season",
    },
    int("imagery.requests_per_host", 1, 1024, "a whole number from 1 to 1024"),
    timeout("imagery.connect_timeout_s"),
    timeout("imagery.read_timeout_s"),
    int("imagery.retries", 0, 100, "a whole number from 0 to 100"),
    flag("imagery.allow_private_hosts"),
    flag("imagery.allow_file_hrefs"),
    Key {
        name: "chips.size",
        rule: Rule::IntIf(|n| (16..=4096).contains(&n) && n % 16 == 0),
        allowed: "pixels: a multiple of 16 from 16 to 4096",
    },
    Key { name: "chips.resolution", rule: Rule::IntIf(|n| n == 10 || n == 20), allowed: "metres: 10 or 20" },
    Key {
        name: "chips.bands",
        rule: Rule::List(text::bands),
        allowed: "a list out of B02 B03 B04 B08 B05 B06 B07 B8A B11 B12, each at most once",
    },
    word("chips.resampling", &["nearest", "bilinear"], "\"nearest\" or \"bilinear\""),
    num("chips.max_nodata_fraction", 0.0, 1.0, "a number from 0 to 1"),
    num("chips.max_bad_fraction", 0.0, 1.0, "a number from 0 to 1"),
    Key {
        name: "chips.bad_scl",
        rule: Rule::Ints(0, 11),
        allowed: "a list of numbers from 0 to 11, each at most once",
    },
    flag("chips.require_scl"),
    num("chips.max_suspect_fraction", 0.0, 1.0, "a number from 0 to 1"),
    word("chips.harmonise", &["auto", "stac", "none"], "\"auto\", \"stac\" or \"none\""),
    word("labels.invalid", &["repair", "reject"], "\"repair\" or \"reject\""),
    num("labels.erode_m", 0.0, 1000.0, "metres, 0 to 1000"),
    Key { name: "labels.unlabelled", rule: Rule::IntIf(|n| n == 0 || n == 255), allowed: "0 or 255" },
    num("labels.min_share", 0.0, 1.0, "a number from 0 to 1"),
    txt(
        "output.dir",
        text::place,
        "a path, or s3://BUCKET/PREFIX (bucket: 3 to 63 small letters, digits, `-`, `.`; prefix: letters, digits, `-`, `_`, `.`, `=`, `+`, `/`)",
    ),
    txt(
        "output.s3_endpoint",
        text::service,
        "an http(s) URL without user part and query, or \"\" (by AWS_ENDPOINT_URL)",
    ),
    flag("output.s3_allow_http"),
    txt(
        "output.name_template",
        text::template,
        "letters, digits, `.`, `_`, `-` and {worker} {task} {class} {chip} {parcel} {run} {season}, with {parcel} or both {task} and {chip} in it",
    ),
    word("output.compression", &["zstd", "deflate", "none"], "\"zstd\", \"deflate\" or \"none\""),
    int("output.compression_level", 1, 22, "1 to 22 for zstd, 1 to 12 for deflate"),
    word("output.checksum", &["xxh128", "sha256"], "\"xxh128\" or \"sha256\""),
    flag("output.require_marker"),
    txt(
        "worker.id",
        text::run_id,
        "\"\" (host name and process id), or 1 to 64 letters, digits, `-`, `_` and inner `.`",
    ),
    int("worker.cores", 0, 1024, "0 (all), or a whole number from 1 to 1024"),
    int("worker.tasks_in_flight", 1, 1024, "a whole number from 1 to 1024"),
    int("worker.chips_in_flight", 1, 4096, "a whole number from 1 to 4096"),
    int("worker.cache_mb", 16, 1_048_576, "MiB, 16 to 1048576"),
    int("worker.window_mb", 16, 1_048_576, "MiB, 16 to 1048576"),
    int("worker.max_attempts", 1, 1000, "a whole number from 1 to 1000"),
    num("worker.max_outage_s", 0.0, 604_800.0, "seconds, 0 to 604800"),
    num("worker.heartbeat_s", 0.0, 3600.0, "seconds, 0 (none) to 3600"),
    num("worker.drain_timeout_s", 0.0, 86_400.0, "seconds, 0 to 86400"),
    int("split.seed", 0, i64::MAX, "a whole number from 0 to 9223372036854775807"),
    num("split.block_km", 0.1, 2000.0, "km, 0.1 to 2000"),
    num("split.val_share", 0.0, 1.0, "a number from 0 to 1"),
    num("split.test_share", 0.0, 1.0, "a number from 0 to 1"),
    num("split.buffer_m", 0.0, 100_000.0, "metres, 0 to 100000"),
    flag("finish.stac"),
    txt("finish.item_href", text::item_href, "a URL with {item} in it, or \"\" (by stac.url)"),
    txt("monitor.listen", text::listen, "IP:port, or \"\" (none)"),
    txt("monitor.token", text::token, "\"\" (none), or 16 to 200 letters, digits, `-`, `_`, `.` and `~`"),
    flag("monitor.allow_public"),
    word("monitor.ui", &["auto", "tui", "log", "json", "none"], "\"auto\", \"tui\", \"log\", \"json\" or \"none\""),
    timeout("monitor.interval_s"),
    txt("metrics.listen", text::listen, "IP:port, or \"\" (none)"),
    word("log.format", &["text", "json"], "\"text\" or \"json\""),
    txt("log.filter", text::filter, "a tracing filter, for instance \"info,satellite_pipeline::adapters=debug\""),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_and_the_built_in_file_name_the_same_keys() {
        let defaults: toml::Table = crate::node::config::DEFAULT_TOML.parse().unwrap();
        let mut written: Vec<String> = Vec::new();
        for (section, keys) in &defaults {
            written.extend(keys.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
        }
        let mut ruled: Vec<String> = KEYS.iter().map(|k| k.name.to_owned()).collect();
        written.sort();
        ruled.sort();
        assert_eq!(written, ruled);
    }
}
