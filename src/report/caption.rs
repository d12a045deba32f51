//! The strip below a heat map: what it shows, and what its colours mean.

use super::heatmap::colour;
use embedded_graphics::mono_font::iso_8859_1::{FONT_8X13, FONT_9X15_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, OriginDimensions, Point, Size};
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};
use image::RgbImage;
use std::convert::Infallible;

const MARGIN: u32 = 8;
const GROUND: [u8; 3] = [255; 3];
const INK: Rgb888 = Rgb888::new(0x22, 0x22, 0x22);
const GREY: Rgb888 = Rgb888::new(0x66, 0x66, 0x66);
const TITLE: MonoFont = FONT_9X15_BOLD;
const NOTE: MonoFont = FONT_8X13;

/// Width and height of the scale of colours, in pixels.
const SCALE: [u32; 2] = [96, 12];
/// What stands left and right below it.
const ENDS: [&str; 2] = ["none", "most"];

/// A strip for a picture of some width.
pub struct Strip<'a> {
    width: u32,
    title: &'a str,
    note: &'a str,
}

impl<'a> Strip<'a> {
    pub fn new(width: u32, title: &'a str, note: &'a str) -> Self {
        Strip { width, title, note }
    }

    /// Two lines with their margins.
    pub fn height(&self) -> u32 {
        MARGIN + TITLE.character_size.height + 2 + NOTE.character_size.height + MARGIN
    }

    /// The strip as a picture.
    pub fn draw(&self) -> RgbImage {
        let mut canvas = Canvas(RgbImage::from_pixel(self.width, self.height(), image::Rgb(GROUND)));
        let inner = self.width.saturating_sub(2 * MARGIN);
        // The scale only where the text keeps two thirds of the width.
        let scaled = inner >= 3 * SCALE[0];
        let room = if scaled { inner - SCALE[0] - MARGIN } else { inner };
        let second = MARGIN + TITLE.character_size.height + 2;
        canvas.text(MARGIN, MARGIN, &TITLE, INK, &clipped(self.title, room, &TITLE));
        canvas.text(MARGIN, second, &NOTE, GREY, &clipped(self.note, room, &NOTE));
        if scaled {
            let left = self.width - MARGIN - SCALE[0];
            for x in 0..SCALE[0] {
                let shade = image::Rgb(colour(x as f32 / (SCALE[0] - 1) as f32));
                (0..SCALE[1]).for_each(|y| canvas.0.put_pixel(left + x, MARGIN + 1 + y, shade));
            }
            let last = ENDS[1].len() as u32 * NOTE.character_size.width;
            canvas.text(left, second, &NOTE, GREY, ENDS[0]);
            canvas.text(left + SCALE[0] - last, second, &NOTE, GREY, ENDS[1]);
        }
        canvas.0
    }
}

/// The text as far as it fits; two dots stand for the rest.
fn clipped(text: &str, room: u32, font: &MonoFont) -> String {
    let fits = (room / font.character_size.width) as usize;
    match text.chars().count() {
        n if n <= fits => text.into(),
        _ if fits < 4 => String::new(),
        _ => text.chars().take(fits - 2).chain("..".chars()).collect(),
    }
}

/// An image to draw text on; what falls outside is left out.
struct Canvas(RgbImage);

impl Canvas {
    fn text(&mut self, x: u32, y: u32, font: &MonoFont, ink: Rgb888, text: &str) {
        let style = MonoTextStyle::new(font, ink);
        let Ok(_) = Text::with_baseline(text, Point::new(x as i32, y as i32), style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, ink) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y))
                && let Some(pixel) = self.0.get_pixel_mut_checked(x, y)
            {
                pixel.0 = [ink.r(), ink.g(), ink.b()];
            }
        }
        Ok(())
    }
}
