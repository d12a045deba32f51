//! A 64-bit perceptual hash: equal or nearly so for the same picture in another size, compression or brightness.
//!
//! The picture as 32 x 32 gray values, their cosine transform (DCT-II), its 8 x 8 lowest frequencies; one bit for each
//! that is above their median (Zauner, 2010, as the `imagehash` library does it).

use crate::data::decode::Rgb;
use crate::data::resize::{Resize, resize};

/// Side of the thumbnail.
const SIDE: usize = 32;
/// Frequencies kept along each axis.
const LOW: usize = 8;

/// A picture reduced to what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// One bit per low frequency.
    pub hash: u64,
    /// `[32, 32]` gray values.
    pub thumbnail: Vec<u8>,
}

impl Fingerprint {
    /// The fingerprint of an image.
    pub fn of(image: &Rgb) -> Fingerprint {
        let small = resize(image, SIDE, SIDE, Resize::Antialias);
        // Rec. 601 luma, as Pillow's `convert("L")`.
        let gray: Vec<f32> = small.chunks_exact(3).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect();
        let low = low_frequencies(&gray);
        let mut sorted = low;
        sorted.sort_by(f32::total_cmp);
        let median = (sorted[31] + sorted[32]) / 2.0;
        let hash = low.iter().fold(0, |bits, &v| bits << 1 | u64::from(v > median));
        Fingerprint { hash, thumbnail: gray.iter().map(|v| (v + 0.5) as u8).collect() }
    }

    /// Bits in which the hashes differ, 0 to 64.
    pub fn distance(&self, other: &Fingerprint) -> u32 {
        (self.hash ^ other.hash).count_ones()
    }

    /// Whether the thumbnail is of one gray value.
    pub fn is_blank(&self) -> bool {
        self.thumbnail.iter().all(|v| *v == self.thumbnail[0])
    }

    /// Mean absolute difference of the thumbnails, in grey levels.
    pub fn difference(&self, other: &Fingerprint) -> f32 {
        let sum: u32 = self.thumbnail.iter().zip(&other.thumbnail).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        sum as f32 / self.thumbnail.len() as f32
    }
}

/// `[8, 8]`: sum over y and x of gray\[y, x\] cos(pi v (2y + 1) / 64) cos(pi u (2x + 1) / 64).
fn low_frequencies(gray: &[f32]) -> [f32; LOW * LOW] {
    let cosine = |frequency: usize, at: usize| (std::f32::consts::PI * (frequency * (2 * at + 1)) as f32 / (2 * SIDE) as f32).cos();
    let mut out = [0.0; LOW * LOW];
    for u in 0..LOW {
        let along_x: Vec<f32> = gray.chunks_exact(SIDE).map(|row| (0..SIDE).map(|x| row[x] * cosine(u, x)).sum()).collect();
        for v in 0..LOW {
            out[v * LOW + u] = (0..SIDE).map(|y| along_x[y] * cosine(v, y)).sum();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waves that do not repeat.
    fn picture(width: usize, height: usize, gain: f32) -> Rgb {
        let pixel = |i: usize| {
            let (x, y) = ((i % width) as f32 / width as f32, (i / width) as f32 / height as f32);
            let v =
                120.0 + gain * (40.0 * (5.0 * x + 3.0 * y * y).sin() + 40.0 * (9.0 * y - 4.0 * x * y).cos() + 20.0 * (14.0 * x * x).sin());
            [v as u8; 3]
        };
        Rgb { width, height, pixels: (0..width * height).flat_map(pixel).collect(), orientation: 1, clipped: false }
    }

    #[test]
    fn the_same_picture_in_another_size_and_contrast_is_near() {
        let (a, b) = (Fingerprint::of(&picture(200, 150, 1.0)), Fingerprint::of(&picture(97, 131, 0.9)));
        assert!(a.distance(&b) <= 2 && a.difference(&b) < 6.0, "{} {}", a.distance(&b), a.difference(&b));
        let mut mirrored = picture(200, 150, 1.0);
        mirrored.pixels.reverse();
        assert!(a.distance(&Fingerprint::of(&mirrored)) > 16);
    }

    #[test]
    fn the_transform_is_the_cosine_transform() {
        let flat = low_frequencies(&[1.0; SIDE * SIDE]);
        assert!((flat[0] - 1024.0).abs() < 1e-2 && flat[1..].iter().all(|v| v.abs() < 1e-2), "{flat:?}");
        // A pure wave of frequency (v, u) = (2, 3) has only that coefficient: 1024 / 4.
        let wave = |n: usize, at: usize| (std::f32::consts::PI * n as f32 * (at as f32 + 0.5) / 32.0).cos();
        let gray: Vec<f32> = (0..1024).map(|i| wave(2, i / 32) * wave(3, i % 32)).collect();
        let out = low_frequencies(&gray);
        assert!(out.iter().enumerate().all(|(i, v)| (v - if i == 2 * 8 + 3 { 256.0 } else { 0.0 }).abs() < 1e-2));
    }
}
