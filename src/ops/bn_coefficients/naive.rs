use super::{BnCoefficients, BnCoefficientsDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for BnCoefficients {
    fn run(&self, call: &Call<'_, Naive>) {
        let each = 3 + usize::from(self.gamma);
        for layer in 0..call.outs.len() / 2 {
            let first = layer * each;
            let (mean, var, beta) = (call.input(first), call.input(first + 1), call.input(first + each - 1));
            let gamma = if self.gamma { call.input(first + 2) } else { var.map(|_| 1.0) };
            let (mut scale, mut shift) = (Array::zeros(mean.shape), Array::zeros(mean.shape));
            for c in 0..mean.data.len() {
                scale[c] = gamma[c] / (var[c] + self.epsilon).sqrt();
                shift[c] = beta[c] - mean[c] * scale[c];
            }
            call.output(2 * layer, scale);
            call.output(2 * layer + 1, shift);
        }
    }
}

impl Run<Naive> for BnCoefficientsDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let n = call.ins.len();
        let (mean, var, dscale, dshift) = (call.input(0), call.input(1), call.input(n - 2), call.input(n - 1));
        let gamma = if self.gamma { call.input(2) } else { var.map(|_| 1.0) };
        let [mut dmean, mut dvar, mut dgamma] = [0; 3].map(|_| Array::zeros(mean.shape));
        for c in 0..mean.data.len() {
            let rstd = 1.0 / (var[c] + self.epsilon).sqrt();
            let ds = dscale[c] - mean[c] * dshift[c];
            dmean[c] = -gamma[c] * rstd * dshift[c];
            dvar[c] = -0.5 * gamma[c] * rstd.powi(3) * ds;
            dgamma[c] = rstd * ds;
        }
        call.output(0, dmean);
        call.output(1, dvar);
        if self.gamma {
            call.output(2, dgamma);
        }
        call.output(n - 2, dshift);
    }
}
