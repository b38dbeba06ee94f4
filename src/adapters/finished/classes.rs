//! What the chips hold of each class: `classes.csv`, the split's lists, and the pixel counts that weights come from.
//!
//! Contract: chips count by the class of their centre parcel, pixels by the mask. Lists are stems in order of run, task
//! and chip, one a line.
//! Memory: the lists are written as they come; counts are 256 x 4 numbers.

use std::fmt::Write as _;
use std::io::Write as _;

use super::FinishError;
use super::publish::{Draft, Publication};
use crate::domain::class_table::ClassTable;
use crate::domain::manifest::ChipRecord;
use crate::domain::split::Split;

/// Name of the table of classes.
pub const CSV: &str = "classes.csv";

const SPLITS: [Split; 4] = [Split::Train, Split::Val, Split::Test, Split::Buffer];

/// Chips and pixels of each mask value, by split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    chips: Vec<[u64; 4]>,
    pixels: Vec<[u64; 4]>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { chips: vec![[0; 4]; 256], pixels: vec![[0; 4]; 256] }
    }
}

impl Counts {
    /// Counts a chip.
    pub fn add(&mut self, chip: &ChipRecord, split: Split) {
        self.chips[usize::from(chip.class.get())][split as usize] += 1;
        for (value, n) in &chip.pixels {
            self.pixels[usize::from(*value)][split as usize] += u64::from(*n);
        }
    }

    /// Pixels of each mask value that occurs in chips of a split.
    pub fn pixels(&self, split: Split) -> Vec<(u8, u64)> {
        let all = (0..=255u8).map(|value| (value, self.pixels[usize::from(value)][split as usize]));
        all.filter(|(_, n)| *n > 0).collect()
    }

    /// `classes.csv`: background, then every class of the classes file.
    pub fn csv(&self, classes: &ClassTable) -> String {
        let mut out = String::from("class,name,colour");
        for kind in ["chips", "pixels"] {
            for split in SPLITS {
                // Writing to a String cannot fail.
                let _ = write!(out, ",{kind}_{}", split.as_str());
            }
        }
        out.push('\n');
        let mut row = |value: u8, name: &str, [r, g, b]: [u8; 3]| {
            let _ = write!(out, "{value},{name},#{r:02x}{g:02x}{b:02x}");
            for n in self.chips[usize::from(value)].iter().chain(&self.pixels[usize::from(value)]) {
                let _ = write!(out, ",{n}");
            }
            out.push('\n');
        };
        row(0, "background", [0; 3]);
        for (class, info) in classes.classes() {
            row(class.get(), &info.name, info.colour);
        }
        if self.pixels[255].iter().any(|n| *n > 0) {
            row(255, "unlabelled", [0; 3]);
        }
        out
    }
}

/// Name of a split's list.
pub fn list_name(split: Split) -> String {
    format!("{}.txt", split.as_str())
}

/// The three lists being written.
pub struct Lists([(Split, Draft); 3]);

impl Lists {
    /// Begins them.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(to: &Publication) -> Result<Self, FinishError> {
        let [train, val, test] = Split::USED.map(|split| to.draft(&list_name(split)).map(|draft| (split, draft)));
        Ok(Self([train?, val?, test?]))
    }

    /// Adds a chip to the list of its split; one in the buffer is in none.
    ///
    /// # Errors
    /// As the system says.
    pub fn add(&mut self, name: &str, split: Split) -> Result<(), FinishError> {
        let Some((_, draft)) = self.0.iter_mut().find(|(of, _)| *of == split) else { return Ok(()) };
        writeln!(draft, "{name}").map_err(FinishError::io("writing", std::path::Path::new(&list_name(split))))
    }

    /// Ends them.
    ///
    /// # Errors
    /// As the system says.
    pub fn end(self, to: &mut Publication) -> Result<(), FinishError> {
        self.0.into_iter().try_for_each(|(_, draft)| to.close(draft))
    }
}
