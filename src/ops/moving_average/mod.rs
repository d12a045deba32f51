//! The update of batch norm's moving mean and variance, in Keras's form: `moving momentum + batch (1 - momentum)`.
//!
//! A row may update many vectors: those of all layers are gathered into one by [`crate::pass::group`].

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, per_channel};
use crate::base::{Shape, Ty, Val};

/// `moving, batch, .. -> moving', ..`: pairs of vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct MovingAverage {
    /// The share of the old value that stays: 0.99 in Keras, which PyTorch calls 0.01.
    pub momentum: f64,
}

impl Rule for MovingAverage {
    const NAME: &'static str = "moving_average";
    const FORMULA: &'static str = "y = moving * momentum + batch * (1 - momentum)";
    const SOURCE: &'static str = "src/ops/moving_average/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        if ins.is_empty() || !ins.len().is_multiple_of(2) {
            return Err(format!("has {} inputs, expects pairs of a moving and a batch's value", ins.len()));
        }
        let moving = ins.chunks(2).map(|pair| {
            per_channel("the moving value", pair[0], pair[0].shape.cols())?;
            per_channel("the batch's value", pair[1], pair[0].shape.cols())?;
            Ok(pair[0])
        });
        moving.collect()
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs.iter().map(|ty| 3 * ty.shape.len() as u64).sum()
    }

    fn in_place(&self, out: usize) -> Option<usize> {
        Some(2 * out)
    }

    fn cases() -> Vec<Case> {
        let case = |channels: &[usize]| {
            let pairs = channels.iter().flat_map(|&c| [Shape::from([c]); 2]).collect();
            Case::of(format!("{} of {}", channels.len(), channels[0]), MovingAverage { momentum: 0.99 }, pairs).forward_only()
        };
        let mut cases: Vec<Case> = [3, 5, 17, 32, 48, 728].into_iter().map(|channels| case(&[channels])).collect();
        cases.extend([case(&[17, 300, 1]), case(&[5; 70])]);
        cases
    }

    fn detail(&self) -> String {
        format!("momentum {}", self.momentum)
    }
}
