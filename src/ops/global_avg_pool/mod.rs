//! Global average pooling: `y[n,c] = 1 / (h w) sum over all pixels of x[n,i,j,c]`. Its gradient is `dy / (h w)` at every pixel.
//!
//! Each row of pixels is summed for itself before the rows are added, so that rounding grows with `w + h` additions and not with
//! `w h`; the order is the same whatever the batch.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::window::pixels;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity};
use crate::base::{Shape, Ty, Val};

/// `y = mean of x over the image`: `[n,h,w,c]` to `[n,c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalAvgPool {}

/// The gradient of [`GlobalAvgPool`] by its input of `input` pixels: `[n,c]` to `[n,h,w,c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalAvgPoolDx {
    pub input: [usize; 2],
}

impl Rule for GlobalAvgPool {
    const NAME: &'static str = "global_avg_pool";
    const FORMULA: &'static str = "y[c] = mean x[i,j,c]";
    const SOURCE: &'static str = "src/ops/global_avg_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        let [n, h, w, c] = pixels("input", ins[0])?;
        if h * w == 0 {
            return Err(format!("input of {h}x{w} pixels has no mean"));
        }
        Ok(vec![Ty { dtype: ins[0].dtype.summed(), ..ins[0].with([n, c]) }])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let [_, h, w, _] = e.ty(at.ins[0]).shape.four().expect("an activation");
        Ok(vec![dys[0].map(|dy| e.one(GlobalAvgPoolDx { input: [h, w] }, &[dy]))])
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        (ins[0].shape.len() + outs[0].shape.len()) as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        let [_, h, w, _] = ins[0].shape.four().expect("an activation");
        h * w
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |x: [usize; 4]| Case::new(Shape::from(x).to_string(), GlobalAvgPool {}, &[x]);
        shapes().into_iter().map(case).collect()
    }
}

impl Rule for GlobalAvgPoolDx {
    const NAME: &'static str = "global_avg_pool_dx";
    const FORMULA: &'static str = "dx[i,j,c] = dy[c] / (h w)";
    const SOURCE: &'static str = "src/ops/global_avg_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        let ([n, c], [h, w]) = match ins[0].shape.dims() {
            &[n, c] => ([n, c], self.input),
            _ => return Err(format!("gradient has shape {}, expects images x channels", ins[0].shape)),
        };
        Ok(vec![ins[0].with([n, h, w, c])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs[0].shape.len() as u64
    }

    fn detail(&self) -> String {
        format!("of {}x{}", self.input[0], self.input[1])
    }

    fn cases() -> Vec<Case> {
        let case = |[n, h, w, c]: [usize; 4]| {
            Case::new(format!("{n}x{h}x{w}x{c}"), GlobalAvgPoolDx { input: [h, w] }, &[[n, c]]).forward_only()
        };
        shapes().into_iter().map(case).collect()
    }
}

/// Inputs that both ops are tried on.
fn shapes() -> Vec<[usize; 4]> {
    vec![[3, 5, 4, 17], [1, 7, 7, 32], [3, 1, 9, 5], [1, 9, 1, 3], [1, 1, 1, 1], [1, 3, 2, 728], [3, 2, 2, 48]]
}
