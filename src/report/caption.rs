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

    /// Two lines with their margins; a third one for a scale that does not fit beside them.
    pub fn height(&self) -> u32 {
        let third = if self.scale() == Scale::Below { 4 + NOTE.character_size.height } else { 0 };
        self.second() + NOTE.character_size.height + third + MARGIN
    }

    /// Where the second line begins.
    fn second(&self) -> u32 {
        MARGIN + TITLE.character_size.height + 2
    }

    fn scale(&self) -> Scale {
        let inner = self.width.saturating_sub(2 * MARGIN);
        let wide = |text: &str, font: &MonoFont| text.chars().count() as u32 * font.character_size.width;
        let text = wide(self.title, &TITLE).max(wide(self.note, &NOTE));
        match inner {
            _ if inner < 3 * SCALE[0] => Scale::Nowhere,
            _ if text + MARGIN + SCALE[0] <= inner => Scale::Beside,
            _ => Scale::Below,
        }
    }

    /// The strip as a picture.
    pub fn draw(&self) -> RgbImage {
        let mut canvas = Canvas(RgbImage::from_pixel(self.width, self.height(), image::Rgb(GROUND)));
        let (inner, second) = (self.width.saturating_sub(2 * MARGIN), self.second());
        canvas.text(MARGIN, MARGIN, &TITLE, INK, &clipped(self.title, inner, &TITLE));
        canvas.text(MARGIN, second, &NOTE, GREY, &clipped(self.note, inner, &NOTE));
        let ends = ENDS.map(|end| end.len() as u32 * NOTE.character_size.width);
        match self.scale() {
            Scale::Nowhere => {}
            Scale::Beside => {
                let left = self.width - MARGIN - SCALE[0];
                canvas.scale(left, MARGIN + 1);
                canvas.text(left, second, &NOTE, GREY, ENDS[0]);
                canvas.text(left + SCALE[0] - ends[1], second, &NOTE, GREY, ENDS[1]);
            }
            Scale::Below => {
                let (left, top) = (2 * MARGIN + ends[0], second + NOTE.character_size.height + 4);
                canvas.text(MARGIN, top, &NOTE, GREY, ENDS[0]);
                canvas.scale(left, top + 1);
                canvas.text(left + SCALE[0] + MARGIN, top, &NOTE, GREY, ENDS[1]);
            }
        }
        canvas.0
    }
}

/// Where the scale of the colours stands. A narrow picture has none.
#[derive(PartialEq)]
enum Scale {
    Beside,
    Below,
    Nowhere,
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
    /// The colours from no heat to the most, left to right.
    fn scale(&mut self, left: u32, top: u32) {
        for x in 0..SCALE[0] {
            let shade = image::Rgb(colour(x as f32 / (SCALE[0] - 1) as f32));
            (0..SCALE[1]).for_each(|y| self.0.put_pixel(left + x, top + y, shade));
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_alone_is_not_cut_for_the_scale() {
        let strip = |width, title| Strip::new(width, title, "Grad-CAM at relu, 7x7");
        let (short, long) = (strip(320, "polyp 0.9312"), strip(320, "polyp 0.1312 (seen: stool)"));
        assert_eq!(long.height(), short.height() + 4 + NOTE.character_size.height);
        // Ink of the title in the columns that the scale takes beside a short one.
        let ink = |strip: &Strip| {
            let picture = strip.draw();
            (224..312).any(|x| (MARGIN..strip.second() - 2).any(|y| picture.get_pixel(x, y).0 == [0x22; 3]))
        };
        assert!(ink(&long) && !ink(&short));
        // Both have the scale's last colour; a narrow picture has no room for it.
        let scaled = |strip: &Strip| strip.draw().pixels().any(|p| p.0 == colour(1.0));
        assert!(scaled(&long) && scaled(&short) && !scaled(&strip(200, "polyp 0.9312")));
    }
}
