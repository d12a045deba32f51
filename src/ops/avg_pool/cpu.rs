use super::{AvgPool, AvgPoolDx, count, geom};
use crate::base::{Geom, Ty};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::ops::Run;
use crate::ops::window::{grain, readers};
use crate::simd;

simd! {
    /// Row `i` of the output over the image at `x`.
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
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut sum = V::zero();
                for p in 0..rows.len() {
                    for q in 0..taps.len() {
                        sum = sum.add(V::take(corner.add(p * x_row + q * x_pitch + c), n));
                    }
                }
                sum.div(divisor).put(y.add(j * y_pitch + c), n, add);
            }
        }
    }

    /// Row `row` of the input gradient, from the gradient `dy` of the image's outputs and `shares`: 1 / count along the height for
    /// each output row, then along the width for each output column.
    unsafe fn spread_row<V>(
        geom: &Geom, row: usize, dy: *const f32, dy_pitch: usize, shares: *const f32, dx: *mut f32, dx_pitch: usize, cols: usize, add: bool,
    ) {
        let (out_w, rows) = (geom.output[1], readers(geom, 0, row));
        let along_width = shares.add(geom.output[0]);
        for col in 0..geom.input[1] {
            let windows = readers(geom, 1, col);
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let mut sum = V::zero();
                for i in rows.clone() {
                    for j in windows.clone() {
                        let share = V::splat(*shares.add(i) * *along_width.add(j));
                        sum = share.fma(V::take(dy.add((i * out_w + j) * dy_pitch + c), n), sum);
                    }
                }
                sum.put(dx.add(col * dx_pitch + c), n, add);
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
