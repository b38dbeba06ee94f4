//! Which scenes a task's chips come from, and which blocks of their files hold them.
//!
//! Contract: chips lie evenly in their cell, at places that follow from the task's number. A scene is one season's
//! picture of a square of the 100 km grid (109.8 km wide, as Sentinel-2's tiles are); the `rank`-th one is what is left
//! when those before it were cloudy over this cell. Units: degrees in, block numbers (row-major) out.
//! Trap: there is a tile of every square; where the land's edge or an orbit cuts one off, a real run has another to fetch.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Todo;
use super::model::Model;
use crate::domain::sampling::hash01;
use crate::domain::sweep::{SQUARE_M, utm};

/// Edge of a tile, metres.
const TILE_M: f64 = 109_800.0;
/// Half of what neighbouring tiles have in common, metres.
const SHARED_M: f64 = (TILE_M - SQUARE_M) / 2.0;
/// Scenes that may be looked at in vain.
const MOST_CLOUDY: u64 = 7;

/// The chips of one task that come from one scene.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// Square and season; the scene's number is this plus the rank.
    pub(super) base: u64,
    /// Season, for the search.
    pub(super) season: usize,
    /// Scenes looked at in vain before the one that gives the chips.
    pub(super) rank: u64,
    pub(super) chips: u32,
    /// Blocks by the metres of a pixel: those of 10 m files, those of 20 m files.
    blocks: [BTreeSet<u32>; 2],
}

impl Group {
    /// Blocks of a file with pixels of `res` metres.
    pub(super) fn blocks(&self, res: f64) -> &BTreeSet<u32> {
        &self.blocks[usize::from(res > 10.0)]
    }
}

/// The groups of a task, in order of their scenes.
pub(super) fn groups(model: &Model, todo: &Todo) -> Vec<Group> {
    let chips = (f64::from(todo.drawn) * model.yields).round() as u32;
    let [west, south, east, north] = todo.bbox;
    let seed = model.seed ^ todo.task_id.rotate_left(32);
    let task_season = model.seasons.draw_index(model.seed, todo.task_id);
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for chip in 0..i64::from(chips) {
        let (x, y) = (hash01(seed, 2 * chip), hash01(seed, 2 * chip + 1));
        let (zone, e, n) = utm(west + x * (east - west), south + y * (north - south));
        let season = match model.seasons.one_per_task() {
            true => task_season,
            false => chip as usize % model.seasons.all().len(),
        };
        // Tiles begin at a square's north-western corner and reach into the next ones; of two, the one in whose middle a chip
        // lies gives it.
        let (column, row) = (((e - SHARED_M) / SQUARE_M).floor(), ((n + SHARED_M) / SQUARE_M).floor());
        let square = ((zone as u64 * 16 + (column.clamp(0.0, 15.0) as u64)) << 8) + (row + 128.0) as u64;
        let base = ((square << 8) + season as u64) << 3;
        let group = groups.entry(base).or_insert_with(|| Group {
            base,
            season,
            rank: rank(model, seed ^ base),
            chips: 0,
            blocks: Default::default(),
        });
        group.chips += 1;
        let (left, top) = (column * SQUARE_M, (row + 1.0) * SQUARE_M);
        for (place, res) in [10.0, 20.0].into_iter().enumerate() {
            let edge = f64::from(model.block_px) * res;
            let most = ((TILE_M / edge).ceil() as u32).max(1) - 1;
            let number = |metres: f64| ((metres.max(0.0) / edge) as u32).min(most);
            let span = |at: f64| number(at - model.reach_m)..=number(at + model.reach_m - res);
            for line in span(top - n) {
                group.blocks[place].extend(span(e - left).map(|column| line * (most + 1) + column));
            }
        }
    }
    groups.into_values().collect()
}

/// Scenes that are cloudy over a cell before one is not.
fn rank(model: &Model, seed: u64) -> u64 {
    let cloudy = |rank: &u64| hash01(seed, -1 - *rank as i64) < model.cloudy;
    (0..MOST_CLOUDY).take_while(cloudy).count() as u64
}
