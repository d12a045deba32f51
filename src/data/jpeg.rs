//! JPEG to the bit as libjpeg-turbo decodes it, with its accurate inverse DCT and its triangle filter for subsampled colour:
//! so as Pillow does, and TensorFlow with `dct_method="INTEGER_ACCURATE"`.
//!
//! Left to the other decoder: what this one refuses (junk between segments, a progressive image without its last scans), and
//! four components of different resolutions, on which it fails. Samples of 12 bits are refused, as Pillow refuses them.

use crate::data::shield::shielded;
use libjpeg_turbo_rs::decode::pipeline::Decoder;
use libjpeg_turbo_rs::{DecodeLimits, PixelFormat};

/// An image in RGB, `[height, width, 3]`, with its EXIF orientation, 1 to 8.
pub(super) struct Jpeg {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
    pub orientation: u8,
}

/// Decodes a whole file; `None` where another decoder shall try, and say what is wrong. `fits` is asked about width and height
/// before memory is taken.
pub(super) fn decode(bytes: &[u8], max_bytes: u64, fits: impl Fn(usize, usize) -> bool) -> Option<Jpeg> {
    shielded(|| {
        let limits = DecodeLimits { max_memory: Some(max_bytes), ..DecodeLimits::default() };
        let mut decoder = Decoder::new_with_limits(bytes, limits).ok()?;
        let header = decoder.header();
        let sampling = |i: usize| (header.components[i].horizontal_sampling, header.components[i].vertical_sampling);
        let uneven = header.components.len() > 3 && (1..header.components.len()).any(|i| sampling(i) != sampling(0));
        if header.precision != 8 || uneven || !fits(header.width.into(), header.height.into()) {
            return None;
        }
        let orientation = decoder.exif_orientation().unwrap_or(1);
        decoder.set_output_format(PixelFormat::Rgb);
        let image = decoder.decode_image().ok()?;
        Some(Jpeg { width: image.width, height: image.height, pixels: image.data, orientation })
    })
    .flatten()
}
