//! What `node dataset` says about what it made, and the shape of `stats.json`.
//!
//! Contract: `stats.json` holds, for the training chips alone, the bands' statistics and the pixels and weights of the
//! classes; the text is for people and may change.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::table::Table;
use crate::adapters::finished::classes::Counts;
use crate::adapters::finished::manifests::Manifests;
use crate::adapters::finished::pixels::{BandReport, Bands, Effort};
use crate::adapters::finished::record::Finished;
use crate::adapters::finished::rejections::Account;
use crate::adapters::finished::survey::Survey;
use crate::adapters::finished::webdataset::Exported;
use crate::domain::band_stats::balanced_weights;
use crate::domain::class_table::ClassTable;
use crate::domain::classes::ClassId;
use crate::domain::split::Split;

/// `stats.json`
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    schema: u32,
    /// Split the numbers are of.
    split: &'static str,
    chips: u64,
    nodata: u16,
    bands: Vec<BandReport>,
    classes: Vec<ClassStats>,
    /// Pixels without a label.
    background_pixels: u64,
}

#[derive(Debug, Serialize)]
struct ClassStats {
    class: u8,
    name: String,
    pixels: u64,
    /// Of the labelled pixels.
    share: f64,
    /// Total / (classes x pixels); 0 for a class without pixels.
    weight: f64,
}

pub(super) fn stats(bands: &Bands, counts: &Counts, classes: &ClassTable, survey: &Survey) -> Stats {
    let pixels: BTreeMap<u8, u64> = counts.pixels(Split::Train).into_iter().collect();
    let of = |value: u8| pixels.get(&value).copied().unwrap_or(0);
    let labelled: Vec<(u8, u64)> = classes.classes().keys().map(|c| (c.get(), of(c.get()))).collect();
    let total: u64 = labelled.iter().map(|(_, n)| n).sum();
    let weights: BTreeMap<u8, f64> = balanced_weights(&labelled).into_iter().collect();
    let class = |(id, info): (&ClassId, &crate::domain::class_table::ClassInfo)| ClassStats {
        class: id.get(),
        name: info.name.clone(),
        pixels: of(id.get()),
        share: if total > 0 { of(id.get()) as f64 / total as f64 } else { 0.0 },
        weight: weights.get(&id.get()).copied().unwrap_or(0.0),
    };
    Stats {
        schema: 1,
        split: Split::Train.as_str(),
        chips: survey.certificate.chips.get("train").copied().unwrap_or(0),
        nodata: 0,
        bands: bands.stats(),
        classes: classes.classes().iter().map(class).collect(),
        background_pixels: of(0),
    }
}

pub(super) fn made(
    survey: &Survey,
    manifests: &Manifests,
    account: Option<&Account>,
    pixels: Option<&(Bands, Effort)>,
    record: &Finished,
    out: &mut (dyn Write + Send),
) -> io::Result<()> {
    let proof = &survey.certificate;
    let list = |counts: &BTreeMap<&'static str, u64>| {
        let order = ["train", "val", "test", "buffer"].iter().filter_map(|name| Some((name, counts.get(name)?)));
        order.map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join("  ")
    };
    writeln!(out, "chips       {} of {} tasks: {}", survey.splits.len(), manifests.len(), list(&proof.chips))?;
    let (edge, buffer) = (proof.settings.block_km, proof.settings.buffer_m);
    writeln!(out, "blocks      {edge} km: {}; splits {buffer} m apart or more", list(&proof.blocks_drawn))?;
    for nearest in &proof.distances {
        let [a, b] = nearest.splits;
        writeln!(out, "nearest     {a} to {b} {:.1} m", nearest.metres)?;
    }
    let (parcels, pairs) = (proof.shared_parcels, proof.pairs_sharing_pixels);
    let known = if proof.parcels_known == "all" { "" } else { " (only centre parcels are known)" };
    writeln!(out, "certificate shared parcels {parcels}{known}, pairs of chips that share pixels {pairs}")?;
    for name in ["train", "val", "test"].iter().filter(|name| proof.chips.get(**name) == Some(&0)) {
        writeln!(out, "no chip in {name}: other split.seed, smaller split.block_km, or more chips")?;
    }
    if let Some(account) = account {
        states(account, out)?;
    }
    if let Some((bands, effort)) = pixels {
        let counted: u64 = bands.stats().iter().map(|b| b.pixels).sum();
        let Effort { added, removed } = effort;
        writeln!(out, "statistics  {counted} values; {added} images read for it, {removed} taken out again")?;
    }
    let names: Vec<&str> = record.files.iter().map(|f| f.name.as_str()).filter(|n| !n.starts_with('.')).collect();
    writeln!(out, "files       {}", names.join(" "))
}

fn states(account: &Account, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let verdict = match account.reconciled {
        Some(true) => "all, and they add up to the plan",
        Some(false) => "all, and they DO NOT add up to the plan",
        None => "only those drawn: without parcels.path the others are not known",
    };
    writeln!(out, "parcels     {verdict}")?;
    let used: Vec<_> = crate::domain::parcel_state::ParcelState::ALL
        .into_iter()
        .filter(|s| account.classes.values().any(|c| c.totals.states.contains_key(s)))
        .collect();
    let mut table = Table::new(&[&["class"], &*used.iter().map(|s| s.as_str()).collect::<Vec<_>>()].concat());
    for (class, of) in &account.classes {
        let counts = used.iter().map(|s| of.totals.states.get(s).copied().unwrap_or(0).to_string());
        table.row(std::iter::once(class.to_string()).chain(counts));
    }
    table.write(out)
}

pub(super) fn exported(done: &Exported, to: &Path, out: &mut (dyn Write + Send)) -> io::Result<()> {
    for ((split, samples), shards) in Split::USED.iter().zip(done.samples).zip(done.shards) {
        writeln!(out, "{:<6} {samples} samples in {shards} shards", split.as_str())?;
    }
    writeln!(out, "{:.1} MB in {}", done.bytes as f64 / 1e6, to.display())
}
