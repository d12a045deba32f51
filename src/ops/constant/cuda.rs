use super::Constant;
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, Matrix};
use crate::kernels;
use crate::ops::Run;

kernels! { in "elementwise";
    fn fill<T, U>(value: f32, y: *mut U, y_pitch: i32, sheet: Sheet, add: i32) for same;
}

/// `y (+)= value`.
pub(in crate::ops) fn fill_with(call: &Call<'_, Cuda>, value: f32, y: Matrix) {
    let sheet = Sheet::of(&[y]);
    call.launch(fill.of(&[y], y), sheet.grid(call.device), THREADS, 0, (value, y.ptr, y.pitch, sheet, y.add));
}

impl Run<Cuda> for Constant {
    fn run(&self, call: &Call<'_, Cuda>) {
        fill_with(call, self.value as f32, call.dst(0));
    }
}
