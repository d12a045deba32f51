use super::{Dense, DenseDw, DenseDx};
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::THREADS;
use crate::kernels;
use crate::ops::Run;

kernels! { in "dense";
    fn dense_f32(x: *const f32, x_pitch: i32, w: *const f32, y: *mut f32, y_pitch: i32, rows: i32, depth: i32, cols: i32, add: i32);
    fn dense_dx_f32(
        dy: *const f32, dy_pitch: i32, w: *const f32, dx: *mut f32, dx_pitch: i32, rows: i32, depth: i32, cols: i32, add: i32,
    );
    fn dense_dw_f32(
        x: *const f32, x_pitch: i32, dy: *const f32, dy_pitch: i32, dw: *mut f32, rows: i32, depth: i32, cols: i32, add: i32,
    );
}

/// Columns that a warp computes together: `GROUP` in dense.cu.
const GROUP: usize = 8;

/// Blocks of one thread for each element.
fn elements(rows: i32, cols: i32) -> usize {
    (rows as usize * cols as usize).div_ceil(THREADS as usize)
}

impl Run<Cuda> for Dense {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, w, y) = (call.src(0), call.src(1), call.dst(0));
        let warps = y.rows as usize * (y.cols as usize).div_ceil(GROUP);
        let arguments = (x.floats(), x.pitch, w.floats(), y.floats(), y.pitch, y.rows, x.cols, y.cols, y.add);
        call.launch(dense_f32, (32 * warps).div_ceil(THREADS as usize), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for DenseDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, w, dx) = (call.src(0), call.src(1), call.dst(0));
        let arguments = (dy.floats(), dy.pitch, w.floats(), dx.floats(), dx.pitch, dx.rows, dx.cols, dy.cols, dx.add);
        call.launch(dense_dx_f32, elements(dx.rows, dx.cols), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for DenseDw {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dy, dw) = (call.src(0), call.src(1), call.dst(0));
        let arguments = (x.floats(), x.pitch, dy.floats(), dy.pitch, dw.floats(), x.rows, x.cols, dy.cols, dw.add);
        call.launch(dense_dw_f32, elements(dw.rows, dw.cols), THREADS, 0, arguments);
    }
}
