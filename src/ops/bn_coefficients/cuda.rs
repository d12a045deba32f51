use super::{BnCoefficients, BnCoefficientsDx};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, DevicePtr, tiles};
use crate::ops::Run;
use crate::{kernel_struct, kernels};

/// The most layers of a launch.
const MOST: usize = 32;

/// `Coefficients` of batch_norm.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Coefficients {
    mean: [DevicePtr; MOST],
    var: [DevicePtr; MOST],
    gamma: [DevicePtr; MOST],
    beta: [DevicePtr; MOST],
    scale: [DevicePtr; MOST],
    shift: [DevicePtr; MOST],
    channels: [i32; MOST],
    add_scale: [i32; MOST],
    add_shift: [i32; MOST],
}
kernel_struct!(Coefficients);

kernels! { in "batch_norm";
    fn bn_coefficients(all: Coefficients, epsilon: f64);
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
        let each = 3 + usize::from(self.gamma);
        let layers: Vec<usize> = (0..call.outs.len() / 2).collect();
        for some in layers.chunks(MOST) {
            let mut all: Coefficients = bytemuck::Zeroable::zeroed();
            for (k, &layer) in some.iter().enumerate() {
                let vector = |i: usize| call.src(layer * each + i).floats();
                (all.mean[k], all.var[k], all.beta[k]) = (vector(0), vector(1), vector(each - 1));
                all.gamma[k] = if self.gamma { vector(2) } else { NONE };
                let (scale, shift) = (call.dst(2 * layer), call.dst(2 * layer + 1));
                (all.scale[k], all.shift[k]) = (scale.floats(), shift.floats());
                (all.channels[k], all.add_scale[k], all.add_shift[k]) = (scale.cols, scale.add, shift.add);
            }
            let longest = all.channels.iter().copied().max().unwrap_or(0);
            call.launch(bn_coefficients, (tiles(longest, THREADS as i32), some.len()), THREADS, 0, (all, self.epsilon));
        }
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
