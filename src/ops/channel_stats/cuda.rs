use super::{ChannelStats, ChannelStatsDx};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::columns::{self, FINISHED, Parts};
use crate::device::cuda::epilogue::{self, Left};
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, DevicePtr, Matrix};
use crate::kernels;
use crate::ops::Run;

kernels! { in "batch_norm";
    fn channel_stats<T, U>(x: *const T, x_pitch: i32, partial: *mut f32, sheet: Sheet, rows_per_part: i32) for same;
    fn finish_stats(
        partial: *const f32, group: *const f64, groups: i32, rows: i32, cols: i32, mean: *mut f32, add_mean: i32, var: *mut f32, add_var: i32,
    );
    fn merge_stats(
        partial: *const f32, parts: i32, rows: i32, cols: i32, rows_per_part: i32, parts_per_group: i32, group: *mut f64,
        mean: *mut f32, add_mean: i32, var: *mut f32, add_var: i32,
    );
    fn channel_stats_dx<T, U>(
        x: *const T, x_pitch: i32, mean: *const f32, dmean: *const f32, dvar: *const f32, dx: *mut U, dx_pitch: i32, sheet: Sheet, add: i32,
    ) for all;
}

/// Mean and variance of results `y` from what the launch that made them left in scratch memory.
pub(in crate::ops) fn finish_left(call: &Call<'_, Cuda>, left: Left, y: Matrix, [mean, var]: [Matrix; 2]) {
    let Parts { count, rows_each } = left.groups;
    let group = if count > 1 { call.scratch().offset(left.first_group()) } else { DevicePtr(0) };
    let parts = Parts { count: left.parts, rows_each: epilogue::ROWS };
    merge(call, parts, rows_each, (count, group), y, [mean, var]);
    if count > 1 {
        let to = (mean.floats(), mean.add, var.floats(), var.add);
        let arguments = (call.scratch(), group, count as i32, y.rows, y.cols, to.0, to.1, to.2, to.3);
        call.launch(finish_stats, (y.cols as usize).div_ceil(FINISHED), THREADS, 0, arguments);
    }
}

/// Adds up the parts in scratch memory, `each` for each group: to mean and variance if there is one group.
fn merge(call: &Call<'_, Cuda>, parts: Parts, each: usize, group: (usize, DevicePtr), x: Matrix, [mean, var]: [Matrix; 2]) {
    let (count, rows_each) = (parts.count as i32, parts.rows_each as i32);
    let arguments = (
        call.scratch(), count, x.rows, x.cols, rows_each, each as i32, group.1, mean.floats(), mean.add, var.floats(), var.add,
    );
    call.launch(merge_stats, ((x.cols as usize).div_ceil(FINISHED), group.0), THREADS, 0, arguments);
}

impl Run<Cuda> for ChannelStats {
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        let (rows, cols) = (ins[0].shape.rows(), ins[0].shape.cols());
        columns::scratch(rows, cols, 3)
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, mean, var, partial) = (call.src(0), call.dst(0), call.dst(1), call.scratch());
        let sheet = Sheet::of(&[x]);
        let parts = Parts::of_sheet(&sheet);
        let each = parts.rows_each as i32;
        call.launch(channel_stats.of(&[x], x), parts.grid(&sheet), THREADS, 0, (x.ptr, x.pitch, partial, sheet, each));
        merge(call, parts, parts.count, (1, DevicePtr(0)), x, [mean, var]);
    }
}

impl Run<Cuda> for ChannelStatsDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dx, [mean, dmean, dvar]) = (call.src(0), call.dst(0), [1, 2, 3].map(|i| call.src(i).floats()));
        let sheet = Sheet::of(&[x, dx]);
        let arguments = (x.ptr, x.pitch, mean, dmean, dvar, dx.ptr, dx.pitch, sheet, dx.add);
        call.launch(channel_stats_dx.of(&[x], dx), sheet.grid(call.device), THREADS, 0, arguments);
    }
}
