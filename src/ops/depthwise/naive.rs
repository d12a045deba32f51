use super::{Depthwise, DepthwiseDw, DepthwiseDx, geom};
use crate::base::{Geom, Window};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;
use crate::ops::scale_shift::naive::normalised;

/// Calls `meet(output, input, tap)`, flat indices all, for every output element and every tap of it on a real pixel.
fn every_tap(geom: &Geom, images: usize, channels: usize, mut meet: impl FnMut(usize, usize, usize)) {
    let ([height, width], [out_h, out_w], [kernel_h, kernel_w]) = (geom.input, geom.output, geom.kernel);
    for n in 0..images {
        for (i, j) in (0..out_h).flat_map(|i| (0..out_w).map(move |j| (i, j))) {
            for (p, q) in (0..kernel_h).flat_map(|p| (0..kernel_w).map(move |q| (p, q))) {
                let (Some(row), Some(col)) = (geom.source(0, i, p), geom.source(1, j, q)) else { continue };
                for c in 0..channels {
                    let output = ((n * out_h + i) * out_w + j) * channels + c;
                    let input = ((n * height + row) * width + col) * channels + c;
                    meet(output, input, (p * kernel_w + q) * channels + c);
                }
            }
        }
    }
}

/// `y = x * w`, channel by channel.
pub(in crate::ops) fn filtered(window: &Window, x: &Array, w: &Array) -> Array {
    let [images, height, width, channels] = x.four();
    let geom = geom(window, height, width);
    let [out_h, out_w] = geom.output;
    let mut y = Array::zeros([images, out_h, out_w, channels]);
    every_tap(&geom, images, channels, |o, i, t| y[o] += x[i] * w[t]);
    y
}

impl Run<Naive> for Depthwise {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = normalised(call, self.pre, 2);
        call.output(0, filtered(&self.window, &x, &call.input(1)));
    }
}

impl Run<Naive> for DepthwiseDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dy, w) = (call.input(0), call.input(1));
        let mut dx = Array::zeros(call.shape(0));
        let [images, height, width, channels] = dx.four();
        every_tap(&geom(&self.window, height, width), images, channels, |o, i, t| dx[i] += dy[o] * w[t]);
        call.output(0, dx);
    }
}

impl Run<Naive> for DepthwiseDw {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, dy) = (normalised(call, self.pre, 2), call.input(1));
        let [images, height, width, channels] = x.four();
        let mut dw = Array::zeros(call.shape(0));
        every_tap(&geom(&self.window, height, width), images, channels, |o, i, t| dw[t] += x[i] * dy[o]);
        call.output(0, dw);
    }
}
