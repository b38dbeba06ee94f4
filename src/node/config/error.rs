//! What can be wrong with a configuration, in the words of the one who wrote it.
//!
//! Contract: each error names the key, where the value came from and what is allowed; all errors of all
//! layers come together. Trap: values of secret keys and users in URLs are never part of a message.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file could not be read.
    #[error("configuration file {}: {cause}; --config wants a TOML file that can be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// A configuration file is far too large to be one.
    #[error("configuration file {}: larger than {limit} bytes; is it a configuration?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is read at most, bytes.
        limit: u64,
    },
    /// Not TOML.
    #[error("{origin}: not valid TOML: {why}")]
    Syntax {
        /// File and line.
        origin: String,
        /// The parser's words.
        why: String,
    },
    /// A `--set` without a key or a value.
    #[error("{0}: --set wants section.key=value, for instance --set grid.step=0.1")]
    Set(String),
    /// No such key.
    #[error("{key} ({origin}): there is no such key{}", remedy(nearest))]
    UnknownKey {
        /// As written, with its section.
        key: String,
        /// Where it was written.
        origin: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of another type, or an impossible one.
    #[error("{key}{shown} ({origin}): {problem}; allowed: {allowed}")]
    BadValue {
        /// Section and key.
        key: String,
        /// ` = value`; empty for secrets.
        shown: String,
        /// Where it was written.
        origin: String,
        /// What is wrong.
        problem: String,
        /// What is allowed.
        allowed: String,
    },
    /// Values that do not go together.
    #[error("{key} ({origin}): {problem}")]
    Conflict {
        /// Section and key of the one to change.
        key: String,
        /// Where it was written.
        origin: String,
        /// What does not go together, and the remedy.
        problem: String,
    },
}

fn remedy(nearest: &Option<String>) -> String {
    match nearest {
        Some(key) => format!("; did you mean {key}?"),
        None => "; `node config` prints the keys there are".into(),
    }
}

/// Everything that is wrong, in the order it was found.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
