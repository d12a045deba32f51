//! What each network's authors did to an image before it entered: raw RGB pixels from 0 to 255 become the numbers the weights
//! were trained on. The order of operations is that of Keras's `preprocess_input`, so that f32 rounds alike.
//!
//! | mode | result |
//! | --- | --- |
//! | `none` | `x` |
//! | `caffe` | channels reversed to BGR, minus (103.939, 116.779, 123.68) |
//! | `tf` | `x / 127.5 - 1` |
//! | `torch` | `(x / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)` |
//! | `rescale` | `x / 255` |

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::window::pixels;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, arity};
use crate::base::{Shape, Ty, Val};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which preprocessing; its name is that of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Raw pixels.
    #[default]
    None,
    /// VGG16.
    Caffe,
    /// Xception and InceptionV3.
    Tf,
    /// DenseNet121.
    Torch,
    /// Pixels from 0 to 1.
    Rescale,
}

impl Mode {
    /// All modes, in the order of the table above.
    pub const ALL: [Mode; 5] = [Mode::None, Mode::Caffe, Mode::Tf, Mode::Torch, Mode::Rescale];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::None => "none",
            Mode::Caffe => "caffe",
            Mode::Tf => "tf",
            Mode::Torch => "torch",
            Mode::Rescale => "rescale",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mode = Mode::ALL.into_iter().find(|mode| mode.to_string() == name);
        mode.ok_or_else(|| format!("{name:?} is none of {}", Mode::ALL.map(|mode| mode.to_string()).join(", ")))
    }
}

/// Subtracted by `caffe`, for blue, green and red.
pub const CAFFE_MEAN: [f64; 3] = [103.939, 116.779, 123.68];
/// Subtracted by `torch`, for red, green and blue.
pub const TORCH_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Divided by in `torch`.
pub const TORCH_DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// `y = preprocess(x)`: `[n,h,w,3]`, RGB from 0 to 255, to the same shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    pub mode: Mode,
}

/// The gradient of [`Preprocess`], which is linear up to a constant, from `dy`.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessDx {
    pub mode: Mode,
}

/// Operations on each element.
fn steps(mode: Mode) -> usize {
    match mode {
        Mode::None => 0,
        Mode::Caffe | Mode::Rescale => 1,
        Mode::Tf => 2,
        Mode::Torch => 3,
    }
}

/// Checks that an operand is an image of three colours.
fn colours(what: &str, ins: &[Ty]) -> Result<Vec<Ty>, String> {
    arity(ins, 1)?;
    match pixels(what, ins[0])? {
        [_, _, _, 3] => Ok(vec![ins[0]]),
        [_, _, _, c] => Err(format!("{what} has {c} channels, expects 3: red, green, blue")),
    }
}

impl Rule for Preprocess {
    const NAME: &'static str = "preprocess";
    const FORMULA: &'static str = "y = (x - mean) / deviation, as the network was trained";
    const SOURCE: &'static str = "src/ops/preprocess/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        colours("input", ins)
    }

    fn vjp(&self, _: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(vec![dys[0].map(|dy| e.one(PreprocessDx { mode: self.mode }, &[dy]))])
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        (steps(self.mode) * outs[0].shape.len()) as u64
    }

    fn detail(&self) -> String {
        self.mode.to_string()
    }

    fn cases() -> Vec<Case> {
        let case = |(mode, x): (Mode, [usize; 4])| Case::new(format!("{mode} {}", Shape::from(x)), Preprocess { mode }, &[x]);
        shapes().into_iter().map(case).collect()
    }
}

impl Rule for PreprocessDx {
    const NAME: &'static str = "preprocess_dx";
    const FORMULA: &'static str = "dx = dy / deviation, channels reversed where the forward op does";
    const SOURCE: &'static str = "src/ops/preprocess/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        colours("gradient", ins)
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        let divisions = match self.mode {
            Mode::None | Mode::Caffe => 0,
            Mode::Tf | Mode::Rescale => 1,
            Mode::Torch => 2,
        };
        (divisions * outs[0].shape.len()) as u64
    }

    fn detail(&self) -> String {
        self.mode.to_string()
    }

    fn cases() -> Vec<Case> {
        let case = |(mode, x): (Mode, [usize; 4])| Case::new(format!("{mode} {}", Shape::from(x)), PreprocessDx { mode }, &[x]).forward_only();
        shapes().into_iter().map(case).collect()
    }
}

/// Modes and images that both ops are tried on.
fn shapes() -> Vec<(Mode, [usize; 4])> {
    let sizes = [[3, 5, 7, 3], [1, 1, 1, 3]];
    Mode::ALL.into_iter().flat_map(|mode| sizes.map(|size| (mode, size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("TF".parse::<Mode>().unwrap_err(), "\"TF\" is none of none, caffe, tf, torch, rescale");
    }

    #[test]
    fn other_images_are_refused() {
        let refusal = Preprocess { mode: Mode::Tf }.infer(&[Ty::f32([1, 5, 5, 1])]).unwrap_err();
        assert_eq!(refusal, "input has 1 channels, expects 3: red, green, blue");
    }
}
