use super::{BiasAdd, ColumnSum};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::columns::{self, Parts};
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! {
    in "elementwise";
    fn bias_add<T, U>(x: *const T, x_pitch: i32, b: *const f32, y: *mut U, y_pitch: i32, sheet: Sheet, add: i32) for same;
    in "columns";
    fn column_sum<T, U>(x: *const T, x_pitch: i32, partial: *mut f32, sheet: Sheet, rows_per_part: i32) for same;
}

impl Run<Cuda> for BiasAdd {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, b, y) = (call.src(0), call.src(1), call.dst(0));
        let sheet = Sheet::of(&[x, y]);
        call.launch(bias_add.of(&[x], y), sheet.grid(call.device), THREADS, 0, (x.ptr, x.pitch, b.floats(), y.ptr, y.pitch, sheet, y.add));
    }
}

impl Run<Cuda> for ColumnSum {
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        columns::scratch(ins[0].shape.rows(), ins[0].shape.cols(), 1)
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, partial) = (call.src(0), call.scratch());
        let sheet = Sheet::of(&[x]);
        let parts = Parts::of_sheet(&sheet);
        call.launch(column_sum.of(&[x], x), parts.grid(&sheet), THREADS, 0, (x.ptr, x.pitch, partial, sheet, parts.rows_each as i32));
        columns::finish(call, partial, parts, &[call.dst(0)]);
    }
}
