//! A few thousand channels at most: one thread, in f64, because both differences (`beta - mean scale` and
//! `dscale - mean dshift`) cancel when the mean is many standard deviations away.

use super::{BnCoefficients, BnCoefficientsDx};
use crate::device::Call;
use crate::device::cpu::view::put;
use crate::device::cpu::{Cpu, Dst};
use crate::ops::Run;
use crate::simd;

simd! {
    /// Scale and shift of every channel; all vectors are equally long, and `gamma` may be absent.
    unsafe fn coefficients<V>(epsilon: f64, mean: &[f32], var: &[f32], gamma: Option<&[f32]>, beta: &[f32], scale: Dst, shift: Dst) {
        for c in 0..mean.len() {
            let gamma = gamma.map_or(1.0, |gamma| f64::from(gamma[c]));
            let s = (gamma / (f64::from(var[c]) + epsilon).sqrt()) as f32;
            put(scale.ptr().add(c), s, scale.adds());
            // Of the rounded scale: what x is multiplied by, so that x = mean gives beta.
            put(shift.ptr().add(c), (f64::from(beta[c]) - f64::from(mean[c]) * f64::from(s)) as f32, shift.adds());
        }
    }

    /// The gradients of every channel, `to` holds those of mean, var and beta.
    unsafe fn gradients<V>(epsilon: f64, mean: &[f32], var: &[f32], gamma: Option<&[f32]>, dscale: &[f32], dshift: &[f32], to: [Dst; 3], dgamma: Option<Dst>) {
        let [dmean, dvar, dbeta] = to;
        for c in 0..mean.len() {
            let g = gamma.map_or(1.0, |gamma| f64::from(gamma[c]));
            let rstd = 1.0 / (f64::from(var[c]) + epsilon).sqrt();
            let db = f64::from(dshift[c]);
            let ds = f64::from(dscale[c]) - f64::from(mean[c]) * db;
            put(dmean.ptr().add(c), (-g * rstd * db) as f32, dmean.adds());
            put(dvar.ptr().add(c), (-0.5 * g * rstd * rstd * rstd * ds) as f32, dvar.adds());
            put(dbeta.ptr().add(c), dshift[c], dbeta.adds());
            if let Some(dgamma) = dgamma {
                put(dgamma.ptr().add(c), (rstd * ds) as f32, dgamma.adds());
            }
        }
    }
}

impl Run<Cpu> for BnCoefficients {
    fn run(&self, call: &Call<'_, Cpu>) {
        let each = 3 + usize::from(self.gamma);
        for layer in 0..call.outs.len() / 2 {
            let vector = |i: usize| call.src(layer * each + i).flat();
            let (mean, var, gamma, beta) = (vector(0), vector(1), self.gamma.then(|| vector(2)), vector(each - 1));
            let (scale, shift) = (call.dst(2 * layer), call.dst(2 * layer + 1));
            // SAFETY: all vectors of a layer have the length of `mean`, by shape inference; one thread writes the results.
            unsafe { coefficients(call.device.isa, self.epsilon, mean, var, gamma, beta, scale, shift) }
        }
    }
}

impl Run<Cpu> for BnCoefficientsDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let n = call.ins.len();
        let [mean, var, dscale, dshift] = [0, 1, n - 2, n - 1].map(|i| call.src(i).flat());
        let gamma = self.gamma.then(|| call.src(2).flat());
        let (to, dgamma) = ([0, 1, n - 2].map(|i| call.dst(i)), self.gamma.then(|| call.dst(2)));
        // SAFETY: as in the forward op.
        unsafe { gradients(call.device.isa, self.epsilon, mean, var, gamma, dscale, dshift, to, dgamma) }
    }
}
