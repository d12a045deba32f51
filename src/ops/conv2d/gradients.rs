//! The gradients of a convolution by its input and by its kernel: the transposed maps, and what fusion lets them go on through.

use super::shapes::{DEEP, many_patches, pre_shapes, shapes};
use super::{activation, check_pre, epilogue, filter, flops, geometry, parameter_gradient, pre_detail, pre_flops, pre_formula, word};
use crate::base::{Geom, Math, Shape, Ty, Val, Window};
use crate::ops::activation::Act;
use crate::ops::{Case, Emit, NO_SECOND_DERIVATIVE, Op, Rule, ScaleShiftSums, Site, Storage, arity, per_channel, same_shape, same_type};
use std::ops::Range;

/// `dx = conv transposed(dy, w)`, the gradient of [`Conv2d`](super::Conv2d) by an input of `input` pixels:
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
    pub(super) fn through(&self) -> Option<Act> {
        self.past.or(self.sums)
    }

    pub(super) fn geometry(&self) -> Geom {
        self.window.on(self.input[0], self.input[1]).expect("shape inference has placed the window")
    }
}

impl Rule for Conv2dDx {
    const NAME: &'static str = "conv2d_dx";
    const FORMULA: &'static str = "dx = conv transposed(dy, w)";
    const SOURCE: &'static str = "src/ops/conv2d/gradients.rs";

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

/// `dw = correlation(x, dy)`, the gradient of [`Conv2d`](super::Conv2d) by its kernel:
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
    const SOURCE: &'static str = "src/ops/conv2d/gradients.rs";

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
        let deep = [(Window::same(3, 1), 4, [16, 16], 32, 16), (Window::same(3, 1), 1, [32, 28], 16, 16), many_patches()];
        // Products over more pixels, or of more channels, than a thread takes at a time: in one row or several, with a stride or without.
        let products = [
            (Window::same(1, 1), 3, [17, 19], 35, 40),
            (Window::same(1, 1), 1, [5, 5], 530, 129),
            (Window::valid(1, 2), 4, [21, 23], 33, 20),
            (Window::valid(1, 2), 1, [1, 9], 20, 17),
        ];
        let more = [(Act::Relu, Window::same(1, 1), 1, [23, 31], 40, 33), (Act::Sigmoid, Window::same(1, 1), 1, [3, 5], 600, 17)];
        let normalised = pre_shapes().into_iter().chain(more).map(|(act, window, images, [h, w], cin, cout)| {
            let ([oh, ow], vector) = (window.on(h, w).expect("a case has a place").output, Shape::from([cin]));
            let ins = vec![[images, h, w, cin].into(), [images, oh, ow, cout].into(), vector, vector];
            let name = format!("of {act}, {window} on {images}x{h}x{w}, {cin} by {cout}");
            Case::of(name, Conv2dDw { pre: Some(act), ..Conv2dDw::new(window) }, ins).forward_only()
        });
        shapes().into_iter().chain(deep).chain(products).map(case).chain(normalised).collect()
    }
}
