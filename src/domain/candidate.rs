//! One way to get a chip's pixels: a scene, and the chip's place on that scene's grid.
//!
//! Units: metres in the scene's UTM zone. Contract: a pure description; what its pixels are worth is found out by
//! looking ([`super::choice`]). Trap: only the pixels can say
//! whether all of the place is valid.

use std::sync::Arc;

use super::scene::{PixelGrid, Scene};

/// How far from what was wanted a scene was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Widened {
    /// Not at all: the season asked for, below `stac.max_cloud`.
    No,
    /// The season asked for, but more cloud.
    Cloud,
    /// Any season.
    Season,
}

impl Widened {
    /// As a chip's record says it: empty, `cloud` or `season`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Cloud => "cloud",
            Self::Season => "season",
        }
    }
}

/// A scene that can give a chip.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The scene.
    pub scene: Arc<Scene>,
    /// Position and size of the chip, on the scene's own pixels.
    pub grid: PixelGrid,
    /// Distance of the chip's centre from the middle of the scene's grid, metres.
    pub off_centre: f64,
    /// Name of the season the scene was taken in.
    pub season: Arc<str>,
    /// How far the search had gone when it was found.
    pub widened: Widened,
}

impl Candidate {
    /// A candidate whose chip lies at `grid` of a scene that covers `whole`.
    pub fn new(scene: Arc<Scene>, whole: &PixelGrid, grid: PixelGrid, season: Arc<str>, widened: Widened) -> Self {
        let middle = |g: &PixelGrid| {
            let [x0, y0, x1, y1] = g.bounds();
            [(x0 + x1) / 2.0, (y0 + y1) / 2.0]
        };
        let ([a, b], [c, d]) = (middle(whole), middle(&grid));
        let off_centre = (a - c).hypot(b - d);
        Self { scene, grid, off_centre, season, widened }
    }
}
