//! Which scenes the demo has, and their files on disk.
//!
//! Contract: scene grids are cut from real tiles (origins are multiples of 20 m inside tiles 30TYM and 31TBG); every
//! season of 2023 has a date below 20 percent of clouds in each zone, spring also a cloudy one, and the clearest of
//! summer is cut off by the orbit's edge. Directories are those of the real bucket. Same region, same pixels, whatever the machine's cores.
//! Units: metres, percent. Trap: near longitude 0 both zones see the same ground, but each only about 1.4 km of the
//! other's side, as real neighbours overlap only partly.

use super::DemoError;
use super::cog::{self, Layout};
use super::dark::Underflow;
use super::item::{self, BANDS, Description};
use super::labels::{self, Labels};
use super::noise::mix2;
use super::paint::{self, Painter, Picture};
use super::region::{Region, Size};
use super::sky::Sky;
use crate::domain::scene::PixelGrid;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The directory below the scenes' root that holds everything written here.
pub(super) const BUCKET: &str = "sentinel-s2-l2a-cogs";
/// Ground around the parcels: half a chip and some more.
const MARGIN: f64 = 1_400.0;

/// A tile, or the part of it that the region needs.
struct Frame {
    zone: u32,
    square: &'static str,
    grid: PixelGrid,
}

impl Frame {
    fn epsg(&self) -> u32 {
        32600 + self.zone
    }
}

/// One date over all frames.
struct Date {
    date: &'static str,
    day: f32,
    satellite: char,
    /// Percent of clouds asked for in zone 30 and zone 31.
    clouds: [f64; 2],
    /// Where the orbit ends, as a share of the width.
    orbit_edge: Option<f64>,
    layout: Layout,
    /// Offset left in the pixels.
    raw: bool,
    /// With troubles, the item denies that the offset was removed, although it was.
    falsely_flagged: bool,
    /// With troubles, what the archive made of deep shade.
    underflow: Option<Underflow>,
}

const fn date(date: &'static str, day: f32, satellite: char, clouds: [f64; 2], layout: Layout) -> Date {
    let (orbit_edge, underflow) = (None, None);
    Date { date, day, satellite, clouds, orbit_edge, layout, raw: false, falsely_flagged: false, underflow }
}

static DATES: [Date; 6] = [
    date("2023-02-14", 45.0, 'A', [3.0, 8.0], Layout::Classic),
    Date { falsely_flagged: true, ..date("2023-04-25", 115.0, 'B', [0.0, 2.0], Layout::Cog(512)) },
    date("2023-05-15", 135.0, 'B', [35.0, 55.0], Layout::Cog(256)),
    date("2023-07-24", 205.0, 'A', [3.0, 2.0], Layout::Cog(512)),
    Date { orbit_edge: Some(0.66), ..date("2023-08-13", 225.0, 'A', [0.0, 1.0], Layout::Cog(256)) },
    Date { underflow: Some(Underflow::Wrapped), ..date("2023-10-12", 285.0, 'B', [12.0, 17.0], Layout::Classic) },
];

/// Added by the troubles: DNs still hold the offset, those of deep shade lie below it, and the item says so.
static RAW_DATE: Date = Date {
    raw: true,
    underflow: Some(Underflow::Kept),
    ..date("2023-06-14", 165.0, 'B', [0.0, 0.0], Layout::Cog(512))
};

/// Writes all scenes of a region below `root` and returns how many items there are.
///
/// With `troubles` there are also a second item of one acquisition (`_1_`), a scene whose DNs still hold the offset of
/// 1000 (and deep shade below it) beside one whose item only says so, a scene whose archive wrapped deep shade around zero,
/// and an item without asset `rededge2`. `progress` hears one line per scene.
///
/// # Errors
/// [`DemoError::Io`] and [`DemoError::Gdal`] name the file.
pub fn generate(
    region: &Region,
    size: Size,
    root: &Path,
    troubles: bool,
    progress: &dyn Fn(&str),
) -> Result<usize, DemoError> {
    let mut items = 0;
    for (index, frame) in frames(size)?.iter().enumerate() {
        let labels = Labels::draw(region, frame.epsg(), &frame.grid)?;
        let raw = troubles.then_some(&RAW_DATE);
        for date in dates(size).chain(raw) {
            let scene = Scene { region, frame, labels: &labels, date, clouds: date.clouds[index], root };
            let (id, written) = scene.write(troubles)?;
            progress(&format!("scene {id}"));
            items += written;
        }
    }
    Ok(items)
}

/// The full size (1.3 GB of pixels per date) and the tiny one have one usable date per season.
fn dates(size: Size) -> impl Iterator<Item = &'static Date> {
    DATES.iter().filter(move |date| match size {
        Size::Small => true,
        Size::Tiny | Size::Full => date.clouds[0] < 20.0 && date.orbit_edge.is_none(),
    })
}

fn frames(size: Size) -> Result<Vec<Frame>, DemoError> {
    let [w, s, e, n] = size.bounds();
    match size {
        Size::Tiny | Size::Small => Ok(vec![
            Frame { zone: 30, square: "YM", grid: around(32630, [w, s, 0.0, n])? },
            Frame { zone: 31, square: "BG", grid: around(32631, [0.0, s, e, n])? },
        ]),
        Size::Full => {
            let grid = PixelGrid { x0: 699_960.0, y0: 4_700_040.0, res: 10.0, width: 10_980, height: 10_980 };
            Ok(vec![Frame { zone: 30, square: "YM", grid }])
        }
    }
}

/// The 10 m grid around a box in degrees with a margin, on multiples of 20 m.
fn around(epsg: u32, [w, s, e, n]: [f64; 4]) -> Result<PixelGrid, DemoError> {
    let (x, y) = ((w + e) / 2.0, (s + n) / 2.0);
    let rim = [[w, s], [x, s], [e, s], [w, y], [e, y], [w, n], [x, n], [e, n]];
    let rim = labels::project(&labels::transform(4326, epsg)?, &rim)?;
    let low = |axis: usize| rim.iter().map(|p| p[axis]).fold(f64::INFINITY, f64::min) - MARGIN;
    let high = |axis: usize| rim.iter().map(|p| p[axis]).fold(f64::NEG_INFINITY, f64::max) + MARGIN;
    let down = |metres: f64| (metres / 20.0).floor() * 20.0;
    let up = |metres: f64| (metres / 20.0).ceil() * 20.0;
    let (x0, y0) = (down(low(0)), up(high(1)));
    let (width, height) = (((up(high(0)) - x0) / 10.0) as u32, ((y0 - down(low(1))) / 10.0) as u32);
    Ok(PixelGrid { x0, y0, res: 10.0, width, height })
}

/// One date of one frame.
struct Scene<'a> {
    region: &'a Region,
    frame: &'a Frame,
    labels: &'a Labels,
    date: &'a Date,
    clouds: f64,
    root: &'a Path,
}

impl Scene<'_> {
    /// Writes the files and the item (or, in trouble, items); returns the id and how many items.
    fn write(&self, troubles: bool) -> Result<(String, usize), DemoError> {
        let seed = mix2(mix2(self.region.seed, self.frame.zone.into()), self.date.day as u64);
        let sky = Sky::new(seed, self.clouds, self.date.orbit_edge, self.frame.grid);
        let footprint = item::footprint(&sky, self.frame.epsg())?;
        let picture = self.paint(seed, sky, troubles)?;
        let mut scene = self.describe(footprint, &picture.scl, troubles);
        let dir = self.dir(&scene.id());
        std::fs::create_dir_all(&dir).map_err(|e| DemoError::io(&dir, e))?;
        self.write_item(&scene, scene.json())?;
        let id = scene.id();
        let mut items = 1;
        if troubles && self.date.date == "2023-04-25" {
            (scene.sequence, scene.files) = (1, format!("../{id}"));
            self.write_item(&scene, scene.json())?;
            items += 1;
        }
        if troubles && self.date.date == "2023-07-24" {
            (scene.date, scene.files) = ("2023-07-29", format!("../{id}"));
            let mut json = scene.json();
            json["assets"].as_object_mut().map(|assets| assets.remove("rededge2"));
            self.write_item(&scene, json)?;
            items += 1;
        }
        self.write_bands(&dir, picture)?;
        Ok((id, items))
    }

    fn paint(&self, seed: u64, sky: Sky, troubles: bool) -> Result<Picture, DemoError> {
        let grid = self.frame.grid;
        let (right, bottom) = (grid.x0 + f64::from(grid.width) * 10.0, grid.y0 - f64::from(grid.height) * 10.0);
        let corners = [[grid.x0, grid.y0], [right, grid.y0], [grid.x0, bottom]];
        let degrees = labels::project(&labels::transform(self.frame.epsg(), 4258)?, &corners)?;
        let to_plane = paint::plane_map(self.region, corners, [degrees[0], degrees[1], degrees[2]]);
        let offset = if self.date.raw { 1000.0 } else { 0.0 };
        let (region, labels, day) = (self.region, self.labels, self.date.day);
        let underflow = self.date.underflow.filter(|_| troubles);
        Ok(Painter { region, labels, grid, to_plane, day, sky, offset, underflow, noise: seed }.paint())
    }

    fn describe<'a>(&'a self, footprint: Vec<[f64; 2]>, scl: &'a [u8], troubles: bool) -> Description<'a> {
        Description {
            zone: self.frame.zone,
            square: self.frame.square,
            satellite: self.date.satellite,
            date: self.date.date,
            sequence: 0,
            boa_offset_applied: !(self.date.raw || troubles && self.date.falsely_flagged),
            grid: self.frame.grid,
            footprint,
            scl,
            files: ".".to_owned(),
        }
    }

    /// The real bucket's path: zone / band / square / year / month / id.
    fn dir(&self, id: &str) -> PathBuf {
        let month = self.date.date[5..7].trim_start_matches('0');
        let tile = format!("{}/T/{}/2023/{month}/{id}", self.frame.zone, self.frame.square);
        self.root.join(BUCKET).join(tile)
    }

    fn write_item(&self, scene: &Description<'_>, json: Value) -> Result<(), DemoError> {
        let dir = self.dir(&scene.id());
        std::fs::create_dir_all(&dir).map_err(|e| DemoError::io(&dir, e))?;
        let path = dir.join(format!("{}.json", scene.id()));
        std::fs::write(&path, json.to_string()).map_err(|e| DemoError::io(&path, e))
    }

    fn write_bands(&self, dir: &Path, picture: Picture) -> Result<(), DemoError> {
        let (epsg, layout) = (self.frame.epsg(), self.date.layout);
        let fine = self.frame.grid;
        let coarse = PixelGrid { res: 20.0, width: fine.width / 2, height: fine.height / 2, ..fine };
        let grid = |res| if res == 10 { fine } else { coarse };
        BANDS.par_iter().zip(picture.bands).try_for_each(|(band, values)| {
            cog::write(&dir.join(format!("{}.tif", band.file)), layout, epsg, &grid(band.res), values)
        })?;
        cog::write(&dir.join("SCL.tif"), layout, epsg, &coarse, picture.scl)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn grids_lie_on_their_tiles() {
        for size in [Size::Small, Size::Full] {
            for frame in frames(size).unwrap() {
                let left = if frame.zone == 30 { 699_960.0 } else { 199_980.0 };
                let PixelGrid { x0, y0, width, height, .. } = frame.grid;
                assert!(x0 % 20.0 == 0.0 && y0 % 20.0 == 0.0 && width % 2 == 0 && height % 2 == 0);
                assert!(x0 >= left && x0 + f64::from(width) * 10.0 <= left + 109_800.0);
                assert!(y0 <= 4_700_040.0 && y0 - f64::from(height) * 10.0 >= 4_590_240.0);
                assert!(size == Size::Full || (width < 2300 && height < 2300));
            }
        }
    }

    #[test]
    fn every_parcel_has_room_for_a_whole_chip_in_its_zone() {
        for size in [Size::Tiny, Size::Small] {
            let frames = frames(size).unwrap();
            let region = Region::generate(size, 42);
            for frame in &frames {
                let own = |lon: f64| (lon < 0.0) == (frame.zone == 30);
                let points: Vec<_> = region.parcels.iter().flat_map(|p| &p.polygons[0].rings[0]).copied().collect();
                let points: Vec<_> = points.into_iter().filter(|p| own(p[0])).collect();
                let transform = labels::transform(4258, frame.epsg()).unwrap();
                let PixelGrid { x0, y0, width, height, .. } = frame.grid;
                let (right, bottom) = (x0 + f64::from(width) * 10.0, y0 - f64::from(height) * 10.0);
                for [x, y] in labels::project(&transform, &points).unwrap() {
                    assert!(x - 1290.0 > x0 && x + 1290.0 < right && y + 1290.0 < y0 && y - 1290.0 > bottom);
                }
            }
        }
    }
}
