//! From the bytes of an image file to RGB pixels, as Pillow's `convert("RGB")` gives them.
//!
//! The content decides the format, whatever the file is called. Gray is repeated into three channels, alpha is dropped
//! (not blended), a palette is looked up, and of an animation the first frame counts. 16-bit colour keeps its high
//! byte; 16-bit gray is *clipped* at 255, which is what Pillow does and seldom what a user wants, so [`Rgb::clipped`]
//! says when it cost something. EXIF orientation is applied only where it is asked for.
//!
//! JPEG pixels are Pillow's to the bit, but for odd files that the [exact decoder](super::jpeg) leaves to another: those are
//! within a few grey levels.
//!
//! Refused: formats that Keras does not read (TIFF, WebP, DICOM, ...), truncated files, more than [`MAX_PIXELS`] or
//! [`MAX_SIDE`], which is known from the header before any memory is asked for.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use crate::data::jpeg;
use crate::data::shield::shielded;
use crate::data::sniff::{Format, jpeg_is_whole, png_is_whole, sniff};
use crate::error::{Error, Result};

/// The most pixels an image may have.
pub const MAX_PIXELS: u64 = 100_000_000;
/// The most pixels a side of an image may have.
pub const MAX_SIDE: u32 = 20_000;
/// An image of more pixels is decoded alone, so that memory does not grow with the number of threads.
const LARGE_PIXELS: u64 = 25_000_000;
static ALONE: Mutex<()> = Mutex::new(());
/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// What a decoder may hold besides its result: one GIF frame in RGBA of [`MAX_PIXELS`].
const MAX_DECODER_BYTES: u64 = 4 * MAX_PIXELS;

/// An image as rows of red, green, blue bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// The EXIF orientation that the file carries, 1 (upright) to 8, applied or not.
    pub orientation: u8,
    /// Whether 16-bit gray lost values above 255.
    pub clipped: bool,
}

/// The bytes of a file that is to be decoded.
///
/// # Errors
/// Not a regular file (a pipe would never end), larger than [`MAX_FILE_BYTES`], or unreadable; with the path.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = regular_file(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, &e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::input(format!("the file has more than {MAX_FILE_BYTES} bytes")).at(path.display()));
    }
    Ok(bytes)
}

fn regular_file(path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !kind.is_file() {
        return Err(Error::input("not a regular file").at(path.display()));
    }
    File::open(path).map_err(|e| Error::io(path, &e))
}

/// Reads and decodes a file. The error has the path.
pub fn decode_file(path: &Path, exif: bool) -> Result<Rgb> {
    decode(&read_file(path)?, exif).map_err(|e| e.at(path.display()))
}

/// Decodes an image file's bytes; `exif` turns the image as its EXIF orientation says.
///
/// # Errors
/// Kind `Input`, without a path: empty, not an image, a format that is not read, truncated, damaged, too large.
pub fn decode(bytes: &[u8], exif: bool) -> Result<Rgb> {
    let format = sniff(bytes)?;
    shielded(|| decode_as(format, bytes, exif)).unwrap_or_else(|| Err(Error::input("damaged: the decoder gave up on it")))
}

fn decode_as(format: Format, bytes: &[u8], exif: bool) -> Result<Rgb> {
    let stream = Cursor::new(bytes);
    let limits = || {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        limits
    };
    match format {
        Format::Jpeg => {
            let turn = OnceCell::new();
            let fits = |width: usize, height: usize| {
                let fits = check_size(width as u32, height as u32).is_ok() && jpeg_is_whole(bytes);
                fits && turn.set(alone(width as u32, height as u32)).is_ok()
            };
            let exact = jpeg::decode(bytes, MAX_DECODER_BYTES, fits);
            drop(turn);
            match exact {
                Some(jpeg) => upright(jpeg.width as u32, jpeg.height as u32, jpeg.pixels, jpeg.orientation, exif),
                None => finish(JpegDecoder::new(stream).map_err(reason)?, exif, || jpeg_is_whole(bytes), false),
            }
        }
        Format::Png => {
            let decoder = PngDecoder::with_limits(stream, limits()).map_err(reason)?;
            // IHDR comes first: bit depth at byte 24, colour type (0: gray) at byte 25.
            let gray16 = bytes.get(24..26) == Some(&[16, 0]);
            finish(decoder, exif, || png_is_whole(bytes), gray16)
        }
        Format::Gif => {
            let mut decoder = GifDecoder::new(stream).map_err(reason)?;
            decoder.set_limits(limits()).map_err(reason)?;
            finish(decoder, exif, || true, false)
        }
        Format::Bmp => finish(BmpDecoder::new(stream).map_err(reason)?, exif, || true, false),
    }
}

/// Size check, then wholeness, then pixels: each refuses before the next one costs anything.
fn finish(mut decoder: impl ImageDecoder, exif: bool, is_whole: impl Fn() -> bool, gray16: bool) -> Result<Rgb> {
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let _turn = alone(width, height);
    if !is_whole() {
        return Err(Error::input("truncated: the file ends before the image does"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(reason)?;
    let clipped = gray16 && any_above_255(&decoded);
    let rgb = upright(width, height, to_rgb(decoded, gray16), orientation.to_exif(), exif)?;
    Ok(Rgb { clipped, ..rgb })
}

/// The pixels as an image, turned by their EXIF orientation if `exif` says so.
fn upright(width: u32, height: u32, pixels: Vec<u8>, orientation: u8, exif: bool) -> Result<Rgb> {
    let rgb = image::RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::internal("a decoder gave too few pixels"))?;
    let (mut rgb, turn) = (DynamicImage::ImageRgb8(rgb), Orientation::from_exif(orientation).unwrap_or(Orientation::NoTransforms));
    if exif {
        rgb.apply_orientation(turn);
    }
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(Rgb { width, height, pixels: rgb.into_bytes(), orientation: turn.to_exif(), clipped: false })
}

/// The turn of a large image; a lock that a panic poisoned guards all the same.
fn alone(width: u32, height: u32) -> Option<MutexGuard<'static, ()>> {
    let large = u64::from(width) * u64::from(height) > LARGE_PIXELS;
    large.then(|| ALONE.lock().unwrap_or_else(|e| e.into_inner()))
}

fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::input(format!("its header says {width} x {height} pixels")));
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::input(format!(
            "its header says {width} x {height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
        )));
    }
    Ok(())
}

fn any_above_255(image: &DynamicImage) -> bool {
    match image {
        DynamicImage::ImageLuma16(b) => b.pixels().any(|p| p.0[0] > 255),
        DynamicImage::ImageLumaA16(b) => b.pixels().any(|p| p.0[0] > 255),
        _ => false,
    }
}

/// `[height, width, 3]` bytes. `gray16`: the file is 16-bit gray without an alpha channel of its own, Pillow's `I;16`.
fn to_rgb(image: DynamicImage, gray16: bool) -> Vec<u8> {
    fn gray<T: Copy>(samples: &[T], step: usize, f: impl Fn(T) -> u8) -> Vec<u8> {
        samples.iter().step_by(step).flat_map(|&v| [f(v); 3]).collect()
    }
    fn colour<T: Copy>(samples: &[T], step: usize, f: impl Fn(T) -> u8) -> Vec<u8> {
        samples.chunks_exact(step).flat_map(|p| [f(p[0]), f(p[1]), f(p[2])]).collect()
    }
    let high = |v: u16| (v >> 8) as u8;
    let narrow = |v: u16| if gray16 { v.min(255) as u8 } else { high(v) };
    match image {
        DynamicImage::ImageRgb8(b) => b.into_raw(),
        DynamicImage::ImageRgba8(b) => colour(&b, 4, |v| v),
        DynamicImage::ImageLuma8(b) => gray(&b, 1, |v| v),
        DynamicImage::ImageLumaA8(b) => gray(&b, 2, |v| v),
        DynamicImage::ImageLuma16(b) => gray(&b, 1, narrow),
        DynamicImage::ImageLumaA16(b) => gray(&b, 2, narrow),
        DynamicImage::ImageRgb16(b) => colour(&b, 3, high),
        DynamicImage::ImageRgba16(b) => colour(&b, 4, high),
        other => other.to_rgb8().into_raw(),
    }
}

fn reason(e: ImageError) -> Error {
    let text = match &e {
        ImageError::Decoding(inner) => std::error::Error::source(inner).map_or_else(|| inner.to_string(), |cause| cause.to_string()),
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Error::input("truncated: the file ends before the image does");
        }
        other => other.to_string(),
    };
    // Structures and bytes that a decoder prints for its own developers.
    let text = if text.contains(['{', '\u{fffd}']) { "its parts are not in order" } else { text.trim().trim_matches('"') };
    Error::input(format!("damaged or unusual: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, shared};

    use image::{ExtendedColorType, ImageFormat};

    /// An encoded image.
    fn encoded(format: ImageFormat, width: u32, height: u32, color: ExtendedColorType, samples: &[u8]) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image::write_buffer_with_format(&mut out, samples, width, height, color, format).unwrap();
        out.into_inner()
    }

    /// 32 x 32 pixels of noise, so that no codec can shorten it.
    fn noise() -> Vec<u8> {
        let mut random = crate::data::permutation::SplitMix64::new(1);
        (0..32 * 32 * 3).map(|_| random.next_u64() as u8).collect()
    }

    fn means(rgb: &Rgb) -> [f64; 3] {
        let mut sums = [0u64; 3];
        rgb.pixels.chunks_exact(3).for_each(|p| (0..3).for_each(|c| sums[c] += u64::from(p[c])));
        sums.map(|s| s as f64 / (rgb.width * rgb.height) as f64)
    }

    /// Where the result is knowingly not Pillow's: file, reason.
    const NOT_AS_PILLOW: [(&str, &str); 9] = [
        ("image-rs/2-color.webp", "WebP is no format that Keras reads"),
        ("image-rs/simple-rgb.webp", "WebP is no format that Keras reads"),
        ("pillow/hopper.webp", "WebP is no format that Keras reads"),
        ("image-rs/rgb-3c-16b.tiff", "TIFF is no format that Keras reads"),
        ("image-rs/ycbcr_jpeg_8bit.tif", "TIFF is no format that Keras reads"),
        ("pillow/hopper.tif", "TIFF is no format that Keras reads"),
        ("pillow/truncated_app14.jpg", "a cut Adobe segment, by which the colours cannot be known; refused"),
        ("jpeg-decoder/dc-predictor-overflow.jpg", "noise whose DC sums leave 16 bits; the overflow differs"),
        ("pillow/png_decompression_dos.png", "the bomb is in a text chunk, which is never inflated; the pixel decodes"),
    ];

    #[test]
    fn odd_files_decode_as_pillow_decodes_them() {
        let Some(folder) = shared("data/odd-images") else { return };
        let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
        let mut wrong = Vec::new();
        let mut agree = 0;
        for line in manifest.lines().skip(1) {
            let column: Vec<&str> = line.split('\t').collect();
            let (name, pillow_ok) = (column[0], column[6] == "ok");
            let expected: Vec<f64> = column[7].split_whitespace().map(|v| v.parse().unwrap()).collect();
            let found = decode_file(&folder.join(name), false);
            let same = match &found {
                Ok(rgb) => pillow_ok && means(rgb).iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1.0),
                Err(_) => !pillow_ok,
            };
            agree += usize::from(same);
            if same == NOT_AS_PILLOW.iter().any(|(n, _)| *n == name) {
                wrong.push(format!(
                    "{name}: Pillow {} {expected:?}, here {:?}",
                    column[6],
                    found.map(|r| means(&r)).map_err(|e| e.to_string())
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(agree, 73 - NOT_AS_PILLOW.len());
    }
    #[test]
    fn sixteen_bits_become_eight_as_in_pillow() {
        let samples: Vec<u8> =
            [[0x12u16, 0x1234, 0xff00], [0x00ff, 0x0100, 0xffff]].as_flattened().iter().flat_map(|v| v.to_ne_bytes()).collect();
        let colour = decode(&encoded(ImageFormat::Png, 2, 1, ExtendedColorType::Rgb16, &samples), false).unwrap();
        assert_eq!((colour.pixels, colour.clipped), (vec![0x00, 0x12, 0xff, 0x00, 0x01, 0xff], false));
        let gray = decode(&encoded(ImageFormat::Png, 2, 1, ExtendedColorType::L16, &samples[..4]), false).unwrap();
        assert_eq!((gray.pixels, gray.clipped), (vec![0x12, 0x12, 0x12, 255, 255, 255], true));
        let with_alpha = decode(&encoded(ImageFormat::Png, 1, 1, ExtendedColorType::La16, &samples[2..6]), false).unwrap();
        assert_eq!((with_alpha.pixels, with_alpha.clipped), (vec![0x12; 3], false));
    }

    #[test]
    fn alpha_is_dropped_not_blended() {
        let rgba = decode(&encoded(ImageFormat::Png, 2, 1, ExtendedColorType::Rgba8, &[1, 2, 3, 0, 4, 5, 6, 255]), false).unwrap();
        assert_eq!(rgba, Rgb { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6], orientation: 1, clipped: false });
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif] {
            let whole = encoded(format, 32, 32, ExtendedColorType::Rgb8, &noise());
            assert!(decode(&whole, false).is_ok());
            // A GIF's last bytes are an end code, a terminator and a trailer, of which no pixel depends.
            let end = whole.len() - if format == ImageFormat::Gif { 4 } else { 0 };
            let accepted: Vec<usize> = (0..end).filter(|&n| decode(&whole[..n], false).is_ok()).collect();
            assert!(accepted.is_empty(), "{format:?} of {}: {accepted:?}", whole.len());
        }
    }

    #[test]
    fn a_damaged_file_never_panics() {
        let mut random = crate::data::permutation::SplitMix64::new(7);
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif] {
            let whole = encoded(format, 32, 32, ExtendedColorType::Rgb8, &noise());
            for _ in 0..300 {
                let mut bytes = whole.clone();
                for _ in 0..3 {
                    let at = random.below(bytes.len().min(200) as u64) as usize;
                    bytes[at] = random.next_u64() as u8;
                }
                if let Err(e) = sniff(&bytes).and_then(|format| decode_as(format, &bytes, true)) {
                    assert_eq!(e.exit_code(), 2, "{e}");
                }
            }
        }
    }

    #[test]
    fn a_header_that_claims_too_much_costs_nothing() {
        let mut jpeg = encoded(ImageFormat::Jpeg, 32, 32, ExtendedColorType::Rgb8, &noise());
        let sof = jpeg.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
        jpeg[sof + 5..sof + 9].fill(0xff);
        let mut bmp = encoded(ImageFormat::Bmp, 32, 32, ExtendedColorType::Rgb8, &noise());
        bmp[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
        let mut gif = encoded(ImageFormat::Gif, 32, 32, ExtendedColorType::Rgb8, &noise());
        gif[6..10].fill(0xff);
        let png =
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0\x39\x67\x4e\x07\0\0\0\0IDAT\x35\xaf\x06\x1e".to_vec();
        let start = std::time::Instant::now();
        for bytes in [jpeg, bmp, gif.clone(), png] {
            let e = decode(&bytes, false).unwrap_err();
            assert!(e.to_string().contains("65535 x 65535 pixels; at most"), "{e}");
        }
        // A frame far larger than the screen it belongs to.
        gif[6..10].copy_from_slice(&[32, 0, 32, 0]);
        let frame = gif.iter().position(|&b| b == 0x2c).unwrap();
        gif[frame + 5..frame + 9].fill(0xff);
        assert!(decode(&gif, false).is_err());
        assert!(start.elapsed().as_secs_f64() < 0.5);
    }

    #[test]
    fn a_file_that_cannot_be_decoded_is_named() {
        let f = Folder::new("decode-files");
        f.write("cut.png", b"\x89PNG\r\n\x1a\n");
        let e = decode_file(&f.path().join("cut.png"), false).unwrap_err().to_string();
        assert!(e.contains("cut.png: truncated"), "{e}");
        assert!(decode_file(f.path(), false).unwrap_err().to_string().contains("not a regular file"));
        assert!(decode_file(&f.path().join("none.png"), false).is_err());
    }

    #[test]
    fn exif_orientation_turns_the_image_only_when_asked() {
        let Some(folder) = shared("data/odd-images") else { return };
        // The same picture, stored with orientations 3, 6 and 8: upright it is much the same.
        let upright = decode_file(&folder.join("pillow/hopper.jpg"), true).unwrap();
        let distance = |a: &Rgb| {
            a.pixels.iter().zip(&upright.pixels).map(|(x, y)| f64::from(x.abs_diff(*y))).sum::<f64>() / upright.pixels.len() as f64
        };
        for orientation in [3, 5, 6, 8] {
            let path = folder.join(format!("pillow/hopper_orientation_{orientation}.jpg"));
            let (turned, stored) = (decode_file(&path, true).unwrap(), decode_file(&path, false).unwrap());
            assert_eq!(stored.orientation, orientation);
            assert!(distance(&turned) < 8.0 && distance(&stored) > 20.0, "{orientation}: {} {}", distance(&turned), distance(&stored));
        }
        let path = folder.join("exif-orientation/Landscape_6.jpg");
        let size = |exif| decode_file(&path, exif).map(|r| (r.width, r.height)).unwrap();
        assert_eq!((size(false), size(true)), ((1200, 1800), (1800, 1200)));
    }
}
