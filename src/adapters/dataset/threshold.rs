//! What a node does with a dataset directory when it comes and when it goes: tries it, binds it to the run, and removes
//! what killed nodes have left.
//!
//! Contract: harmless beside any number of others that do the same; whoever loses a probe or a draft to another's
//! sweeping notices and goes on. Trap: an attempt at a task that is not finished is never taken away here; its redelivery
//! will count it.

use super::disk::{DiskStore, RUN_FILE, at, gone};
use super::{DatasetStore as _, StoreError, unique};
use crate::domain::task::TaskKey;

/// What probes are named.
const PROBE: &str = "probe.";

impl DiskStore {
    /// Whether files can be written and linked; `false` when somebody took the probe away meanwhile.
    pub(super) fn probe(&self) -> Result<bool, StoreError> {
        let name = format!("{PROBE}{}", unique()?);
        let (probe, twin) = (self.staging().join(&name), self.staging().join(name + ".link"));
        self.write_synced(&probe, b"probe")?;
        let linked = self.fs.hard_link(&probe, &twin).and_then(|()| gone(self.fs.remove_file(&twin)));
        let swept = linked.is_err() && !self.exists(&probe);
        gone(self.fs.remove_file(&probe)).or_else(|e| at("removing", &probe, Err(e)))?;
        if swept { Ok(false) } else { at("linking", &twin, linked).map(|()| true) }
    }

    /// Writes the run file if there is none, and insists on its naming this run.
    pub(super) fn bind_directory(&self, run: &str) -> Result<(), StoreError> {
        let path = self.root.join(RUN_FILE);
        let body = serde_json::json!({ "schema": 1, "run_id": run }).to_string();
        let draft = self.staging().join(format!("{RUN_FILE}.{}", unique()?));
        self.make_dirs(&self.staging())?;
        if !self.exists(&path) {
            self.write_synced(&draft, body.as_bytes())?;
            // Err: another node was first; what it wrote is read below.
            let _ = self.fs.hard_link(&draft, &path);
            gone(self.fs.remove_file(&draft)).or_else(|e| at("removing", &draft, Err(e)))?;
            self.sync_dir(&self.root)?;
        }
        let raw = at("reading", &path, self.fs.read(&path))?;
        let json: serde_json::Value = serde_json::from_slice(&raw)
            .map_err(|e| StoreError::Damaged { path: path.display().to_string(), why: e.to_string() })?;
        let holds = json["run_id"].as_str().unwrap_or_default().to_owned();
        if holds != run {
            return Err(StoreError::OtherRun { dir: self.root.display().to_string(), holds, wants: run.to_owned() });
        }
        Ok(())
    }

    /// Drafts of the run file, probes, and attempts at tasks that are finished. Where the run file is there, nobody needs
    /// a draft any more; who loses a probe tries again.
    pub(super) fn sweep(&self) {
        let staging = self.staging();
        let draft = self.exists(&self.root.join(RUN_FILE)).then(|| format!("{RUN_FILE}."));
        for name in self.fs.names(&staging).unwrap_or_default() {
            if (draft.as_ref().is_some_and(|draft| name.starts_with(draft)) || name.starts_with(PROBE))
                && let Err(error) = gone(self.fs.remove_file(&staging.join(&name)))
            {
                tracing::warn!(name, %error, "a leftover in .staging could not be removed");
            }
        }
        for run in self.fs.names(&staging).unwrap_or_default() {
            let tasks = self.fs.names(&staging.join(&run)).unwrap_or_default();
            for task in tasks.iter().filter_map(|name| name.parse().ok()) {
                if let Err(error) = self.finished(&TaskKey { run: run.clone(), task }) {
                    tracing::warn!(run, task, %error, "a finished task could not be tidied up");
                }
            }
        }
    }
}
