//! Prints the effective configuration.
//!
//! Contract: what is printed is TOML that loads again to the same configuration, except that secrets are
//! left out and a comment says so. Order is that of `config/default.toml`.

use std::io::{self, Write};

use toml::Value;

use super::Config;
use super::rules::KEYS;
use super::secret::{is_secret, without_userinfo};

/// Column the origins stand in, unless a value is longer.
const ORIGIN_COLUMN: usize = 56;

impl Config {
    /// The effective configuration as TOML.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out, false)
    }

    /// The same, with the origin of every value behind it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn explain(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out, true)
    }

    fn write(&self, out: &mut dyn Write, origins: bool) -> io::Result<()> {
        let tree = Value::try_from(self).map_err(io::Error::other)?;
        let mut open = "";
        for key in KEYS {
            let Some((section, name)) = key.name.split_once('.') else { continue };
            if section != open {
                let gap = if open.is_empty() { "" } else { "\n" };
                writeln!(out, "{gap}[{section}]")?;
                open = section;
            }
            let Some(value) = tree.get(section).and_then(|s| s.get(name)) else { continue };
            match value.as_table() {
                Some(table) if !table.is_empty() => {
                    for (entry, value) in table {
                        let path = format!("{}.{entry}", key.name);
                        self.write_line(out, &path, &format!("{name}.{}", quoted(entry)), value, origins)?;
                    }
                }
                _ => self.write_line(out, key.name, name, value, origins)?,
            }
        }
        Ok(())
    }

    fn write_line(&self, out: &mut dyn Write, path: &str, name: &str, value: &Value, origins: bool) -> io::Result<()> {
        let origin = self.origin(path);
        let text = value.to_string();
        if is_secret(path) && value.as_str() != Some("") {
            return writeln!(out, "# {name} is set ({origin}) and not printed");
        }
        let shown = without_userinfo(&text);
        if shown != text {
            return writeln!(out, "# {name} = {} ({origin}), user and password not printed", shown.replace('\n', " "));
        }
        let line = format!("{name} = {text}");
        if origins { writeln!(out, "{line:<ORIGIN_COLUMN$} # {origin}") } else { writeln!(out, "{line}") }
    }
}

/// A TOML key: bare where that is possible.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}
