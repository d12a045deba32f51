use super::{Depthwise, DepthwiseDw, DepthwiseDx, geom};
use crate::base::{Geom, Ty};
use crate::device::Call;
use crate::device::cuda::columns::{self, Parts};
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::window::Window;
use crate::device::cuda::{Cuda, Matrix};
use crate::kernels;
use crate::ops::Run;

kernels! { in "depthwise";
    fn depthwise_3x3<T, U>(
        x: *const T, x_pitch: i32, w: *const f32, y: *mut U, y_pitch: i32, strips: Sheet, height: i32, width: i32, columns: i32,
        turned: i32, add: i32,
    ) for same;
    fn depthwise_window<T, U>(
        x: *const T, x_pitch: i32, w: *const f32, y: *mut U, y_pitch: i32, window: Window, images: i32, channels: i32, packs: i32, add: i32,
    ) for same;
    fn depthwise_dx_window<T, U>(
        dy: *const T, dy_pitch: i32, w: *const f32, dx: *mut U, dx_pitch: i32, window: Window, images: i32, channels: i32, packs: i32,
        add: i32,
    ) for same;
    fn depthwise_dw_3x3<T, U>(
        x: *const T, x_pitch: i32, dy: *const U, dy_pitch: i32, partial: *mut f32, strips: Sheet, height: i32, width: i32, columns: i32,
        strips_per_part: i32,
    ) for same;
    fn depthwise_dw_window<T, U>(
        x: *const T, x_pitch: i32, dy: *const U, dy_pitch: i32, partial: *mut f32, window: Window, pixels: Sheet, pixels_per_part: i32,
    ) for same;
}

/// Channels of a thread and rows of a strip: `CHANNELS`, `TALL` in depthwise.cu.
const CHANNELS: i32 = 4;
const TALL: usize = 2;

/// Columns of a strip, at most.
const BROAD: usize = 16;

/// Most parts into which the sum of a filter gradient is cut, blocks of its first launch that keep a chip busy, and the fewest strips and
/// pixels that are worth a part.
const PARTS: usize = 512;
const BUSY: usize = 384;
const STRIPS: usize = 8;
const PIXELS: usize = 128;

/// Whether the sliding kernels serve this geometry.
fn slides(g: &Geom) -> bool {
    g.kernel == [3, 3] && g.stride == [1, 1] && g.pad == [1; 4]
}

/// The columns of each strip of an image, and the strips of all images.
fn strips(images: usize, [height, width]: [usize; 2]) -> (usize, usize) {
    let across = width.div_ceil(BROAD);
    let columns = width.div_ceil(across);
    (columns, images * height.div_ceil(TALL) * width.div_ceil(columns))
}

/// The launch over `rows` strips or pixels: `width` channels to a thread where rows are whole packs.
fn sheet(rows: usize, x: &Matrix, packs: bool, width: i32) -> Sheet {
    Sheet::with_width(rows as i32, x.cols, if packs { width } else { 1 })
}

/// How many threads take a row's channels, by whether they go in packs of 16 bytes.
fn per_row(x: &Matrix, packs: bool) -> usize {
    if packs { x.cols as usize / (16 / x.dtype.size()) } else { x.cols as usize }
}

/// `y = x * w` where a 3x3 window slides; with the filter `turned`, the gradient by the input.
fn slide(call: &Call<'_, Cuda>, g: &Geom, turned: bool) {
    let (x, w, y) = (call.src(0), call.src(1).floats(), call.dst(0));
    let [height, width] = g.input;
    let (columns, strips) = strips(y.rows as usize / (height * width), g.input);
    let sheet = sheet(strips, &y, x.packs() && y.packs(), CHANNELS);
    let (height, width, columns) = (height as i32, width as i32, columns as i32);
    let arguments = (x.ptr, x.pitch, w, y.ptr, y.pitch, sheet, height, width, columns, i32::from(turned), y.add);
    call.launch(depthwise_3x3.of(&[x], y), sheet.grid_of_single_rows(), THREADS, 0, arguments);
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
    /// The geometry, the columns of a strip, and the parts with the strips or pixels of each: they follow from the shape alone, because
    /// they settle the order of a sum.
    fn parts(&self, x: Ty) -> (Geom, usize, usize, Parts) {
        let [images, height, width, channels] = x.shape.four().expect("an activation");
        let g = geom(&self.window, height, width);
        let (columns, strips) = strips(images, g.output);
        let (units, least) = if slides(&g) { (strips, STRIPS) } else { (images * g.output[0] * g.output[1], PIXELS) };
        let wanted = BUSY.div_ceil(channels.div_ceil(32 * CHANNELS as usize)).min(PARTS);
        let rows_each = units.div_ceil(wanted).next_multiple_of(least);
        (g, columns, units, Parts { count: units.div_ceil(rows_each), rows_each })
    }
}

impl Run<Cuda> for DepthwiseDw {
    fn scratch(&self, _: &Cuda, ins: &[Ty], outs: &[Ty]) -> usize {
        self.parts(ins[0]).3.count * outs[0].bytes()
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dy, dw, partial) = (call.src(0), call.src(1), call.dst(0), call.scratch());
        let (g, columns, units, parts) = self.parts(call.ins[0].ty);
        let (packs, each) = (x.packs() && dy.packs(), parts.rows_each as i32);
        if slides(&g) {
            let sheet = sheet(units, &x, packs, CHANNELS);
            let [height, width] = g.input.map(|n| n as i32);
            let arguments = (x.ptr, x.pitch, dy.ptr, dy.pitch, partial, sheet, height, width, columns as i32, each);
            call.launch(depthwise_dw_3x3.of(&[x, dy], dy), parts.grid(&sheet), THREADS, 0, arguments);
        } else {
            let sheet = sheet(units, &x, packs, 16 / x.dtype.size() as i32);
            let (across, down) = parts.grid(&sheet);
            let arguments = (x.ptr, x.pitch, dy.ptr, dy.pitch, partial, Window::on(&g), sheet, each);
            call.launch(depthwise_dw_window.of(&[x, dy], dy), (across, down, g.taps_total()), THREADS, 0, arguments);
        }
        // The filter as one row.
        columns::finish(call, partial, parts, &[Matrix { rows: 1, cols: call.outs[0].ty.shape.len() as i32, ..dw }]);
    }
}
