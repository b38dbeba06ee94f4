//! What repeats in the differences between neighbouring pixels (predictor 2).
//!
//! Contract: it is known beforehand where to look: whole rows, where a 20 m band lies on the 10 m grid, and single
//! samples, where there is nothing to see. The rest is noise, in which a general search finds next to nothing and spends
//! most of its time. So only these two distances are tried, eight bytes at a time. Units: bytes.
//! Trap: in anything else than such differences it finds next to nothing.

use std::ops::Range;

/// Bytes of a sample.
const SAMPLE: usize = 2;
/// Bytes that are compared at once.
const WORD: usize = 8;
/// Bytes that are passed over at once where nothing repeats.
const LINE: usize = 64;

/// A repetition of what was `distance` bytes before, at least eight bytes long.
pub(super) struct Repeat {
    /// What is between it and the repetition before, or the begin of the block.
    pub(super) literals: Range<usize>,
    pub(super) length: usize,
    pub(super) distance: usize,
}

/// Tells `found` every repetition in a block of `raw`, whose rows have `row` bytes, in order; sources may lie before the
/// block, but not farther back than `farthest`. What is left after the last repetition comes back. All that is not
/// repeated passes through `plain` on the way, except the up to seven bytes at the end that make no word.
#[inline]
pub(super) fn repeats(
    raw: &[u8],
    block: Range<usize>,
    row: usize,
    farthest: usize,
    mut plain: impl FnMut(&[u8; WORD]),
    mut found: impl FnMut(Repeat),
) -> Range<usize> {
    let raw = &raw[..block.end];
    let (mut at, mut told) = (block.start, block.start);
    while let Some(here) = word(raw, at) {
        let same =
            |distance: &usize| (1..=farthest.min(at)).contains(distance) && word(raw, at - distance) == Some(here);
        let Some(distance) = [row, SAMPLE].into_iter().find(same) else {
            plain(&here.to_le_bytes());
            at += WORD;
            while let Some(line) = line(raw, at)
                && !may_repeat(raw, at, line, row)
            {
                for word in line.as_chunks().0 {
                    plain(word);
                }
                at += LINE;
            }
            continue;
        };
        let start = at;
        at += WORD;
        while word(raw, at).is_some_and(|w| word(raw, at - distance) == Some(w)) {
            at += WORD;
        }
        found(Repeat { literals: told..start, length: at - start, distance });
        told = at;
    }
    told..block.end
}

fn word(raw: &[u8], at: usize) -> Option<u64> {
    raw.get(at..)?.first_chunk().map(|w| u64::from_le_bytes(*w))
}

fn line(raw: &[u8], at: usize) -> Option<&[u8; LINE]> {
    raw.get(at..)?.first_chunk()
}

/// Whether half a word of this line, which is at `at`, was at one of the two distances before; a line that has not so much
/// as that begins no repetition. Without a branch inside, the compiler compares 16 bytes at once.
fn may_repeat(raw: &[u8], at: usize, line: &[u8; LINE], row: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).and_then(|at| self::line(raw, at));
    let (Some(above), Some(left)) = (before(row), before(SAMPLE)) else { return true };
    let halves = |line: &[u8; LINE]| -> [u32; LINE / 4] {
        std::array::from_fn(|i| u32::from_le_bytes([line[4 * i], line[4 * i + 1], line[4 * i + 2], line[4 * i + 3]]))
    };
    let (here, above, left) = (halves(line), halves(above), halves(left));
    (0..LINE / 4).fold(false, |any, i| any | (here[i] == above[i]) | (here[i] == left[i]))
}

/// Bytes to be compressed: pieces (kind, length, width, seed) of noise so many values wide, of silence, and of what was there
/// a row before.
#[cfg(test)]
pub(super) fn mixed(pieces: &[(usize, usize, u32, u32)], row: usize) -> Vec<u8> {
    let mut raw: Vec<u8> = Vec::new();
    for &(kind, length, width, seed) in pieces {
        for i in 0..length as u32 {
            let noise = (seed ^ i).wrapping_mul(2_654_435_761) >> 16;
            let before = raw.len().checked_sub(row).map_or(0, |at| raw[at]);
            raw.push([(noise % width) as u8, width as u8, before][kind]);
        }
    }
    raw
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of `step` bytes, put together again from what was found, and how many of them are repetitions.
    fn again(raw: &[u8], step: usize, row: usize, farthest: usize) -> (Vec<u8>, usize) {
        let (mut out, mut repeated) = (Vec::new(), 0);
        for start in (0..raw.len()).step_by(step) {
            let (block, mut passed) = (start..raw.len().min(start + step), 0);
            let plain = |word: &[u8; WORD]| passed += word.len();
            let before = repeated;
            let rest = repeats(raw, block.clone(), row, farthest, plain, |found| {
                assert!(found.length >= WORD && found.distance <= farthest);
                out.extend_from_slice(&raw[found.literals]);
                (0..found.length).for_each(|_| out.push(out[out.len() - found.distance]));
                repeated += found.length;
            });
            assert_eq!(passed + (repeated - before) + rest.len() % WORD, block.len());
            out.extend_from_slice(&raw[rest]);
        }
        (out, repeated)
    }

    #[test]
    fn rows_that_come_twice_and_silence_are_found() {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
        let twice: Vec<u8> = (0..4096u32).map(|i| noise(i / 1024 * 512 + i % 512)).collect();
        assert_eq!(again(&twice, 4096, 512, 4096).1, 2048, "every second row");
        assert_eq!(again(&twice, 4096, 512, 511).1, 0, "too far away");
        assert_eq!(again(&[0; 4096], 4096, 512, 4096).1, 4096 - WORD);
        let noise: Vec<u8> = (0..4096).map(noise).collect();
        assert_eq!(again(&noise, 4096, 512, 4096).1, 0);
    }

    proptest! {
        #[test]
        fn what_is_found_makes_the_same_bytes(
            raw in prop::collection::vec(0u8..2, 0..3_000),
            step in 1usize..2_000,
            row in 1usize..200,
            farthest in 1usize..400,
        ) {
            prop_assert_eq!(again(&raw, step, row, farthest).0, raw);
        }
    }
}
