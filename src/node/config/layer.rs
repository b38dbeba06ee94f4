//! One source of configuration: a TOML text, the environment, or the command line.
//!
//! Contract: a [`Layer`] holds only keys that exist with values that are allowed, each with its origin
//! (`file:line`, variable, option); what is wrong goes to the list of errors instead. Trap: `--set` and
//! environment values are text until the key's rule says what they are.

use std::collections::HashMap;

use config::{ConfigError as MergeError, Map, Source, Value, ValueKind};

use super::error::ConfigError;
use super::rules::{self, KEYS, Key, Rule};
use super::secret::{is_secret, without_userinfo};
use super::toml_value;

/// Prefix of the environment variables that are ours.
pub(super) const ENV_PREFIX: &str = "NODE__";

/// Most errors that are reported at once.
const MAX_ERRORS: usize = 50;

/// Checked values of one source, by section and key.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    sections: HashMap<String, HashMap<String, Value>>,
    /// Tables that take the place of earlier layers' ones.
    pub(super) whole: Vec<&'static str>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        let section = |(name, keys): (&String, &HashMap<String, Value>)| {
            let table: Map<String, Value> = keys.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            (name.clone(), Value::new(None, ValueKind::Table(table)))
        };
        Ok(self.sections.iter().map(section).collect())
    }
}

/// Collects what is wrong while layers are read.
#[derive(Default)]
pub(super) struct Errors(pub(super) Vec<ConfigError>);

impl Errors {
    pub(super) fn add(&mut self, error: ConfigError) {
        if self.0.len() < MAX_ERRORS {
            self.0.push(error);
        }
    }
}

impl Layer {
    /// A TOML text called `name`.
    pub(super) fn from_toml(name: &str, text: &str, errors: &mut Errors) -> Self {
        let mut layer = Self::default();
        let document = match toml_value::document(name, text) {
            Ok(document) => document,
            Err(error) => {
                errors.add(error);
                return layer;
            }
        };
        for (section, value) in sorted(document) {
            match value.kind {
                ValueKind::Table(keys) => {
                    for (key, value) in sorted(keys) {
                        layer.put(&format!("{section}.{key}"), value, errors);
                    }
                }
                _ => layer.put(&section, value, errors),
            }
        }
        layer
    }

    /// The variables that begin with [`ENV_PREFIX`].
    pub(super) fn from_env(env: impl IntoIterator<Item = (String, String)>, errors: &mut Errors) -> Self {
        let mut layer = Self::default();
        let mut ours: Vec<_> = env.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        ours.sort();
        for (name, text) in ours {
            let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
            let key = match key.strip_prefix("kafka.properties.") {
                Some(property) => format!("kafka.properties.{}", property.replace('_', ".")),
                None => key,
            };
            layer.put_text(&key, &text, &format!("environment variable {name}"), errors);
        }
        layer
    }

    /// One `section.key=value`.
    pub(super) fn from_set(set: &str, errors: &mut Errors) -> Self {
        let mut layer = Self::default();
        match set.split_once('=') {
            Some((key, text)) if !key.trim().is_empty() => {
                let key = key.trim().replace('"', "");
                layer.put_text(&key, text.trim(), &format!("--set {key}"), errors);
            }
            _ => errors.add(ConfigError::Set(without_userinfo(set))),
        }
        layer
    }

    /// Takes a table out, because a later layer replaces it.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some((section, key)) = name.split_once('.')
            && let Some(keys) = self.sections.get_mut(section)
        {
            keys.remove(key);
        }
    }

    /// Text from the command line or the environment, read as the key's rule wants it.
    fn put_text(&mut self, name: &str, text: &str, origin: &str, errors: &mut Errors) {
        let rule = find(name).map(|(key, entry)| (key.rule, entry.is_some()));
        let wants_text = matches!(rule, Some((Rule::Text(_) | Rule::OneOf(_), _)))
            || (matches!(rule, Some((Rule::Table(rules::Entry::Property), true))));
        let parsed = toml_value::value(origin, text);
        let bare = || Value::new(Some(&origin.to_owned()), ValueKind::String(text.to_owned()));
        let value = match parsed {
            Some(value) if !wants_text || matches!(value.kind, ValueKind::String(_)) => value,
            None if matches!(rule, Some((Rule::List(_), _))) => words(origin, text),
            _ => bare(),
        };
        self.put(name, value, errors);
    }

    fn put(&mut self, name: &str, value: Value, errors: &mut Errors) {
        let origin = value.origin().unwrap_or_default().to_owned();
        let Some((key, entry)) = find(name) else {
            errors.add(unknown(name, &value, origin));
            return;
        };
        let checked = match (key.rule, entry, &value.kind) {
            (Rule::Table(kind), Some(entry), _) => rules::check_entry(kind, entry, &value)
                .map(|v| self.insert_entry(key, entry, Value::new(Some(&origin), v))),
            (Rule::Table(_), None, ValueKind::Table(entries)) => {
                self.put_table(key, &origin, entries, errors);
                Ok(())
            }
            (rule, ..) => rules::check(rule, &value).map(|v| self.insert(key, Value::new(Some(&origin), v))),
        };
        if let Err(problem) = checked {
            let (key, allowed) = (name.to_owned(), key.allowed.to_owned());
            errors.add(ConfigError::BadValue { shown: shown(&key, &value), key, origin, problem, allowed });
        }
    }

    /// A table with free names, given as a whole.
    fn put_table(&mut self, key: &'static Key, origin: &str, entries: &Map<String, Value>, errors: &mut Errors) {
        if key.replaces() {
            self.whole.push(key.name);
        }
        self.insert(key, Value::new(Some(&origin.to_owned()), ValueKind::Table(Map::new())));
        for (entry, value) in sorted(entries.clone()) {
            self.put(&format!("{}.{entry}", key.name), value, errors);
        }
    }

    fn insert(&mut self, key: &Key, value: Value) {
        if let Some((section, name)) = key.name.split_once('.') {
            self.sections.entry(section.into()).or_default().insert(name.into(), value);
        }
    }

    fn insert_entry(&mut self, key: &Key, entry: &str, value: Value) {
        let Some((section, name)) = key.name.split_once('.') else { return };
        let table = self.sections.entry(section.into()).or_default().entry(name.into());
        let table = table.or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
        if let ValueKind::Table(entries) = &mut table.kind {
            entries.insert(entry.into(), value);
        }
    }
}

/// The key of a dotted name, and the entry when the key is a table with free names.
fn find(name: &str) -> Option<(&'static Key, Option<&str>)> {
    if let Some(key) = rules::key(name) {
        return Some((key, None));
    }
    let of_table = |key: &&Key| {
        matches!(key.rule, Rule::Table(_)) && name.strip_prefix(key.name).is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter().find(of_table).map(|key| (key, Some(&name[key.name.len() + 1..])))
}

fn unknown(name: &str, value: &Value, origin: String) -> ConfigError {
    let section = format!("{name}.");
    if KEYS.iter().any(|k| k.name.starts_with(&section)) {
        let (key, shown) = (name.to_owned(), shown(name, value));
        let (problem, allowed) = ("is a section".to_owned(), format!("[{name}] with keys, or {name}.key"));
        return ConfigError::BadValue { key, shown, origin, problem, allowed };
    }
    ConfigError::UnknownKey { key: name.to_owned(), origin, nearest: nearest(name) }
}

/// The key that looks most like `name`: the same word in another section, else the closest spelling.
fn nearest(name: &str) -> Option<String> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |key: &Key| {
        let whole = strsim::normalized_damerau_levenshtein(name, key.name);
        let word = strsim::normalized_damerau_levenshtein(&last(name), &last(key.name));
        whole.max(word - 0.05)
    };
    // Of several the first, as they stand in default.toml: max_by takes the last.
    let best = KEYS.iter().rev().map(|k| (likeness(k), k.name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.6).then(|| best.1.to_owned())
}

/// A list written as bare words with commas.
fn words(origin: &str, text: &str) -> Value {
    let origin = origin.to_owned();
    let word = |w: &str| Value::new(Some(&origin), ValueKind::String(w.trim().to_owned()));
    Value::new(Some(&origin), ValueKind::Array(text.split(',').map(word).collect()))
}

/// ` = value` for a message: short, and without secrets.
fn shown(key: &str, value: &Value) -> String {
    if is_secret(key) {
        return String::new();
    }
    let text = match &value.kind {
        ValueKind::String(s) => format!("{s:?}"),
        ValueKind::Table(_) => "{…}".into(),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().take(12).map(|v| v.kind.to_string()).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Float(f) => format!("{f:?}"),
        other => other.to_string(),
    };
    let short: String = without_userinfo(&text).chars().take(120).collect();
    format!(" = {short}")
}

fn sorted(map: Map<String, Value>) -> Vec<(String, Value)> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}
