//! How many chips of each class a dataset holds, by run.
//!
//! Contract: reads the manifests' results and nothing else; what cannot be read is left out, because the task
//! it belongs to will say so itself. Trap: it opens every manifest, so it is for a node's start.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{DatasetStore, StoreError};
use crate::domain::classes::ClassId;
use crate::domain::task::TaskKey;

/// The part of a manifest that is counted.
#[derive(Deserialize)]
struct Head {
    key: TaskKey,
    result: Counted,
}

#[derive(Deserialize)]
struct Counted {
    chips_per_class: BTreeMap<ClassId, u64>,
}

/// Chips by class of every run the dataset holds.
///
/// # Errors
/// When the manifests cannot be listed.
pub fn chips(store: &dyn DatasetStore) -> Result<BTreeMap<String, BTreeMap<ClassId, u64>>, StoreError> {
    let mut runs: BTreeMap<String, BTreeMap<ClassId, u64>> = BTreeMap::new();
    store.manifests(&mut |text| {
        let Ok(Head { key, result }) = serde_json::from_slice(text) else { return };
        let counted = runs.entry(key.run).or_default();
        for (class, n) in result.chips_per_class {
            let chips = counted.entry(class).or_default();
            *chips = chips.saturating_add(n);
        }
    })?;
    Ok(runs)
}
