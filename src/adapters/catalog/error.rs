//! What can go wrong with a catalog, and the remedy.
//!
//! Contract: every message names the endpoint. Trap: an endpoint that is no STAC API would fail every task of the run,
//! so until it has answered one search properly that is the node's failure; afterwards it is a passing one
//! (a maintenance page, a deployment), and retried.

use crate::adapters::http::{Fault, HttpError};
use crate::domain::failure::Severity;

/// A search that gave no list of scenes.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The request failed.
    #[error("STAC search: {0}")]
    Http(#[from] Box<HttpError>),
    /// Something answers there, but not a STAC API (or it does not let us in).
    #[error(
        "STAC search: {cause}; is {root} a STAC API root? stac.url is the URL below which /search is, for instance https://earth-search.aws.element84.com/v1"
    )]
    NotACatalog {
        /// The configured URL.
        root: String,
        /// What was seen.
        cause: String,
        /// Whether the same endpoint has answered a search before.
        worked_before: bool,
    },
    /// A page that is JSON but not a list of items.
    #[error("STAC search {endpoint}: the answer is not a FeatureCollection: {why}")]
    NotAPage {
        /// Search URL.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// A `next` link that leads away from the catalog.
    #[error(
        "STAC search {endpoint}: its next page is at {next}, another origin; set stac.url to the origin the server gives itself"
    )]
    ForeignNext {
        /// Search URL.
        endpoint: String,
        /// Where the link leads.
        next: String,
    },
    /// More than a neighbourhood can have.
    #[error(
        "STAC search {endpoint}: more than {max} {what} for one neighbourhood and season; lower stac.max_cloud or shorten stac.seasons"
    )]
    TooMany {
        /// Search URL.
        endpoint: String,
        /// The bound.
        max: usize,
        /// `pages` or `items`.
        what: &'static str,
    },
    /// A query that cannot be asked, or a catalog that cannot be asked at all.
    #[error("STAC search {endpoint}: {why}")]
    Query {
        /// Search URL.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
}

impl CatalogError {
    /// Sorts a failed request: a fault that shows the endpoint to be none becomes [`CatalogError::NotACatalog`].
    pub(super) fn from_http(error: HttpError, root: &str, worked_before: bool) -> Self {
        let no_catalog = matches!(
            &error.fault,
            Fault::NotJson { .. }
                | Fault::Redirect(_)
                | Fault::Tls(_)
                | Fault::Status { status: 401 | 403 | 404 | 405 | 410, throttled: false, .. }
        );
        if !no_catalog {
            return Self::Http(Box::new(error));
        }
        Self::NotACatalog { root: root.to_owned(), cause: error.to_string(), worked_before }
    }

    /// What to do about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Http(error) => error.severity(),
            Self::NotACatalog { worked_before: true, .. } => Severity::Transient,
            Self::NotACatalog { worked_before: false, .. } => Severity::Fatal,
            Self::NotAPage { .. } | Self::ForeignNext { .. } | Self::TooMany { .. } | Self::Query { .. } => {
                Severity::Permanent
            }
        }
    }

    /// The server's own wish for the next attempt, seconds.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Http(error) => error.retry_after_s(),
            _ => None,
        }
    }
}
