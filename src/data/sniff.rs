//! What a file is, by its first bytes, and whether it is all there.
//!
//! A name says little: downloads are cut short, and a `.jpg` is often a PNG, a WebP or an error page.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Baseline and progressive, Huffman-coded, 8 bits.
    Jpeg,
    /// All kinds.
    Png,
    /// The first frame.
    Gif,
    /// Uncompressed and run-length coded.
    Bmp,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Jpeg, Format::Png, Format::Gif, Format::Bmp];

    /// What the names of such files end in, after the dot.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Format::Jpeg => &["jpg", "jpeg"],
            Format::Png => &["png"],
            Format::Gif => &["gif"],
            Format::Bmp => &["bmp"],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
        })
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The format by its first bytes.
///
/// # Errors
/// Kind `Input`: empty, another format (named where it is known), or nothing known.
pub fn sniff(bytes: &[u8]) -> Result<Format> {
    let known: [(&[u8], Format); 5] = [
        (b"\xff\xd8\xff", Format::Jpeg),
        (b"\x89PNG\r\n\x1a\n", Format::Png),
        (b"GIF87a", Format::Gif),
        (b"GIF89a", Format::Gif),
        (b"BM", Format::Bmp),
    ];
    if bytes.is_empty() {
        return Err(Error::input("the file is empty"));
    }
    if let Some((_, format)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Ok(*format);
    }
    let advice = "JPEG, PNG, GIF and BMP are read; convert it to one of them";
    Err(match foreign(bytes) {
        Some(name) => Error::input(format!("the content is {name}")).advise(advice),
        None => Error::input("not an image: its first bytes are those of no known format").advise(advice),
    })
}

/// What else is often found under an image's name.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|b| b.starts_with(magic));
    let known: [(usize, &[u8], &'static str); 11] = [
        (8, b"WEBP", "a WebP image"),
        (0, b"II*\0", "a TIFF image"),
        (0, b"MM\0*", "a TIFF image"),
        (128, b"DICM", "DICOM"),
        (4, b"ftyp", "HEIC, AVIF or video"),
        (0, b"\0\0\0\x0cjP", "a JPEG 2000 image"),
        (0, b"%PDF", "PDF"),
        (0, b"PK\x03\x04", "a ZIP archive"),
        (0, b"\x1f\x8b", "gzip data"),
        (0, b"\0\x05\x16\x07", "macOS metadata (a `._` file), no image"),
        (0, b"version https://git-lfs", "a Git LFS pointer, the image itself was not fetched"),
    ];
    let html = bytes.trim_ascii_start().first() == Some(&b'<');
    known.iter().find(|(offset, magic, _)| at(*offset, magic)).map(|k| k.2).or(html.then_some("a web page or XML"))
}

/// Whether the JPEG's segments and scans reach the end-of-image marker. A decoder that goes on without it fills the
/// missing part with gray; Pillow and TensorFlow refuse.
pub fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next marker: FF and a byte that is neither 00 (a stuffed FF in the data), FF (fill) nor a restart.
        while !matches!(bytes.get(at..at + 2), None | Some([0xff, 0x01..=0xcf | 0xd8..=0xfe])) {
            at += 1;
        }
        let Some(&marker) = bytes.get(at + 1) else { return false };
        match (marker, bytes.get(at + 2..at + 4)) {
            (0xd9, _) => return true,
            (0x01 | 0xd8, _) => at += 2,
            (_, Some(length)) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
            (_, None) => return false,
        }
    }
}

/// Whether every chunk of the PNG up to IEND lies in the file.
pub fn png_is_whole(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(&[a, b, c, d, ref kind @ ..]) = bytes.get(at..at + 8) {
        // Length, type, data, checksum.
        at = at.saturating_add(12).saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        if at > bytes.len() {
            return false;
        }
        if kind == b"IEND" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_named() {
        let says = |bytes: &[u8], text: &str| assert!(sniff(bytes).unwrap_err().to_string().contains(text), "{text}");
        says(b"", "the file is empty");
        says(b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image");
        says(&[&[0; 128], b"DICM".as_slice()].concat(), "DICOM");
        says(b"\n<!DOCTYPE html>", "a web page");
        says(b"hello", "no known format");
    }

    #[test]
    fn a_jpeg_is_whole_when_its_end_marker_is_reached() {
        // A comment that holds an end marker, a scan with a stuffed FF, a restart and a fill byte.
        let whole = b"\xff\xd8\xff\xfe\0\x04\xff\xd9\xff\xda\0\x03\x01data\xff\0\xff\xd0data\xff\xff\xd9trailing";
        let end = whole.len() - b"trailing".len();
        assert!(jpeg_is_whole(whole) && jpeg_is_whole(&whole[..end]));
        assert!((2..end).all(|n| !jpeg_is_whole(&whole[..n])));
    }

    #[test]
    fn a_png_is_whole_when_all_its_chunks_are_there() {
        let whole = b"\x89PNG\r\n\x1a\n\0\0\0\x02IDATxxCCCC\0\0\0\0IENDCCCCtrailing";
        let end = whole.len() - b"trailing".len();
        assert!(png_is_whole(whole) && png_is_whole(&whole[..end]));
        assert!((8..end).all(|n| !png_is_whole(&whole[..n])));
    }
}
