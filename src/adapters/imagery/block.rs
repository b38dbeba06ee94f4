//! Decoding of one block: inflate, byte order, predictor.
//!
//! Contract: pure CPU work, called on the CPU pool; the output has exactly the size the header
//! promises or the block is corrupt. Samples come out in native byte order, rows of `block_width`.
//! Trap: the decoded size is bounded by the header's checks, so a zip bomb ends as `corrupt`.

use std::cell::RefCell;

use libdeflater::Decompressor;

use super::header::{Codec, Cog, Sample};

/// Samples of one block, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// 8-bit samples.
    U8(Vec<u8>),
    /// 16-bit samples.
    U16(Vec<u16>),
}

impl Samples {
    /// Size in memory, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len() * 2,
        }
    }
}

/// Why a block cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The codec failed.
    #[error("{codec:?} stream is corrupt: {why}")]
    Corrupt {
        /// Codec of the file.
        codec: Codec,
        /// What it said.
        why: String,
    },
    /// Too few or too many bytes came out.
    #[error("block decodes to {got} bytes, not the {wanted} its header promises")]
    Size {
        /// Bytes promised.
        wanted: usize,
        /// Bytes found.
        got: usize,
    },
}

thread_local! {
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Decodes block `index` of `cog` from its compressed bytes; an empty slice is a block of zeros.
///
/// # Errors
/// [`BlockError`] for anything that is not exactly one whole block.
pub fn decode(cog: &Cog, index: u32, raw: &[u8]) -> Result<Samples, BlockError> {
    let bytes = cog.decoded_bytes(index);
    let width = cog.block_width as usize;
    match cog.sample {
        Sample::U8 => {
            let mut out = vec![0; bytes];
            if !raw.is_empty() {
                expand(cog.codec, raw, &mut out)?;
                if cog.differences {
                    out.chunks_exact_mut(width).for_each(sum_u8);
                }
            }
            Ok(Samples::U8(out))
        }
        Sample::U16 => {
            let mut out = vec![0u16; bytes / 2];
            if !raw.is_empty() {
                expand(cog.codec, raw, bytemuck::cast_slice_mut(&mut out))?;
                if cog.big_endian != cfg!(target_endian = "big") {
                    out.iter_mut().for_each(|v| *v = v.swap_bytes());
                }
                if cog.differences {
                    out.chunks_exact_mut(width).for_each(sum_u16);
                }
            }
            Ok(Samples::U16(out))
        }
    }
}

fn expand(codec: Codec, raw: &[u8], out: &mut [u8]) -> Result<(), BlockError> {
    let corrupt = |why: String| BlockError::Corrupt { codec, why };
    let got = match codec {
        Codec::None => {
            let n = raw.len().min(out.len());
            out[..n].copy_from_slice(&raw[..n]);
            raw.len()
        }
        Codec::Deflate => {
            INFLATE.with_borrow_mut(|d| d.zlib_decompress(raw, out)).map_err(|e| corrupt(e.to_string()))?
        }
        Codec::Zstd => zstd::bulk::decompress_to_buffer(raw, out).map_err(|e| corrupt(e.to_string()))?,
        Codec::Lzw => {
            let mut lzw = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            let (mut used, mut filled) = (0, 0);
            loop {
                let step = lzw.decode_bytes(&raw[used..], &mut out[filled..]);
                used += step.consumed_in;
                filled += step.consumed_out;
                let status = step.status.map_err(|e| corrupt(e.to_string()))?;
                if !matches!(status, weezl::LzwStatus::Ok) || filled == out.len() {
                    break filled;
                }
            }
        }
    };
    if got == out.len() { Ok(()) } else { Err(BlockError::Size { wanted: out.len(), got }) }
}

/// Undoes predictor 2 on one row of bytes.
fn sum_u8(row: &mut [u8]) {
    let mut left = 0u8;
    for v in row {
        left = left.wrapping_add(*v);
        *v = left;
    }
}

/// Undoes predictor 2 on one row: a running sum, modulo 2^16.
#[cfg(target_arch = "x86_64")]
fn sum_u16(row: &mut [u16]) {
    // SAFETY: SSE2 is part of the x86-64 baseline, so every processor this is compiled for has it.
    unsafe { sum_u16_sse2(row) }
}

/// Eight lanes at a time: sums within the lanes by three shifted additions, then the last lane of the
/// row so far is added to all of them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn sum_u16_sse2(row: &mut [u16]) {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi16, _mm_setzero_si128, _mm_shufflehi_epi16, _mm_slli_si128, _mm_unpackhi_epi64,
    };
    let (lanes, rest) = row.as_chunks_mut::<8>();
    let mut left: __m128i = _mm_setzero_si128();
    for chunk in lanes.iter_mut() {
        let mut v: __m128i = bytemuck::cast(*chunk);
        v = _mm_add_epi16(v, _mm_slli_si128::<2>(v));
        v = _mm_add_epi16(v, _mm_slli_si128::<4>(v));
        v = _mm_add_epi16(v, _mm_slli_si128::<8>(v));
        v = _mm_add_epi16(v, left);
        *chunk = bytemuck::cast(v);
        let last = _mm_shufflehi_epi16::<0xff>(v);
        left = _mm_unpackhi_epi64(last, last);
    }
    let mut sum = lanes.last().map_or(0, |c| c[7]);
    for v in rest {
        sum = sum.wrapping_add(*v);
        *v = sum;
    }
}

/// Undoes predictor 2 on one row: a running sum, modulo 2^16.
#[cfg(not(target_arch = "x86_64"))]
fn sum_u16(row: &mut [u16]) {
    let mut left = 0u16;
    for v in row {
        left = left.wrapping_add(*v);
        *v = left;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn running_sum_equals_the_plain_loop(row in prop::collection::vec(any::<u16>(), 0..100)) {
            let mut plain = 0u16;
            let wanted: Vec<u16> = row.iter().map(|v| { plain = plain.wrapping_add(*v); plain }).collect();
            let mut got = row;
            sum_u16(&mut got);
            prop_assert_eq!(got, wanted);
        }
    }
}
