use super::{ChannelStats, ChannelStatsDx};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::columns::{FINISHED, Parts};
use crate::device::cuda::epilogue::{self, Left};
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, DevicePtr, Matrix};
use crate::kernels;
use crate::ops::Run;

kernels! { in "batch_norm";
    fn channel_stats<T, U>(x: *const T, x_pitch: i32, partial: *mut f64, sheet: Sheet, rows_per_part: i32) for same;
    fn finish_stats(
        partial: *const f64, parts: i32, rows: i32, cols: i32, rows_per_part: i32, mean: *mut f32, add_mean: i32, var: *mut f32, add_var: i32,
    );
    fn merge_stats(
        partial: *const f32, parts: i32, rows: i32, cols: i32, rows_per_part: i32, parts_per_group: i32, group: *mut f64,
        mean: *mut f32, add_mean: i32, var: *mut f32, add_var: i32,
    );
    fn channel_stats_dx<T, U>(
        x: *const T, x_pitch: i32, mean: *const f32, dmean: *const f32, dvar: *const f32, dx: *mut U, dx_pitch: i32, sheet: Sheet, add: i32,
    ) for all;
}

/// The last launch: mean and variance of `[rows, cols]` from those of the parts.
fn finish(call: &Call<'_, Cuda>, partial: DevicePtr, parts: Parts, [rows, cols]: [i32; 2], [mean, var]: [Matrix; 2]) {
    let (count, each) = (parts.count as i32, parts.rows_each as i32);
    let arguments = (partial, count, rows, cols, each, mean.floats(), mean.add, var.floats(), var.add);
    call.launch(finish_stats, (cols as usize).div_ceil(FINISHED), THREADS, 0, arguments);
}

/// Mean and variance of results `y` from what the launch that made them left in scratch memory.
pub(in crate::ops) fn finish_left(call: &Call<'_, Cuda>, left: Left, y: Matrix, [mean, var]: [Matrix; 2]) {
    let (partial, Parts { count, rows_each }) = (call.scratch(), left.groups);
    let group = if count > 1 { partial.offset(left.first_group()) } else { DevicePtr(0) };
    let (parts, rows, each) = (left.parts as i32, epilogue::ROWS as i32, rows_each as i32);
    let arguments = (partial, parts, y.rows, y.cols, rows, each, group, mean.floats(), mean.add, var.floats(), var.add);
    call.launch(merge_stats, left.grid(y.cols as usize), THREADS, 0, arguments);
    if count > 1 {
        finish(call, group, Parts { count, rows_each: rows_each * epilogue::ROWS }, [y.rows, y.cols], [mean, var]);
    }
}

impl Run<Cuda> for ChannelStats {
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        let (rows, cols) = (ins[0].shape.rows(), ins[0].shape.cols());
        2 * 8 * cols * Parts::of(rows, cols).count
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, mean, var, partial) = (call.src(0), call.dst(0), call.dst(1), call.scratch());
        let sheet = Sheet::of(&[x]);
        let parts = Parts::of_sheet(&sheet);
        let each = parts.rows_each as i32;
        call.launch(channel_stats.of(&[x], x), parts.grid(&sheet), THREADS, 0, (x.ptr, x.pitch, partial, sheet, each));
        finish(call, partial, parts, [x.rows, x.cols], [mean, var]);
    }
}

impl Run<Cuda> for ChannelStatsDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dx, [mean, dmean, dvar]) = (call.src(0), call.dst(0), [1, 2, 3].map(|i| call.src(i).floats()));
        let sheet = Sheet::of(&[x, dx]);
        let arguments = (x.ptr, x.pitch, mean, dmean, dvar, dx.ptr, dx.pitch, sheet, dx.add);
        call.launch(channel_stats_dx.of(&[x], dx), sheet.grid(), THREADS, 0, arguments);
    }
}
