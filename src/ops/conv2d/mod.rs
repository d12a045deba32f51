//! Convolution of pixel matrices with a kernel `[kernel_h, kernel_w, in, out]`, as Keras stores it:
//!
//! `y[n, o, p, c] = sum over i, j, k of x[n, o * stride + i - pad, p * stride + j - pad, k] * w[i, j, k, c]`,
//!
//! over the taps that lie on real pixels. It is linear in `x` and in `w`, so each gradient is the transposed map applied to
//! `dy`: [`Conv2dDx`] sends every `dy` back to the pixels it was read from, [`Conv2dDw`] to the taps it went through.

pub(in crate::ops) mod cpu;
pub mod cuda;
mod epilogue;
mod naive;
mod shapes;
#[cfg(test)]
pub(in crate::ops) mod tests;

use super::activation::Act;
use super::{Case, ChannelStats, Emit, NO_SECOND_DERIVATIVE, Op, Rule, ScaleShiftSums, Site, Storage, arity, per_channel, same_shape, same_type};
use crate::base::{Geom, Math, Shape, Ty, Val, Window};
use std::ops::Range;
use shapes::{DEEP, pre_shapes, shapes};

/// `y = act(conv(x, w) * scale + bias)`: ins `x` NHWC, `w`, then `scale` and `bias` (one value per output channel) as far
/// as their fields say so. The fields are filled by fusion alone, from the batch norm, bias and activation that follow, and the
/// batch norm and activation before: with `pre`, the convolution reads `pre(x * pre_scale + pre_shift)` for `x`, and two vectors of
/// one value per input channel are its last ins. Padding stays zero. With `stats`, two more outs are the mean and variance of each channel
/// of `y` as it is stored, as [`ChannelStats`] has them. `math` is settled by the precision pass, in the gradient ops too.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    pub window: Window,
    pub scale: bool,
    pub bias: bool,
    pub act: Act,
    pub pre: Option<Act>,
    pub stats: bool,
    pub math: Math,
}

impl Conv2d {
    /// The plain convolution, which models are written with.
    pub fn new(window: Window) -> Self {
        Conv2d { window, scale: false, bias: false, act: Act::Linear, pre: None, stats: false, math: Math::Full }
    }

    /// The place of `pre_scale` among the ins.
    fn pre_at(&self) -> usize {
        2 + usize::from(self.scale) + usize::from(self.bias)
    }

    /// Whether fusion has filled a field.
    pub fn is_fused(&self) -> bool {
        self.scale || self.bias || self.act != Act::Linear || self.pre.is_some() || self.stats
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
    if math == Math::Tf32 { " tf32" } else { "" }
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
        let z = format!("conv({}, w){scale}{bias}", pre_formula(self.pre));
        let y = if self.act == Act::Linear { z } else { format!("{}({z})", self.act) };
        if self.stats { format!("y = {y}, mean = sum(y) / N, var = sum((y - mean)^2) / N") } else { format!("y = {y}") }
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, self.pre_at() + 2 * usize::from(self.pre.is_some()))?;
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
        check_pre(&ins[self.pre_at()..], cin)?;
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
        multiply_adds + (channel_steps * y.len()) as u64 + pre_flops(self.pre, x) + epilogue::flops(self.epilogue(), ins, outs)
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[1].shape.rows()
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
        text + &pre_detail(self.pre) + if self.stats { " stats" } else { "" } + word(self.math)
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
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
            for (act, cin) in [(Act::Linear, 3), (Act::Relu, 3), (Act::Sigmoid, 3), (Act::Relu, 18), (Act::Sigmoid, 18)] {
                let op = Conv2d { scale, bias, act, ..Conv2d::new(Window::same(3, 1)) };
                let mut ins = vec![Shape::from([2, 4, 5, cin]), Shape::from([3, 3, cin, 37])];
                ins.extend(vec![Shape::from([37]); usize::from(scale) + usize::from(bias)]);
                if op.is_fused() {
                    cases.push(Case::of(format!("fused {}, {cin} channels", op.detail()), op, ins).forward_only());
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
        cases.into_iter().chain(DEEP.map(deep)).chain(normalised.map(Case::forward_only)).chain(epilogue::stats_cases()).collect()
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

/// `dx = conv transposed(dy, w)`, the gradient of [`Conv2d`] by an input of `input` pixels:
/// `dx[n, a, b, k] = sum over i, j, c of dy[n, (a + pad - i) / stride, (b + pad - j) / stride, c] * w[i, j, k, c]` over the taps
/// where both divisions come out even. Pixels that no window read get zero.
///
/// With `past`, which fusion fills for a 1x1 window, the gradient goes on through the batch norm and activation before the convolution:
/// from `x, scale, shift`, three more ins, it is `dx * scale` where the activation's slope is taken into account, and `dscale` and
/// `dshift` are two more outs, as [`ScaleShiftSums`] has them. With `sums`, of any window, it goes as far as the activation: the result is
/// `dx` times its slope, `dscale` and `dshift` are those of the result as it is stored, and what remains is to multiply by `scale`. With
/// `mask` it goes on through an activation alone, whose result `y` is one more in. One of the three at most is filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2dDx {
    pub window: Window,
    pub input: [usize; 2],
    pub mask: Option<Act>,
    pub past: Option<Act>,
    pub sums: Option<Act>,
    pub math: Math,
}

impl Conv2dDx {
    /// The plain gradient.
    pub fn new(window: Window, input: [usize; 2]) -> Self {
        Conv2dDx { window, input, mask: None, past: None, sums: None, math: Math::Full }
    }

    /// Whether fusion has filled a field.
    pub fn is_fused(&self) -> bool {
        self.mask.is_some() || self.through().is_some()
    }

    /// The activation of the batch norm that the gradient goes on through.
    fn through(&self) -> Option<Act> {
        self.past.or(self.sums)
    }

    fn geometry(&self) -> Geom {
        self.window.on(self.input[0], self.input[1]).expect("shape inference has placed the window")
    }
}

impl Rule for Conv2dDx {
    const NAME: &'static str = "conv2d_dx";
    const FORMULA: &'static str = "dx = conv transposed(dy, w)";
    const SOURCE: &'static str = "src/ops/conv2d/mod.rs";

    fn formula(&self) -> String {
        let Some(act) = self.through() else {
            return self.mask.map_or(Self::FORMULA.into(), |act| format!("{} * {act}'(z), from y = {act}(z)", Self::FORMULA));
        };
        let dx = if self.past.is_some() { "dx = dz * scale" } else { "dx = dz" };
        format!("da = conv transposed(dy, w), dz = da * {act}'(x * scale + shift), {dx}, dscale = sum(dz * x), dshift = sum(dz)")
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        if [self.mask, self.past, self.sums].iter().flatten().count() > 1 {
            return Err("goes on in more than one way".into());
        }
        arity(ins, if self.through().is_some() { 5 } else { 2 + usize::from(self.mask.is_some()) })?;
        let [images, height, width, channels] = activation("gradient", ins[0])?;
        let [cin, cout] = filter(&self.window, ins[1])?;
        if channels != cout {
            return Err(format!("gradient has {channels} channels, the filter makes {cout}"));
        }
        same_type(&ins[..ins.len().min(3)])?;
        let [h, w] = self.input;
        let output = self.window.on(h, w)?.output;
        if output != [height, width] {
            let [oh, ow] = output;
            return Err(format!("gradient has {height}x{width} pixels, the window makes {oh}x{ow} of {h}x{w}"));
        }
        let dx = ins[0].with([images, h, w, cin]);
        if self.mask.is_some() {
            same_shape("the activation", ins[2], "the gradient", dx)?;
        }
        if self.past.is_none() {
            return epilogue::results(dx, self.epilogue(), ins);
        }
        if !self.geometry().is_pointwise() {
            return Err(format!("goes on through a batch norm, which a {} window cannot", self.window));
        }
        same_shape("the batch norm's input", ins[2], "the gradient", dx)?;
        per_channel("scale", ins[3], cin)?;
        per_channel("shift", ins[4], cin)?;
        Ok(vec![dx, ins[3], ins[4]])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 {
        let (dy, dx) = (ins[0].shape, outs[0].shape);
        let past = if self.past.is_some() { 8 * dx.len() as u64 } else { 0 };
        let slope = if self.mask.or(self.sums).is_some_and(|act| act != Act::Linear) { 4 * dx.len() as u64 } else { 0 };
        flops(&self.geometry(), dy.dims()[0], dy.cols() * dx.cols()) + past + slope + epilogue::flops(self.epilogue(), ins, outs)
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        let ([kh, kw], [sh, sw]) = (self.window.kernel, self.window.stride);
        // The sums over pixels are of terms that are sums themselves.
        let pixels = if self.past.is_some() { ins[0].shape.rows() } else { 0 };
        kh.div_ceil(sh) * kw.div_ceil(sw) * ins[0].shape.cols() + pixels
    }

    fn epilogue(&self) -> Option<(Op, Range<usize>)> {
        self.sums.map(|_| (ScaleShiftSums::default().into(), 2..5))
    }

    fn detail(&self) -> String {
        let through = |word: &str, act: Option<Act>| act.map_or(String::new(), |act| format!(" {word} {act}"));
        self.window.to_string() + &through("mask", self.mask) + &through("past", self.past) + &through("sums", self.sums) + word(self.math)
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, images, input, cin, cout): (Window, usize, [usize; 2], usize, usize)| {
            let ([kh, kw], [h, w]) = (window.kernel, window.on(input[0], input[1]).expect("a case has a place").output);
            let name = format!("{window} to {images}x{}x{}, {cout} to {cin} channels", input[0], input[1]);
            Case::new(name, Conv2dDx::new(window, input), &[[images, h, w, cout], [kh, kw, cin, cout]]).forward_only()
        };
        let deep = DEEP.map(|(h, cout, cin)| (Window::same(3, 1), 1, [h, h], cin, cout));
        let past = [(Act::Relu, [2, 9, 8], 33, 17), (Act::Linear, [1, 3, 5], 48, 32), (Act::Sigmoid, [1, 2, 2], 5, 3)];
        let past = past.map(|(act, [n, h, w], cin, cout)| {
            let (window, vector) = (Window::valid(1, 1), Shape::from([cin]));
            let ins = vec![[n, h, w, cout].into(), [1, 1, cin, cout].into(), [n, h, w, cin].into(), vector, vector];
            let op = Conv2dDx { past: Some(act), ..Conv2dDx::new(window, [h, w]) };
            Case::of(format!("past {act} to {n}x{h}x{w}, {cout} to {cin}"), op, ins).forward_only()
        });
        shapes().into_iter().chain(deep).map(case).chain(past).chain(epilogue::mask_cases()).chain(epilogue::sums_cases()).collect()
    }
}

/// `dw = correlation(x, dy)`, the gradient of [`Conv2d`] by its kernel:
/// `dw[i, j, k, c] = sum over n, o, p of x[n, o * stride + i - pad, p * stride + j - pad, k] * dy[n, o, p, c]`. With `pre`, which
/// fusion fills, it reads `pre(x * pre_scale + pre_shift)` for `x`, from two more ins: what the forward pass did not keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2dDw {
    pub window: Window,
    pub pre: Option<Act>,
    pub math: Math,
}

impl Conv2dDw {
    /// The plain gradient.
    pub fn new(window: Window) -> Self {
        Conv2dDw { window, pre: None, math: Math::Full }
    }
}

impl Rule for Conv2dDw {
    const NAME: &'static str = "conv2d_dw";
    const FORMULA: &'static str = "dw = correlation(x, dy)";
    const SOURCE: &'static str = "src/ops/conv2d/mod.rs";

    fn formula(&self) -> String {
        format!("dw = correlation({}, dy)", pre_formula(self.pre))
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2 + 2 * usize::from(self.pre.is_some()))?;
        let [images, height, width, cin] = activation("input", ins[0])?;
        let [gradients, h, w, cout] = activation("gradient", ins[1])?;
        let [oh, ow] = self.window.on(height, width)?.output;
        if [gradients, h, w] != [images, oh, ow] {
            return Err(format!("gradient has {gradients}x{h}x{w} pixels, the window makes {images}x{oh}x{ow}"));
        }
        same_type(&ins[..2])?;
        check_pre(&ins[2..], cin)?;
        let [kh, kw] = self.window.kernel;
        Ok(vec![parameter_gradient(ins[0], [kh, kw, cin, cout])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        let (x, dy) = (ins[0].shape, ins[1].shape);
        flops(&geometry(&self.window, x), x.dims()[0], x.cols() * dy.cols()) + pre_flops(self.pre, x)
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[1].shape.rows()
    }

    fn detail(&self) -> String {
        self.window.to_string() + &pre_detail(self.pre) + word(self.math)
    }

    fn weights(&self) -> &'static [usize] {
        if self.pre.is_some() { &[4] } else { &[2] }
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, images, [h, w], cin, cout): (Window, usize, [usize; 2], usize, usize)| {
            let [oh, ow] = window.on(h, w).expect("a case has a place").output;
            let name = format!("{window} on {images}x{h}x{w}, {cin} by {cout} channels");
            Case::new(name, Conv2dDw::new(window), &[[images, h, w, cin], [images, oh, ow, cout]]).forward_only()
        };
        let deep = [(Window::same(3, 1), 4, [16, 16], 32, 16), (Window::same(3, 1), 1, [32, 28], 16, 16)];
        let normalised = pre_shapes().map(|(act, window, images, [h, w], cin, cout)| {
            let ([oh, ow], vector) = (window.on(h, w).expect("a case has a place").output, Shape::from([cin]));
            let ins = vec![[images, h, w, cin].into(), [images, oh, ow, cout].into(), vector, vector];
            let name = format!("of {act}, {window} on {images}x{h}x{w}, {cin} by {cout}");
            Case::of(name, Conv2dDw { pre: Some(act), ..Conv2dDw::new(window) }, ins).forward_only()
        });
        shapes().into_iter().chain(deep).map(case).chain(normalised).collect()
    }
}

/// The type of a parameter's gradient: the activation's number type, but never a half-precision one.
pub(in crate::ops) fn parameter_gradient(activation: Ty, shape: impl Into<Shape>) -> Ty {
    Ty { dtype: activation.dtype.summed(), shape: shape.into() }
}
