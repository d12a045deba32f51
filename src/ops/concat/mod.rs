//! Joining along the last axis, and its inverse. The memory plan usually turns these rows into views, the inputs of a
//! concat being written straight into columns of the wider buffer; then nothing runs. The copies here serve the rest.
//!
//! The three are each other's gradients: that of a concat is a range of columns for each input, that of a range of columns
//! is the range amid zeros.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Rule, Site, Storage, arity, same_type};
use crate::base::{Shape, Ty, Val};

/// `y = [x0 | x1 | ..]` along the last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat;

impl Rule for Concat {
    const NAME: &'static str = "concat";
    const FORMULA: &'static str = "y = [x0 | x1 | ..] along the last axis";
    const SOURCE: &'static str = "src/ops/concat/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        let Some(first) = ins.first() else { return Err("has no inputs, expects at least one".into()) };
        for (i, ty) in ins.iter().enumerate() {
            if ty.shape.with_cols(1) != first.shape.with_cols(1) {
                return Err(format!("input {i} has shape {}, expects that of input 0, {}, in all axes but the last", ty.shape, first.shape));
            }
        }
        same_type(ins)?;
        let cols = ins.iter().map(|ty| ty.shape.cols()).sum();
        Ok(vec![first.with(first.shape.with_cols(cols))])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let Some(dy) = dys[0] else { return Ok(vec![None; at.ins.len()]) };
        let mut start = 0;
        let mut gradient = |(&x, &wanted): (&Val, &bool)| {
            let len = e.ty(x).shape.cols();
            start += len;
            wanted.then(|| e.one(Columns { start: start - len, len }, &[dy]))
        };
        Ok(at.ins.iter().zip(at.wants).map(&mut gradient).collect())
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Alike
    }

    fn cases() -> Vec<Case> {
        let case = |pixels: [usize; 3], channels: &[usize]| {
            let shape = |&c: &usize| Shape::from([pixels[0], pixels[1], pixels[2], c]);
            Case::of(format!("{pixels:?} of {channels:?}"), Concat, channels.iter().map(shape).collect())
        };
        let mut cases = vec![case([1, 1, 1], &[1, 1]), case([3, 5, 7], &[17, 3, 48]), case([1, 3, 3], &[32, 5]), case([3, 1, 2], &[728, 1])];
        cases.push(Case::of("vectors", Concat, vec![[3].into(), [17].into(), [5].into()]));
        cases.push(Case::new("one input", Concat, &[[3, 5]]));
        cases
    }
}

/// `y = x[.., start .. start + len]` of the last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    pub start: usize,
    pub len: usize,
}

impl Rule for Columns {
    const NAME: &'static str = "columns";
    const FORMULA: &'static str = "y = x[.., start .. start + len]";
    const SOURCE: &'static str = "src/ops/concat/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        in_range(self.start, self.len, ins[0].shape.cols())?;
        Ok(vec![ins[0].with(ins[0].shape.with_cols(self.len))])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let total = e.ty(at.ins[0]).shape.cols();
        Ok(vec![dys[0].map(|dy| e.one(PadColumns { start: self.start, total }, &[dy]))])
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Alike
    }

    fn cases() -> Vec<Case> {
        let case = |start, len, shape: Shape| Case::new(format!("of {shape}"), Columns { start, len }, &[shape]);
        let mut cases = vec![case(0, 1, [1, 1, 1, 1].into()), case(3, 17, [3, 5, 7, 48].into()), case(0, 32, [1, 3, 3, 33].into())];
        cases.extend([case(1, 727, [1, 1, 2, 728].into()), case(2, 3, [5].into())]);
        cases
    }

    fn detail(&self) -> String {
        format!("{}..{}", self.start, self.start + self.len)
    }
}

/// `x` in columns `start ..` of a matrix of `total` columns, zeros around it.
#[derive(Clone, Debug, PartialEq)]
pub struct PadColumns {
    pub start: usize,
    pub total: usize,
}

impl Rule for PadColumns {
    const NAME: &'static str = "pad_columns";
    const FORMULA: &'static str = "y = [0 | x | 0] along the last axis, x from column start";
    const SOURCE: &'static str = "src/ops/concat/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        in_range(self.start, ins[0].shape.cols(), self.total)?;
        Ok(vec![ins[0].with(ins[0].shape.with_cols(self.total))])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let len = e.ty(at.ins[0]).shape.cols();
        Ok(vec![dys[0].map(|dy| e.one(Columns { start: self.start, len }, &[dy]))])
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Alike
    }

    fn cases() -> Vec<Case> {
        let case = |start, total, shape: Shape| Case::new(format!("of {shape}"), PadColumns { start, total }, &[shape]);
        let mut cases = vec![case(0, 1, [1, 1, 1, 1].into()), case(3, 48, [3, 5, 7, 17].into()), case(0, 33, [1, 3, 3, 32].into())];
        cases.extend([case(727, 728, [1, 1, 2, 1].into()), case(2, 7, [5].into())]);
        cases
    }

    fn detail(&self) -> String {
        format!("{}.. of {}", self.start, self.total)
    }
}

fn in_range(start: usize, len: usize, total: usize) -> Result<(), String> {
    if len > 0 && start + len <= total { Ok(()) } else { Err(format!("columns {start}..{} do not lie within {total} columns", start + len)) }
}
