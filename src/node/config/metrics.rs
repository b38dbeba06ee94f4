//! `[metrics]`: where a node tells of itself.
//!
//! Contract: as [`super::sections`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address of metrics and health; empty: none. See [`Metrics::listen`].
    pub listen: String,
}

impl Metrics {
    /// Where to serve metrics and health; `None`: nowhere, and nothing is recorded.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }
}
