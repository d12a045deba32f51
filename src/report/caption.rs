//! The strip below a heat map: what it shows, and what its colours mean.

use super::heatmap::colour;
use super::letters::Face;
use embedded_graphics::mono_font::MonoTextStyle;
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

/// Width and height of the scale of colours, in pixels.
const SCALE: [u32; 2] = [96, 12];
/// What stands left and right below it.
const ENDS: [&str; 2] = ["none", "most"];

/// A strip for a picture of some width.
pub struct Strip {
    width: u32,
    title: Vec<String>,
    note: Vec<String>,
    scale: Scale,
}

impl Strip {
    /// Title and note on as many lines as they need. A picture narrower than four letters has none.
    pub fn new(width: u32, title: &str, note: &str) -> Self {
        let inner = width.saturating_sub(2 * MARGIN);
        let text = columns(title, Face::Title).max(columns(note, Face::Note));
        let scale = match inner {
            _ if inner < 3 * SCALE[0] => Scale::Nowhere,
            _ if text + MARGIN + SCALE[0] <= inner => Scale::Beside,
            _ => Scale::Below,
        };
        Strip { width, title: lines(title, inner, Face::Title), note: lines(note, inner, Face::Note), scale }
    }

    /// All lines with their margins; a further one for a scale that does not fit beside them.
    pub fn height(&self) -> u32 {
        let last = if self.scale == Scale::Below { 4 + Face::Note.height() } else { 0 };
        self.second() + self.note.len() as u32 * Face::Note.height() + last + MARGIN
    }

    /// Where the note begins.
    fn second(&self) -> u32 {
        MARGIN + self.title.len() as u32 * Face::Title.height() + 2
    }

    /// The strip as a picture.
    pub fn draw(&self) -> RgbImage {
        let mut canvas = Canvas(RgbImage::from_pixel(self.width, self.height(), image::Rgb(GROUND)));
        let second = self.second();
        for (text, top) in self.title.iter().zip((MARGIN..).step_by(Face::Title.height() as usize)) {
            canvas.text(MARGIN, top, Face::Title, INK, text);
        }
        for (text, top) in self.note.iter().zip((second..).step_by(Face::Note.height() as usize)) {
            canvas.text(MARGIN, top, Face::Note, GREY, text);
        }
        let ends = ENDS.map(|end| columns(end, Face::Note));
        match self.scale {
            Scale::Nowhere => {}
            Scale::Beside => {
                let left = self.width - MARGIN - SCALE[0];
                canvas.scale(left, MARGIN + 1);
                canvas.text(left, second, Face::Note, GREY, ENDS[0]);
                canvas.text(left + SCALE[0] - ends[1], second, Face::Note, GREY, ENDS[1]);
            }
            Scale::Below => {
                let (left, top) = (2 * MARGIN + ends[0], self.height() - MARGIN - Face::Note.height());
                canvas.text(MARGIN, top, Face::Note, GREY, ENDS[0]);
                canvas.scale(left, top + 1);
                canvas.text(left + SCALE[0] + MARGIN, top, Face::Note, GREY, ENDS[1]);
            }
        }
        canvas.0
    }
}

/// Where the scale of the colours stands. A narrow picture has none.
#[derive(PartialEq, Eq)]
enum Scale {
    Beside,
    Below,
    Nowhere,
}

/// How wide a line of text is, in pixels.
fn columns(text: &str, face: Face) -> u32 {
    text.chars().count() as u32 * face.width()
}

/// Text in lines that fit, broken between words where that is possible.
fn lines(text: &str, room: u32, face: Face) -> Vec<String> {
    let fits = (room / face.width()) as usize;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace().filter(|_| fits >= 4) {
        let word: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.len() <= fits => line.extend([' '].iter().chain(&word)),
            _ => lines.extend(word.chunks(fits).map(String::from_iter)),
        }
    }
    lines
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

    fn text(&mut self, x: u32, y: u32, face: Face, ink: Rgb888, text: &str) {
        for (c, left) in text.chars().zip((x..).step_by(face.width() as usize)) {
            let (mut letter, style) = ([0; 4], MonoTextStyle::new(face.font(c), ink));
            let at = Point::new(left as i32, y as i32);
            let Ok(_) = Text::with_baseline(c.encode_utf8(&mut letter), at, style, Baseline::Top).draw(self);
        }
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
        assert_eq!(long.height(), short.height() + 4 + Face::Note.height());
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

    #[test]
    fn a_text_that_does_not_fit_goes_on_in_the_next_line() {
        let room = 8 * Face::Title.width();
        assert_eq!(lines("stool 0.9312 (predicted: polyp)", room, Face::Title), ["stool", "0.9312", "(predict", "ed:", "polyp)"]);
        assert_eq!(lines("a b c d e f", room, Face::Title), ["a b c d", "e f"]);
        assert!(lines("polyp", 3 * Face::Title.width(), Face::Title).is_empty());
        // Two names that differ in their last letter alone look different.
        let [left, right] =
            ["ulcerative-colitis-grade-2-left 0.93", "ulcerative-colitis-grade-2-lefs 0.93"].map(|t| Strip::new(320, t, ""));
        assert!(left.title.len() == 2 && left.draw() != right.draw());
    }

    /// What a text looks like, on a strip of one line.
    fn drawn(text: &str) -> RgbImage {
        Strip::new(200, text, "").draw()
    }

    #[test]
    fn letters_beyond_western_europe_are_drawn_and_not_questioned() {
        for text in ["П", "Ж", "Ω", "ş", "ł", "ș", "Ö"] {
            assert!(drawn(text) != drawn("?") && drawn(text) != drawn("\u{a0}."), "{text}");
        }
        assert!(drawn("息") == drawn("?"));
    }
}
