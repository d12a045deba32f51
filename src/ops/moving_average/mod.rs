//! The update of batch norm's moving mean and variance, in Keras's form: `moving momentum + batch (1 - momentum)`.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, arity, same_shape};
use crate::base::{Ty, Val};

/// `moving, batch -> moving'`, any shape.
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
        arity(ins, 2)?;
        same_shape("the batch's value", ins[1], "the moving one", ins[0])?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        3 * ins[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn cases() -> Vec<Case> {
        let case = |channels: usize| Case::new(format!("{channels}"), MovingAverage { momentum: 0.99 }, &[[channels]; 2]).forward_only();
        [3, 5, 17, 32, 48, 728].into_iter().map(case).collect()
    }

    fn detail(&self) -> String {
        format!("momentum {}", self.momentum)
    }
}
