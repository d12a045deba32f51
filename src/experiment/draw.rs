//! Two small tasks drawn from a seed, as JPEG files in class folders: something to train on where there is no data.
//!
//! `fabrics` are four textures, `cells` four shapes scattered over tissue. Colours, contrast and polarity (dark on light or
//! light on dark) of an image are drawn alike for all classes, and its mean is then moved to where it was drawn: the mean
//! colour tells nothing of the class.

use crate::data::permutation::SplitMix64;
use crate::error::{Error, Result};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use std::f64::consts::TAU;
use std::path::Path;

/// Side of a drawn image, in pixels.
pub const SIDE: u32 = 96;

/// Four classes and how each is drawn.
pub struct Task {
    pub name: &'static str,
    pub classes: [(&'static str, Draw); 4],
}

/// Draws the parameters of one image and gives its figure.
pub type Draw = fn(&mut Random) -> Field;
/// How strongly a figure covers the point `(x, y)` of the unit square, 0 to 1.
pub type Field = Box<dyn Fn(f64, f64) -> f64>;

/// Textures.
pub const FABRICS: Task = Task { name: "fabrics", classes: [("checks", checks), ("dots", dots), ("rings", rings), ("stripes", stripes)] };

/// Shapes.
pub const CELLS: Task = Task {
    name: "cells",
    classes: [
        ("hollow", |r| cells(r, |rho, _| smooth(0.22 - (rho - 0.78).abs()))),
        ("long", |r| cells(r, |rho, theta| smooth(1.0 - rho * (1.0 + 7.0 * theta.sin().powi(2)).sqrt() / 1.6))),
        ("round", |r| cells(r, |rho, _| smooth(0.85 - rho))),
        ("star", |r| cells(r, |rho, theta| smooth(0.8 + 0.38 * (5.0 * theta).cos() - rho))),
    ],
};

impl Task {
    /// Writes `images` files of each class to `folder/CLASS/NN.jpg`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, folder: &Path, images: usize, seed: u64) -> Result<()> {
        for (label, (class, draw)) in self.classes.iter().enumerate() {
            let at = folder.join(class);
            std::fs::create_dir_all(&at).map_err(|e| Error::io(&at, &e))?;
            for i in 0..images {
                let mut random = Random::new(seed, (label * images + i) as u64);
                let image = paint(&mut random, draw);
                let mut jpeg = Vec::new();
                let encoder = JpegEncoder::new_with_quality(&mut jpeg, 90);
                image.write_with_encoder(encoder).map_err(|e| Error::internal(format!("a drawing could not be encoded: {e}")))?;
                let path = at.join(format!("{i:02}.jpg"));
                std::fs::write(&path, &jpeg).map_err(|e| Error::io(&path, &e))?;
            }
        }
        Ok(())
    }
}

/// The figure in one colour on a ground of another, with uneven light and grain.
fn paint(r: &mut Random, draw: &Draw) -> RgbImage {
    let mean = [(); 3].map(|()| r.between(105.0, 150.0));
    let polarity = if r.unit() < 0.5 { -1.0 } else { 1.0 };
    let contrast = [(); 3].map(|()| polarity * r.between(35.0, 85.0));
    let (field, light) = (draw(r), light(r));
    let side = SIDE as usize;
    let mut pixels: Vec<[f64; 3]> = (0..side * side)
        .map(|i| {
            let (x, y) = ((i % side) as f64 / side as f64, (i / side) as f64 / side as f64);
            let (covered, lit) = (field(x, y), light(x, y) + r.between(-9.0, 9.0));
            contrast.map(|c| c * covered + lit)
        })
        .collect();
    for c in 0..3 {
        let move_by = mean[c] - pixels.iter().map(|p| p[c]).sum::<f64>() / pixels.len() as f64;
        pixels.iter_mut().for_each(|p| p[c] += move_by);
    }
    RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb(pixels[(y * SIDE + x) as usize].map(|v| v.clamp(0.0, 255.0) as u8)))
}

/// Light that varies slowly over the image, by some 12 grey levels.
fn light(r: &mut Random) -> Field {
    let waves = [(); 3].map(|()| (r.between(0.2, 1.2), r.between(0.0, TAU), r.between(0.0, TAU)));
    Box::new(move |x, y| waves.iter().map(|(f, angle, phase)| 6.0 * (TAU * f * (x * angle.cos() + y * angle.sin()) + phase).sin()).sum())
}

/// Two axes at a random angle, in periods of a random length, from a random origin.
fn lattice(r: &mut Random, periods: [f64; 2]) -> impl Fn(f64, f64) -> (f64, f64) + use<> {
    let (angle, n) = (r.between(0.0, TAU), r.between(periods[0], periods[1]));
    let (u0, v0) = (r.unit(), r.unit());
    move |x, y| (n * (x * angle.cos() + y * angle.sin()) + u0, n * (y * angle.cos() - x * angle.sin()) + v0)
}

fn stripes(r: &mut Random) -> Field {
    let at = lattice(r, [5.0, 9.0]);
    Box::new(move |x, y| smooth(0.3 * (TAU * at(x, y).0).sin()))
}

fn checks(r: &mut Random) -> Field {
    let at = lattice(r, [3.0, 5.0]);
    Box::new(move |x, y| {
        let (u, v) = at(x, y);
        smooth(0.3 * (TAU * u).sin() * (TAU * v).sin())
    })
}

fn dots(r: &mut Random) -> Field {
    let at = lattice(r, [4.0, 7.0]);
    let radius = r.between(0.28, 0.42);
    Box::new(move |x, y| {
        let (u, v) = at(x, y);
        smooth(radius - (u - u.floor() - 0.5).hypot(v - v.floor() - 0.5))
    })
}

fn rings(r: &mut Random) -> Field {
    let (x0, y0, n) = (r.between(0.2, 0.8), r.between(0.2, 0.8), r.between(5.0, 9.0));
    Box::new(move |x, y| smooth(0.3 * (TAU * n * (x - x0).hypot(y - y0)).sin()))
}

/// Five to nine cells of a shape, which is given in polar coordinates with the radius as the unit.
fn cells(r: &mut Random, shape: fn(f64, f64) -> f64) -> Field {
    let count = 5 + (r.unit() * 5.0) as usize;
    let cells: Vec<[f64; 4]> =
        (0..count).map(|_| [r.between(0.08, 0.92), r.between(0.08, 0.92), r.between(0.09, 0.15), r.between(0.0, TAU)]).collect();
    Box::new(move |x, y| {
        let cover = |&[x0, y0, radius, turn]: &[f64; 4]| {
            let (dx, dy) = (x - x0, y - y0);
            shape(dx.hypot(dy) / radius, dy.atan2(dx) + turn)
        };
        cells.iter().map(cover).fold(0.0, f64::max)
    })
}

/// From 0 to 1 as a signed distance passes zero.
fn smooth(distance: f64) -> f64 {
    (0.5 + 5.0 * distance).clamp(0.0, 1.0)
}

/// Random numbers of one image.
pub struct Random(SplitMix64);

impl Random {
    fn new(seed: u64, image: u64) -> Self {
        Random(SplitMix64::new(SplitMix64::new(seed << 32 | image).next_u64()))
    }

    /// In `0..1`, 53 bits.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean colour of `n` images of each class.
    fn means(task: &Task, n: usize) -> Vec<Vec<[f64; 3]>> {
        let mean = |image: &RgbImage| {
            let sum = image.pixels().fold([0.0; 3], |s, p| [0, 1, 2].map(|c| s[c] + f64::from(p[c])));
            sum.map(|s| s / f64::from(SIDE * SIDE))
        };
        let of = |label: usize| (0..n).map(|i| mean(&paint(&mut Random::new(1, (label * n + i) as u64), &task.classes[label].1))).collect();
        (0..4).map(of).collect()
    }

    #[test]
    fn the_mean_colour_tells_nothing_of_the_class() {
        for task in [&FABRICS, &CELLS] {
            // A mean drawn from 105..150 has a standard deviation of 13; that of 40 images' average is 2.05.
            for class in means(task, 40) {
                for c in 0..3 {
                    let average = class.iter().map(|m| m[c]).sum::<f64>() / 40.0;
                    assert!((average - 127.5).abs() < 4.0 * 2.05, "{}: {average}", task.name);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_pixels() {
        for (_, draw) in FABRICS.classes.iter().chain(&CELLS.classes) {
            let image = |i| paint(&mut Random::new(7, i), draw);
            assert!(image(0) == image(0) && image(0) != image(1));
        }
    }
}
