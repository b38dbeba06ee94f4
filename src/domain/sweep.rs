//! The order in which cells are visited, so that an image block is finished with before it leaves a worker's cache.
//!
//! Contract: scenes are cut along the squares of the 100 km grid of a UTM zone (a Sentinel-2 tile has 109.8 km, its
//! corner on the grid). Cells are visited one column of such squares after the other, in a column season by season
//! (another season is another scene and shares nothing), and then from north to south in strips one 10 m block high,
//! alternately eastwards and westwards. Strips begin in the middle of a row of blocks, so that the chips of a strip lie in
//! two rows of blocks and not in three, and what has to stay in the cache is one row. Columns begin in the east of where
//! tiles overlap: west of that most chips come from the western tile, whose last blocks are then finished with.
//! Neighbours to the north and south overlap where the sweep passes them together, those to the east and west cost some
//! blocks a second fetch.
//! Units: metres of the zone; good to some metres, which is enough to tell blocks apart and not for anything else.
//! Trap: a chip where tiles overlap may come from either; the order then costs a fetch, never a chip.

use super::grid::Cell;

/// Edge of a square, metres.
pub const SQUARE_M: f64 = 100_000.0;

/// Edge of a block of a 10 m band, metres: 1024 pixels.
const BLOCK_M: f64 = 10_240.0;

/// How far east of a square's edge its column begins, metres. Tiles overlap by 9.8 km; half a cell west of the place chips
/// still come from the eastern one. Found by trying 0, 4.9, 7.2 and 9.8 km with chips of the most central tile and of the
/// least cloudy one.
const LAP_M: f64 = 7_200.0;

/// Columns of squares in a zone of six degrees, 668 km wide at the equator around 500 km.
const COLUMNS: i32 = 10;

/// Strips of a square: an even number, so that directions go on alternating in the next one.
const STRIPS: i32 = 10;

/// A place in the order of visits: what is compared first stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit {
    /// Column of squares, eastwards.
    column: i32,
    season: usize,
    /// Square in the column, southwards.
    square: i32,
    strip: i32,
    /// Block in the strip, counted in the strip's direction.
    block: i32,
    /// Within the block southwards, then eastwards.
    down: i32,
    across: i32,
}

impl Visit {
    /// The visit to a cell whose middle is at `lon`, `lat` (degrees) and whose scene is to come from the season
    /// numbered `season`.
    pub fn of(cell: Cell, lon: f64, lat: f64, season: usize) -> Self {
        let (zone, east, north) = utm(lon, lat);
        let east = east - LAP_M;
        let (column, square) = ((east / SQUARE_M).floor() as i32, (north / SQUARE_M).floor() as i32);
        let from_top = f64::from(square + 1) * SQUARE_M - north;
        let strip = ((from_top / BLOCK_M + 0.5) as i32).min(STRIPS - 1);
        let block = (east.rem_euclid(SQUARE_M) / BLOCK_M) as i32;
        Self {
            column: zone * COLUMNS + column,
            season,
            square: -square,
            strip,
            block: if strip % 2 == 0 { block } else { -block },
            down: -cell.iy,
            across: cell.ix,
        }
    }
}

/// Zone, easting and northing (metres, negative south of the equator) of a point in degrees, WGS 84.
///
/// Snyder, *Map Projections: A Working Manual* (USGS 1395), equations 8-9, 8-10 and 3-21, to the third and fourth order.
pub fn utm(lon: f64, lat: f64) -> (i32, f64, f64) {
    const A: f64 = 6_378_137.0;
    const E2: f64 = 0.006_694_379_990_14;
    const K0: f64 = 0.9996;
    let zone = (((lon + 180.0) / 6.0).floor() as i32).clamp(0, 59);
    let middle = f64::from(zone) * 6.0 - 177.0;
    let phi = lat.clamp(-84.0, 84.0).to_radians();
    let (sin, cos) = phi.sin_cos();
    let curvature = A / (1.0 - E2 * sin * sin).sqrt();
    let (t, c) = ((sin / cos).powi(2), E2 / (1.0 - E2) * cos * cos);
    let a = (lon - middle).to_radians() * cos;
    let arc = A
        * ((1.0 - E2 / 4.0 - 3.0 * E2 * E2 / 64.0) * phi - (3.0 * E2 / 8.0 + 3.0 * E2 * E2 / 32.0) * (2.0 * phi).sin()
            + (15.0 * E2 * E2 / 256.0) * (4.0 * phi).sin());
    let east = 500_000.0 + K0 * curvature * (a + (1.0 - t + c) * a.powi(3) / 6.0);
    let north =
        K0 * (arc + curvature * (sin / cos) * (a * a / 2.0 + (5.0 - t + 9.0 * c + 4.0 * c * c) * a.powi(4) / 24.0));
    (zone, east, north)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Against PROJ (zones counted from 0).
    #[test]
    fn the_projection_is_good_to_some_metres() {
        for (lon, lat, zone, east, north) in [
            (-3.7, 40.4, 29, 440_598.1, 4_472_390.0),
            (0.0, 0.0, 30, 166_021.4, 0.0),
            (5.9, 52.0, 30, 699_066.1, 5_765_009.6),
            (-66.2, -33.1, 18, 761_311.2, -3_665_861.6),
        ] {
            let (z, e, n) = utm(lon, lat);
            assert_eq!(z, zone);
            assert!((e - east).abs() < 20.0 && (n - north).abs() < 20.0, "{lon} {lat}: {e} {n}");
        }
    }

    /// Cells of 0.05 degrees around (-3.9, 40.0), which is about (423 km, 4428 km) of zone 30, and their visits.
    fn walk(seasons: usize) -> Vec<(Visit, [f64; 2])> {
        let mut visits = Vec::new();
        for ix in -10..60i32 {
            for iy in -25..25i32 {
                let [lon, lat] = [-4.1 + f64::from(ix) * 0.05, 40.2 + f64::from(iy) * 0.05];
                let season = (ix * 7 + iy * 3).unsigned_abs() as usize % seasons;
                visits.push((Visit::of(Cell { ix, iy }, lon, lat, season), [lon, lat]));
            }
        }
        visits.sort_unstable_by_key(|(visit, _)| *visit);
        visits
    }

    #[test]
    fn a_strip_is_finished_before_the_next_one_and_directions_alternate() {
        let walk = walk(1);
        let place = |lonlat: [f64; 2]| utm(lonlat[0], lonlat[1]);
        let blocks = |p: (i32, f64, f64)| [(p.1 / BLOCK_M).floor(), (p.2 / BLOCK_M).floor()];
        let mut far = 0;
        for pair in walk.windows(2).filter(|pair| pair[0].0.column == pair[1].0.column) {
            let (a, b) = (place(pair[0].1), place(pair[1].1));
            let ([ax, ay], [bx, by]) = (blocks(a), blocks(b));
            // A turn at the end of a strip is a step to a neighbour too.
            far += u32::from((ax - bx).abs() > 2.0 || (ay - by).abs() > 2.0);
        }
        let columns: std::collections::BTreeSet<i32> = walk.iter().map(|(v, _)| v.column).collect();
        assert!(columns.len() > 2, "the cells lie in several columns");
        // A new column is a leap, and strips that the edge of a square or of the region cuts short may begin elsewhere.
        assert!(far * 500 < walk.len() as u32, "{far} of {} steps", walk.len() - 1);
    }

    #[test]
    fn seasons_of_a_column_follow_each_other() {
        let order: Vec<(i32, usize)> = walk(3).iter().map(|(v, _)| (v.column, v.season)).collect();
        assert!(order.is_sorted());
        assert!(order.iter().any(|(_, season)| *season == 2));
    }
}
