use super::{GlobalAvgPool, GlobalAvgPoolDx};
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, tiles};
use crate::kernels;
use crate::ops::Run;

kernels! { in "pooling";
    fn global_avg_pool<T, U>(x: *const T, x_pitch: i32, y: *mut f32, y_pitch: i32, pixels: i32, cols: i32, add: i32, width: i32) for same;
    fn global_avg_pool_dx<T, U>(dy: *const f32, dy_pitch: i32, dx: *mut U, dx_pitch: i32, sheet: Sheet, pixels: i32, add: i32) for same;
}

/// Packs of channels of a block.
const PACKS: i32 = 32;

impl Run<Cuda> for GlobalAvgPool {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let width = Sheet::of(&[x]).width;
        let arguments = (x.ptr, x.pitch, y.floats(), y.pitch, x.rows / y.rows, x.cols, y.add, width);
        call.launch(global_avg_pool.of(&[x], x), (tiles(x.cols, PACKS * width), y.rows as usize), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for GlobalAvgPoolDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, dx) = (call.src(0), call.dst(0));
        let sheet = Sheet::of(&[dx]);
        let pixels = (self.input[0] * self.input[1]) as i32;
        let arguments = (dy.floats(), dy.pitch, dx.ptr, dx.pitch, sheet, pixels, dx.add);
        call.launch(global_avg_pool_dx.of(&[dx], dx), sheet.grid(call.device), THREADS, 0, arguments);
    }
}
