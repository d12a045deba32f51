//! A value filled with one number: the seed of a backward pass (`d loss / d loss = 1`), and the zero that stands in for
//! a gradient that does not flow.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Rule, Site, arity};
use crate::base::{DType, Shape, Ty, Val};

/// `y = value` everywhere, of the given shape and number type: it has no input to take them from.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    pub shape: Shape,
    pub value: f64,
    pub dtype: DType,
}

impl Constant {
    /// A constant of f32, as models are written.
    pub fn new(shape: Shape, value: f64) -> Self {
        Constant { shape, value, dtype: DType::F32 }
    }
}

impl Rule for Constant {
    const NAME: &'static str = "constant";
    const FORMULA: &'static str = "y = value";
    const SOURCE: &'static str = "src/ops/constant/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 0)?;
        Ok(vec![Ty { shape: self.shape, dtype: self.dtype }])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(Vec::new())
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn cases() -> Vec<Case> {
        let case = |shape: Shape, value| Case::of(format!("{value} {shape}"), Constant::new(shape, value), vec![]);
        vec![case([1].into(), 1.0), case([17].into(), 0.0), case([3, 5].into(), -0.5), case([1, 3, 2, 33].into(), 0.1)]
    }

    fn detail(&self) -> String {
        self.value.to_string()
    }
}
