//! How each cover reflects light through the year of a dry Mediterranean plain.
//!
//! Contract: pure; classes differ in the seasons in which they really do (winter cereals green in April and straw in
//! July, summer vegetables green in July, almonds in bloom in February, olives green all year).
//! Units: surface reflectance x 10,000, in band order B02 B03 B04 B08 B05 B06 B07 B8A B11 B12; days of the year.
//! Trap: these are plausible shapes, not measurements; nothing may be learned from them about real crops.

use super::crops::Cover;

/// Reflectance x 10,000 of ten bands.
pub(super) type Spectrum = [f32; 10];

const LEAF: Spectrum = [310., 700., 340., 4300., 1050., 3200., 3950., 4500., 1900., 850.];
const EVERGREEN: Spectrum = [230., 420., 270., 2500., 680., 1850., 2300., 2700., 1350., 640.];
const STRAW: Spectrum = [1050., 1520., 1950., 3100., 2250., 2550., 2750., 3300., 3900., 2800.];
const SOIL: Spectrum = [1050., 1400., 1820., 2600., 2150., 2350., 2500., 2850., 3600., 3050.];
const BLOOM: Spectrum = [1900., 1950., 2150., 3700., 2300., 3000., 3300., 3700., 2700., 1700.];
pub(super) const WATER: Spectrum = [520., 560., 420., 210., 330., 260., 240., 190., 110., 80.];
pub(super) const CLOUD: Spectrum = [6800., 6700., 6600., 6900., 6700., 6800., 6900., 6900., 4300., 3300.];

/// What covers the ground, as shares; bare soil is the rest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ground {
    pub(super) leaf: f32,
    pub(super) evergreen: f32,
    pub(super) straw: f32,
    pub(super) bloom: f32,
}

impl Ground {
    /// The mixed spectrum over a soil brighter or darker than usual.
    pub(super) fn reflect(&self, soil_gain: f32) -> Spectrum {
        let covered = self.leaf + self.evergreen + self.straw + self.bloom;
        let scale = if covered > 1.0 { 1.0 / covered } else { 1.0 };
        let soil = (1.0 - covered).max(0.0) * soil_gain;
        std::array::from_fn(|b| {
            let cover = self.leaf * LEAF[b] + self.evergreen * EVERGREEN[b] + self.straw * STRAW[b];
            (cover + self.bloom * BLOOM[b]) * scale + soil * SOIL[b]
        })
    }
}

/// 0 before `from`, 1 between `full` and `fade`, 0 after `to`; straight in between. Days may lie outside the year.
fn season(day: f32, [from, full, fade, to]: [f32; 4]) -> f32 {
    let at = |day: f32| ((day - from) / (full - from)).min((to - day) / (to - fade)).clamp(0.0, 1.0);
    at(day).max(at(day - 365.0))
}

/// What a cover shows on a day of the year (1 to 366, shifted a few days per field).
pub(super) fn ground(cover: Cover, day: f32) -> Ground {
    let s = |days| season(day, days);
    let grass = s([-60.0, 20.0, 120.0, 155.0]);
    let none = Ground::default();
    match cover {
        Cover::Olive => Ground { evergreen: 0.42, leaf: 0.2 * grass, straw: 0.06, ..none },
        Cover::Vineyard => Ground { leaf: 0.5 * s([95., 150., 250., 300.]) + 0.08 * grass, ..none },
        Cover::Citrus => Ground { evergreen: 0.62, leaf: 0.16, ..none },
        Cover::Fruit => {
            Ground { leaf: 0.68 * s([82., 125., 260., 310.]), bloom: 0.2 * s([65., 75., 88., 100.]), ..none }
        }
        Cover::Almond => {
            Ground { leaf: 0.42 * s([78., 115., 250., 305.]), bloom: 0.45 * s([28., 34., 60., 80.]), ..none }
        }
        Cover::Forest => Ground { evergreen: 0.85, straw: 0.06, ..none },
        Cover::Cereal => Ground {
            leaf: 0.93 * s([-15., 85., 128., 156.]),
            straw: 0.85 * s([132., 160., 188., 225.]) + 0.35 * s([195., 225., 265., 300.]),
            ..none
        },
        Cover::Legume => {
            Ground { leaf: 0.8 * s([70., 118., 150., 172.]), straw: 0.45 * s([155., 178., 200., 240.]), ..none }
        }
        Cover::Vegetables => Ground { leaf: 0.86 * s([130., 185., 235., 275.]), ..none },
        Cover::Fallow => {
            Ground { leaf: 0.2 * s([30., 75., 115., 145.]), straw: 0.18 * s([140., 170., 260., 300.]), ..none }
        }
        Cover::Maize => {
            Ground { leaf: 0.95 * s([135., 190., 245., 280.]), straw: 0.7 * s([255., 280., 300., 335.]), ..none }
        }
        Cover::Alfalfa => Ground { leaf: 0.45 + 0.4 * s([40., 90., 270., 330.]), ..none },
        Cover::Sunflower => {
            Ground { leaf: 0.85 * s([112., 165., 205., 238.]), straw: 0.5 * s([215., 240., 262., 295.]), ..none }
        }
        Cover::Pasture => {
            Ground { leaf: 0.5 * grass + 0.1, straw: 0.55 * s([135., 175., 285., 330.]), evergreen: 0.06, ..none }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ndvi(cover: Cover, day: f32) -> f32 {
        let s = ground(cover, day).reflect(1.0);
        (s[3] - s[2]) / (s[3] + s[2])
    }

    #[test]
    fn covers_differ_in_their_own_seasons() {
        assert!(ndvi(Cover::Cereal, 115.0) > 0.7 && ndvi(Cover::Cereal, 205.0) < 0.3);
        assert!(ndvi(Cover::Vegetables, 205.0) > 0.6 && ndvi(Cover::Vegetables, 115.0) < 0.25);
        assert!(ndvi(Cover::Vineyard, 205.0) > ndvi(Cover::Vineyard, 35.0) + 0.2);
        assert!((ndvi(Cover::Citrus, 35.0) - ndvi(Cover::Citrus, 205.0)).abs() < 0.05);
        assert!(ground(Cover::Almond, 46.0).bloom > 0.4 && ground(Cover::Almond, 205.0).bloom == 0.0);
    }

    #[test]
    fn the_year_is_a_ring() {
        assert!((season(364.0, [-15.0, 85.0, 128.0, 156.0]) - 0.14).abs() < 1e-3);
        assert_eq!(season(200.0, [-15.0, 85.0, 128.0, 156.0]), 0.0);
    }
}
