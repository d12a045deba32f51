use super::{AvgPool, AvgPoolDx, count, geom};
use crate::base::{Geom, Ty};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::simd::Vector;
use crate::ops::Run;
use crate::ops::window::{grain, prefetch, readers};
use crate::simd;
use std::ops::Range;

/// The sum over a window of `rows` x `taps` pixels, for `M` vectors of channels (the first `n` of each).
///
/// # Safety
/// `corner` is the first pixel of the window, and all of them have `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
unsafe fn window_sum<V: Vector, const M: usize>(corner: *const f32, rows: usize, taps: usize, x_row: usize, pitch: usize, n: usize) -> [V; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = [V::zero(); M];
        for p in 0..rows {
            for q in 0..taps {
                for (m, sum) in sum.iter_mut().enumerate() {
                    *sum = sum.add(V::take(corner.add(p * x_row + q * pitch + m * V::N), n));
                }
            }
        }
        sum
    }
}

/// The sum of `shares` times gradients over the windows `rows` x `windows` that hold a pixel, for `M` vectors of channels (the
/// first `n` of each).
///
/// # Safety
/// As for [`spread_row`], for `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
unsafe fn shared_sum<V: Vector, const M: usize>(
    [rows, windows]: [&Range<usize>; 2],
    [down, along]: [*const f32; 2],
    dy: *const f32,
    dy_row: usize,
    pitch: usize,
    n: usize,
) -> [V; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = [V::zero(); M];
        for i in rows.clone() {
            for j in windows.clone() {
                let share = V::splat(*down.add(i) * *along.add(j));
                for (m, sum) in sum.iter_mut().enumerate() {
                    *sum = share.fma(V::take(dy.add(i * dy_row + j * pitch + m * V::N), n), *sum);
                }
            }
        }
        sum
    }
}

simd! {
    /// Row `i` of the output over the image at `x`. Windows that overlap re-read their rows from the cache: the prefetch keeps
    /// memory busy meanwhile with the row that comes next.
    unsafe fn mean_row<V>(
        geom: &Geom, count_padding: bool, i: usize, x: *const f32, x_pitch: usize, y: *mut f32, y_pitch: usize, cols: usize, add: bool,
    ) {
        let (rows, x_row) = (geom.taps(0, i), geom.input[1] * x_pitch);
        for j in 0..geom.output[1] {
            let taps = geom.taps(1, j);
            let divisor = V::splat((count(geom, count_padding, 0, i) * count(geom, count_padding, 1, j)) as f32);
            // A window in the padding has no corner: its sum is empty.
            let row = (i * geom.stride[0] + rows.start).saturating_sub(geom.before(0));
            let col = (j * geom.stride[1] + taps.start).saturating_sub(geom.before(1));
            let corner = x.wrapping_add(row * x_row + col * x_pitch);
            let (height, width, y, mut c) = (rows.len(), taps.len(), y.add(j * y_pitch), 0);
            while c + 4 * V::N <= cols {
                for m in 0..4 {
                    prefetch(corner.wrapping_add(height * x_row + (width - 1) * x_pitch + c + m * V::N));
                    prefetch(y.wrapping_add(geom.output[1] * y_pitch + c + m * V::N));
                }
                let sums = window_sum::<V, 4>(corner.wrapping_add(c), height, width, x_row, x_pitch, V::N);
                for (m, sum) in sums.into_iter().enumerate() {
                    sum.div(divisor).put(y.add(c + m * V::N), V::N, add);
                }
                c += 4 * V::N;
            }
            while c < cols {
                let n = V::N.min(cols - c);
                let [sum] = window_sum::<V, 1>(corner.wrapping_add(c), height, width, x_row, x_pitch, n);
                sum.div(divisor).put(y.add(c), n, add);
                c += V::N;
            }
        }
    }

    /// Row `row` of the input gradient, from the gradient `dy` of the image's outputs and `shares`: 1 / count along the height for
    /// each output row, then along the width for each output column.
    unsafe fn spread_row<V>(
        geom: &Geom, row: usize, dy: *const f32, dy_pitch: usize, shares: *const f32, dx: *mut f32, dx_pitch: usize, cols: usize, add: bool,
    ) {
        let (rows, dy_row) = (readers(geom, 0, row), geom.output[1] * dy_pitch);
        let shares = [shares, shares.add(geom.output[0])];
        for col in 0..geom.input[1] {
            let windows = readers(geom, 1, col);
            let (holders, dx, mut c) = ([&rows, &windows], dx.add(col * dx_pitch), 0);
            while c + 4 * V::N <= cols {
                let sums = shared_sum::<V, 4>(holders, shares, dy.add(c), dy_row, dy_pitch, V::N);
                for (m, sum) in sums.into_iter().enumerate() {
                    sum.put(dx.add(c + m * V::N), V::N, add);
                }
                c += 4 * V::N;
            }
            while c < cols {
                let n = V::N.min(cols - c);
                let [sum] = shared_sum::<V, 1>(holders, shares, dy.add(c), dy_row, dy_pitch, n);
                sum.put(dx.add(c), n, add);
                c += V::N;
            }
        }
    }
}

impl Run<Cpu> for AvgPool {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0), call.dst(0));
        let [_, height, width, _] = call.ins[0].ty.shape.four().expect("an activation");
        let geom = geom(&self.window, self.count_padding, [height, width]).expect("shape inference admits the window");
        let [out_h, out_w] = geom.output;
        cpu.pool.ranges(y.rows / out_w, grain(out_w * y.cols), |rows| {
            for r in rows {
                // SAFETY: `geom` keeps to the pixels of image `r / out_h`; output row `r` belongs to this thread.
                unsafe {
                    let from = x.ptr().add(r / out_h * height * width * x.pitch);
                    let to = y.ptr().add(r * out_w * y.pitch);
                    mean_row(cpu.isa, &geom, self.count_padding, r % out_h, from, x.pitch, to, y.pitch, y.cols, y.adds());
                }
            }
        });
    }
}

impl Run<Cpu> for AvgPoolDx {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let [_, out_h, out_w, _] = ins[0].shape.four().expect("an activation");
        (out_h + out_w) * 4
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, dx, scratch) = (call.device, call.src(0), call.dst(0), call.scratch());
        let geom = geom(&self.window, self.count_padding, self.input).expect("shape inference admits the window");
        let ([height, width], [out_h, out_w]) = (geom.input, geom.output);
        // SAFETY: no thread runs yet; the working memory holds a float for each output row and column.
        let shares = unsafe { scratch.flat() };
        let (along_height, along_width) = shares.split_at_mut(out_h);
        for (axis, shares) in [along_height, along_width].into_iter().enumerate() {
            shares.iter_mut().enumerate().for_each(|(o, share)| *share = 1.0 / count(&geom, self.count_padding, axis, o) as f32);
        }
        cpu.pool.ranges(dx.rows / width, grain(width * dx.cols), |rows| {
            for r in rows {
                // SAFETY: `readers` are outputs of image `r / height`; input row `r` belongs to this thread.
                unsafe {
                    let from = dy.ptr().add(r / height * out_h * out_w * dy.pitch);
                    let to = dx.ptr().add(r * width * dx.pitch);
                    let shares = scratch.ptr();
                    spread_row(cpu.isa, &geom, r % height, from, dy.pitch, shares, to, dx.pitch, dx.cols, dx.adds());
                }
            }
        });
    }
}
