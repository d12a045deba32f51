use super::{ScaleShift, ScaleShiftDx, ScaleShiftSums};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::columns::{self, Parts};
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, DevicePtr};
use crate::kernels;
use crate::ops::Run;
use crate::ops::activation::cuda::number;

kernels! { in "batch_norm";
    fn scale_shift<T, U>(
        x: *const T, x_pitch: i32, scale: *const f32, shift: *const f32, y: *mut U, y_pitch: i32, sheet: Sheet, act: i32, add: i32,
    ) for same;
    fn scale_shift_sums<T, U>(
        dy: *const T, dy_pitch: i32, x: *const T, x_pitch: i32, scale: *const f32, shift: *const f32, partial: *mut f32, sheet: Sheet,
        rows_per_part: i32, act: i32,
    ) for same;
    fn scale_shift_dx<T, U>(
        dy: *const T, dy_pitch: i32, x: *const T, x_pitch: i32, scale: *const f32, shift: *const f32,
        mean: *const f32, dmean: *const f32, dvar: *const f32, dx: *mut U, dx_pitch: i32, sheet: Sheet, act: i32, add: i32,
    ) for all;
}

impl Run<Cuda> for ScaleShift {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y, [scale, shift]) = (call.src(0), call.dst(0), [1, 2].map(|i| call.src(i).floats()));
        let sheet = Sheet::of(&[x, y]);
        let arguments = (x.ptr, x.pitch, scale, shift, y.ptr, y.pitch, sheet, number(self.act), y.add);
        call.launch(scale_shift.of(&[x], y), sheet.grid(call.device), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for ScaleShiftSums {
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        columns::scratch(ins[0].shape.rows(), ins[0].shape.cols(), 2)
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, x, partial, [scale, shift]) = (call.src(0), call.src(1), call.scratch(), [2, 3].map(|i| call.src(i).floats()));
        let sheet = Sheet::of(&[dy, x]);
        let parts = Parts::of_sheet(&sheet);
        let arguments =
            (dy.ptr, dy.pitch, x.ptr, x.pitch, scale, shift, partial, sheet, parts.rows_each as i32, number(self.act));
        call.launch(scale_shift_sums.of(&[dy, x], x), parts.grid(&sheet), THREADS, 0, arguments);
        columns::finish(call, partial, parts, &[call.dst(0), call.dst(1)]);
    }
}

impl Run<Cuda> for ScaleShiftDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, x, dx, [scale, shift]) = (call.src(0), call.src(1), call.dst(0), [2, 3].map(|i| call.src(i).floats()));
        // Without statistics the kernel sees null pointers.
        let [mean, dmean, dvar] = if self.stats { [4, 5, 6].map(|i| call.src(i).floats()) } else { [DevicePtr(0); 3] };
        let sheet = Sheet::of(&[dy, x, dx]);
        let arguments = (
            dy.ptr, dy.pitch, x.ptr, x.pitch, scale, shift, mean, dmean, dvar, dx.ptr, dx.pitch, sheet, number(self.act), dx.add,
        );
        call.launch(scale_shift_dx.of(&[dy, x], dx), sheet.grid(call.device), THREADS, 0, arguments);
    }
}
