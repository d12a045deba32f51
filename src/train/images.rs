//! What the settings say of images: where they are, who validates, how they become pixels, how they are changed.

use super::settings::{FlipName, KeepName, OnBadImage, PixelsName, ResizeName, Settings, SplitName};
use crate::data::augment::{Augment, Augmentation, Flip};
use crate::data::dataset::{Options, Pixels};
use crate::data::groups::Grouping;
use crate::data::load::{Keep, Loading};
use crate::data::resize::Resize;
use crate::data::rule::{Rule, Way};
use crate::data::source::Source;
use crate::error::Result;
use std::path::{Path, PathBuf};

impl SplitName {
    /// How validation images are chosen.
    pub fn way(self) -> Way {
        match self {
            SplitName::Keras => Way::Keras,
            SplitName::Stratified => Way::Stratified,
            SplitName::Group => Way::Group,
        }
    }
}

impl FlipName {
    /// Which mirror images there are.
    pub fn flip(self) -> Flip {
        match self {
            FlipName::None => Flip::None,
            FlipName::H => Flip::H,
            FlipName::V => Flip::V,
            FlipName::Hv => Flip::Hv,
        }
    }
}

/// A path, unless it is empty.
fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.into())
}

impl Settings {
    /// Where the images are.
    pub fn source(&self) -> Source {
        Source { data: self.data.clone(), val_dir: given(&self.val_dir), classes: given(&self.classes) }
    }

    /// Who trains and who validates.
    pub fn rule(&self) -> Rule {
        let pattern = (!self.group_regex.is_empty()).then(|| Grouping::Pattern(self.group_regex.clone()));
        let grouping = pattern.or(given(&self.group_csv).map(Grouping::Csv));
        Rule { way: self.split.way(), grouping, share: self.val_split, seed: self.split_seed }
    }

    /// How images become pixels.
    pub fn images(&self) -> Options {
        Options {
            size: self.input_size,
            resize: match self.resize {
                ResizeName::Keras => Resize::Keras,
                ResizeName::Nearest => Resize::Nearest,
                ResizeName::Antialias => Resize::Antialias,
            },
            pixels: match self.pixels {
                PixelsName::F32 => Pixels::F32,
                PixelsName::U8 => Pixels::U8,
            },
            exif: self.exif,
        }
    }

    /// How they are loaded, when `reserve` bytes of memory are going to be needed for something else.
    pub fn loading(&self, reserve: u64) -> Loading {
        let keep = match self.pixel_cache {
            KeepName::Auto => Keep::Auto,
            KeepName::Memory => Keep::Memory,
            KeepName::Disk => Keep::Disk,
        };
        let skip_bad = self.on_bad_image == OnBadImage::Skip;
        let limit = if self.cache_limit > 0.0 { (self.cache_limit * f64::from(1 << 30)) as u64 } else { u64::MAX };
        Loading { options: self.images(), keep, cache_dir: given(&self.cache_dir), limit, reserve, skip_bad }
    }

    /// Refuses what contradicts itself.
    pub(super) fn check_images(&self) -> Result<()> {
        self.augment().check()?;
        self.rule().check(given(&self.val_dir).is_some())
    }

    /// These settings with the preset of augmentation.
    pub fn with_preset(self) -> Self {
        let Augment { rotate, shift, zoom, brightness, contrast, .. } = Augment::PRESET;
        Settings { augment: true, flip: FlipName::H, rotate, shift, zoom, brightness, contrast, ..self }
    }

    /// How far training images may change.
    pub fn augment(&self) -> Augment {
        let Settings { flip, rotate, shift, zoom, brightness, contrast, .. } = *self;
        Augment { flip: flip.flip(), rotate, shift, zoom, brightness, contrast }
    }

    /// The changes of an epoch, counted from 1; `None` if images stay as they are.
    pub fn augmentation(&self, epoch: usize) -> Option<Augmentation> {
        let augment = self.augment();
        (!augment.is_none()).then_some(Augmentation { augment, seed: self.seed, epoch: epoch as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Backbone;

    #[test]
    fn the_preset_is_the_librarys() {
        let settings = Settings::new("photos", Backbone::Vgg16);
        assert!(settings.augment().is_none() && settings.augmentation(1).is_none());
        assert_eq!(settings.with_preset().augment(), Augment::PRESET);
    }
}
