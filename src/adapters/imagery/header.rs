//! The header of one COG: what is needed to read any of the blocks of one of its levels.
//!
//! Contract: parsed by crate `tiff` from the first [`FIRST_READ`] bytes; a file that keeps its
//! directory elsewhere costs one small read more for each place the parser looks at, at most
//! [`MAX_READS`]. Accepted: classic and BigTIFF, both byte orders, tiles and strips, one sample of 8
//! or 16 unsigned bits, DEFLATE, LZW, ZSTD or none, predictor 1 or 2. Everything else is refused by
//! name. Trap: all sizes come from outside, so they are checked before anything is allocated.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::{ByteOrder, CompressionMethod, Predictor, Tag};

use super::ImageryError;
use super::source::RangeSource;
use crate::domain::scene::PixelGrid;

/// First read of a file, bytes: holds the directory of a 10,980 x 10,980 COG (2.7 KB) and of one with
/// blocks of 256 (15 KB).
pub const FIRST_READ: u64 = 16 * 1024;

/// Reads for one header at the most.
pub const MAX_READS: usize = 12;

/// Largest decoded block, bytes: 4096 x 4096 pixels of 16 bits.
pub const MAX_BLOCK_BYTES: usize = 32 * 1024 * 1024;

/// How a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// One unsigned byte.
    U8,
    /// Two unsigned bytes.
    U16,
}

impl Sample {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
        }
    }
}

/// How a block is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// LZW, most significant bit first.
    Lzw,
    /// zlib stream.
    Deflate,
    /// Zstandard frame.
    Zstd,
}

/// Which of a file's images is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The first one, at full resolution.
    Full,
    /// The smallest overview; the full one in a file without overviews.
    Smallest,
}

/// A parsed header.
#[derive(Debug, Clone, PartialEq)]
pub struct Cog {
    /// Where the file is.
    pub href: String,
    /// Columns of the full-resolution image.
    pub width: u32,
    /// Rows of the full-resolution image.
    pub height: u32,
    /// Sample type.
    pub sample: Sample,
    /// Compression.
    pub codec: Codec,
    /// Whether rows are stored as horizontal differences (predictor 2).
    pub differences: bool,
    /// Whether samples are big-endian.
    pub big_endian: bool,
    /// Columns of a block.
    pub block_width: u32,
    /// Rows of a block.
    pub block_height: u32,
    /// Whether blocks are strips: the last one is then as short as the image demands.
    pub strips: bool,
    /// Byte range of every block, row-major; an empty range is a block of zeros.
    pub blocks: Vec<Range<u64>>,
    /// Georeference, when the file has a north-up one with square pixels.
    pub grid: Option<PixelGrid>,
    /// EPSG code of the file's projected CRS, when it states one.
    pub epsg: Option<u32>,
}

impl Cog {
    /// Blocks side by side.
    pub fn across(&self) -> u32 {
        self.width.div_ceil(self.block_width)
    }

    /// Rows that block `index` really has.
    pub fn rows_of(&self, index: u32) -> u32 {
        if self.strips {
            let first = (index / self.across()) * self.block_height;
            self.block_height.min(self.height.saturating_sub(first))
        } else {
            self.block_height
        }
    }

    /// Decoded size of block `index`, bytes.
    pub fn decoded_bytes(&self, index: u32) -> usize {
        self.block_width as usize * self.rows_of(index) as usize * self.sample.bytes()
    }

    /// Opens the file: reads its header and checks that its blocks can be decoded.
    ///
    /// # Errors
    /// `Transient` and `Permanent` failures of the source; [`ImageryError::NotUsable`] for a file that
    /// is no TIFF or a kind of TIFF that is not read.
    pub async fn open(source: &dyn RangeSource, href: &str) -> Result<Self, ImageryError> {
        Self::open_level(source, href, Level::Full).await
    }

    /// As [`Cog::open`], for one level of the file.
    ///
    /// # Errors
    /// As [`Cog::open`].
    pub async fn open_level(source: &dyn RangeSource, href: &str, level: Level) -> Result<Self, ImageryError> {
        let mut known = BTreeMap::new();
        let mut next = 0..FIRST_READ;
        for _ in 0..MAX_READS {
            let bytes = source.range_upto(href, next.clone()).await?;
            let ended = (bytes.len() as u64) < next.end - next.start;
            known.insert(next.start, bytes);
            let missing = Cell::new(None);
            match parse(href, Sparse { known: &known, at: 0, missing: &missing }, level) {
                Ok(cog) => return Ok(cog),
                Err(error) => match missing.get() {
                    None => return Err(error),
                    Some(at) if ended && at >= next.start => {
                        return Err(not_usable(
                            href,
                            format!("the file ends before byte {at}, which its directory needs"),
                        ));
                    }
                    Some(at) => next = at..at + FIRST_READ,
                },
            }
        }
        Err(not_usable(href, format!("its directory is scattered over more than {MAX_READS} places")))
    }
}

fn not_usable(href: &str, why: impl Into<String>) -> ImageryError {
    ImageryError::NotUsable { href: href.to_owned(), why: why.into() }
}

/// The parts of a file that have been read, as a reader; a read outside them fails and is noted.
struct Sparse<'a> {
    known: &'a BTreeMap<u64, Bytes>,
    at: u64,
    missing: &'a Cell<Option<u64>>,
}

impl Read for Sparse<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = self.known.range(..=self.at).rev().find(|(start, b)| self.at < *start + b.len() as u64);
        let Some((start, bytes)) = part else {
            self.missing.set(Some(self.at));
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "not read yet"));
        };
        let rest = &bytes[(self.at - start) as usize..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Sparse<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(_) => return Err(io::Error::new(io::ErrorKind::Unsupported, "the end is not known")),
        };
        Ok(self.at)
    }
}

/// Largest value of one directory entry, bytes: 32,768 block addresses of 8 bytes.
const MAX_VALUE_BYTES: u64 = 256 * 1024;

/// Directories of one file that are followed.
const MAX_DIRECTORIES: usize = 16;

/// Holds the directories that `level` needs against [`MAX_VALUE_BYTES`] before crate `tiff` reads them, because that
/// allocates some two hundred bytes for each value an entry claims to have.
fn check_directories(reader: &mut Sparse<'_>, level: Level) -> io::Result<Result<(), String>> {
    let mut head = [0; 16];
    reader.read_exact(&mut head[..8])?;
    let little = match &head[..2] {
        b"II" => true,
        b"MM" => false,
        _ => return Ok(Err("it is not a TIFF".into())),
    };
    let number = |bytes: &[u8]| {
        let step = |n: u64, b: &u8| n << 8 | u64::from(*b);
        if little { bytes.iter().rev().fold(0, step) } else { bytes.iter().fold(0, step) }
    };
    let big = number(&head[2..4]) == 43;
    let (mut at, entry) = if big {
        reader.read_exact(&mut head[8..16])?;
        (number(&head[8..16]), 20)
    } else {
        (number(&head[4..8]), 12)
    };
    for _ in 0..MAX_DIRECTORIES {
        reader.seek(SeekFrom::Start(at))?;
        let mut count = [0; 8];
        let count = &mut count[..if big { 8 } else { 2 }];
        reader.read_exact(count)?;
        let entries = number(count);
        if entries > 4096 {
            return Ok(Err(format!("its directory claims {entries} entries")));
        }
        for _ in 0..entries {
            let mut raw = [0; 20];
            reader.read_exact(&mut raw[..entry])?;
            let values = number(&raw[4..if big { 12 } else { 8 }]);
            // TIFF 6.0, section 2, and BigTIFF: bytes of one value by type.
            let size = match number(&raw[2..4]) {
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16..=18 => 8,
                _ => 1,
            };
            if values.saturating_mul(size) > MAX_VALUE_BYTES {
                let tag = number(&raw[..2]);
                return Ok(Err(format!("tag {tag} claims {values} values, more than {MAX_VALUE_BYTES} bytes hold")));
            }
        }
        if level == Level::Full {
            break;
        }
        let mut next = [0; 8];
        let next = &mut next[..if big { 8 } else { 4 }];
        reader.read_exact(next)?;
        at = number(next);
        if at == 0 {
            break;
        }
    }
    reader.seek(SeekFrom::Start(0))?;
    Ok(Ok(()))
}

/// Leaves the decoder at the image that is meant.
fn seek_level<R: Read + Seek>(tiff: &mut Decoder<R>, level: Level) -> tiff::TiffResult<()> {
    if level == Level::Full {
        return Ok(());
    }
    let (mut at, mut best) = (0, (tiff.dimensions()?.0, 0));
    while at + 1 < MAX_DIRECTORIES && tiff.more_images() {
        tiff.next_image()?;
        at += 1;
        // TIFF 6.0, NewSubfileType: bit 0 is a reduced image, bit 2 a mask.
        let kind = tiff.find_tag_unsigned::<u32>(Tag::NewSubfileType)?.unwrap_or(0);
        let width = tiff.dimensions()?.0;
        if kind & 0b101 == 1 && width < best.0 {
            best = (width, at);
        }
    }
    tiff.seek_to_image(best.1)
}

fn parse(href: &str, mut reader: Sparse<'_>, level: Level) -> Result<Cog, ImageryError> {
    let refuse = |why: String| not_usable(href, why);
    check_directories(&mut reader, level).map_err(|e| refuse(e.to_string()))?.map_err(refuse)?;
    let mut tiff = Decoder::new(reader).map_err(|e| refuse(e.to_string()))?;
    seek_level(&mut tiff, level).map_err(|e| refuse(e.to_string()))?;
    let (width, height) = tiff.dimensions().map_err(|e| refuse(e.to_string()))?;
    let mut tag = |tag: Tag| tiff.find_tag_unsigned_vec::<u64>(tag).map_err(|e| refuse(e.to_string()));
    let one = |values: Option<Vec<u64>>, default: u64| values.and_then(|v| v.first().copied()).unwrap_or(default);
    let samples = one(tag(Tag::SamplesPerPixel)?, 1);
    if samples != 1 {
        return Err(refuse(format!("{samples} samples per pixel; only single-band files are read")));
    }
    let (bits, format) = (one(tag(Tag::BitsPerSample)?, 1), one(tag(Tag::SampleFormat)?, 1));
    let sample = match (bits, format) {
        (8, 1) => Sample::U8,
        (16, 1) => Sample::U16,
        _ => {
            return Err(refuse(format!(
                "samples of {bits} bits, format {format}; only unsigned 8 and 16 bits are read"
            )));
        }
    };
    let codec = one(tag(Tag::Compression)?, 1);
    let codec = match CompressionMethod::from_u16_exhaustive(u16::try_from(codec).unwrap_or(0)) {
        CompressionMethod::None => Codec::None,
        CompressionMethod::LZW => Codec::Lzw,
        CompressionMethod::Deflate | CompressionMethod::OldDeflate => Codec::Deflate,
        CompressionMethod::ZSTD => Codec::Zstd,
        other => return Err(refuse(format!("compression {other:?} is not read (DEFLATE, LZW, ZSTD and none are)"))),
    };
    let predictor = one(tag(Tag::Predictor)?, 1);
    let differences = match u16::try_from(predictor).ok().and_then(Predictor::from_u16) {
        Some(Predictor::None) => false,
        Some(Predictor::Horizontal) => true,
        _ => return Err(refuse(format!("predictor {predictor} is not read (1 and 2 are)"))),
    };
    let (offsets, counts) = match tag(Tag::TileOffsets)? {
        Some(offsets) => (offsets, tag(Tag::TileByteCounts)?),
        None => (tag(Tag::StripOffsets)?.unwrap_or_default(), tag(Tag::StripByteCounts)?),
    };
    let (block_width, block_height) = tiff.chunk_dimensions();
    let decoded = u64::from(block_width) * u64::from(block_height) * sample.bytes() as u64;
    if decoded > MAX_BLOCK_BYTES as u64 {
        return Err(refuse(format!("blocks of {block_width} x {block_height} pixels exceed {MAX_BLOCK_BYTES} bytes")));
    }
    let blocks = block_ranges(&offsets, &counts.unwrap_or_default(), decoded).map_err(&refuse)?;
    let strips = tiff.get_chunk_type() == ChunkType::Strip;
    let big_endian = tiff.byte_order() == ByteOrder::BigEndian;
    let grid = georeference(&mut tiff, width, height);
    let epsg = projected_crs(&mut tiff);
    Ok(Cog {
        href: href.to_owned(),
        width,
        height,
        sample,
        codec,
        differences,
        big_endian,
        block_width,
        block_height,
        strips,
        blocks,
        grid,
        epsg,
    })
}

/// Pairs offsets and counts; a block that claims more than any codec can need is refused here, before
/// anybody fetches it.
fn block_ranges(offsets: &[u64], counts: &[u64], decoded: u64) -> Result<Vec<Range<u64>>, String> {
    let limit = 2 * decoded + 64 * 1024;
    let range = |(at, count): (&u64, &u64)| match at.checked_add(*count) {
        Some(end) if *count <= limit => Ok(*at..end),
        _ => Err(format!("a block claims {count} bytes at {at}, more than the {limit} it can need")),
    };
    offsets.iter().zip(counts).map(range).collect()
}

/// North-up grid from `ModelPixelScale` + `ModelTiepoint` or `ModelTransformation`
/// (OGC GeoTIFF 1.1, section 7.1.1), raster type PixelIsArea.
fn georeference<R: Read + Seek>(tiff: &mut Decoder<R>, width: u32, height: u32) -> Option<PixelGrid> {
    let (scale_x, scale_y, x0, y0) = if let Ok(m) = tiff.get_tag_f64_vec(Tag::ModelTransformationTag) {
        let [a, b, _, d, e, f, _, h] = *m.first_chunk::<8>()?;
        if b != 0.0 || e != 0.0 {
            return None;
        }
        (a, -f, d, h)
    } else {
        let scale = tiff.get_tag_f64_vec(Tag::ModelPixelScaleTag).ok()?;
        let tie = tiff.get_tag_f64_vec(Tag::ModelTiepointTag).ok()?;
        let ([sx, sy, ..], [col, row, _, x, y, ..]) = (*scale.first_chunk::<2>()?, *tie.first_chunk::<5>()?);
        (sx, sy, x - col * sx, y + row * sy)
    };
    let square = scale_x > 0.0 && scale_x == scale_y && x0.is_finite() && y0.is_finite();
    square.then_some(PixelGrid { x0, y0, res: scale_x, width, height })
}

/// `ProjectedCRSGeoKey` (3072) of the GeoKey directory, when it holds an EPSG code.
fn projected_crs<R: Read + Seek>(tiff: &mut Decoder<R>) -> Option<u32> {
    let keys = tiff.get_tag_u16_vec(Tag::GeoKeyDirectoryTag).ok()?;
    let entry = keys.get(4..)?.chunks_exact(4).find(|k| k[0] == 3072 && k[1] == 0)?;
    (entry[3] != 32767).then_some(u32::from(entry[3]))
}
