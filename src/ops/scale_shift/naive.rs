use super::{ScaleShift, ScaleShiftDx, ScaleShiftSums};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::activation::naive::{apply, slope};
use crate::ops::Run;
use crate::ops::activation::Act;

/// Input 0 of an op that normalises it on the way in: act(x scale + shift), the vectors being inputs `at` and `at + 1`.
pub(in crate::ops) fn normalised(call: &Call<'_, Naive>, act: Option<Act>, at: usize) -> Array {
    let mut x = call.input(0);
    let Some(act) = act else { return x };
    let (scale, shift) = (call.input(at), call.input(at + 1));
    for i in 0..x.data.len() {
        let c = i % x.shape.cols();
        x[i] = apply(act, x[i] * scale[c] + shift[c]);
    }
    x
}

impl Run<Naive> for ScaleShift {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut x, scale, shift) = (call.input(0), call.input(1), call.input(2));
        for i in 0..x.data.len() {
            let c = i % x.shape.cols();
            x[i] = apply(self.act, x[i] * scale[c] + shift[c]);
        }
        call.output(0, x);
    }
}

/// dz = dy act'(x scale + shift), from inputs 0 to 3.
fn dz(call: &Call<'_, Naive>, act: Act) -> Array {
    let (mut dz, x, scale, shift) = (call.input(0), call.input(1), call.input(2), call.input(3));
    for i in 0..x.data.len() {
        let c = i % x.shape.cols();
        dz[i] *= slope(act, apply(act, x[i] * scale[c] + shift[c]));
    }
    dz
}

impl Run<Naive> for ScaleShiftSums {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dz, x) = (dz(call, self.act), call.input(1));
        let (mut dscale, mut dshift) = (Array::zeros([x.shape.cols()]), Array::zeros([x.shape.cols()]));
        for i in 0..x.data.len() {
            dscale[i % x.shape.cols()] += dz[i] * x[i];
            dshift[i % x.shape.cols()] += dz[i];
        }
        call.output(0, dscale);
        call.output(1, dshift);
    }
}

impl Run<Naive> for ScaleShiftDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut dx, x, scale) = (dz(call, self.act), call.input(1), call.input(2));
        let (pixels, channels) = (x.shape.rows() as f64, x.shape.cols());
        for i in 0..dx.data.len() {
            dx[i] *= scale[i % channels];
        }
        if self.stats {
            let (mean, dmean, dvar) = (call.input(4), call.input(5), call.input(6));
            for i in 0..dx.data.len() {
                let c = i % channels;
                dx[i] += dmean[c] / pixels + 2.0 * dvar[c] * (x[i] - mean[c]) / pixels;
            }
        }
        call.output(0, dx);
    }
}
