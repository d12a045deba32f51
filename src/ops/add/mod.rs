//! The sum of two or more values of one shape: a residual connection, or the gradient of a value that several rows read.

mod cpu;
pub(super) mod cuda;
mod naive;

use super::{Case, Emit, Rule, Site, Storage, same_shape, same_type};
use crate::base::{Shape, Ty, Val};

/// `y = x0 + x1 + ..`, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Add;

/// The most values one row adds up: more than any value of the four networks has readers.
pub const MOST: usize = 64;

impl Rule for Add {
    const NAME: &'static str = "add";
    const FORMULA: &'static str = "y = x0 + x1 + ..";
    const SOURCE: &'static str = "src/ops/add/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        if !(2..=MOST).contains(&ins.len()) {
            return Err(format!("has {} inputs, expects 2 to {MOST}", ins.len()));
        }
        ins.iter().enumerate().try_for_each(|(i, ty)| same_shape(&format!("input {i}"), *ty, "input 0", ins[0]))?;
        same_type(ins)?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(at.wants.iter().map(|&wanted| dys[0].filter(|_| wanted)).collect())
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        ((ins.len() - 1) * outs[0].shape.len()) as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins.len()
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Alike
    }

    fn cases() -> Vec<Case> {
        let case = |inputs: usize, shape: Shape| Case::of(format!("{inputs} of {shape}"), Add, vec![shape; inputs]);
        let mut cases = vec![case(2, [1, 1, 1, 1].into()), case(2, [3, 7, 11, 17].into()), case(3, [1, 3, 5, 3].into())];
        cases.extend([case(5, [3, 2, 2, 48].into()), case(2, [1, 2, 3, 728].into()), case(3, [5].into()), case(MOST, [3, 17].into())]);
        cases
    }
}
