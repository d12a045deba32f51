//! The four backbones and what is fixed about each: sizes, channels, preprocessing, Keras's profile.

use super::layers::{Net, Tensor};
use super::{densenet121, inception_v3, vgg16, xception};
use crate::error::{Error, Result};
use crate::ops::preprocess::Mode;
use crate::weights::Profile;
use std::fmt;
use std::str::FromStr;

/// A network of Keras Applications without its classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backbone {
    Vgg16,
    Xception,
    InceptionV3,
    DenseNet121,
}

impl Backbone {
    /// All four, in the order in which tables list them.
    pub const ALL: [Backbone; 4] = [Backbone::Vgg16, Backbone::Xception, Backbone::InceptionV3, Backbone::DenseNet121];

    /// The name in commands and files: `inceptionv3`.
    pub fn name(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "vgg16",
            Backbone::Xception => "xception",
            Backbone::InceptionV3 => "inceptionv3",
            Backbone::DenseNet121 => "densenet121",
        }
    }

    /// The name in prose: `InceptionV3`.
    pub fn title(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "VGG16",
            Backbone::Xception => "Xception",
            Backbone::InceptionV3 => "InceptionV3",
            Backbone::DenseNet121 => "DenseNet121",
        }
    }

    /// The module of `keras.applications` that holds it: `inception_v3`.
    pub fn keras_module(self) -> &'static str {
        match self {
            Backbone::Vgg16 => "vgg16",
            Backbone::Xception => "xception",
            Backbone::InceptionV3 => "inception_v3",
            Backbone::DenseNet121 => "densenet",
        }
    }

    /// The side of the square images that the ImageNet weights were trained on, in pixels.
    pub fn default_size(self) -> usize {
        match self {
            Backbone::Vgg16 | Backbone::DenseNet121 => 224,
            Backbone::Xception | Backbone::InceptionV3 => 299,
        }
    }

    /// The smallest side that Keras admits, in pixels.
    pub fn minimum_size(self) -> usize {
        match self {
            Backbone::Vgg16 | Backbone::DenseNet121 => 32,
            Backbone::Xception => 71,
            Backbone::InceptionV3 => 75,
        }
    }

    /// Length of the pooled feature vector.
    pub fn channels(self) -> usize {
        match self {
            Backbone::Vgg16 => 512,
            Backbone::Xception | Backbone::InceptionV3 => 2048,
            Backbone::DenseNet121 => 1024,
        }
    }

    /// The preprocessing that the ImageNet weights expect.
    pub fn preprocess(self) -> Mode {
        match self {
            Backbone::Vgg16 => Mode::Caffe,
            Backbone::Xception | Backbone::InceptionV3 => Mode::Tf,
            Backbone::DenseNet121 => Mode::Torch,
        }
    }

    /// The network as Keras defines it. VGG16 has no batch norm; its epsilon is Keras's default.
    pub fn profile(self) -> Profile {
        let epsilon = if self == Backbone::DenseNet121 { 1.001e-5 } else { 1e-3 };
        let gamma = self != Backbone::InceptionV3;
        Profile { epsilon, gamma, count_padding: false, symmetric_pools: false, preprocess: self.preprocess() }
    }

    /// The last layer that still has an image plane worth looking at, for Grad-CAM; then the last ones of the stages before it,
    /// each with twice as many places along a side.
    pub fn cam_layers(self) -> [&'static str; 3] {
        match self {
            Backbone::Vgg16 => ["block5_conv3", "block4_conv3", "block3_conv3"],
            Backbone::Xception => ["block14_sepconv2_act", "add_10", "add_1"],
            Backbone::InceptionV3 => ["mixed10", "mixed7", "mixed2"],
            Backbone::DenseNet121 => ["relu", "pool4_relu", "pool3_relu"],
        }
    }

    /// Checks the side of the input images.
    ///
    /// # Errors
    /// Below [`Backbone::minimum_size`].
    pub fn check_size(self, size: usize) -> Result<()> {
        if size >= self.minimum_size() {
            return Ok(());
        }
        let what = format!("input size {size} is too small: {} needs at least {} pixels", self.title(), self.minimum_size());
        Err(Error::input(what).advise(format!("leave out --input-size for the default of {}", self.default_size())))
    }

    /// Writes the layers down: images `[n, s, s, 3]` to the last feature map.
    pub fn layers(self, n: &mut Net, images: Tensor) -> Tensor {
        match self {
            Backbone::Vgg16 => vgg16::vgg16(n, images),
            Backbone::Xception => xception::xception(n, images),
            Backbone::InceptionV3 => inception_v3::inception_v3(n, images),
            Backbone::DenseNet121 => densenet121::densenet121(n, images),
        }
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backbone {
    type Err = Error;

    /// Accepts any case, with or without `_`, `-` and spaces: `InceptionV3`, `inception_v3`, `VGG-16`.
    fn from_str(text: &str) -> Result<Self> {
        let plain = |s: &str| s.to_lowercase().replace(['_', '-', ' '], "");
        let known = Backbone::ALL.into_iter().find(|b| b.name() == plain(text));
        known.ok_or_else(|| Error::input(format!("no backbone is called {text:?}; there are {}", Backbone::ALL.map(Self::name).join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_understood() {
        for (text, backbone) in [
            ("Xception", Backbone::Xception),
            ("InceptionV3", Backbone::InceptionV3),
            ("inception_v3", Backbone::InceptionV3),
            ("VGG16", Backbone::Vgg16),
            ("vgg-16", Backbone::Vgg16),
            ("DenseNet121", Backbone::DenseNet121),
            ("densenet121", Backbone::DenseNet121),
        ] {
            assert_eq!(text.parse::<Backbone>().unwrap(), backbone, "{text}");
        }
        let error = "resnet50".parse::<Backbone>().unwrap_err();
        Backbone::ALL.iter().for_each(|b| assert!(error.what().contains(b.name()), "{error}"));
    }
}
