//! Options of the commands about the broker's topics: `node topics` and `node dlq`.
//!
//! Contract: as [`super::cli`]: scripts rely on these names.

use clap::{Args, ValueEnum};

/// Options of `node topics`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Topics {
    /// What to do with the topics of the configuration
    #[arg(value_enum, value_name = "ACTION")]
    pub action: TopicsAction,
    /// Do not ask before deleting
    #[arg(long)]
    pub yes: bool,
}

/// What to do with the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopicsAction {
    /// Make those that are missing
    Create,
    /// Names
    List,
    /// Partitions and offsets
    Describe,
    /// Remove them with all messages
    Delete,
    /// Remove and make again
    Reset,
}

/// Options of `node dlq`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Dlq {
    /// What to do with the dead letters
    #[arg(value_enum, value_name = "ACTION")]
    pub action: DlqAction,
    /// Only the letters of this task; repeatable
    #[arg(long, value_name = "N")]
    pub task: Vec<u64>,
    /// Do not ask before dropping
    #[arg(long)]
    pub yes: bool,
    /// List as JSON, one letter a line
    #[arg(long)]
    pub json: bool,
}

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DlqAction {
    /// Those still open, with their reasons
    List,
    /// Publish their tasks again
    Replay,
    /// Forget them
    Drop,
}

impl DlqAction {
    /// The command's name.
    pub fn verb(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Replay => "replay",
            Self::Drop => "drop",
        }
    }
}
