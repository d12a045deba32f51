use super::{MaxPool, MaxPoolDx, geom};
use crate::base::Geom;
use crate::device::Call;
use crate::device::cpu::{Cpu, Dst};
use crate::ops::Run;
use crate::ops::window::{Blocks, grain};
use crate::simd;
use std::ops::Range;

simd! {
    /// Row `i` of the output over the image at `x`.
    unsafe fn max_row<V>(geom: &Geom, i: usize, x: *const f32, x_pitch: usize, y: *mut f32, y_pitch: usize, cols: usize, add: bool) {
        let (rows, x_row) = (geom.taps(0, i), geom.input[1] * x_pitch);
        for j in 0..geom.output[1] {
            let taps = geom.taps(1, j);
            let row = i * geom.stride[0] + rows.start - geom.before(0);
            let col = j * geom.stride[1] + taps.start - geom.before(1);
            let corner = x.add(row * x_row + col * x_pitch);
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut best = V::take(corner.add(c), n);
                for p in 0..rows.len() {
                    for q in 0..taps.len() {
                        best = best.max(V::take(corner.add(p * x_row + q * x_pitch + c), n));
                    }
                }
                best.put(y.add(j * y_pitch + c), n, add);
            }
        }
    }

    /// Adds the gradients of output row `i` to the first maxima of their windows in the image at `dx`.
    ///
    /// `left` is what of `dy` has not found its maximum yet: all of it up to the first pixel that is not below the maximum, nothing
    /// after it. (Two values closer to each other than 1e-38 count as a tie: their difference is flushed to zero.)
    unsafe fn max_dx_row<V>(
        geom: &Geom, i: usize, dy: *const f32, dy_pitch: usize, x: *const f32, x_pitch: usize, dx: *mut f32, dx_pitch: usize, cols: usize,
    ) {
        let rows = geom.taps(0, i);
        let row = i * geom.stride[0] + rows.start - geom.before(0);
        for j in 0..geom.output[1] {
            let taps = geom.taps(1, j);
            let corner = row * geom.input[1] + j * geom.stride[1] + taps.start - geom.before(1);
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut best = V::take(x.add(corner * x_pitch + c), n);
                for p in 0..rows.len() {
                    for q in 0..taps.len() {
                        best = best.max(V::take(x.add((corner + p * geom.input[1] + q) * x_pitch + c), n));
                    }
                }
                let mut left = V::take(dy.add(j * dy_pitch + c), n);
                for p in 0..rows.len() {
                    for q in 0..taps.len() {
                        let at = corner + p * geom.input[1] + q;
                        let below = left.where_positive(best.sub(V::take(x.add(at * x_pitch + c), n)));
                        left.sub(below).put(dx.add(at * dx_pitch + c), n, true);
                        left = below;
                    }
                }
            }
        }
    }
}

impl Run<Cpu> for MaxPool {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0), call.dst(0));
        let geom = geom(&self.window, call.ins[0].ty.shape);
        let ([height, width], [out_h, out_w]) = (geom.input, geom.output);
        cpu.pool.ranges(y.rows / out_w, grain(out_w * y.cols), |rows| {
            for r in rows {
                // SAFETY: `geom` keeps to the pixels of image `r / out_h`; output row `r` belongs to this thread.
                unsafe {
                    let from = x.ptr().add(r / out_h * height * width * x.pitch);
                    let to = y.ptr().add(r * out_w * y.pitch);
                    max_row(cpu.isa, &geom, r % out_h, from, x.pitch, to, y.pitch, y.cols, y.adds());
                }
            }
        });
    }
}

/// Clears `cols` channels of the pixels `pixels`, from channel `c` on.
///
/// # Safety
/// They must belong to the calling thread.
unsafe fn clear(dx: Dst, pixels: Range<usize>, c: usize, cols: usize) {
    for pixel in pixels {
        // SAFETY: the caller's promise; a float of zero bytes is 0.
        unsafe { std::ptr::write_bytes(dx.ptr().add(pixel * dx.pitch + c), 0, cols) }
    }
}

impl Run<Cpu> for MaxPoolDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, x, dx) = (call.device, call.src(0), call.src(1), call.dst(0));
        let geom = geom(&self.window, call.ins[1].ty.shape);
        let ([height, width], [out_h, out_w]) = (geom.input, geom.output);
        let blocks = Blocks::new(dx.rows / (height * width), dx.cols, cpu.threads());
        cpu.pool.parts(blocks.parts(), |part, _| {
            let (image, block) = blocks.part(part);
            let (first, c, cols) = (image * height * width, block.start, block.len());
            // SAFETY: channels `block` of this image belong to this part; `geom` keeps to the image's pixels. Under `Set` a row
            // of `dx` is cleared just before the first window that holds it, and the rows no window holds at the end.
            unsafe {
                let mut cleared = if dx.adds() { height } else { 0 };
                for i in 0..out_h {
                    let reach = (i * geom.stride[0] + geom.kernel[0]).saturating_sub(geom.before(0)).min(height);
                    if cleared < reach {
                        clear(dx, first + cleared * width..first + reach * width, c, cols);
                        cleared = reach;
                    }
                    let dy_row = dy.ptr().add((image * out_h + i) * out_w * dy.pitch + c);
                    let (from, to) = (x.ptr().add(first * x.pitch + c), dx.ptr().add(first * dx.pitch + c));
                    max_dx_row(cpu.isa, &geom, i, dy_row, dy.pitch, from, x.pitch, to, dx.pitch, cols);
                }
                clear(dx, first + cleared * width..first + height * width, c, cols);
            }
        });
    }
}
