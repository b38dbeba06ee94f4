//! The dataset as WebDataset: tar files that are read from the first byte to the last.
//!
//! ```text
//! OUT/train-000000.tar …  val-000000.tar …  test-000000.tar …
//!     KEY.image.tif  KEY.mask.tif  KEY.json      one sample; KEY is the chip's name, see below
//! ```
//!
//! Contract: deterministic: no clock, no owner, the same order every time. Samples are shuffled by a hash of their name,
//! so that a shard holds a bit of every class and place, as sequential readers need. A shard ends before it would grow
//! beyond the limit, but holds one sample at least. Chips of the buffer are left out. Shards appear whole, and those of
//! an earlier export that are not written again are removed.
//! Memory: 24 bytes per chip; each manifest is read again for each of its chips.
//! Trap: WebDataset takes a sample's key up to the first dot, so dots of a name become dashes, and a hash of the name is
//! added to keep such keys apart.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::FinishError;
use super::manifests::Manifests;
use super::survey::{Survey, parcels};
use crate::domain::manifest::{ChipRecord, Manifest};
use crate::domain::sampling::splitmix64;
use crate::domain::split::Split;
use crate::domain::task::fnv1a;

/// What an export came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Samples by split.
    pub samples: [u64; 3],
    /// Shards by split.
    pub shards: [u64; 3],
    /// Bytes of all shards.
    pub bytes: u64,
}

/// Bytes of a tar entry: header and content, in blocks of 512.
fn entry_bytes(content: u64) -> u64 {
    512 + content.div_ceil(512) * 512
}

/// Writes the shards of all splits into `out`, none larger than `limit` bytes where one sample allows it.
///
/// # Errors
/// Files that cannot be read or written.
pub fn export(manifests: &Manifests, survey: &Survey, out: &Path, limit: u64) -> Result<Exported, FinishError> {
    fs::create_dir_all(out).map_err(FinishError::io("creating", out))?;
    let mut exported = Exported::default();
    for (at, split) in Split::USED.into_iter().enumerate() {
        let mut shards = Shards { out, split, limit, number: 0, open: None, bytes: 0 };
        for (task, chip) in order(manifests, survey, split)? {
            let manifest = manifests.read(task)?;
            shards.add(manifests.root(), &manifest, &manifest.chips[chip])?;
            exported.samples[at] += 1;
        }
        (exported.shards[at], exported.bytes) = (shards.number, exported.bytes + shards.end()?);
        remove_rest(out, split, exported.shards[at])?;
    }
    File::open(out).and_then(|d| d.sync_all()).map_err(FinishError::io("syncing", out))?;
    Ok(exported)
}

/// Places of a split's chips, shuffled: task in the list, chip in the task.
fn order(manifests: &Manifests, survey: &Survey, split: Split) -> Result<Vec<(usize, usize)>, FinishError> {
    let mut all: Vec<(u64, u32, u32)> = Vec::new();
    for task in 0..manifests.len() {
        let splits = survey.splits_of(task);
        if !splits.contains(&split) {
            continue;
        }
        let manifest = manifests.read(task)?;
        for (chip, record) in manifest.chips.iter().enumerate().filter(|(n, _)| splits[*n] == split) {
            all.push((splitmix64(fnv1a(record.name.as_bytes())), task as u32, chip as u32));
        }
    }
    all.sort_unstable();
    Ok(all.into_iter().map(|(_, task, chip)| (task as usize, chip as usize)).collect())
}

/// Name of a shard.
fn shard_name(split: Split, number: u64) -> String {
    format!("{}-{number:06}.tar", split.as_str())
}

/// Shards of a larger export that stood here before.
fn remove_rest(out: &Path, split: Split, from: u64) -> Result<(), FinishError> {
    for number in from.. {
        let path = out.join(shard_name(split, number));
        match fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(FinishError::io("removing", &path))?,
        }
    }
    Ok(())
}

/// Key of a sample.
fn key(name: &str) -> String {
    if name.contains('.') {
        return format!("{}-{:016x}", name.replace('.', "-"), fnv1a(name.as_bytes()));
    }
    name.to_owned()
}

struct Open {
    tar: tar::Builder<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
    bytes: u64,
}

struct Shards<'a> {
    out: &'a Path,
    split: Split,
    limit: u64,
    number: u64,
    open: Option<Open>,
    bytes: u64,
}

impl Shards<'_> {
    fn add(&mut self, root: &Path, of: &Manifest, chip: &ChipRecord) -> Result<(), FinishError> {
        let read = |dir: &str| {
            let path = root.join(dir).join(format!("{}.tif", chip.name));
            fs::read(&path).map_err(FinishError::io("reading", &path))
        };
        let (image, mask) = (read("images")?, read("masks")?);
        let facts = json!({
            "name": chip.name,
            "split": self.split.as_str(),
            "class": chip.class,
            "parcel": chip.parcel,
            "parcels": parcels(chip),
            "item": chip.item,
            "collection": chip.collection,
            "datetime": chip.datetime,
            "season": chip.season,
            "cloud_cover": chip.cloud_cover,
            "crs": format!("EPSG:{}", chip.epsg),
            "transform": chip.grid.transform(),
            "run": of.key.run,
            "task": of.key.task,
        });
        let facts = facts.to_string().into_bytes();
        let key = key(&chip.name);
        let parts = [("image.tif", image), ("mask.tif", mask), ("json", facts)];
        let size: u64 = parts.iter().map(|(_, content)| entry_bytes(content.len() as u64)).sum();
        if self.open.as_ref().is_some_and(|open| open.bytes + size + 1024 > self.limit) {
            self.finish()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let path = self.out.join(shard_name(self.split, self.number));
                let part = path.with_extension("tar.part");
                let file = File::create(&part).map_err(FinishError::io("writing", &part))?;
                self.number += 1;
                self.open.insert(Open { tar: tar::Builder::new(BufWriter::new(file)), part, path, bytes: 0 })
            }
        };
        for (kind, content) in parts {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let added = open.tar.append_data(&mut header, format!("{key}.{kind}"), &*content);
            added.map_err(FinishError::io("writing", &open.part))?;
        }
        open.bytes += size;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), FinishError> {
        let Some(Open { tar, part, path, .. }) = self.open.take() else { return Ok(()) };
        let io = || FinishError::io("writing", &part);
        let mut file = tar.into_inner().map_err(io())?;
        file.flush().map_err(io())?;
        file.get_ref().sync_all().map_err(io())?;
        self.bytes += file.get_ref().metadata().map_err(io())?.len();
        fs::rename(&part, &path).map_err(FinishError::io("renaming", &path))
    }

    /// Ends the last shard; bytes of all.
    fn end(mut self) -> Result<u64, FinishError> {
        self.finish()?;
        Ok(self.bytes)
    }
}
