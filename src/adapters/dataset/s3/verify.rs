//! Is a bucket what its manifests say? The part of [`crate::adapters::dataset::verify`] that only reads.
//!
//! Contract: the same findings as for a directory, with URLs for paths; lengths come from listings (a request per 1000
//! objects), contents from a request each. Memory: the names of all objects. Trap: run it while no worker writes; an
//! attempt under way looks like a leftover.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::door::Door;
use super::objects::{AT_ONCE, finals, manifest_key};
use crate::adapters::dataset::StoreError;
use crate::adapters::dataset::verify::{Census, Finding, Report, not_the_manifest_s};
use crate::domain::manifest::{FileRecord, MAX_BYTES, Manifest};
use crate::domain::task::TaskKey;

/// Lengths of objects by their keys.
type Lengths = BTreeMap<String, u64>;

pub(super) async fn verify(door: &Door, quick: bool) -> Result<Report, StoreError> {
    let mut there: Lengths = door.below("images").await?.into_iter().collect();
    there.extend(door.below("masks").await?);
    let (mut census, mut committed) = (Census::default(), HashSet::new());
    for (key, _) in door.below(".manifests").await? {
        let manifest = match read(door, &key).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => continue,
            Err(StoreError::Damaged { path, why }) => {
                census.report.findings.push(Finding::BadManifest(PathBuf::from(path), why));
                continue;
            }
            Err(error) => return Err(error),
        };
        census.report.tasks += 1;
        let files: Vec<(String, FileRecord)> = manifest.chips.iter().flat_map(finals).collect();
        let (task, lengths) = (&manifest.key, &there);
        let checked = stream::iter(files).map(|(key, record)| async move {
            let found = check(door, task, &key, &record, lengths, quick).await?;
            Ok::<_, StoreError>((key, record, found))
        });
        let checked: Vec<_> = checked.buffered(AT_ONCE).try_collect().await?;
        for (chip, both) in manifest.chips.iter().zip(checked.chunks(2)) {
            census.chip(task, chip);
            for (key, record, found) in both {
                census.file(task, PathBuf::from(door.url(key)), record, found.clone());
            }
        }
        committed.insert(manifest.key);
    }
    census.orphans(there.keys().map(|key| PathBuf::from(door.url(key))));
    census.report.findings.extend(leftovers(door, &committed).await?);
    Ok(census.report)
}

async fn read(door: &Door, key: &str) -> Result<Option<Manifest>, StoreError> {
    let Some(raw) = door.get(key, MAX_BYTES).await? else { return Ok(None) };
    let damaged = |why: String| StoreError::Damaged { path: door.url(key), why };
    let manifest = Manifest::parse(&raw).map_err(|e| damaged(e.to_string()))?;
    if manifest_key(&manifest.key) == key {
        return Ok(Some(manifest));
    }
    Err(damaged(format!("it is the record of task {}", manifest.key)))
}

async fn check(
    door: &Door,
    task: &TaskKey,
    key: &str,
    record: &FileRecord,
    lengths: &Lengths,
    quick: bool,
) -> Result<Option<Finding>, StoreError> {
    let path = PathBuf::from(door.url(key));
    let Some(length) = lengths.get(key) else { return Ok(Some(Finding::Missing(task.clone(), path))) };
    if *length != record.bytes {
        return Ok(Some(Finding::Damaged(task.clone(), path, format!("{length} bytes, not {}", record.bytes))));
    }
    if quick {
        return Ok(None);
    }
    Ok(match door.get(key, record.bytes).await? {
        None => Some(Finding::Missing(task.clone(), path)),
        Some(bytes) if record.describes(&bytes) => None,
        Some(_) => Some(Finding::Damaged(task.clone(), path, not_the_manifest_s(record))),
    })
}

/// One finding for each task, or other object, that is in the staging place.
async fn leftovers(door: &Door, committed: &HashSet<TaskKey>) -> Result<Vec<Finding>, StoreError> {
    let staged = door.below(".staging").await?;
    let places: BTreeSet<String> = staged.iter().map(|(key, _)| task_place(key)).collect();
    let find = |place: String| {
        let mut parts = place.split('/').skip(1);
        let task = parts.next().zip(parts.next().and_then(|number| number.parse().ok()));
        match task.map(|(run, task)| TaskKey { run: run.to_owned(), task }) {
            Some(key) if committed.contains(&key) => Finding::HalfPublished(key),
            _ => Finding::Leftover(PathBuf::from(door.url(&place))),
        }
    };
    Ok(places.into_iter().map(find).collect())
}

/// `.staging/RUN/N` of what lies below it; the key itself of anything else.
fn task_place(key: &str) -> String {
    let parts: Vec<&str> = key.split('/').collect();
    if parts.len() > 3 { parts[..3].join("/") } else { key.to_owned() }
}
