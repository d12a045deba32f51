//! Convolution of pixel matrices with a kernel `[kernel_h, kernel_w, in, out]`, as Keras stores it:
//!
//! `y[n, o, p, c] = sum over i, j, k of x[n, o * stride + i - pad, p * stride + j - pad, k] * w[i, j, k, c]`,
//!
//! over the taps that lie on real pixels. It is linear in `x` and in `w`, so each gradient is the transposed map applied to
//! `dy`: [`Conv2dDx`] sends every `dy` back to the pixels it was read from, [`Conv2dDw`] to the taps it went through.

pub(in crate::ops) mod cpu;
pub mod cuda;
mod epilogue;
mod gradients;
mod naive;
mod separable;
mod shapes;
#[cfg(test)]
pub(in crate::ops) mod tests;

use super::activation::Act;
use super::{Case, ChannelStats, Emit, Op, Rule, Site, Storage, arity, per_channel, same_type};
use crate::base::{Geom, Math, Shape, Ty, Val, Window};
use shapes::{DEEP, pre_shapes, separable_shapes, shapes};
pub use gradients::{Conv2dDw, Conv2dDx};
use std::ops::Range;

/// `y = act(conv(x, w) * scale + bias)`: ins `x` NHWC, `w`, then `scale` and `bias` (one value per output channel) as far
/// as their fields say so. The fields are filled by fusion alone, from the batch norm, bias and activation that follow, and the
/// batch norm and activation before: with `pre`, the convolution reads `pre(x * pre_scale + pre_shift)` for `x`, and two vectors of
/// one value per input channel are its next ins. With `depthwise`, a 1x1 convolution reads `depthwise(x)` for `x`, or
/// `depthwise(relu(x))`: the depthwise half of a separable convolution, whose 3x3 filter `[3, 3, in, 1]` is its last in. Padding stays
/// zero. With `stats`, two more outs are the mean and variance of each channel of `y` as it is stored, as [`ChannelStats`] has them.
/// `math` is settled by the precision pass, in the gradient ops too.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    pub window: Window,
    pub scale: bool,
    pub bias: bool,
    pub act: Act,
    pub pre: Option<Act>,
    pub depthwise: Option<Act>,
    pub stats: bool,
    pub math: Math,
}

impl Conv2d {
    /// The plain convolution, which models are written with.
    pub fn new(window: Window) -> Self {
        Conv2d { window, scale: false, bias: false, act: Act::Linear, pre: None, depthwise: None, stats: false, math: Math::Full }
    }

    /// The place of `pre_scale` among the ins.
    fn pre_at(&self) -> usize {
        2 + usize::from(self.scale) + usize::from(self.bias)
    }

    /// Whether fusion has filled a field.
    pub fn is_fused(&self) -> bool {
        self.scale || self.bias || self.act != Act::Linear || self.pre.is_some() || self.depthwise.is_some() || self.stats
    }
}

/// The four axes of an activation.
fn activation(what: &str, ty: Ty) -> Result<[usize; 4], String> {
    ty.shape.four().ok_or_else(|| format!("{what} has shape {}, expects images x height x width x channels", ty.shape))
}

/// The channels `[in, out]` of a kernel that fits the window.
fn filter(window: &Window, ty: Ty) -> Result<[usize; 2], String> {
    let [h, w] = window.kernel;
    match ty.shape.four() {
        Some([kh, kw, cin, cout]) if [kh, kw] == window.kernel => Ok([cin, cout]),
        _ => Err(format!("filter has shape {}, expects {h}x{w} x in x out channels", ty.shape)),
    }
}

/// The geometry of a checked convolution on an input of type `x`.
fn geometry(window: &Window, shape: Shape) -> Geom {
    let [_, h, w, _] = shape.four().expect("shape inference admits four axes here");
    window.on(h, w).expect("shape inference has placed the window")
}

/// What a row says of its arithmetic.
fn word(math: Math) -> &'static str {
    match math {
        Math::Full => "",
        Math::Tf32 => " tf32",
        Math::Bf16 => " bf16",
    }
}

/// Twice the multiply-adds that touch real pixels, for `images` images and `channels` = in x out.
fn flops(g: &Geom, images: usize, channels: usize) -> u64 {
    2 * (images * channels) as u64 * g.real_taps() as u64
}

impl Rule for Conv2d {
    const NAME: &'static str = "conv2d";
    const FORMULA: &'static str = "y = act(conv(x, w) * scale + bias)";
    const SOURCE: &'static str = "src/ops/conv2d/mod.rs";

    fn formula(&self) -> String {
        let (scale, bias) = (if self.scale { " * scale" } else { "" }, if self.bias { " + bias" } else { "" });
        let z = format!("conv({}, w){scale}{bias}", self.source_formula());
        let y = if self.act == Act::Linear { z } else { format!("{}({z})", self.act) };
        if self.stats { format!("y = {y}, mean = sum(y) / N, var = sum((y - mean)^2) / N") } else { format!("y = {y}") }
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, self.depthwise_at() + usize::from(self.depthwise.is_some()))?;
        let [images, height, width, channels] = activation("input", ins[0])?;
        let [cin, cout] = filter(&self.window, ins[1])?;
        if channels != cin {
            return Err(format!("input has {channels} channels, the filter expects {cin}"));
        }
        same_type(&ins[..2])?;
        let names = [("scale", self.scale), ("bias", self.bias)];
        for ((what, _), &ty) in names.into_iter().filter(|n| n.1).zip(&ins[2..]) {
            per_channel(what, ty, cout)?;
        }
        check_pre(&ins[self.pre_at()..self.depthwise_at()], cin)?;
        self.check_depthwise(&ins[self.depthwise_at()..], ins[0].shape)?;
        let [h, w] = self.window.on(height, width)?.output;
        epilogue::results(ins[0].with([images, h, w, cout]), self.epilogue(), ins)
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if self.is_fused() {
            return Err("is fused; gradients are taken of plain rows, before fusion");
        }
        let Some(dy) = dys[0] else { return Ok(vec![None, None]) };
        let (x, w, window) = (at.ins[0], at.ins[1], self.window);
        let [_, height, width, _] = e.ty(x).shape.four().expect("shape inference admits four axes here");
        let dx = at.wants[0].then(|| e.one(Conv2dDx { math: self.math, ..Conv2dDx::new(window, [height, width]) }, &[dy, w]));
        let dw = at.wants[1].then(|| e.one(Conv2dDw { math: self.math, ..Conv2dDw::new(window) }, &[x, dy]));
        Ok(vec![dx, dw])
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        let (x, y) = (ins[0].shape, outs[0].shape);
        let channel_steps = usize::from(self.scale) + usize::from(self.bias) + usize::from(self.act != Act::Linear);
        let multiply_adds = flops(&geometry(&self.window, x), x.dims()[0], x.cols() * y.cols());
        let steps = (channel_steps * y.len()) as u64 + pre_flops(self.pre, x) + self.depthwise_flops(x);
        multiply_adds + steps + epilogue::flops(self.epilogue(), ins, outs)
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[1].shape.rows() + self.depthwise.map_or(0, |_| 9)
    }

    fn epilogue(&self) -> Option<(Op, Range<usize>)> {
        self.stats.then(|| (ChannelStats.into(), 0..0))
    }

    fn detail(&self) -> String {
        let mut text = self.window.to_string();
        for (word, present) in [(" scale", self.scale), (" bias", self.bias)] {
            text.push_str(if present { word } else { "" });
        }
        if self.act != Act::Linear {
            text = format!("{text} {}", self.act);
        }
        text + &pre_detail(self.pre) + &self.depthwise_detail() + if self.stats { " stats" } else { "" } + word(self.math)
    }

    fn weights(&self) -> &'static [usize] {
        match (self.depthwise, self.depthwise_at()) {
            (None, _) => &[1],
            (_, 2) => &[1, 2],
            (_, 3) => &[1, 3],
            _ => &[1, 4],
        }
    }

    fn storage(&self, input: usize) -> Storage {
        if input < 2 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let mut cases: Vec<Case> = shapes()
            .into_iter()
            .map(|(window, images, [h, w], cin, cout)| {
                let [kh, kw] = window.kernel;
                let name = format!("{window} on {images}x{h}x{w}, {cin} to {cout} channels");
                Case::new(name, Conv2d::new(window), &[[images, h, w, cin], [kh, kw, cin, cout]])
            })
            .collect();
        for (scale, bias) in [(false, false), (true, false), (false, true), (true, true)] {
            let channels = [(Act::Linear, 3, 37), (Act::Relu, 3, 37), (Act::Sigmoid, 3, 37), (Act::Relu, 18, 37), (Act::Sigmoid, 18, 37), (Act::Relu, 3, 40)];
            for (act, cin, cout) in channels {
                let op = Conv2d { scale, bias, act, ..Conv2d::new(Window::same(3, 1)) };
                let mut ins = vec![Shape::from([2, 4, 5, cin]), Shape::from([3, 3, cin, cout])];
                ins.extend(vec![Shape::from([cout]); usize::from(scale) + usize::from(bias)]);
                if op.is_fused() {
                    cases.push(Case::of(format!("fused {}, {cin} to {cout} channels", op.detail()), op, ins).forward_only());
                }
            }
        }
        let deep = |(h, cin, cout): (usize, usize, usize)| {
            let name = format!("3x3 of {cin} to {cout} channels on {h}x{h}");
            Case::new(name, Conv2d::new(Window::same(3, 1)), &[[1, h, h, cin], [3, 3, cin, cout]]).forward_only()
        };
        let normalised = pre_shapes().map(|(act, window, images, [h, w], cin, cout)| {
            let ([kh, kw], vector) = (window.kernel, Shape::from([cin]));
            let ins = vec![[images, h, w, cin].into(), [kh, kw, cin, cout].into(), vector, vector];
            Case::of(format!("of {act}, {window} on {images}x{h}x{w}, {cin} to {cout}"), Conv2d { pre: Some(act), ..Conv2d::new(window) }, ins)
        });
        let separable = separable_shapes().map(|(act, finish, [n, h, w], cin, cout)| {
            let op = Conv2d { depthwise: Some(act), scale: finish, bias: finish, ..Conv2d::new(Window::valid(1, 1)) };
            let mut ins = vec![Shape::from([n, h, w, cin]), Shape::from([1, 1, cin, cout])];
            ins.extend(vec![Shape::from([cout]); 2 * usize::from(finish)]);
            ins.push(Shape::from([3, 3, cin, 1]));
            Case::of(format!("{} on {n}x{h}x{w}, {cin} to {cout}", op.detail()), op, ins)
        });
        let fused = normalised.into_iter().chain(separable).map(Case::forward_only);
        cases.into_iter().chain(DEEP.map(deep)).chain(fused).chain(epilogue::stats_cases()).collect()
    }
}

/// What a convolution reads for `x`.
fn pre_formula(pre: Option<Act>) -> String {
    match pre {
        None => "x".into(),
        Some(Act::Linear) => "x * pre_scale + pre_shift".into(),
        Some(act) => format!("{act}(x * pre_scale + pre_shift)"),
    }
}

fn pre_detail(pre: Option<Act>) -> String {
    pre.map_or(String::new(), |act| format!(" of {act}"))
}

/// Checks the two vectors of `pre`, or that there are none.
fn check_pre(ins: &[Ty], cin: usize) -> Result<(), String> {
    ["input scale", "input shift"].into_iter().zip(ins).try_for_each(|(what, &ty)| per_channel(what, ty, cin))
}

fn pre_flops(pre: Option<Act>, x: Shape) -> u64 {
    pre.map_or(0, |act| (2 + u64::from(act != Act::Linear)) * x.len() as u64)
}

/// The type of a parameter's gradient: the activation's number type, but never a half-precision one.
pub(in crate::ops) fn parameter_gradient(activation: Ty, shape: impl Into<Shape>) -> Ty {
    Ty { dtype: activation.dtype.summed(), shape: shape.into() }
}
