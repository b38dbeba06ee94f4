//! The door to catalogs of scenes: a small interface, the STAC API behind it, and a scripted twin.
//!
//! Contract: [`Catalog::find`] gives the scenes a query wants, each acquisition once, best first, as
//! [`SceneQuery::select`](crate::domain::scene_query::SceneQuery::select) judges; no scene is an empty list, not an
//! error. Both implementations pass tests/catalog_contract.rs. Units: degrees, percent of cloud.
//! Trap: `find` may wait for another task's identical search instead of sending its own.

mod error;
mod item;
mod neighbourhood;
mod paging;
mod scripted;
mod stac_api;

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::scene::Scene;
use crate::domain::scene_query::SceneQuery;

pub use error::CatalogError;
pub use item::{ItemReader, Unusable};
pub use scripted::ScriptedCatalog;
pub use stac_api::{CatalogCounters, CatalogSettings, CatalogTally, StacCatalog};

/// Finds scenes.
#[async_trait]
pub trait Catalog: Send + Sync + std::fmt::Debug {
    /// The scenes a query wants, best first.
    ///
    /// # Errors
    /// [`CatalogError`]; its severity says whether another attempt may help.
    async fn find(&self, query: &SceneQuery) -> Result<Vec<Arc<Scene>>, CatalogError>;
}
