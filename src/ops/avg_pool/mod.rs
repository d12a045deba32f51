//! Average pooling: `y[n,i,j,c] = 1 / count(i,j) sum over taps (p,q) of x[n, i s + p - top, j s + q - left, c]`, zero in the padding.
//!
//! `count(i,j)` is the number of taps on real pixels, as in TensorFlow and Keras; with `count_padding` it is the size of the
//! window, as in PyTorch's default. The gradient spreads `dy / count` over the pixels of the window.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::window::{no_window_is_empty, pixels, shaped};
use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity};
use crate::base::{Geom, Padding, Shape, Ty, Val, Window};

/// `y = mean of x over the window`: `[n,h,w,c]` to `[n,out_h,out_w,c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AvgPool {
    pub window: Window,
    /// Whether padding counts in the divisor.
    pub count_padding: bool,
}

/// The gradient of [`AvgPool`] by its input of `input` pixels, from `dy`.
#[derive(Clone, Debug, PartialEq)]
pub struct AvgPoolDx {
    pub window: Window,
    pub count_padding: bool,
    pub input: [usize; 2],
}

/// The geometry on an input, if the mean of every window is a number.
fn geom(window: &Window, count_padding: bool, [height, width]: [usize; 2]) -> Result<Geom, String> {
    let geom = window.on(height, width)?;
    if !count_padding {
        no_window_is_empty(&geom)?;
    }
    Ok(geom)
}

/// The divisor of output coordinate `out` along one axis; that of a pixel is the product over both.
fn count(geom: &Geom, count_padding: bool, axis: usize, out: usize) -> usize {
    if count_padding { geom.kernel[axis] } else { geom.taps(axis, out).len() }
}

/// The window and the way of counting, for a printed row.
fn detail(window: &Window, count_padding: bool) -> String {
    format!("{window}{}", if count_padding { " counting padding" } else { "" })
}

/// An addition for every tap on a real pixel and a division for every result.
fn additions(window: &Window, x: Shape) -> u64 {
    let [n, h, w, c] = x.four().expect("an activation");
    let geom = window.on(h, w).expect("shape inference admits the window");
    (n * c * (geom.real_taps() + geom.output[0] * geom.output[1])) as u64
}

impl Rule for AvgPool {
    const NAME: &'static str = "avg_pool";
    const FORMULA: &'static str = "y[i,j,c] = mean x[i+p, j+q, c]";
    const SOURCE: &'static str = "src/ops/avg_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        let [n, h, w, c] = pixels("input", ins[0])?;
        let [out_h, out_w] = geom(&self.window, self.count_padding, [h, w])?.output;
        Ok(vec![ins[0].with([n, out_h, out_w, c])])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let [_, h, w, _] = e.ty(at.ins[0]).shape.four().expect("an activation");
        let back = AvgPoolDx { window: self.window, count_padding: self.count_padding, input: [h, w] };
        Ok(vec![dys[0].map(|dy| e.one(back, &[dy]))])
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        additions(&self.window, ins[0].shape)
    }

    fn terms(&self, _: &[Ty], _: &[Ty]) -> usize {
        self.window.kernel.iter().product()
    }

    fn detail(&self) -> String {
        detail(&self.window, self.count_padding)
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, count_padding, x): (Window, bool, [usize; 4])| {
            let name = format!("{} on {}", detail(&window, count_padding), Shape::from(x));
            Case::new(name, AvgPool { window, count_padding }, &[x])
        };
        shapes().into_iter().map(case).collect()
    }
}

impl Rule for AvgPoolDx {
    const NAME: &'static str = "avg_pool_dx";
    const FORMULA: &'static str = "dx[i,j,c] = sum dy / count of the windows that hold x[i,j,c]";
    const SOURCE: &'static str = "src/ops/avg_pool/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        let ([n, _, _, c], [h, w]) = (pixels("gradient", ins[0])?, self.input);
        let [out_h, out_w] = geom(&self.window, self.count_padding, [h, w])?.output;
        shaped("gradient", ins[0], [n, out_h, out_w, c])?;
        Ok(vec![ins[0].with([n, h, w, c])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        additions(&self.window, outs[0].shape)
    }

    /// A pixel is in as many windows.
    fn terms(&self, _: &[Ty], _: &[Ty]) -> usize {
        (0..2).map(|axis| self.window.kernel[axis].div_ceil(self.window.stride[axis])).product()
    }

    fn detail(&self) -> String {
        format!("{} of {}x{}", detail(&self.window, self.count_padding), self.input[0], self.input[1])
    }

    fn storage(&self, _: usize) -> Storage {
        Storage::Half
    }

    fn cases() -> Vec<Case> {
        let case = |(window, count_padding, [n, h, w, c]): (Window, bool, [usize; 4])| {
            let [out_h, out_w] = window.on(h, w).expect("the list has windows that fit").output;
            let name = format!("{} to {n}x{h}x{w}x{c}", detail(&window, count_padding));
            Case::new(name, AvgPoolDx { window, count_padding, input: [h, w] }, &[[n, out_h, out_w, c]]).forward_only()
        };
        shapes().into_iter().map(case).collect()
    }
}

/// Windows, ways of counting and inputs that both ops are tried on.
fn shapes() -> Vec<(Window, bool, [usize; 4])> {
    let lopsided = Window { padding: Padding::Pads { top: 2, bottom: 0, left: 0, right: 1 }, ..Window::valid(3, 2) };
    vec![
        (Window::same(3, 1), false, [3, 5, 4, 17]),
        (Window::same(3, 1), true, [1, 4, 5, 32]),
        (Window::same(3, 1), false, [1, 1, 1, 1]),
        (Window::same(3, 1), false, [1, 2, 2, 728]),
        (Window::valid(2, 2), false, [3, 5, 4, 5]),
        (Window::same(3, 2), false, [1, 6, 7, 48]),
        (Window::same(2, 3), false, [1, 7, 8, 3]),
        (Window::same(2, 3), true, [1, 7, 8, 3]),
        (Window::same(1, 1), false, [1, 2, 3, 5]),
        (Window::valid(1, 2), false, [1, 5, 4, 1]),
        (Window::valid(5, 3), false, [1, 9, 8, 17]),
        (Window::same(7, 2), false, [1, 5, 4, 17]),
        (Window::padded(3, 2, 1), true, [1, 6, 5, 5]),
        (Window::padded(2, 1, 2), true, [1, 3, 3, 17]),
        (lopsided, false, [1, 6, 6, 17]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_nothing_is_refused_unless_padding_counts() {
        let (window, x) = (Window::padded(2, 1, 2), Ty::f32([1, 3, 3, 5]));
        assert!(AvgPool { window, count_padding: false }.infer(&[x]).unwrap_err().contains("2x2 window"));
        assert_eq!(AvgPool { window, count_padding: true }.infer(&[x]).unwrap()[0].shape, Shape::from([1, 6, 6, 5]));
    }
}
