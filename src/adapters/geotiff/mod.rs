//! Chips as GeoTIFF bytes.
//!
//! Contract: image = uint16, planar (bands, rows, cols), one tile per band, predictor 2, nodata 0, band
//! descriptions, scale [`SCALE`]; mask = uint8, one tile, palette, names of the values as tags of its band. CRS by EPSG code and transform as GeoTIFF 1.1
//! keys, PixelIsArea. Equal input gives equal bytes: no clock, no path, no host in the file.
//! The directory is written by crate `tiff`'s low-level writer; tiles are compressed here because its own
//! encoder is ten times slower; at level 1 by [`super::deflate`] and `zstandard`, which know what differences of pixels
//! look like. Trap: `write_data` aligns nothing, so tiles come first, tags last.

mod gdal_xml;

use std::cell::RefCell;
use std::io::{Cursor, Seek, Write};

use multiversion::multiversion;
use tiff::encoder::{DirectoryEncoder, TiffEncoder, TiffKindStandard};
use tiff::tags::Tag;

use self::gdal_xml::Xml;
use super::deflate::Deflater;
use super::zstandard::Zstandard;
use crate::domain::scene::PixelGrid;

/// Compression of the written tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// zlib, level 1 to 12.
    Deflate(u8),
    /// Zstandard, level 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// TIFF tag value.
    fn tag(self) -> u16 {
        match self {
            Self::None => 1,
            Self::Deflate(_) => 8,
            Self::Zstd(_) => 50000,
        }
    }
}

/// A chip could not be encoded; only a fault of the program or of a codec.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Crate `tiff`.
    #[error("writing TIFF: {0}")]
    Tiff(#[from] tiff::TiffError),
    /// A codec.
    #[error("compressing: {0}")]
    Codec(String),
}

/// What both files say about where they are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Corner, resolution, size.
    pub grid: &'a PixelGrid,
    /// EPSG code of the projected CRS.
    pub epsg: u32,
}

/// Reflectance of one DN.
pub const SCALE: f64 = 0.0001;

/// How a mask shows its values.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskLook {
    /// Red, green, blue of each value.
    pub palette: [[u8; 3]; 256],
    /// Names of the values that mean something; the band has a tag `CLASS_5` and so on for each, because a TIFF has no
    /// other place for them.
    pub names: Vec<(u8, String)>,
    /// The value that means nothing.
    pub nodata: u8,
}

/// Encodes the image into `out`, in place of what that holds. `plane` writes one band, (rows, cols), which is encoded while
/// it is in the processor's cache; what it cannot write ends the image.
///
/// # Errors
/// See [`EncodeError`], and those of `plane`.
pub fn encode_image<E: From<EncodeError>>(
    place: Place<'_>,
    bands: &[&str],
    metadata: &[(&str, &str)],
    mut plane: impl FnMut(usize, &mut [u16]) -> Result<(), E>,
    compression: Compression,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    let (width, height) = (place.grid.width as usize, place.grid.height as usize);
    out.clear();
    // Address space only: pages that are not written cost nothing.
    out.reserve(bands.len() * width * height * 2);
    let mut tiff = TiffEncoder::new(Cursor::new(out)).map_err(EncodeError::from)?;
    let mut dir = tiff.image_directory().map_err(EncodeError::from)?;
    let (mut offsets, mut counts) = (Vec::new(), Vec::new());
    for band in 0..bands.len() {
        SCRATCH.with_borrow_mut(|Scratch { plane: pixels, residuals, tile, deflater, zstandard }| {
            pixels.resize(width * height, 0);
            plane(band, pixels)?;
            if compression != Compression::None {
                residuals.resize(pixels.len(), 0);
                differences(pixels, width, residuals);
            }
            let raw = bytemuck::cast_slice(if compression == Compression::None { pixels } else { residuals });
            let tile = match compression {
                Compression::Deflate(1) => deflater.zlib(raw, 2 * width),
                Compression::Zstd(1) => zstandard.frame(raw, 2 * width).map_err(EncodeError::Codec)?,
                _ => compress(raw, compression, tile)?,
            };
            offsets.push(offset32(dir.write_data(tile).map_err(EncodeError::from)?)?);
            counts.push(offset32(tile.len() as u64)?);
            Ok::<_, E>(())
        })?;
    }
    common_tags(&mut dir, place, compression, &offsets, &counts)?;
    image_tags(&mut dir, bands, metadata, compression)?;
    dir.finish().map_err(EncodeError::from)?;
    Ok(())
}

fn image_tags<W: Write + Seek>(
    dir: &mut DirectoryEncoder<'_, W, TiffKindStandard>,
    bands: &[&str],
    metadata: &[(&str, &str)],
    compression: Compression,
) -> Result<(), EncodeError> {
    let n = bands.len();
    dir.write_tag(Tag::BitsPerSample, &*vec![16u16; n])?;
    dir.write_tag(Tag::SampleFormat, &*vec![1u16; n])?;
    dir.write_tag(Tag::SamplesPerPixel, n as u16)?;
    dir.write_tag(Tag::PhotometricInterpretation, 1u16)?;
    dir.write_tag(Tag::PlanarConfiguration, 2u16)?;
    if n > 1 {
        dir.write_tag(Tag::ExtraSamples, &*vec![0u16; n - 1])?;
    }
    if compression != Compression::None {
        dir.write_tag(Tag::Predictor, 2u16)?;
    }
    dir.write_tag(Tag::Unknown(GDAL_METADATA), &*Xml::new(bands, metadata, Some(SCALE)).end())?;
    dir.write_tag(Tag::GdalNodata, "0")?;
    Ok(())
}

/// The bands of `pixels`, (bands, rows, cols), for [`encode_image`].
pub fn planes(pixels: &[u16]) -> impl Fn(usize, &mut [u16]) -> Result<(), EncodeError> {
    move |band, plane| {
        let size = plane.len();
        let here = pixels.get(band * size..(band + 1) * size);
        let here = here.ok_or_else(|| EncodeError::Codec(format!("there are no pixels of band {band}")))?;
        plane.copy_from_slice(here);
        Ok(())
    }
}

/// Encodes the mask, (rows, cols).
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_mask(
    place: Place<'_>,
    look: &MaskLook,
    metadata: &[(&str, &str)],
    pixels: &[u8],
    compression: Compression,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = Cursor::new(Vec::with_capacity(8192));
    let mut tiff = TiffEncoder::new(&mut out)?;
    let mut dir = tiff.image_directory()?;
    let (offset, count) = SCRATCH.with_borrow_mut(|Scratch { tile, .. }| {
        let tile = compress(pixels, compression, tile)?;
        Ok::<_, EncodeError>((offset32(dir.write_data(tile)?)?, offset32(tile.len() as u64)?))
    })?;
    common_tags(&mut dir, place, compression, &[offset], &[count])?;
    dir.write_tag(Tag::BitsPerSample, 8u16)?;
    dir.write_tag(Tag::SampleFormat, 1u16)?;
    dir.write_tag(Tag::SamplesPerPixel, 1u16)?;
    dir.write_tag(Tag::PhotometricInterpretation, 3u16)?;
    // TIFF 6.0 colour map: all reds, then all greens, then all blues, 16 bits each.
    let colours: Vec<u16> = (0..3).flat_map(|c| look.palette.iter().map(move |rgb| u16::from(rgb[c]) * 257)).collect();
    dir.write_tag(Tag::ColorMap, &*colours)?;
    let mut xml = Xml::new(&["class"], metadata, None);
    for (value, name) in &look.names {
        xml.item(format_args!("name=\"CLASS_{value}\" sample=\"0\""), name);
    }
    dir.write_tag(Tag::Unknown(GDAL_METADATA), &*xml.end())?;
    dir.write_tag(Tag::GdalNodata, &*look.nodata.to_string())?;
    dir.finish()?;
    Ok(out.into_inner())
}

/// Tag 42112: GDAL's XML of band descriptions and metadata.
const GDAL_METADATA: u16 = 42112;

fn common_tags<W: Write + Seek>(
    dir: &mut DirectoryEncoder<'_, W, TiffKindStandard>,
    place: Place<'_>,
    compression: Compression,
    offsets: &[u32],
    counts: &[u32],
) -> Result<(), EncodeError> {
    let grid = place.grid;
    dir.write_tag(Tag::ImageWidth, grid.width)?;
    dir.write_tag(Tag::ImageLength, grid.height)?;
    dir.write_tag(Tag::Compression, compression.tag())?;
    dir.write_tag(Tag::TileWidth, grid.width)?;
    dir.write_tag(Tag::TileLength, grid.height)?;
    dir.write_tag(Tag::TileOffsets, offsets)?;
    dir.write_tag(Tag::TileByteCounts, counts)?;
    dir.write_tag(Tag::ModelPixelScaleTag, &[grid.res, grid.res, 0.0][..])?;
    dir.write_tag(Tag::ModelTiepointTag, &[0.0, 0.0, 0.0, grid.x0, grid.y0, 0.0][..])?;
    let epsg = u16::try_from(place.epsg)
        .map_err(|_| EncodeError::Codec(format!("EPSG:{} does not fit a GeoKey", place.epsg)))?;
    // OGC GeoTIFF 1.1: projected model, PixelIsArea, ProjectedCRS by EPSG code, metres.
    let keys = [1, 1, 1, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg, 3076, 0, 1, 9001];
    dir.write_tag(Tag::GeoKeyDirectoryTag, &keys[..])?;
    Ok(())
}

fn offset32(value: u64) -> Result<u32, EncodeError> {
    u32::try_from(value).map_err(|_| EncodeError::Codec("the chip exceeds 4 GiB".into()))
}

/// Predictor 2, row by row: each sample minus its left neighbour, modulo 2^16. From one buffer into another, because
/// in place the compiler would find no vectors.
#[multiversion(targets("x86_64+avx2"))]
fn differences(plane: &[u16], width: usize, residuals: &mut [u16]) {
    for (row, out) in plane.chunks_exact(width).zip(residuals.chunks_exact_mut(width)) {
        out[0] = row[0];
        for ((out, left), here) in out[1..].iter_mut().zip(row).zip(&row[1..]) {
            *out = here.wrapping_sub(*left);
        }
    }
}

/// Buffers of one tile, kept per thread: two thirds of a MiB for chips of 256 pixels.
#[derive(Default)]
struct Scratch {
    plane: Vec<u16>,
    residuals: Vec<u16>,
    tile: Vec<u8>,
    deflater: Deflater,
    zstandard: Zstandard,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static ZSTD: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    static DEFLATE: RefCell<Option<(u8, libdeflater::Compressor)>> = const { RefCell::new(None) };
}

/// Compresses one tile into `out`, which holds nothing else afterwards; codec states are kept per thread.
fn compress<'a>(raw: &[u8], compression: Compression, out: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
    let failed = |e: &dyn std::fmt::Display| EncodeError::Codec(e.to_string());
    out.clear();
    match compression {
        Compression::None => out.extend_from_slice(raw),
        Compression::Zstd(level) => ZSTD.with_borrow_mut(|slot| {
            let (_, codec) = match slot.take() {
                Some(kept) if kept.0 == level => slot.insert(kept),
                _ => slot.insert((level, zstd::bulk::Compressor::new(level).map_err(|e| failed(&e))?)),
            };
            out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
            codec.compress_to_buffer(raw, out).map_err(|e| failed(&e)).map(drop)
        })?,
        Compression::Deflate(level) => DEFLATE.with_borrow_mut(|slot| {
            let fresh = || {
                let lvl = libdeflater::CompressionLvl::new(i32::from(level)).unwrap_or_default();
                (level, libdeflater::Compressor::new(lvl))
            };
            if slot.as_ref().is_none_or(|(l, _)| *l != level) {
                *slot = Some(fresh());
            }
            let (_, codec) = slot.get_or_insert_with(fresh);
            out.resize(codec.zlib_compress_bound(raw.len()), 0);
            let n = codec.zlib_compress(raw, out).map_err(|e| failed(&e))?;
            out.truncate(n);
            Ok::<_, EncodeError>(())
        })?,
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use gdal::raster::ResampleAlg;
    use gdal::{Dataset, Metadata};

    use super::*;

    const GRID: PixelGrid = PixelGrid { x0: 546_520.0, y0: 5_109_140.0, res: 10.0, width: 64, height: 64 };

    fn pixels(bands: usize) -> Vec<u16> {
        (0..bands * 64 * 64).map(|i| ((i * 7919) % 65_521) as u16).collect()
    }

    /// GDAL, which shares no code with the writer, must read back exactly what was given.
    #[test]
    fn gdal_reads_every_compression_back() {
        let dir = tempfile::tempdir().unwrap();
        let deflates = [1, 6].map(Compression::Deflate);
        let zstds = [1, 3].map(Compression::Zstd);
        for compression in [Compression::None].into_iter().chain(deflates).chain(zstds) {
            let place = Place { grid: &GRID, epsg: 32633 };
            // What was in the buffer is of no account.
            let mut bytes = vec![7; 100_000];
            encode_image(place, &["B02", "B<3"], &[("ITEM", "S2A & B")], planes(&pixels(2)), compression, &mut bytes)
                .unwrap();
            let path = dir.path().join("chip.tif");
            std::fs::write(&path, &bytes).unwrap();
            let tif = Dataset::open(&path).unwrap();
            assert_eq!(tif.raster_size(), (64, 64));
            assert_eq!(tif.geo_transform().unwrap(), [546_520.0, 10.0, 0.0, 5_109_140.0, 0.0, -10.0]);
            assert_eq!(tif.spatial_ref().unwrap().auth_code().unwrap(), 32633);
            assert_eq!(tif.metadata_item("ITEM", "").as_deref(), Some("S2A & B"));
            for (i, name) in ["B02", "B<3"].iter().enumerate() {
                let band = tif.rasterband(i + 1).unwrap();
                assert_eq!(&band.description().unwrap(), name);
                assert_eq!((band.no_data_value(), band.scale(), band.offset()), (Some(0.0), Some(0.0001), Some(0.0)));
                let read = band.read_as::<u16>((0, 0), (64, 64), (64, 64), None::<ResampleAlg>).unwrap();
                assert_eq!(read.data(), &pixels(2)[i * 4096..(i + 1) * 4096], "{compression:?}");
            }
        }
    }

    #[test]
    fn gdal_reads_the_mask_and_its_palette() {
        let dir = tempfile::tempdir().unwrap();
        let mut palette = [[0; 3]; 256];
        palette[5] = [255, 128, 1];
        let mask: Vec<u8> = (0..64 * 64).map(|i| (i % 9) as u8).collect();
        let names = vec![(0, "background".to_owned()), (5, "winter <cereals>".to_owned())];
        let look = MaskLook { palette, names, nodata: 255 };
        let place = Place { grid: &GRID, epsg: 32630 };
        let bytes = encode_mask(place, &look, &[("RUN", "r1")], &mask, Compression::Zstd(1)).unwrap();
        let path = dir.path().join("mask.tif");
        std::fs::write(&path, &bytes).unwrap();
        let tif = Dataset::open(&path).unwrap();
        let band = tif.rasterband(1).unwrap();
        assert_eq!(band.read_as::<u8>((0, 0), (64, 64), (64, 64), None).unwrap().data(), mask);
        let colour = band.color_table().unwrap().entry_as_rgb(5).unwrap();
        assert_eq!((colour.r, colour.g, colour.b), (255, 128, 1));
        assert_eq!((band.no_data_value(), band.description().unwrap().as_str()), (Some(255.0), "class"));
        assert_eq!(band.metadata_item("CLASS_5", "").as_deref(), Some("winter <cereals>"));
        assert_eq!(tif.metadata_item("RUN", "").as_deref(), Some("r1"));
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        let make = || {
            let place = Place { grid: &GRID, epsg: 32633 };
            let mut bytes = Vec::new();
            encode_image(place, &["a", "b", "c"], &[], planes(&pixels(3)), Compression::Zstd(1), &mut bytes).unwrap();
            bytes
        };
        assert_eq!(make(), make());
    }
}
