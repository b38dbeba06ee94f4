//! The Sentinel-2 bands the pipeline reads, and what each catalog calls their assets.
//!
//! Contract: [`Band::CHIP`] is the order of the image's bands in a chip. Units: metres for [`Band::gsd`].
//! Trap: the names sort as text with B8A after B12; use [`Band::CHIP`] or the enum's own order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Sentinel-2 L2A band, or the scene classification map that comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[allow(missing_docs)] // the names are Sentinel-2's own
pub enum Band {
    B02,
    B03,
    B04,
    B08,
    B05,
    B06,
    B07,
    B8A,
    B11,
    B12,
    Scl,
}

/// A name that is no band's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a band; allowed are B02 B03 B04 B08 B05 B06 B07 B8A B11 B12 SCL")]
pub struct NotABand(String);

impl Band {
    /// The ten bands of a chip's image, in its order.
    pub const CHIP: [Self; 10] =
        [Self::B02, Self::B03, Self::B04, Self::B08, Self::B05, Self::B06, Self::B07, Self::B8A, Self::B11, Self::B12];

    /// Every band: those of a chip, then the classification map.
    pub const ALL: [Self; 11] = [
        Self::B02,
        Self::B03,
        Self::B04,
        Self::B08,
        Self::B05,
        Self::B06,
        Self::B07,
        Self::B8A,
        Self::B11,
        Self::B12,
        Self::Scl,
    ];

    /// Name, `B02` to `B12` or `SCL`: the band description in a chip, and the asset key in many catalogs.
    pub fn name(self) -> &'static str {
        match self {
            Self::B02 => "B02",
            Self::B03 => "B03",
            Self::B04 => "B04",
            Self::B08 => "B08",
            Self::B05 => "B05",
            Self::B06 => "B06",
            Self::B07 => "B07",
            Self::B8A => "B8A",
            Self::B11 => "B11",
            Self::B12 => "B12",
            Self::Scl => "SCL",
        }
    }

    /// Asset keys under which catalogs offer this band at its own resolution, best first: Earth Search, then the
    /// names of the mission (Planetary Computer), then with the resolution (Copernicus Data Space).
    pub fn asset_keys(self) -> &'static [&'static str] {
        match self {
            Self::B02 => &["blue", "B02", "B02_10m"],
            Self::B03 => &["green", "B03", "B03_10m"],
            Self::B04 => &["red", "B04", "B04_10m"],
            Self::B08 => &["nir", "B08", "B08_10m"],
            Self::B05 => &["rededge1", "B05", "B05_20m"],
            Self::B06 => &["rededge2", "B06", "B06_20m"],
            Self::B07 => &["rededge3", "B07", "B07_20m"],
            Self::B8A => &["nir08", "B8A", "B8A_20m"],
            Self::B11 => &["swir16", "B11", "B11_20m"],
            Self::B12 => &["swir22", "B12", "B12_20m"],
            Self::Scl => &["scl", "SCL", "SCL_20m"],
        }
    }

    /// Edge of one of its pixels on the ground, metres: 10 or 20.
    pub fn gsd(self) -> u32 {
        match self {
            Self::B02 | Self::B03 | Self::B04 | Self::B08 => 10,
            _ => 20,
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Band {
    type Err = NotABand;
    /// Takes any of the names in the table, in any case.
    fn from_str(s: &str) -> Result<Self, NotABand> {
        let same = |name: &&str| name.eq_ignore_ascii_case(s);
        let band = Self::ALL.into_iter().find(|b| b.asset_keys().iter().any(same));
        band.ok_or_else(|| NotABand(s.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Band {
    type Error = NotABand;
    fn try_from(s: String) -> Result<Self, NotABand> {
        s.parse()
    }
}

impl From<Band> for String {
    fn from(b: Band) -> Self {
        b.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_leads_back_to_its_band() {
        for band in Band::ALL {
            assert_eq!(band.name().parse(), Ok(band));
            for key in band.asset_keys() {
                assert_eq!(key.parse(), Ok(band));
            }
        }
        assert!("nir09".parse::<Band>().is_err());
        assert!("blue-jp2".parse::<Band>().is_err(), "JPEG 2000 twins of the assets are not the assets");
    }

    #[test]
    fn four_bands_are_ten_metres() {
        assert_eq!(Band::CHIP.iter().filter(|b| b.gsd() == 10).count(), 4);
        assert_eq!(Band::Scl.gsd(), 20);
    }
}
