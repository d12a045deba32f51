//! One multiply-add per element and channel: the third of batch norm's three rows, and all that a frozen one is.
//!
//! `z = x scale + shift`, `y = act(z)`. Backwards, with `dz = dy act'(z)`: `dscale = sum(dz x)`, `dshift = sum(dz)` over the
//! pixels, `dx = dz scale`. The gradient ops compute z again with the forward's own arithmetic, so that they agree to the bit
//! on where a relu was open, and y need not be kept.
//!
//! Two fields are filled by fusion alone, which runs after the gradient pass: `act` (an activation that followed), and
//! `stats` (the gradient of [`ChannelStats`](super::ChannelStats) of the same x, which is added in the same pass over memory).

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::channel_stats::SHAPES;
use super::activation::Act;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity, per_channel, same_shape};
use crate::base::{Shape, Ty, Val};

/// `y = act(x scale + shift)`, from `x: [.., C], scale: [C], shift: [C]`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ScaleShift {
    /// Filled by fusion.
    pub act: Act,
}

impl Rule for ScaleShift {
    const NAME: &'static str = "scale_shift";
    const FORMULA: &'static str = "y = act(x * scale + shift)";
    const SOURCE: &'static str = "src/ops/scale_shift/mod.rs";

    fn formula(&self) -> String {
        if self.act == Act::Linear { "y = x * scale + shift".into() } else { format!("y = {}(x * scale + shift)", self.act) }
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 3)?;
        vectors(&["scale", "shift"], &ins[1..], ins[0])?;
        Ok(vec![ins[0]])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if self.act != Act::Linear {
            return Err("holds a fused activation, and fusion runs after the gradient pass");
        }
        let Some(dy) = dys[0] else { return Ok(vec![None; 3]) };
        let ins = [dy, at.ins[0], at.ins[1], at.ins[2]];
        let dx = at.wants[0].then(|| e.one(ScaleShiftDx::default(), &ins));
        if !at.wants[1] && !at.wants[2] {
            return Ok(vec![dx, None, None]);
        }
        let sums = e.emit(ScaleShiftSums::default().into(), &ins);
        Ok(vec![dx, at.wants[1].then_some(sums[0]), at.wants[2].then_some(sums[1])])
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        (2 + u64::from(self.act != Act::Linear)) * ins[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn storage(&self, input: usize) -> Storage {
        if input == 0 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let linear = SHAPES.into_iter().map(|shape| Case::of(format!("{shape:?}"), ScaleShift::default(), inputs(1, shape, 2)));
        let fused = FUSED.into_iter().map(|(act, shape)| Case::of(format!("{shape:?}"), ScaleShift { act }, inputs(1, shape, 2)).forward_only());
        linear.chain(fused).collect()
    }

    fn detail(&self) -> String {
        fields(self.act, false)
    }
}

/// `dscale = sum(dz x)`, `dshift = sum(dz)`, from `dy, x, scale, shift`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ScaleShiftSums {
    /// Filled by fusion.
    pub act: Act,
}

impl Rule for ScaleShiftSums {
    const NAME: &'static str = "scale_shift_sums";
    const FORMULA: &'static str = "dscale = sum(dz * x), dshift = sum(dz), with dz = dy * act'(x * scale + shift)";
    const SOURCE: &'static str = "src/ops/scale_shift/mod.rs";

    fn formula(&self) -> String {
        format!("dscale = sum({0} * x), dshift = sum({0}){1}", dz(self.act), slope(self.act))
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 4)?;
        same_shape("the gradient", ins[0], "the input", ins[1])?;
        vectors(&["scale", "shift"], &ins[2..], ins[1])?;
        Ok(vec![ins[2], ins[3]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // Multiply-add and sum; with an activation z, its slope and the product.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        (3 + slope_flops(self.act)) * ins[0].shape.len() as u64
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[0].shape.rows()
    }

    fn storage(&self, input: usize) -> Storage {
        if input < 2 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let all = SHAPES.into_iter().map(|shape| (Act::Linear, shape)).chain(FUSED);
        all.map(|(act, shape)| Case::of(format!("{shape:?}"), ScaleShiftSums { act }, inputs(2, shape, 2)).forward_only()).collect()
    }

    fn detail(&self) -> String {
        fields(self.act, false)
    }
}

/// `dx = dz scale`, from `dy, x, scale, shift`; with `stats` also `+ dmean / N + 2 dvar (x - mean) / N`, from `mean, dmean, dvar`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ScaleShiftDx {
    /// Filled by fusion.
    pub act: Act,
    /// Filled by fusion.
    pub stats: bool,
    /// The result is kept in f32 although dy and x are not: many rows add to it. Settled by the precision pass.
    pub wide: bool,
}

impl Rule for ScaleShiftDx {
    const NAME: &'static str = "scale_shift_dx";
    const FORMULA: &'static str = "dx = dz * scale (+ dmean / N + 2 dvar (x - mean) / N), with dz = dy * act'(x * scale + shift)";
    const SOURCE: &'static str = "src/ops/scale_shift/mod.rs";

    fn formula(&self) -> String {
        let stats = if self.stats { " + dmean / N + 2 dvar (x - mean) / N" } else { "" };
        format!("dx = {} * scale{stats}{}", dz(self.act), slope(self.act))
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, if self.stats { 7 } else { 4 })?;
        same_shape("the gradient", ins[0], "the input", ins[1])?;
        vectors(&["scale", "shift", "mean", "dmean", "dvar"], &ins[2..], ins[1])?;
        Ok(vec![if self.wide { Ty { dtype: ins[0].dtype.summed(), ..ins[0] } } else { ins[0] }])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        (1 + slope_flops(self.act) + if self.stats { 6 } else { 0 }) * ins[0].shape.len() as u64
    }

    fn in_place(&self, _: usize) -> Option<usize> {
        Some(0)
    }

    fn storage(&self, input: usize) -> Storage {
        if input < 2 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let case = |act, stats, shape: [usize; 4]| {
            // Every other shape: wide is about types alone.
            let (ins, wide) = (inputs(2, shape, if stats { 5 } else { 2 }), shape[3] % 2 == 1);
            Case::of(format!("{shape:?}"), ScaleShiftDx { act, stats, wide }, ins).forward_only()
        };
        let all = SHAPES.into_iter().map(|shape| (Act::Linear, shape)).chain(FUSED);
        all.flat_map(|(act, shape)| [case(act, false, shape), case(act, true, shape)]).collect()
    }

    fn detail(&self) -> String {
        fields(self.act, self.stats) + if self.wide { " wide" } else { "" }
    }
}

const FUSED: [(Act, [usize; 4]); 4] =
    [(Act::Relu, [3, 7, 11, 17]), (Act::Relu, [1, 1, 2, 48]), (Act::Sigmoid, [1, 2, 3, 5]), (Act::Sigmoid, [1, 9, 9, 32])];

/// `matrices` activations of one shape, then `vectors` vectors with one element per channel.
fn inputs(matrices: usize, shape: [usize; 4], vectors: usize) -> Vec<Shape> {
    let mut all = vec![Shape::from(shape); matrices];
    all.extend(vec![Shape::from([shape[3]]); vectors]);
    all
}

/// Checks that each input has one value for each channel of `x`.
fn vectors(names: &[&str], ins: &[Ty], x: Ty) -> Result<(), String> {
    names.iter().zip(ins).try_for_each(|(name, ty)| per_channel(name, *ty, x.shape.cols()))
}

/// What the formulas call the gradient of `z = x scale + shift`, which without an activation is the result's own.
fn dz(act: Act) -> &'static str {
    if act == Act::Linear { "dy" } else { "dz" }
}

fn slope(act: Act) -> String {
    if act == Act::Linear { String::new() } else { format!(", with dz = dy * {act}'(x * scale + shift)") }
}

fn slope_flops(act: Act) -> u64 {
    if act == Act::Linear { 0 } else { 4 }
}

fn fields(act: Act, stats: bool) -> String {
    let act = if act == Act::Linear { String::new() } else { act.to_string() };
    if stats { format!("{act} stats").trim().to_string() } else { act }
}
