//! The flags of augmentation, for `train` and for the picture that `check` draws.

use crate::data::augment::Augment;
use crate::train::settings::FlipName;
use serde::Serialize;

/// Random changes to training images; what is not given stays as it is.
#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Augmentation")]
#[serde(rename_all = "kebab-case")]
pub struct AugmentFlags {
    /// Change training images at random: --flip h --rotate 10 --shift 0.05 --zoom 0.1 --brightness 0.1 --contrast 0.1, unless given
    #[arg(long)]
    #[serde(skip_serializing_if = "no")]
    augment: bool,
    /// Mirror left and right, top and bottom, or both
    #[arg(long, value_name = "h|v|hv")]
    flip: Option<FlipName>,
    /// Turn by at most so many degrees
    #[arg(long, value_name = "DEGREES")]
    rotate: Option<f64>,
    /// Move by at most this share of the side
    #[arg(long, value_name = "X")]
    shift: Option<f64>,
    /// Enlarge by a factor of 1 - X to 1 + X
    #[arg(long, value_name = "X")]
    zoom: Option<f64>,
    /// Add at most this share of the range of grey levels
    #[arg(long, value_name = "X")]
    brightness: Option<f64>,
    /// Multiply the distance from the mean colour by 1 - X to 1 + X
    #[arg(long, value_name = "X")]
    contrast: Option<f64>,
}

fn no(flag: &bool) -> bool {
    !flag
}

impl AugmentFlags {
    /// What the flags say; the preset if they say nothing.
    pub fn resolved(&self) -> Augment {
        let given = [self.rotate, self.shift, self.zoom, self.brightness, self.contrast];
        let preset = self.augment || (self.flip.is_none() && given.iter().all(Option::is_none));
        let base = if preset { Augment::PRESET } else { Augment::default() };
        Augment {
            flip: self.flip.map_or(base.flip, FlipName::flip),
            rotate: self.rotate.unwrap_or(base.rotate),
            shift: self.shift.unwrap_or(base.shift),
            zoom: self.zoom.unwrap_or(base.zoom),
            brightness: self.brightness.unwrap_or(base.brightness),
            contrast: self.contrast.unwrap_or(base.contrast),
        }
    }
}
