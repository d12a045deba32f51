use super::{AvgPool, AvgPoolDx, geom};
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::window::{Divisor, Window};
use crate::kernels;
use crate::ops::Run;

kernels! { in "pooling";
    fn avg_pool<T, U>(
        x: *const T, x_pitch: i32, y: *mut U, y_pitch: i32, sheet: Sheet, window: Window, count_padding: i32, add: i32,
    ) for same;
    fn avg_pool_dx<T, U>(
        dy: *const T, dy_pitch: i32, dx: *mut U, dx_pitch: i32, sheet: Sheet, window: Window,
        by_in_w: Divisor, by_in_pixels: Divisor, count_padding: i32, add: i32,
    ) for all;
}

impl Run<Cuda> for AvgPool {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let [_, height, width, _] = call.ins[0].ty.shape.four().expect("an activation");
        let geom = geom(&self.window, self.count_padding, [height, width]).expect("shape inference admits the window");
        let sheet = Sheet::of(&[y, x]);
        let arguments = (x.ptr, x.pitch, y.ptr, y.pitch, sheet, Window::on(&geom), self.count_padding.into(), y.add);
        call.launch(avg_pool.of(&[x], y), sheet.grid(call.device), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for AvgPoolDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, dx) = (call.src(0), call.dst(0));
        let geom = geom(&self.window, self.count_padding, self.input).expect("shape inference admits the window");
        let (sheet, [in_h, in_w]) = (Sheet::of(&[dx, dy]), geom.input);
        let (window, by_in_w, by_in_pixels) = (Window::on(&geom), Divisor::by(in_w), Divisor::by(in_h * in_w));
        let arguments = (dy.ptr, dy.pitch, dx.ptr, dx.pitch, sheet, window, by_in_w, by_in_pixels, self.count_padding.into(), dx.add);
        call.launch(avg_pool_dx.of(&[dy], dx), sheet.grid(call.device), THREADS, 0, arguments);
    }
}
