//! What `predict` and `evaluate` share: the model, how it is fed, and what it says against that.

use super::device::DeviceArgs;
use super::output::warn;
use crate::data::dataset::Options;
use crate::data::resize::Resize;
use crate::data::stream::Facts;
use crate::error::Result;
use crate::models::Spec;
use crate::train::opened::{images_of, spec_of};
use crate::weights::{ModelFile, Preprocess};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct ModelArgs {
    /// Model file, for example runs/polyps/best.safetensors
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Images at a time; the results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::positive, help_heading = "Feeding")]
    pub batch_size: usize,
    /// Side of the images in pixels, instead of what the model was trained on
    #[arg(long, value_name = "N", help_heading = "Feeding")]
    input_size: Option<usize>,
    /// backbone, none, rescale, caffe, tf or torch, instead of what the model was trained with
    #[arg(long, value_name = "HOW", help_heading = "Feeding")]
    preprocess: Option<Preprocess>,
    /// keras, nearest or antialias, instead of what the model was trained with
    #[arg(long, value_name = "HOW", help_heading = "Feeding")]
    resize: Option<Resize>,
    /// Turn images by their EXIF orientation, whether or not the model was trained so
    #[arg(long, conflicts_with = "no_exif", help_heading = "Feeding")]
    exif: bool,
    /// Leave images as they lie in their files, whether or not the model was trained so
    #[arg(long, help_heading = "Feeding")]
    no_exif: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// A model file, read, and how it is going to be fed.
pub struct Ready {
    pub file: ModelFile,
    pub spec: Spec,
    pub images: Options,
}

impl ModelArgs {
    /// A model fed as it says itself, but for the size of the images; at most 8 at a time.
    pub fn of(model: PathBuf, input_size: Option<usize>, device: DeviceArgs, images: usize) -> Self {
        ModelArgs { model, batch_size: images.clamp(1, 8), input_size, preprocess: None, resize: None, exif: false, no_exif: false, device }
    }

    /// Reads the model file; warns of each flag that contradicts it.
    ///
    /// # Errors
    /// A file that is no model, a size that the backbone does not admit.
    pub fn read(&self) -> Result<Ready> {
        let file = ModelFile::open(&self.model)?;
        let (mut spec, mut images) = (spec_of(&file)?, images_of(&file)?);
        let contradict = |flag: &str, said: &dyn ToString, wanted: &dyn ToString| {
            let (said, wanted) = (said.to_string(), wanted.to_string());
            if said != wanted {
                warn(&format!("the model says {flag} {said}; it is now fed with {wanted}, on which it was not trained"));
            }
        };
        if let Some(size) = self.input_size {
            contradict("--input-size", &spec.size, &size);
            (spec.size, images.size) = (size, size);
        }
        if let Some(preprocess) = self.preprocess {
            let mode = preprocess.of(&spec.profile);
            contradict("--preprocess", &spec.preprocess, &mode);
            spec.preprocess = mode;
        }
        if let Some(resize) = self.resize {
            contradict("--resize", &images.resize, &resize);
            images.resize = resize;
        }
        if self.exif || self.no_exif {
            let word = |on| if on { "on" } else { "off" };
            contradict("--exif", &word(images.exif), &word(self.exif));
            images.exif = self.exif;
        }
        spec.backbone.check_size(spec.size)?;
        Ok(Ready { file, spec, images })
    }

    /// The batch size with which to plan for so many images.
    pub fn batch(&self, images: usize) -> usize {
        self.batch_size.min(images).max(1)
    }
}

/// A bar on stderr that counts images; nothing where stderr is not a terminal or `show` is false.
pub fn counter(images: usize, show: bool) -> ProgressBar {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| _ = write!(out, "{:.1} images/s", state.per_sec());
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {rate}  {eta} left");
    match show {
        true => {
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate);
            ProgressBar::new(images as u64).with_style(style)
        }
        false => ProgressBar::hidden(),
    }
}

/// 16-bit gray images that lost values above 255.
#[derive(Default)]
pub struct Clipped {
    count: usize,
    first: String,
}

impl Clipped {
    /// Takes note of an image.
    pub fn note(&mut self, path: &str, facts: &Facts) {
        if facts.clipped && self.count == 0 {
            self.first = path.into();
        }
        self.count += usize::from(facts.clipped);
    }

    /// Warns if there were any.
    pub fn warn(&self) {
        if self.count > 0 {
            let (count, first) = (self.count, &self.first);
            let what = "16-bit gray with values above 255, which become white as in Pillow";
            warn(&format!("{count} of the images are {what} (first: {first}); convert them to 8 bits"));
        }
    }
}
