//! Gradient clipping, over the flat range of gradients, before the optimizer reads it.
//!
//! By norm (Keras's `global_clipnorm`; Pascanu et al. 2013): `norm = sqrt(sum_i g_i^2)` over all gradients together, `g *= min(1, limit / norm)`.
//! The direction stays. By value (Keras's `clipvalue`): `g = max(-limit, min(limit, g))`, each element by itself.
//!
//! A gradient that is not a number stays one, so that clipping never hides it; an infinite norm makes all of them so.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity};
use crate::base::{Ty, Val};

/// `grads [n] -> grads' [n], norm [1]`, the norm before clipping.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipNorm {
    pub limit: f64,
}

impl Rule for ClipNorm {
    const NAME: &'static str = "clip_norm";
    const FORMULA: &'static str = "norm = sqrt(sum g^2), g *= min(1, limit / norm)";
    const SOURCE: &'static str = "src/ops/clip/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        limited(self.limit, ins)?;
        Ok(vec![ins[0], ins[0].with([1])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // A multiply-add for the norm, a product for the scale.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        3 * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.len()
    }

    fn in_place(&self, out: usize) -> Option<usize> {
        [Some(0), None][out]
    }

    fn cases() -> Vec<Case> {
        let case = |n: usize, limit| Case::new(format!("{n}, at {limit}"), ClipNorm { limit }, &[[n]]).forward_only();
        // A norm of about sqrt(n): above the limit, below it, and zero, where the quotient is infinite.
        let mut cases = vec![case(5, 0.5), case(5, 100.0), case(17, 1.0), case(48, 3.0), case(4097, 1e-3), case(10_007, 10.0)];
        cases.extend([case(300_001, 1.0), case(33, 1.0).fill(0, Fill::Values(&[0.0])), case(48, 0.1).fill(0, Fill::Ties)]);
        cases
    }

    fn detail(&self) -> String {
        format!("at {}", self.limit)
    }
}

/// `grads -> grads'`, any shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipValue {
    pub limit: f64,
}

impl Rule for ClipValue {
    const NAME: &'static str = "clip_value";
    const FORMULA: &'static str = "g = max(-limit, min(limit, g))";
    const SOURCE: &'static str = "src/ops/clip/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        limited(self.limit, ins)?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        2 * ins[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn cases() -> Vec<Case> {
        let case = |n: usize, limit| Case::new(format!("{n}, at {limit}"), ClipValue { limit }, &[[n]]).forward_only();
        vec![case(5, 0.5), case(17, 100.0), case(48, 0.1), case(10_007, 1.0), case(33, 1.0).fill(0, Fill::Ties)]
    }

    fn detail(&self) -> String {
        format!("at {}", self.limit)
    }
}

fn limited(limit: f64, ins: &[Ty]) -> Result<(), String> {
    arity(ins, 1)?;
    match ins[0].shape.rank() {
        _ if !(limit > 0.0 && limit.is_finite()) => Err(format!("a limit of {limit}, expects a positive number")),
        1 => Ok(()),
        _ => Err(format!("the gradients have shape {}, expect one flat range", ins[0].shape)),
    }
}
