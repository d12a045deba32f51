//! Adam (Kingma and Ba, 2015) in Keras's form, over flat ranges of parameters, with decoupled weight decay (AdamW).
//!
//! At step t (from 1): `w -= lr wd w`; `alpha = lr sqrt(1 - b2^t) / (1 - b1^t)`; `m += (g - m) (1 - b1)`;
//! `v += (g^2 - v) (1 - b2)`; `w -= alpha m / (sqrt(v) + epsilon)`. Epsilon stands outside the root and is not corrected for the
//! step, as in Keras (PyTorch corrects v first, so its epsilon weighs differently in the first steps).
//!
//! `knobs = [learning rate, t, ..]`, four numbers, as for [`Sgd`](super::Sgd).

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::sgd::{KNOBS, optimizer};
use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site};
use crate::base::{Ty, Val};

/// `params, grads, m, v, knobs -> params', m', v'`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    pub beta_1: f64,
    pub beta_2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

impl Adam {
    /// `lr sqrt(1 - beta_2^t) / (1 - beta_1^t)`. Keras takes the powers of the betas rounded to f32, whatever the number type
    /// of the weights, and so do we; the factors `1 - beta` of the moments it takes exactly.
    fn alpha(&self, lr: f64, step: f64) -> f64 {
        let power = |beta: f64| f64::from(beta as f32).powf(step);
        lr * (1.0 - power(self.beta_2)).sqrt() / (1.0 - power(self.beta_1))
    }
}

impl Default for Adam {
    /// Keras's defaults.
    fn default() -> Self {
        Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0 }
    }
}

impl Rule for Adam {
    const NAME: &'static str = "adam";
    const FORMULA: &'static str =
        "w -= lr wd w; m += (g - m)(1 - b1); v += (g^2 - v)(1 - b2); w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)";
    const SOURCE: &'static str = "src/ops/adam/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        optimizer(&["the gradient", "the first moment", "the second moment"], ins)?;
        Ok(vec![ins[0]; 3])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // m: three; v: four; the root, epsilon, two products or quotients and the difference.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        (12 + if self.weight_decay > 0.0 { 2 } else { 0 }) * ins[0].shape.len() as u64
    }

    fn in_place(&self, out: usize) -> Option<usize> {
        Some([0, 2, 3][out])
    }

    fn cases() -> Vec<Case> {
        let case = |n: usize, weight_decay, knobs| {
            let op = Adam { weight_decay, ..Adam::default() };
            let case = Case::of(format!("{n}"), op, vec![[n].into(), [n].into(), [n].into(), [n].into(), [KNOBS].into()]);
            case.fill(3, Fill::Positive).fill(4, Fill::Values(knobs)).forward_only()
        };
        let mut cases = vec![case(5, 0.0, &[1e-3, 1.0, 8.0, 0.0]), case(17, 0.01, &[0.1, 2.0, 8.0, 0.0])];
        cases.extend([case(48, 0.0, &[0.1, 1000.0, 8.0, 0.0]), case(10_007, 0.01, &[0.01, 100_000.0, 8.0, 0.0])]);
        // The first step: moments of zero, where epsilon alone keeps the quotient finite.
        cases.push(case(33, 0.0, &[1e-3, 1.0, 8.0, 0.0]).fill(1, Fill::Ties).fill(2, Fill::Values(&[0.0])).fill(3, Fill::Values(&[0.0])));
        cases
    }

    fn detail(&self) -> String {
        format!("betas {} {}, epsilon {}, decay {}", self.beta_1, self.beta_2, self.epsilon, self.weight_decay)
    }
}
