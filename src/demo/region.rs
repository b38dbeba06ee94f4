//! A made-up farming region and its GeoPackage of parcels.
//!
//! Contract: the same size and seed give the same parcels with the same coordinates, bit for bit, in the same order;
//! a parcel's id is its place in that order from 1. Parcels share no edge and do not overlap.
//! Units: metres in a local plane while fields are cut, degrees (EPSG:4258, longitude first) in the result, hectares.
//! Trap: the last six rows are planted troubles (null, empty and invalid geometries) and are not in [`Region::parcels`].

mod gpkg;

use super::crops::{CROPS, Crop};
use super::noise::{Rng, fractal, mix2};
use super::outline::{self, Point, Ring};
use std::fmt;
use std::str::FromStr;

/// Name of the layer that holds the parcels.
pub const LAYER: &str = "ES_2023_demo";
/// Rows beyond [`Region::parcels`]: three with a geometry no pipeline can use, three that have to be mended. All are
/// tomatoes, the rarest class, so that every one of them is drawn.
pub const TROUBLES: usize = 6;

/// Metres per degree of latitude, near enough for a made-up plane.
const METRES_PER_DEGREE: f64 = 111_050.0;
/// Edge of a block of fields, metres.
const BLOCK: f64 = 900.0;
/// Smallest parcel, square metres.
const MIN_AREA: f64 = 3_000.0;
/// Largest parcel before it is bent, square metres.
const MAX_AREA: f64 = 145_000.0;

/// How much is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// About 200 parcels on 0.06 x 0.04 degrees across the same border: whole-node tests.
    Tiny,
    /// About 3000 parcels on 0.2 x 0.15 degrees across the border of UTM zones 30 and 31.
    Small,
    /// About 60,000 parcels on one whole tile of zone 30.
    Full,
}

impl Size {
    /// `[west, south, east, north]`, degrees.
    pub fn bounds(self) -> [f64; 4] {
        match self {
            Self::Tiny => [-0.03, 41.60, 0.03, 41.64],
            Self::Small => [-0.10, 41.55, 0.10, 41.70],
            Self::Full => [-0.50, 41.48, 0.62, 42.33],
        }
    }

    fn parcels(self) -> usize {
        match self {
            Self::Tiny => 200,
            Self::Small => 3_000,
            Self::Full => 60_000,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Full => "full",
        })
    }
}

/// Not a size of the demo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: use tiny, small or full")]
pub struct UnknownSize(String);

impl FromStr for Size {
    type Err = UnknownSize;

    fn from_str(text: &str) -> Result<Self, UnknownSize> {
        match text {
            "tiny" => Ok(Self::Tiny),
            "small" => Ok(Self::Small),
            "full" => Ok(Self::Full),
            _ => Err(UnknownSize(text.to_owned())),
        }
    }
}

/// One polygon: an outer ring and its holes, open rings in degrees, longitude first.
#[derive(Debug, Clone, PartialEq)]
pub struct Polygon {
    /// The outer ring, then the holes.
    pub rings: Vec<Vec<Point>>,
}

/// One parcel.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The layer's primary key.
    pub id: i64,
    /// One polygon, or more for a multipolygon.
    pub polygons: Vec<Polygon>,
    pub(super) crop: &'static Crop,
}

impl Parcel {
    /// The class (1 to 8) the demo's crop belongs to, 0 for none.
    pub fn class(&self) -> u8 {
        self.crop.class
    }
}

/// The region.
#[derive(Debug)]
pub struct Region {
    /// What it was made from.
    pub seed: u64,
    /// `[west, south, east, north]`, degrees; every parcel lies inside.
    pub bounds: [f64; 4],
    /// In order of id.
    pub parcels: Vec<Parcel>,
    /// Outlines of farmed blocks with the tracks between their fields, degrees.
    pub(super) blocks: Vec<Vec<Point>>,
}

/// The local plane: metres from the middle of the bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    centre: Point,
    scale: Point,
}

impl Plane {
    pub(super) fn of(bounds: [f64; 4]) -> Self {
        let centre = [(bounds[0] + bounds[2]) / 2.0, (bounds[1] + bounds[3]) / 2.0];
        let scale = [METRES_PER_DEGREE * centre[1].to_radians().cos(), METRES_PER_DEGREE];
        Self { centre, scale }
    }

    pub(super) fn metres(&self, [lon, lat]: Point) -> Point {
        [(lon - self.centre[0]) * self.scale[0], (lat - self.centre[1]) * self.scale[1]]
    }

    fn degrees(&self, [x, y]: Point) -> Point {
        [self.centre[0] + x / self.scale[0], self.centre[1] + y / self.scale[1]]
    }
}

/// Half the width of the river, metres.
pub(super) const RIVER: f64 = 38.0;

/// Metres from a point of the local plane to the middle of the river, along x.
pub(super) fn river_distance(seed: u64, [x, y]: Point) -> f64 {
    let course = 2600.0 + 1500.0 * f64::from(fractal(mix2(seed, 77), y / 5200.0, 0.5, 3));
    (x - course).abs()
}

impl Region {
    /// Makes the region; a second or so for the full size.
    pub fn generate(size: Size, seed: u64) -> Self {
        let bounds = size.bounds();
        let plane = Plane::of(bounds);
        let mut region = Self { seed, bounds, parcels: Vec::new(), blocks: Vec::new() };
        let mut chosen = Vec::new();
        let mut fields = 0;
        for block in candidate_blocks(&plane, bounds, seed) {
            if fields >= size.parcels() {
                break;
            }
            let made = block.fields(seed);
            fields += made.len();
            chosen.push((block, made));
        }
        // The best land was farmed first; rows follow the map.
        chosen.sort_by_key(|(block, _)| (block.row, block.column));
        for (block, made) in chosen {
            let outline = outline::bend(&block.ring, seed);
            region.blocks.push(outline.iter().map(|&p| plane.degrees(p)).collect());
            for shapes in made {
                region.push(shapes, &plane);
            }
        }
        region
    }

    fn push(&mut self, shapes: Vec<Vec<Ring>>, plane: &Plane) {
        let id = self.parcels.len() as i64 + 1;
        let middle = outline::centroid(&shapes[0][0]);
        let crop = choose_crop(self.seed, id, middle);
        let degrees = |ring: &Ring| ring.iter().map(|&p| plane.degrees(p)).collect();
        let polygons = shapes.iter().map(|rings| Polygon { rings: rings.iter().map(degrees).collect() }).collect();
        self.parcels.push(Parcel { id, polygons, crop });
    }
}

/// A quadrilateral of the block grid.
struct Block {
    row: i32,
    column: i32,
    ring: Ring,
    /// How good the land is: the best is farmed first.
    land: f32,
}

/// All blocks inside the bounds, best land first.
fn candidate_blocks(plane: &Plane, bounds: [f64; 4], seed: u64) -> Vec<Block> {
    let [right, top] = plane.metres([bounds[2], bounds[3]]);
    let reach = (right.hypot(top) / BLOCK).ceil() as i32 + 1;
    let (sin, cos) = 0.29f64.sin_cos();
    let corner = |row: i32, column: i32| {
        let jitter = |n: u64| 0.22 * f64::from(super::noise::white(mix2(seed, n), i64::from(column), i64::from(row)));
        let (u, v) = ((f64::from(column) + jitter(1)) * BLOCK, (f64::from(row) + jitter(2)) * BLOCK);
        [u * cos - v * sin, u * sin + v * cos]
    };
    // Bending moves a point by up to 31 m; parcels must stay inside the bounds.
    let inside = |p: &Point| p[0].abs() < right - 40.0 && p[1].abs() < top - 40.0;
    let mut blocks = Vec::new();
    for row in -reach..reach {
        for column in -reach..reach {
            let ring = vec![
                corner(row, column),
                corner(row, column + 1),
                corner(row + 1, column + 1),
                corner(row + 1, column),
            ];
            let middle = outline::centroid(&ring);
            if ring.iter().all(inside) && river_distance(seed, middle) > 640.0 {
                let land = fractal(mix2(seed, 3), middle[0] / 3600.0, middle[1] / 3600.0, 3);
                blocks.push(Block { row, column, ring, land });
            }
        }
    }
    blocks.sort_by(|a, b| b.land.total_cmp(&a.land).then((a.row, a.column).cmp(&(b.row, b.column))));
    blocks
}

impl Block {
    /// The block's parcels: each one or two polygons, each an outer ring and maybe a hole, bent, in metres.
    fn fields(&self, seed: u64) -> Vec<Vec<Vec<Ring>>> {
        let place = (u64::from(self.row as u32) << 32) | u64::from(self.column as u32);
        let mut rng = Rng::new(mix2(seed, place));
        let block = outline::draw_in(&self.ring, rng.range(5.0, 11.0));
        let small_holdings = rng.unit() < 0.05;
        let target = if small_holdings { rng.log_range(6_000.0, 24_000.0) } else { rng.log_range(40_000.0, 125_000.0) };
        let mut fields: Vec<Vec<Vec<Ring>>> = Vec::new();
        let mut may_join = false;
        for piece in outline::split(block, target, &mut rng) {
            let field = outline::draw_in(&piece, rng.range(1.0, 4.0));
            let area = if field.len() < 3 { 0.0 } else { outline::area(&field) };
            if !(MIN_AREA * 1.1..=MAX_AREA).contains(&area) {
                continue;
            }
            let mut rings = vec![outline::bend(&field, seed)];
            if area > 25_000.0 && rng.unit() < 0.05 {
                let pond = outline::pond(outline::centroid(&field), area.sqrt() * rng.range(0.06, 0.14), &mut rng);
                rings.push(outline::bend(&pond, seed));
            }
            match fields.last_mut() {
                // Two small neighbours under one number: a multipolygon.
                Some(last) if may_join && area < 70_000.0 && rng.unit() < 0.04 => {
                    last.push(rings);
                    may_join = false;
                }
                _ => {
                    may_join = area < 70_000.0;
                    fields.push(vec![rings]);
                }
            }
        }
        fields
    }
}

/// A crop by weight, each class favoured on its own kind of land.
fn choose_crop(seed: u64, id: i64, [x, y]: Point) -> &'static Crop {
    let favour = |crop: &Crop| {
        let kind = mix2(seed, 1000 + crop.cover as u64);
        crop.weight * f64::from(1.6 * fractal(kind, x / 3100.0, y / 3100.0, 2)).exp()
    };
    let total: f64 = CROPS.iter().map(favour).sum();
    let mut left = Rng::new(mix2(mix2(seed, 5), id as u64)).unit() * total;
    for crop in &CROPS {
        left -= favour(crop);
        if left < 0.0 {
            return crop;
        }
    }
    &CROPS[0]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_small_region_is_as_promised() {
        let region = Region::generate(Size::Small, 42);
        assert!((2900..3200).contains(&region.parcels.len()), "{}", region.parcels.len());
        let plane = Plane::of(region.bounds);
        let hectares = |parcel: &Parcel| -> f64 {
            let ring = |r: &Vec<Point>| outline::area(&r.iter().map(|&p| plane.metres(p)).collect::<Ring>());
            parcel.polygons.iter().flat_map(|p| &p.rings).map(ring).sum::<f64>() / 1e4
        };
        for parcel in &region.parcels {
            assert!((0.25..16.5).contains(&hectares(parcel)), "{} has {} ha", parcel.id, hectares(parcel));
        }
        let [w, s, e, n] = region.bounds;
        let points = || region.parcels.iter().flat_map(|p| &p.polygons).flat_map(|p| &p.rings).flatten();
        assert!(points().all(|p| p[0] > w && p[0] < e && p[1] > s && p[1] < n));
        let count = |class| region.parcels.iter().filter(|p| p.class() == class).count();
        assert!((1..=8).all(|class| count(class) >= 8), "{:?}", (0..=8).map(count).collect::<Vec<_>>());
        assert!(count(7) < 90 && count(1) > 250 && count(5) > 500);
        assert!(region.parcels.iter().any(|p| p.polygons.len() > 1));
        assert!(region.parcels.iter().any(|p| p.polygons[0].rings.len() > 1));
    }
}
