//! Stochastic gradient descent in Keras's form, over flat ranges of parameters.
//!
//! Weight decay first, decoupled from the gradient: `w -= lr wd w`. Then without momentum `w -= lr g`; with it
//! `v = momentum v - lr g` and `w += v`, or `w += momentum v - lr g` (with the new v) for Nesterov's. The learning rate is inside the
//! velocity (PyTorch has it outside), so a change of it acts only gradually.
//!
//! What changes between steps is read from memory, `knobs = [learning rate, step (from 1), ..]`, four numbers.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity, same_shape};
use crate::base::{Shape, Ty, Val};

/// `params, grads, (velocity), knobs -> params', (velocity')`; the velocity only with momentum.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
}

impl Sgd {
    /// Whether there is a velocity.
    pub fn has_velocity(&self) -> bool {
        self.momentum > 0.0
    }
}

impl Rule for Sgd {
    const NAME: &'static str = "sgd";
    const FORMULA: &'static str = "w -= lr wd w; v = m v - lr g; w += v (nesterov: w += m v - lr g)";
    const SOURCE: &'static str = "src/ops/sgd/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        let names: &[&str] = if self.has_velocity() { &["the gradient", "the velocity"] } else { &["the gradient"] };
        optimizer(names, ins)?;
        Ok(vec![ins[0]; names.len()])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        let decay = if self.weight_decay > 0.0 { 2 } else { 0 };
        let step = if self.nesterov { 7 } else { 4 };
        (decay + if self.has_velocity() { step } else { 2 }) * ins[0].shape.len() as u64
    }

    fn in_place(&self, out: usize) -> Option<usize> {
        Some([0, 2][out])
    }

    fn cases() -> Vec<Case> {
        let case = |n: usize, momentum: f64, nesterov, weight_decay| {
            let op = Sgd { momentum, nesterov, weight_decay };
            let (vectors, n) = (2 + usize::from(op.has_velocity()), Shape::from([n]));
            let mut ins = vec![n; vectors];
            ins.push([KNOBS].into());
            Case::of(format!("{n}"), op, ins).fill(vectors, Fill::Values(&[0.1, 3.0, 8.0, 0.0])).forward_only()
        };
        vec![
            case(5, 0.0, false, 0.0),
            case(17, 0.0, false, 0.01),
            case(48, 0.9, false, 0.0),
            case(10_007, 0.9, false, 0.01),
            case(33, 0.9, true, 0.0),
            case(10_007, 0.9, true, 0.01),
        ]
    }

    fn detail(&self) -> String {
        let nesterov = if self.nesterov { ", nesterov" } else { "" };
        format!("momentum {}{nesterov}, decay {}", self.momentum, self.weight_decay)
    }
}

/// Numbers among the knobs: learning rate, step (from 1), two to spare.
pub const KNOBS: usize = 4;

/// Checks the inputs of an optimizer: parameters, what goes with each of them, knobs.
pub(super) fn optimizer(names: &[&str], ins: &[Ty]) -> Result<(), String> {
    arity(ins, names.len() + 2)?;
    names.iter().zip(&ins[1..]).try_for_each(|(name, ty)| same_shape(name, *ty, "the parameters", ins[0]))?;
    let knobs = ins[ins.len() - 1].shape;
    if knobs == Shape::from([KNOBS]) { Ok(()) } else { Err(format!("knobs have shape {knobs}, expect {KNOBS} numbers")) }
}
