use super::{BnCoefficients, BnCoefficientsDx};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, DevicePtr, tiles};
use crate::kernels;
use crate::ops::Run;

kernels! { in "batch_norm";
    fn bn_coefficients(
        mean: *const f32, var: *const f32, gamma: *const f32, beta: *const f32, epsilon: f64,
        scale: *mut f32, add_scale: i32, shift: *mut f32, add_shift: i32, channels: i32,
    );
    fn bn_coefficients_dx(
        mean: *const f32, var: *const f32, gamma: *const f32, dscale: *const f32, dshift: *const f32, epsilon: f64,
        dmean: *mut f32, add_mean: i32, dvar: *mut f32, add_var: i32, dgamma: *mut f32, add_gamma: i32, dbeta: *mut f32, add_beta: i32,
        channels: i32,
    );
}

/// What stands for gamma where there is none.
const NONE: DevicePtr = DevicePtr(0);

impl Run<Cuda> for BnCoefficients {
    fn run(&self, call: &Call<'_, Cuda>) {
        let [mean, var, beta] = [0, 1, call.ins.len() - 1].map(|i| call.src(i).floats());
        let gamma = if self.gamma { call.src(2).floats() } else { NONE };
        let (scale, shift) = (call.dst(0), call.dst(1));
        let arguments = (mean, var, gamma, beta, self.epsilon, scale.floats(), scale.add, shift.floats(), shift.add, scale.cols);
        call.launch(bn_coefficients, tiles(scale.cols, THREADS as i32), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for BnCoefficientsDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let n = call.ins.len();
        let [mean, var, dscale, dshift] = [0, 1, n - 2, n - 1].map(|i| call.src(i).floats());
        let gamma = if self.gamma { call.src(2).floats() } else { NONE };
        let [dmean, dvar, dbeta] = [0, 1, n - 2].map(|i| call.dst(i));
        let (dgamma, add_gamma) = if self.gamma { (call.dst(2).floats(), call.dst(2).add) } else { (NONE, 0) };
        let to = (dmean.floats(), dmean.add, dvar.floats(), dvar.add, dgamma, add_gamma, dbeta.floats(), dbeta.add);
        let arguments = (mean, var, gamma, dscale, dshift, self.epsilon, to.0, to.1, to.2, to.3, to.4, to.5, to.6, to.7, dmean.cols);
        call.launch(bn_coefficients_dx, tiles(dmean.cols, THREADS as i32), THREADS, 0, arguments);
    }
}
