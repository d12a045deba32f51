use super::separable::WINDOW;
use super::{Conv2d, Conv2dDw, Conv2dDx, geometry};
use crate::base::Geom;
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;
use crate::ops::activation::apply;
use crate::ops::activation::naive::slope;
use crate::ops::channel_stats::naive::moments;
use crate::ops::depthwise::naive::filtered;
use crate::ops::scale_shift::naive::normalised;

/// Calls `visit([n, o, p], [n, a, b], [i, j])` for every output pixel, input pixel and tap that meet.
fn each_tap(g: &Geom, images: usize, mut visit: impl FnMut([usize; 3], [usize; 3], [usize; 2])) {
    for n in 0..images {
        for o in 0..g.output[0] {
            for p in 0..g.output[1] {
                for i in 0..g.kernel[0] {
                    for j in 0..g.kernel[1] {
                        if let (Some(a), Some(b)) = (g.source(0, o, i), g.source(1, p, j)) {
                            visit([n, o, p], [n, a, b], [i, j]);
                        }
                    }
                }
            }
        }
    }
}

impl Run<Naive> for Conv2d {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut x, w, mut y) = (normalised(call, self.pre, self.pre_at()), call.input(1), Array::zeros(call.shape(0)));
        if let Some(act) = self.depthwise {
            x = filtered(&WINDOW, &x.map(|x| apply(act, x)), &call.input(self.depthwise_at()));
        }
        let [_, _, cin, cout] = w.four();
        each_tap(&geometry(&self.window, x.shape), x.four()[0], |[n, o, p], [_, a, b], [i, j]| {
            for k in 0..cin {
                for c in 0..cout {
                    y[[n, o, p, c]] += x[[n, a, b, k]] * w[[i, j, k, c]];
                }
            }
        });
        let scale = self.scale.then(|| call.input(2));
        let bias = self.bias.then(|| call.input(2 + usize::from(self.scale)));
        for i in 0..y.data.len() {
            let c = i % cout;
            let scaled = y[i] * scale.as_ref().map_or(1.0, |s| s[c]) + bias.as_ref().map_or(0.0, |b| b[c]);
            y[i] = apply(self.act, scaled);
        }
        if self.stats {
            let [mean, var] = moments(&y);
            call.output(1, mean);
            call.output(2, var);
        }
        call.output(0, y);
    }
}

impl Run<Naive> for Conv2dDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dy, w, mut dx) = (call.input(0), call.input(1), Array::zeros(call.shape(0)));
        let [_, _, cin, cout] = w.four();
        each_tap(&self.geometry(), dy.four()[0], |[n, o, p], [_, a, b], [i, j]| {
            for k in 0..cin {
                for c in 0..cout {
                    dx[[n, a, b, k]] += dy[[n, o, p, c]] * w[[i, j, k, c]];
                }
            }
        });
        if let Some(act) = self.mask {
            let y = call.input(2);
            (0..dx.data.len()).for_each(|i| dx[i] *= slope(act, y[i]));
        }
        let Some(act) = self.through() else { return call.output(0, dx) };
        let (x, scale, shift) = (call.input(2), call.input(3), call.input(4));
        let (mut dscale, mut dshift) = (Array::zeros([cin]), Array::zeros([cin]));
        for i in 0..dx.data.len() {
            let c = i % cin;
            let dz = dx[i] * slope(act, apply(act, x[i] * scale[c] + shift[c]));
            dscale[c] += dz * x[i];
            dshift[c] += dz;
            dx[i] = if self.past.is_some() { dz * scale[c] } else { dz };
        }
        [dx, dscale, dshift].into_iter().enumerate().for_each(|(i, result)| call.output(i, result));
    }
}

impl Run<Naive> for Conv2dDw {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, dy, mut dw) = (normalised(call, self.pre, 2), call.input(1), Array::zeros(call.shape(0)));
        let [_, _, cin, cout] = dw.four();
        each_tap(&geometry(&self.window, x.shape), x.four()[0], |[n, o, p], [_, a, b], [i, j]| {
            for k in 0..cin {
                for c in 0..cout {
                    dw[[i, j, k, c]] += x[[n, a, b, k]] * dy[[n, o, p, c]];
                }
            }
        });
        call.output(0, dw);
    }
}
