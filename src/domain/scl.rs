//! Which pixels of a chip are bad, by the scene classification map (SCL) that comes with every L2A product.
//!
//! Source: Sentinel-2 L2A processor, classes 0 nodata, 1 saturated, 2 dark, 3 cloud shadow, 4 vegetation, 5 bare soil,
//! 6 water, 7 unclassified, 8 and 9 cloud (medium, high probability), 10 thin cirrus, 11 snow. Units: shares of the
//! pixels, 0 to 1. Contract: a class above 11 is bad, because nobody knows what it means.
//! Trap: 5 and 7 are what fallow and freshly ploughed land are called: calling them bad loses whole crops.

use super::count::count_u8;

/// Classes there are.
pub const CLASSES: u8 = 12;

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadClasses(u16);

/// What a look at a chip's classes found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Share of bad pixels.
    pub bad: f64,
    /// Share of pixels that are nodata (class 0), bad or not.
    pub nodata: f64,
}

impl BadClasses {
    /// The set of these classes; numbers above 11 are in every set.
    pub fn new(classes: impl IntoIterator<Item = u8>) -> Self {
        Self(classes.into_iter().filter(|c| *c < CLASSES).fold(0, |set, c| set | 1 << c))
    }

    /// Whether a class is bad.
    pub fn holds(self, class: u16) -> bool {
        class >= u16::from(CLASSES) || self.0 & (1 << class) != 0
    }

    /// Counts a chip's classes, (rows, cols) in rows of `width`. Where a 20 m classification lies on a 10 m grid, rows come
    /// twice, and each pair is counted once.
    pub fn look(self, classes: &[u16], width: usize) -> Seen {
        let (mut pairs, mut single) = (Vec::with_capacity(classes.len() / 2 + width), Vec::new());
        let mut rows = classes.chunks(width.max(1)).peekable();
        while let Some(row) = rows.next() {
            let twice = rows.next_if(|next| *next == row).is_some();
            // All above the last class are one.
            let narrow = row.iter().map(|class| (*class).min(u16::from(CLASSES)) as u8);
            if twice { &mut pairs } else { &mut single }.extend(narrow);
        }
        let count = |class| 2 * count_u8(&pairs, class) + count_u8(&single, class);
        let nodata = count(0);
        let bad = (0..=CLASSES).filter(|class| self.holds(u16::from(*class)));
        let bad: u32 = bad.map(|class| if class == 0 { nodata } else { count(class) }).sum();
        let all = classes.len().max(1) as f64;
        Seen { bad: f64::from(bad) / all, nodata: f64::from(nodata) / all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_and_unknown_classes_are_bad() {
        let usual = BadClasses::new([0, 1, 3, 8, 9, 10, 11]);
        let seen = usual.look(&[0, 0, 4, 5, 7, 2, 9, 10, 77, 6], 10);
        assert_eq!(seen, Seen { bad: 0.5, nodata: 0.2 });
        assert_eq!(BadClasses::new([]).look(&[0, 1, 9, 11], 2), Seen { bad: 0.0, nodata: 0.25 });
        assert_eq!(usual.look(&[8, 8, 8, 8, 4, 4, 4, 4, 99, 99], 4), Seen { bad: 0.6, nodata: 0.0 });
        assert_eq!(usual.look(&[], 3), Seen { bad: 0.0, nodata: 0.0 });
        // Rows that come once, twice and three times.
        let rows = [[8, 4], [8, 4], [8, 4], [0, 0], [5, 99], [5, 99]].concat();
        assert_eq!(usual.look(&rows, 2), Seen { bad: 7.0 / 12.0, nodata: 2.0 / 12.0 });
        assert!((0..12).all(|c| usual.holds(c) == [0, 1, 3, 8, 9, 10, 11].contains(&c)));
    }
}
