//! The loss: cross-entropy between targets and the softmax of logits, fused as Keras fuses it, so that the logarithm of
//! a rounded or clipped probability is never taken.
//!
//! With n samples, k classes, label smoothing s and sample weights w:
//! `t' = t (1 - s) + s / k`, `l_i = -sum_k t'_ik log_softmax(logits)_ik`, `loss = sum_i w_i l_i / n`. Backwards
//! `dlogits_i = dloss w_i / n (p_i sum(t'_i) - t'_i)`, with the probabilities p; the sum of t' is 1 for proper targets.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::softmax::{SHAPES, classes};
use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity, same_shape};
use crate::base::{Shape, Ty, Val};

/// `logits [n, k], targets [n, k], weights [n] -> loss [1], probabilities [n, k], weighted losses [n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    pub label_smoothing: f64,
}

impl Rule for CrossEntropy {
    const NAME: &'static str = "cross_entropy";
    const FORMULA: &'static str = "loss = 1/n sum_i w_i l_i, l_i = -sum_k t'_ik log_softmax(x)_ik, t' = t (1 - s) + s / k";
    const SOURCE: &'static str = "src/ops/cross_entropy/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 3)?;
        classes("the logits", ins[0])?;
        same_shape("the targets' matrix", ins[1], "the logits", ins[0])?;
        let per_sample = Ty { shape: Shape::from([ins[0].shape.rows()]), ..ins[0] };
        if ins[2].shape != per_sample.shape {
            return Err(format!("weights have shape {}, expect one for each of {} samples", ins[2].shape, ins[0].shape.rows()));
        }
        Ok(vec![ins[0].with([1]), ins[0], per_sample])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if dys[1].is_some() || dys[2].is_some() {
            return Err("has a gradient through the mean loss alone, not through probabilities or single losses");
        }
        if at.wants[1] || at.wants[2] {
            return Err("has a gradient for the logits alone, not for targets or weights");
        }
        let op = CrossEntropyDx { label_smoothing: self.label_smoothing };
        let dlogits = dys[0].filter(|_| at.wants[0]).map(|dloss| e.one(op, &[dloss, at.outs[1], at.ins[1], at.ins[2]]));
        Ok(vec![dlogits, None, None])
    }

    // The softmax's five; smoothing, difference of logarithms, multiply-add.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        10 * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.len()
    }

    fn cases() -> Vec<Case> {
        let case = |label_smoothing, [n, k]: [usize; 2], targets| {
            let ins: Vec<Shape> = vec![[n, k].into(), [n, k].into(), [n].into()];
            let case = Case::of(format!("{n}x{k}"), CrossEntropy { label_smoothing }, ins).fill(1, targets).fill(2, Fill::Positive);
            case.constant(1).constant(2).seeds(&[0])
        };
        let mut cases: Vec<_> = SHAPES.into_iter().map(|shape| case(0.0, shape, Fill::OneHot)).collect();
        cases.extend([case(0.1, [3, 5], Fill::OneHot), case(0.1, [1, 2], Fill::OneHot), case(0.0, [3, 5], Fill::Positive)]);
        cases.push(case(0.2, [3, 5], Fill::Positive));
        // Far apart: a probability of exp(-80), whose logarithm is still exact.
        cases.push(case(0.0, [3, 5], Fill::Values(&[0.0, 1.0])).fill(0, Fill::Values(&[40.0, -40.0, 3.0, 0.0, 1.0, -2.0, 0.5])));
        cases
    }

    fn detail(&self) -> String {
        detail(self.label_smoothing)
    }
}

/// `dlogits = dloss w / n (p sum(t') - t')`, from `dloss [1], probabilities, targets, weights` of [`CrossEntropy`].
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropyDx {
    pub label_smoothing: f64,
}

impl Rule for CrossEntropyDx {
    const NAME: &'static str = "cross_entropy_dx";
    const FORMULA: &'static str = "dx = dloss w / n * (p * sum(t') - t'), t' = t (1 - s) + s / k";
    const SOURCE: &'static str = "src/ops/cross_entropy/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 4)?;
        if ins[0].shape.len() != 1 {
            return Err(format!("the gradient of the loss has shape {}, expects a single number", ins[0].shape));
        }
        same_shape("the targets' matrix", ins[2], "the probabilities", ins[1])?;
        if ins[3].shape != Shape::from([ins[1].shape.rows()]) {
            return Err(format!("weights have shape {}, expect one for each of {} samples", ins[3].shape, ins[1].shape.rows()));
        }
        Ok(vec![ins[1]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // Smoothing, the sum, two products and a difference.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        6 * ins[1].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[1].shape.cols()
    }

    fn cases() -> Vec<Case> {
        let case = |label_smoothing, [n, k]: [usize; 2], targets| {
            let ins: Vec<Shape> = vec![[1].into(), [n, k].into(), [n, k].into(), [n].into()];
            let case = Case::of(format!("{n}x{k}"), CrossEntropyDx { label_smoothing }, ins).fill(1, Fill::Positive);
            case.fill(2, targets).fill(3, Fill::Positive).forward_only()
        };
        let mut cases: Vec<_> = SHAPES.into_iter().map(|shape| case(0.0, shape, Fill::OneHot)).collect();
        cases.extend([case(0.1, [3, 5], Fill::OneHot), case(0.1, [3, 5], Fill::Positive)]);
        cases
    }

    fn detail(&self) -> String {
        detail(self.label_smoothing)
    }
}

fn detail(label_smoothing: f64) -> String {
    if label_smoothing == 0.0 { String::new() } else { format!("smoothing {label_smoothing}") }
}
