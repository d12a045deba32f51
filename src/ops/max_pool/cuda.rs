use super::{MaxPool, MaxPoolDx, geom};
use crate::base::Geom;
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, tiles};
use crate::kernels;
use crate::ops::Run;

kernels! { in "pooling";
    fn max_pool<T, U>(x: *const T, x_pitch: i32, y: *mut U, y_pitch: i32, sheet: Sheet, window: Window, add: i32) for same;
    fn max_pool_dx<T, U>(
        dy: *const T, dy_pitch: i32, x: *const T, x_pitch: i32, dx: *mut U, dx_pitch: i32, sheet: Sheet, window: Window,
        by_in_w: Divisor, by_in_pixels: Divisor, add: i32,
    ) for all;
    fn max_pool_dx_by_two<T, U>(
        dy: *const T, dy_pitch: i32, x: *const T, x_pitch: i32, dx: *mut U, dx_pitch: i32, strips: Sheet, window: Window,
        tall: i32, add: i32,
    ) for all;
}

/// Patches of a strip: a taller one finds fewer maxima twice, shorter ones keep more threads busy.
const TALL: usize = 8;
const SHORT: usize = 4;

/// Threads that keep a chip busy.
const BUSY: usize = 1 << 17;

/// Whether the kernel for windows of 2x2 and 3x3 that go two pixels at a time serves this geometry.
fn by_two(g: &Geom) -> bool {
    g.stride == [2, 2] && (g.kernel == [2, 2] || g.kernel == [3, 3])
}

/// The patches of each strip of an image and the strips of all images, for `packs` threads to each. A strip of windows that do not
/// overlap has nothing to carry on, so that it is one patch.
fn strips(g: &Geom, images: usize, packs: usize) -> (usize, usize) {
    let [down, across] = [0, 1].map(|axis| (g.input[axis] - 1 + g.before(axis)) / 2 + 1);
    let strips = |tall: usize| images * down.div_ceil(tall) * across;
    let tall = if g.kernel == [2, 2] { 1 } else if strips(TALL) * packs >= BUSY { TALL } else { SHORT };
    (tall, strips(tall))
}

impl Run<Cuda> for MaxPool {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let window = Window::on(&geom(&self.window, call.ins[0].ty.shape));
        let sheet = Sheet::of(&[y, x]);
        call.launch(max_pool.of(&[x], y), sheet.grid(call.device), THREADS, 0, (x.ptr, x.pitch, y.ptr, y.pitch, sheet, window, y.add));
    }
}

impl Run<Cuda> for MaxPoolDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, x, dx) = (call.src(0), call.src(1), call.dst(0));
        let geom = geom(&self.window, call.ins[1].ty.shape);
        let (sheet, window, [in_h, in_w]) = (Sheet::of(&[dx, x, dy]), Window::on(&geom), geom.input);
        if by_two(&geom) {
            let (tall, strips) = strips(&geom, dx.rows as usize / (in_h * in_w), tiles(dx.cols, sheet.width));
            let sheet = sheet.with_rows(strips);
            let arguments = (dy.ptr, dy.pitch, x.ptr, x.pitch, dx.ptr, dx.pitch, sheet, window, tall as i32, dx.add);
            call.launch(max_pool_dx_by_two.of(&[dy, x], dx), sheet.grid_of_single_rows(), THREADS, 0, arguments);
        } else {
            let (by_in_w, by_in_pixels) = (Divisor::by(in_w), Divisor::by(in_h * in_w));
            let arguments = (dy.ptr, dy.pitch, x.ptr, x.pitch, dx.ptr, dx.pitch, sheet, window, by_in_w, by_in_pixels, dx.add);
            call.launch(max_pool_dx.of(&[dy, x], dx), sheet.grid(call.device), THREADS, 0, arguments);
        }
    }
}
