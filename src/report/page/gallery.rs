//! Pictures with what the model made of them.

use super::percent;
use crate::data::decode::Rgb;
use crate::data::resize::{Resize, resize};
use crate::error::{Error, Result};
use crate::metrics::predictions::Scored;
use crate::report::grouped;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use maud::{Markup, html};

/// The longer side of a picture, in pixels: sharp at 176 on most screens.
const SIDE: usize = 288;
const QUALITY: u8 = 82;

/// A picture inside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// `data:image/jpeg;base64,...`; `None` where the image can no longer be read.
    pub data: Option<String>,
    pub width: usize,
    pub height: usize,
}

impl Picture {
    /// An image, reduced where it is large, as a JPEG.
    ///
    /// # Errors
    /// Kind `Internal`: the encoder refuses it.
    pub fn new(image: &Rgb) -> Result<Self> {
        let longer = image.width.max(image.height).max(1);
        let side = |own: usize| if longer > SIDE { (own * SIDE + longer / 2) / longer } else { own }.max(1);
        let (width, height) = (side(image.width), side(image.height));
        let pixels: Vec<u8> = match longer > SIDE {
            true => resize(image, width, height, Resize::Antialias).into_iter().map(|v| v.round() as u8).collect(),
            false => image.pixels.clone(),
        };
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(&pixels, width as u32, height as u32, ExtendedColorType::Rgb8)
            .map_err(|e| Error::internal(format!("a picture of {width} x {height} pixels cannot be encoded: {e}")))?;
        Ok(Picture { data: Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))), width, height })
    }

    /// In place of an image that cannot be read.
    pub fn lost() -> Self {
        Picture { data: None, width: SIDE, height: SIDE }
    }
}

/// An image and what the model said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    pub picture: Picture,
    pub scored: Scored,
}

/// An image beside heat maps: the places that speak for a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub shot: Shot,
    /// By the class that they explain: the predicted one, and the true one where that is another.
    pub maps: Vec<(String, Picture)>,
}

/// The worst mistakes, the worst first.
pub fn mistakes(shots: &[Shot], all: usize) -> Markup {
    html! {
        @if all == 0 {
            p { "No image was taken for another class than its own." }
        } @else {
            p {
                @if all == 1 { "One image was" } @else { (grouped(all as u64)) " images were" } " taken for another class than their own."
                @if shots.len() < all { " Here are the " (shots.len()) " whose true class got the lowest probability." } @else { " The lowest probability of the true class comes first." }
            }
        }
        ul.gallery {
            @for Shot { picture, scored } in shots {
                li {
                    figure {
                        (image(picture, &format!("{}, taken for {}", scored.class, scored.predicted)))
                        figcaption { (caption(scored)) }
                    }
                }
            }
        }
    }
}

/// Images beside their heat maps.
pub fn explanations(all: &[Explanation], layer: &str) -> Markup {
    html! {
        p {
            "Grad-CAM at the layer " code { (layer) } ": the more yellow a place, the more it speaks for the class named below the picture; a place "
            "without colour does not. Each map has a scale of its own."
        }
        ul.gallery.wider {
            @for Explanation { shot, maps } in all {
                li {
                    figure {
                        div.pictures {
                            div { (image(&shot.picture, &format!("{}, as it is", shot.scored.class))) small { "image" } }
                            @for (class, map) in maps {
                                div { (image(map, &format!("{}: places that speak for {class}", shot.scored.class))) small { "for " (class) } }
                            }
                        }
                        figcaption { (caption(&shot.scored)) }
                    }
                }
            }
        }
    }
}

fn caption(s: &Scored) -> Markup {
    html! {
        @if s.class == s.predicted {
            p { "rightly " b { (s.class) } ", " (percent(s.probability)) }
        } @else {
            p { "true " b { (s.class) } ", " (percent(s.true_probability)) }
            p { "predicted " b { (s.predicted) } ", " (percent(s.probability)) }
        }
        code { (s.path) }
    }
}

fn image(picture: &Picture, alt: &str) -> Markup {
    html! {
        @match &picture.data {
            Some(data) => img src=(data) width=(picture.width) height=(picture.height) alt=(alt);,
            None => div.lost { "the image cannot be read any more" },
        }
    }
}
