//! Max pooling: `y[n,i,j,c] = max over taps (p,q) of x[n, i s + p - top, j s + q - left, c]`, where padding counts as minus
//! infinity. The gradient of each output goes whole to the first maximum of its window in row-major order, as in TensorFlow;
//! the backward op finds that maximum again from `x`, so that nothing is kept for it.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::window::{no_window_is_empty, pixels, shaped};
use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity};
use crate::base::{Geom, Padding, Shape, Ty, Val, Window};

/// `y = max of x over the window`: `[n,h,w,c]` to `[n,out_h,out_w,c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    pub window: Window,
}

/// The gradient of [`MaxPool`] by its input, from `dy` and `x`.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPoolDx {
    pub window: Window,
}

/// The shape of the result on an input.
fn pooled(window: &Window, x: Ty) -> Result<Shape, String> {
    let [n, h, w, c] = pixels("input", x)?;
    let geom = window.on(h, w)?;
    no_window_is_empty(&geom)?;
    Ok(Shape::from([n, geom.output[0], geom.output[1], c]))
}

/// The geometry on an input; shape inference has admitted it.
fn geom(window: &Window, x: Shape) -> Geom {
    let [_, h, w, _] = x.four().expect("an activation");
    window.on(h, w).expect("shape inference admits the window")
}

/// A comparison for every tap on a real pixel.
fn comparisons(window: &Window, x: Shape) -> u64 {
    let [n, _, _, c] = x.four().expect("an activation");
    (n * c * geom(window, x).real_taps()) as u64
}

impl Rule for MaxPool {
    const NAME: &'static str = "max_pool";
    const FORMULA: &'static str = "y[i,j,c] = max x[i+p, j+q, c]";
    const SOURCE: &'static str = "src/ops/max_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        Ok(vec![ins[0].with(pooled(&self.window, ins[0])?)])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Ok(vec![dys[0].map(|dy| e.one(MaxPoolDx { window: self.window }, &[dy, at.ins[0]]))])
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        comparisons(&self.window, ins[0].shape)
    }

    fn detail(&self) -> String {
        self.window.to_string()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, x): (Window, [usize; 4]), fill| {
            Case::new(format!("{window} on {}, {fill:?}", Shape::from(x)), MaxPool { window }, &[x]).fill(0, fill)
        };
        let distinct = shapes().into_iter().map(|shape| case(shape, Fill::Distinct));
        distinct.chain([case((Window::same(3, 2), [1, 7, 6, 17]), Fill::Ties)]).collect()
    }
}

impl Rule for MaxPoolDx {
    const NAME: &'static str = "max_pool_dx";
    const FORMULA: &'static str = "dx[i,j,c] = sum dy of the windows whose first maximum is x[i,j,c]";
    const SOURCE: &'static str = "src/ops/max_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 2)?;
        shaped("gradient", ins[0], pooled(&self.window, ins[1])?)?;
        Ok(vec![ins[0].with(ins[1].shape)])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    /// The search for each maximum, and one addition for each window.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        comparisons(&self.window, ins[1].shape) + ins[0].shape.len() as u64
    }

    /// A pixel is in as many windows.
    fn terms(&self, _: &[Ty], _: &[Ty]) -> usize {
        (0..2).map(|axis| self.window.kernel[axis].div_ceil(self.window.stride[axis])).product()
    }

    fn detail(&self) -> String {
        self.window.to_string()
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, x): (Window, [usize; 4]), fill| {
            let [out_h, out_w] = geom(&window, x.into()).output;
            let ins = [[x[0], out_h, out_w, x[3]], x];
            Case::new(format!("{window} on {}, {fill:?}", Shape::from(x)), MaxPoolDx { window }, &ins).fill(1, fill).forward_only()
        };
        shapes().into_iter().flat_map(|shape| [case(shape, Fill::Distinct), case(shape, Fill::Ties)]).collect()
    }
}

/// Windows and inputs that both ops are tried on: those of the four networks on odd sizes, then everything else.
fn shapes() -> Vec<(Window, [usize; 4])> {
    let lopsided = Window { padding: Padding::Pads { top: 0, bottom: 1, left: 2, right: 0 }, ..Window::valid(3, 2) };
    vec![
        (Window::valid(2, 2), [3, 5, 4, 17]),
        (Window::valid(3, 2), [1, 7, 8, 32]),
        (Window::same(3, 2), [3, 6, 7, 5]),
        (Window::same(3, 2), [1, 2, 3, 728]),
        (Window::padded(3, 2, 1), [1, 6, 5, 48]),
        (Window::padded(3, 2, 1), [2, 19, 9, 3]),
        (Window::same(3, 2), [1, 12, 3, 8]),
        (Window::same(2, 2), [1, 3, 5, 40]),
        (Window::same(3, 1), [1, 4, 3, 17]),
        (Window::same(1, 1), [1, 2, 3, 3]),
        (Window::valid(1, 2), [1, 5, 4, 1]),
        (Window::same(2, 3), [1, 7, 8, 5]),
        (Window::valid(5, 3), [1, 9, 8, 3]),
        (Window::same(7, 2), [1, 5, 4, 17]),
        (Window::valid(7, 1), [1, 7, 8, 1]),
        (Window::rect(1, 7), [1, 2, 5, 5]),
        (lopsided, [1, 6, 6, 17]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_without_a_pixel_is_refused() {
        let x = Ty::f32([1, 4, 4, 8]);
        let refusal = MaxPool { window: Window::padded(2, 1, 2) }.infer(&[x]).unwrap_err();
        assert_eq!(refusal, "a pad of 2,2,2,2 puts a whole 2x2 window into the padding");
        let refusal = MaxPool { window: Window::valid(3, 1) }.infer(&[Ty::f32([1, 1, 9, 8])]).unwrap_err();
        assert_eq!(refusal, "input of 1x9 pixels is smaller than the 3x3 window");
    }
}
