//! Blocks of land, the units a spatial split is made of.
//!
//! Contract: a function of longitude, latitude and the edge alone; worldwide, without seams at UTM zones or at the
//! antimeridian. Rows are bands of latitude one edge high, counted northwards from the equator; each row is cut into
//! the whole number of equal columns that comes nearest to square, counted eastwards from -180. So blocks of a row
//! have equal areas and no block is more distorted than any other, which no single projected CRS offers (EPSG:6933
//! stretches squares at 60 degrees to three times their width, EPSG:3035 ends with Europe).
//! Units: kilometres on the sphere of mean radius; degrees for places.
//! Trap: the number of columns changes from row to row, so blocks of neighbouring rows do not line up.

use super::sampling::splitmix64;

/// Mean radius of the Earth, km (IUGG).
const RADIUS_KM: f64 = 6371.0088;

/// A block: row from the equator, column from -180 degrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Row, negative in the south.
    pub row: i32,
    /// Column, from 0.
    pub column: i32,
}

impl Block {
    /// A number in `[0, 1)` that belongs to this block in splits of this seed: the top 53 bits of a hash.
    pub fn hash01(self, seed: u64) -> f64 {
        let place = (u64::from(self.row.cast_unsigned()) << 32) | u64::from(self.column.cast_unsigned());
        let bits = splitmix64(seed ^ splitmix64(place)) >> 11;
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = if self.row < 0 { 's' } else { 'n' };
        write!(f, "{side}{}_{}", self.row.unsigned_abs(), self.column)
    }
}

/// The division of the globe into blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blocks {
    edge_km: f64,
}

impl Blocks {
    /// Blocks with an edge of about `edge_km`, which must be positive.
    pub fn new(edge_km: f64) -> Self {
        Self { edge_km }
    }

    /// The block of a place in degrees.
    pub fn at(&self, [lon, lat]: [f64; 2]) -> Block {
        let height = (self.edge_km / RADIUS_KM).to_degrees();
        let row = (lat / height).floor();
        let middle = ((row + 0.5) * height).clamp(-90.0, 90.0).to_radians();
        let columns = (std::f64::consts::TAU * RADIUS_KM * middle.cos() / self.edge_km).round().max(1.0);
        let turn = (lon + 180.0).rem_euclid(360.0) / 360.0;
        Block { row: row as i32, column: (turn * columns).floor().min(columns - 1.0) as i32 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Width of a block in km, found by walking east until the block changes.
    fn width_km(blocks: Blocks, lat: f64) -> f64 {
        let here = blocks.at([0.0, lat]);
        let edges: Vec<f64> = (0..400_000)
            .map(|i| f64::from(i) * 1e-5)
            .filter(|lon| blocks.at([*lon, lat]) != blocks.at([*lon - 1e-5, lat]) && blocks.at([*lon, lat]) != here)
            .take(2)
            .collect();
        (edges[1] - edges[0]).to_radians() * RADIUS_KM * lat.to_radians().cos()
    }

    #[test]
    fn blocks_are_nearly_square_at_every_latitude() {
        for lat in [0.5, 28.0, 41.6, -41.6, 60.0, 68.0] {
            let width = width_km(Blocks::new(20.0), lat);
            assert!((width / 20.0 - 1.0).abs() < 0.02, "{width} km at {lat}");
        }
    }

    #[test]
    fn the_antimeridian_is_no_seam() {
        let blocks = Blocks::new(20.0);
        assert_eq!(blocks.at([180.0, 10.0]), blocks.at([-180.0, 10.0]));
        assert_ne!(blocks.at([179.999, 10.0]), blocks.at([-179.999, 10.0]), "its edge is an edge like any other");
        assert_eq!(blocks.at([0.0, 90.0]).row, blocks.at([0.0, 89.99]).row);
    }

    #[test]
    fn shares_come_out_near_the_chance() {
        let all = (-100..100).flat_map(|row| (0..100).map(move |column| Block { row, column }));
        let below = all.filter(|b| b.hash01(7) < 0.15).count();
        assert!((2800..3200).contains(&below), "{below} of 20000");
    }

    #[test]
    fn names_tell_north_from_south() {
        assert_eq!(Block { row: 231, column: 749 }.to_string(), "n231_749");
        assert_eq!(Block { row: -1, column: 0 }.to_string(), "s1_0");
    }

    proptest! {
        #[test]
        fn every_place_has_one_block_of_its_size(lon in -180.0..180.0f64, lat in -89.0..89.0f64, km in 0.5..500.0f64) {
            let blocks = Blocks::new(km);
            let height = (km / RADIUS_KM).to_degrees();
            let block = blocks.at([lon, lat]);
            prop_assert!(f64::from(block.row) * height <= lat + 1e-9 && lat <= f64::from(block.row + 1) * height + 1e-9);
            prop_assert!(block.column >= 0);
        }
    }
}
