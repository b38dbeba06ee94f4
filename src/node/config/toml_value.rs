//! From TOML to crate `config`'s values, keeping the line each one stands on.
//!
//! Contract: origins are `name:line`. Messages never quote the text itself: the broken line may hold a
//! password. Trap: dates without quotes become texts, because every date of the configuration is one.

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// A whole document called `name`.
pub(super) fn document(name: &str, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let lines = Lines { name, text };
    match DeTable::parse(text) {
        Ok(table) => Ok(lines.table(table.get_ref())),
        Err(error) => {
            let origin = error.span().map_or_else(|| name.to_owned(), |span| lines.origin(span.start));
            Err(ConfigError::Syntax { origin, why: error.message().replace('\n', "; ") })
        }
    }
}

/// One value, as after `--set key=`; `None` when it is not TOML.
pub(super) fn value(origin: &str, text: &str) -> Option<Value> {
    let parsed = DeValue::parse(text).ok()?;
    let fixed = Lines { name: origin, text: "" };
    Some(fixed.value(parsed.get_ref(), origin.to_owned()))
}

struct Lines<'a> {
    name: &'a str,
    /// Empty: there are no lines, the name alone is the origin.
    text: &'a str,
}

impl Lines<'_> {
    fn origin(&self, at: usize) -> String {
        if self.text.is_empty() {
            return self.name.to_owned();
        }
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line = 1 + before.split(|b| *b == b'\n').count().saturating_sub(1);
        format!("{}:{line}", self.name)
    }

    fn table(&self, table: &DeTable<'_>) -> Map<String, Value> {
        let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let origin = self.origin(key.span().start);
            (key.get_ref().clone().into_owned(), self.value(value.get_ref(), origin))
        };
        table.iter().map(entry).collect()
    }

    fn value(&self, value: &DeValue<'_>, origin: String) -> Value {
        let kind = match value {
            DeValue::String(s) => ValueKind::String(s.clone().into_owned()),
            DeValue::Integer(i) => whole(i.as_str(), i.radix()),
            DeValue::Float(f) => f.as_str().parse().map_or_else(|_| ValueKind::String(f.to_string()), ValueKind::Float),
            DeValue::Boolean(b) => ValueKind::Boolean(*b),
            DeValue::Datetime(d) => ValueKind::String(d.to_string()),
            DeValue::Array(items) => {
                let item = |v: &Spanned<DeValue<'_>>| self.value(v.get_ref(), origin.clone());
                ValueKind::Array(items.iter().map(item).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&origin), kind)
    }
}

/// A whole number; one that fits nowhere is the largest there is, which no key allows.
fn whole(digits: &str, radix: u32) -> ValueKind {
    i64::from_str_radix(digits, radix)
        .map_or_else(|_| ValueKind::I128(i128::from_str_radix(digits, radix).unwrap_or(i128::MAX)), ValueKind::I64)
}
