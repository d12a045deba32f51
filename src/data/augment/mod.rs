//! Random changes to training images: flips, rotation, shift, zoom, contrast, brightness.
//!
//! What happens to an image is drawn from the run's seed, the epoch and the image's number alone, so that it has the same
//! bits for any number of threads, in any order, and after a resume. All geometric changes are one map of coordinates and
//! one bilinear sampling; an image is never sampled twice. Where the map leads outside, the image is mirrored at its edge
//! (`d c b a | a b c d | d c b a`, as Keras's layers do by default), so that no black corners appear. Works on pixels of
//! 0 to 255 at the network's size, before `preprocess_input`.

mod sheet;

pub use sheet::{sheet, spread};

use std::fmt;
use std::str::FromStr;

use crate::data::permutation::SplitMix64;
use crate::error::{Error, Result};

/// Which mirror images are as likely as the image itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flip {
    #[default]
    None,
    /// Left and right.
    H,
    /// Top and bottom.
    V,
    /// Both, independently.
    Hv,
}

impl Flip {
    /// All ways.
    pub const ALL: [Flip; 4] = [Flip::None, Flip::H, Flip::V, Flip::Hv];
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flip::None => "none",
            Flip::H => "h",
            Flip::V => "v",
            Flip::Hv => "hv",
        })
    }
}

impl FromStr for Flip {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Flip::ALL.into_iter().find(|k| k.to_string() == name);
        known.ok_or_else(|| format!("{name:?} is none of {}", Flip::ALL.map(|k| k.to_string()).join(", ")))
    }
}

/// How far images may change; each amount is drawn evenly from `-x..=x`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Augment {
    pub flip: Flip,
    /// Degrees.
    pub rotate: f64,
    /// Share of the side, along each axis.
    pub shift: f64,
    /// 0.1: from 0.9 to 1.1 times as large.
    pub zoom: f64,
    /// Share of the range of 255 that is added.
    pub brightness: f64,
    /// 0.1: the distance from the image's mean colour times 0.9 to 1.1.
    pub contrast: f64,
}

impl Augment {
    /// What seldom does harm: mirrored left and right, slightly moved, slightly lighter or darker.
    pub const PRESET: Augment = Augment { flip: Flip::H, rotate: 10.0, shift: 0.05, zoom: 0.1, brightness: 0.1, contrast: 0.1 };

    /// Whether images stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Augment::default()
    }

    /// Refuses ranges that make no sense.
    ///
    /// # Errors
    /// Kind `Input`, with the flag.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("--rotate", self.rotate, 180.0),
            ("--shift", self.shift, 0.5),
            ("--zoom", self.zoom, 0.9),
            ("--brightness", self.brightness, 1.0),
            ("--contrast", self.contrast, 1.0),
        ];
        match ranges.iter().find(|(_, x, most)| !(0.0..=*most).contains(x)) {
            Some((flag, x, most)) => Err(Error::input(format!("{x} is not in 0..={most}")).at(flag)),
            None => Ok(()),
        }
    }

    /// What happens to an image in an epoch. Every number is drawn whether it is used or not, so that turning one kind of
    /// change on leaves the others as they were.
    pub fn draw(&self, seed: u32, epoch: u32, image: usize) -> Change {
        let epoch = SplitMix64::new(u64::from(seed) << 32 | u64::from(epoch)).next_u64();
        let mut random = SplitMix64::new(epoch ^ SplitMix64::new(image as u64).next_u64());
        let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let (left_right, top_bottom) = (unit() < 0.5, unit() < 0.5);
        let mut within = |x: f64| x * (2.0 * unit() - 1.0);
        Change {
            flip: [left_right && matches!(self.flip, Flip::H | Flip::Hv), top_bottom && matches!(self.flip, Flip::V | Flip::Hv)],
            angle: within(self.rotate).to_radians(),
            shift: [within(self.shift), within(self.shift)],
            scale: 1.0 + within(self.zoom),
            brightness: 255.0 * within(self.brightness),
            contrast: 1.0 + within(self.contrast),
        }
    }
}

/// Changes to the images of one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    pub augment: Augment,
    pub seed: u32,
    pub epoch: u32,
}

impl Augmentation {
    /// Writes the changed image `number` to `to`; both are `[size, size, 3]`, 0..=255.
    pub fn apply(&self, number: usize, from: &[f32], size: usize, to: &mut [f32]) {
        self.augment.draw(self.seed, self.epoch, number).apply(from, size, to);
    }
}

/// What happens to one image, in this order: mirrored, enlarged, turned, moved; contrast, brightness, cut off at 0 and 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Left and right, top and bottom.
    pub flip: [bool; 2],
    /// In radians, clockwise.
    pub angle: f64,
    /// To the right and down, in shares of the side.
    pub shift: [f64; 2],
    pub scale: f64,
    /// In grey levels.
    pub brightness: f64,
    pub contrast: f64,
}

impl Change {
    /// Writes the changed image to `to`; both are `[size, size, 3]`, 0..=255.
    pub fn apply(&self, from: &[f32], size: usize, to: &mut [f32]) {
        self.sample(from, size, to);
        self.tone(to);
    }

    /// With c the centre and q = p - c - shift, output pixel p is input pixel c + F R(-angle) q / scale, F mirroring.
    fn sample(&self, from: &[f32], size: usize, to: &mut [f32]) {
        let centre = (size as f32 - 1.0) / 2.0;
        let sign = self.flip.map(|flip| if flip { -1.0 } else { 1.0 });
        let (sin, cos) = self.angle.sin_cos();
        let (along, across) = (cos / self.scale, sin / self.scale);
        let to_x = [(sign[0] * along) as f32, (sign[0] * across) as f32];
        let to_y = [(-sign[1] * across) as f32, (sign[1] * along) as f32];
        let shift = self.shift.map(|s| (s * size as f64) as f32);
        let mut pixels = to.chunks_exact_mut(3);
        for y in 0..size {
            let v = y as f32 - centre - shift[1];
            for (x, pixel) in (0..size).zip(&mut pixels) {
                let u = x as f32 - centre - shift[0];
                let at = [to_x[0] * u + to_x[1] * v + centre, to_y[0] * u + to_y[1] * v + centre];
                let [(left, right, lerp_x), (top, bottom, lerp_y)] = at.map(|a| between(a, size));
                let corner = |row: usize, column: usize| &from[(row * size + column) * 3..][..3];
                let (a, b, c, d) = (corner(top, left), corner(top, right), corner(bottom, left), corner(bottom, right));
                for channel in 0..3 {
                    let upper = a[channel] + (b[channel] - a[channel]) * lerp_x;
                    let lower = c[channel] + (d[channel] - c[channel]) * lerp_x;
                    pixel[channel] = upper + (lower - upper) * lerp_y;
                }
            }
        }
    }

    /// y = (x - mean) contrast + mean + brightness, with each channel's mean over the image.
    fn tone(&self, pixels: &mut [f32]) {
        if self.contrast == 1.0 && self.brightness == 0.0 {
            return;
        }
        let mut sums = [0f64; 3];
        pixels.chunks_exact(3).for_each(|p| (0..3).for_each(|c| sums[c] += f64::from(p[c])));
        let count = (pixels.len() / 3).max(1) as f64;
        let offset = sums.map(|sum| (sum / count * (1.0 - self.contrast) + self.brightness) as f32);
        let gain = self.contrast as f32;
        for pixel in pixels.chunks_exact_mut(3) {
            (0..3).for_each(|c| pixel[c] = (pixel[c] * gain + offset[c]).clamp(0.0, 255.0));
        }
    }
}

/// The two pixels that a coordinate lies between, mirrored into the image, and how far it is on the way to the second.
fn between(at: f32, size: usize) -> (usize, usize, f32) {
    let floor = at.floor();
    let lower = floor as i64;
    if lower >= 0 && lower + 1 < size as i64 {
        return (lower as usize, lower as usize + 1, at - floor);
    }
    let mirrored = |i: i64| {
        let i = i.rem_euclid(2 * size as i64) as usize;
        if i < size { i } else { 2 * size - 1 - i }
    };
    (mirrored(lower), mirrored(lower + 1), at - floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Change = Change { flip: [false; 2], angle: 0.0, shift: [0.0; 2], scale: 1.0, brightness: 0.0, contrast: 1.0 };

    /// `[size, size, 3]` with red x, green y, blue 100.
    fn ramp(size: usize) -> Vec<f32> {
        (0..size * size).flat_map(|i| [(i % size) as f32, (i / size) as f32, 100.0]).collect()
    }

    fn changed(change: Change, size: usize) -> Vec<f32> {
        let mut out = vec![-1.0; size * size * 3];
        change.apply(&ramp(size), size, &mut out);
        out
    }

    /// Red and green of a pixel: where it came from.
    fn source(image: &[f32], size: usize, x: usize, y: usize) -> [f32; 2] {
        [image[(y * size + x) * 3], image[(y * size + x) * 3 + 1]]
    }

    #[test]
    fn no_change_and_mirror_images_are_exact() {
        for size in [1, 2, 7, 8] {
            assert_eq!(changed(STILL, size), ramp(size));
            let mirrored = changed(Change { flip: [true, false], ..STILL }, size);
            let both = changed(Change { flip: [true; 2], ..STILL }, size);
            for (x, y) in (0..size * size).map(|i| (i % size, i / size)) {
                assert_eq!(source(&mirrored, size, x, y), [(size - 1 - x) as f32, y as f32]);
                assert_eq!(source(&both, size, x, y), [(size - 1 - x) as f32, (size - 1 - y) as f32]);
            }
        }
    }

    #[test]
    fn geometry_is_one_map_of_coordinates() {
        // A quarter turn clockwise: what was at the left is at the top.
        let turned = changed(Change { angle: std::f64::consts::FRAC_PI_2, ..STILL }, 8);
        for (x, y) in [(0, 0), (7, 0), (3, 5)] {
            let [from_x, from_y] = source(&turned, 8, x, y);
            assert!((from_x - y as f32).abs() < 1e-5 && (from_y - (7 - x) as f32).abs() < 1e-5, "{from_x} {from_y}");
        }
        // Moved by two pixels to the right and one up; what comes in is mirrored: pixel 1, then pixel 0, then 0, 1, ...
        let moved = changed(Change { shift: [0.25, -0.125], ..STILL }, 8);
        assert_eq!([0, 1, 2, 7].map(|x| source(&moved, 8, x, 3)), [[1.0, 4.0], [0.0, 4.0], [0.0, 4.0], [5.0, 4.0]]);
        assert_eq!(source(&moved, 8, 4, 7), [2.0, 7.0]);
        // Twice as large: the middle half, in steps of half a pixel.
        let large = changed(Change { scale: 2.0, ..STILL }, 8);
        assert_eq!([0, 1, 7].map(|x| source(&large, 8, x, 0)[0]), [1.75, 2.25, 5.25]);
        // Everything at once is the formula, in f64, wherever the map stays inside.
        let change = Change { flip: [true, false], angle: 0.3, shift: [0.04, -0.06], scale: 1.2, ..STILL };
        let out = changed(change, 32);
        for (x, y) in (8..24).flat_map(|x| (8..24).map(move |y| (x, y))) {
            let (u, v) = (f64::from(x as u32) - 15.5 - 0.04 * 32.0, f64::from(y as u32) - 15.5 + 0.06 * 32.0);
            let (sin, cos) = 0.3f64.sin_cos();
            let expected = [15.5 - (cos * u + sin * v) / 1.2, 15.5 + (cos * v - sin * u) / 1.2];
            let found = source(&out, 32, x, y);
            // Linear functions are sampled exactly but for the rounding of coordinates below 32.
            assert!((0..2).all(|i| (f64::from(found[i]) - expected[i]).abs() < 2e-5), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn tone_keeps_the_mean_and_the_range() {
        let mut pixels = vec![0.0, 50.0, 240.0, 100.0, 50.0, 250.0];
        Change { contrast: 1.5, brightness: 10.0, ..STILL }.tone(&mut pixels);
        assert_eq!(pixels, [0.0, 60.0, 247.5, 135.0, 60.0, 255.0]);
    }

    #[test]
    fn what_is_drawn_depends_on_seed_epoch_and_image_alone() {
        let one = Augment::PRESET.draw(42, 3, 17);
        assert_eq!(one, Augment::PRESET.draw(42, 3, 17));
        for other in [Augment::PRESET.draw(43, 3, 17), Augment::PRESET.draw(42, 4, 17), Augment::PRESET.draw(42, 3, 18)] {
            assert!(other.angle != one.angle && other.scale != one.scale);
        }
        let alone = Augment { rotate: 10.0, ..Augment::default() }.draw(42, 3, 17);
        assert_eq!(alone, Change { angle: one.angle, ..STILL });
    }

    #[test]
    fn amounts_fill_their_ranges_evenly() {
        let augment = Augment { flip: Flip::Hv, ..Augment::PRESET };
        let drawn: Vec<Change> = (0..4000).map(|i| augment.draw(1, i / 100, (i % 100) as usize)).collect();
        let of = |what: fn(&Change) -> f64, most: f64| {
            let values: Vec<f64> = drawn.iter().map(|c| what(c) / most).collect();
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            // The mean of 4000 has a standard deviation of 0.009.
            let mean = values.iter().sum::<f64>() / 4000.0;
            assert!((-1.0..-0.99).contains(&low) && (0.99..1.0).contains(&high) && mean.abs() < 0.04, "{low} {high} {mean}");
        };
        of(|c| c.angle.to_degrees(), 10.0);
        of(|c| c.shift[0], 0.05);
        of(|c| c.shift[1], 0.05);
        of(|c| c.scale - 1.0, 0.1);
        of(|c| c.brightness, 25.5);
        of(|c| c.contrast - 1.0, 0.1);
        for side in 0..2 {
            let flipped = drawn.iter().filter(|c| c.flip[side]).count();
            assert!((1850..2150).contains(&flipped), "{flipped}");
        }
        assert!(drawn.iter().filter(|c| c.flip == [true, true]).count() > 900);
    }

    #[test]
    fn ranges_are_checked() {
        assert!(Augment::PRESET.check().is_ok() && Augment::default().is_none() && !Augment::PRESET.is_none());
        for wrong in [
            Augment { rotate: -1.0, ..Augment::PRESET },
            Augment { zoom: 1.0, ..Augment::PRESET },
            Augment { shift: f64::NAN, ..Augment::PRESET },
        ] {
            assert_eq!(wrong.check().unwrap_err().exit_code(), 2);
        }
    }
}
