//! A dataset in memory: the twin of [`super::disk::DiskStore`] for actor tests and dry runs.
//!
//! Contract: same promises, same order of steps, no file system. What is published can be listed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Attempt, Committed, DatasetStore, StoreError, safe_key};
use crate::domain::chip_name::is_safe_stem;
use crate::domain::manifest::Manifest;
use crate::domain::task::TaskKey;

type Pair = (Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
struct State {
    run: Option<String>,
    attempts: u64,
    staged: BTreeMap<String, (TaskKey, BTreeMap<String, Pair>)>,
    manifests: BTreeMap<TaskKey, Manifest>,
    files: BTreeMap<String, Pair>,
}

/// A dataset in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements, so a poisoned lock can be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the published chips.
    pub fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }

    /// Image and mask bytes of one published chip.
    pub fn pair(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        self.state().files.get(name).cloned()
    }

    /// Staging places still open.
    pub fn staged(&self) -> usize {
        self.state().staged.len()
    }
}

impl DatasetStore for MemoryStore {
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn bind(&self, run: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        let holds = state.run.get_or_insert_with(|| run.to_owned()).clone();
        if holds == run {
            Ok(())
        } else {
            Err(StoreError::OtherRun { dir: "memory".into(), holds, wants: run.to_owned() })
        }
    }

    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        safe_key(key)?;
        Ok(self.state().manifests.get(key).cloned())
    }

    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        safe_key(key)?;
        let mut state = self.state();
        state.attempts += 1;
        let id = format!("attempt{}", state.attempts);
        let earlier = state.staged.values().filter(|(k, _)| k == key).count() as u32;
        state.staged.insert(id.clone(), (key.clone(), BTreeMap::new()));
        Ok(Attempt { key: key.clone(), id, earlier })
    }

    fn stage(&self, attempt: &Attempt, name: &str, image: &[u8], mask: &[u8]) -> Result<(), StoreError> {
        if !is_safe_stem(name) {
            return Err(StoreError::UnsafeName(name.to_owned()));
        }
        let mut state = self.state();
        let (_, place) = state.staged.get_mut(&attempt.id).ok_or_else(|| StoreError::Swept(attempt.id.clone()))?;
        place.insert(name.to_owned(), (image.to_vec(), mask.to_vec()));
        Ok(())
    }

    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        let mut state = self.state();
        let staged = state.staged.remove(&attempt.id);
        if let Some(there) = state.manifests.get(&attempt.key) {
            return Ok(Committed::Theirs(Box::new(there.clone())));
        }
        let (_, staged) = staged.ok_or_else(|| StoreError::Swept(attempt.id.clone()))?;
        if let Some(taken) = manifest.chips.iter().find(|c| state.files.contains_key(&c.name)) {
            return Err(StoreError::NameTaken(taken.name.clone()));
        }
        state.files.extend(staged);
        state.manifests.insert(attempt.key.clone(), manifest.clone());
        Ok(Committed::Ours)
    }

    fn clear(&self, key: &TaskKey) {
        self.state().staged.retain(|_, (k, _)| k != key);
    }

    fn abandon(&self, attempt: &Attempt) {
        self.state().staged.remove(&attempt.id);
    }

    fn tidy(&self) {
        let state = &mut *self.state();
        state.staged.retain(|_, (key, _)| !state.manifests.contains_key(key));
    }

    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        let all: Vec<_> = self.state().manifests.values().map(serde_json::to_vec).collect();
        all.iter().flatten().for_each(|raw| each(raw));
        Ok(())
    }
}
