//! Whether a chip's pixels are good enough, and the same pixels harmonised.
//!
//! Units: DN; shares of the chip's pixels, 0 to 1; (bands, rows, cols). Contract: a pixel is nodata when any band is 0,
//! and suspect when any band is above [`SUSPECT`] before anything is subtracted. Trap: nodata is judged before the offset
//! goes, because afterwards nothing becomes 0 any more.

use multiversion::multiversion;

use super::harmonise::{Offset, SUSPECT};
use super::scl::Seen;

/// What a chip may hold of what nobody wants, as shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Pixels of a bad class; 1 asks no classification.
    pub bad: f64,
    /// Pixels without data.
    pub nodata: f64,
    /// Pixels of suspect DN.
    pub suspect: f64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Share of pixels without data.
    pub nodata: f64,
    /// Share of suspect pixels.
    pub suspect: f64,
}

/// Why a scene does not give a chip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refused {
    /// Clouds, shadows, snow.
    Cloud(f64),
    /// The scene ends inside the window.
    Nodata(f64),
    /// Numbers that cannot be reflectances.
    Suspect(f64),
}

impl Refused {
    /// The reason under which the chip is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Cloud(_) => "cloud",
            Self::Nodata(_) => "nodata",
            Self::Suspect(_) => "suspect_dn",
        }
    }

    /// The same for a person.
    pub fn detail(self, item: &str) -> String {
        match self {
            Self::Cloud(share) => format!("{:.1} % of the window is cloud, shadow or snow in {item}", share * 100.0),
            Self::Nodata(share) => format!("{:.1} % of the window is nodata in {item}", share * 100.0),
            Self::Suspect(share) => format!("{:.1} % of the window has DNs above {SUSPECT} in {item}", share * 100.0),
        }
    }
}

impl Limits {
    /// Whether the classification matters at all.
    pub fn asks_classes(&self) -> bool {
        self.bad < 1.0
    }

    /// Why a chip with these classes is not wanted. Pixels that the classification calls nodata count as bad; where they
    /// alone make the difference they are also the reason.
    pub fn refuses_classes(&self, seen: Seen) -> Option<Refused> {
        match seen {
            Seen { bad, .. } if bad <= self.bad => None,
            Seen { bad, nodata } if bad - nodata <= self.bad => Some(Refused::Nodata(nodata)),
            Seen { bad, .. } => Some(Refused::Cloud(bad)),
        }
    }
}

impl Shares {
    /// Those of a chip in which every pixel is plain.
    pub const NONE: Self = Self { nodata: 0.0, suspect: 0.0 };
}

/// Whether pixels are neither nodata nor suspect, as most are: one number tells, what of `dn - 1` goes beyond, which for 0
/// is most of all.
#[multiversion(targets("x86_64+avx2"))]
pub fn is_plain(pixels: &[u16]) -> bool {
    pixels.iter().fold(0, |beyond, dn| beyond | dn.wrapping_sub(1).saturating_sub(SUSPECT - 1)) == 0
}

/// What is wrong with `pixels`, `size` of them per band.
fn shares(pixels: &[u16], size: usize) -> Shares {
    if is_plain(pixels) {
        return Shares::NONE;
    }
    let (mut valid, mut plain) = (vec![true; size], vec![true; size]);
    for plane in pixels.chunks_exact(size) {
        valid.iter_mut().zip(plane).for_each(|(v, dn)| *v &= *dn != 0);
        plain.iter_mut().zip(plane).for_each(|(p, dn)| *p &= *dn <= SUSPECT);
    }
    let share = |good: &[bool]| good.iter().filter(|g| !**g).count() as f64 / size as f64;
    Shares { nodata: share(&valid), suspect: share(&plain) }
}

/// Judges a chip of `size` pixels per band and harmonises it in place.
///
/// # Errors
/// The first limit that is exceeded; the pixels are then as they were.
pub fn judge(pixels: &mut [u16], size: usize, offset: Offset, limits: &Limits) -> Result<Shares, Refused> {
    let shares = shares(pixels, size.max(1));
    if shares.nodata > limits.nodata {
        return Err(Refused::Nodata(shares.nodata));
    }
    if shares.suspect > limits.suspect {
        return Err(Refused::Suspect(shares.suspect));
    }
    offset.subtract_from(pixels);
    Ok(shares)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bad: 0.05, nodata: 0.25, suspect: 0.25 };

    #[test]
    fn a_pixel_is_nodata_or_suspect_when_any_band_is() {
        let raw = Offset { subtract: 1000, rule: "pixels" };
        let mut pixels = vec![0, 1500, 1500, 1500, 900, 64_000, 1001, 2500];
        let shares = judge(&mut pixels, 4, raw, &LIMITS).unwrap();
        assert_eq!(shares, Shares { nodata: 0.25, suspect: 0.25 });
        assert_eq!(pixels, [0, 500, 500, 500, 1, 63_000, 1, 1500]);
    }

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let raw = Offset { subtract: 1000, rule: "pixels" };
        let mut pixels = vec![0, 1500, 0, 1500];
        assert_eq!(judge(&mut pixels, 4, raw, &LIMITS), Err(Refused::Nodata(0.5)));
        assert_eq!(pixels, [0, 1500, 0, 1500]);
        let mut wild = vec![65_000, 1500, 21_000, 1500];
        assert_eq!(judge(&mut wild, 4, raw, &LIMITS), Err(Refused::Suspect(0.5)));
    }

    #[test]
    fn classes_refuse_by_cloud_or_by_nodata() {
        let seen = |bad, nodata| LIMITS.refuses_classes(Seen { bad, nodata });
        assert_eq!(seen(0.05, 0.05), None);
        assert_eq!(seen(0.06, 0.0), Some(Refused::Cloud(0.06)));
        assert_eq!(seen(0.5, 0.47), Some(Refused::Nodata(0.47)));
        assert_eq!(seen(0.5, 0.2), Some(Refused::Cloud(0.5)));
        assert!(!Limits { bad: 1.0, ..LIMITS }.asks_classes());
    }
}
