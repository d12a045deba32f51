//! What a network's weights expect of the network around them.
//!
//! The same architecture was trained in several frameworks, each with defaults of its own. Weights give the promised numbers
//! only with the choices that they were trained, or published, with:
//!
//! | | Keras | torchvision, timm |
//! | --- | --- | --- |
//! | epsilon | 1e-3, DenseNet121 1.001e-5 | 1e-5, InceptionV3 1e-3 |
//! | InceptionV3's batch norm | without gamma | with gamma |
//! | InceptionV3's average pools | divide by the pixels under the window | divide by 9, padding included |
//! | Xception's stride-2 max pools | SAME: an odd pixel of padding at the end | a pixel of padding on every side |
//! | pixels | `caffe`, `tf`, `torch` by network | `torch`; Inception networks `tf` |

use crate::ops::preprocess::Mode;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The choices in which frameworks differ; kept in every model file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Batch norm's epsilon.
    pub epsilon: f64,
    /// Whether every batch norm has a gamma, those of InceptionV3 too.
    pub gamma: bool,
    /// Whether average pools count padding in their divisor.
    pub count_padding: bool,
    /// Whether max pools of stride 2 that keep the border pad every side alike, instead of as TensorFlow's SAME.
    pub symmetric_pools: bool,
    /// What `--preprocess backbone` means for these weights.
    pub preprocess: Mode,
}

impl Profile {
    /// Whether the numbers are possible at all.
    pub fn is_sound(&self) -> bool {
        self.epsilon.is_finite() && self.epsilon > 0.0
    }
}

/// `--preprocess`: a mode, or what the weights expect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preprocess {
    /// [`Profile::preprocess`].
    Backbone,
    Mode(Mode),
}

impl FromStr for Preprocess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "backbone" => Ok(Preprocess::Backbone),
            mode => mode.parse().map(Preprocess::Mode).map_err(|why: String| why + ", backbone"),
        }
    }
}

impl Preprocess {
    /// The mode for weights of a profile.
    pub fn of(self, profile: &Profile) -> Mode {
        match self {
            Preprocess::Backbone => profile.preprocess,
            Preprocess::Mode(mode) => mode,
        }
    }
}
