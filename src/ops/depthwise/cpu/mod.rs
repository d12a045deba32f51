//! Two ways: a 3x3 window of stride 1 with one pixel of padding slides along a row (`slide.rs`); any other window is summed tap by
//! tap. The three rows of a window stay in the L2 cache, so that memory sees each element once.

mod slide;

pub(in crate::ops) use slide::{Entry, Walk, slide_rows};

use super::{Depthwise, DepthwiseDw, DepthwiseDx, geom};
use crate::base::{Geom, Ty};
use crate::device::Call;
use crate::device::cpu::simd::Vector;
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::Run;
use crate::ops::scale_shift::cpu::{Coefficients, Prologue};
use crate::ops::window::{Blocks, grain, readers};
use crate::simd;
use slide::{Line, slide_dw};

/// Most partial sums of a kernel gradient: the images are cut into as many runs, each is summed for itself, and the sums are
/// added in order. The cut does not depend on the number of threads.
const RUNS: usize = 32;

/// A pixel's channels `c..c + n`, normalised if they are to be.
///
/// # Safety
/// The coefficients have `c + n` floats.
#[inline(always)]
unsafe fn normalised<V: Vector>(x: V, c: usize, n: usize, pre: Option<Coefficients>) -> V {
    // SAFETY: the caller's promise.
    pre.map_or(x, |pre| unsafe { pre.apply(x, c, n) })
}

/// Whether the sliding loop serves this geometry, forward and backward.
fn slides(geom: &Geom) -> bool {
    geom.kernel == [3, 3] && geom.stride == [1, 1] && geom.pad == [1; 4]
}

simd! {
    /// Row `i` of the output of any window over the image at `x`; `w` is `[kernel_h, kernel_w, cols]`.
    unsafe fn window_row<V>(geom: &Geom, i: usize, x: *const f32, x_pitch: usize, pre: Option<Coefficients>, w: *const f32, y: *mut f32, y_pitch: usize, cols: usize, add: bool) {
        for j in 0..geom.output[1] {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut sum = V::zero();
                for p in geom.taps(0, i) {
                    for q in geom.taps(1, j) {
                        let row = i * geom.stride[0] + p - geom.before(0);
                        let col = j * geom.stride[1] + q - geom.before(1);
                        let pixel = normalised(V::take(x.add((row * geom.input[1] + col) * x_pitch + c), n), c, n, pre);
                        sum = pixel.fma(V::take(w.add((p * geom.kernel[1] + q) * cols + c), n), sum);
                    }
                }
                sum.put(y.add(j * y_pitch + c), n, add);
            }
        }
    }

    /// Row `row` of the input gradient of any window; `dy` is the gradient of the image's outputs.
    unsafe fn window_dx_row<V>(geom: &Geom, row: usize, dy: *const f32, dy_pitch: usize, w: *const f32, dx: *mut f32, dx_pitch: usize, cols: usize, add: bool) {
        for col in 0..geom.input[1] {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut sum = V::zero();
                for i in readers(geom, 0, row) {
                    for j in readers(geom, 1, col) {
                        let p = row + geom.before(0) - i * geom.stride[0];
                        let q = col + geom.before(1) - j * geom.stride[1];
                        let gradient = V::take(dy.add((i * geom.output[1] + j) * dy_pitch + c), n);
                        sum = gradient.fma(V::take(w.add((p * geom.kernel[1] + q) * cols + c), n), sum);
                    }
                }
                sum.put(dx.add(col * dx_pitch + c), n, add);
            }
        }
    }

    /// The part of output row `i` in the kernel gradient of any window: adds to `sums`, whose taps are `tap` floats apart.
    unsafe fn window_dw<V>(geom: &Geom, i: usize, x: *const f32, x_pitch: usize, pre: Option<Coefficients>, dy: *const f32, dy_pitch: usize, sums: *mut f32, tap: usize, cols: usize) {
        for p in geom.taps(0, i) {
            let row = i * geom.stride[0] + p - geom.before(0);
            for q in 0..geom.kernel[1] {
                for c in (0..cols).step_by(V::N) {
                    let n = V::N.min(cols - c);
                    let mut sum = V::zero();
                    for j in 0..geom.output[1] {
                        if let Some(col) = geom.source(1, j, q) {
                            let pixel = normalised(V::take(x.add((row * geom.input[1] + col) * x_pitch + c), n), c, n, pre);
                            sum = pixel.fma(V::take(dy.add(j * dy_pitch + c), n), sum);
                        }
                    }
                    sum.put(sums.add((p * geom.kernel[1] + q) * tap + c), n, true);
                }
            }
        }
    }

    /// `dw[0..n] (+)= sums[0..n]` added up over `runs` rows of `pitch` floats, in order.
    unsafe fn reduce<V>(sums: *const f32, runs: usize, pitch: usize, dw: *mut f32, n: usize, add: bool) {
        for e in (0..n).step_by(V::N) {
            let k = V::N.min(n - e);
            let mut sum = V::zero();
            for run in 0..runs {
                sum = sum.add(V::take(sums.add(run * pitch + e), k));
            }
            sum.put(dw.add(e), k, add);
        }
    }
}

/// The 3x3 window over images of `size` pixels.
fn slide_images(cpu: &Cpu, x: Src, entry: Entry, w: &[f32], turned: bool, y: Dst, size: [usize; 2]) {
    let row = size[1] * y.pitch;
    cpu.pool.ranges(y.rows / size[1], grain(size[1] * y.cols), |rows| {
        // SAFETY: these rows of the images in `y` belong to this thread; a checked filter has nine taps.
        unsafe {
            let to = y.ptr().add(rows.start * row);
            slide_rows(cpu.isa, x, entry, w, turned, size, rows.clone(), to, y.pitch, y.adds(), Walk::FROM_MEMORY);
        }
    });
}

impl Run<Cpu> for Depthwise {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, w, y) = (call.device, call.src(0), call.src(1).flat(), call.dst(0));
        let pre = Prologue::of(call, self.pre, 2);
        let [_, height, width, _] = call.ins[0].ty.shape.four().expect("an activation");
        let geom = geom(&self.window, height, width);
        if slides(&geom) {
            return slide_images(cpu, x, Entry::of(pre), w, false, y, geom.input);
        }
        let [out_h, out_w] = geom.output;
        cpu.pool.ranges(y.rows / out_w, grain(out_w * y.cols), |rows| {
            for r in rows {
                // SAFETY: `geom` keeps to the pixels of image `r / out_h`; output row `r` belongs to this thread.
                unsafe {
                    let from = x.ptr().add(r / out_h * height * width * x.pitch);
                    let to = y.ptr().add(r * out_w * y.pitch);
                    window_row(cpu.isa, &geom, r % out_h, from, x.pitch, pre.map(|p| p.from(0)), w.as_ptr(), to, y.pitch, y.cols, y.adds());
                }
            }
        });
    }
}

impl Run<Cpu> for DepthwiseDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, w, dx) = (call.device, call.src(0), call.src(1).flat(), call.dst(0));
        let geom = geom(&self.window, self.input[0], self.input[1]);
        if slides(&geom) {
            return slide_images(cpu, dy, Entry::Plain, w, true, dx, geom.input);
        }
        let ([height, width], [out_h, out_w]) = (geom.input, geom.output);
        cpu.pool.ranges(dx.rows / width, grain(width * dx.cols), |rows| {
            for r in rows {
                // SAFETY: `readers` are outputs of image `r / height`; input row `r` belongs to this thread.
                unsafe {
                    let from = dy.ptr().add(r / height * out_h * out_w * dy.pitch);
                    let to = dx.ptr().add(r * width * dx.pitch);
                    window_dx_row(cpu.isa, &geom, r % height, from, dy.pitch, w.as_ptr(), to, dx.pitch, dx.cols, dx.adds());
                }
            }
        });
    }
}

impl Run<Cpu> for DepthwiseDw {
    fn scratch(&self, _: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        ins[0].shape.dims()[0].min(RUNS) * outs[0].shape.len() * 4
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, dy, dw, sums) = (call.device, call.src(0), call.src(1), call.dst(0), call.scratch());
        let [images, height, width, channels] = call.ins[0].ty.shape.four().expect("an activation");
        let geom = geom(&self.window, height, width);
        let (runs, taps, isa) = (images.min(RUNS), geom.taps_total(), cpu.isa);
        let pre = Prologue::of(call, self.pre, 2);
        let blocks = Blocks::new(runs, channels, cpu.threads());
        cpu.pool.parts(blocks.parts(), |part, _| {
            let (run, block) = blocks.part(part);
            // SAFETY: channels `block` of partial sum `run` belong to this part; rows of `x` and `dy` are those of its images.
            unsafe {
                let (c, cols) = (block.start, block.len());
                let sums = sums.ptr().add(run * taps * channels + c);
                (0..taps).for_each(|t| std::ptr::write_bytes(sums.add(t * channels), 0, cols));
                let (each, pre) = (images.div_ceil(runs), pre.map(|p| p.from(c)));
                for image in (run * each).min(images)..((run + 1) * each).min(images) {
                    let from = x.ptr().add(image * height * width * x.pitch + c);
                    for i in 0..geom.output[0] {
                        let dy_row = dy.ptr().add((image * geom.output[0] + i) * geom.output[1] * dy.pitch + c);
                        if slides(&geom) {
                            let lines = Line::around(x, geom.input, image, i).map(|l| l.from(c));
                            slide_dw(isa, lines, pre, dy_row, dy.pitch, width, sums, channels, cols);
                        } else {
                            window_dw(isa, &geom, i, from, x.pitch, pre, dy_row, dy.pitch, sums, channels, cols);
                        }
                    }
                }
            }
        });
        cpu.pool.ranges(taps * channels, 1 << 12, |range| {
            // SAFETY: elements `range` of `dw` belong to this thread; all partial sums are complete.
            unsafe {
                let to = dw.ptr().add(range.start);
                reduce(isa, sums.ptr().add(range.start), runs, taps * channels, to, range.len(), dw.adds());
            }
        });
    }
}
