//! One value added to every channel: the bias of a dense layer or of a convolution. `db = sum(dy)` over all rows.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::channel_stats::SHAPES;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity, per_channel};
use crate::base::{Shape, Ty, Val};

/// `y = x + b`, from `x: [.., C], b: [C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BiasAdd;

impl Rule for BiasAdd {
    const NAME: &'static str = "bias_add";
    const FORMULA: &'static str = "y = x + b, one b for each channel";
    const SOURCE: &'static str = "src/ops/bias_add/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        per_channel("the bias", ins[1], ins[0].shape.cols())?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        Ok(vec![at.wants[0].then_some(dy), at.wants[1].then(|| e.one(ColumnSum, &[dy]))])
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn storage(&self, input: usize) -> Storage {
        if input == 0 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let case = |shape: Shape| Case::of(shape.to_string(), BiasAdd, vec![shape, [shape.cols()].into()]);
        shapes().map(case).collect()
    }
}

/// `y = sum over all rows of x`: `[.., C] -> [C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSum;

impl Rule for ColumnSum {
    const NAME: &'static str = "column_sum";
    const FORMULA: &'static str = "y = sum of x over all axes but the last";
    const SOURCE: &'static str = "src/ops/bias_add/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        Ok(vec![Ty { dtype: ins[0].dtype.summed(), ..ins[0].with([ins[0].shape.cols()]) }])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.rows()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        shapes().map(|shape| Case::new(shape.to_string(), ColumnSum, &[shape]).forward_only()).collect()
    }
}

/// Activations, and the features of a dense layer.
fn shapes() -> impl Iterator<Item = Shape> {
    SHAPES.into_iter().map(Shape::from).chain([[1, 5], [3, 2], [70, 17]].map(Shape::from))
}
