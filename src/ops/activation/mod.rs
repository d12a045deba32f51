//! Element-wise activations, with derivatives written in terms of the *result*, so that the value before the activation
//! need not be kept: `relu: y = max(x, 0)`, `dx = dy where y > 0`; `sigmoid: y = 1 / (1 + exp(-x))`, `dx = dy y (1 - y)`.

mod cpu;
pub(in crate::ops) mod cuda;
pub mod naive;

pub(in crate::ops) use naive::apply;

use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity};
use crate::base::{Ty, Val};
use std::fmt;

/// Which function. Other ops hold one as a field: the activation that fusion has moved into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Act {
    /// The identity.
    #[default]
    Linear,
    /// max(x, 0), with derivative 0 at 0.
    Relu,
    /// The logistic function.
    Sigmoid,
}

impl Act {
    /// `y` of x, and `dx` of dy and y.
    fn formulas(self) -> [&'static str; 2] {
        match self {
            Act::Linear => ["x", "dy"],
            Act::Relu => ["max(x, 0)", "dy where y > 0, else 0"],
            Act::Sigmoid => ["1 / (1 + exp(-x))", "dy * y * (1 - y)"],
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::Linear => "linear",
            Act::Relu => "relu",
            Act::Sigmoid => "sigmoid",
        })
    }
}

/// `y = act(x)`, any shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    pub act: Act,
}

impl Rule for Activation {
    const NAME: &'static str = "activation";
    const FORMULA: &'static str = "y = act(x)";
    const SOURCE: &'static str = "src/ops/activation/mod.rs";

    fn formula(&self) -> String {
        format!("y = {}", self.act.formulas()[0])
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(vec![dys[0].map(|dy| e.one(ActivationDx { act: self.act }, &[dy, at.outs[0]]))])
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn detail(&self) -> String {
        self.act.to_string()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |act, shape: [usize; 4]| Case::new(format!("{act} {shape:?}"), Activation { act }, &[shape]).fill(0, Fill::Distinct);
        vec![case(Act::Relu, [3, 5, 7, 17]), case(Act::Relu, [1, 1, 1, 1]), case(Act::Sigmoid, [1, 2, 3, 5]), case(Act::Linear, [1, 1, 2, 3])]
    }
}

/// `dx = dy act'(x)`, from the gradient and the result `y` of [`Activation`].
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationDx {
    pub act: Act,
}

impl Rule for ActivationDx {
    const NAME: &'static str = "activation_dx";
    const FORMULA: &'static str = "dx = dy * act'(x), from y = act(x)";
    const SOURCE: &'static str = "src/ops/activation/mod.rs";

    fn formula(&self) -> String {
        format!("dx = {}", self.act.formulas()[1])
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        if ins[0].shape != ins[1].shape {
            return Err(format!("gradient of shape {} meets a result of shape {}", ins[0].shape, ins[1].shape));
        }
        Ok(vec![ins[0]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn detail(&self) -> String {
        self.act.to_string()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |act, shape: [usize; 4]| Case::new(format!("{act} {shape:?}"), ActivationDx { act }, &[shape; 2]).forward_only();
        vec![case(Act::Relu, [3, 5, 7, 17]), case(Act::Sigmoid, [1, 2, 3, 5])]
    }
}
