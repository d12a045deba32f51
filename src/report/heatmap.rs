//! Heat maps over images: how strongly each place speaks for a class, as colour over the picture.
//!
//! The colours are viridis (Smith and van der Walt, 2015): equal steps of heat are equal steps of perceived lightness, also
//! for the colour-blind and in gray, and its blue, green and yellow stand off from red mucosa and from gray scans alike. A
//! place without heat shows the picture as it is; opacity grows with the heat up to [`OPACITY`], so that what lies below the
//! hottest place is still seen.

use super::caption::Strip;
use crate::data::decode::Rgb;
use crate::data::resize::{Resize, resize};
use image::RgbImage;

/// How much of the colour is seen at heat 1.
const OPACITY: f32 = 0.6;

/// The longer side of an overlay, in pixels: smaller pictures are enlarged, larger ones reduced, others keep their size.
const SIDES: [usize; 2] = [320, 1024];

/// Heat in 0..=1 over a coarse grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    pub height: usize,
    pub width: usize,
    /// `[height, width]`.
    pub values: Vec<f32>,
}

impl Heatmap {
    /// The map at another size, `[height, width]`: bilinear between the centres of its cells, the outermost repeated.
    pub fn resized(&self, width: usize, height: usize) -> Vec<f32> {
        let columns = between(self.width, width);
        let row = |y: usize| &self.values[y * self.width..][..self.width];
        let mut out = Vec::with_capacity(width * height);
        for (top, bottom, down) in between(self.height, height) {
            let (top, bottom) = (row(top), row(bottom));
            out.extend(columns.iter().map(|&(left, right, across)| {
                let along = |row: &[f32]| row[left] + (row[right] - row[left]) * across;
                along(top) + (along(bottom) - along(top)) * down
            }));
        }
        out
    }

    /// The place of the largest value in a picture of this size: x from the left, y from the top, of the cell's centre.
    pub fn hottest(&self, width: usize, height: usize) -> [usize; 2] {
        let cell = (0..self.values.len()).fold(0, |best, i| if self.values[i] > self.values[best] { i } else { best });
        let centre = |cell: usize, cells: usize, pixels: usize| (2 * cell + 1) * pixels / (2 * cells);
        [centre(cell % self.width, self.width, width), centre(cell / self.width, self.height, height)]
    }

    /// The picture with the map over it.
    pub fn over(&self, picture: &RgbImage) -> RgbImage {
        let heat = self.resized(picture.width() as usize, picture.height() as usize);
        let mut out = picture.clone();
        for (pixel, heat) in out.pixels_mut().zip(heat) {
            let opacity = OPACITY * heat;
            for (below, above) in pixel.0.iter_mut().zip(colour(heat)) {
                *below = (f32::from(*below) + (f32::from(above) - f32::from(*below)) * opacity).round() as u8;
            }
        }
        out
    }
}

/// Viridis at `heat` in 0..=1.
pub fn colour(heat: f32) -> [u8; 3] {
    colorous::VIRIDIS.eval_continuous(f64::from(heat.clamp(0.0, 1.0))).as_array()
}

/// An image at the size at which it is shown: its own if the longer side has 320 to 1024 pixels, else the nearest that has.
pub fn picture(image: &Rgb) -> RgbImage {
    let longer = image.width.max(image.height);
    let shown = longer.clamp(SIDES[0], SIDES[1]);
    let side = |own: usize| (own * shown + longer / 2).checked_div(longer).unwrap_or(0).max(1);
    let (width, height) = (side(image.width), side(image.height));
    let pixels = match shown == longer {
        true => image.pixels.clone(),
        false => resize(image, width, height, Resize::Antialias).into_iter().map(|v| v.round() as u8).collect(),
    };
    RgbImage::from_raw(width as u32, height as u32, pixels).expect("three bytes for each pixel")
}

/// A picture with a strip below: two lines of text, and the scale of the colours where there is room.
pub fn captioned(picture: &RgbImage, title: &str, note: &str) -> RgbImage {
    let (width, height) = picture.dimensions();
    let strip = Strip::new(width, title, note);
    let mut out = RgbImage::new(width, height + strip.height());
    image::imageops::replace(&mut out, picture, 0, 0);
    image::imageops::replace(&mut out, &strip.draw(), 0, i64::from(height));
    out
}

/// For each of `output` pixels the two of `input` cells that it lies between, and how far from the first to the second.
fn between(input: usize, output: usize) -> Vec<(usize, usize, f32)> {
    let place = |i: usize| {
        let x = ((i as f64 + 0.5) * input as f64 / output as f64 - 0.5).clamp(0.0, (input - 1) as f64);
        (x as usize, (x as usize + 1).min(input - 1), x.fract() as f32)
    };
    (0..output).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Heatmap {
        Heatmap { height: 2, width: 3, values: vec![0.0, 0.5, 1.0, 0.25, 0.25, 0.25] }
    }

    #[test]
    fn cells_are_met_at_their_centres_and_between_them_is_a_straight_line() {
        let m = map();
        assert_eq!(m.resized(3, 2), m.values);
        // Centres of 9 x 2 pixels: columns 1, 4 and 7 are those of the cells.
        let wide = m.resized(9, 2);
        assert_eq!([wide[0], wide[1], wide[4], wide[7], wide[8]], [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert!((wide[2] - 1.0 / 6.0).abs() < 1e-6 && (wide[6] - 5.0 / 6.0).abs() < 1e-6);
        assert_eq!(m.hottest(300, 200), [250, 50]);
        assert_eq!(Heatmap { height: 1, width: 1, values: vec![0.3] }.resized(4, 3), [0.3; 12]);
    }

    #[test]
    fn no_heat_shows_the_picture_and_full_heat_the_colour() {
        let gray = RgbImage::from_pixel(3, 2, image::Rgb([100; 3]));
        let shown = map().over(&gray);
        assert_eq!(shown.get_pixel(0, 0).0, [100; 3]);
        // Viridis ends in 253, 231, 37: 0.4 of gray and 0.6 of that.
        assert_eq!(colour(1.0), [253, 231, 37]);
        assert_eq!(shown.get_pixel(2, 0).0, [192, 179, 62]);
        assert_eq!([colour(0.0), colour(-1.0)], [[68, 1, 84]; 2]);
    }

    #[test]
    fn pictures_have_a_size_to_look_at_and_keep_their_proportions() {
        let shown = |width, height| {
            let image = Rgb { width, height, pixels: vec![7; width * height * 3], orientation: 1, clipped: false };
            picture(&image)
        };
        for ((width, height), expected) in [
            ((640, 480), (640, 480)),
            ((320, 10), (320, 10)),
            ((2048, 1536), (1024, 768)),
            ((64, 48), (320, 240)),
            ((1, 3000), (1, 1024)),
            ((3, 1), (320, 107)),
        ] {
            assert_eq!(shown(width, height).dimensions(), expected);
            assert!(shown(width, height).pixels().all(|p| p.0 == [7; 3]));
        }
    }

    #[test]
    fn a_caption_leaves_the_picture_as_it_is() {
        for (width, height) in [(1, 5), (30, 30), (60, 30), (320, 20), (700, 20)] {
            let gray = RgbImage::from_pixel(width, height, image::Rgb([90; 3]));
            let out = captioned(&gray, "dyed-lifted-polyps  0.93", "Grad-CAM at block5_conv3, \u{e4}\u{df}\u{4e2d}");
            assert_eq!(out.width(), width);
            assert!(out.height() > height);
            let (above, below): (Vec<_>, Vec<_>) = out.enumerate_pixels().partition(|(_, y, _)| *y < height);
            assert!(above.iter().all(|(_, _, p)| p.0 == [90; 3]));
            assert_eq!(below.iter().any(|(_, _, p)| p.0 != below[0].2.0), width >= 60, "text is drawn where it fits");
        }
    }
}
