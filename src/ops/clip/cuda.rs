use super::{ClipNorm, ClipValue};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Flat, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! { in "optimizer";
    fn sum_squares(g: *const f32, partial: *mut f64, n: u64, wide: i32);
    fn finish_norm(partial: *const f64, parts: i32, limit: f32, scale: *mut f32, norm: *mut f32, add: i32);
    fn scale_by(g: *const f32, scale: *const f32, y: *mut f32, add: i32, n: u64, wide: i32);
    fn clip_value(g: *const f32, limit: f32, y: *mut f32, add: i32, n: u64, wide: i32);
}

impl Run<Cuda> for ClipNorm {
    /// The sums of squares of all blocks, then the scale.
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        8 * Flat::most_blocks(ins[0].shape.len()) + 4
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (g, y, norm, partial) = (call.src(0), call.dst(0), call.dst(1), call.scratch());
        let flat = Flat::of(&[g, y]);
        let scale = partial.offset(8 * flat.blocks);
        call.launch(sum_squares, flat.blocks, THREADS, 0, (g.ptr, partial, flat.len, flat.wide));
        call.launch(finish_norm, 1, THREADS, 0, (partial, flat.blocks as i32, self.limit as f32, scale, norm.floats(), norm.add));
        call.launch(scale_by, flat.blocks, THREADS, 0, (g.ptr, scale, y.ptr, y.add, flat.len, flat.wide));
    }
}

impl Run<Cuda> for ClipValue {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (g, y) = (call.src(0), call.dst(0));
        let flat = Flat::of(&[g, y]);
        call.launch(clip_value, flat.blocks, THREADS, 0, (g.ptr, self.limit as f32, y.ptr, y.add, flat.len, flat.wide));
    }
}
