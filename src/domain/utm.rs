//! The UTM zone that a point belongs to, as the Sentinel-2 tiles have it.
//!
//! Units: degrees in, EPSG code out (32601 to 32660 north, 32701 to 32760 south). Source: the military grid reference
//! system, with its exceptions in Norway (32V) and on Svalbard (31X, 33X, 35X, 37X).
//! Trap: tiles near a border exist in both zones; this names one of them for every point.

/// EPSG code of the zone of `[lon, lat]`.
pub fn epsg([lon, lat]: [f64; 2]) -> u32 {
    let plain = (((lon + 180.0).rem_euclid(360.0) / 6.0).floor() as u32).min(59) + 1;
    let zone = match (lat, lon) {
        (56.0..64.0, 3.0..12.0) => 32,
        (72.0..84.0, 0.0..9.0) => 31,
        (72.0..84.0, 9.0..21.0) => 33,
        (72.0..84.0, 21.0..33.0) => 35,
        (72.0..84.0, 33.0..42.0) => 37,
        _ => plain,
    };
    zone + if lat < 0.0 { 32_700 } else { 32_600 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_their_exceptions() {
        for (point, want) in [
            ([-0.001, 41.6], 32630),
            ([0.0, 41.6], 32631),
            ([-15.5, 28.1], 32628),
            ([5.3, 60.4], 32632),
            ([2.9, 60.4], 32631),
            ([8.9, 78.0], 32631),
            ([9.1, 78.0], 32633),
            ([179.99, 0.0], 32660),
            ([180.0, 0.0], 32601),
            ([-70.6, -33.4], 32719),
        ] {
            assert_eq!(epsg(point), want, "{point:?}");
        }
    }
}
