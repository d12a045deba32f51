use super::{MaxPool, MaxPoolDx, geom};
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::window::{Divisor, Window};
use crate::kernels;
use crate::ops::Run;

kernels! { in "pooling";
    fn max_pool<T, U>(x: *const T, x_pitch: i32, y: *mut U, y_pitch: i32, sheet: Sheet, window: Window, add: i32) for same;
    fn max_pool_dx<T, U>(
        dy: *const T, dy_pitch: i32, x: *const T, x_pitch: i32, dx: *mut U, dx_pitch: i32, sheet: Sheet, window: Window,
        by_in_w: Divisor, by_in_pixels: Divisor, add: i32,
    ) for all;
}

impl Run<Cuda> for MaxPool {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let window = Window::on(&geom(&self.window, call.ins[0].ty.shape));
        let sheet = Sheet::of(&[y, x]);
        call.launch(max_pool.of(&[x], y), sheet.grid(), THREADS, 0, (x.ptr, x.pitch, y.ptr, y.pitch, sheet, window, y.add));
    }
}

impl Run<Cuda> for MaxPoolDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, x, dx) = (call.src(0), call.src(1), call.dst(0));
        let geom = geom(&self.window, call.ins[1].ty.shape);
        let (sheet, [in_h, in_w]) = (Sheet::of(&[dx, x, dy]), geom.input);
        let arguments = (
            dy.ptr, dy.pitch, x.ptr, x.pitch, dx.ptr, dx.pitch, sheet, Window::on(&geom), Divisor::by(in_w), Divisor::by(in_h * in_w), dx.add,
        );
        call.launch(max_pool_dx.of(&[dy, x], dx), sheet.grid(), THREADS, 0, arguments);
    }
}
