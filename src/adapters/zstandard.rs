//! Zstandard of the differences between neighbouring pixels (predictor 2), without its search.
//!
//! Contract: one frame (RFC 8878) with its size, which every reader of Zstandard reads; equal input gives equal bytes.
//! Repetitions are where `repeats` looks for them; all else is the library's: it checks the repetitions, divides
//! them into blocks' sections and codes those. Against its own level 1 that is 0.6 of the time, and files up to 1.1 % larger.
//! Trap: this is no compressor for anything else; masks belong to the library's own search.

use std::ffi::CStr;
use std::ptr::NonNull;

use zstd::zstd_safe::zstd_sys as zs;

use super::repeats::repeats;

/// Bytes of a block; the format allows no more.
const BLOCK: usize = zs::ZSTD_BLOCKSIZE_MAX as usize;
/// What the library is told once, for all frames. That it checks what it is given costs nothing that could be measured,
/// and makes a fault of ours an error instead of memory that is not ours.
const SETTINGS: [(zs::ZSTD_cParameter, i32); 4] = [
    (zs::ZSTD_cParameter::ZSTD_c_compressionLevel, 1),
    (BLOCK_DELIMITERS, 1),
    (VALIDATE_SEQUENCES, 1),
    (REPCODE_RESOLUTION, zs::ZSTD_ParamSwitch_e::ZSTD_ps_enable as i32),
];
/// Names that zstd.h gives these in its part for static linking.
const BLOCK_DELIMITERS: zs::ZSTD_cParameter = zs::ZSTD_cParameter::ZSTD_c_experimentalParam11;
const VALIDATE_SEQUENCES: zs::ZSTD_cParameter = zs::ZSTD_cParameter::ZSTD_c_experimentalParam12;
const REPCODE_RESOLUTION: zs::ZSTD_cParameter = zs::ZSTD_cParameter::ZSTD_c_experimentalParam19;

/// A context of the library and buffers, used again.
#[derive(Default)]
pub(super) struct Zstandard {
    context: Option<Context>,
    sequences: Vec<zs::ZSTD_Sequence>,
    out: Vec<u8>,
}

impl Zstandard {
    /// The frame of `raw`, whose rows have `row` bytes; an error is the library's, in its words.
    pub(super) fn frame(&mut self, raw: &[u8], row: usize) -> Result<&[u8], String> {
        let context = match self.context.take() {
            Some(context) => self.context.insert(context),
            None => self.context.insert(Context::new()?),
        };
        self.sequences.clear();
        let mut tell = |literals, length, distance| self.sequences.push(sequence(literals, length, distance));
        for start in (0..raw.len().max(1)).step_by(BLOCK) {
            let block = start..raw.len().min(start + BLOCK);
            let rest = repeats(raw, block, row, usize::MAX, |_| (), |r| tell(r.literals.len(), r.length, r.distance));
            // No length: the end of a block.
            tell(rest.len(), 0, 0);
        }
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        context.compress(&self.sequences, raw, &mut self.out)?;
        Ok(&self.out)
    }
}

/// Literals, then a repetition. Lengths are below [`BLOCK`] and distances below the length of a chip's row, which is far
/// less than 32 bits hold.
fn sequence(literals: usize, length: usize, distance: usize) -> zs::ZSTD_Sequence {
    zs::ZSTD_Sequence { offset: distance as u32, litLength: literals as u32, matchLength: length as u32, rep: 0 }
}

/// The library's memory between frames; it goes with the value.
struct Context(NonNull<zs::ZSTD_CCtx>);

impl Context {
    fn new() -> Result<Self, String> {
        // SAFETY: takes nothing; what it gives is owned here alone, and freed once, when this value goes.
        let context = unsafe { zs::ZSTD_createCCtx() };
        let context = Self(NonNull::new(context).ok_or("no memory for a Zstandard context")?);
        for (parameter, value) in SETTINGS {
            // SAFETY: the context lives, and nobody else has it.
            checked(unsafe { zs::ZSTD_CCtx_setParameter(context.0.as_ptr(), parameter, value) })?;
        }
        Ok(context)
    }

    /// Appends the frame of `raw` to `out`, as far as there is room.
    fn compress(&mut self, sequences: &[zs::ZSTD_Sequence], raw: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let room = out.spare_capacity_mut();
        // SAFETY: the context lives and is borrowed alone; each pointer comes with the length of its slice, and the library
        // keeps none of them. It checks that the lengths are within `raw` (VALIDATE_SEQUENCES), and reads no repetition's source.
        let written = checked(unsafe {
            zs::ZSTD_compressSequences(
                self.0.as_ptr(),
                room.as_mut_ptr().cast(),
                room.len(),
                sequences.as_ptr(),
                sequences.len(),
                raw.as_ptr().cast(),
                raw.len(),
            )
        })?;
        // SAFETY: the library wrote so many bytes, from the end of what is there, and says no more than there was room for.
        unsafe { out.set_len(out.len() + written) };
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by ZSTD_createCCtx, and this is its only owner.
        unsafe { zs::ZSTD_freeCCtx(self.0.as_ptr()) };
    }
}

/// A size, or what the library has to say instead.
fn checked(result: usize) -> Result<usize, String> {
    // SAFETY: both take a number and look at nothing else; the name is a constant of the library.
    let name = unsafe {
        match zs::ZSTD_isError(result) {
            0 => return Ok(result),
            _ => CStr::from_ptr(zs::ZSTD_getErrorName(result)),
        }
    };
    Err(name.to_string_lossy().into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::repeats::mixed;
    use super::*;

    /// The frame, read by the library: its bytes, and how many the frame has.
    fn back(codec: &mut Zstandard, raw: &[u8], row: usize) -> (usize, Vec<u8>) {
        let frame = codec.frame(raw, row).unwrap();
        let out = zstd::bulk::decompress(frame, raw.len()).unwrap();
        assert_eq!(zstd::zstd_safe::get_frame_content_size(frame).unwrap(), Some(raw.len() as u64));
        (frame.len(), out)
    }

    fn noise(n: u32, width: u32) -> Vec<u8> {
        (0..n).map(|i| ((i.wrapping_mul(2_654_435_761) >> 16) % width) as u8).collect()
    }

    #[test]
    fn frames_of_every_size_come_back() {
        let mut codec = Zstandard::default();
        for n in [0, 1, 7, 8, 9, 511, 512, 513, 131_071, 131_072, 131_073, 400_000, 2_000_000] {
            for (row, width) in [(512, 256), (512, 40), (2, 2), (8192, 3)] {
                let raw = noise(n, width);
                assert_eq!(back(&mut codec, &raw, row).1, raw, "{n} bytes, rows of {row}, {width} values");
                let silence = vec![7; n as usize];
                assert_eq!(back(&mut codec, &silence, row).1, silence, "{n} bytes alike, rows of {row}");
            }
        }
    }

    #[test]
    fn what_repeats_costs_next_to_nothing() {
        let mut codec = Zstandard::default();
        let rows = noise(512, 256).repeat(1024);
        let (noise, silence) = (back(&mut codec, &rows, 512).0, back(&mut codec, &[0; 1 << 17], 512).0);
        assert!(noise < 700 && silence < 30, "{noise} {silence}");
    }

    /// A fault of ours is an error, and the codec works on.
    #[test]
    fn what_is_no_repetition_is_refused() {
        let mut codec = Zstandard::default();
        let raw = noise(1000, 256);
        back(&mut codec, &raw, 512);
        let end = sequence(0, 0, 0);
        for sequences in [
            vec![sequence(500, 500, 2000), end],
            vec![sequence(990, 11, 4), end],
            vec![sequence(8, 100, 4), end],
            vec![sequence(500, 500, 4)],
        ] {
            let mut out = Vec::with_capacity(2000);
            let refused = codec.context.as_mut().unwrap().compress(&sequences, &raw, &mut out);
            assert!(refused.is_err() && out.is_empty(), "{sequences:?}");
        }
        assert_eq!(back(&mut codec, &raw, 512).1, raw);
    }

    proptest! {
        /// Pieces of noise of all widths, of silence, and of what was there before, over several blocks.
        #[test]
        fn anything_comes_back(
            pieces in prop::collection::vec((0usize..3, 0usize..60_000, 1u32..256, any::<u32>()), 0..12),
            row in 1usize..1_000,
        ) {
            let raw = mixed(&pieces, row);
            prop_assert_eq!(back(&mut Zstandard::default(), &raw, row).1, raw);
        }
    }
}
