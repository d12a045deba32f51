//! From an image of any size to the network's square input: three ways, none of which keeps the aspect ratio.

use std::fmt;
use std::str::FromStr;

use crate::data::decode::Rgb;

/// How an image is brought to size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resize {
    /// `tf.image.resize`, what `image_dataset_from_directory` does: bilinear between pixel centres, no antialiasing, so
    /// that a large frame is sampled at few points; f32 without rounding.
    #[default]
    Keras,
    /// Keras' `load_img` with its defaults: Pillow's `NEAREST` on bytes.
    Nearest,
    /// A triangle filter as wide as the reduction (Pillow's `BILINEAR`, without its rounding to bytes).
    Antialias,
}

impl Resize {
    /// All ways.
    pub const ALL: [Resize; 3] = [Resize::Keras, Resize::Nearest, Resize::Antialias];
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resize::Keras => "keras",
            Resize::Nearest => "nearest",
            Resize::Antialias => "antialias",
        })
    }
}

impl FromStr for Resize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Resize::ALL.into_iter().find(|r| r.to_string() == name);
        known.ok_or_else(|| format!("{name:?} is none of {}", Resize::ALL.map(|r| r.to_string()).join(", ")))
    }
}

/// `image` at `width` x `height`: `[height, width, 3]`, values 0..=255.
pub fn resize(image: &Rgb, width: usize, height: usize, how: Resize) -> Vec<f32> {
    match how {
        Resize::Keras => keras(image, width, height),
        Resize::Nearest => nearest(image, width, height),
        Resize::Antialias => antialias(image, width, height),
    }
}

/// Where an output pixel lies between two input pixels.
struct Between {
    lower: usize,
    upper: usize,
    lerp: f32,
}

/// TensorFlow's rule: x = (i + 0.5) * (input / output) - 0.5, lower = max(floor(x), 0), upper = min(ceil(x), input - 1),
/// lerp = x - floor(x), all in f32.
fn between(input: usize, output: usize) -> Vec<Between> {
    let scale = input as f32 / output as f32;
    let place = |i: usize| {
        let x = (i as f32 + 0.5) * scale - 0.5;
        Between { lower: x.floor().max(0.0) as usize, upper: (x.ceil() as usize).min(input - 1), lerp: x - x.floor() }
    };
    (0..output).map(place).collect()
}

fn keras(image: &Rgb, width: usize, height: usize) -> Vec<f32> {
    let columns = between(image.width, width);
    let row = |y: usize| &image.pixels[y * image.width * 3..(y + 1) * image.width * 3];
    let mut out = Vec::with_capacity(height * width * 3);
    for y in between(image.height, height) {
        let (top_row, bottom_row) = (row(y.lower), row(y.upper));
        for x in &columns {
            for channel in 0..3 {
                let (left, right) = (x.lower * 3 + channel, x.upper * 3 + channel);
                let along = |row: &[u8]| {
                    let (left, right) = (f32::from(row[left]), f32::from(row[right]));
                    left + (right - left) * x.lerp
                };
                // First along x in both rows, then along y: the order decides the last bit.
                let (top, bottom) = (along(top_row), along(bottom_row));
                out.push(top + (bottom - top) * y.lerp);
            }
        }
    }
    out
}

/// Pillow's rule: the input pixel under the output pixel's centre, centres found by adding up the step in f64.
fn nearest(image: &Rgb, width: usize, height: usize) -> Vec<f32> {
    let places = |input: usize, output: usize| {
        let step = input as f64 / output as f64;
        let mut centre = step * 0.5;
        let mut places = Vec::with_capacity(output);
        for _ in 0..output {
            places.push((centre as usize).min(input - 1));
            centre += step;
        }
        places
    };
    let columns = places(image.width, width);
    let mut out = Vec::with_capacity(height * width * 3);
    for y in places(image.height, height) {
        for x in &columns {
            let at = (y * image.width + x) * 3;
            out.extend(image.pixels[at..at + 3].iter().map(|&v| f32::from(v)));
        }
    }
    out
}

/// Input pixels `first..` and their weights (sum 1) for one output pixel.
struct Window {
    first: usize,
    weights: Vec<f32>,
}

/// A triangle centred on the output pixel, its half width one output pixel or one input pixel, whichever is larger.
fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let support = scale.max(1.0);
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(input);
        let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - centre) / support).abs()).max(0.0);
        let sum: f64 = (first..last).map(weight).sum();
        Window { first, weights: (first..last).map(|j| (weight(j) / sum) as f32).collect() }
    };
    (0..output).map(window).collect()
}

/// Along x for every input row, then along y.
fn antialias(image: &Rgb, width: usize, height: usize) -> Vec<f32> {
    let columns = windows(image.width, width);
    let mut narrow = Vec::with_capacity(image.height * width * 3);
    for row in image.pixels.chunks_exact(image.width * 3) {
        for window in &columns {
            let mut sum = [0f32; 3];
            for (pixel, weight) in row[window.first * 3..].chunks_exact(3).zip(&window.weights) {
                (0..3).for_each(|channel| sum[channel] += f32::from(pixel[channel]) * weight);
            }
            narrow.extend(sum);
        }
    }
    let mut out = vec![0f32; height * width * 3];
    for (row, window) in out.chunks_exact_mut(width * 3).zip(windows(image.height, height)) {
        for (source, weight) in narrow[window.first * width * 3..].chunks_exact(width * 3).zip(&window.weights) {
            row.iter_mut().zip(source).for_each(|(sum, value)| *sum += value * weight);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// 7 x 5 pixels whose bytes are (31 i^2 + 37 i + 11) mod 256.
    fn pattern() -> Rgb {
        Rgb { width: 7, height: 5, pixels: (0..105).map(|i| (i * i * 31 + i * 37 + 11) as u8).collect(), orientation: 1, clipped: false }
    }

    /// The first eight bytes of the SHA-256 of the values as little-endian f32.
    fn hash(values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Sha256::digest(bytes)[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn keras_resize_has_tensorflows_bits() {
        // tf.image.resize of TensorFlow 2.21, smaller and larger.
        let small = resize(&pattern(), 4, 3, Resize::Keras);
        assert_eq!(small[..6], [74.833_33, 123.916_664, 181.666_67, 64.0, 171.916_67, 160.5]);
        assert_eq!(hash(&small), "401e3cd266459543");
        assert_eq!(hash(&resize(&pattern(), 9, 11, Resize::Keras)), "50c1abdb5661172b");
    }

    #[test]
    fn nearest_is_pillows() {
        assert_eq!(hash(&resize(&pattern(), 4, 3, Resize::Nearest)), "8d5467ae8eeaab95");
        assert_eq!(hash(&resize(&pattern(), 9, 11, Resize::Nearest)), "2fdb38763e98b318");
    }

    #[test]
    fn antialias_is_pillows_filter_on_floats() {
        // Pillow 13, BILINEAR on mode F; it sums in f64, so the last bits of an f32 may differ.
        let cases =
            [(4, 3, [81.7619, 129.4898, 174.78232, 72.920006], 4617.680283), (9, 11, [11.0, 79.0, 209.0, 100.333336], 38832.979687)];
        for (width, height, first, sum) in cases {
            let out = resize(&pattern(), width, height, Resize::Antialias);
            assert!(out.iter().zip(first).all(|(a, b)| (a - b).abs() < 1e-4), "{out:?}");
            assert!((out.iter().map(|&v| f64::from(v)).sum::<f64>() - sum).abs() < 1e-2);
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let exact: Vec<f32> = pattern().pixels.iter().map(|&v| f32::from(v)).collect();
        for how in [Resize::Keras, Resize::Nearest, Resize::Antialias] {
            assert_eq!(resize(&pattern(), 7, 5, how), exact, "{how:?}");
        }
        let dot = Rgb { width: 1, height: 1, pixels: vec![1, 2, 3], orientation: 1, clipped: false };
        for how in [Resize::Keras, Resize::Nearest, Resize::Antialias] {
            assert_eq!(resize(&dot, 2, 2, how), [1.0, 2.0, 3.0].repeat(4), "{how:?}");
        }
    }
}
