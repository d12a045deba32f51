use super::{GlobalAvgPool, GlobalAvgPoolDx};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::simd::Vector;
use crate::ops::Run;
use crate::ops::window::{Blocks, grain};
use crate::simd;

/// The mean of `M` vectors of channels (the first `n` of each) over an image of `height` x `width` pixels.
///
/// # Safety
/// As for [`mean`], for `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
unsafe fn mean_of<V: Vector, const M: usize>(x: *const f32, pitch: usize, [height, width]: [usize; 2], y: *mut f32, n: usize, add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = [V::zero(); M];
        for i in 0..height {
            let mut row = [V::zero(); M];
            for j in 0..width {
                for (m, row) in row.iter_mut().enumerate() {
                    *row = row.add(V::take(x.add((i * width + j) * pitch + m * V::N), n));
                }
            }
            for (sum, row) in sum.iter_mut().zip(row) {
                *sum = sum.add(row);
            }
        }
        for (m, sum) in sum.into_iter().enumerate() {
            sum.div(V::splat((height * width) as f32)).put(y.add(m * V::N), n, add);
        }
    }
}

simd! {
    /// `y[c] (+)= mean over the image at x`, for `cols` channels.
    unsafe fn mean<V>(x: *const f32, pitch: usize, size: [usize; 2], y: *mut f32, cols: usize, add: bool) {
        let mut c = 0;
        while c + 4 * V::N <= cols {
            mean_of::<V, 4>(x.add(c), pitch, size, y.add(c), V::N, add);
            c += 4 * V::N;
        }
        while c < cols {
            mean_of::<V, 1>(x.add(c), pitch, size, y.add(c), V::N.min(cols - c), add);
            c += V::N;
        }
    }

    /// `dx[c] (+)= dy[c] share`, for `cols` channels.
    unsafe fn scaled<V>(dy: *const f32, share: f32, dx: *mut f32, cols: usize, add: bool) {
        for c in (0..cols).step_by(V::N) {
            let n = V::N.min(cols - c);
            V::take(dy.add(c), n).mul(V::splat(share)).put(dx.add(c), n, add);
        }
    }
}

impl Run<Cpu> for GlobalAvgPool {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0), call.dst(0));
        let [images, height, width, channels] = call.ins[0].ty.shape.four().expect("an activation");
        let blocks = Blocks::new(images, channels, cpu.threads());
        cpu.pool.parts(blocks.parts(), |part, _| {
            let (image, block) = blocks.part(part);
            // SAFETY: channels `block` of row `image` of `y` belong to this part; the pixels are those of the image.
            unsafe {
                let from = x.ptr().add(image * height * width * x.pitch + block.start);
                let to = y.ptr().add(image * y.pitch + block.start);
                mean(cpu.isa, from, x.pitch, [height, width], to, block.len(), y.adds());
            }
        });
    }
}

impl Run<Cpu> for GlobalAvgPoolDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, dx) = (call.device, call.src(0), call.dst(0));
        let area = self.input[0] * self.input[1];
        let share = 1.0 / area as f32;
        cpu.pool.ranges(dx.rows, grain(dx.cols), |pixels| {
            for pixel in pixels {
                // SAFETY: pixel `pixel` of `dx` belongs to this thread; it lies in image `pixel / area`.
                unsafe {
                    let (from, to) = (dy.ptr().add(pixel / area * dy.pitch), dx.ptr().add(pixel * dx.pitch));
                    scaled(cpu.isa, from, share, to, dx.cols, dx.adds());
                }
            }
        });
    }
}
