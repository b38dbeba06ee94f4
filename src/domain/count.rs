//! How often a byte stands among others.
//!
//! Contract: plain loops in pieces whose count is a small type, which is what lets a compiler count many bytes at
//! once; one pass for each value wanted is then several times as fast as a table of counts, whose next address
//! waits for what the last one stored. Trap: the time grows with the number of values asked for.

use multiversion::multiversion;

/// How many of `values` are `wanted`.
#[multiversion(targets("x86_64+avx2"))]
pub fn count_u8(values: &[u8], wanted: u8) -> u32 {
    let piece = |piece: &[u8]| piece.iter().fold(0u16, |n, v| n + u16::from(*v == wanted));
    values.chunks(4096).map(|values| u32::from(piece(values))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_is_too_long_for_its_count() {
        for n in [0, 1, 255, 256, 4095, 4096, 4097, 65_536, 200_001] {
            assert_eq!((count_u8(&vec![7; n], 7), count_u8(&vec![7; n], 8)), (n as u32, 0));
        }
        assert_eq!(count_u8(&[1, 2, 3, 2, 2], 2), 3);
    }
}
