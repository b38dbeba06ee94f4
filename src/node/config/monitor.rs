//! `[monitor]`: how the monitor shows itself, and to whom.
//!
//! Contract: as [`super::sections`]. Trap: the page shows names of machines and files and what failed, so an address
//! beyond this machine without a token is refused unless `allow_public` says that something else guards it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Token;
use super::shape::seconds;

/// How the monitor shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Ui {
    /// Full screen on a terminal, log lines elsewhere.
    Auto,
    /// Full screen.
    Tui,
    /// One line at a time.
    Log,
    /// One JSON object at a time.
    Json,
    /// Nothing.
    None,
}

/// `[monitor]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Address of the web page; empty: none. See [`Monitor::listen`].
    pub listen: String,
    /// What a reader of the page must know; empty: nothing. See [`Monitor::token`].
    pub token: Token,
    /// Whether the page may be served beyond this machine without a token.
    pub allow_public: bool,
    /// How it shows itself.
    pub ui: Ui,
    /// Time between two views.
    #[serde(rename = "interval_s", with = "seconds")]
    pub interval: Duration,
}

impl Monitor {
    /// Where to serve the web page and the metrics.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// What a reader of the page must know; `None`: nothing.
    pub fn token(&self) -> Option<&str> {
        Some(self.token.as_str()).filter(|token| !token.is_empty())
    }

    /// Whether the page would be there for anybody who reaches this machine.
    pub(super) fn is_exposed(&self) -> bool {
        let beyond = self.listen().is_some_and(|address| !address.ip().is_loopback());
        beyond && self.token().is_none() && !self.allow_public
    }
}
