use super::{Depthwise, DepthwiseDw, DepthwiseDx, geom};
use crate::base::{Geom, Ty};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::window::Window;
use crate::device::cuda::{Cuda, Matrix};
use crate::kernels;
use crate::ops::Run;

kernels! { in "depthwise";
    fn depthwise_3x3<T, U>(
        x: *const T, x_pitch: i32, w: *const f32, y: *mut U, y_pitch: i32, images: i32, height: i32, width: i32, channels: i32,
        turned: i32, packs: i32, add: i32,
    ) for same;
    fn depthwise_window<T, U>(
        x: *const T, x_pitch: i32, w: *const f32, y: *mut U, y_pitch: i32, window: Window, images: i32, channels: i32, packs: i32, add: i32,
    ) for same;
    fn depthwise_dx_window<T, U>(
        dy: *const T, dy_pitch: i32, w: *const f32, dx: *mut U, dx_pitch: i32, window: Window, images: i32, channels: i32, packs: i32,
        add: i32,
    ) for same;
    fn depthwise_dw_3x3<T, U>(
        x: *const T, x_pitch: i32, dy: *const U, dy_pitch: i32, partial: *mut f32, images: i32, height: i32, width: i32, channels: i32,
        strips_per_part: i32, packs: i32,
    ) for same;
    fn depthwise_dw_window<T, U>(
        x: *const T, x_pitch: i32, dy: *const U, dy_pitch: i32, partial: *mut f32, window: Window, images: i32, channels: i32,
        pixels_per_part: i32, packs: i32,
    ) for same;
    fn depthwise_dw_sum(partial: *const f32, dw: *mut f32, n: i32, parts: i32, add: i32);
}

/// Columns of a strip: `STRIP` in depthwise.cu.
const STRIP: usize = 16;

/// Columns of packs and threads of one column in a block of a filter gradient: `LANES_X`, `LANES_Y`.
const LANES: [usize; 2] = [32, 8];

/// Most parts into which the sum of a filter gradient is cut, and the fewest strips or 16 pixels that are worth one.
const PARTS: usize = 256;
const EACH: usize = LANES[1];

/// Whether the sliding kernels serve this geometry.
fn slides(g: &Geom) -> bool {
    g.kernel == [3, 3] && g.stride == [1, 1] && g.pad == [1; 4]
}

/// How many threads take a row's channels, by whether they go in packs of 16 bytes.
fn per_row(x: &Matrix, packs: bool) -> usize {
    if packs { x.cols as usize / (16 / x.dtype.size()) } else { x.cols as usize }
}

/// `y = x * w` where a 3x3 window slides; with the filter `turned`, the gradient by the input.
fn slide(call: &Call<'_, Cuda>, g: &Geom, turned: bool) {
    let (x, w, y) = (call.src(0), call.src(1).floats(), call.dst(0));
    let packs = x.packs() && y.packs();
    let [height, width] = g.input;
    let images = y.rows as usize / (height * width);
    let threads = images * height * width.div_ceil(STRIP) * per_row(&y, packs);
    let (image, height, width) = (images as i32, height as i32, width as i32);
    let arguments = (x.ptr, x.pitch, w, y.ptr, y.pitch, image, height, width, y.cols, i32::from(turned), i32::from(packs), y.add);
    call.launch(depthwise_3x3.of(&[x], y), threads.div_ceil(THREADS as usize), THREADS, 0, arguments);
}

impl Run<Cuda> for Depthwise {
    fn run(&self, call: &Call<'_, Cuda>) {
        let [images, height, width, _] = call.ins[0].ty.shape.four().expect("an activation");
        let g = geom(&self.window, height, width);
        if slides(&g) {
            return slide(call, &g, false);
        }
        let (x, w, y) = (call.src(0), call.src(1).floats(), call.dst(0));
        let packs = x.packs() && y.packs();
        let threads = y.rows as usize * per_row(&y, packs);
        let arguments =
            (x.ptr, x.pitch, w, y.ptr, y.pitch, Window::on(&g), images as i32, y.cols, i32::from(packs), y.add);
        call.launch(depthwise_window.of(&[x], y), threads.div_ceil(THREADS as usize), THREADS, 0, arguments);
    }
}

impl Run<Cuda> for DepthwiseDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let g = geom(&self.window, self.input[0], self.input[1]);
        if slides(&g) {
            return slide(call, &g, true);
        }
        let (dy, w, dx) = (call.src(0), call.src(1).floats(), call.dst(0));
        let packs = dy.packs() && dx.packs();
        let threads = dx.rows as usize * per_row(&dx, packs);
        let images = call.ins[0].ty.shape.dims()[0] as i32;
        let arguments =
            (dy.ptr, dy.pitch, w, dx.ptr, dx.pitch, Window::on(&g), images, dx.cols, i32::from(packs), dx.add);
        call.launch(depthwise_dx_window.of(&[dy], dx), threads.div_ceil(THREADS as usize), THREADS, 0, arguments);
    }
}

impl DepthwiseDw {
    /// The geometry, strips or pixels of a part, and the number of parts: they follow from the shape alone, because they settle
    /// the order of a sum.
    fn parts(&self, x: Ty) -> (Geom, usize, usize) {
        let [images, height, width, _] = x.shape.four().expect("an activation");
        let g = geom(&self.window, height, width);
        let [out_h, out_w] = g.output;
        let (units, least) = if slides(&g) { (images * out_h * out_w.div_ceil(STRIP), EACH) } else { (images * out_h * out_w, EACH * STRIP) };
        let each = units.div_ceil(PARTS).max(least);
        (g, each, units.div_ceil(each))
    }
}

impl Run<Cuda> for DepthwiseDw {
    fn scratch(&self, _: &Cuda, ins: &[Ty], outs: &[Ty]) -> usize {
        self.parts(ins[0]).2 * outs[0].bytes()
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dy, dw, partial) = (call.src(0), call.src(1), call.dst(0), call.scratch());
        let (g, each, parts) = self.parts(call.ins[0].ty);
        let packs = x.packs() && dy.packs();
        let (images, across, block) = (call.ins[0].ty.shape.dims()[0] as i32, per_row(&x, packs).div_ceil(LANES[0]), (LANES[0] * LANES[1]) as u32);
        if slides(&g) {
            let [height, width] = g.input.map(|n| n as i32);
            let arguments =
                (x.ptr, x.pitch, dy.ptr, dy.pitch, partial, images, height, width, x.cols, each as i32, i32::from(packs));
            call.launch(depthwise_dw_3x3.of(&[x, dy], dy), (across, parts), block, 0, arguments);
        } else {
            let arguments = (
                x.ptr, x.pitch, dy.ptr, dy.pitch, partial, Window::on(&g), images, x.cols, each as i32, i32::from(packs),
            );
            call.launch(depthwise_dw_window.of(&[x, dy], dy), (across, parts, g.taps_total()), block, 0, arguments);
        }
        let n = call.outs[0].ty.shape.len();
        call.launch(depthwise_dw_sum, n.div_ceil(256), 256, 0, (partial, dw.floats(), n as i32, parts as i32, dw.add));
    }
}
