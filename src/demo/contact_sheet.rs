//! One PNG that shows a dataset: a row per class, chips in true colour beside their coloured masks.
//!
//! Contract: a chip belongs to the row of the class under its centre, as chips are centred on a parcel of their class.
//! Which chips are shown depends on their names alone; files are only read. Units: pixels; bands B04, B03, B02.
//! Trap: at most 4000 masks are opened, so in a vast dataset a very rare class may find no chip.

mod canvas;
mod font;

use super::DemoError;
use super::crops::ClassStyle;
use super::noise::mix;
use canvas::Canvas;
use gdal::raster::ResampleAlg;
use gdal::{Dataset, Metadata};
use std::path::{Path, PathBuf};

/// Edge of a picture on the sheet.
const TILE: usize = 128;
/// Space between pictures and around the sheet.
const GAP: usize = 8;
/// Room for one line of text.
const LINE: usize = font::HEIGHT + 5;
/// Masks opened while looking for chips.
const MAX_MASKS: usize = 4_000;
const INK: [u8; 3] = [225, 225, 225];
const FAINT: [u8; 3] = [140, 140, 140];
const BACKGROUND: [u8; 3] = [44, 46, 50];
const UNLABELLED: [u8; 3] = [90, 90, 90];

/// What is on a sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Chips in the dataset.
    pub chips: usize,
    /// Chips shown, per row of the sheet.
    pub shown: Vec<usize>,
}

/// A chip chosen for a row.
struct Chip {
    name: String,
    image: Vec<[u8; 3]>,
    mask: Vec<u8>,
}

/// Writes the contact sheet of `dataset` (with `images/*.tif` and `masks/*.tif` of the same names) to `png`, up to
/// `per_class` chips for each style, in the styles' order.
///
/// # Errors
/// [`DemoError::Content`] if there is no chip; [`DemoError::Io`], [`DemoError::Gdal`] name the file that could not be
/// read or written.
pub fn write(dataset: &Path, styles: &[ClassStyle<'_>], per_class: usize, png: &Path) -> Result<Sheet, DemoError> {
    let names = names(&dataset.join("images"))?;
    if names.is_empty() {
        return Err(DemoError::content(dataset.join("images"), "holds no chip (*.tif), so there is nothing to show"));
    }
    let rows = choose(dataset, &names, styles, per_class)?;
    let row_height = LINE + TILE + LINE + GAP;
    let width = GAP + per_class.max(1) * (2 * TILE + GAP);
    let mut canvas = Canvas::new(width, 2 * GAP + LINE + row_height * styles.len());
    let title = format!("{} chips: image (B04, B03, B02; 2-98 % stretch) and mask", names.len());
    canvas.text(GAP, GAP, &title, INK);
    for (index, (style, chips)) in styles.iter().zip(&rows).enumerate() {
        let top = GAP + LINE + GAP + index * row_height;
        canvas.block(GAP, top, 10, font::HEIGHT, style.colour);
        let label = format!("{} {}", style.class, style.name);
        canvas.text(GAP + 16, top, &label, INK);
        if chips.is_empty() {
            canvas.text(GAP + 16, top + LINE + GAP, "no chip of this class", FAINT);
        }
        for (place, chip) in chips.iter().enumerate() {
            let left = GAP + place * (2 * TILE + GAP);
            canvas.picture(left, top + LINE, TILE, &chip.image);
            let coloured: Vec<[u8; 3]> = chip.mask.iter().map(|&value| colour(value, styles)).collect();
            canvas.picture(left + TILE, top + LINE, TILE, &coloured);
            let fits: String = chip.name.chars().take((2 * TILE) / font::ADVANCE).collect();
            canvas.text(left, top + LINE + TILE + 3, &fits, FAINT);
        }
    }
    canvas.write_png(png)?;
    Ok(Sheet { chips: names.len(), shown: rows.iter().map(Vec::len).collect() })
}

/// Stems of all TIFFs of a directory, in name order.
fn names(dir: &Path) -> Result<Vec<String>, DemoError> {
    let listing = std::fs::read_dir(dir).map_err(|e| DemoError::io(dir, e))?;
    let mut names = Vec::new();
    for entry in listing {
        let path = entry.map_err(|e| DemoError::io(dir, e))?.path();
        if path.extension().is_some_and(|e| e == "tif")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Fills the rows, looking at chips in the order of their names' hashes: a fair and repeatable draw.
fn choose(
    dataset: &Path,
    names: &[String],
    styles: &[ClassStyle<'_>],
    per_class: usize,
) -> Result<Vec<Vec<Chip>>, DemoError> {
    let mut drawn: Vec<&String> = names.iter().collect();
    drawn.sort_by_key(|name| (name.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte))), *name));
    let mut rows: Vec<Vec<Chip>> = styles.iter().map(|_| Vec::new()).collect();
    for name in drawn.into_iter().take(MAX_MASKS) {
        if rows.iter().all(|row| row.len() >= per_class) {
            break;
        }
        let file = |room: &str| dataset.join(room).join(format!("{name}.tif"));
        let (class, mask) = read_mask(&file("masks"))?;
        let row = styles.iter().position(|style| style.class == class);
        if let Some(row) = row.filter(|&row| rows[row].len() < per_class) {
            let image = read_image(&file("images"))?;
            rows[row].push(Chip { name: name.clone(), image, mask });
        }
    }
    rows.iter_mut().for_each(|row| row.sort_by(|a, b| a.name.cmp(&b.name)));
    Ok(rows)
}

/// The class under the centre, and the mask at the sheet's scale.
fn read_mask(path: &PathBuf) -> Result<(u8, Vec<u8>), DemoError> {
    let read = || {
        let dataset = Dataset::open(path)?;
        let (band, (width, height)) = (dataset.rasterband(1)?, dataset.raster_size());
        let centre = band.read_as::<u8>(((width / 2) as isize, (height / 2) as isize), (1, 1), (1, 1), None)?;
        let nearest = Some(ResampleAlg::NearestNeighbour);
        let small = band.read_as::<u8>((0, 0), (width, height), (TILE, TILE), nearest)?;
        Ok((centre.data()[0], small.into_shape_and_vec().1))
    };
    read().map_err(|e| DemoError::gdal(format!("reading {}", path.display()), e))
}

/// Red, green and blue at the sheet's scale, stretched between the 2nd and 98th percentile of all three.
fn read_image(path: &PathBuf) -> Result<Vec<[u8; 3]>, DemoError> {
    let read = || {
        let dataset = Dataset::open(path)?;
        let size = dataset.raster_size();
        let band = |name: &str, usual: usize| {
            let named = |i: &usize| dataset.rasterband(*i).is_ok_and(|b| b.description().is_ok_and(|d| d == name));
            let index = (1..=dataset.raster_count()).find(named).unwrap_or(usual);
            let average = Some(ResampleAlg::Average);
            dataset.rasterband(index)?.read_as::<u16>((0, 0), size, (TILE, TILE), average)
        };
        Ok([band("B04", 3)?, band("B03", 2)?, band("B02", 1)?].map(|b| b.into_shape_and_vec().1))
    };
    let bands = read().map_err(|e| DemoError::gdal(format!("reading {}", path.display()), e))?;
    Ok(stretch(&bands))
}

fn stretch(bands: &[Vec<u16>; 3]) -> Vec<[u8; 3]> {
    let mut valid: Vec<u16> = bands.iter().flatten().copied().filter(|&dn| dn > 0).collect();
    valid.sort_unstable();
    let at = |share: f64| valid.get((share * valid.len() as f64) as usize).map_or(0.0, |&dn| f64::from(dn));
    let (low, high) = (at(0.02), at(0.98));
    let grey = |dn: u16| ((f64::from(dn) - low) / (high - low).max(1.0) * 255.0).clamp(0.0, 255.0) as u8;
    (0..bands[0].len()).map(|i| [grey(bands[0][i]), grey(bands[1][i]), grey(bands[2][i])]).collect()
}

fn colour(value: u8, styles: &[ClassStyle<'_>]) -> [u8; 3] {
    match styles.iter().find(|style| style.class == value) {
        Some(style) => style.colour,
        None if value == 0 => BACKGROUND,
        None => UNLABELLED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretch_ignores_nodata_and_outliers() {
        let mut red: Vec<u16> = (1000..2000).collect();
        red[0] = 0;
        red[999] = 60_000;
        let out = stretch(&[red.clone(), red.clone(), red]);
        assert_eq!((out[0][0], out[999][1]), (0, 255));
        assert!((i32::from(out[500][2]) - 127).abs() < 4);
        assert_eq!(stretch(&[vec![0], vec![0], vec![0]]), [[0, 0, 0]]);
    }
}
