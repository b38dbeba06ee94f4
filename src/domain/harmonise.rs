//! Making the digital numbers (DN) of all scenes mean the same: reflectance = DN / 10,000.
//!
//! Since processing baseline 04.00 (25 January 2022) an L2A product holds reflectance x 10,000 + 1000. Some archives took
//! the 1000 out again and say so, some say so of a part only, some not at all. Rule of [`decide`], first line that fits:
//!
//! | what is known | result | word |
//! |---|---|---|
//! | the mode is `none` | unchanged | `off` |
//! | the item says that the offset was removed | unchanged | `flag` |
//! | baseline below 04.00 | unchanged | `baseline` |
//! | dark land in the scene is below 1000 | unchanged | `pixels` |
//! | dark land is at or above 1000 | 1000 subtracted | `pixels` |
//! | nobody could look (mode `stac`, or no land): baseline 04.00 or later | 1000 subtracted | `stated` |
//! | nor is the baseline known | unchanged | `unknown` |
//!
//! "Dark land" is the DN below which [`DARK`] of the land pixels of the blue band lie: vegetation and wet soil reflect
//! 2 to 5 % there, so 200 to 500, or 1200 to 1500 with the offset. Contract: pure. A DN of 0 is nodata and stays 0, any
//! other stays at least 1, so that a dark pixel never becomes nodata.
//! Trap: without the land mask clouds lift and dark water sinks the percentile; both lead astray.

use super::scene::Scene;

/// What is subtracted where the offset is still there.
pub const OFFSET: u16 = 1000;

/// Share of the land pixels that are called dark.
pub const DARK: f64 = 0.01;

/// Fewer land pixels than this say nothing.
pub const LEAST_LAND: usize = 500;

/// DN above which no land, cloud or snow reflects: such a pixel is saturated, or its offset was subtracted below zero
/// and it wrapped around (seen in real archives: 64,000 to 65,535).
pub const SUSPECT: u16 = 20_000;

/// Whom to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The item, and where it is not to be trusted the pixels.
    Auto,
    /// The item alone.
    Stac,
    /// Nobody: DNs stay as they are.
    None,
}

/// What is done with a scene's DNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Subtracted from every DN above 0.
    pub subtract: u16,
    /// Why, in one word.
    pub rule: &'static str,
}

impl Offset {
    const fn unchanged(rule: &'static str) -> Self {
        Self { subtract: 0, rule }
    }

    /// One DN, harmonised.
    pub fn apply(self, dn: u16) -> u16 {
        if dn == 0 { 0 } else { dn.saturating_sub(self.subtract).max(1) }
    }

    /// All DNs, harmonised in place.
    pub fn subtract_from(self, pixels: &mut [u16]) {
        if self.subtract > 0 {
            pixels.iter_mut().for_each(|dn| *dn = self.apply(*dn));
        }
    }
}

/// What the item alone settles; `None`: the pixels are to be asked.
pub fn by_item(mode: Mode, scene: &Scene) -> Option<Offset> {
    let before = || baseline(scene).is_some_and(|b| b < 4.0);
    match mode {
        Mode::None => Some(Offset::unchanged("off")),
        _ if scene.boa_offset_applied == Some(true) => Some(Offset::unchanged("flag")),
        _ if before() => Some(Offset::unchanged("baseline")),
        Mode::Stac => Some(stated(scene)),
        Mode::Auto => None,
    }
}

/// What is done with a scene whose dark land has this DN; `None`: it could not be seen.
pub fn decide(mode: Mode, scene: &Scene, dark_land: Option<u16>) -> Offset {
    by_item(mode, scene).unwrap_or_else(|| match dark_land {
        Some(dn) if dn < OFFSET => Offset::unchanged("pixels"),
        Some(_) => Offset { subtract: OFFSET, rule: "pixels" },
        None => stated(scene),
    })
}

fn stated(scene: &Scene) -> Offset {
    match baseline(scene) {
        Some(b) if b >= 4.0 => Offset { subtract: OFFSET, rule: "stated" },
        _ => Offset::unchanged("unknown"),
    }
}

fn baseline(scene: &Scene) -> Option<f64> {
    scene.baseline.as_deref()?.trim().parse().ok().filter(|b: &f64| b.is_finite())
}

/// A pixel of an overview: where it lies, as shares of the scene's width and height, and its DN.
pub type Sample = (f64, f64, u16);

/// The DN of dark land: the value at place `floor(DARK * (n - 1))` of the sorted DNs of all land pixels with data. Land is
/// SCL 4 and 5; without a classification every pixel with data counts. `classes` is (rows, cols, values), row-major.
pub fn dark_land(samples: &[Sample], classes: Option<(u32, u32, &[u16])>) -> Option<u16> {
    let land = |x: f64, y: f64| match classes {
        None => true,
        Some((rows, cols, values)) => {
            let at = |share: f64, count: u32| ((share * f64::from(count)) as usize).min(count as usize - 1);
            matches!(values.get(at(y, rows) * cols as usize + at(x, cols)), Some(4 | 5))
        }
    };
    let mut dns: Vec<u16> = samples.iter().filter(|(x, y, dn)| *dn > 0 && land(*x, *y)).map(|s| s.2).collect();
    if dns.len() < LEAST_LAND {
        return None;
    }
    let place = (DARK * (dns.len() - 1) as f64).floor() as usize;
    Some(*dns.select_nth_unstable(place).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(baseline: Option<&str>, applied: Option<bool>) -> Scene {
        Scene { baseline: baseline.map(str::to_owned), boa_offset_applied: applied, ..Scene::bare() }
    }

    #[test]
    fn the_table_line_by_line() {
        use Mode::*;
        let (raw, done) = (Some(1240), Some(310));
        for (mode, baseline, applied, dark, subtract, rule) in [
            (None, Some("05.09"), Some(false), raw, 0, "off"),
            (Auto, Some("05.09"), Some(true), raw, 0, "flag"),
            (Auto, Some("03.01"), Some(false), raw, 0, "baseline"),
            (Auto, Some("05.09"), Some(false), done, 0, "pixels"),
            (Auto, Some("05.09"), Some(false), raw, 1000, "pixels"),
            (Auto, Some("04.00"), Option::None, raw, 1000, "pixels"),
            (Auto, Option::None, Option::None, raw, 1000, "pixels"),
            (Auto, Some("04.00"), Option::None, Option::None, 1000, "stated"),
            (Stac, Some("05.10"), Some(false), done, 1000, "stated"),
            (Stac, Some("02.08"), Option::None, raw, 0, "baseline"),
            (Stac, Option::None, Option::None, raw, 0, "unknown"),
            (Auto, Some("new"), Option::None, Option::None, 0, "unknown"),
        ] {
            let got = decide(mode, &scene(baseline, applied), dark);
            assert_eq!(got, Offset { subtract, rule }, "{mode:?} {baseline:?} {applied:?} {dark:?}");
        }
    }

    #[test]
    fn nodata_stays_and_dark_is_never_nodata() {
        let offset = Offset { subtract: OFFSET, rule: "pixels" };
        let got = [0, 1, 999, 1000, 1001, 1002, 65_535].map(|dn| offset.apply(dn));
        assert_eq!(got, [0, 1, 1, 1, 1, 2, 64_535]);
        assert_eq!([0, 1, 700].map(|dn| Offset::unchanged("flag").apply(dn)), [0, 1, 700]);
    }

    #[test]
    fn clouds_and_water_do_not_count_as_land() {
        // 40 x 40 pixels over 20 x 20 classes: the north is cloud, the west water, the rest land of DN 300 to 1900.
        let at = |i: usize| (((i % 40) as f64 + 0.5) / 40.0, ((i / 40) as f64 + 0.5) / 40.0);
        let dn = |i: usize| match (i % 40 < 8, i / 40 < 10) {
            (_, true) => 7000,
            (true, _) => 20,
            _ => 300 + i as u16,
        };
        let samples: Vec<Sample> = (0..1600).map(|i| (at(i).0, at(i).1, dn(i))).collect();
        let classes: Vec<u16> = (0..400)
            .map(|i| match (i % 20 < 4, i / 20 < 5) {
                (_, true) => 9,
                (true, _) => 6,
                _ => 4 + u16::from(i % 2 == 0),
            })
            .collect();
        let mut land: Vec<u16> = (0..1600).filter(|i| i % 40 >= 8 && i / 40 >= 10).map(dn).collect();
        land.sort_unstable();
        assert_eq!(dark_land(&samples, Some((20, 20, &classes))), Some(land[9]));
        assert_eq!(dark_land(&samples, None), Some(20));
        assert_eq!(dark_land(&samples, Some((20, 20, &[9; 400]))), None);
        assert_eq!(dark_land(&samples[..400], None), None, "too few to say");
    }
}
