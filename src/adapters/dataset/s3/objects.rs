//! The commit protocol on objects: what a file system does by links is done by "make unless it is there".
//!
//! ```text
//! .staging/RUN/N/ATTEMPT/open            1. the attempt exists; who finds it gone is swept
//! .staging/RUN/N/ATTEMPT/NAME.pair       2. image, then mask, in one object
//! .staging/RUN/N/ATTEMPT/sealed          3. if free: `commit`; from here on nobody else takes the attempt away
//! .manifests/RUN/task_N.json             4. if free: THE COMMIT
//! images/NAME.tif, masks/NAME.tif        5. if free: made from 2, whose bytes must be those of the manifest
//! .staging/RUN/N/                        6. removed, `open` first
//! ```
//!
//! Contract: a write that must not replace is conditional; after a conditional write failed or its answer was lost, what
//! is there decides. Removing begins with `open`, and staging looks for `open` after it wrote, so one of the two sees the
//! other. Who gives a task up seals its attempts with `clear` first: a commit that slept meanwhile finds the seal and is
//! [`StoreError::Swept`]; a clearing that finds `commit` leaves that attempt alone. Trap: a process that is killed
//! between writing a chip and looking for `open`, its task having been finished by another meanwhile, leaves that chip in
//! `.staging/`: `node verify` shows it, the next look at the task, or the next node that comes or goes, removes it.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::PutPayload;

use super::door::Door;
use crate::adapters::dataset::disk::{MARKER, RUN_FILE};
use crate::adapters::dataset::{Attempt, Committed, StoreError, unique};
use crate::adapters::failpoint::reach;
use crate::domain::failure::Severity;
use crate::domain::manifest::{ChipRecord, FileRecord, MAX_BYTES, Manifest};
use crate::domain::task::TaskKey;

/// Requests at the same time, of one task that is committed.
pub(super) const AT_ONCE: usize = 8;

const STAGING: &str = ".staging";

/// What probes of a starting node are named.
const PROBE: &str = ".staging/probe.";

/// How often a probe is made again when others take it away.
const PROBES: u32 = 3;

/// How often a sweep begins again when others keep writing.
const SWEEPS: u32 = 16;

/// Longest text of a seal or of the run file, bytes.
const SMALL: u64 = 1 << 16;

const COMMIT: &[u8] = b"commit";
const CLEAR: &[u8] = b"clear";

/// A dataset in a bucket.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) door: Door,
}

fn payload(bytes: impl Into<Bytes>) -> PutPayload {
    PutPayload::from_bytes(bytes.into())
}

pub(super) fn manifest_key(key: &TaskKey) -> String {
    format!(".manifests/{}/task_{}.json", key.run, key.task)
}

fn task_dir(key: &TaskKey) -> String {
    format!(".staging/{}/{}", key.run, key.task)
}

/// The run and the task of a staged object.
fn task_of(key: &str) -> Option<(&str, u64)> {
    let mut parts = key.strip_prefix(STAGING)?.split('/').skip(1);
    Some((parts.next()?, parts.next()?.parse().ok()?))
}

fn attempt_dir(attempt: &Attempt) -> String {
    format!("{}/{}", task_dir(&attempt.key), attempt.id)
}

fn open(dir: &str) -> String {
    format!("{dir}/open")
}

fn seal(dir: &str) -> String {
    format!("{dir}/sealed")
}

fn pair(dir: &str, name: &str) -> String {
    format!("{dir}/{name}.pair")
}

/// Final keys of a chip's two files, with what they must be.
pub(super) fn finals(chip: &ChipRecord) -> [(String, FileRecord); 2] {
    let (image, mask) = (chip.image.clone(), chip.mask.clone());
    [(format!("images/{}.tif", chip.name), image), (format!("masks/{}.tif", chip.name), mask)]
}

impl Objects {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    pub(super) fn place(&self) -> &str {
        self.door.place()
    }

    /// Whether the bucket is there, marked if it has to be, and can be written; with `fences`, also that it keeps the
    /// first of two writers.
    pub(super) async fn check(&self, marked: bool, fences: bool) -> Result<(), StoreError> {
        if marked && self.door.get(MARKER, SMALL).await?.is_none() {
            return Err(StoreError::Unmarked(self.place().to_owned()));
        }
        // Again when a node that comes or goes has just taken the probe away.
        for _ in 0..PROBES {
            let probe = format!("{PROBE}{}", unique()?);
            let first = self.door.put_new(&probe, payload(&b"probe"[..])).await?;
            let second = if fences { self.door.put_new(&probe, payload(&b"again"[..])).await? } else { false };
            self.door.remove(&[probe]).await?;
            if first && !second {
                return Ok(());
            }
        }
        Err(StoreError::Unconditional(self.place().to_owned()))
    }

    /// Removes probes (who loses one tries again), and attempts at tasks that are finished.
    pub(super) async fn tidy(&self) -> Result<(), StoreError> {
        let keys = self.door.below(STAGING).await?.into_iter().map(|(key, _)| key);
        let (probes, staged): (Vec<String>, Vec<String>) = keys.partition(|key| key.starts_with(PROBE));
        if !probes.is_empty() {
            self.door.remove(&probes).await?;
        }
        let tasks: BTreeSet<(&str, u64)> = staged.iter().filter_map(|key| task_of(key)).collect();
        for (run, task) in tasks {
            self.finished(&TaskKey { run: run.to_owned(), task }).await?;
        }
        Ok(())
    }

    /// Writes the run file if there is none, and insists on its naming this run.
    pub(super) async fn bind(&self, run: &str) -> Result<(), StoreError> {
        let body = serde_json::json!({ "schema": 1, "run_id": run }).to_string();
        self.door.put_new(RUN_FILE, payload(body)).await?;
        let damaged = |why: String| StoreError::Damaged { path: self.door.url(RUN_FILE), why };
        let raw = self.door.get(RUN_FILE, SMALL).await?.ok_or_else(|| damaged("it was removed just now".into()))?;
        let json: serde_json::Value = serde_json::from_slice(&raw).map_err(|e| damaged(e.to_string()))?;
        let holds = json["run_id"].as_str().unwrap_or_default();
        if holds == run {
            return Ok(());
        }
        Err(StoreError::OtherRun { dir: self.place().to_owned(), holds: holds.to_owned(), wants: run.to_owned() })
    }

    async fn manifest(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        let path = manifest_key(key);
        let Some(raw) = self.door.get(&path, MAX_BYTES).await? else { return Ok(None) };
        let damaged = |why: String| StoreError::Damaged { path: self.door.url(&path), why };
        let manifest = Manifest::parse(&raw).map_err(|e| damaged(e.to_string()))?;
        if manifest.key == *key {
            return Ok(Some(manifest));
        }
        Err(damaged(format!("it is the record of task {}", manifest.key)))
    }

    /// Keys of all manifests, in order.
    pub(super) async fn manifest_keys(&self) -> Result<Vec<String>, StoreError> {
        let keys = self.door.below(".manifests").await?;
        Ok(keys.into_iter().filter(|(_, length)| *length <= MAX_BYTES).map(|(key, _)| key).collect())
    }

    /// The bytes of some manifests, in order.
    pub(super) async fn manifests(&self, keys: Vec<String>) -> Result<Vec<Bytes>, StoreError> {
        let read = stream::iter(keys).map(|key| async move { self.door.get(&key, MAX_BYTES).await });
        let all: Vec<Option<Bytes>> = read.buffered(AT_ONCE).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// What is staged goes only after everything was published: nothing staged, nothing to do.
    pub(super) async fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        let Some(manifest) = self.manifest(key).await? else { return Ok(None) };
        if self.door.any_below(&task_dir(key)).await? {
            self.publish(&manifest).await?;
        }
        Ok(Some(manifest))
    }

    pub(super) async fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        let mut attempt = Attempt { key: key.clone(), id: unique()?, earlier: 0 };
        let dir = attempt_dir(&attempt);
        self.door.put(&open(&dir), payload(attempt.id.clone())).await?;
        let others = self.attempts(key).await?.into_iter().filter(|id| *id != attempt.id);
        attempt.earlier = others.count() as u32;
        Ok(attempt)
    }

    /// Names of the attempts that have anything staged.
    async fn attempts(&self, key: &TaskKey) -> Result<Vec<String>, StoreError> {
        let dir = task_dir(key);
        let keys = self.door.below(&dir).await?;
        let name = |key: &str| Some(key.strip_prefix(&dir)?.strip_prefix('/')?.split_once('/')?.0.to_owned());
        let mut names: Vec<String> = keys.iter().filter_map(|(key, _)| name(key)).collect();
        names.dedup();
        Ok(names)
    }

    pub(super) async fn stage(&self, attempt: &Attempt, name: &str, both: Bytes) -> Result<(), StoreError> {
        let dir = attempt_dir(attempt);
        let key = pair(&dir, name);
        self.door.put(&key, payload(both)).await?;
        // After the write: a sweep that has not seen the chip had not removed this yet.
        if self.door.length(&open(&dir)).await?.is_some() {
            return Ok(());
        }
        self.door.remove(&[key]).await?;
        Err(StoreError::Swept(attempt.id.clone()))
    }

    pub(super) async fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        if let Some(there) = self.manifest(&attempt.key).await? {
            return self.second(attempt, there).await;
        }
        let free = self.names_are_free(manifest).await;
        if free.is_err()
            && let Some(there) = self.manifest(&attempt.key).await?
        {
            return self.second(attempt, there).await;
        }
        free?;
        let path = manifest_key(&attempt.key);
        let body = serde_json::to_vec(manifest)
            .map_err(|e| StoreError::Damaged { path: self.door.url(&path), why: e.to_string() })?;
        if !self.seal(attempt).await? {
            return match self.manifest(&attempt.key).await? {
                Some(there) => self.second(attempt, there).await,
                None => Err(StoreError::Swept(attempt.id.clone())),
            };
        }
        let linked = self.door.put_new(&path, payload(body)).await;
        match self.manifest(&attempt.key).await? {
            Some(there) => self.second(attempt, there).await,
            None => match linked {
                Err(error) if error.severity() == Severity::Fatal => {
                    // Refused for good, so it will not appear later: the attempt may be given up.
                    self.door.remove(&[seal(&attempt_dir(attempt))]).await?;
                    Err(error)
                }
                Err(error) => Err(error),
                Ok(_) => Err(StoreError::Object {
                    action: "writing",
                    url: self.door.url(&path),
                    why: "it was removed just now".into(),
                    remedy: "",
                    severity: Severity::Transient,
                }),
            },
        }
    }

    /// Completes the task whose manifest is there, and says whose it is.
    async fn second(&self, attempt: &Attempt, there: Manifest) -> Result<Committed, StoreError> {
        if there.attempt == attempt.id {
            reach("commit.linked");
            self.publish(&there).await?;
            return Ok(Committed::Ours);
        }
        self.sweep(&attempt_dir(attempt)).await?;
        self.publish(&there).await?;
        Ok(Committed::Theirs(Box::new(there)))
    }

    /// Claims the attempt for its commit; `false`: it was taken away.
    async fn seal(&self, attempt: &Attempt) -> Result<bool, StoreError> {
        let dir = attempt_dir(attempt);
        let key = seal(&dir);
        if !self.door.put_new(&key, payload(COMMIT)).await?
            && self.door.get(&key, SMALL).await?.is_none_or(|by| by != COMMIT)
        {
            return Ok(false);
        }
        if self.door.length(&open(&dir)).await?.is_some() {
            return Ok(true);
        }
        self.door.remove(&[key]).await?;
        Ok(false)
    }

    /// Refuses names that are another chip's, before anything is committed.
    async fn names_are_free(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let all: Vec<_> = manifest.chips.iter().flat_map(finals).collect();
        let looked = stream::iter(all).map(|(key, record)| async move {
            match self.door.length(&key).await? {
                Some(length) if length != record.bytes => Err(StoreError::NameTaken(self.door.url(&key))),
                Some(_) => self.is_ours(&key, &record).await,
                None => Ok(()),
            }
        });
        looked.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// That the object of this name has these bytes.
    async fn is_ours(&self, key: &str, record: &FileRecord) -> Result<(), StoreError> {
        let there = self.door.get(key, record.bytes).await;
        match there {
            Ok(Some(bytes)) if record.describes(&bytes) => Ok(()),
            Ok(Some(_)) | Err(StoreError::Damaged { .. }) => Err(StoreError::NameTaken(self.door.url(key))),
            Ok(None) => Err(StoreError::Object {
                action: "reading",
                url: self.door.url(key),
                why: "it was removed just now".into(),
                remedy: "",
                severity: Severity::Transient,
            }),
            Err(error) => Err(error),
        }
    }

    /// Gives the committed files their final names and removes what was staged for the task.
    /// Idempotent, and safe to run by several nodes at once.
    async fn publish(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let dir = format!("{}/{}", task_dir(&manifest.key), manifest.attempt);
        let dir = dir.as_str();
        let chips = stream::iter(manifest.chips.clone());
        let chips = chips.map(|chip| async move { self.publish_chip(dir, &chip).await });
        chips.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.sweep(&task_dir(&manifest.key)).await
    }

    async fn publish_chip(&self, dir: &str, chip: &ChipRecord) -> Result<(), StoreError> {
        let staged = pair(dir, &chip.name);
        let Some(both) = self.door.get(&staged, chip.image.bytes.saturating_add(chip.mask.bytes)).await? else {
            return self.is_published(chip).await;
        };
        let split = usize::try_from(chip.image.bytes).map_or(both.len(), |n| n.min(both.len()));
        let parts = [both.slice(..split), both.slice(split..)];
        for ((key, record), part) in finals(chip).into_iter().zip(parts) {
            if !record.describes(&part) {
                let why = "its bytes are not those of the task's manifest".into();
                return Err(StoreError::Damaged { path: self.door.url(&staged), why });
            }
            if !self.door.put_new(&key, payload(part)).await? {
                self.is_ours(&key, &record).await?;
            }
            reach("commit.half");
        }
        Ok(())
    }

    /// That a chip which is not staged any more has its files: somebody else was faster.
    async fn is_published(&self, chip: &ChipRecord) -> Result<(), StoreError> {
        for (key, record) in finals(chip) {
            if self.door.length(&key).await? != Some(record.bytes) {
                let why = "its task is finished, but the object is gone or has another length: `node verify` lists \
                           what is damaged; without its manifest the task is free for another run"
                    .into();
                return Err(StoreError::Damaged { path: self.door.url(&key), why });
            }
        }
        Ok(())
    }

    /// Removes everything below, the signs that an attempt is open first, so that whoever writes now will notice.
    async fn sweep(&self, dir: &str) -> Result<(), StoreError> {
        for _ in 0..SWEEPS {
            let keys = self.door.below(dir).await?.into_iter().map(|(key, _)| key);
            let (open, rest): (Vec<String>, Vec<String>) = keys.partition(|key| key.ends_with("/open"));
            if !open.is_empty() {
                self.door.remove(&open).await?;
                continue;
            }
            return if rest.is_empty() { Ok(()) } else { self.door.remove(&rest).await };
        }
        // Attempts keep beginning; each of them will find the manifest.
        Ok(())
    }

    /// Throws away all attempts at a task that will not be tried any more, but for one that is being committed.
    pub(super) async fn clear(&self, key: &TaskKey) -> Result<(), StoreError> {
        for id in self.attempts(key).await? {
            let dir = format!("{}/{id}", task_dir(key));
            let sealed = seal(&dir);
            if !self.door.put_new(&sealed, payload(CLEAR)).await?
                && self.door.get(&sealed, SMALL).await?.is_some_and(|by| by == COMMIT)
            {
                continue;
            }
            self.sweep_to_the_seal(&dir).await?;
        }
        Ok(())
    }

    /// As [`Objects::sweep`], with the seal last: as long as anything is there, so is the seal.
    async fn sweep_to_the_seal(&self, dir: &str) -> Result<(), StoreError> {
        let (open, sealed) = (open(dir), seal(dir));
        self.door.remove(&[open]).await?;
        let keys = self.door.below(dir).await?.into_iter().map(|(key, _)| key);
        let rest: Vec<String> = keys.filter(|key| *key != sealed).collect();
        self.door.remove(&rest).await?;
        self.door.remove(&[sealed]).await
    }

    /// Throws one attempt away, unless it is committed, or may still turn out to be.
    pub(super) async fn abandon(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let dir = attempt_dir(attempt);
        let sealed = self.door.get(&seal(&dir), SMALL).await?.is_some();
        if sealed && self.manifest(&attempt.key).await?.is_none_or(|there| there.attempt == attempt.id) {
            return Ok(());
        }
        self.sweep(&dir).await
    }
}
