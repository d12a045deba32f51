//! The fully connected layer: a matrix product of features with a weight matrix `[in, out]`.
//!
//! `y = x w`, so `dx = dy w^T` and `dw = x^T dy`.

mod cpu;
pub mod cuda;
mod naive;

use super::conv2d::parameter_gradient;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, arity};
use crate::base::{Ty, Val};

/// `y[n, out] = x[n, in] w[in, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense;

/// The two axes of a matrix.
fn matrix(what: &str, ty: Ty) -> Result<[usize; 2], String> {
    match *ty.shape.dims() {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!("{what} has shape {}, expects two axes", ty.shape)),
    }
}

/// Rows, inputs and outputs that every op of the family is tried on.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [3, 5, 17], [16, 48, 3], [1, 728, 3], [5, 3, 100], [31, 32, 64]];

impl Rule for Dense {
    const NAME: &'static str = "dense";
    const FORMULA: &'static str = "y = x w";
    const SOURCE: &'static str = "src/ops/dense/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        let ([rows, features], [expected, outputs]) = (matrix("input", ins[0])?, matrix("weight matrix", ins[1])?);
        if features != expected {
            return Err(format!("input has {features} features, the weight matrix expects {expected}"));
        }
        Ok(vec![ins[0].with([rows, outputs])])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let Some(dy) = dys[0] else { return Ok(vec![None, None]) };
        let (x, w) = (at.ins[0], at.ins[1]);
        let dx = at.wants[0].then(|| e.one(DenseDx, &[dy, w]));
        let dw = at.wants[1].then(|| e.one(DenseDw, &[x, dy]));
        Ok(vec![dx, dw])
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        2 * (ins[0].shape.len() * outs[0].shape.cols()) as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.cols()
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
    }

    fn cases() -> Vec<Case> {
        let case = |[n, i, o]: [usize; 3]| Case::new(format!("{n} rows, {i} to {o}"), Dense, &[[n, i], [i, o]]);
        SHAPES.map(case).into()
    }
}

/// `dx[n, in] = dy[n, out] w[in, out]^T`.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseDx;

impl Rule for DenseDx {
    const NAME: &'static str = "dense_dx";
    const FORMULA: &'static str = "dx = dy w^T";
    const SOURCE: &'static str = "src/ops/dense/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        let ([rows, outputs], [features, expected]) = (matrix("gradient", ins[0])?, matrix("weight matrix", ins[1])?);
        if outputs != expected {
            return Err(format!("gradient has {outputs} columns, the weight matrix makes {expected}"));
        }
        Ok(vec![ins[0].with([rows, features])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        2 * (ins[0].shape.len() * outs[0].shape.cols()) as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.cols()
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
    }

    fn cases() -> Vec<Case> {
        let case = |[n, i, o]: [usize; 3]| Case::new(format!("{n} rows, {o} to {i}"), DenseDx, &[[n, o], [i, o]]).forward_only();
        SHAPES.map(case).into()
    }
}

/// `dw[in, out] = x[n, in]^T dy[n, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseDw;

impl Rule for DenseDw {
    const NAME: &'static str = "dense_dw";
    const FORMULA: &'static str = "dw = x^T dy";
    const SOURCE: &'static str = "src/ops/dense/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        let ([rows, features], [gradients, outputs]) = (matrix("input", ins[0])?, matrix("gradient", ins[1])?);
        if rows != gradients {
            return Err(format!("input has {rows} rows, its gradient {gradients}"));
        }
        Ok(vec![parameter_gradient(ins[0], [features, outputs])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        2 * (ins[0].shape.len() * ins[1].shape.cols()) as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.rows()
    }

    fn weights(&self) -> &'static [usize] {
        &[2]
    }

    fn cases() -> Vec<Case> {
        let case = |[n, i, o]: [usize; 3]| Case::new(format!("{n} rows, {i} by {o}"), DenseDw, &[[n, i], [n, o]]).forward_only();
        SHAPES.map(case).into()
    }
}
