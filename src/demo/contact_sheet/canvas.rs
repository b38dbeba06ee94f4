//! A picture in memory: blocks, text and pasted tiles, written as PNG.
//!
//! Contract: drawing beyond the edge is cut off, never an error. Units: pixels from the top left corner.
//! Trap: the size is decided once; a sheet of 8 rows of 4 chips holds 1.3 million pixels.

use super::font;
use crate::demo::DemoError;
use gdal::DriverManager;
use gdal::errors::Result;
use gdal::raster::{Buffer, RasterCreationOptions};
use std::path::Path;

const PAPER: [u8; 3] = [24, 25, 28];

/// The picture.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![PAPER; width * height] }
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = colour;
        }
    }

    /// A filled rectangle.
    pub(super) fn block(&mut self, left: usize, top: usize, width: usize, height: usize, colour: [u8; 3]) {
        for i in 0..width * height {
            self.set(left + i % width, top + i / width, colour);
        }
    }

    /// One line of text.
    pub(super) fn text(&mut self, left: usize, top: usize, text: &str, colour: [u8; 3]) {
        for column in 0..text.chars().count() * font::ADVANCE {
            for row in 0..font::HEIGHT {
                if font::ink(text, column, row) {
                    self.set(left + column, top + row, colour);
                }
            }
        }
    }

    /// A tile of `width` columns, row by row.
    pub(super) fn picture(&mut self, left: usize, top: usize, width: usize, pixels: &[[u8; 3]]) {
        for (i, &pixel) in pixels.iter().enumerate() {
            self.set(left + i % width, top + i / width, pixel);
        }
    }

    pub(super) fn write_png(&self, path: &Path) -> std::result::Result<(), DemoError> {
        self.through_gdal(path).map_err(|e| DemoError::gdal(format!("writing {}", path.display()), e))
    }

    fn through_gdal(&self, path: &Path) -> Result<()> {
        let size = (self.width, self.height);
        let memory = DriverManager::get_driver_by_name("MEM")?;
        let dataset = memory.create_with_band_type::<u8, _>("", self.width, self.height, 3)?;
        for channel in 0..3 {
            let values = self.pixels.iter().map(|pixel| pixel[channel]).collect();
            dataset.rasterband(channel + 1)?.write((0, 0), size, &mut Buffer::<u8>::new(size, values))?;
        }
        let options = RasterCreationOptions::from_iter(["ZLEVEL=9"]);
        dataset.create_copy(&DriverManager::get_driver_by_name("PNG")?, path, &options)?.close()
    }
}
