//! A catalog in memory: the twin of the STAC API, for tests of whatever stands behind [`Catalog`].
//!
//! Contract: judges as the real one does; gives the scripted errors first, one per call, then scenes. It remembers what
//! it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::domain::scene::Scene;
use crate::domain::scene_query::SceneQuery;

use super::{Catalog, CatalogError};

/// Scenes in memory.
#[derive(Debug, Default)]
pub struct ScriptedCatalog {
    scenes: Vec<Arc<Scene>>,
    errors: Mutex<VecDeque<CatalogError>>,
    asked: Mutex<Vec<SceneQuery>>,
}

impl ScriptedCatalog {
    /// A catalog of these scenes.
    pub fn new(scenes: impl IntoIterator<Item = Scene>) -> Self {
        Self { scenes: scenes.into_iter().map(Arc::new).collect(), ..Self::default() }
    }

    /// The same, but the first calls fail like this.
    pub fn failing_first(self, errors: impl IntoIterator<Item = CatalogError>) -> Self {
        Self { errors: Mutex::new(errors.into_iter().collect()), ..self }
    }

    /// Everything it was asked, in order.
    pub fn asked(&self) -> Vec<SceneQuery> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Catalog for ScriptedCatalog {
    async fn find(&self, query: &SceneQuery) -> Result<Vec<Arc<Scene>>, CatalogError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(query.clone());
        match self.errors.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            Some(error) => Err(error),
            None => Ok(query.select(&self.scenes)),
        }
    }
}
