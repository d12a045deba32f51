use super::{Act, Activation, ActivationDx};
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! { in "elementwise";
    fn activation<T, U>(x: *const T, x_pitch: i32, y: *mut U, y_pitch: i32, sheet: Sheet, act: i32, add: i32) for same;
    fn activation_dx<T, U>(
        dy: *const T, dy_pitch: i32, y: *const T, y_pitch: i32, dx: *mut U, dx_pitch: i32, sheet: Sheet, act: i32, add: i32,
    ) for all;
}

/// The number of an activation in kernels/elements.cuh.
pub(in crate::ops) fn number(act: Act) -> i32 {
    match act {
        Act::Linear => 0,
        Act::Relu => 1,
        Act::Sigmoid => 2,
    }
}

impl Run<Cuda> for Activation {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let sheet = Sheet::of(&[x, y]);
        let arguments = (x.ptr, x.pitch, y.ptr, y.pitch, sheet, number(self.act), y.add);
        call.launch(activation.of(&[x], y), sheet.grid(call.device), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for ActivationDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, y, dx) = (call.src(0), call.src(1), call.dst(0));
        let sheet = Sheet::of(&[dy, y, dx]);
        let arguments = (dy.ptr, dy.pitch, y.ptr, y.pitch, dx.ptr, dx.pitch, sheet, number(self.act), dx.add);
        call.launch(activation_dx.of(&[dy, y], dx), sheet.grid(call.device), THREADS, 0, arguments);
    }
}
