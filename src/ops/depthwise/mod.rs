//! Depthwise convolution: each channel is filtered by its own small kernel.
//!
//! `y[n,i,j,c] = sum over taps (p,q) of x[n, i s + p - top, j s + q - left, c] w[p,q,c]`, zero in the padding. Its
//! gradients follow from reading the sum the other way: `dx` collects, for each input pixel, every output that read it;
//! `dw[p,q,c]` is the sum of `x dy` over all pixels that met through that tap. With stride 1 and SAME padding, `dx` is the same
//! convolution of `dy` with the kernel turned by 180 degrees. The kernel has shape `[kernel_h, kernel_w, channels, 1]`, as Keras
//! stores it; a depth multiplier other than one is refused.

pub(in crate::ops) mod cpu;
pub mod cuda;
pub(in crate::ops) mod naive;

use super::conv2d::parameter_gradient;
use super::window::{pixels, shaped};
use super::activation::Act;
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity, per_channel};
use crate::base::{Geom, Padding, Shape, Ty, Val, Window};

/// `y = x * w`, channel by channel: `[n,h,w,c]`, `[kernel_h,kernel_w,c,1]` to `[n,out_h,out_w,c]`.
/// With `pre`, which fusion fills, it reads `pre(x * pre_scale + pre_shift)` for `x`, from two more ins; padding stays zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    pub window: Window,
    pub pre: Option<Act>,
}

/// The gradient of [`Depthwise`] by its input of `input` pixels, from `dy` and the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwiseDx {
    pub window: Window,
    pub input: [usize; 2],
}

/// The gradient of [`Depthwise`] by its kernel, from `x` and `dy`, with `pre` as there.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwiseDw {
    pub window: Window,
    pub pre: Option<Act>,
}

/// Checks the two vectors of `pre`, if there are any, for `channels` channels.
fn check_pre(ins: &[Ty], channels: usize) -> Result<(), String> {
    ["input scale", "input shift"].into_iter().zip(ins).try_for_each(|(what, &ty)| per_channel(what, ty, channels))
}

fn pre_detail(window: &Window, pre: Option<Act>) -> String {
    pre.map_or(window.to_string(), |act| format!("{window} of {act}"))
}

/// The operations of `pre` on an input.
fn pre_flops(pre: Option<Act>, x: Shape) -> u64 {
    pre.map_or(0, |act| (2 + u64::from(act != Act::Linear)) * x.len() as u64)
}

/// The shape of the kernel over `channels` channels.
fn kernel_shape(window: &Window, channels: usize) -> Shape {
    Shape::from([window.kernel[0], window.kernel[1], channels, 1])
}

/// The geometry on an input; shape inference has admitted it.
fn geom(window: &Window, height: usize, width: usize) -> Geom {
    window.on(height, width).expect("shape inference admits the window")
}

/// A multiply-add for every tap on a real pixel.
fn multiply_adds(window: &Window, x: Shape) -> u64 {
    let [n, h, w, c] = x.four().expect("an activation");
    2 * (n * c * geom(window, h, w).real_taps()) as u64
}

impl Rule for Depthwise {
    const NAME: &'static str = "depthwise";
    const FORMULA: &'static str = "y[i,j,c] = sum x[i+p, j+q, c] * w[p,q,c]";
    const SOURCE: &'static str = "src/ops/depthwise/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2 + 2 * usize::from(self.pre.is_some()))?;
        check_pre(&ins[2..], ins[0].shape.cols())?;
        let [n, h, w, c] = pixels("input", ins[0])?;
        shaped("filter", ins[1], kernel_shape(&self.window, c))?;
        let [out_h, out_w] = self.window.on(h, w)?.output;
        Ok(vec![ins[0].with([n, out_h, out_w, c])])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if self.pre.is_some() {
            return Err("is fused; gradients are taken of plain rows, before fusion");
        }
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let [_, h, w, _] = e.ty(at.ins[0]).shape.four().expect("an activation");
        let window = self.window;
        let dx = at.wants[0].then(|| e.one(DepthwiseDx { window, input: [h, w] }, &[dy, at.ins[1]]));
        let dw = at.wants[1].then(|| e.one(DepthwiseDw { window, pre: None }, &[at.ins[0], dy]));
        Ok(vec![dx, dw])
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        multiply_adds(&self.window, ins[0].shape) + pre_flops(self.pre, ins[0].shape)
    }

    fn terms(&self, _: &[Ty], _: &[Ty]) -> usize {
        self.window.kernel.iter().product()
    }

    fn detail(&self) -> String {
        pre_detail(&self.window, self.pre)
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
    }

    fn storage(&self, input: usize) -> Storage {
        if input == 0 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let case = |(window, x): (Window, [usize; 4])| {
            let ins = vec![x.into(), kernel_shape(&window, x[3])];
            Case::of(format!("{window} on {}", Shape::from(x)), Depthwise { window, pre: None }, ins)
        };
        let normalised = pre_shapes().map(|(act, window, x)| {
            let vector = Shape::from([x[3]]);
            let ins = vec![x.into(), kernel_shape(&window, x[3]), vector, vector];
            Case::of(format!("of {act}, {window} on {}", Shape::from(x)), Depthwise { window, pre: Some(act) }, ins).forward_only()
        });
        shapes().into_iter().map(case).chain(normalised).collect()
    }
}

impl Rule for DepthwiseDx {
    const NAME: &'static str = "depthwise_dx";
    const FORMULA: &'static str = "dx[i,j,c] = sum dy[i-p, j-q, c] * w[p,q,c]";
    const SOURCE: &'static str = "src/ops/depthwise/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        let ([n, _, _, c], [h, w]) = (pixels("gradient", ins[0])?, self.input);
        let [out_h, out_w] = self.window.on(h, w)?.output;
        shaped("gradient", ins[0], [n, out_h, out_w, c])?;
        shaped("filter", ins[1], kernel_shape(&self.window, c))?;
        Ok(vec![ins[0].with([n, h, w, c])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        multiply_adds(&self.window, outs[0].shape)
    }

    fn terms(&self, _: &[Ty], _: &[Ty]) -> usize {
        self.window.kernel.iter().product()
    }

    fn detail(&self) -> String {
        format!("{} of {}x{}", self.window, self.input[0], self.input[1])
    }

    fn weights(&self) -> &'static [usize] {
        &[1]
    }

    fn storage(&self, input: usize) -> Storage {
        if input == 0 { Storage::Half } else { Storage::Float }
    }

    fn cases() -> Vec<Case> {
        let case = |(window, [n, h, w, c]): (Window, [usize; 4])| {
            let [out_h, out_w] = geom(&window, h, w).output;
            let ins = vec![[n, out_h, out_w, c].into(), kernel_shape(&window, c)];
            Case::of(format!("{window} to {n}x{h}x{w}x{c}"), DepthwiseDx { window, input: [h, w] }, ins).forward_only()
        };
        shapes().into_iter().map(case).collect()
    }
}

impl Rule for DepthwiseDw {
    const NAME: &'static str = "depthwise_dw";
    const FORMULA: &'static str = "dw[p,q,c] = sum x[i+p, j+q, c] * dy[i,j,c]";
    const SOURCE: &'static str = "src/ops/depthwise/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2 + 2 * usize::from(self.pre.is_some()))?;
        check_pre(&ins[2..], ins[0].shape.cols())?;
        let [n, h, w, c] = pixels("input", ins[0])?;
        let [out_h, out_w] = self.window.on(h, w)?.output;
        shaped("gradient", ins[1], [n, out_h, out_w, c])?;
        Ok(vec![parameter_gradient(ins[0], kernel_shape(&self.window, c))])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        multiply_adds(&self.window, ins[0].shape) + pre_flops(self.pre, ins[0].shape)
    }

    fn terms(&self, ins: &[Ty], _: &[Ty]) -> usize {
        ins[1].shape.rows()
    }

    fn detail(&self) -> String {
        pre_detail(&self.window, self.pre)
    }

    fn weights(&self) -> &'static [usize] {
        if self.pre.is_some() { &[4] } else { &[2] }
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, [n, h, w, c]): (Window, [usize; 4])| {
            let [out_h, out_w] = geom(&window, h, w).output;
            let ins = [[n, h, w, c], [n, out_h, out_w, c]];
            Case::new(format!("{window} on {n}x{h}x{w}x{c}"), DepthwiseDw { window, pre: None }, &ins).forward_only()
        };
        let normalised = pre_shapes().map(|(act, window, [n, h, w, c])| {
            let ([out_h, out_w], vector) = (geom(&window, h, w).output, Shape::from([c]));
            let ins = vec![[n, h, w, c].into(), [n, out_h, out_w, c].into(), vector, vector];
            Case::of(format!("of {act}, {window} on {n}x{h}x{w}x{c}"), DepthwiseDw { window, pre: Some(act) }, ins).forward_only()
        });
        shapes().into_iter().map(case).chain(normalised).collect()
    }
}

/// Windows and inputs of ops that normalise their input: the fast window with every edge, and another.
fn pre_shapes() -> [(Act, Window, [usize; 4]); 4] {
    [
        (Act::Relu, Window::same(3, 1), [2, 5, 6, 49]),
        (Act::Linear, Window::same(3, 1), [1, 1, 7, 17]),
        (Act::Relu, Window::same(3, 2), [1, 7, 6, 21]),
        (Act::Sigmoid, Window::same(3, 1), [1, 4, 3, 5]),
    ]
}

/// Windows and inputs that the three ops are tried on: the fast 3x3 with every kind of edge, then everything else.
fn shapes() -> Vec<(Window, [usize; 4])> {
    let lopsided = Window { padding: Padding::Pads { top: 0, bottom: 2, left: 1, right: 0 }, ..Window::valid(3, 1) };
    vec![
        (Window::same(3, 1), [1, 5, 6, 17]),
        (Window::same(3, 1), [3, 4, 3, 5]),
        (Window::same(3, 1), [1, 1, 1, 1]),
        (Window::same(3, 1), [1, 1, 7, 32]),
        (Window::same(3, 1), [3, 6, 1, 48]),
        (Window::same(3, 1), [1, 2, 2, 728]),
        (Window::same(3, 1), [2, 3, 37, 8]),
        (Window::same(3, 1), [3, 11, 18, 68]),
        (Window::same(3, 2), [1, 7, 6, 5]),
        (Window::same(3, 3), [1, 8, 7, 3]),
        (Window::valid(3, 1), [3, 5, 4, 17]),
        (Window::valid(2, 2), [3, 5, 5, 3]),
        (Window::same(2, 1), [1, 4, 5, 32]),
        (Window::same(1, 1), [1, 3, 2, 48]),
        (Window::same(1, 2), [1, 5, 4, 5]),
        (Window::valid(2, 3), [1, 7, 6, 1]),
        (Window::same(5, 1), [1, 4, 6, 17]),
        (Window::same(7, 2), [3, 9, 8, 3]),
        (Window::valid(7, 1), [1, 7, 8, 5]),
        (Window::padded(3, 1, 2), [1, 4, 5, 32]),
        (Window::rect(1, 7), [1, 3, 5, 17]),
        (lopsided, [1, 4, 5, 17]),
    ]
}
