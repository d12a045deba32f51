//! Probabilities from logits, row by row: `y = exp(x - max x) / sum(exp(x - max x))`. Backwards
//! `dx = y (dy - sum(dy y))`. Training does not pass through here: [`CrossEntropy`](super::CrossEntropy) starts at the logits.

pub(super) mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity, same_shape};
use crate::base::{Ty, Val};

/// `[n, k] -> [n, k]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax;

impl Rule for Softmax {
    const NAME: &'static str = "softmax";
    const FORMULA: &'static str = "y = exp(x) / sum(exp(x)), along the last axis";
    const SOURCE: &'static str = "src/ops/softmax/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        classes("the logits", ins[0])?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(vec![dys[0].map(|dy| e.one(SoftmaxDx, &[dy, at.outs[0]]))])
    }

    // Maximum, difference, exponential, sum, quotient.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        5 * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.cols()
    }

    fn cases() -> Vec<Case> {
        let case = |shape: [usize; 2]| Case::new(format!("{shape:?}"), Softmax, &[shape]);
        let mut cases: Vec<_> = SHAPES.into_iter().map(case).collect();
        // exp(1000) is infinite: only the difference to the largest logit may be exponentiated.
        cases.push(case([3, 5]).fill(0, Fill::Offset { mean: 1000.0, deviation: 2.0 }));
        cases
    }
}

/// `dx = y (dy - sum(dy y))`, from the gradient and the result `y` of [`Softmax`].
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxDx;

impl Rule for SoftmaxDx {
    const NAME: &'static str = "softmax_dx";
    const FORMULA: &'static str = "dx = y * (dy - sum(dy * y)), from y = softmax(x)";
    const SOURCE: &'static str = "src/ops/softmax/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        same_shape("the gradient", ins[0], "the result", ins[1])?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // Multiply-add, difference, product.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        4 * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.cols()
    }

    fn cases() -> Vec<Case> {
        let case = |shape: [usize; 2]| Case::new(format!("{shape:?}"), SoftmaxDx, &[shape; 2]).fill(1, Fill::Positive).forward_only();
        SHAPES.into_iter().map(case).collect()
    }
}

/// Batches of one, three and many, of two, five and more classes.
pub(super) const SHAPES: [[usize; 2]; 6] = [[1, 2], [3, 2], [1, 5], [3, 5], [37, 5], [5, 117]];

/// Checks for a row of at least two classes per sample.
pub(super) fn classes(what: &str, ty: Ty) -> Result<(), String> {
    match ty.shape.dims() {
        [_, k] if *k >= 2 => Ok(()),
        [_, k] => Err(format!("{what} have {k} class{}, expect at least 2", if *k == 1 { "" } else { "es" })),
        _ => Err(format!("{what} have shape {}, expect samples x classes", ty.shape)),
    }
}
