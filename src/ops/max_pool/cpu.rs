use super::{MaxPool, MaxPoolDx, geom};
use crate::base::Geom;
use crate::device::Call;
use crate::device::cpu::simd::Vector;
use crate::device::cpu::{Cpu, Dst};
use crate::ops::Run;
use crate::ops::window::{Blocks, grain, prefetch};
use crate::simd;
use std::ops::Range;

/// The maximum of a window of `rows` x `taps` pixels, for `M` vectors of channels (the first `n` of each).
///
/// # Safety
/// `corner` is the first pixel of the window, and all of them have `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
unsafe fn window_max<V: Vector, const M: usize>(corner: *const f32, rows: usize, taps: usize, x_row: usize, pitch: usize, n: usize) -> [V; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut best = [V::zero(); M];
        for (m, best) in best.iter_mut().enumerate() {
            *best = V::take(corner.add(m * V::N), n);
        }
        for p in 0..rows {
            for q in 0..taps {
                for (m, best) in best.iter_mut().enumerate() {
                    *best = best.max(V::take(corner.add(p * x_row + q * pitch + m * V::N), n));
                }
            }
        }
        best
    }
}

/// Adds the gradients of one output pixel to the first maxima of its window, for `M` vectors of channels (the first `n` of each).
///
/// `left` is what of `dy` has not found its maximum yet: all of it up to the first pixel that is not below the maximum, nothing
/// after it. (Two values closer to each other than 1e-38 count as a tie: their difference is flushed to zero.)
///
/// # Safety
/// `x` and `dx` are the first pixel of the window, `dy` is the output pixel; channels as for [`window_max`].
#[inline(always)]
unsafe fn hand_back<V: Vector, const M: usize>(
    [rows, taps]: [usize; 2],
    dy: *const f32,
    x: *const f32,
    dx: *mut f32,
    [x_row, x_pitch, dx_row, dx_pitch]: [usize; 4],
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let best = window_max::<V, M>(x, rows, taps, x_row, x_pitch, n);
        let mut left = [V::zero(); M];
        for (m, left) in left.iter_mut().enumerate() {
            *left = V::take(dy.add(m * V::N), n);
        }
        for p in 0..rows {
            for q in 0..taps {
                for m in 0..M {
                    let pixel = V::take(x.add(p * x_row + q * x_pitch + m * V::N), n);
                    let below = left[m].where_positive(best[m].sub(pixel));
                    left[m].sub(below).put(dx.add(p * dx_row + q * dx_pitch + m * V::N), n, true);
                    left[m] = below;
                }
            }
        }
    }
}

/// Asks for what the window below reads and this one does not, for `m` vectors of channels: pixels that come from memory, in an
/// order which the hardware does not foresee.
#[inline(always)]
fn prefetch_below<V: Vector>(geom: &Geom, corner: *const f32, rows: usize, x_row: usize, x_pitch: usize, m: usize) {
    for p in 0..geom.stride[0] {
        for q in 0..geom.stride[1] {
            (0..m).for_each(|m| prefetch(corner.wrapping_add((rows + p) * x_row + q * x_pitch + m * V::N)));
        }
    }
}

simd! {
    /// Row `i` of the output over the image at `x`.
    unsafe fn max_row<V>(geom: &Geom, i: usize, x: *const f32, x_pitch: usize, y: *mut f32, y_pitch: usize, cols: usize, add: bool) {
        let (rows, x_row) = (geom.taps(0, i), geom.input[1] * x_pitch);
        for j in 0..geom.output[1] {
            let taps = geom.taps(1, j);
            let row = i * geom.stride[0] + rows.start - geom.before(0);
            let col = j * geom.stride[1] + taps.start - geom.before(1);
            let corner = x.add(row * x_row + col * x_pitch);
            let (height, width, y, mut c) = (rows.len(), taps.len(), y.add(j * y_pitch), 0);
            while c + 4 * V::N <= cols {
                prefetch_below::<V>(geom, corner.add(c), height, x_row, x_pitch, 4);
                let best = window_max::<V, 4>(corner.add(c), height, width, x_row, x_pitch, V::N);
                for (m, best) in best.into_iter().enumerate() {
                    best.put(y.add(c + m * V::N), V::N, add);
                }
                c += 4 * V::N;
            }
            while c < cols {
                let n = V::N.min(cols - c);
                prefetch_below::<V>(geom, corner.add(c), height, x_row, x_pitch, 1);
                let [best] = window_max::<V, 1>(corner.add(c), height, width, x_row, x_pitch, n);
                best.put(y.add(c), n, add);
                c += V::N;
            }
        }
    }

    /// Adds the gradients of output row `i` to the first maxima of their windows in the image at `dx`.
    unsafe fn max_dx_row<V>(
        geom: &Geom, i: usize, dy: *const f32, dy_pitch: usize, x: *const f32, x_pitch: usize, dx: *mut f32, dx_pitch: usize, cols: usize,
    ) {
        let (rows, x_row, dx_row) = (geom.taps(0, i), geom.input[1] * x_pitch, geom.input[1] * dx_pitch);
        let row = i * geom.stride[0] + rows.start - geom.before(0);
        for j in 0..geom.output[1] {
            let taps = geom.taps(1, j);
            let col = j * geom.stride[1] + taps.start - geom.before(1);
            let (x, dx) = (x.add(row * x_row + col * x_pitch), dx.add(row * dx_row + col * dx_pitch));
            let (size, pitches, dy, mut c) = ([rows.len(), taps.len()], [x_row, x_pitch, dx_row, dx_pitch], dy.add(j * dy_pitch), 0);
            while c + 2 * V::N <= cols {
                prefetch_below::<V>(geom, x.add(c), rows.len(), x_row, x_pitch, 2);
                hand_back::<V, 2>(size, dy.add(c), x.add(c), dx.add(c), pitches, V::N);
                c += 2 * V::N;
            }
            while c < cols {
                prefetch_below::<V>(geom, x.add(c), rows.len(), x_row, x_pitch, 1);
                hand_back::<V, 1>(size, dy.add(c), x.add(c), dx.add(c), pitches, V::N.min(cols - c));
                c += V::N;
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
    // SAFETY: the caller's promise; a float of zero bytes is 0.
    unsafe {
        if cols == dx.pitch {
            return std::ptr::write_bytes(dx.ptr().add(pixels.start * cols), 0, pixels.len() * cols);
        }
        pixels.for_each(|pixel| std::ptr::write_bytes(dx.ptr().add(pixel * dx.pitch + c), 0, cols));
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
