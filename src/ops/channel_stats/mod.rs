//! The statistics of every channel of an activation, over all pixels of the batch: the first of batch norm's three rows.
//!
//! With N pixels: `mean = sum(x) / N`, `var = sum((x - mean)^2) / N` (the population form, as Keras uses it both to
//! normalise and to update the moving variance). From the gradients of both,
//! `dx = dmean / N + 2 dvar (x - mean) / N`; the path of `var` through `mean` vanishes because `sum(x - mean) = 0`.

mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod naive;

use super::{Case, Constant, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity, per_channel};
use crate::base::{Shape, Ty, Val};

/// `mean`, `var` of each channel: `[.., C] -> [C], [C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats;

impl Rule for ChannelStats {
    const NAME: &'static str = "channel_stats";
    const FORMULA: &'static str = "mean = sum(x) / N, var = sum((x - mean)^2) / N, over the N pixels";
    const SOURCE: &'static str = "src/ops/channel_stats/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        if ins[0].shape.is_empty() {
            return Err(format!("input has shape {}, expects at least one pixel", ins[0].shape));
        }
        let x = ins[0];
        Ok(vec![Ty { dtype: x.dtype.summed(), ..x.with([x.shape.cols()]) }; 2])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if dys.iter().all(Option::is_none) {
            return Ok(vec![None]);
        }
        let [dmean, dvar] = [0, 1].map(|i| dys[i].unwrap_or_else(|| zeros_like(at.outs[i], e)));
        Ok(vec![Some(e.one(ChannelStatsDx::default(), &[at.ins[0], at.outs[0], dmean, dvar]))])
    }

    // Difference, sum, square, sum.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        4 * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.rows()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |shape: [usize; 4]| Case::new(format!("{shape:?}"), ChannelStats, &[shape]);
        let mut cases: Vec<_> = SHAPES.into_iter().map(case).collect();
        // The mean is 10^4 standard deviations: sums of squares would lose every digit of the variance.
        let far = Fill::Offset { mean: 100.0, deviation: 0.01 };
        cases.push(case([3, 13, 11, 19]).fill(0, far));
        // As far as bf16 can tell the values apart.
        cases.push(case([3, 13, 11, 32]).fill(0, Fill::Offset { mean: 100.0, deviation: 2.0 }));
        cases.push(Case::new("features 3x5", ChannelStats, &[[3, 5]]));
        cases
    }
}

/// Awkward activations: one channel, fewer than a vector, one more than a vector, two and three vectors, Xception's
/// 728; fewer rows than any block, odd sizes, more rows than a block and than two parts.
pub(super) const SHAPES: [[usize; 4]; 8] =
    [[1, 1, 1, 1], [3, 2, 2, 1], [1, 3, 5, 3], [1, 7, 9, 5], [3, 7, 11, 17], [3, 3, 3, 32], [3, 9, 13, 48], [1, 2, 3, 728]];

/// A zero of the type of `v`, for a gradient that does not flow.
pub(super) fn zeros_like(v: Val, e: &mut dyn Emit) -> Val {
    let shape = e.ty(v).shape;
    e.one(Constant::new(shape, 0.0), &[])
}

/// `dx = dmean / N + 2 dvar (x - mean) / N`, from `x, mean, dmean, dvar`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ChannelStatsDx {
    /// The result is kept in f32 although x is not: many rows add to it. Settled by the precision pass.
    pub wide: bool,
}

impl Rule for ChannelStatsDx {
    const NAME: &'static str = "channel_stats_dx";
    const FORMULA: &'static str = "dx = dmean / N + 2 dvar (x - mean) / N";
    const SOURCE: &'static str = "src/ops/channel_stats/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 4)?;
        for (what, ty) in ["mean", "dmean", "dvar"].into_iter().zip(&ins[1..]) {
            per_channel(what, *ty, ins[0].shape.cols())?;
        }
        Ok(vec![if self.wide { Ty { dtype: ins[0].dtype.summed(), ..ins[0] } } else { ins[0] }])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // Difference, two scalings (of dvar and dmean), multiply-add.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        5 * ins[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn detail(&self) -> String {
        if self.wide { "wide".into() } else { String::new() }
    }

    fn storage(&self, input: usize) -> Storage {
        if input == 0 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let case = |shape: [usize; 4]| {
            let vector = Shape::from([shape[3]]);
            let case = |wide| {
                let name = format!("{shape:?}{}", if wide { " wide" } else { "" });
                Case::of(name, ChannelStatsDx { wide }, vec![shape.into(), vector, vector, vector]).forward_only()
            };
            [case(false), case(true)]
        };
        SHAPES.into_iter().flat_map(case).collect()
    }
}
