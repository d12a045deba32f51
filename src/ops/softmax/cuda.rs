use super::{Softmax, SoftmaxDx};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, tiles};
use crate::kernels;
use crate::ops::Run;

kernels! { in "loss";
    fn softmax(x: *const f32, x_pitch: i32, y: *mut f32, y_pitch: i32, samples: i32, classes: i32, add: i32);
    fn softmax_dx(
        dy: *const f32, dy_pitch: i32, y: *const f32, y_pitch: i32, dx: *mut f32, dx_pitch: i32, samples: i32, classes: i32, add: i32,
    );
}

/// Samples of a block: one for each warp.
pub(in crate::ops) const SAMPLES: i32 = THREADS as i32 / 32;

impl Run<Cuda> for Softmax {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let arguments = (x.floats(), x.pitch, y.floats(), y.pitch, y.rows, y.cols, y.add);
        call.launch(softmax, tiles(y.rows, SAMPLES), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for SoftmaxDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, y, dx) = (call.src(0), call.src(1), call.dst(0));
        let arguments = (dy.floats(), dy.pitch, y.floats(), y.pitch, dx.floats(), dx.pitch, dx.rows, dx.cols, dx.add);
        call.launch(softmax_dx, tiles(dx.rows, SAMPLES), THREADS, 0, arguments);
    }
}
