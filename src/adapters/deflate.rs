//! DEFLATE of the differences between neighbouring pixels (predictor 2), at the speed of Zstandard.
//!
//! Contract: a whole zlib stream (RFC 1950, RFC 1951), which every inflater reads; equal input gives equal bytes.
//! Repetitions are where `repeats` looks for them, and the rest is Huffman coding: against libdeflate's level 1 a
//! quarter of the time, and files between 1 % smaller and 0.5 % larger.
//! Trap: this is no compressor for anything else; masks belong to libdeflate.

use std::ops::Range;

use super::repeats::{Repeat, repeats};

/// Longest code of a literal, a length or a distance: four literals and seven bits left over fit 64 bits.
const LONGEST: usize = 14;
/// Longest code of a code's length; RFC 1951 allows no more.
const LONGEST_LENGTH: usize = 7;
/// Bytes that share one set of codes.
const BLOCK: usize = 1 << 16;
/// Most bytes of a block that are not its symbols.
const AROUND_BLOCK: usize = 600;
/// Longest repetition that one symbol can tell, farthest distance, symbol at the end of a block.
const LONGEST_MATCH: usize = 258;
const FARTHEST: usize = 1 << 15;
const END: usize = 256;
/// Symbols: of bytes, the end and lengths; of distances; of lengths of codes.
const LITERALS: usize = 286;
const DISTANCES: usize = 30;
const LENGTHS: usize = 19;
/// Order in which the code of the codes' lengths is sent (RFC 1951, 3.2.7).
const ORDER: [usize; LENGTHS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Literals, then a repetition of `length` bytes from `distance` bytes before; none where `length` is 0.
#[derive(Debug, Clone, Copy)]
struct Step {
    literals: usize,
    length: usize,
    distance: usize,
}

/// Buffers that are used again: 240 KiB for a tile of 256 x 256 pixels.
#[derive(Debug, Default)]
pub struct Deflater {
    steps: Vec<Step>,
    out: Vec<u8>,
}

impl Deflater {
    /// The zlib stream of `raw`, whose rows have `row` bytes.
    pub fn zlib(&mut self, raw: &[u8], row: usize) -> &[u8] {
        // A repetition takes at most 46 bits for eight bytes or more, so literals are the worst case.
        let bound = raw.len() * LONGEST / 8 + (raw.len() / BLOCK + 1) * AROUND_BLOCK + 64;
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        let mut bits = Bits { out: &mut self.out, at: 0, held: 0, count: 0 };
        bits.put(0x0178, 16); // window of 32 KiB, fastest level
        let mut at = 0;
        loop {
            let end = (at + BLOCK).min(raw.len());
            self.steps.clear();
            let counts = look(raw, at..end, row, &mut self.steps);
            let (literals, distances) = (Codes::of(&counts.literals, LONGEST), Codes::of(&counts.distances, LONGEST));
            bits.put(u64::from(end == raw.len()), 1);
            bits.put(2, 2);
            header(&mut bits, &literals, &distances);
            body(&mut bits, &raw[at..end], &self.steps, &literals, &distances);
            at = end;
            if at == raw.len() {
                break;
            }
        }
        bits.align();
        bits.put(u64::from(libdeflater::adler32(raw).swap_bytes()), 32);
        let n = bits.at;
        &self.out[..n]
    }
}

/// How often each symbol is used in a block.
struct Counts {
    literals: [u32; LITERALS],
    distances: [u32; DISTANCES],
}

/// Divides a block of `raw` into steps.
fn look(raw: &[u8], block: Range<usize>, row: usize, steps: &mut Vec<Step>) -> Counts {
    // Four tables, because adding to one number over and over has to wait for itself.
    let mut bytes = [[0u32; 256]; 4];
    let plain = |word: &[u8; 8]| {
        for (i, byte) in word.iter().enumerate() {
            bytes[i % 4][usize::from(*byte)] += 1;
        }
    };
    let mut counts = Counts { literals: [0; LITERALS], distances: [0; DISTANCES] };
    let rest = repeats(raw, block, row, FARTHEST, plain, |Repeat { literals, length: mut left, distance }| {
        let mut literals = literals.len();
        while left > 0 {
            // No rest shorter than the shortest repetition, which has three bytes.
            let length = if left <= LONGEST_MATCH { left } else { LONGEST_MATCH.min(left - 3) };
            counts.literals[length_symbol(length).0] += 1;
            counts.distances[distance_symbol(distance).0] += 1;
            steps.push(Step { literals, length, distance });
            (literals, left) = (0, left - length);
        }
    });
    raw[rest.end - rest.len() % 8..rest.end].iter().for_each(|byte| bytes[0][usize::from(*byte)] += 1);
    steps.push(Step { literals: rest.len(), length: 0, distance: 0 });
    for (byte, count) in counts.literals[..END].iter_mut().enumerate() {
        *count = bytes.iter().map(|table| table[byte]).sum();
    }
    counts.literals[END] = 1;
    counts
}

/// Symbol, extra bits and their number for a length of 3 to 258 (RFC 1951, 3.2.5).
fn length_symbol(length: usize) -> (usize, u64, u32) {
    let from = length - 3;
    match from {
        255 => (285, 0, 0),
        0..8 => (257 + from, 0, 0),
        _ => {
            let extra = from.ilog2() - 2;
            (257 + 4 * extra as usize + (from >> extra), (from & ((1 << extra) - 1)) as u64, extra)
        }
    }
}

/// The same for a distance of 1 to 32768.
fn distance_symbol(distance: usize) -> (usize, u64, u32) {
    let from = distance - 1;
    if from < 4 {
        return (from, 0, 0);
    }
    let extra = from.ilog2() - 1;
    (2 * extra as usize + (from >> extra), (from & ((1 << extra) - 1)) as u64, extra)
}

/// A canonical code: by symbol its bits, first bit lowest, and their number, 0 for what is not used.
struct Codes<const N: usize> {
    bits: [u32; N],
    lengths: [u8; N],
}

impl<const N: usize> Codes<N> {
    /// The code for symbols that are used so often.
    fn of(counts: &[u32; N], longest: usize) -> Self {
        let lengths = code_lengths(counts, longest);
        let mut of_length = [0u32; 16];
        lengths.iter().filter(|l| **l > 0).for_each(|l| of_length[usize::from(*l)] += 1);
        // RFC 1951, 3.2.2: codes of one length follow each other, after those of the next shorter one.
        let mut next = [0u32; 16];
        for length in 1..16 {
            next[length] = (next[length - 1] + of_length[length - 1]) << 1;
        }
        let mut bits = [0; N];
        for (bits, length) in bits.iter_mut().zip(&lengths).filter(|(_, l)| **l > 0) {
            *bits = next[usize::from(*length)].reverse_bits() >> (32 - u32::from(*length));
            next[usize::from(*length)] += 1;
        }
        Self { bits, lengths }
    }

    fn put(&self, bits: &mut Bits<'_>, (symbol, rest, extra): (usize, u64, u32)) {
        let length = u32::from(self.lengths[symbol]);
        bits.put(u64::from(self.bits[symbol]) | rest << length, length + extra);
    }
}

/// Lengths of Huffman's code, those beyond `longest` shortened at the expense of others, which is nearly the best there
/// is. At least two symbols get a code, because a code of one symbol is not complete.
fn code_lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let used = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let mut leaves: Vec<(u32, usize)> = used.map(|(symbol, count)| (*count, symbol)).collect();
    let unused = (0..2).filter(|symbol| counts[*symbol] == 0);
    let missing = 2usize.saturating_sub(leaves.len());
    leaves.extend(unused.take(missing).map(|symbol| (1, symbol)));
    leaves.sort_unstable();
    // Two queues: the leaves, and after them the inner nodes, which arise in order.
    let (n, nodes) = (leaves.len(), 2 * leaves.len() - 1);
    let mut weights: Vec<u64> = leaves.iter().map(|(count, _)| u64::from(*count)).collect();
    let mut parents = vec![0; nodes];
    let (mut leaf, mut inner) = (0, n);
    for node in n..nodes {
        let mut sum = 0;
        for _ in 0..2 {
            let from_leaves = leaf < n && (inner >= node || weights[leaf] <= weights[inner]);
            let least = if from_leaves { &mut leaf } else { &mut inner };
            sum += weights[*least];
            parents[*least] = node;
            *least += 1;
        }
        weights.push(sum);
    }
    let mut depths = vec![0; nodes];
    let mut of_depth = [0usize; 16];
    for node in (0..nodes - 1).rev() {
        depths[node] = depths[parents[node]] + 1;
        if node < n {
            of_depth[longest.min(depths[node])] += 1;
        }
    }
    // Cut off codes overfill the tree: a leaf of the lowest level goes and shares the place of a higher one.
    let taken = |of_depth: &[usize; 16]| (1..=longest).map(|d| of_depth[d] << (longest - d)).sum::<usize>();
    while taken(&of_depth) > 1 << longest {
        let Some(higher) = (1..longest).rev().find(|d| of_depth[*d] > 0) else { break };
        of_depth[longest] -= 1;
        of_depth[higher] -= 1;
        of_depth[higher + 1] += 2;
    }
    let mut lengths = [0; N];
    let mut most_used_first = leaves.iter().rev();
    for (depth, count) in of_depth.iter().enumerate() {
        for (_, symbol) in most_used_first.by_ref().take(*count) {
            lengths[*symbol] = depth as u8;
        }
    }
    lengths
}

/// The codes of a block (RFC 1951, 3.2.7).
fn header(bits: &mut Bits<'_>, literals: &Codes<LITERALS>, distances: &Codes<DISTANCES>) {
    let sent =
        |lengths: &[u8], least: usize| lengths.iter().rposition(|l| *l > 0).map_or(least, |at| least.max(at + 1));
    let (many, few) = (sent(&literals.lengths, 257), sent(&distances.lengths, 1));
    let all: Vec<u8> = literals.lengths[..many].iter().chain(&distances.lengths[..few]).copied().collect();
    let mut symbols: Vec<(usize, u64, u32)> = Vec::with_capacity(all.len());
    for run in all.chunk_by(|a, b| a == b) {
        let (length, mut left) = (usize::from(run[0]), run.len());
        if length > 0 {
            symbols.push((length, 0, 0));
            left -= 1;
        }
        while left > 0 {
            // 16: the length before, 17 and 18: zeros, so many times and as many more as the extra bits say.
            let (symbol, least, extra) = match (length, left) {
                (0, 11..) => (18, 11, 7),
                (0, 3..) => (17, 3, 3),
                (1.., 3..) => (16, 3, 2),
                _ => (length, 1, 0),
            };
            let step = left.min(least + (1 << extra) - 1);
            symbols.push((symbol, (step - least) as u64, extra));
            left -= step;
        }
    }
    let mut counts = [0; LENGTHS];
    symbols.iter().for_each(|(symbol, ..)| counts[*symbol] += 1);
    let codes = Codes::of(&counts, LONGEST_LENGTH);
    let told = ORDER.iter().rposition(|s| codes.lengths[*s] > 0).map_or(4, |at| (at + 1).max(4));
    bits.put((many - 257) as u64, 5);
    bits.put((few - 1) as u64, 5);
    bits.put((told - 4) as u64, 4);
    ORDER[..told].iter().for_each(|symbol| bits.put(u64::from(codes.lengths[*symbol]), 3));
    symbols.into_iter().for_each(|symbol| codes.put(bits, symbol));
}

/// The symbols of a block.
fn body(bits: &mut Bits<'_>, block: &[u8], steps: &[Step], literals: &Codes<LITERALS>, distances: &Codes<DISTANCES>) {
    // By byte: its code, and below it, in eight bits, the code's length.
    let mut table = [0u32; 256];
    for ((entry, code), length) in table.iter_mut().zip(&literals.bits).zip(&literals.lengths) {
        *entry = code << 8 | u32::from(*length);
    }
    let mut rest = block;
    for step in steps {
        let (plain, after) = rest.split_at(step.literals);
        rest = &after[step.length..];
        let (fours, ones) = plain.as_chunks::<4>();
        for four in fours {
            // In pairs first: shorter chains of what has to wait for what.
            let [a, b, c, d] = four.map(|byte| table[usize::from(byte)]);
            let pair = |a: u32, b: u32| (u64::from(a >> 8) | u64::from(b >> 8) << (a & 0xff), (a & 0xff) + (b & 0xff));
            let ((first, n), (second, m)) = (pair(a, b), pair(c, d));
            bits.put(first | second << n, n + m);
        }
        ones.iter().map(|byte| table[usize::from(*byte)]).for_each(|e| bits.put(u64::from(e >> 8), e & 0xff));
        if step.length > 0 {
            literals.put(bits, length_symbol(step.length));
            distances.put(bits, distance_symbol(step.distance));
        }
    }
    literals.put(bits, (END, 0, 0));
}

/// Bits on their way out, first bit lowest.
struct Bits<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Bits not written yet, at most seven.
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Adds `count` bits, at most 56.
    #[inline(always)]
    fn put(&mut self, bits: u64, count: u32) {
        let (held, count) = (self.held | bits << self.count, self.count + count);
        self.out[self.at..self.at + 8].copy_from_slice(&held.to_le_bytes());
        self.at += (count >> 3) as usize;
        (self.held, self.count) = (held >> (count & !7), count & 7);
    }

    /// Fills the byte that is begun up with zeros.
    fn align(&mut self) {
        self.put(0, self.count.wrapping_neg() & 7);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::repeats::mixed;
    use super::*;

    /// The stream, read by an inflater that shares no code with it.
    fn back(raw: &[u8], row: usize) -> (usize, Vec<u8>) {
        let mut deflater = Deflater::default();
        let stream = deflater.zlib(raw, row);
        let mut out = vec![0; raw.len()];
        let got = libdeflater::Decompressor::new().zlib_decompress(stream, &mut out).unwrap();
        assert_eq!(got, raw.len());
        (stream.len(), out)
    }

    #[test]
    fn every_length_comes_back_at_every_distance() {
        for row in [1, 2, 3, 7, 16, 512, 8192, FARTHEST, FARTHEST + 1] {
            for extra in (0..600).step_by(1 + row / 500) {
                let raw: Vec<u8> = (0..row + extra).map(|i| ((i % row * 167) >> 3) as u8).collect();
                assert_eq!(back(&raw, row).1, raw, "row {row}, {extra} more");
            }
        }
    }

    #[test]
    fn what_repeats_costs_next_to_nothing() {
        let row: Vec<u8> = (0..512u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let rows = row.repeat(256);
        let (noise, silence) = (back(&rows, 512).0, back(&[0; 1 << 17], 512).0);
        assert!(noise < 1_500 && silence < 600, "{noise} {silence}");
        assert_eq!(back(&[7], 512).1, [7]);
        assert!(back(&[], 512).1.is_empty());
    }

    /// Counts like Fibonacci's give Huffman's longest codes: 24 bits here.
    #[test]
    fn codes_that_would_be_too_long_are_shortened() {
        let mut counts = [0; LITERALS];
        let (mut a, mut b) = (1, 1);
        for count in &mut counts[..25] {
            *count = a;
            (a, b) = (b, a + b);
        }
        for longest in [LONGEST_LENGTH, LONGEST] {
            let lengths = code_lengths(&counts, longest);
            assert_eq!(lengths.iter().max(), Some(&(longest as u8)));
            let taken: usize = lengths.iter().filter(|l| **l > 0).map(|l| 1 << (longest - usize::from(*l))).sum();
            assert_eq!(taken, 1 << longest, "the code is complete");
            assert!(lengths[..25].is_sorted_by(|a, b| a >= b), "what is used more has the shorter code");
        }
        let raw: Vec<u8> = (0..25).flat_map(|byte| vec![byte as u8; counts[byte] as usize]).collect();
        assert_eq!(back(&raw, FARTHEST + 1).1, raw);
    }

    proptest! {
        /// Pieces of noise of all widths, of silence, and of what was there before.
        #[test]
        fn anything_comes_back(
            pieces in prop::collection::vec((0usize..3, 0usize..3_000, 1u32..256, any::<u32>()), 0..40),
            row in 1usize..1_000,
        ) {
            let raw = mixed(&pieces, row);
            prop_assert_eq!(back(&raw, row).1, raw);
        }
    }
}
